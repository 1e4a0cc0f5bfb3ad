"""Moving from Tempo: the claim of an ingester already holds what Tempo left below /var/tempo/wal.

Those files are the only copy of what Tempo had not flushed; the way back to Tempo needs them. Vivace reads none of them and
leaves them alone.
"""

import json

import pytest

import cluster as kube

NAMESPACE = "moving"
CLAIM = "data-tempo-ingester-0"
# As the reference's ingester lays them out: blocks being filled in folders of their own, and completed ones below blocks/, with a
# marker once they are in the bucket. Contents that cannot be read, so that a reader would say so.
OPEN = "3f6c2a52-6a9e-4b0e-9a53-5b6f5d7b8a01+single-tenant+vParquet4"
META = json.dumps({"format": "vParquet4", "blockID": "3f6c2a52-6a9e-4b0e-9a53-5b6f5d7b8a01", "tenantID": "single-tenant"})
WAL_BLOCKS = {
    f"wal/{OPEN}/meta.json": META,
    f"wal/{OPEN}/0000000001": "PAR1 a page, whole PAR1",
    f"wal/{OPEN}/0000000002": "",
    "wal/9d1b5c1e-98c5-4d0b-8a06-f2f1a0f6c702+tenant-b+vParquet4/0000000001": "PAR1 a page without meta.json",
    "wal/lost+found/.keep": "",
}
COMPLETED = {
    f"wal/blocks/single-tenant/{block}/{name}": f"{name} of {block}"
    for block in ("5a1f0f3c-52f4-4be7-a6a5-6c2a8d1e9b03", "c0a80101-7f3e-4f57-9d44-0d9f5e1a2b04")
    for name in ("meta.json", "data.parquet", "index", "bloom-0")
} | {"wal/blocks/single-tenant/5a1f0f3c-52f4-4be7-a6a5-6c2a8d1e9b03/flushed": "2026-11-20T12:00:00Z"}

WRITE = """
import json, pathlib, sys
for name, text in json.loads(sys.argv[1]).items():
    file = pathlib.Path("/var/tempo", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
"""
READ = """
import json, pathlib
root = pathlib.Path("/var/tempo")
print(json.dumps({str(file.relative_to(root)): file.read_text(errors="replace") for file in root.rglob("*") if file.is_file()}))
"""


def on_the_volume(program, *arguments):
    """Runs a Python program in a pod that has the claim, as the chart's user. Returns what it prints."""
    name = "volume"
    container = {
        "name": name,
        "image": kube.CLIENT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/python3", "-c", program, *arguments],
        "volumeMounts": [{"name": "data", "mountPath": "/var/tempo"}],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
    }
    kube.apply(
        NAMESPACE,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"vivace-test": name}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [container],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
            },
        },
    )
    try:
        kube.kubectl("wait", "-n", NAMESPACE, f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
        return kube.kubectl("logs", "-n", NAMESPACE, name)
    finally:
        kube.kubectl("delete", "pod", "-n", NAMESPACE, name, "--grace-period=0", "--force", check=False)


@pytest.fixture(scope="module")
def moved():
    kube.clear(NAMESPACE)
    kube.kubectl("create", "namespace", NAMESPACE)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    kube.apply(NAMESPACE, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim})
    on_the_volume(WRITE, json.dumps(WAL_BLOCKS | COMPLETED))
    release = kube.Release(NAMESPACE, [kube.HERE / "values-tempo.yaml", kube.HERE / "values-moving.yaml"])
    release.install()
    release.wait_ready(seconds=300)
    yield release
    kube.clear(NAMESPACE, wait=False)


@pytest.fixture(scope="module")
def left(moved):
    """What is on the volume after writes, reads, a flush and a restart."""
    for _ in range(2):
        done = kube.run("helm", "test", moved.name, "-n", NAMESPACE, "--logs", "--timeout", "120s")
        assert "The trace was written and read back in " in done.stdout, done.stdout
        moved.rollout_restart("ingester")
        moved.wait_ready()
    return json.loads(on_the_volume(READ))


def test_the_ingester_takes_the_volume(moved):
    pod = moved.pods("ingester")["tempo-ingester-0"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [CLAIM]
    assert sum(status["restartCount"] for status in pod["status"]["containerStatuses"]) == 0
    errors = [line for line in moved.log("tempo-ingester-0").splitlines() if "level=error" in line]
    assert not errors, errors


def test_blocks_in_the_log_stay(left):
    assert {name: left.get(name) for name in WAL_BLOCKS} == WAL_BLOCKS


def test_completed_blocks_stay(left):
    """Of two, one is flushed, the other is the only copy."""
    assert {name: left.get(name) for name in COMPLETED} == COMPLETED
