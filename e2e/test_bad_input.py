"""Bad input: each kind has a clear error, and the good data around it stays."""

import gzip
import json
import random

import harness
import spans
from harness import eventually, http


def post(one, body, content_type="application/x-protobuf", **headers):
    return http(one.otlp_http_url, data=body, content_type=content_type, **headers)


def test_requests_that_are_no_requests(all_in_one):
    one = all_in_one.start()
    good, (good_id,) = spans.request()
    body = good.SerializeToString()
    assert post(one, body).status == 200

    answer = post(one, b"this is not protobuf")
    assert answer.status == 400, answer
    answer = post(one, b'{"resourceSpans": [{]}', content_type="application/json")
    assert answer.status == 400 and answer.json()["code"] == 3 and answer.json()["message"], answer
    answer = post(one, gzip.compress(body)[:-9], content_encoding="gzip")
    assert answer.status == 400, answer
    assert post(one, body, content_encoding="br").status == 400
    assert post(one, body, content_type="text/plain").status == 415
    assert http(one.otlp_http_url).status == 405
    assert http(one.otlp_http_url.replace("traces", "metrics"), data=b"").status == 404

    huge = bytes(100 * 1024 * 1024)
    try:
        answer = post(one, huge)
        assert answer.status in (400, 413), answer
    except OSError:
        pass  # refused while it was being sent
    bomb = gzip.compress(huge, compresslevel=1)
    answer = post(one, bomb, content_encoding="gzip")
    assert answer.status in (400, 413), answer

    one.program.require_running()
    assert len(one.query.trace(good_id)) == 3
    assert "panicked" not in one.program.output()


def test_wrong_ids_among_good_spans(all_in_one):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    one = all_in_one.start()
    message, (trace_id,) = spans.request(spans=5)
    wrong = message.resource_spans[0].scope_spans[0].spans
    wrong[1].trace_id = b"short"
    wrong[3].span_id = bytes(8)
    answer = post(one, message.SerializeToString())
    assert answer.status == 200, answer
    partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert partial.rejected_spans == 2 and "id" in partial.error_message
    assert sorted(one.query.trace(trace_id).values()) == ["span 0", "span 2", "span 4"]
    eventually("the rejected spans are counted", lambda: one.program.metric("tempo_discarded_spans_total") == 2, seconds=5)


def test_every_span_that_is_dropped_is_logged(all_in_one):
    log = "  log_discarded_spans: {enabled: true, include_all_attributes: true}\n"
    config = all_in_one.default_config().replace("distributor:\n", "distributor:\n" + log)
    (all_in_one.folder / "vivace.yaml").write_text(config)
    one = all_in_one.start()
    message, (trace_id,) = spans.request(spans=4)
    in_it = message.resource_spans[0].scope_spans[0].spans
    in_it[1].parent_span_id = b"short"
    value = in_it[2].attributes.add(key="deep").value
    for _ in range(200):
        value = value.array_value.values.add()
    assert post(one, message.SerializeToString()).status == 200
    in_it[3].span_id = b""
    del in_it[0]
    assert post(one, message.SerializeToString()).status == 400, "no span is left"

    def logged():
        lines = [line for line in one.program.output().splitlines() if "discarded" in line and trace_id in line]
        return sorted(name for line in lines for name in ["span 1", "span 2", "span 3"] if name in line)

    eventually("all of them are in the log", lambda: logged() == ["span 1", "span 1", "span 2", "span 2", "span 3"], seconds=5)


def test_what_is_too_large_is_told_with_the_limit_that_it_is_over(all_in_one):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    limits = "{global: {max_bytes_per_trace: 0}, ingestion: {rate_limit_bytes: 100000000, burst_size_bytes: 100000000}}"
    one = all_in_one.with_config(f"overrides: {{defaults: {limits}}}\n").start()
    message, (trace_id,) = spans.request(spans=3)
    noise = random.Random(7)
    for span in message.resource_spans[0].scope_spans[0].spans[:2]:
        span.attributes.add(key="noise").value.bytes_value = noise.randbytes(9 << 20)
        assert post(one, in_a_request(message, [span])).status == 200
    answer = one.query.get(f"/api/traces/{trace_id}")
    assert answer.status == 422 and "server.grpc_server_max_send_msg_size" in answer.body.decode(), answer

    large = message.resource_spans[0].scope_spans[0].spans[2]
    large.attributes.add(key="noise").value.bytes_value = noise.randbytes(17 << 20)
    small = message.resource_spans[0].scope_spans[0].spans.add(trace_id=bytes([9] * 16), span_id=bytes([9] * 8), name="small")
    answer = post(one, in_a_request(message, [large, small]))
    assert answer.status == 200, answer
    partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    for part in (large.span_id.hex(), trace_id, str(16 << 20), "server.grpc_server_max_recv_msg_size"):
        assert part in partial.error_message, partial
    assert list(one.query.trace("09" * 16).values()) == ["small"] and partial.rejected_spans == 1


def in_a_request(message, some):
    """These of its spans."""
    request = type(message)()
    request.CopyFrom(message)
    del request.resource_spans[0].scope_spans[0].spans[:]
    request.resource_spans[0].scope_spans[0].spans.extend(some)
    return request.SerializeToString()


