"""What the tutorials do, from beginning to end: applications, collectors, the service map."""

import json
import re
import time
from urllib.parse import quote

import harness
import images
import spans
import tools
from harness import eventually, http
from opentelemetry.trace import set_span_in_context

PAIR = harness.ROOT / "e2e" / "django_pair.py"


def names_of(trace):
    """Names of the spans of each service in a trace of the query API."""
    found = {}
    for of_resource in trace.get("resourceSpans", []):
        service = next(a["value"]["stringValue"] for a in of_resource["resource"]["attributes"] if a["key"] == "service.name")
        found.setdefault(service, []).extend(span["name"] for of_scope in of_resource["scopeSpans"] for span in of_scope["spans"])
    return found


def test_two_django_applications_that_know_jaeger(tmp_path, programs):
    """They export to 6831 by UDP. The trace is found by the id of a log line, with Jaeger's API, and with Tempo's."""
    one = harness.AllInOne(tmp_path)
    agent, jaeger, jaeger_grpc, webapp, webapi = harness.free_ports(5)
    file = tmp_path / "vivace.yaml"
    receivers = f'  receivers:\n    jaeger: {{protocols: {{thrift_compact: {{endpoint: "127.0.0.1:{agent}"}}}}}}\n'
    frontend = f"query_frontend: {{jaeger: {{enabled: true, http_listen_port: {jaeger}, grpc_listen_port: {jaeger_grpc}}}}}\n"
    file.write_text(file.read_text().replace("  receivers:\n", receivers) + frontend)
    programs.append(one.program)
    one.start()
    python = tools.venv_python(tools.OLD_CLIENTS)
    for name, port, *more in (("webapi", webapi), ("webapp", webapp, webapi)):
        program = harness.Program(name, [python, PAIR, name, port, agent, *more], tmp_path)
        programs.append(program.start())
    application = programs[-1]

    def works():
        try:
            return http(f"http://127.0.0.1:{webapp}/service").status == 200
        except OSError:
            return False

    eventually("the applications answer", works)
    answer = http(f"http://127.0.0.1:{webapp}/service?b=40")
    assert answer.json() == {"sum": 41}, answer
    trace_id = re.findall(r"trace_id=([0-9a-f]{32})", application.output())[-1]

    def whole():
        names = names_of(one.query.get(f"/api/v2/traces/{trace_id}").json()["trace"])
        return names if sum(map(len, names.values())) == 4 else None

    assert {service: sorted(names) for service, names in eventually("all four spans", whole).items()} == {
        "webapp": ["HTTP GET", "service"],
        "webapi": ["Heavy task", "add"],
    }
    found = one.query.found('{ resource.service.name = "webapp" } >> { resource.service.name = "webapi" && name = "Heavy task" }')
    assert trace_id in found
    assert trace_id in one.query.found("{ span.add.sum = 41 }") and not one.query.found('{ span.add.sum = "41" }')

    base = f"http://127.0.0.1:{jaeger}"
    assert set(http(f"{base}/api/services").json()["data"]) == {"webapp", "webapi"}
    assert set(http(f"{base}/api/services/webapi/operations").json()["data"]) == {"Heavy task", "add"}
    tags = quote(json.dumps({"add.sum": "41"}))
    (trace,) = http(f"{base}/api/traces?service=webapi&tags={tags}&lookback=1h&limit=20").json()["data"]
    assert trace["traceID"] == trace_id and len(trace["spans"]) == 4
    assert {process["serviceName"] for process in trace["processes"].values()} == {"webapp", "webapi"}
    (by_id,) = http(f"{base}/api/traces/{trace_id}").json()["data"]
    assert {span["operationName"] for span in by_id["spans"]} == {"HTTP GET", "service", "Heavy task", "add"}
    page = http(f"{base}/trace/{trace_id}")  # the deep link of a log line
    assert page.status == 200 and b"Heavy task" in page.body, page
    now_ms = int(time.time() * 1000)
    edges = http(f"{base}/api/dependencies?endTs={now_ms}&lookback=3600000").json()["data"]
    assert [(edge["parent"], edge["child"]) for edge in edges] == [("webapp", "webapi")]


