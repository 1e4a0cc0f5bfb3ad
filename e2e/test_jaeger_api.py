"""The query APIs of Jaeger and Zipkin: what Jaeger's UI, Zipkin's UI and Grafana's data sources for both ask, checked as strictly as they do."""

import json
import re
import time
import urllib.parse
from datetime import datetime, timezone

import pytest

import harness
import spans
from harness import eventually, http

HEX16, HEX32 = re.compile(r"(?!0+$)[0-9a-f]{16}"), re.compile(r"(?!0+$)[0-9a-f]{32}")
DECIMAL = re.compile(r"\d+")


@pytest.fixture
def one(tmp_path, programs):
    return with_apis(tmp_path, programs)


def with_apis(folder, programs, frontend="", extra=""):
    """A single binary whose APIs have ports of their own, as `jaeger`, `jaeger_grpc` and `zipkin`."""
    one = harness.AllInOne(folder)
    one.jaeger_port, one.jaeger_grpc, one.zipkin_port = harness.free_ports(3)
    one.with_config(
        f"""query_frontend:
  jaeger: {{enabled: true, http_listen_port: {one.jaeger_port}, grpc_listen_port: {one.jaeger_grpc}{frontend}}}
  zipkin: {{enabled: true, http_listen_port: {one.zipkin_port}}}
{extra}"""
    )
    one.jaeger, one.zipkin = f"http://127.0.0.1:{one.jaeger_port}", f"http://127.0.0.1:{one.zipkin_port}"
    programs.append(one.program)
    return one.start()


def get(url, path, parameters=None, **headers):
    query = f"?{urllib.parse.urlencode(parameters, doseq=True)}" if parameters else ""
    return http(f"{url}{path}{query}", **headers)


def shop_trace(number=0):
    """Two services in one trace: web calls shop, whose call fails. The message and the trace's id."""
    message, (trace_id,) = spans.request(service="web", spans=2, attributes={"n": number, "http.method": "GET"})
    web = message.resource_spans[0]
    root, call = web.scope_spans[0].spans
    root.name, root.kind = "GET /", 2
    call.name, call.kind = "call shop", 3
    shop = message.resource_spans.add()
    shop.resource.attributes.add(key="service.name").value.string_value = "shop"
    shop.resource.attributes.add(key="host").value.string_value = "h1"
    scope = shop.scope_spans.add()
    scope.scope.name, scope.scope.version = "lib", "1.2"
    served = scope.spans.add(trace_id=root.trace_id, span_id=bytes([9] * 7 + [number % 256]), parent_span_id=call.span_id, name="serve", kind=2)
    served.start_time_unix_nano = call.start_time_unix_nano + 1_000
    served.end_time_unix_nano = served.start_time_unix_nano + 2_000_000
    served.status.code, served.status.message = 2, "card declined"
    served.attributes.add(key="ok").value.bool_value = True
    served.attributes.add(key="ratio").value.double_value = 0.5
    served.attributes.add(key="nothing")
    event = served.events.add(name="retry", time_unix_nano=served.start_time_unix_nano + 500_000)
    event.attributes.add(key="attempt").value.int_value = 2
    served.links.add(trace_id=b"\x07" * 16, span_id=b"\x08" * 8)
    return message, trace_id


