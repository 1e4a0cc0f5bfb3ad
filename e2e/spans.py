"""Spans for the tests: through the OpenTelemetry SDK, through telemetrygen, and as raw requests."""

import os
import random
import subprocess
import time

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode

import tools


class Counting(SpanExporter):
    """Passes spans on and remembers which were acknowledged."""

    def __init__(self, inner):
        self.inner, self.acknowledged, self.failed = inner, {}, 0

    def export(self, spans):
        result = self.inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            for span in spans:
                trace_id = format(span.context.trace_id, "032x")
                self.acknowledged.setdefault(trace_id, set()).add(span.name)
        else:
            self.failed += len(spans)
        return result

    def shutdown(self):
        self.inner.shutdown()


class Sdk:
    """The OpenTelemetry SDK as an application uses it, one export per span."""

    def __init__(self, service, grpc=None, http=None):
        inner = GrpcExporter(endpoint=grpc, insecure=True) if grpc else HttpExporter(endpoint=http)
        self.exporter = Counting(inner)
        self.provider = TracerProvider(resource=Resource.create({"service.name": service, "deployment.environment": "e2e"}))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("e2e", "1.0")

    def order(self, number):
        """A trace of four spans, one of them failed. Returns its id."""
        with self.tracer.start_as_current_span("POST /order") as root:
            root.set_attributes({"order.number": number, "order.total": number * 1.5, "vip": number % 2 == 0})
            with self.tracer.start_as_current_span("check stock") as child:
                child.set_attributes({"http.status_code": 200, "items": ["a", "b"]})
                with self.tracer.start_as_current_span("query") as leaf:
                    leaf.add_event("cache miss", {"key": f"stock/{number}"})
            with self.tracer.start_as_current_span("charge") as child:
                child.set_status(Status(StatusCode.ERROR, "card declined"))
            return format(root.get_span_context().trace_id, "032x")

    def close(self):
        self.provider.shutdown()


def telemetrygen(endpoint, service, traces, children=2):
    """Sends traces with the OpenTelemetry project's generator over gRPC."""
    subprocess.run(
        [
            tools.go_tool("telemetrygen"),
            "traces",
            "--otlp-endpoint", endpoint,
            "--otlp-insecure",
            "--service", service,
            "--traces", str(traces),
            "--child-spans", str(children),
            "--rate", "0",
        ],
        check=True,
        timeout=120,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip


def request(service="raw", traces=1, spans=3, start=None, attributes=None):
    """A raw export request and the ids of its traces. Ids are random."""
    start = start or time.time_ns()
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    attribute = resource.resource.attributes.add(key="service.name")
    attribute.value.string_value = service
    scope = resource.scope_spans.add()
    scope.scope.name = "raw"
    ids = []
    for _ in range(traces):
        trace_id = random.randbytes(16)
        ids.append(trace_id.hex())
        root = random.randbytes(8)
        for number in range(spans):
            span = scope.spans.add(trace_id=trace_id, span_id=root if number == 0 else random.randbytes(8), name=f"span {number}")
            if number:
                span.parent_span_id = root
            span.start_time_unix_nano = start + number * 1_000_000
            span.end_time_unix_nano = start + number * 1_000_000 + 5_000_000
            for key, value in (attributes or {}).items():
                added = span.attributes.add(key=key)
                if isinstance(value, int):
                    added.value.int_value = value
                else:
                    added.value.string_value = value
    return message, ids
