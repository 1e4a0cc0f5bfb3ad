"""What operators do to a running system, under a steady load of writes and reads.

After each: nothing that was acknowledged is missing, every read was whole at its first answer, and what was refused was refused
with a status that a client tries again. The client sends as the OTLP specification says (client.py).
"""

import json
import time

import pytest

import cluster as kube
from harness import eventually

RATE = 20


@pytest.fixture(scope="module")
def system(installed):
    """The tutorial's release as it was installed."""
    return installed


def judge(what, outcome, **figures):
    """Notes the load's numbers; fails when something is missing, was read in part, or was refused for good."""
    numbers, refused = outcome["numbers"], outcome["refused first attempts"]
    kube.note(
        what,
        **figures,
        requests=numbers["requests"],
        refused_first_attempts=refused,
        refused_percent=round(100 * sum(refused.values()) / numbers["requests"], 2),
        slowest_request_seconds=outcome["slowest seconds"],
        reads=numbers.get("reads by id", 0) + numbers.get("reads search", 0),
        slowest_read_seconds=outcome["slowest read seconds"],
        slowest_lookup_seconds=outcome["slowest lookup seconds"],
        slow_reads=outcome["slow reads"],
        bad_reads=numbers.get("bad reads by id", 0) + numbers.get("bad reads search", 0),
        acknowledged_traces=outcome["acknowledged traces"],
        missing_at_first=outcome["verified"]["missing"],
        missing_for_good=outcome["missing for good"],
        whole_after_seconds=outcome["whole after seconds"],
        texts=outcome["texts"],
        bad_read_examples=outcome["bad reads"][:3],
    )
    assert outcome["missing for good"] == 0, outcome["verified"]
    assert outcome["verified"]["missing"] == 0, f"whole only after {outcome['whole after seconds']} s: {outcome['verified']}"
    assert numbers.get("not retryable", 0) == 0, outcome["texts"]
    assert numbers.get("given up", 0) == 0, outcome["texts"]
    assert not outcome["bad reads"], outcome["bad reads"]


@pytest.mark.parametrize("component,up", [("distributor", 3), ("querier", 3), ("query-frontend", 2), ("compactor", 2), ("ingester", 5)])
def test_scaling_up_and_down(system, client, component, up):
    before = 3 if component == "ingester" else 1
    with client.load(rate=RATE) as outcome:
        seconds_up = system.scale(component, up)
        client.more_requests(100)
        seconds_down = system.scale(component, before)
        client.more_requests(100)
    judge(f"{component} {before} to {up} and back", outcome, up_seconds=round(seconds_up, 1), down_seconds=round(seconds_down, 1))


@pytest.mark.parametrize("component", list(kube.COMPONENTS))
def test_rolling_restart(system, client, component):
    with client.load(rate=RATE) as outcome:
        seconds = system.rollout_restart(component)
        client.more_requests(60)
    judge(f"rolling restart of {component}", outcome, seconds=round(seconds, 1))


def test_an_ingester_pod_is_deleted_without_grace(system, client):
    with client.load(rate=RATE) as outcome:
        began = time.monotonic()
        victim = f"{system.name}-ingester-1"
        uid = system.pods("ingester")[victim]["metadata"]["uid"]
        kube.kubectl("delete", "pod", "-n", system.namespace, victim, "--grace-period=0", "--force")

        def back():
            pod = system.pods("ingester").get(victim)
            return pod and pod["metadata"]["uid"] != uid and kube.is_ready(pod)

        eventually("a new one is ready", back, 120, every=0.5)
        seconds = time.monotonic() - began
        client.more_requests(100)
    judge("ingester pod deleted without grace", outcome, back_seconds=round(seconds, 1))


def test_autoscalers_scale_up_under_load_and_down_after_it(system, client, tmp_path):
    overlay = tmp_path / "autoscaling.yaml"
    scaler = {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    small = {"requests": {"cpu": "20m", "memory": "32Mi"}}
    scaled = {"autoscaling": scaler, "resources": small}
    overlay.write_text(json.dumps({"querier": scaled, "distributor": scaled}))
    plain = list(system.values)
    system.values = [*plain, overlay]
    try:
        system.upgrade()
        system.settle()

        def replicas():
            return {c: len(system.pods(c)) for c in ("querier", "distributor")}

        with client.load(rate=40, writers=8, readers=6) as outcome:
            began = time.monotonic()
            eventually("both have scaled up", lambda: all(count > 1 for count in replicas().values()), 240, every=1)
            up_seconds = time.monotonic() - began
            at_most = replicas()
        began = time.monotonic()
        eventually("both are down to one", lambda: set(replicas().values()) == {1}, 400, every=1)
        judge("autoscaling", outcome, up_seconds=round(up_seconds, 1), replicas=at_most, down_seconds=round(time.monotonic() - began, 1))
    finally:
        system.values = plain
        system.upgrade()
        system.settle()


def test_the_newest_is_still_there_after_all_this(system, client):
    """All ingesters restarted one after the other, without a load: what only they held is read again."""
    with client.load(rate=RATE):
        pass
    system.rollout_restart("ingester")
    assert client.post("/verify")["missing"] == 0