def send(one, message, **headers):
    answer = http(one.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf", **headers)
    assert answer.status == 200, answer


# What the clients' parsers demand.


def envelope(answer):
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/json", answer
    body = answer.json()
    assert set(body) == {"data", "total", "limit", "offset", "errors"} and body["errors"] is None
    assert isinstance(body["data"], list) and body["total"] == len(body["data"])
    return body["data"]


def whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def check_tags(tags):
    kinds = {"string": str, "bool": bool, "int64": (int, str), "float64": (int, float, str), "binary": str}
    for tag in tags:
        assert set(tag) == {"key", "type", "value"} and isinstance(tag["value"], kinds[tag["type"]]), tag


def check_v1(trace):
    """Grafana's Go types and the UI's transformation of a trace of version 1."""
    assert set(trace) == {"traceID", "spans", "processes", "warnings"} and HEX32.fullmatch(trace["traceID"]) and trace["spans"]
    assert trace["warnings"] is None
    for span in trace["spans"]:
        assert span["traceID"] == trace["traceID"] and HEX16.fullmatch(span["spanID"]) and span["processID"] in trace["processes"]
        assert isinstance(span["operationName"], str) and whole(span["startTime"]) and whole(span["duration"]) and whole(span["flags"])
        assert span["warnings"] is None
        for reference in span["references"]:
            assert reference["refType"] in ("CHILD_OF", "FOLLOWS_FROM")
            assert HEX32.fullmatch(reference["traceID"]) and HEX16.fullmatch(reference["spanID"])
        check_tags(span["tags"])
        for log in span["logs"]:
            assert set(log) == {"timestamp", "fields"} and whole(log["timestamp"])
            check_tags(log["fields"])
    for process in trace["processes"].values():
        assert set(process) == {"serviceName", "tags"}
        check_tags(process["tags"])


def check_any(value):
    (kind,) = value
    inner = value[kind]
    if kind == "intValue":
        assert isinstance(inner, str) and re.fullmatch(r"-?\d+", inner)
    elif kind == "arrayValue":
        [check_any(item) for item in inner.get("values", [])]
    elif kind == "kvlistValue":
        check_attributes(inner.get("values", []))
    else:
        kinds = {"stringValue": str, "boolValue": bool, "doubleValue": (int, float), "bytesValue": str}
        assert isinstance(inner, kinds[kind]), value


def check_attributes(attributes):
    for attribute in attributes:
        assert set(attribute) == {"key", "value"} and isinstance(attribute["key"], str)
        check_any(attribute["value"])


def check_v3(answer):
    """The schema of Jaeger's UI for OTLP in JSON. Returns the spans."""
    assert answer.status == 200, answer
    found = []
    for resource in answer.json()["result"]["resourceSpans"]:
        check_attributes(resource["resource"].get("attributes", []))
        for scope in resource["scopeSpans"]:
            assert isinstance(scope["spans"], list) and isinstance(scope["scope"], dict)
            for span in scope["spans"]:
                assert HEX32.fullmatch(span["traceId"]) and HEX16.fullmatch(span["spanId"])
                assert HEX16.fullmatch(span["parentSpanId"]) if "parentSpanId" in span else True
                assert whole(span["kind"]) and whole(span["status"].get("code", 0))
                assert DECIMAL.fullmatch(span["startTimeUnixNano"]) and DECIMAL.fullmatch(span["endTimeUnixNano"])
                check_attributes(span.get("attributes", []))
                for event in span.get("events", []):
                    assert DECIMAL.fullmatch(event["timeUnixNano"]) and isinstance(event["name"], str)
                    check_attributes(event.get("attributes", []))
                for link in span.get("links", []):
                    assert HEX32.fullmatch(link["traceId"]) and HEX16.fullmatch(link["spanId"])
                found.append(span)
    return found


def check_summary(summary):
    assert HEX32.fullmatch(summary["traceId"])
    assert DECIMAL.fullmatch(summary["minStartTimeUnixNano"]) and DECIMAL.fullmatch(summary["maxEndTimeUnixNano"])
    for key in ("spanCount", "errorSpanCount", "orphanSpanCount"):
        assert whole(summary[key]) and summary[key] >= 0
    assert isinstance(summary["rootServiceName"], str) and isinstance(summary["rootOperationName"], str)
    for service in summary["services"]:
        assert set(service) == {"name", "spanCount", "errorSpanCount"} and isinstance(service["name"], str)


def check_zipkin(trace):
    assert isinstance(trace, list) and trace
    for span in trace:
        assert HEX32.fullmatch(span["traceId"]) and HEX16.fullmatch(span["id"]) and span["duration"] >= 1 and whole(span["timestamp"])
        assert HEX16.fullmatch(span["parentId"]) if "parentId" in span else True
        assert span.get("kind") in (None, "CLIENT", "SERVER", "PRODUCER", "CONSUMER")
        assert all(isinstance(value, str) for value in span.get("tags", {}).values())
        assert all(whole(a["timestamp"]) and isinstance(a["value"], str) for a in span.get("annotations", []))


def flushed(one):
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    eventually("a block is in the bucket", lambda: list(one.folder.glob("blocks/*/*/meta.json")))


def iso(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def grafana_jaeger_asks(one, trace_id):
    """Grafana's Jaeger data source: save and test, the editor, a search, a trace, the dependency graph."""
    now = time.time()
    assert envelope(get(one.jaeger, "/api/services")) == ["shop", "web"]
    assert envelope(get(one.jaeger, "/api/services/web/operations")) == ["GET /", "call shop"]
    search = {
        "service": "shop",
        "operation": "serve",
        "tags": json.dumps({"error": "true", "otel.scope.name": "lib", "ratio": "0.5", "host": "h1", "attempt": "2"}),
        "minDuration": "1ms",
        "maxDuration": "1.2s",
        "limit": 20,
        "start": int((now - 3600) * 1e6),
        "end": int(now * 1e6),
    }
    (trace,) = envelope(get(one.jaeger, "/api/traces", search))
    check_v1(trace)
    assert trace["traceID"] == trace_id and len(trace["spans"]) == 3
    for nothing in ({"tags": '{"error":"false"}'}, {"operation": "GET /"}, {"minDuration": "1s"}, {"end": int((now - 3000) * 1e6)}):
        assert envelope(get(one.jaeger, "/api/traces", {**search, **nothing})) == []
    (by_id,) = envelope(get(one.jaeger, f"/api/traces/{trace_id}", {"start": int((now - 3600) * 1000), "end": int(now * 1000)}))
    assert by_id == trace
    served = next(span for span in trace["spans"] if span["operationName"] == "serve")
    assert trace["processes"][served["processID"]] == {"serviceName": "shop", "tags": [{"key": "host", "type": "string", "value": "h1"}]}
    tags = {tag["key"]: tag["value"] for tag in served["tags"]}
    want = {"ok": True, "ratio": 0.5, "span.kind": "server", "otel.status_code": "ERROR", "error": True, "otel.scope.version": "1.2"}
    assert want.items() <= tags.items() and tags["otel.status_description"] == "card declined"
    assert served["logs"][0]["fields"][0] == {"key": "event", "type": "string", "value": "retry"}
    assert [r["refType"] for r in served["references"]] == ["CHILD_OF", "FOLLOWS_FROM"]
    dependencies = get(one.jaeger, "/api/dependencies", {"endTs": int(now * 1000) + 1000, "lookback": 3_600_000})
    assert envelope(dependencies) == [{"parent": "web", "child": "shop", "callCount": 1}]
    # With the feature flag for gRPC. The times are not escaped.
    assert get(one.jaeger, "/api/v3/services").json() == {"services": ["shop", "web"]}
    answer = http(f"{one.jaeger}/api/v3/traces/{trace_id}?start_time={iso(now - 3600)}&end_time={iso(now)}")
    assert len(check_v3(answer)) == 3
    missing = get(one.jaeger, "/api/v3/traces/1")
    assert missing.status == 404 and missing.json() == {"error": {"httpCode": 404, "message": "trace not found"}}


def jaeger_ui_asks(one, trace_id):
    """Jaeger's UI: drop-downs, a search, a trace, the architecture, the monitoring page."""
    now = time.time()
    operations = get(one.jaeger, "/api/v3/operations", {"service": "web"}).json()
    assert operations == {"operations": [{"name": "GET /", "spanKind": "server"}, {"name": "call shop", "spanKind": "client"}]}
    query = {"query.start_time_min": iso(now - 3600), "query.start_time_max": iso(now + 1), "query.num_traces": 20}
    for more in ({}, {"query.service_name": "web", "query.span_name": "GET /"}, {"query.attributes": '{"span.kind":"client"}'}):
        (summary,) = get(one.jaeger, "/api/v3/trace-summaries", {**query, **more}).json()["summaries"]
        check_summary(summary)
        assert summary["traceId"] == trace_id and summary["rootServiceName"] == "web" and summary["rootOperationName"] == "GET /"
        assert (summary["spanCount"], summary["errorSpanCount"], summary["orphanSpanCount"]) == (3, 1, 0)
    assert get(one.jaeger, "/api/v3/trace-summaries", {**query, "query.service_name": "nobody"}).json() == {"summaries": []}
    (trace,) = envelope(get(one.jaeger, f"/api/traces/{trace_id}"))
    check_v1(trace)
    assert envelope(get(one.jaeger, "/api/operations", {"service": "shop", "spanKind": "server"})) == [{"name": "serve", "spanKind": "server"}]
    page = get(one.jaeger, f"/trace/{trace_id}")
    assert page.status == 200 and "call shop" in page.body.decode() and page.headers["Content-Type"].startswith("text/html")
    assert get(one.jaeger, "/").status == 200
    window = {"endTs": int(now * 1000) + 5000, "lookback": 600_000, "step": 60_000, "ratePer": 600_000, "spanKind": "server"}

    def points(kind, **more):
        answer = get(one.jaeger, f"/api/metrics/{kind}", {"service": "shop", **window, **more})
        assert answer.status == 200, answer
        family = answer.json()
        assert set(family) == {"name", "type", "help", "metrics"} and family["type"] == "GAUGE"
        (metric,) = family["metrics"]
        assert metric["labels"][0] == {"name": "service_name", "value": "shop"}
        assert all(datetime.fromisoformat(point["timestamp"]) for point in metric["metricPoints"])
        return family["name"], metric["labels"][1:], [point["gaugeValue"]["doubleValue"] for point in metric["metricPoints"]]

    name, _, latencies = points("latencies", quantile=0.95)
    assert name == "service_latencies" and any(1 < latency < 5 for latency in latencies), "milliseconds"
    name, labels, calls = points("calls", groupByOperation="true")
    assert name == "service_operation_call_rate" and labels == [{"name": "operation", "value": "serve"}] and max(calls) > 0
    name, _, errors = points("errors")
    assert name == "service_error_rate" and max(errors) == 1
    assert get(one.jaeger, "/api/metrics/minstep").json()["data"] > 0


def grafana_and_ui_of_zipkin_ask(one, trace_id):
    now = int(time.time() * 1000) + 1000
    for root in ("", "/zipkin"):
        assert get(one.zipkin, f"{root}/api/v2/services").json() == ["shop", "web"]
        assert get(one.zipkin, f"{root}/config.json").json()["searchEnabled"] is True
    assert get(one.zipkin, "/api/v2/spans", {"serviceName": "web"}).json() == ["GET /", "call shop"]
    assert get(one.zipkin, "/api/v2/remoteServices", {"serviceName": "web"}).json() == []
    assert "n" in get(one.zipkin, "/api/v2/autocompleteKeys").json()
    assert get(one.zipkin, "/api/v2/autocompleteValues", {"key": "n"}).json() == ["0"]
    trace = get(one.zipkin, f"/api/v2/trace/{trace_id}").json()
    check_zipkin(trace)
    assert len(trace) == 3
    for search in (
        {"serviceName": "shop", "spanName": "serve"},
        {"serviceName": "all", "spanName": "all"},
        {"annotationQuery": "error=true and retry", "endTs": now, "lookback": 3_600_000, "limit": 10, "minDuration": 1000},
    ):
        assert get(one.zipkin, "/api/v2/traces", search).json() == [trace], search
    assert get(one.zipkin, "/api/v2/traces", {"annotationQuery": "error=no"}).json() == []
    assert get(one.zipkin, "/api/v2/traceMany", {"traceIds": f"{trace_id},1"}).json() == [trace]
    links = get(one.zipkin, "/api/v2/dependencies", {"endTs": now, "lookback": 3_600_000}).json()
    assert links == [{"parent": "web", "child": "shop", "callCount": 1, "errorCount": 1}]
    missing = get(one.zipkin, "/api/v2/trace/abc")
    assert missing.status == 404 and b"abc not found" in missing.body


def test_live_and_flushed(one):
    message, trace_id = shop_trace()
    send(one, message)
    for where in ("live", "flushed"):
        if where == "flushed":
            flushed(one)
        grafana_jaeger_asks(one, trace_id)
        jaeger_ui_asks(one, trace_id)
        grafana_and_ui_of_zipkin_ask(one, trace_id)
    assert one.program.stop() == 0


def test_a_single_binary_serves_them_by_itself(all_in_one):
    """On the ports that clients know, if nobody has them."""
    busy = [port for port in (16686, 16685, 9411) if harness.in_use(port)]
    if busy:
        pytest.skip(f"another program listens on {busy}")
    one = all_in_one.start()
    message, trace_id = shop_trace()
    send(one, message)
    assert envelope(get("http://127.0.0.1:16686", "/api/services")) == ["shop", "web"]
    check_zipkin(get("http://127.0.0.1:9411", f"/api/v2/trace/{trace_id}").json())
    assert harness.in_use(16685)
    assert one.program.stop() == 0


def test_zipkins_clients_send_to_the_port_they_read_from(tmp_path, programs):
    """9411 is one port, of the receiver and of the query API."""
    one = harness.AllInOne(tmp_path)
    (port,) = harness.free_ports(1)
    receivers = f"  receivers:\n    zipkin: {{endpoint: 127.0.0.1:{port}}}"
    config = one.default_config(f"query_frontend: {{zipkin: {{enabled: true, http_listen_port: {port}}}}}\n")
    (tmp_path / "vivace.yaml").write_text(config.replace("  receivers:", receivers, 1))
    programs.append(one.program)
    one.start()
    zipkin, trace_id = f"http://127.0.0.1:{port}", "463ac35c9f6413ad48485a3953bb6124"
    span = {
        "traceId": trace_id,
        "id": "a2fb4a1d1a96d312",
        "name": "get",
        "kind": "SERVER",
        "timestamp": int(time.time() * 1e6),
        "duration": 1500,
        "localEndpoint": {"serviceName": "frontend"},
        "tags": {"http.path": "/api"},
    }
    posted = http(f"{zipkin}/api/v2/spans", data=json.dumps([span]).encode(), content_type="application/json")
    assert posted.status == 202, posted
    (found,) = get(zipkin, f"/api/v2/trace/{trace_id}").json()
    for key in ("traceId", "id", "name", "kind", "timestamp", "duration", "localEndpoint"):
        assert found[key] == span[key], found
    assert found["tags"]["http.path"] == "/api"
    assert get(zipkin, "/api/v2/spans", {"serviceName": "frontend"}).json() == ["get"]
    assert get(zipkin, "/api/v2/traces", {"serviceName": "frontend", "spanName": "get"}).json() == [[found]]


def test_browsers_of_this_machine_may_ask(one):
    """Grafana's data source with `access: browser`."""
    asks = {"Origin": "http://localhost:3000", "Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "content-type"}
    allowed = http(f"{one.jaeger}/api/services", method="OPTIONS", **asks)
    assert allowed.status == 200 and allowed.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    refused = http(f"{one.jaeger}/api/services", method="OPTIONS", **{**asks, "Origin": "https://evil.example"})
    assert refused.headers["Access-Control-Allow-Origin"] is None


def test_tenants_do_not_see_each_other(tmp_path, programs):
    one = with_apis(tmp_path, programs, extra="multitenancy_enabled: true\n")
    traces = {}
    for number, tenant in enumerate(["a", "b"]):
        message, traces[tenant] = shop_trace(number)
        send(one, message, X_Scope_OrgID=tenant)
    for tenant, other in (("a", "b"), ("b", "a")):
        assert get(one.jaeger, f"/api/traces/{traces[tenant]}", X_Scope_OrgID=tenant).status == 200
        assert get(one.jaeger, f"/api/traces/{traces[other]}", X_Scope_OrgID=tenant).status == 404
        assert get(one.zipkin, f"/api/v2/trace/{traces[other]}", X_Scope_OrgID=tenant).status == 404
        (found,) = envelope(get(one.jaeger, "/api/traces", {"service": "web"}, X_Scope_OrgID=tenant))
        assert found["traceID"] == traces[tenant]
    both = envelope(get(one.jaeger, "/api/traces", {"service": "web"}, X_Scope_OrgID="a|b"))
    assert {trace["traceID"] for trace in both} == set(traces.values())
    nobody = get(one.jaeger, "/api/services")
    assert nobody.status == 401 and nobody.json()["errors"] == [{"code": 401, "msg": "no org id"}]


def test_metrics_come_from_prometheus_where_one_is_configured(tmp_path, programs):
    prometheus = harness.Prometheus(tmp_path)
    programs.append(prometheus)
    prometheus.start()
    eventually("Prometheus is up", lambda: http(f"{prometheus.url}/-/ready").status == 200)
    write = f"""
metrics_generator:
  storage: {{path: {tmp_path}/generator, remote_write: [{{url: "{prometheus.url}/api/v1/write"}}]}}
  registry: {{collection_interval: 1s}}
overrides: {{defaults: {{metrics_generator: {{processors: [span-metrics]}}}}}}
"""
    one = with_apis(tmp_path, programs, frontend=f', prometheus_url: "{prometheus.url}/"', extra=write)
    number = 0

    def metric(kind, **more):
        nonlocal number
        # Rates need a counter that grows.
        message, _ = shop_trace(number := number + 1)
        send(one, message)
        window = {"service": "shop", "lookback": 60_000, "step": 1000, "ratePer": 60_000, "groupByOperation": "true", **more}
        answer = get(one.jaeger, f"/api/metrics/{kind}", window)
        assert answer.status == 200, answer
        values = [
            point["gaugeValue"]["doubleValue"] for metric in answer.json()["metrics"] for point in metric["metricPoints"]
        ]
        return [value for value in values if isinstance(value, (int, float)) and value > 0]

    calls = eventually("calls are counted", lambda: metric("calls"), seconds=60, every=1)
    assert max(calls) < 10
    assert max(eventually("latencies", lambda: metric("latencies", quantile=0.5), every=1)) < 100, "milliseconds"
    assert 0 < max(eventually("errors", lambda: metric("errors"), every=1)) <= 1.01
    # It is Prometheus that answers.
    prometheus.stop()
    refused = get(one.jaeger, "/api/metrics/calls", {"service": "shop"})
    assert refused.status == 503 and "Prometheus does not answer" in refused.json()["errors"][0]["msg"]


def test_the_newest_traces_are_found(one):
    """Who asks for five traces of forty means the last five, in every API, live and stored."""
    now, ids = time.time_ns(), []
    for number in range(40):
        message, (trace_id,) = spans.request(service="shop", spans=1, start=now - (41 - number) * 10**9)
        send(one, message)
        ids.append(trace_id)
    newest, micros = set(ids[-5:]), now // 1000
    start, end = (datetime.fromtimestamp(micros / 1e6 - back, timezone.utc).isoformat() for back in (600, -5))
    v3 = {"query.service_name": "shop", "query.start_time_min": start, "query.start_time_max": end, "query.num_traces": 5}

    def found():
        v1 = envelope(get(one.jaeger, "/api/traces", {"service": "shop", "limit": 5, "start": micros - 600 * 10**6, "end": micros + 10**6}))
        zipkin = get(one.zipkin, "/api/v2/traces", {"serviceName": "shop", "limit": 5, "endTs": micros // 1000 + 1000}).json()
        third = get(one.jaeger, "/api/v3/traces", v3).body.decode()
        return [{trace["traceID"] for trace in v1}, {trace[0]["traceId"] for trace in zipkin}, {id for id in ids if id in third}]

    eventually("live", lambda: found() == [newest] * 3)
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    eventually("stored", lambda: list((one.folder / "blocks").glob("*/*/meta.json")))
    eventually("as a block", lambda: found() == [newest] * 3)
