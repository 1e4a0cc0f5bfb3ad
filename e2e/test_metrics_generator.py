"""Spans become metrics in a real Prometheus."""

import harness
import spans
from harness import eventually


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
