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
