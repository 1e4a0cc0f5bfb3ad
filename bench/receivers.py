#!/usr/bin/env python3
"""What receiving costs by protocol: CPU seconds of the server per million spans, the same spans in each.

    bench/receivers.py [--binary PATH] [--spans N] [PROTOCOL...]

Bodies are made before anything is sent, 500 spans each, with ids of their own; over UDP, packets of 20 spans and of one. Runs with the
Python of the old clients, which it installs where it is missing. Everything is on loopback, in a temporary folder.
"""

import argparse
import http.client
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import tools  # noqa: E402

PYTHON = tools.venv_python(tools.OLD_CLIENTS)
if Path(sys.executable).parent != PYTHON.parent:
    os.execv(PYTHON, [str(PYTHON), *sys.argv])

import grpc  # noqa: E402
from opentelemetry.exporter.jaeger.proto.grpc.gen import collector_pb2, model_pb2  # noqa: E402
from opentelemetry.exporter.jaeger.thrift.gen.agent import Agent  # noqa: E402
from opentelemetry.exporter.jaeger.thrift.gen.jaeger import ttypes  # noqa: E402
from opentelemetry.exporter.zipkin.proto.http.v2.gen import zipkin_pb2  # noqa: E402
from thrift.protocol import TBinaryProtocol, TCompactProtocol  # noqa: E402
from thrift.transport import TTransport  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
PER_BODY = 500
TAGS = [("http.method", "GET"), ("http.route", "/api/items/{id}"), ("net.peer.name", "shop.example"), ("user.id", "u-4711")]
NUMBERS = [("http.status_code", 200), ("retries", 0)]


class Span:
    """What all protocols say."""

    def __init__(self, trace, parent, number):
        self.trace, self.parent, self.id, self.number = trace, parent, random.randbytes(8), number
        self.start, self.micros = time.time_ns() // 1000 - 10_000, 1500 + number


def spans(count):
    made, trace, parent = [], b"", b""
    for number in range(count):
        if number % 20 == 0:
            trace, parent = random.randbytes(16), b""
        made.append(Span(trace, parent, number))
        parent = made[-1].id
    return made


def varint(number):
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def field(number, value):
    """Of a protobuf message: bytes, texts and messages."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def otlp(batch):
    def attribute(key, value):
        held = field(1, value) if isinstance(value, str) else varint(3 << 3) + varint(value)
        return field(1, key) + field(2, held)

    def one(span):
        times = struct.pack("<BQBQ", 7 << 3 | 1, span.start * 1000, 8 << 3 | 1, (span.start + span.micros) * 1000)
        ids = field(1, span.trace) + field(2, span.id) + (field(4, span.parent) if span.parent else b"")
        tags = b"".join(field(9, attribute(key, value)) for key, value in TAGS + NUMBERS)
        return field(2, ids + field(5, "GET /api/items") + b"\x30\x02" + times + tags)

    resource = field(1, field(1, attribute("service.name", "shop")))
    return field(1, resource + field(2, b"".join(map(one, batch))))


def signed(data):
    return struct.unpack(">q", data)[0] if data else 0


def thrift_batch(batch):
    def one(span):
        tags = [ttypes.Tag(key=key, vType=ttypes.TagType.STRING, vStr=value) for key, value in TAGS]
        tags += [ttypes.Tag(key=key, vType=ttypes.TagType.LONG, vLong=value) for key, value in NUMBERS]
        tags.append(ttypes.Tag(key="span.kind", vType=ttypes.TagType.STRING, vStr="server"))
        return ttypes.Span(
            traceIdLow=signed(span.trace[8:]), traceIdHigh=signed(span.trace[:8]), spanId=signed(span.id), parentSpanId=signed(span.parent),
            operationName="GET /api/items", flags=1, startTime=span.start, duration=span.micros, tags=tags,
        )  # fmt: skip

    return ttypes.Batch(process=ttypes.Process(serviceName="shop"), spans=[one(span) for span in batch])


def thrift_http(batch):
    buffer = TTransport.TMemoryBuffer()
    thrift_batch(batch).write(TBinaryProtocol.TBinaryProtocol(buffer))
    return buffer.getvalue()


def thrift_packet(batch):
    buffer = TTransport.TMemoryBuffer()
    Agent.Client(TCompactProtocol.TCompactProtocol(buffer)).emitBatch(thrift_batch(batch))
    return buffer.getvalue()


def jaeger_proto(batch):
    request = collector_pb2.PostSpansRequest()
    request.batch.process.service_name = "shop"
    for span in batch:
        sent = request.batch.spans.add(trace_id=span.trace, span_id=span.id, operation_name="GET /api/items")
        if span.parent:
            sent.references.add(trace_id=span.trace, span_id=span.parent)
        sent.start_time.FromMicroseconds(span.start)
        sent.duration.FromMicroseconds(span.micros)
        for key, value in [*TAGS, ("span.kind", "server")]:
            sent.tags.add(key=key, v_type=model_pb2.STRING, v_str=value)
        for key, value in NUMBERS:
            sent.tags.add(key=key, v_type=model_pb2.INT64, v_int64=value)
    return request.SerializeToString()


def zipkin_json(batch):
    def one(span):
        parent = {"parentId": span.parent.hex()} if span.parent else {}
        tags = {key: str(value) for key, value in TAGS + NUMBERS}
        head = {"traceId": span.trace.hex(), "id": span.id.hex(), "name": "GET /api/items", "kind": "SERVER", **parent}
        return {**head, "timestamp": span.start, "duration": span.micros, "localEndpoint": {"serviceName": "shop"}, "tags": tags}

    return json.dumps([one(span) for span in batch]).encode()


def zipkin_proto(batch):
    message = zipkin_pb2.ListOfSpans()
    for span in batch:
        sent = message.spans.add(trace_id=span.trace, id=span.id, parent_id=span.parent, name="GET /api/items", kind=zipkin_pb2.Span.SERVER)
        sent.timestamp, sent.duration, sent.local_endpoint.service_name = span.start, span.micros, "shop"
        for key, value in TAGS + NUMBERS:
            sent.tags[key] = str(value)
    return message.SerializeToString()


# Protocol: what makes a body, spans in it, and how it is sent.
PROTOCOLS = {
    "otlp http": (otlp, PER_BODY, ("otlp_http", "/v1/traces", "application/x-protobuf")),
    "jaeger thrift http": (thrift_http, PER_BODY, ("thrift", "/api/traces", "application/x-thrift")),
    "jaeger grpc": (jaeger_proto, PER_BODY, "/jaeger.api_v2.CollectorService/PostSpans"),
    "jaeger udp, 20 spans": (thrift_packet, 20, "udp"),
    "jaeger udp, one span": (thrift_packet, 1, "udp"),
    "zipkin json": (zipkin_json, PER_BODY, ("zipkin", "/api/v2/spans", "application/json")),
    "zipkin proto": (zipkin_proto, PER_BODY, ("zipkin", "/api/v2/spans", "application/x-protobuf")),
}


class Server:
    def __init__(self, binary, folder):
        names = ["http", "grpc", "otlp_http", "thrift", "jaeger", "zipkin", "compact"]
        self.ports = {}
        for name in names:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports[name] = free.getsockname()[1]
        at = {name: f'endpoint: "127.0.0.1:{port}"' for name, port in self.ports.items()}
        (folder / "vivace.yaml").write_text(f"""
