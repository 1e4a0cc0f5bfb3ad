"""Traces whose spans lie in several places: in two blocks, in a block and in live data, twice. They are judged as whole ones."""

import random
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from harness import eventually, http

# Name, parent, service, start and end in milliseconds. Only the whole is a second long.
CHAIN = {"root": (None, "front", 0, 400), "mid": ("root", "back", 300, 700), "leaf": ("mid", "back", 600, 1000)}
# The same spans, both children below the root.
FLAT = {**CHAIN, "leaf": ("root", "back", 600, 1000)}
SHAPES = {"chain": CHAIN, "flat": FLAT}

ALL = ["root", "mid", "leaf"]
# What is sent before the first flush, between the flushes, and after the second.
PLACES = {
    "one block": (ALL, [], []),
    "another block": ([], ALL, []),
    "live": ([], [], ALL),
    "block and block": (["root", "leaf"], ["mid"], []),
    "leaf first": (["leaf"], ["root", "mid"], []),
    "block and live": (["root"], [], ["mid", "leaf"]),
    "block and live without root": ([], ["mid"], ["root", "leaf"]),
    "everywhere": (["mid"], ["leaf"], ["root"]),
    "copies in blocks": (ALL, ALL, []),
    "copies in all places": (ALL, ["mid"], ALL),
}

# Which shapes match.
BOTH, NONE = {"chain", "flat"}, set()
QUERIES = {
    # One span decides; what is said of the trace is said of all of it.
    '{ name = "mid" }': BOTH,
    '{ name = "mid" || name = "leaf" }': BOTH,
    '{ name = "nothing" }': NONE,
    '{ name = "root" } >> { name = "leaf" }': BOTH,
    '{ name = "mid" } >> { name = "leaf" }': {"chain"},
    '{ name = "mid" } > { name = "leaf" }': {"chain"},
    '{ name = "leaf" } << { name = "mid" }': {"chain"},
    '{ name = "mid" } &>> { name = "leaf" }': {"chain"},
    '{ name = "mid" } ~ { name = "leaf" }': {"flat"},
    '{ name = "mid" } !>> { name = "leaf" }': {"flat"},
    '{ name = "root" } !>> { name = "leaf" }': NONE,
    '{ name = "root" } !>> { name = "root" }': BOTH,
    '{ name = "root" } && { name = "leaf" }': BOTH,
    '{ name = "root" } && { name = "nothing" }': NONE,
    '({ name = "root" } && { name = "leaf" }) || { name = "nothing" }': BOTH,
    '{ name = "mid" || name = "leaf" } | count() = 2': BOTH,
    "{ } | count() > 2": BOTH,
    "{ } | count() > 3": NONE,
    "{ } | count() < 3": NONE,
    '{ } | by(resource.service.name) | count() = 2': BOTH,
    "{ traceDuration > 950ms }": BOTH,
    "{ traceDuration < 950ms }": NONE,
    '{ traceDuration >= 1s && name = "mid" }': BOTH,
    '{ rootName = "root" && name = "leaf" }': BOTH,
    '{ rootName != "root" }': NONE,
    '{ rootServiceName = "front" && resource.service.name = "back" }': BOTH,
    "{ span:childCount = 2 }": {"flat"},
    '{ name = "nothing" } | count() < 3': NONE,
}  # fmt: skip


class Traces:
    """One trace for each shape and place."""

    def __init__(self):
        self.start = time.time_ns() - 60 * 10**9
        self.ids = {(shape, place): random.randbytes(16) for shape in SHAPES for place in PLACES}
        self.span_ids = {(trace, name): random.randbytes(8) for trace in self.ids for name in ALL}

    def request(self, step):
        """What is sent in this step; none when that is nothing."""
        message = ExportTraceServiceRequest()
        for (shape, place), trace_id in self.ids.items():
            for name in PLACES[place][step]:
                parent, service, start, end = SHAPES[shape][name]
                resource = message.resource_spans.add()
                resource.resource.attributes.add(key="service.name").value.string_value = service
                span = resource.scope_spans.add().spans.add(trace_id=trace_id, span_id=self.span_ids[(shape, place), name], name=name)
                if parent:
                    span.parent_span_id = self.span_ids[(shape, place), parent]
                span.start_time_unix_nano = self.start + start * 10**6
                span.end_time_unix_nano = self.start + end * 10**6
        return message.SerializeToString()

    def check(self, query, seen_until, parameters=None):
        """Every query finds each trace that has been sent wholly, in whatever places, if it has the right shape."""
        sent = {(s, p): i for (s, p), i in self.ids.items() if all(not step for step in PLACES[p][seen_until + 1 :])}
        names = {trace_id.hex(): f"{shape}, {place}" for (shape, place), trace_id in self.ids.items()}
        for q, shapes in QUERIES.items():
            found = {t["traceID"].rjust(32, "0"): t for t in query.search(q, **(parameters or {}))}
            for (shape, place), trace_id in sent.items():
                assert (trace_id.hex() in found) == (shape in shapes), f"{q}: {shape}, {place}"
            whole = {names[i]: t for i, t in found.items() if i in {s.hex() for s in sent.values()}}
            for name, trace in whole.items():
                assert (trace["rootServiceName"], trace["rootTraceName"], trace["durationMs"]) == ("front", "root", 1000), f"{q}: {name}"
                stats = {service: stat["spanCount"] for service, stat in trace["serviceStats"].items()}
                assert stats == {"front": 1, "back": 2}, f"{q}: {name}"
            matched = {name.split(",")[0]: set() for name in whole}
            for name, trace in whole.items():
                matched[name.split(",")[0]].add(tuple(sorted(s["matched"] for s in trace["spanSets"])))
            assert all(len(counts) == 1 for counts in matched.values()), f"{q}: {matched}"
        # Without TraceQL.
        answer = query.get("/api/search", tags="service.name=back", minDuration="950ms", limit=1000, **(parameters or {}))
        assert answer.status == 200, answer
        assert {i.hex() for i in sent.values()} <= {t["traceID"].rjust(32, "0") for t in answer.json()["traces"]}


