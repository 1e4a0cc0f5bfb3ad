"""Spans become metrics in a real Prometheus."""

import hashlib
import http.server
import threading
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


class Door:
    """Stands before a receiver of remote writes: lets requests through or not, and remembers those that were taken."""

    def __init__(self, receiver_url):
        self.is_open, self.refused, self.taken = False, 0, []
        door = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if door.is_open:
                    passed = {name.replace("-", "_"): value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")}
                    answer = harness.http(receiver_url + self.path, body, **passed)
                    status = answer.status
                    if status < 300:
                        door.taken.append(hashlib.sha256(body).hexdigest())
                else:
                    door.refused += 1
                    status = 503
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def test_a_killed_generator_loses_nothing_that_it_had_collected(tmp_path, minio, programs):
    """The receiver is away, then the generator dies: what was collected comes after its restart, each request once, in order."""
    prometheus = harness.Prometheus(tmp_path)
    programs.append(prometheus)
    prometheus.start()
    eventually("Prometheus is up", lambda: harness.http(f"{prometheus.url}/-/ready").status == 200)
    door = Door(prometheus.url)
    extra = "overrides: {defaults: {metrics_generator: {processors: [span-metrics, service-graphs], collection_interval: 1s}}}\n"
    cluster = harness.Cluster(tmp_path, minio, extra)
    file = tmp_path / "cluster.yaml"
    # What metrics are is the same request each time, and would be taken for one that was sent twice.
    keys = "send_exemplars: true, queue_config: {max_backoff: 1s}, metadata_config: {send: false}"
    remote = f'remote_write: [{{url: "{door.url}/api/v1/write", {keys}}}]'
    file.write_text(file.read_text().replace(f"path: {tmp_path}/generator}}", f"path: {tmp_path}/generator, {remote}}}"))
    programs.extend(cluster.programs.values())
    cluster.start()
    generator = cluster.programs["metrics-generator"]

    def orders(numbers):
        sdk = spans.Sdk("killed", grpc=f"127.0.0.1:{cluster.otlp_grpc}")
        for number in numbers:
            sdk.order(number)
        sdk.close()

    def waiting():
        return {path for path in (tmp_path / "generator").glob("*/remote-write/*/*") if path.suffix != ".tmp"}

    def values(promql):
        """Time and value of each sample of a series."""
        result = prometheus.query(promql)
        return [(float(at), float(value)) for series in result for at, value in series["values"]]

    orders(range(25))
    received = "tempo_metrics_generator_spans_received_total"
    eventually("all spans are counted", lambda: generator.metric(received) == 100)
    collected = generator.metric("tempo_metrics_generator_registry_collections_total")
    # The one after next has begun after the last span.
    eventually(
        "and collected", lambda: generator.metric("tempo_metrics_generator_registry_collections_total") >= collected + 2 and door.refused > 1
    )
    assert generator.metric("prometheus_remote_storage_samples_pending") > 0
    generator.kill()
    before = waiting()
    assert len(before) >= 2 and not door.taken

    generator.start()
    generator.wait_ready()
    assert before <= waiting(), "nothing is dropped by the restart"
    door.is_open = True
    eventually("what waited arrives", lambda: not before & waiting(), seconds=60)
    calls = 'traces_spanmetrics_calls_total{service="killed", span_name="charge"}[10m]'
    at_death = values(calls)
    assert max(value for _, value in at_death) == 25, at_death

    orders(range(100, 110))
    eventually("the new process counts from zero", lambda: [value for _, value in values(calls)][-1] == 10, seconds=60)
    door.close()
    samples = values(calls)
    # Up to the death all of the old ones, then the new ones: a counter that begins again, which `increase` understands.
    assert [value for _, value in samples[: len(at_death)]] == [value for _, value in at_death]
    rises = sum(b - a if b >= a else b for (_, a), (_, b) in zip([(0, 0), *samples], samples))
    assert rises == 35, samples
    assert len(door.taken) == len(set(door.taken)), "each request once"
    assert generator.metric("prometheus_remote_storage_samples_failed_total") == 0
    assert generator.metric("prometheus_remote_storage_samples_dropped_total") == 0
    assert generator.metric("prometheus_remote_storage_samples_total") > 0


def test_hostile_and_late_spans_do_not_harm_the_others(tmp_path, minio, programs):
    """Whatever stands in attributes, a real Prometheus takes it; spans that are too late are counted as such."""
    prometheus = harness.Prometheus(tmp_path)
    programs.append(prometheus)
    prometheus.start()
    eventually("Prometheus is up", lambda: harness.http(f"{prometheus.url}/-/ready").status == 200)
    span_metrics = "{dimensions: [__name__, le, '', '1', metric_overflow, a.b, a_b], enable_target_info: true}"
    limits = f"processors: [span-metrics], collection_interval: 1s, processor: {{span_metrics: {span_metrics}}}"
    cluster = harness.Cluster(tmp_path, minio, f"overrides: {{defaults: {{metrics_generator: {{{limits}}}}}}}\n")
    file = tmp_path / "cluster.yaml"
    remote = (
        f'remote_write: [{{url: "{prometheus.url}/api/v1/write", write_relabel_configs: '
        "[{source_labels: [span_name], regex: secret.*, action: drop}, {target_label: cluster, replacement: demo}]}]"
    )
    file.write_text(file.read_text().replace(f"path: {tmp_path}/generator}}", f"path: {tmp_path}/generator, {remote}}}"))
    programs.extend(cluster.programs.values())
    cluster.start()
    generator = cluster.programs["metrics-generator"]

    def send(name, seconds_ago=0, **attributes):
        message = ExportTraceServiceRequest()
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "hostile"
        resource.resource.attributes.add(key="..name..").value.string_value = "not a name"
        end = time.time_ns() - int(seconds_ago * 1e9)
        span = resource.scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=name, kind=2)
        span.start_time_unix_nano, span.end_time_unix_nano = end - 1000, end
        for key, value in attributes.items():
            span.attributes.add(key=key).value.string_value = value
        answer = harness.http(cluster.otlp_http_url, message.SerializeToString(), Content_Type="application/x-protobuf")
        assert answer.status == 200, answer

    for value in ["x", "\x00\x1b[31m\n", '{le="1"}', "é" * 500, "x" * 100_000]:
        send(value, **{"__name__": value, "le": value, "": value, "1": value, "metric_overflow": value, "a.b": value, "a_b": "other"})
    send("secret word")
    send("late", seconds_ago=20)
    send("too late", seconds_ago=120)
    send("from the future", seconds_ago=-120)

    def value(promql):
        result = prometheus.query(promql)
        return float(result[0]["value"][1]) if result else 0.0

    eventually("what counts is there", lambda: value('sum(traces_spanmetrics_calls_total{service="hostile"})') == 6, seconds=60)
    assert value('traces_spanmetrics_calls_total{span_name="x", a_b="x", __le="x", cluster="demo"}') == 1
    assert value('traces_spanmetrics_calls_total{span_name="late"}') == 1
    assert value('count(traces_target_info{____name__="not a name"})') == 1
    assert value('count({span_name=~"secret.*|too late|from the future"})') == 0
    discarded = "tempo_metrics_generator_spans_discarded_total"
    assert generator.metric(discarded, reason="outside_metrics_ingestion_slack", processor="all") == 2
    assert generator.metric("prometheus_remote_storage_samples_failed_total") == 0
