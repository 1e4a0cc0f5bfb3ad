"""The tutorial's path on a real cluster: MinIO, Tempo's values unchanged, a collector, an SDK, port-forward, queries."""

import json
import os
import random
import subprocess
import time

import pytest

import cluster as kube
from harness import eventually

# What the tutorial's `kubectl get pods` shows.
EXPECTED = {
    "tempo-compactor": 1,
    "tempo-distributor": 1,
    "tempo-ingester": 3,
    "tempo-memcached": 1,
    "tempo-minio": 1,
    "tempo-querier": 1,
    "tempo-query-frontend": 1,
}
# The pipelines of the tutorials: Alloy's (batch), and the collector's with tail sampling.
COLLECTOR = {
    "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}, "http": {"endpoint": "0.0.0.0:4318"}}}},
    "processors": {"batch": {}},
    "exporters": {"otlp/tempo": {"endpoint": "tempo-distributor.observability.svc.cluster.local:4317", "tls": {"insecure": True}}},
    "service": {"pipelines": {"traces": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp/tempo"]}}},
}
RUN = f"{random.getrandbits(32):08x}"
SDK_PROGRAM = """
import sys
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http
service, wire, target = sys.argv[1:]
exporter = Grpc(endpoint=target, insecure=True) if wire == "grpc" else Http(endpoint=target)
provider = TracerProvider(resource=Resource.create({"service.name": service}))
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("shop")
for number in range(10):
    with tracer.start_as_current_span("POST /order") as root:
        root.set_attribute("http.status_code", 201)
        with tracer.start_as_current_span("charge"):
            pass
        print(format(root.get_span_context().trace_id, "032x"))
assert provider.force_flush()
provider.shutdown()
"""


def sdk(client, service, wire, target):
    """Runs an instrumented program in the client's pod. Returns the ids of its traces."""
    command = ["exec", "-n", client.namespace, client.name, "--", "/usr/bin/python3", "-c", SDK_PROGRAM, service, wire, target]
    return set(kube.kubectl(*command).split())


def curl(address, path, **parameters):
    """As in the documentation."""
    command = ["curl", "-s", "--fail-with-body", "-G", f"http://{address}{path}"]
    for key, value in parameters.items():
        command += ["--data-urlencode", f"{key}={value}"]
    return json.loads(kube.run(*command).stdout)


def test_every_pod_of_the_tutorial_is_ready(installed):
    pods = installed.everything()
    for prefix, count in EXPECTED.items():
        assert sum(name.startswith(prefix + "-") for name in pods) == count, (prefix, sorted(pods))
    assert len(pods) == sum(EXPECTED.values())
    for pod in pods.values():
        restarts = sum(s["restartCount"] for s in pod["status"]["containerStatuses"])
        print(f"  {pod['metadata']['name']}: restarts {restarts}")


def test_idle_memory_of_each_pod(installed):
    figures = {}
    for component in kube.COMPONENTS:
        for name in installed.pods(component):
            figures[name] = round(installed.metric(name, "process_resident_memory_bytes") / 1e6, 1)
    kube.note("idle memory, resident, MB", **figures)
    assert all(0 < megabytes < 100 for megabytes in figures.values())

    def measured():
        """What `kubectl top` prints and autoscalers and evictions go by: without pages of files that were not used lately."""
        listed = json.loads(kube.kubectl("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/namespaces/{installed.namespace}/pods"))
        used = {pod["metadata"]["name"]: pod["containers"][0]["usage"]["memory"] for pod in listed["items"]}
        return used if figures.keys() <= used.keys() else None

    used = eventually("kubectl top knows every pod", measured, 120)
    units = {"Ki": 1024, "Mi": 1024**2}
    kube.note("idle memory, working set, MB", **{name: round(int(used[name][:-2]) * units[used[name][-2:]] / 1e6, 1) for name in figures})


@pytest.fixture(scope="module")
def collector(installed):
    labels = {"app": "collector", "vivace-test": "collector"}
    ports = [{"name": "grpc", "port": 4317}, {"name": "http", "port": 4318}]
    mount = {"name": "config", "mountPath": "/etc/collector.yaml", "subPath": "collector.yaml"}
    container = {
        "name": "collector",
        "image": kube.COLLECTOR_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["--config=/etc/collector.yaml"],
        "volumeMounts": [mount],
        "readinessProbe": {"tcpSocket": {"port": 4317}, "periodSeconds": 1},
    }
    spec = {"containers": [container], "volumes": [{"name": "config", "configMap": {"name": "collector"}}], "terminationGracePeriodSeconds": 5}
    kube.apply(
        installed.namespace,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "collector"}, "data": {"collector.yaml": json.dumps(COLLECTOR)}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "collector"},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "collector"}, "spec": {"selector": labels, "ports": ports}},
    )
    kube.kubectl("rollout", "status", "-n", installed.namespace, "deployment/collector", "--timeout=120s")
    yield f"collector.{installed.namespace}.svc.cluster.local"
    for kind in ("deployment", "service", "configmap"):
        kube.kubectl("delete", "-n", installed.namespace, kind, "collector", "--wait=false")


