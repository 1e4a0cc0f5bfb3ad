"""A node is drained, as for its maintenance: the disruption budgets let pods go one by one, and nothing is lost."""

import os
import time

import pytest

import cluster as kube
import test_2_load


@pytest.fixture(scope="module")
def nodes(installed):
    """Names of the nodes; a bare machine's cluster gets a second one for as long as this takes."""
    own = os.environ.get("VIVACE_SECOND_NODE")
    if own:
        kube.run(own, "up")
    names = [node["metadata"]["name"] for node in kube.objects("nodes")["items"]]
    if len(names) < 2:
        pytest.skip("a drain needs two nodes")
    yield names
    for name in names:
        kube.kubectl("uncordon", name)
    if own:
        # Its pods go home first.
        kube.kubectl("drain", names[1], "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=300s", check=False)
        installed.wait_ready(seconds=300)
        kube.run(own, "down")


def test_a_node_is_drained(installed, nodes, client):
    installed.settings = []
    installed.upgrade()
    installed.settle()
    on = lambda node: sorted(n for n, pod in installed.everything().items() if pod["spec"]["nodeName"] == node)  # noqa: E731
    first = nodes[0]
    with client.load(rate=test_2_load.RATE) as outcome:
        began = time.monotonic()
        # The client and MinIO are not what is tested: they stay where they are.
        selector = "app.kubernetes.io/component in (distributor,ingester,querier,query-frontend,compactor)"
        kube.kubectl(
            "drain", first, "--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--pod-selector={selector}", "--timeout=500s", timeout=600
        )
        drained = time.monotonic() - began
        installed.wait_ready(seconds=300)
        client.more_requests(100)
    left = [n for n in on(first) if "minio" not in n and "memcached" not in n and "client" not in n]
    kube.kubectl("uncordon", first)
    test_2_load.judge("node drained", outcome, seconds=round(drained, 1))
    assert not left, left
