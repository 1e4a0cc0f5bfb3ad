"""The single binary as a user has it: defaults, restarts, kill -9, the command line, and what Grafana asks."""

import gzip
import json
import os
import subprocess
import time

import pytest

import harness
import spans
from harness import eventually, http


def post(url, message, **headers):
    return http(url, data=message.SerializeToString(), content_type="application/x-protobuf", **headers)


def test_it_starts_without_any_configuration(tmp_path, programs):
    """Only the server's ports are moved; the receivers' have no flags."""
    busy = [port for port in (4317, 4318) if harness.in_use(port)]
    if busy:
        pytest.skip(f"another program listens on {busy}, where the receivers listen by default")
    http_port, grpc_port = harness.free_ports(2)
    arguments = [harness.binaries() / "vivace", f"-server.http-listen-port={http_port}", f"-server.grpc-listen-port={grpc_port}"]
    one = harness.Vivace("vivace", arguments, tmp_path, http_port)
    programs.append(one)
    one.start().wait_ready()
    message, (trace_id,) = spans.request()
    assert post("http://127.0.0.1:4318/v1/traces", message).status == 200
    assert len(harness.Query(one.url).trace(trace_id)) == 3
    assert (tmp_path / "vivace-data").is_dir()
    assert one.stop() == 0


def test_spans_are_readable_at_once_after_kill_and_after_flush(all_in_one):
    one = all_in_one.start()
    sdk_grpc = spans.Sdk("shop-grpc", grpc=f"127.0.0.1:{one.otlp_grpc}")
    sdk_http = spans.Sdk("shop-http", http=one.otlp_http_url)
    ids = {sdk.order(n) for n in range(1, 11) for sdk in (sdk_grpc, sdk_http)}
    sdk_grpc.close()
    sdk_http.close()
    assert sdk_grpc.exporter.failed == sdk_http.exporter.failed == 0

    def everything_is_there():
        for trace_id in ids:
            assert sorted(one.query.trace(trace_id).values()) == ["POST /order", "charge", "check stock", "query"]
        assert one.query.found('{ name = "POST /order" }') == ids
        assert one.query.found('{ status = error && statusMessage = "card declined" }') == ids
        assert len(one.query.found('{ resource.service.name = "shop-grpc" && span.order.number > 5 }')) == 5
        assert len(one.query.found("{ span.vip = true || span.order.total < 2.0 }")) == 12
        assert one.query.values("resource.service.name") == {"shop-grpc", "shop-http"}
        assert one.query.values("span.order.number") == {str(n) for n in range(1, 11)}
        assert one.query.values("name") == {"POST /order", "charge", "check stock", "query"}

    everything_is_there()
    one.program.kill()
    one.start()
    everything_is_there()
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    eventually("a block is in the bucket", lambda: list(one.folder.glob("blocks/single-tenant/*/meta.json")))
    everything_is_there()
    one.program.kill()
    one.start()
    everything_is_there()
    assert one.program.stop() == 0


def in_two_requests():
    """A trace of four spans, its id, and two requests with half of it each."""
    message, (trace_id,) = spans.request(spans=4)
    parts = [type(message)(), type(message)()]
    for number, part in enumerate(parts):
        part.CopyFrom(message)
        kept = list(part.resource_spans[0].scope_spans[0].spans)[number * 2 : number * 2 + 2]
        del part.resource_spans[0].scope_spans[0].spans[:]
        part.resource_spans[0].scope_spans[0].spans.extend(kept)
    return trace_id, parts


def test_a_trace_in_two_requests_and_twice_is_one_trace(all_in_one):
    one = all_in_one.start()
    trace_id, parts = in_two_requests()
    for part in [*parts, parts[0]]:
        assert post(one.otlp_http_url, part).status == 200
    assert len(one.query.trace(trace_id)) == 4
    (found,) = one.query.search("{ true }")
    assert found["rootTraceName"] == "span 0"
    assert found["serviceStats"] == {"raw": {"spanCount": 4}}


def test_late_spans_join_their_trace_in_the_bucket(all_in_one):
    one = all_in_one.start()
    trace_id, parts = in_two_requests()
    for blocks, part in enumerate(parts, start=1):
        assert post(one.otlp_http_url, part).status == 200
        assert len(one.query.trace(trace_id)) == 2 * blocks
        assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
        eventually("the block is in the bucket", lambda: len(list(one.folder.glob("blocks/single-tenant/*/meta.json"))) == blocks)
        assert len(one.query.trace(trace_id)) == 2 * blocks
    (found,) = one.query.search("{ true }")
    assert found["rootTraceName"] == "span 0"