def test_split_traces_are_judged_as_whole_ones(all_in_one):
    one = all_in_one.with_config("compactor: {compaction: {compaction_cycle: 1h}} # the blocks stay apart").start()
    traces = Traces()

    def send(step):
        body = traces.request(step)
        assert http(one.otlp_http_url, data=body, content_type="application/x-protobuf").status == 200

    def flush(blocks):
        assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
        eventually("the block is in the bucket", lambda: len(list(one.folder.glob("blocks/*/*/meta.json"))) == blocks)

    def listed(blocks):
        eventually("the block list has it", lambda: one.program.metric("tempodb_blocklist_length") == blocks)

    def limits():
        # With a limit the newest are enough, and each is right.
        found = one.query.search('{ name = "mid" } !>> { name = "leaf" }', limit=3)
        flat = {i.hex() for (shape, _), i in traces.ids.items() if shape == "flat"}
        assert len(found) == 3 and {t["traceID"].rjust(32, "0") for t in found} <= flat
        newest = one.query.search("{ } | count() > 2 with (most_recent = true)", limit=7)
        assert len(newest) == 7

    send(0)
    traces.check(one.query, 0)
    flush(1)
    traces.check(one.query, 0)
    listed(1)
    traces.check(one.query, 0)
    send(1)
    traces.check(one.query, 1)
    flush(2)
    traces.check(one.query, 1)
    send(2)
    traces.check(one.query, 2)
    limits()
    listed(2)
    traces.check(one.query, 2)
    limits()
    now = int(time.time())
    traces.check(one.query, 2, {"start": now - 3600, "end": now})

    # All of it in blocks, read by a process that has written none of them.
    flush(3)
    listed(3)
    traces.check(one.query, 2)
    assert one.program.stop() == 0
    one.start()
    listed(3)
    traces.check(one.query, 2)
    limits()
    assert "panicked" not in one.program.output()


@pytest.mark.parametrize("seconds", [2])
def test_split_traces_stay_right_while_blocks_are_compacted(all_in_one, seconds):
    one = all_in_one.with_config(f"compactor: {{compaction: {{compaction_cycle: {seconds}s}}}}").start()
    traces = Traces()
    for step in range(3):
        body = traces.request(step)
        assert http(one.otlp_http_url, data=body, content_type="application/x-protobuf").status == 200
        traces.check(one.query, step)
        if step < 2:
            assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
            eventually("a block is in the bucket", lambda: list(one.folder.glob("blocks/*/*/meta*.json")))
    eventually("two blocks have become one", lambda: len(list(one.folder.glob("blocks/*/*/meta.compacted.json"))) >= 2)
    traces.check(one.query, 2)
    eventually("the block list has it", lambda: one.program.metric("tempodb_blocklist_length") == 1)
    traces.check(one.query, 2)


def test_late_spans_count_once_at_every_moment(all_in_one):
    one = all_in_one.with_config("compactor: {compaction: {compaction_cycle: 1h}} # the blocks stay apart").start()
    start = time.time_ns() - 600 * 10**9
    traces = [random.randbytes(16) for _ in range(100)]
    sent = 0

    def send(ids, offset):
        nonlocal sent
        message = ExportTraceServiceRequest()
        for trace_id in ids:
            span = message.resource_spans.add().scope_spans.add().spans.add(trace_id=trace_id, span_id=random.randbytes(8), name="x")
            span.start_time_unix_nano = start + offset * 10**9
            span.end_time_unix_nano = span.start_time_unix_nano + 10**6
        assert http(one.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf").status == 200
        sent += len(ids)

    def counted():
        times = {"start": start // 10**9 - 1000, "end": start // 10**9 + 700}
        answer = one.query.get("/api/metrics/query", q="{ } | count_over_time()", **times)
        assert answer.status == 200, answer
        return sum(series["value"] for series in answer.json()["series"])

    for blocks in range(1, 5):
        send(random.sample(traces, 70), 60 * blocks)
        assert counted() == sent
        # Spans of traces that are in blocks already, of other minutes than those.
        send(random.sample(traces, 30), -60 * blocks)
        assert counted() == sent
        assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
        eventually("the block is in the bucket", lambda: len(list(one.folder.glob("blocks/*/*/meta.json"))) == blocks)  # noqa: B023
        assert counted() == sent
        send(random.sample(traces, 30), -60 * blocks - 20)
        assert counted() == sent
        eventually("the block list has it", lambda: one.program.metric("tempodb_blocklist_length") == blocks)  # noqa: B023
        assert counted() == sent
