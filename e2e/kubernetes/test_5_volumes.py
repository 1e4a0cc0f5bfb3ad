"""Ingesters with volumes: their logs outlive their pods, so nothing has to be flushed when one ends."""

import pytest

import cluster as kube
import test_2_load

NAMESPACE = "volumes"
SETTINGS = ["ingester.persistence.enabled=true", "ingester.config.flush_all_on_shutdown=false"]


@pytest.fixture(scope="module")
def volumes():
    kube.clear(NAMESPACE)
    release = kube.Release(NAMESPACE, [kube.HERE / "values-tempo.yaml"], settings=SETTINGS)
    release.install()
    release.wait_ready(seconds=300)
    yield release
    kube.clear(NAMESPACE, wait=False)


@pytest.fixture(scope="module")
def client(volumes):
    client = kube.Client(NAMESPACE)
    yield client
    client.close()


def test_rolling_restart(volumes, client):
    with client.load(rate=test_2_load.RATE) as outcome:
        seconds = volumes.rollout_restart("ingester")
        client.more_requests(60)
    test_2_load.judge("volumes: rolling restart of ingester", outcome, seconds=round(seconds, 1))


def test_one_is_deleted_without_grace(volumes, client):
    with client.load(rate=test_2_load.RATE) as outcome:
        kube.kubectl("delete", "pod", "-n", NAMESPACE, f"{volumes.name}-ingester-1", "--grace-period=0", "--force")
        client.more_requests(100)
        volumes.wait_ready(count=9)
    test_2_load.judge("volumes: an ingester pod deleted without grace", outcome)


def test_all_three_are_deleted_without_grace(volumes, client):
    """Nobody can answer then, so errors are in order; what was acknowledged must be there afterwards."""
    with client.load(rate=test_2_load.RATE) as outcome:
        client.more_requests(60)
        pods = [f"{volumes.name}-ingester-{number}" for number in range(3)]
        kube.kubectl("delete", "pod", "-n", NAMESPACE, *pods, "--grace-period=0", "--force")
        client.more_requests(60)
        volumes.wait_ready(count=9)
    outcome["bad reads"] = [bad for bad in outcome["bad reads"] if "no ingester answers" not in bad[2]]
    test_2_load.judge("volumes: all ingester pods deleted without grace", outcome)


def test_five_and_back(volumes, client):
    with client.load(rate=test_2_load.RATE) as outcome:
        up = volumes.scale("ingester", 5)
        client.more_requests(60)
        down = volumes.scale("ingester", 3)
        client.more_requests(60)
    test_2_load.judge("volumes: ingester 3 to 5 and back", outcome, up_seconds=round(up, 1), down_seconds=round(down, 1))