def test_retention_removes_what_is_old(tmp_path, programs):
    one = harness.AllInOne(tmp_path).with_config("compactor: {compaction: {block_retention: 5s, compacted_block_retention: 1s}}\n")
    programs.append(one.program)
    one.start()
    old, (old_id,) = spans.request()
    assert post(one.otlp_http_url, old).status == 200
    assert len(one.query.trace(old_id)) == 3
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    eventually("the block was written and removed", lambda: one.program.metric("tempodb_retention_deleted_total") >= 1, seconds=60)
    eventually("the bucket is empty", lambda: not list(tmp_path.glob("blocks/single-tenant/*/data.parquet")))


def test_compaction_merges_blocks_and_loses_nothing(tmp_path, programs):
    one = harness.AllInOne(tmp_path).with_config("compactor: {compaction: {compaction_cycle: 1s, compacted_block_retention: 2s}}\n")
    programs.append(one.program)
    one.start()
    ids = set()
    shared, (shared_id,) = spans.request(service="shared", spans=2)
    for _ in range(3):
        message, more = spans.request(traces=5)
        ids.update(more)
        assert post(one.otlp_http_url, message).status == 200
        assert post(one.otlp_http_url, shared).status == 200
        before = one.program.metric("tempo_ingester_blocks_flushed_total")
        assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
        eventually("a block was flushed", lambda: one.program.metric("tempo_ingester_blocks_flushed_total") > before)
    eventually("one block is left", lambda: len(list(tmp_path.glob("blocks/single-tenant/*/meta.json"))) == 1, seconds=60)
    one.program.kill()
    one.start()
    for trace_id in ids:
        assert len(one.query.trace(trace_id)) == 3
    assert len(one.query.trace(shared_id)) == 2
    (meta,) = tmp_path.glob("blocks/single-tenant/*/meta.json")
    assert json.loads(meta.read_text())["totalObjects"] == 16


def test_several_tenants_do_not_see_each_other(tmp_path, programs):
    one = harness.AllInOne(tmp_path).with_config("multitenancy_enabled: true\n")
    programs.append(one.program)
    one.start()
    ids = {}
    for tenant in ["a", "b"]:
        message, (ids[tenant],) = spans.request(service=f"of-{tenant}")
        assert post(one.otlp_http_url, message, X_Scope_OrgID=tenant).status == 200
    assert post(one.otlp_http_url, message).status == 401
    ask = {tenant: harness.Query(one.program.url, X_Scope_OrgID=tenant) for tenant in ["a", "b", "a|b"]}
    assert ask["a"].found("{}") == {ids["a"]}
    assert ask["b"].found("{}") == {ids["b"]}
    assert ask["a|b"].found("{}") == set(ids.values())
    assert ask["a"].trace(ids["b"]) == {}
    assert one.query.get("/api/search", q="{}").status == 401


