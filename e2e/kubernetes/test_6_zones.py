"""Ingesters in zones: each trace has a copy in each zone, so a whole zone may go."""

import pytest

import cluster as kube
import test_2_load
from harness import eventually

NAMESPACE = "zones"
ZONES = ["zone-a", "zone-b", "zone-c"]


@pytest.fixture(scope="module", params=["true", "false"], ids=["volumes", "no-volumes"])
def zones(request):
    kube.clear(NAMESPACE)
    settings = [f"ingester.persistence.enabled={request.param}"]
    release = kube.Release(NAMESPACE, [kube.HERE / "values-tempo.yaml", kube.HERE / "values-zones.yaml"], settings=settings)
    release.install()
    release.wait_ready(seconds=300)
    yield release
    kube.clear(NAMESPACE, wait=False)


@pytest.fixture(scope="module")
def client(zones):
    client = kube.Client(NAMESPACE)
    yield client
    client.close()


def of_zone(release, zone):
    return sorted(name for name, pod in release.pods("ingester").items() if pod["metadata"]["labels"]["zone"] == zone)


def test_every_zone_has_its_ingesters(zones):
    for zone in ZONES:
        assert of_zone(zones, zone) == [f"{zones.name}-ingester-{zone}-{number}" for number in range(2)]
    eventually("all are in the ring", lambda: sorted(zones.ring().values()) == ["ACTIVE"] * 6, 60)


@pytest.mark.parametrize("zone", ZONES[:2])
def test_a_zone_is_deleted_without_grace(zones, client, zone):
    """Both its ingesters at once, under load: a quorum of each trace's copies is in the other zones."""
    with client.load(rate=test_2_load.RATE) as outcome:
        client.more_requests(100)
        kube.kubectl("delete", "pod", "-n", NAMESPACE, *of_zone(zones, zone), "--grace-period=0", "--force")
        client.more_requests(200)
        zones.wait_ready()
    test_2_load.judge(f"zones: both ingesters of {zone} deleted without grace", outcome)


def test_a_zone_stays_away(zones, client):
    """Everything is read before the zone comes back, so what is found is in the other two."""
    gone = of_zone(zones, "zone-c")
    try:
        with client.load(rate=test_2_load.RATE) as outcome:
            client.more_requests(100)
            # Without the set nothing brings the pods back, and nothing asks them to flush.
            kube.kubectl("delete", "-n", NAMESPACE, f"statefulset/{zones.name}-ingester-zone-c", "--cascade=orphan")
            kube.kubectl("delete", "pod", "-n", NAMESPACE, *gone, "--grace-period=0", "--force")
            client.more_requests(200)
        assert of_zone(zones, "zone-c") == []
    finally:
        zones.upgrade()
        zones.wait_ready()
    test_2_load.judge("zones: zone-c away", outcome)