def test_random_bytes_never_end_the_process(all_in_one):
    one = all_in_one.start()
    message, (trace_id,) = spans.request()
    body = bytearray(message.SerializeToString())
    dice = random.Random(7)
    for _ in range(300):
        broken = bytearray(body)
        for _ in range(dice.randrange(1, 4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        assert post(one, bytes(broken)).status in (200, 400)
    assert post(one, bytes(body)).status == 200
    assert len(one.query.trace(trace_id)) >= 3
    one.program.require_running()
    assert "panicked" not in one.program.output()


def test_queries_that_are_wrong(all_in_one):
    one = all_in_one.start()
    get = one.query.get
    answer = get("/api/search", q='{ name = "a" && }')
    assert answer.status == 400, answer
    assert b"invalid TraceQL query: parse error at line 1, col 17" in answer.body, answer
    assert get("/api/search", q="{ name }").status == 400
    assert get("/api/search", q="{}", limit="many").status == 400
    assert get("/api/search", q="{}", start=100).status == 400
    assert get("/api/search", q="{}", start=200, end=100).status == 400
    assert get("/api/search", q="{}", spss=101).status == 400
    assert get("/api/search", q="{}", tags="a=b").status == 400
    assert get("/api/search", q="{" + "(" * 100_000).status in (400, 414, 431)
    assert get("/api/v2/search/tags", scope="nowhere").status == 400
    assert get("/status/nothing").status == 404
    assert get("/api/nothing").status == 404


def test_a_broken_block_is_skipped_counted_and_named(tmp_path, minio, programs):
    one = harness.AllInOne(tmp_path)
    config = (tmp_path / "vivace.yaml").read_text().replace("backend: local", s3(minio))
    (tmp_path / "vivace.yaml").write_text(config)
    programs.append(one.program)
    one.start()
    ids = []
    for _ in range(2):
        message, (trace_id,) = spans.request()
        ids.append(trace_id)
        assert post(one, message.SerializeToString()).status == 200
        before = one.program.metric("tempo_ingester_blocks_flushed_total")
        assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
        eventually("a block was flushed", lambda: one.program.metric("tempo_ingester_blocks_flushed_total") > before)
    client = minio.client()
    bucket = harness.Cluster.BUCKET
    metas = [o.object_name for o in client.list_objects(bucket, recursive=True) if o.object_name.endswith("/meta.json")]
    assert len(metas) == 2
    import io

    broken = metas[0].rsplit("/", 1)[0]
    size = json.loads(client.get_object(bucket, metas[0]).read())["size"]
    client.put_object(bucket, f"{broken}/data.parquet", io.BytesIO(bytes(size)), size)
    client.put_object(bucket, "single-tenant/not-a-block/meta.json", io.BytesIO(b"{}"), 2)
    client.put_object(bucket, f"single-tenant/{'0' * 8}-0000-4000-8000-{'0' * 12}/meta.json", io.BytesIO(b"{"), 1)
    one.program.kill()
    one.start()

    def one_is_found():
        found = one.query.found('{ resource.service.name = "raw" }')
        return len(found) == 1 and found <= set(ids)

    eventually("the other block is searched", one_is_found, seconds=20)
    assert sum(1 for trace_id in ids if one.query.trace(trace_id)) == 1
    assert broken.rsplit("/", 1)[1] in one.program.output()
    one.program.require_running()


def s3(minio, secret=None):
    return f"""backend: s3
    s3:
      bucket: {harness.Cluster.BUCKET}
      endpoint: {minio.endpoint}
      access_key: {minio.ACCESS_KEY}
      secret_key: {secret or minio.SECRET_KEY}
      insecure: true"""


def test_s3_that_refuses_is_named_at_start(tmp_path, minio, programs):
    one = harness.AllInOne(tmp_path)
    working = (tmp_path / "vivace.yaml").read_text()
    programs.append(one.program)

    def fails_with(config, *words):
        (tmp_path / "vivace.yaml").write_text(config)
        one.program.log.unlink(missing_ok=True)
        one.program.start()
        eventually("it ends", lambda: not one.program.running(), seconds=60)
        assert one.program.process.returncode != 0
        for word in words:
            assert word in one.program.output(), one.program.output()
        assert "wrong-secret" not in one.program.output()

    fails_with(working.replace("backend: local", s3(minio, "wrong-secret")), harness.Cluster.BUCKET, minio.endpoint)
    fails_with(working.replace("backend: local", s3(minio).replace(harness.Cluster.BUCKET, "no-such-bucket")), "no-such-bucket", minio.endpoint)


def test_configuration_that_is_wrong(tmp_path, programs):
    one = harness.AllInOne(tmp_path)
    programs.append(one.program)
    (tmp_path / "vivace.yaml").write_text("server:\n  http_listen_port: many\nstorage:\n  trase: {}\n")
    one.program.start()
    eventually("it ends", lambda: not one.program.running(), seconds=20)
    assert one.program.process.returncode == 1
    output = one.program.output()
    for word in ["server.http_listen_port", "line 2", "storage.trase", "line 4", "trace"]:
        assert word in output, output


def test_a_port_in_use_is_a_clear_message(tmp_path, programs):
    import socket

    one = harness.AllInOne(tmp_path)
    programs.append(one.program)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", one.http))
        taken.listen()
        one.program.start()
        eventually("it ends", lambda: not one.program.running(), seconds=20)
    assert one.program.process.returncode == 1
    assert str(one.http) in one.program.output() and "in use" in one.program.output()
