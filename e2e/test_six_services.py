"""Six services in their own processes, three ingesters, replication factor 3, MinIO behind them, real clients before them."""

import json
import threading
import time

import pytest
from minio.error import S3Error

import harness
import spans
from harness import eventually, http

NAMES = ["POST /order", "charge", "check stock", "query"]


@pytest.fixture
def cluster(tmp_path, minio, programs):
    cluster = harness.Cluster(tmp_path, minio)
    programs.extend(cluster.programs.values())
    return cluster.start()


def require_complete(cluster, ids, service_counts):
    for trace_id in ids:
        assert sorted(cluster.query.trace(trace_id).values()) == NAMES, trace_id
    assert cluster.query.found('{ name = "POST /order" }') == set(ids)
    assert cluster.query.found("{ span.http.status_code = 200 && kind = internal }") == set(ids)
    for service, count in service_counts.items():
        assert len(cluster.query.found(f'{{ resource.service.name = "{service}" }}')) == count, service
    assert cluster.query.values("resource.service.name") == set(service_counts)


def test_real_clients_before_and_after_the_flush(cluster):
    grpc = spans.Sdk("shop-grpc", grpc=f"127.0.0.1:{cluster.otlp_grpc}")
    over_http = spans.Sdk("shop-http", http=cluster.otlp_http_url)
    ids = [sdk.order(n) for n in range(1, 16) for sdk in (grpc, over_http)]
    grpc.close()
    over_http.close()
    spans.telemetrygen(f"127.0.0.1:{cluster.otlp_grpc}", "telemetrygen", traces=50)
    counts = {"shop-grpc": 15, "shop-http": 15, "telemetrygen": 50}
    require_complete(cluster, ids, counts)

    cluster.flush()
    eventually("blocks are in the bucket", cluster.blocks)
    require_complete(cluster, ids, counts)

    # Stored once: what three replicas logged lies in the bucket one time.
    stored = 80
    eventually("every trace is stored", lambda: stored_traces(cluster) >= stored)
    assert stored_traces(cluster) == stored

    # A restart leaves nothing in the ingesters but what is in the bucket.
    for ingester in cluster.ingesters():
        assert ingester.stop() == 0
        ingester.start().wait_ready()
    eventually("all ingesters are back", lambda: cluster.ring_size() == 3)
    require_complete(cluster, ids, counts)
    for program in cluster.programs.values():
        assert "panicked" not in program.output(), program.name


def stored_traces(cluster):
    """How many traces the metas of the live blocks count. A block that goes while it is counted is an AssertionError."""
    client = cluster.minio.client()
    try:
        metas = [json.loads(client.get_object(cluster.BUCKET, key).read()) for key in cluster.blocks()]
    except S3Error as error:
        raise AssertionError(f"a block went while blocks were counted: {error.code}") from error
    return sum(meta["totalObjects"] for meta in metas)


def test_kill_one_ingester_in_the_middle(cluster):
    sdk = spans.Sdk("steady", http=cluster.otlp_http_url)
    stop = threading.Event()
    sent = []

    def send():
        number = 0
        while not stop.is_set():
            number += 1
            sent.append(sdk.order(number))

    sender = threading.Thread(target=send)
    sender.start()
    eventually("some traces were sent", lambda: len(sent) > 20)
    victim = cluster.programs["ingester-1"]
    victim.kill()
    at_kill = len(sent)
    eventually("sending goes on without it", lambda: len(sent) > at_kill + 20, seconds=60)
    stop.set()
    sender.join(timeout=60)
    assert not sender.is_alive()
    sdk.close()
    acknowledged = {trace_id: names for trace_id, names in sdk.exporter.acknowledged.items()}
    assert len(acknowledged) > 40

    def missing():
        lost = {}
        for trace_id, names in acknowledged.items():
            answer = cluster.query.get(f"/api/v2/traces/{trace_id}")
            if answer.status != 200:
                return f"{trace_id}: {answer}"
            absent = names - set(cluster.query.trace(trace_id).values())
            if absent:
                lost[trace_id] = absent
        return lost

    eventually("every acknowledged span is readable while it is down", lambda: missing() == {}, seconds=30)
    assert set(acknowledged) <= cluster.query.found('{ resource.service.name = "steady" }')

    victim.start().wait_ready()
    eventually("it is back", lambda: cluster.ring_size() == 3)
    assert missing() == {}
    cluster.flush()
    eventually("blocks are in the bucket", cluster.blocks)
    assert missing() == {}


