"""Credentials from a Secret, as docs/operations.md has them, and what a pod says once they are wrong."""

import base64
import json

import pytest

import cluster as kube
from harness import eventually

NAMESPACE = "secret"


def secret(**values):
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    kube.apply(NAMESPACE, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3-credentials"}, "data": data})


@pytest.fixture
def release(tmp_path):
    kube.clear(NAMESPACE)
    kube.kubectl("create", "namespace", NAMESPACE)
    overlay = tmp_path / "secret.yaml"
    names = {"access_key": "${S3_ACCESS}", "secret_key": "${S3_SECRET}"}
    overlay.write_text(
        json.dumps(
            {
                "global": {"extraArgs": ["-config.expand-env=true"], "extraEnvFrom": [{"secretRef": {"name": "s3-credentials"}}]},
                "storage": {"trace": {"s3": names}},
            }
        )
    )
    yield kube.Release(NAMESPACE, [kube.HERE / "values-tempo.yaml", overlay])
    kube.clear(NAMESPACE, wait=False)


def test_credentials_come_from_a_secret(release):
    secret(S3_ACCESS="grafana-tempo", S3_SECRET="supersecret")
    release.install()
    release.wait_ready(seconds=300)
    kube.run("helm", "test", release.name, "-n", NAMESPACE, "--timeout", "120s")
    for pod in release.pods("querier"):
        shown = release.get(pod, "/status/config")
        assert "supersecret" not in shown and "grafana-tempo" in shown

    secret(S3_ACCESS="grafana-tempo", S3_SECRET="another")
    kube.kubectl("delete", "pod", "-n", NAMESPACE, *release.pods("querier"))

    def said():
        command = ["logs", "--previous", f"deployment/{release.name}-querier", "--tail", "1"]
        line = kube.kubectl("--namespace", NAMESPACE, *command, check=False)
        return line if "SignatureDoesNotMatch" in line else None

    line = eventually("the last line of the pod that ended says it", said, 120, every=1)
    assert "tempo-traces" in line and "another" not in line
