"""Sends one trace through a client of Jaeger or Zipkin, as an application would, and prints its id. Runs in an environment of its own:

    old_clients.py CLIENT HOST PORT
"""

import sys

CLIENT, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


def of_opentelemetry(exporter):
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode

    provider = TracerProvider(resource=Resource.create({"service.name": "shop", "deployment.environment": "e2e"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("orders", "1.0")
    with tracer.start_as_current_span("earlier") as earlier:
        pass
    links = [Link(earlier.get_span_context())]
    with tracer.start_as_current_span("POST /order", context=None, kind=SpanKind.SERVER, links=links) as root:
        root.set_attributes({"order.number": 7, "order.total": 1.5, "vip": True, "customer": "Zoë"})
        with tracer.start_as_current_span("charge", kind=SpanKind.CLIENT) as child:
            child.add_event("retry", {"attempt": "2"})
            child.set_status(Status(StatusCode.ERROR, "card declined"))
        trace_id = root.get_span_context().trace_id
    provider.shutdown()
    return f"{trace_id:032x}"


def jaeger_compact():
    from opentelemetry.exporter.jaeger.thrift import JaegerExporter

    return of_opentelemetry(JaegerExporter(agent_host_name=HOST, agent_port=PORT))


def jaeger_http():
    from opentelemetry.exporter.jaeger.thrift import JaegerExporter

    return of_opentelemetry(JaegerExporter(collector_endpoint=f"http://{HOST}:{PORT}/api/traces?format=jaeger.thrift"))


def jaeger_grpc():
    from opentelemetry.exporter.jaeger.proto.grpc import JaegerExporter

    return of_opentelemetry(JaegerExporter(collector_endpoint=f"{HOST}:{PORT}", insecure=True))


def zipkin_json():
    from opentelemetry.exporter.zipkin.json import ZipkinExporter

    return of_opentelemetry(ZipkinExporter(endpoint=f"http://{HOST}:{PORT}/api/v2/spans"))


def zipkin_json_v1():
    from opentelemetry.exporter.zipkin.encoder import Protocol
    from opentelemetry.exporter.zipkin.json import ZipkinExporter

    return of_opentelemetry(ZipkinExporter(Protocol.V1, f"http://{HOST}:{PORT}/api/v1/spans", max_tag_value_length=256))


def zipkin_proto():
    from opentelemetry.exporter.zipkin.proto.http import ZipkinExporter

    return of_opentelemetry(ZipkinExporter(endpoint=f"http://{HOST}:{PORT}/api/v2/spans"))


def jaeger_client():
    """Jaeger's own library, which speaks OpenTracing."""
    import time

    from jaeger_client import Config

    agent = {"reporting_host": HOST, "reporting_port": PORT}
    settings = {"sampler": {"type": "const", "param": 1}, "local_agent": agent, "generate_128bit_trace_id": True, "tags": {"region": "eu"}}
    config = Config(config=settings, service_name="shop", validate=True)
    tracer = config.initialize_tracer()
    with tracer.start_active_span("POST /order") as scope:
        scope.span.set_tag("span.kind", "server").set_tag("order.number", 7).set_tag("order.total", 1.5).set_tag("vip", True)
        with tracer.start_active_span("charge") as child:
            child.span.set_tag("span.kind", "client").set_tag("error", True)
            child.span.log_kv({"event": "retry", "attempt": 2})
        trace_id = scope.span.trace_id
    closed, deadline = tracer.close(), time.monotonic() + 10
    while not closed.done():
        assert time.monotonic() < deadline, "its spans are not sent"
        time.sleep(0.01)
    return f"{trace_id:032x}"


def py_zipkin(encoding, path):
    import requests
    from py_zipkin import Encoding
    from py_zipkin.util import generate_random_64bit_string, generate_random_128bit_string
    from py_zipkin.zipkin import ZipkinAttrs, zipkin_client_span, zipkin_server_span

    kind = "application/x-protobuf" if encoding == "V2_PROTO3" else "application/json"

    def send(body):
        requests.post(f"http://{HOST}:{PORT}{path}", data=body, headers={"Content-Type": kind}, timeout=10).raise_for_status()

    trace_id = generate_random_128bit_string()
    attributes = ZipkinAttrs(trace_id, generate_random_64bit_string(), None, "0", True)
    settings = {"transport_handler": send, "encoding": getattr(Encoding, encoding), "host": "10.0.0.1", "port": 8080}
    with zipkin_server_span("shop", "POST /order", zipkin_attrs=attributes, **settings) as root:
        root.update_binary_annotations({"order.number": "7"})
        with zipkin_client_span("shop", "charge") as child:
            child.add_annotation("retry")
            child.add_sa_binary_annotation(port=443, service_name="bank", host="10.0.0.2")
            child.update_binary_annotations({"error": "card declined"})
    return trace_id


CLIENTS = {
    "jaeger-compact": jaeger_compact,
    "jaeger-http": jaeger_http,
    "jaeger-grpc": jaeger_grpc,
    "jaeger-client": jaeger_client,
    "zipkin-json": zipkin_json,
    "zipkin-json-v1": zipkin_json_v1,
    "zipkin-proto": zipkin_proto,
    "py-zipkin-json": lambda: py_zipkin("V2_JSON", "/api/v2/spans"),
    "py-zipkin-json-v1": lambda: py_zipkin("V1_JSON", "/api/v1/spans"),
    "py-zipkin-proto": lambda: py_zipkin("V2_PROTO3", "/api/v2/spans"),
}

if __name__ == "__main__":
    print(CLIENTS[CLIENT]())
