"""Ingesters that end, die and come back with or without their disk, while the block list is not polled: every answer stays whole."""

import contextlib
import os
import random
import shutil
import threading
import time

import pytest

import harness
import spans
from harness import eventually, http

INGESTERS = ["ingester-0", "ingester-1", "ingester-2"]


@pytest.fixture
def cluster(tmp_path, minio, programs):
    # Nobody learns of a block by looking into the bucket.
    cluster = harness.Cluster(tmp_path, minio, poll="1h", ingester="  flush_all_on_shutdown: true")
    programs.extend(cluster.programs.values())
    return cluster.start()


class Sent:
    """What was acknowledged, and whether the answers have it."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.began = int(time.time()) - 1
        self.traces = []

    def send(self, traces):
        message, ids = spans.request(service="kept", traces=traces)
        body = message.SerializeToString()

        def acknowledged():
            status = http(self.cluster.otlp_http_url, data=body, content_type="application/x-protobuf").status
            assert status in (200, 503), status
            return status == 200

        # The same bytes again, as clients do; what was stored of the first try must not count twice.
        eventually("the request is acknowledged", acknowledged, 30)
        self.traces.extend(ids)

    def problem(self):
        """None when everything is there, each span once."""
        query = self.cluster.query
        absent = [t for t in self.traces if len(query.trace(t)) != 3]
        if absent:
            return f"by id: {len(absent)} of {len(self.traces)} traces not whole"
        found = query.found('{ resource.service.name = "kept" }', limit=10 * len(self.traces))
        if found != set(self.traces):
            return f"search: {len(set(self.traces) - found)} of {len(self.traces)} traces missing"
        return self.miscount()

    def miscount(self):
        """None when metrics count each span once."""
        answer = self.cluster.query.get(
            "/api/metrics/query", q="{} | count_over_time()", start=self.began, end=int(time.time()) + 1
        )
        assert answer.status == 200, answer
        count = sum(series.get("value", 0) for series in answer.json()["series"])
        return None if count == 3 * len(self.traces) else f"metrics: {count} of {3 * len(self.traces)} spans"


@contextlib.contextmanager
def whole_meanwhile(sent, readers=1, look=Sent.problem):
    """Reads all the time; fails when one answer was not whole."""
    problems, over, reads = [], threading.Event(), []

    def read():
        while not over.is_set():
            began = time.monotonic()
            try:
                problem = look(sent)
            except Exception as error:  # noqa: BLE001
                problem = repr(error)
            reads.append(time.monotonic() - began)
            if problem:
                problems.append((round(time.time() % 1000, 1), problem))

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    try:
        yield
        mark = len(reads)
        eventually("reads went on", lambda: len(reads) > mark + 2 * readers or problems, 60)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not problems, f"{len(problems)} of {len(reads)}: {problems[:5]}"


def copies_are_whole(cluster):
    ingesters = [cluster.programs[name] for name in INGESTERS]
    eventually("what has lost a copy is flushed", lambda: not any(i.metric("vivace_ingester_under_replicated_segments") for i in ingesters))


def lose_disk(cluster, name):
    shutil.rmtree(cluster.folder / name)


@pytest.mark.parametrize("keeps_disk", [True, False])
def test_a_rolling_restart(cluster, keeps_disk):
    sent = Sent(cluster)
    sent.send(20)
    with whole_meanwhile(sent):
        for name in INGESTERS:
            ingester = cluster.programs[name]
            assert ingester.stop() == 0
            if not keeps_disk:
                lose_disk(cluster, name)
            ingester.start().wait_ready()
            eventually("it is back", lambda: cluster.ring_size() == 3)
    sent.send(5)
    assert sent.problem() is None


def test_one_ends_for_good(cluster):
    sent = Sent(cluster)
    sent.send(20)
    with whole_meanwhile(sent):
        assert cluster.programs["ingester-2"].stop() == 0
        ring = http(f"{cluster.programs['distributor'].url}/ingester/ring", Accept="application/json").json()
        assert sorted(shard["id"] for shard in ring["shards"]) == INGESTERS[:2], "it has left the ring"
    # What it flushed is answered from by another, who goes too.
    sent.send(5)
    with whole_meanwhile(sent):
        assert cluster.programs["ingester-1"].stop() == 0


def test_a_signal_after_a_request_to_shut_down_is_no_impatience(cluster):
    """As with a container whose hook before its end asks `/shutdown`."""
    sent = Sent(cluster)
    sent.send(20)
    ingester = cluster.programs["ingester-0"]
    assert http(f"{ingester.url}/shutdown", data=b"", method="POST").status == 200
    assert ingester.stop() == 0
    assert cluster.blocks(), "it flushed before it ended"
    assert sent.problem() is None


def test_one_dies_and_comes_back_without_its_disk(cluster):
    sent = Sent(cluster)
    sent.send(10)
    cluster.flush()
    # Not every ingester need have been given one of so few.
    eventually("all is in the bucket", lambda: cluster.stored_traces() == len(sent.traces))
    sent.send(10)
    with whole_meanwhile(sent):
        ingester = cluster.programs["ingester-1"]
        ingester.kill()
        lose_disk(cluster, "ingester-1")
        # At once, before anybody has noticed that it is dead.
        ingester.start().wait_ready()
        eventually("it is back", lambda: cluster.ring_size() == 3)
    cluster.flush()
    assert sent.problem() is None


def test_spans_count_once_while_others_take_them_over(cluster):
    sent = Sent(cluster)
    for name in INGESTERS * 2:
        sent.send(5)
        ingester = cluster.programs[name]
        with whole_meanwhile(sent, readers=4, look=Sent.miscount):
            ingester.kill()
            lose_disk(cluster, name)
            ingester.start().wait_ready()
            eventually("it is back", lambda: cluster.ring_size() == 3)
        copies_are_whole(cluster)


def test_a_successor_waits_until_the_killed_one_has_let_go(cluster):
    """As pods do whose predecessors were deleted without grace and share a volume with them."""
    sent = Sent(cluster)
    sent.send(20)
    killed = cluster.programs["ingester-0"]
    http_port, grpc_port, gossip_port = harness.free_ports(3)
    ports = {"HTTP_PORT": str(http_port), "GRPC_PORT": str(grpc_port), "GOSSIP_PORT": str(gossip_port)}
    successor = harness.Vivace("successor", killed.arguments, cluster.folder, http_port, {"NAME": "ingester-0", **ports})
    cluster.programs["successor"] = successor.start()
    try:
        eventually("it waits", lambda: "waiting for another process to let go" in successor.output())
        killed.kill()
        successor.wait_ready()
        eventually("it is a member", lambda: cluster.ring_size() == 3)
        eventually("all is there", lambda: sent.problem() is None)
    finally:
        successor.kill()


@pytest.mark.parametrize("seed", [int(s) for s in os.environ.get("VIVACE_SEEDS", "1").split(",")])
def test_faults_in_any_order(cluster, seed):
    """One ingester at a time ends, dies, and comes back with or without its disk, between writes and flushes."""
    chance = random.Random(seed)
    print(f"seed {seed}")
    sent = Sent(cluster)
    sent.send(5)
    for _ in range(4):
        name = chance.choice(INGESTERS)
        ingester = cluster.programs[name]
        ends, keeps_disk = chance.random() < 0.4, chance.random() < 0.5
        pause = chance.choice([0, 0, 1, 8])
        print(f"{name}: {'ends' if ends else 'dies'}, {'keeps' if keeps_disk else 'loses'} its disk, is away for {pause} s")
        with whole_meanwhile(sent):
            if ends:
                assert ingester.stop() == 0
            else:
                ingester.kill()
            if not keeps_disk:
                lose_disk(cluster, name)
            time.sleep(pause)
            ingester.start().wait_ready()
            eventually("it is back", lambda: cluster.ring_size() == 3)
        # What has lost a copy is flushed at once; one fault at a time ends then.
        copies_are_whole(cluster)
        for _ in range(chance.randrange(4)):
            sent.send(chance.randrange(1, 6))
        if chance.random() < 0.3:
            cluster.flush_living(except_for=chance.choice(INGESTERS))
    assert sent.problem() is None