def test_a_follower_flushes_for_a_primary_that_stays_away(tmp_path, minio, programs):
    cluster = harness.Cluster(tmp_path, minio)
    programs.extend(cluster.programs.values())
    cluster.start()
    sdk = spans.Sdk("kept", http=cluster.otlp_http_url)
    ids = [sdk.order(n) for n in range(1, 31)]
    sdk.close()
    assert sdk.exporter.failed == 0
    cluster.programs["ingester-2"].kill()

    def all_stored():
        cluster.flush_living(except_for="ingester-2")
        return stored_traces(cluster) >= len(ids)

    eventually("the followers stored what the dead primary had", all_stored, seconds=120, every=2)
    for trace_id in ids:
        assert sorted(cluster.query.trace(trace_id).values()) == NAMES


def test_a_querier_that_is_restarted_fails_no_query(cluster):
    """It finishes what it has; what waits is answered by the next one."""
    sdk = spans.Sdk("stays", http=cluster.otlp_http_url)
    ids = [sdk.order(n) for n in range(1, 11)]
    sdk.close()
    querier, statuses, done = cluster.programs["querier"], [], threading.Event()

    def ask(at):
        while not done.is_set():
            statuses.append(cluster.query.get(f"/api/v2/traces/{ids[at]}").status)
            statuses.append(cluster.query.get("/api/search", q="{ }").status)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            enough = len(statuses) + 20
            eventually("queries are answered", lambda enough=enough: len(statuses) >= enough)
            querier.stop()
            assert "panicked" not in querier.output()
            querier.start()
            querier.wait_ready()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_while_the_bucket_is_away(cluster):
    """Spans are taken and recent ones found as before; what could not be flushed is in the bucket, once, when it is back."""
    sdk = spans.Sdk("outage", http=cluster.otlp_http_url)
    ids = [sdk.order(n) for n in range(1, 16)]
    cluster.minio.kill()
    cluster.flush()

    def failed():
        return sum(ingester.metric("tempo_ingester_failed_flushes_total") for ingester in cluster.ingesters())

    eventually("flushes fail, again and again", lambda: failed() >= 3, seconds=60)
    ids += [sdk.order(n) for n in range(16, 31)]
    sdk.close()
    assert sdk.exporter.failed == 0
    # So young that no block is asked: query_frontend.search.query_backend_after.
    now = int(time.time())
    assert cluster.query.found('{ resource.service.name = "outage" }', start=now - 600, end=now + 60) == set(ids)

    cluster.minio.start_with(cluster.BUCKET)
    cluster.flush()
    eventually("everything is stored", lambda: stored_traces(cluster) >= len(ids), seconds=120)
    assert stored_traces(cluster) == len(ids)
    require_complete(cluster, ids, {"outage": 30})
    for program in cluster.programs.values():
        program.require_running()
        assert "panicked" not in program.output(), program.name


def test_without_its_quorum_nothing_is_acknowledged(cluster):
    message, (before,) = spans.request()
    body = message.SerializeToString()
    assert http(cluster.otlp_http_url, data=body, content_type="application/x-protobuf").status == 200
    for name in ("ingester-0", "ingester-1"):
        cluster.programs[name].kill()
    message, _ = spans.request()

    def refused():
        return http(cluster.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf").status == 503

    eventually("a write is refused with a status that clients retry", refused, seconds=30)
    for name in ("ingester-0", "ingester-1"):
        cluster.programs[name].start().wait_ready()
    eventually("writes work again", lambda: not refused(), seconds=60)
    assert len(cluster.query.trace(before)) == 3


def test_retries_and_time(cluster):
    """The same request twice, and spans of an hour ago."""
    message, (old,) = spans.request(start=time.time_ns() - 3600 * 10**9)
    for _ in range(2):
        assert http(cluster.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf").status == 200
    assert len(cluster.query.trace(old)) == 3
    now = int(time.time())
    assert old in cluster.query.found("{}", start=now - 7200, end=now)
    assert old not in cluster.query.found("{}", start=now - 600, end=now)