server: {{http_listen_address: 127.0.0.1, http_listen_port: {self.ports["http"]}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {self.ports["grpc"]}, log_level: error}}
query_frontend: {{jaeger: {{enabled: false}}, zipkin: {{enabled: false}}}}
distributor:
  receivers:
    otlp: {{protocols: {{http: {{{at["otlp_http"]}}}}}}}
    jaeger: {{protocols: {{thrift_http: {{{at["thrift"]}}}, grpc: {{{at["jaeger"]}}}, thrift_compact: {{{at["compact"]}, socket_buffer_size: 8388608}}}}}}
    zipkin: {{{at["zipkin"]}}}
storage: {{trace: {{backend: local, local: {{path: {folder}/blocks}}, wal: {{path: {folder}/wal}}}}}}
overrides: {{defaults: {{ingestion: {{rate_limit_bytes: 2000000000, burst_size_bytes: 2000000000, max_traces_per_user: 0}}}}}}
""")
        self.process = subprocess.Popen([binary, f"-config.file={folder}/vivace.yaml"], cwd=folder)
        deadline = time.monotonic() + 60
        while self.get("/ready")[0] != 200:
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit("the server did not become ready")
            time.sleep(0.1)

    def get(self, path):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def received(self):
        lines = self.get("/metrics")[1].splitlines()
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("tempo_distributor_spans_received_total"))

    def send(self, how, bodies):
        if how == "udp":
            with socket.socket(type=socket.SOCK_DGRAM) as udp:
                for number, body in enumerate(bodies):
                    udp.sendto(body, ("127.0.0.1", self.ports["compact"]))
                    if number % 20 == 19:
                        time.sleep(0.001)  # at most 20,000 a second
        elif isinstance(how, str):
            with grpc.insecure_channel(f"127.0.0.1:{self.ports['jaeger']}") as channel:
                call = channel.unary_unary(how, lambda body: body, lambda body: body)
                for body in bodies:
                    call(body, timeout=60)
        else:
            port, path, kind = how
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=60)
            for body in bodies:
                connection.request("POST", path, body, {"Content-Type": kind})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status // 100 != 2:
                    sys.exit(f"{path}: {answer.status} {text[:300]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", default=ROOT / "target" / "release" / "vivace", type=Path)
    parser.add_argument("--spans", default=200_000, type=int)
    parser.add_argument("protocols", nargs="*", metavar="PROTOCOL", help=f"of {', '.join(PROTOCOLS)}")
    options = parser.parse_args()
    print(f"{'protocol':22} {'spans':>8} {'missing':>8} {'CPU s/M spans':>14} {'spans/s':>9}  bytes/span", flush=True)
    for name in options.protocols or PROTOCOLS:
        make, per_body, how = PROTOCOLS[name]
        bodies = [make(spans(per_body)) for _ in range(options.spans // per_body)]
        with tempfile.TemporaryDirectory() as folder:
            server = Server(options.binary, Path(folder))
            try:
                server.send(how, bodies[: max(1, len(bodies) // 50)])  # warm
                time.sleep(1)
                cpu, count, began = server.cpu_seconds(), server.received(), time.monotonic()
                server.send(how, bodies)
                took = time.monotonic() - began
                deadline = time.monotonic() + 5
                while server.received() - count < options.spans and time.monotonic() < deadline:
                    time.sleep(0.05)
                stored, spent = server.received() - count, server.cpu_seconds() - cpu
            finally:
                server.process.terminate()
                server.process.wait()
        missing, size = options.spans - stored, sum(map(len, bodies)) / options.spans
        print(f"{name:22} {stored:8} {missing:8} {spent / stored * 1e6:14.2f} {stored / took:9.0f}  {size:.0f}", flush=True)


main()
