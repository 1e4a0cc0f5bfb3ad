"""Spans become metrics in a real Prometheus."""

import time

import harness
import spans
from harness import eventually
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def test_span_metrics_reach_prometheus(tmp_path, minio, programs):
    prometheus = harness.Prometheus(tmp_path)
    programs.append(prometheus)
    prometheus.start()
    eventually("Prometheus is up", lambda: harness.http(f"{prometheus.url}/-/ready").status == 200)
    extra = "overrides: {defaults: {metrics_generator: {processors: [span-metrics], collection_interval: 1s}}}\n"
    cluster = harness.Cluster(tmp_path, minio, extra)
    file = tmp_path / "cluster.yaml"
    remote = f'remote_write: [{{url: "{prometheus.url}/api/v1/write", send_exemplars: true}}]'
    file.write_text(file.read_text().replace(f"path: {tmp_path}/generator}}", f"path: {tmp_path}/generator, {remote}}}"))
    programs.extend(cluster.programs.values())
    cluster.start()
    sdk = spans.Sdk("measured", grpc=f"127.0.0.1:{cluster.otlp_grpc}")
    for number in range(10):
        sdk.order(number)
    sdk.close()

    def value(promql):
        result = prometheus.query(promql)
        return float(result[0]["value"][1]) if result else 0.0

    eventually("all calls are counted", lambda: value('sum(traces_spanmetrics_calls_total{service="measured"})') == 40, seconds=60)
    assert value('traces_spanmetrics_calls_total{span_name="charge", status_code="STATUS_CODE_ERROR"}') == 10
    assert value('traces_spanmetrics_calls_total{span_name="charge", span_kind="SPAN_KIND_INTERNAL"}') == 10
    assert value('traces_spanmetrics_latency_bucket{span_name="query", le="+Inf"}') == 10
    assert value('traces_spanmetrics_latency_count{span_name="query"}') == 10
    assert value('traces_spanmetrics_size_total{span_name="query"}') > 0
    # Metrics of queries count the same spans, and an exemplar leads to one of them.
    now = int(time.time())
    q = '{ resource.service.name = "measured" } | count_over_time()'
    counted = cluster.query.get("/api/metrics/query", q=q, start=now - 600, end=now + 1)
    assert counted.status == 200, counted
    assert sum(series.get("value", 0) for series in counted.json()["series"]) == 40
    exemplars = prometheus.exemplars('traces_spanmetrics_latency_bucket{span_name="query"}')
    assert exemplars
    for exemplar in exemplars:
        assert "query" in cluster.query.trace(exemplar["labels"]["traceID"]).values()


def one_span(service, trace, span, parent, kind, **attributes):
    """A request of one span that took 0.3 s, as one service sends it of itself."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    now = time.time_ns()
    sent = resource.scope_spans.add().spans.add(trace_id=trace, span_id=span, parent_span_id=parent, name=service, kind=kind)
    sent.start_time_unix_nano, sent.end_time_unix_nano = now - 300_000_000, now
    for key, value in attributes.items():
        sent.attributes.add(key=key.replace("_", ".")).value.string_value = value
    return message.SerializeToString()


def test_service_graphs_reach_prometheus(tmp_path, minio, programs):
    """Both sides of a call come in requests of their own; they meet in one generator."""
    prometheus = harness.Prometheus(tmp_path)
    programs.append(prometheus)
    prometheus.start()
    eventually("Prometheus is up", lambda: harness.http(f"{prometheus.url}/-/ready").status == 200)
    limits = "processors: [service-graphs], collection_interval: 1s, generate_native_histograms: both"
    cluster = harness.Cluster(tmp_path, minio, f"overrides: {{defaults: {{metrics_generator: {{{limits}}}}}}}\n")
    file = tmp_path / "cluster.yaml"
    remote = f'remote_write: [{{url: "{prometheus.url}/api/v1/write"}}]'
    file.write_text(file.read_text().replace(f"path: {tmp_path}/generator}}", f"path: {tmp_path}/generator, {remote}}}"))
    programs.extend(cluster.programs.values())
    cluster.start()

    def send(*arguments, **attributes):
        body = one_span(*arguments, **attributes)
        answer = harness.http(cluster.otlp_http_url, body, Content_Type="application/x-protobuf")
        assert answer.status == 200, answer

    for number in range(1, 21):
        trace = number.to_bytes(2, "big") * 8
        send("bank", trace, b"server-1", b"client-1", 2)
        send("shop", trace, b"client-1", b"internal", 3)
        send("shop", trace, b"client-2", b"internal", 3, db_system="redis")

    def value(promql):
        result = prometheus.query(promql)
        return float(result[0]["value"][1]) if result else 0.0

    edge = '{client="shop", server="bank", connection_type=""}'
    eventually("all calls are counted", lambda: value(f"sum(traces_service_graph_request_total{edge})") == 20, seconds=60)
    assert value(f"sum(traces_service_graph_request_server_seconds_count{edge})") == 20
    assert abs(value(f"sum(traces_service_graph_request_client_seconds_sum{edge})") - 6) < 1e-6
    assert value('sum(traces_service_graph_request_total{client="shop", server="redis", connection_type="database"})') == 20
