"""What helm does to a running system: upgrade, rollback, uninstall, and values that are wrong."""

import json
import time

import pytest

import cluster as kube
from harness import eventually


def revision_of(release):
    """Uid of each pod, without those that come and go by themselves."""
    return {name: pod["metadata"]["uid"] for name, pod in release.everything().items()}


def flush(release):
    """What the ingesters hold goes to the bucket, as before a maintenance: `/flush`."""
    for pod in release.pods("ingester"):
        release.get(pod, "/flush")

    def done():
        held = {pod: release.metric(pod, "vivace_ingester_held_segments") for pod in release.pods("ingester")}
        assert not any(held.values()), held
        return True

    eventually("everything is in the bucket", done, 60, every=1)


@pytest.fixture(scope="module")
def settled(installed):
    installed.values = [kube.HERE / "values-tempo.yaml"]
    installed.settings = []
    installed.upgrade()
    installed.settle()
    return installed


def test_a_tenants_limit_is_read_without_a_restart(settled):
    """A limit in `per_tenant_overrides` is in a file that is read again: no pod rolls."""
    before = revision_of(settled)
    settled.settings = ["per_tenant_overrides.single-tenant.max_bytes_per_trace=1234567"]
    settled.upgrade()
    distributor = next(iter(settled.pods("distributor")))

    def known():
        page = settled.get(distributor, "/status/runtime_config")
        assert "1234567" in page, page[:500]
        return True

    began = time.monotonic()
    # The kubelet brings a changed ConfigMap to pods once a minute, or a little later.
    eventually("the limit is known", known, 150, every=1)
    kube.note("a changed tenant limit", known_after_seconds=round(time.monotonic() - began, 1))
    assert revision_of(settled) == before
    settled.rollback()
    settled.settings = []
    eventually("the limit is gone", lambda: "1234567" not in settled.get(distributor, "/status/runtime_config"), 150, every=1)
    assert revision_of(settled) == before


def test_a_changed_component_rolls_alone_and_back(settled):
    before = revision_of(settled)
    settled.settings = ["querier.config.max_concurrent_queries=7"]
    settled.upgrade()
    settled.settle()
    after = revision_of(settled)
    rolled = sorted(name for name in before if after.get(name) != before[name])
    kube.note("querier.config.max_concurrent_queries changed", rolled=rolled)
    assert "max_concurrent_queries: 7" in settled.get(next(iter(settled.pods("querier"))), "/status/config")
    assert len(rolled) == 1 and "querier" in rolled[0], rolled

    settled.rollback()
    settled.settings = []
    settled.settle()
    assert "max_concurrent_queries: 20" in settled.get(next(iter(settled.pods("querier"))), "/status/config")
    again = revision_of(settled)
    assert {name for name in after if again.get(name) != after[name]} == {name for name in after if "-querier-" in name}


def test_uninstalled_and_installed_again_old_traces_are_found(settled, client):
    with client.load(rate=20):
        eventually("some traces were sent", lambda: client.stats()["numbers"]["requests"] > 100, 60)
    # MinIO goes with the release, so nothing could be flushed to it while the ingesters end. A bucket of one's own stays.
    flush(settled)
    began = time.monotonic()
    settled.uninstall()
    eventually("its pods are gone", lambda: not settled.everything(), 320, every=1)
    kube.note("uninstall", seconds=round(time.monotonic() - began, 1))
    began = time.monotonic()
    settled.install()
    settled.wait_ready(seconds=300)
    kube.note("install again", all_ready_seconds=round(time.monotonic() - began, 1))

    def complete():
        verified = client.post("/verify")
        assert verified["missing"] == 0, verified
        return verified

    verified = eventually("what was acknowledged before is found", complete, 120, every=2)
    assert verified["traces"] > 50


WRONG = {
    "a bucket that does not exist": (["storage.trace.s3.bucket=no-such-bucket"], "no-such-bucket"),
    "credentials that are not known": (["storage.trace.s3.secret_key=wrong-secret"], "tempo-traces"),
    "an address where nothing is": (["storage.trace.s3.endpoint=no-such-host:9000"], "no-such-host"),
    "a key misspelt": (["tempo.structuredConfig.ingester.max_blok_duration=5m"], "max_blok_duration"),
    "a value of the wrong kind": (["tempo.structuredConfig.ingester.max_block_duration=often"], "max_block_duration"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_is_wrong_is_said_in_one_sentence(settled, what):
    """The last log line of a pod that cannot start names what is wrong."""
    settings, word = WRONG[what]
    there = ["minio.enabled=false", f"storage.trace.s3.endpoint=tempo-minio.{settled.namespace}:9000"]
    release = kube.Release("wrong", settled.values, settings=[*there, *settings])
    try:
        release.install()

        def said():
            pods = release.pods("ingester")
            assert pods, "no pods"
            text = "".join(release.log(pod, 1) for pod in pods)
            assert word in text, text
            return next(line for line in text.splitlines() if word in line)

        line = eventually("the last log line names it", said, 90, every=1)
        states = [s["state"] for pod in release.pods("ingester").values() for s in pod["status"].get("containerStatuses", [])]
        kube.note(f"wrong: {what}", line=line, states=sorted({json.dumps(sorted(s)) for s in states}))
        assert len(line) < 600, line
    finally:
        kube.clear("wrong")