def test_a_collector_that_samples_tails(tmp_path, programs):
    """Memory limiter, tail sampling, batches; OTLP over gRPC, over HTTP and Zipkin's protocol out. Whole traces come late, in one burst."""
    one = harness.AllInOne(tmp_path)
    zipkin, taken, health = harness.free_ports(3)
    file = tmp_path / "vivace.yaml"
    file.write_text(file.read_text().replace("  receivers:\n", f'  receivers:\n    zipkin: {{endpoint: "127.0.0.1:{zipkin}"}}\n'))
    programs.append(one.program)
    one.start()
    policies = [
        {"name": "failed", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": 1000}},
    ]
    exporters = {
        "otlp/vivace": {"endpoint": f"127.0.0.1:{one.otlp_grpc}", "tls": {"insecure": True}},
        "otlphttp/vivace": {"endpoint": f"http://127.0.0.1:{one.otlp_http}"},
        "zipkin/vivace": {"endpoint": f"http://127.0.0.1:{zipkin}/api/v2/spans"},
    }
    pipeline = {"receivers": ["otlp"], "processors": ["memory_limiter", "tail_sampling", "batch"], "exporters": list(exporters)}
    config = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{taken}"}}}},
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": 400},
            "tail_sampling": {"decision_wait": "2s", "policies": policies},
            "batch": {},
        },
        "exporters": exporters,
        "service": {"pipelines": {"traces": pipeline}, "telemetry": {"metrics": {"level": "none"}}},
    }
    (tmp_path / "collector.yaml").write_text(json.dumps(config))
    collector = harness.Program("collector", [images.collector_program(), f"--config={tmp_path}/collector.yaml"], tmp_path)
    programs.append(collector.start())
    eventually("the collector takes spans", lambda: "Everything is ready" in collector.output())
    sdk, quick, slow, failed = spans.Sdk("shop", grpc=f"127.0.0.1:{taken}"), [], [], []
    for number in range(20):
        failed.append(sdk.order(number))
        began = time.time_ns()
        for ids, millis in ((quick, 3), (slow, 1500)):
            span = sdk.tracer.start_span("GET /item", start_time=began, attributes={"number": number})
            sdk.tracer.start_span("load", context=set_span_in_context(span), start_time=began).end(began + 1_000_000)
            span.end(began + millis * 1_000_000)
            ids.append(format(span.get_span_context().trace_id, "032x"))
    sdk.close()
    assert sdk.exporter.failed == 0
    eventually("what failed is there", lambda: one.query.found("{ status = error }") == set(failed), seconds=60)
    eventually("what was slow is there", lambda: one.query.found("{ traceDuration > 1s }") == set(slow), seconds=60)
    assert one.query.found('{ name = "GET /item" && span.number >= 0 }') == set(slow), "what was quick and good is nowhere"
    # The same spans came three times, twice as OTLP: those are one span; Zipkin's has other attributes and is the same span too.
    for trace_id, count in [(failed[0], 4), (slow[0], 2)]:
        assert len(one.query.trace(trace_id)) == count


def test_the_service_map(tmp_path, programs):
    """The generator's metrics in Prometheus draw the map; an exemplar leads to a trace, a trace to the metrics of its service."""
    prometheus = harness.Prometheus(tmp_path)
    programs.append(prometheus.start())
    eventually("Prometheus is up", lambda: http(f"{prometheus.url}/-/ready").status == 200)
    one = harness.AllInOne(tmp_path)
    one.with_config(f"""
metrics_generator:
  processor: {{span_metrics: {{enable_target_info: true}}}}
  storage: {{path: {tmp_path}/generator, remote_write: [{{url: "{prometheus.url}/api/v1/write", send_exemplars: true}}]}}
overrides: {{defaults: {{metrics_generator: {{processors: [service-graphs, span-metrics], collection_interval: 1s}}}}}}
""")
    programs.append(one.program)
    one.start()
    ids = set()
    for _ in range(10):
        message, (trace_id,) = spans.request(service="web", spans=2)
        root, call = message.resource_spans[0].scope_spans[0].spans
        root.kind, call.kind = 2, 3
        shop = message.resource_spans.add()
        for key, text in (("service.name", "shop"), ("cluster", "blue")):
            shop.resource.attributes.add(key=key).value.string_value = text
        served = shop.scope_spans.add().spans.add(trace_id=root.trace_id, span_id=b"\x09" * 8, parent_span_id=call.span_id, kind=2, name="serve")
        served.start_time_unix_nano, served.end_time_unix_nano = call.start_time_unix_nano, call.end_time_unix_nano
        answer = http(one.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf")
        assert answer.status == 200, answer
        ids.add(trace_id)

    def value(promql):
        result = prometheus.query(promql)
        return float(result[0]["value"][1]) if result else None

    # The edges of the map, and its nodes' rates, as Grafana asks for them.
    edge = 'traces_service_graph_request_total{client="web",server="shop"}'
    eventually("the edge is drawn", lambda: value(f"sum by (client, server) ({edge})") == 10, seconds=60)
    assert value('sum(traces_service_graph_request_failed_total{client="web",server="shop"})') in (None, 0)
    seconds = 'histogram_quantile(.9, sum(traces_service_graph_request_server_seconds_bucket{server="shop"}) by (le))'
    assert value(seconds) > 0
    # From a trace to the metrics of its service: the attribute is the label `job`.
    assert value('traces_target_info{job="shop",cluster="blue"}') == 1
    assert value('traces_spanmetrics_calls_total{service="shop",span_name="serve"}') == 10
    # From a metric to a trace.
    exemplars = prometheus.exemplars('traces_spanmetrics_latency_bucket{service="shop"}')
    assert exemplars and {exemplar["labels"]["traceID"].rjust(32, "0") for exemplar in exemplars} <= ids
    # The node graph of a trace needs parents, services and durations.
    trace = one.query.get(f"/api/v2/traces/{min(ids)}").json()["trace"]
    assert names_of(trace).keys() == {"web", "shop"}