def test_the_command_line(all_in_one):
    one = all_in_one.start()
    sdk = spans.Sdk("cli-shop", grpc=f"127.0.0.1:{one.otlp_grpc}")
    trace_id = sdk.order(7)
    sdk.close()

    def cli(*arguments, status=0):
        done = subprocess.run(
            [harness.binaries() / "vivace-cli", *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, "NO_COLOR": "1"}
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    address = ["--address", one.program.url]
    tree = cli("query", "trace", trace_id, *address)
    assert "POST /order" in tree and "card declined" in tree and "cli-shop" in tree
    assert json.loads(cli("query", "trace", trace_id, "--json", *address))
    assert trace_id.lstrip("0")[:12] in cli("query", "search", '{ name = "charge" }', *address)
    assert "order.number" in cli("query", "tags", *address)
    assert "cli-shop" in cli("query", "tag-values", "resource.service.name", *address)
    wrong = cli("query", "search", '{ name = "charge" ', *address, status=1)
    assert "^" in wrong and "expected }" in wrong
    assert "refused" in cli("query", "search", "{}", "--address", f"http://127.0.0.1:{harness.free_ports(1)[0]}", status=1).lower()
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    (meta,) = eventually("a block is in the bucket", lambda: list(one.folder.glob("blocks/single-tenant/*/meta.json")))
    assert meta.parent.name in cli("block", "ls", str(one.folder / "blocks"))
    assert "TraceID" in cli("block", "inspect", str(meta.parent))
    assert cli("config", "check", str(one.folder / "vivace.yaml")) is not None
    bad = one.folder / "bad.yaml"
    bad.write_text("server:\n  http_listen_prot: 1\ningester: {max_block_duration: soon}\n")
    report = cli("config", "check", str(bad), status=1)
    assert "http_listen_port" in report and "max_block_duration" in report and "line 2" in report


@pytest.mark.parametrize("encoding", ["gzip", "none", "json"])
def test_otlp_http_forms(all_in_one, encoding):
    one = all_in_one.start()
    message, (trace_id,) = spans.request()
    if encoding == "json":
        from google.protobuf.json_format import MessageToDict

        body = MessageToDict(message)
        for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            import base64

            for key in ("traceId", "spanId", "parentSpanId"):
                if key in span:
                    span[key] = base64.b64decode(span[key]).hex()
        answer = http(one.otlp_http_url, data=json.dumps(body).encode(), content_type="application/json")
        assert answer.status == 200 and answer.json() == {"partialSuccess": {}}, answer
    else:
        body = message.SerializeToString()
        headers = {"content_encoding": "gzip"} if encoding == "gzip" else {}
        body = gzip.compress(body) if encoding == "gzip" else body
        assert http(one.otlp_http_url, data=body, content_type="application/x-protobuf", **headers).status == 200
    assert sorted(one.query.trace(trace_id).values()) == ["span 0", "span 1", "span 2"]


def test_what_grafana_asks(all_in_one):
    """The traps of Grafana's parsers that can be seen over HTTP."""
    one = all_in_one.start()
    start = time.time_ns()
    message, (trace_id,) = spans.request(start=start, attributes={"k8s.io/name": "slashed", "n": 5})
    assert post(one.otlp_http_url, message).status == 200
    get = one.query.get

    assert (get("/api/echo").status, get("/api/echo").body.strip()) == (200, b"echo")
    assert set(get("/api/status/buildinfo").json()) == {"version", "revision", "branch", "buildUser", "buildDate", "goVersion"}

    seconds = start // 10**9
    search = get("/api/search", q='{ name = "span 0" && span.n = 5 }', limit=20, spss=3, start=seconds - 60, end=seconds + 60).json()
    assert set(search) == {"traces", "metrics"}
    known = {"inspectedTraces", "inspectedBytes", "totalBlocks", "completedJobs", "totalJobs", "totalBlockBytes", "inspectedSpans"}
    assert set(search["metrics"]) <= known
    (trace,) = search["traces"]
    assert trace["spanSet"] == trace["spanSets"][0]
    assert trace["startTimeUnixNano"] == str(start)
    (span,) = trace["spanSet"]["spans"]
    assert span["durationNanos"] == "5000000" and span["name"] == "span 0"
    assert {"key": "n", "value": {"intValue": "5"}} in span["attributes"]
    assert get("/api/search", q="{ name = `nothing` }").json()["traces"] == []

    for spelling in [trace_id.upper(), trace_id.lstrip("0")]:
        assert len(one.query.trace(spelling)) == 3
    missing = get(f"/api/v2/traces/{'ab' * 16}")
    assert missing.status == 200 and missing.json()["trace"] == {}
    assert get(f"/api/traces/{'ab' * 16}").status == 404
    assert get("/api/traces/xyz").status == 400

    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    proto = http(f"{one.program.url}/api/traces/{trace_id}", Accept="application/protobuf")
    resource_spans = TracesData.FromString(proto.body).resource_spans
    assert all(r.HasField("resource") and all(s.HasField("scope") for s in r.scope_spans) for r in resource_spans)
    assert all(span.HasField("status") for r in resource_spans for s in r.scope_spans for span in s.spans)
    assert "batches" in get(f"/api/traces/{trace_id}").json()

    scopes = {s["name"]: s["tags"] for s in get("/api/v2/search/tags", limit=5000).json()["scopes"]}
    assert "n" in scopes["span"] and "service.name" in scopes["resource"] and "rootName" in scopes["intrinsic"]
    slashed = get("/api/v2/search/tag/span.k8s.io/name/values", limit=5000, tag="span.k8s.io/name").json()["tagValues"]
    assert slashed == [{"type": "string", "value": "slashed"}]
    assert get("/api/v2/search/tag/span.undefined/values").json()["tagValues"] == []
    assert {"type": "keyword", "value": "error"} in get("/api/v2/search/tag/status/values").json()["tagValues"]
    assert get("/api/v2/search/tag/name/values", q="{ resource.cluster = }").status == 200
    assert get("/api/search/tags").json()["tagNames"]
    assert "raw" in get("/api/search/tag/service.name/values").json()["tagValues"]
    legacy = get("/api/search", tags='service.name="raw" k8s.io/name=slashed').json()["traces"]
    assert [t["traceID"] for t in legacy] == [trace_id.lstrip("0")]


def test_streaming_search_on_the_http_port(all_in_one):
    """Grafana dials the data source's HTTP address for streaming."""
    import grpc

    one = all_in_one.start()
    message, (trace_id,) = spans.request()
    assert post(one.otlp_http_url, message).status == 200
    query = b"{}"
    # SearchRequest { Limit = 4: 1, Query = 8: "{}" }
    request = b"\x20\x01" + b"\x42" + bytes([len(query)]) + query
    for port in (one.http, one.grpc):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream("/tempopb.StreamingQuerier/Search", request_serializer=bytes, response_deserializer=bytes)
            answers = list(call(request, timeout=10))
        assert trace_id.lstrip("0").encode() in b"".join(answers)
