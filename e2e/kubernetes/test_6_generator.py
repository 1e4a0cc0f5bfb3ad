"""The metrics-generator as the chart starts it: spans become series in a Prometheus."""

import json
import urllib.parse

import pytest

import cluster as kube
from harness import eventually, http

NAMESPACE = "generator"
SPANS = 3


@pytest.fixture(scope="module")
def generator():
    kube.clear(NAMESPACE)
    kube.kubectl("create", "namespace", NAMESPACE)
    start_prometheus()
    release = kube.Release(NAMESPACE, [kube.HERE / "values-tempo.yaml", kube.HERE / "values-generator.yaml"])
    release.install()
    release.wait_ready(seconds=300)
    yield release
    kube.clear(NAMESPACE, wait=False)


def start_prometheus():
    labels = {"app": "prometheus", "vivace-test": "prometheus"}
    container = {
        "name": "prometheus",
        "image": kube.PROMETHEUS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/prometheus"],
        "args": ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/data", "--web.enable-remote-write-receiver"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus"}, {"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
    }
    volumes = [{"name": "config", "configMap": {"name": "prometheus"}}, {"name": "data", "emptyDir": {}}]
    kube.apply(
        NAMESPACE,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "prometheus"},
            "data": {"prometheus.yml": json.dumps({"global": {"scrape_interval": "1h"}})},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "prometheus", "labels": labels},
            "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "prometheus"},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 9090}]},
        },
    )
    kube.kubectl("wait", "-n", NAMESPACE, "pod/prometheus", "--for=condition=Ready", "--timeout=120s")


def series(address, promql):
    """{labels that matter: value} of a query."""
    answer = http(f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": promql})).json()
    result = answer["data"]["result"]
    return {(one["metric"]["service"], one["metric"]["span_name"], one["metric"]["span_kind"]): float(one["value"][1]) for one in result}


def test_spans_become_series(generator):
    assert len(generator.pods("metrics-generator")) == 1
    done = kube.run("helm", "test", generator.name, "-n", NAMESPACE, "--logs", "--timeout", "120s")
    assert "The trace was written and read back in " in done.stdout, done.stdout
    expected = {
        ("round-trip", "write and read", "SPAN_KIND_SERVER"): 1,
        ("round-trip", "ask", "SPAN_KIND_CLIENT"): 1,
        ("round-trip-callee", "answer", "SPAN_KIND_SERVER"): 1,
    }
    assert len(expected) == SPANS
    with kube.Forward(NAMESPACE, "svc/prometheus", 9090) as address:
        calls = "traces_spanmetrics_calls_total"
        eventually("every span is counted", lambda: series(address, calls) == expected, 90)
        assert series(address, "traces_spanmetrics_latency_count") == expected
    (pod,) = generator.pods("metrics-generator")
    assert generator.metric(pod, "tempo_metrics_generator_spans_received_total") == SPANS