def require_found(address, service, ids):
    """By id, by TraceQL and by tags, with curl."""

    def found():
        answer = curl(address, "/api/search", q=f'{{ resource.service.name = "{service}" && span.http.status_code = 201 }}', limit=100)
        return {trace["traceID"].rjust(32, "0") for trace in answer["traces"]} == ids

    eventually(f"the traces of {service} are found", found, 30)
    for trace_id in ids:
        spans = curl(address, f"/api/v2/traces/{trace_id}")["trace"]["resourceSpans"]
        names = sorted(span["name"] for resource in spans for scope in resource["scopeSpans"] for span in scope["spans"])
        assert names == ["POST /order", "charge"]
    assert service in {value["value"] for value in curl(address, "/api/v2/search/tag/resource.service.name/values")["tagValues"]}
    scopes = {scope["name"]: set(scope["tags"]) for scope in curl(address, "/api/v2/search/tags")["scopes"]}
    assert "service.name" in scopes["resource"] and "http.status_code" in scopes["span"]


def test_through_the_collector_and_from_an_sdk(installed, client, collector):
    fqdn = f"tempo-distributor.{installed.namespace}.svc.cluster.local"
    ways = {
        "through-collector-grpc": ("grpc", f"{collector}:4317"),
        "through-collector-http": ("http", f"http://{collector}:4318/v1/traces"),
        "sdk-grpc": ("grpc", f"{fqdn}:4317"),
        "sdk-http": ("http", f"http://{fqdn}:4318/v1/traces"),
    }
    # A name of its own for each run, as the release may have seen others.
    sent = {f"{name}-{RUN}": sdk(client, f"{name}-{RUN}", wire, target) for name, (wire, target) in ways.items()}
    # The tutorials' data sources use both ports.
    for port in (3200, 3100):
        with installed.forward("query-frontend", port) as address:
            assert kube.run("curl", "-s", f"http://{address}/api/echo").stdout.strip() == "echo"
            for service, ids in sent.items():
                assert len(ids) == 10
                require_found(address, service, ids)


def test_the_command_line_through_port_forward(installed, client):
    ids = sdk(client, "for-the-cli", "grpc", "tempo-distributor:4317")
    cli = os.environ["VIVACE_CLI"]
    one = sorted(ids)[0]
    with installed.forward("query-frontend", 3200) as address:
        by_id = kube.run(cli, "query", "trace", "--address", f"http://{address}", one).stdout
        assert "POST /order" in by_id and "charge" in by_id
        found = kube.run(cli, "query", "search", "--address", f"http://{address}", '{ resource.service.name = "for-the-cli" }').stdout
        assert one.lstrip("0") in found
        assert "for-the-cli" in kube.run(cli, "query", "tag-values", "--address", f"http://{address}", "resource.service.name").stdout


def test_helm_test(installed):
    began = time.monotonic()
    done = subprocess.run(
        ["helm", "test", installed.name, "-n", installed.namespace, "--logs", "--timeout", "120s"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    kube.note("helm test", seconds=round(time.monotonic() - began, 1))
