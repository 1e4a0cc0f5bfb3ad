"""What the OpenTelemetry Collector's decoder makes of a request, Vivace makes of it: taken or refused, and the content wherever it lies.

`VIVACE_SEEDS=1,2,3` makes other requests up, `VIVACE_REQUESTS` says how many of each seed.
"""

import gzip
import os
import random
import struct
import subprocess

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

import harness
import otlp
import otlp_rules
import tools
from harness import eventually, http
from otlp_requests import json_request, protobuf

SEEDS = [int(seed) for seed in os.environ.get("VIVACE_SEEDS", "1").split(",")]
REQUESTS = int(os.environ.get("VIVACE_REQUESTS", "300"))
# Each way has a tenant of its own, so that no way stands in for another.
HTTP, GRPC = "over-http", "over-grpc"
CONFIG = "multitenancy_enabled: true\ncompactor: {compaction: {compaction_cycle: %s}}\n"
FAULTS_SHOWN = 8


class Collector:
    """The decoder of the OpenTelemetry Collector, in a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen([tools.own_go_tool("otlp-decoder")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, format, body):
        """The content as protobuf and None, or None and why it is refused."""
        self.process.stdin.write(format.encode() + struct.pack(">I", len(body)) + body)
        self.process.stdin.flush()
        verdict, length = struct.unpack(">cI", self.process.stdout.read(5))
        answer = self.process.stdout.read(length)
        return (answer, None) if verdict == b"+" else (None, answer.decode(errors="replace"))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


class Vivace:
    """Ways in, and one way out."""

    def __init__(self, one):
        self.one = one
        channel = grpc.insecure_channel(f"127.0.0.1:{one.otlp_grpc}")
        self.export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")

    def post(self, format, body, is_gzip):
        """None if it is refused, else the count of spans that were and why; then the answer."""
        headers = {"content_type": "application/json" if format == "j" else "application/x-protobuf", "X_Scope_OrgID": HTTP}
        if is_gzip:
            body, headers["content_encoding"] = gzip.compress(body, 1), "gzip"
        answer = http(self.one.otlp_http_url, data=body, **headers)
        assert answer.status in (200, 400), answer
        if answer.status == 400:
            return None, answer.body.decode(errors="replace")
        if format == "p":
            return partial(answer.body)
        success = answer.json()["partialSuccess"]
        return int(success.get("rejectedSpans", 0)), success.get("errorMessage", "")

    def call(self, body):
        try:
            return partial(self.export(body, timeout=30, metadata=[("x-scope-orgid", GRPC)]))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
            return None, error.details()

    def spans(self, tenant, trace_id):
        query = harness.Query(self.one.program.url, X_Scope_OrgID=tenant, Accept="application/protobuf")
        answer = query.get(f"/api/v2/traces/{trace_id}")
        assert answer.status == 200, answer
        trace = dict(otlp.from_protobuf("TraceByIdResponse", answer.body))[1]
        return otlp_rules.in_order(otlp_rules.spans_of(trace))


def partial(body):
    success = ExportTraceServiceResponse.FromString(body).partial_success
    return success.rejected_spans, success.error_message


class Run:
    """The requests of one seed, what they should have left, and where that was not so."""

    def __init__(self, seed, vivace, collector):
        self.dice, self.vivace, self.collector = random.Random(seed), vivace, collector
        self.held, self.faults = {}, []

    def request(self):
        format = self.dice.choice("pj")
        body = protobuf(self.dice) if format == "p" else json_request(self.dice)
        expected = otlp_rules.expected(self.collector.ask, format, body)
        self.judge(HTTP, format, body, expected, self.vivace.post(format, body, is_gzip=self.dice.random() < 0.3))
        if format == "p":
            self.judge(GRPC, format, body, expected, self.vivace.call(body))

    def judge(self, way, format, body, expected, answer):
        (rejected, why) = answer
        if (rejected is None) != expected.is_refused or rejected and not why:
            return self.faults.append((body, f"{way}: {answer} instead of {expected}"))
        if expected.is_refused:
            return None
        if rejected != expected.rejected:
            self.faults.append((body, f"{way}: {answer} instead of {expected.rejected} spans"))
        for trace_id, spans in expected.traces.items():
            self.held.setdefault((way, trace_id), (body, spans))
        return None

    def compare(self, stage):
        for (way, trace_id), (body, want) in self.held.items():
            got = self.vivace.spans(way, trace_id)
            want = otlp_rules.in_order(want)
            if got != want:
                self.faults.append((body, f"{way}, {stage}, {trace_id}: {otlp_rules.difference(want, got)}"))

    def assert_no_faults(self, seed):
        shown = [f"{body!r}\n  {what}" for body, what in self.faults[:FAULTS_SHOWN]]
        assert not self.faults, f"VIVACE_SEEDS={seed}: {len(self.faults)} faults\n" + "\n".join(shown)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_collector_takes_is_kept_and_what_it_refuses_is_refused(all_in_one, collector, seed):
    one = all_in_one.with_config(CONFIG % "1h").start()
    vivace = Vivace(one)
    run = Run(seed, vivace, collector)
    for half in range(2):
        for _ in range(REQUESTS // 2):
            run.request()
        assert len(run.held) > REQUESTS / 6, "most requests should be good ones"
        run.compare("live")
        assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
        eventually("a block of each way", lambda half=half: len(blocks(one)) == 2 * (half + 1))
        run.compare(f"stored in {half + 1} blocks")
        run.assert_no_faults(seed)
    one.program.stop()
    one.with_config(CONFIG % "1s").start()
    eventually("one block of each way is left", lambda: len(blocks(one)) == 2, seconds=60)
    eventually("the queries know", lambda: one.program.metric("tempodb_blocklist_length") == 2, seconds=30)
    run.compare("compacted")
    run.assert_no_faults(seed)
    assert "panicked" not in one.program.output()


def blocks(one):
    return list(one.folder.glob("blocks/*/*/meta.json"))
