"""charts/vivace: one pod with a volume."""

import os
import re

import pytest

import cluster as kube
from harness import eventually

NAMESPACE = "single"


@pytest.fixture(scope="module")
def single():
    kube.clear(NAMESPACE)
    release = kube.Release(NAMESPACE, [], chart="vivace", settings=["persistence.enabled=true"])
    release.install()
    release.wait_ready(count=1, seconds=180)
    yield release
    kube.clear(NAMESPACE, wait=False)


def written(release):
    """Writes a trace with the pod's own command line; it is found at once. Returns its id."""
    said = kube.kubectl("exec", "-n", NAMESPACE, f"{release.name}-0", "--", "/usr/bin/vivace-cli", "check", "round-trip")
    return re.match(r"Trace ([0-9a-f]{32}) of 3 spans", said)[1]


def require_there(release, trace_id):
    """By id and by a search, through port-forward."""
    cli, query = os.environ["VIVACE_CLI"], f'{{ span.check.id = "{trace_id}" }}'
    with kube.Forward(NAMESPACE, f"svc/{release.name}", 3200) as address:
        place = ["--address", f"http://{address}"]
        tree = kube.run(cli, "query", "trace", *place, trace_id).stdout
        assert "3 spans of 2 services" in tree, tree
        eventually("the search finds it", lambda: trace_id in kube.run(cli, "query", "search", *place, query).stdout, 30)


def test_helm_test(single):
    done = kube.run("helm", "test", single.name, "-n", NAMESPACE, "--logs", "--timeout", "120s")
    assert "The trace was written and read back in " in done.stdout, done.stdout


@pytest.mark.parametrize("options", [[], ["--grace-period=0", "--force"]], ids=["ends", "without-grace"])
def test_the_pod_is_deleted(single, options):
    """What was flushed at the end, and what is in the log, are both on the volume."""
    trace_id = written(single)
    name = f"{single.name}-0"
    before = single.pods()[name]["metadata"]["uid"]
    kube.kubectl("delete", "pod", "-n", NAMESPACE, name, *options)
    eventually("another pod is there", lambda: single.pods().get(name, {"metadata": {"uid": before}})["metadata"]["uid"] != before, 60)
    single.wait_ready(count=1)
    require_there(single, trace_id)
