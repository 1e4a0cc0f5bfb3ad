import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Without a cluster there is nothing to collect: `make test-kubernetes` says that there is one.
if not os.environ.get("VIVACE_KUBE"):
    collect_ignore_glob = ["test_*.py"]

import cluster as kube  # noqa: E402

NAMESPACE = "observability"


@pytest.fixture(scope="session")
def tempo():
    """The tutorial's release: `helm install tempo … -n observability --values values-tempo.yaml`, nothing else."""
    if not os.environ.get("VIVACE_KUBE_REUSE"):
        kube.clear(NAMESPACE)
    release = kube.Release(NAMESPACE, [kube.HERE / "values-tempo.yaml"])
    yield release
    if not os.environ.get("VIVACE_KUBE_KEEP"):
        kube.clear(NAMESPACE, wait=False)


@pytest.fixture(scope="session")
def installed(tempo):
    """The same, installed and ready. Notes how long that took."""
    import time

    began = time.monotonic()
    if not os.environ.get("VIVACE_KUBE_REUSE") or tempo.name not in kube.run("helm", "list", "-q", "-n", NAMESPACE).stdout.split():
        tempo.install()
    after_helm = time.monotonic() - began
    tempo.wait_ready(seconds=300)
    kube.note("install", helm_seconds=round(after_helm, 1), all_ready_seconds=round(time.monotonic() - began, 1))
    return tempo


@pytest.fixture(scope="session")
def client(installed):
    client = kube.Client(installed.namespace)
    yield client
    client.close()
