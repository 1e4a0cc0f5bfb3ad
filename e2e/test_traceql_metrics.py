"""TraceQL metrics as clients ask them: spans are counted once, wherever they lie and however many copies there are."""

import math
import os
import subprocess
import time
from collections import Counter, defaultdict

import pytest

import harness
import spans
from harness import eventually, http

STEP = 60
SERVICES = ["cart", "checkout", "shop"]


class Sent:
    """Traces of three spans, spread over ten minutes, and what is to be counted of them."""

    def __init__(self, url, now):
        self.url = url
        self.base = (now - 900) // STEP * STEP
        self.per_interval = defaultdict(Counter)
        self.values = defaultdict(list)
        self.ids = set()
        self.messages = []

    def send(self, first, last, again=False):
        """Traces number first to last - 1. The services take turns; `n` is the trace's number."""
        for number in range(first, last):
            service = SERVICES[number % 3]
            # In the middle of an interval: its end is what the sample is named after.
            at = self.base + number * 7 % 600 + 0.5
            message, (trace_id,) = spans.request(service, start=int(at * 1e9), attributes={"n": number, "even": str(number % 2 == 0)})
            self.post(message)
            self.messages.append(message)
            if again:
                self.post(message)
            self.ids.add(trace_id.lstrip("0"))
            self.per_interval[service][math.ceil(at / STEP) * STEP] += 3
            self.values[service].append(number)

    def post(self, message):
        answer = http(self.url, data=message.SerializeToString(), content_type="application/x-protobuf")
        assert answer.status == 200, answer

    @property
    def times(self):
        return {"start": self.base, "end": self.base + 600}

    def expected(self, service):
        return {second: count for second, count in self.per_interval[service].items() if count}


def ask(query, path, **parameters):
    answer = query.get(path, **parameters)
    assert answer.status == 200, answer
    return answer.json()


def label(series, key):
    values = [next(iter(label["value"].values())) for label in series["labels"] if label["key"] == key]
    return values[0] if values else None


def counted(query, sent, q="{} | count_over_time() by (resource.service.name)"):
    """{service: {second: value}}, zeros left out."""
    found = {}
    for series in ask(query, "/api/metrics/query_range", q=q, step=STEP, **sent.times)["series"]:
        samples = {int(s["timestampMs"]) // 1000: s["value"] for s in series["samples"] if s.get("value")}
        found[label(series, "resource.service.name")] = samples
    return found


def require_right(query, sent):
    expected = {service: sent.expected(service) for service in SERVICES}
    assert counted(query, sent) == expected
    half = counted(query, sent, '{ name = "span 1" } | count_over_time() by (resource.service.name)')
    assert half == {service: {at: count / 3 for at, count in counts.items()} for service, counts in expected.items()}
    rate = counted(query, sent, "{} | rate() by (resource.service.name)")
    assert rate == {s: {at: pytest.approx(count / STEP) for at, count in counts.items()} for s, counts in expected.items()}

    def instant(q):
        return {
            label(s, "resource.service.name"): s.get("value", 0)
            for s in ask(query, "/api/metrics/query", q=q, start=sent.base, end=sent.base + 600)["series"]
        }

    roots = '{ name = "span 0" }'
    by = "by (resource.service.name)"
    values = sent.values
    assert instant(f"{roots} | sum_over_time(span.n) {by}") == {s: sum(values[s]) for s in SERVICES}
    assert instant(f"{roots} | avg_over_time(span.n) {by}") == {s: pytest.approx(sum(values[s]) / len(values[s])) for s in SERVICES}
    assert instant(f"{roots} | max_over_time(span.n) {by}") == {s: max(values[s]) for s in SERVICES}
    assert instant(f"{roots} | min_over_time(span.n) {by}") == {s: min(values[s]) for s in SERVICES}
    # A structural query counts the spans that it selects, each in its own interval.
    assert instant(f'{roots} > {{ name = "span 2" }} | count_over_time() {by}') == {s: len(values[s]) for s in SERVICES}


def test_the_same_counts_live_flushed_and_both(all_in_one):
    one = all_in_one.start()
    sent = Sent(one.otlp_http_url, int(time.time()))
    sent.send(0, 60)
    require_right(one.query, sent)

    # Blocks are served by their ingester for a while and are in the bucket too: they count once.
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    eventually("a block is in the bucket", lambda: list(one.folder.glob("blocks/single-tenant/*/meta.json")))
    require_right(one.query, sent)
    polled = lambda: int(ask(one.query, "/api/metrics/query_range", q="{} | rate()", **sent.times)["metrics"].get("totalBlocks", 0))  # noqa: E731
    eventually("the block is in the list of blocks", lambda: polled() >= 1)
    require_right(one.query, sent)

    # Half in a block, half live.
    sent.send(60, 120)
    require_right(one.query, sent)
    one.program.kill()
    one.start()
    require_right(one.query, sent)


def test_what_comes_twice_counts_once(all_in_one):
    one = all_in_one.start()
    sent = Sent(one.otlp_http_url, int(time.time()))
    sent.send(0, 30, again=True)
    require_right(one.query, sent)
    # Once more after the flush: what is live again is in a block too.
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    eventually("a block is in the bucket", lambda: list(one.folder.glob("blocks/single-tenant/*/meta.json")))
    for message in sent.messages[:20]:
        sent.post(message)
    require_right(one.query, sent)
    # And in two blocks.
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    eventually("two blocks are in the bucket", lambda: len(list(one.folder.glob("blocks/single-tenant/*/meta.json"))) == 2)
    require_right(one.query, sent)
    one.program.stop()
    one.start()
    eventually("the list of blocks is there", lambda: require_right(one.query, sent) is None)


def test_forms_of_requests_and_answers(all_in_one):
    one = all_in_one.start()
    sent = Sent(one.otlp_http_url, int(time.time()))
    sent.send(0, 90)
    times = sent.times

    # Without `by` there is one series named after its function; what nobody has counts zero.
    (series,) = ask(one.query, "/api/metrics/query_range", q='{ name = "nobody" } | count_over_time()', step=STEP, **times)["series"]
    assert series["labels"] == [{"key": "__name__", "value": {"stringValue": "count_over_time"}}]
    assert all("value" not in sample for sample in series["samples"])

    # An hour without a step has a sample every 15 s; ranges without a time are of the last hour.
    (series,) = ask(one.query, "/api/metrics/query_range", q="{} | rate()")["series"]
    stamps = [int(sample["timestampMs"]) for sample in series["samples"]]
    assert {b - a for a, b in zip(stamps, stamps[1:])} == {15_000}

    top = ask(one.query, "/api/metrics/query", q="{} | count_over_time() by (span.n) | topk(2)", start=sent.base, end=sent.base + 600)
    assert [series["value"] for series in top["series"]] == [3, 3]

    shown = ask(one.query, "/api/metrics/query_range", q='{ name = "span 0" } | rate()', step=STEP, exemplars=5, **times)["series"][0]["exemplars"]
    assert 0 < len(shown) <= 5
    for exemplar in shown:
        assert label(exemplar, "trace:id") in sent.ids
        assert exemplar["value"] > 0

    p = ask(one.query, "/api/metrics/query", q="{} | quantile_over_time(duration, .5, .99)", start=sent.base, end=sent.base + 600)
    # Every span takes 5 ms: the bucket ends at 2^23 ns.
    assert {label(s, "p"): s["value"] <= 0.008388608 for s in p["series"]} == {0.5: True, 0.99: True}

    compared = ask(one.query, "/api/metrics/query", q='{} | compare({ resource.service.name = "shop" })', start=sent.base, end=sent.base + 600)
    totals = {s["labels"][1]["key"]: s["value"] for s in compared["series"] if label(s, "__meta_type") == "selection_total"}
    assert totals["resource.service.name"] == totals["name"] == totals["span.n"] == 90

    for wrong, why in [
        ({"q": "{}"}, "not a metrics query"),
        ({"q": "{} | rate("}, "line 1"),
        ({"q": "{} | rate()", "step": "often"}, "duration"),
        ({"q": "{} | rate()", "step": "1ms"}, "too small"),
        ({"q": "{} | rate()", "start": sent.base - 4 * 86400}, "exceeds the maximum allowed duration of 3h"),
        ({"q": "{} | rate()", "start": sent.base, "end": sent.base}, "start must be before end"),
    ]:
        answer = one.query.get("/api/metrics/query_range", **{**times, **wrong})
        assert answer.status == 400 and why in answer.body.decode(), (wrong, answer)

    limited = ask(one.query, "/api/metrics/query_range", q="{} | rate() by (span.n)", step=STEP, maxSeries=10, **times)
    assert len(limited["series"]) == 10 and limited["status"] == "PARTIAL" and "maximum series limit of 10" in limited["message"]

    shell = [harness.binaries() / "vivace-cli", "query", "metrics", "--address", one.program.url, "--start", str(sent.base), "--end", str(sent.base + 600)]
    drawn = subprocess.run([*shell, "{} | rate() by (resource.service.name)"], capture_output=True, text=True, timeout=60, env={**os.environ, "NO_COLOR": "1"})
    assert drawn.returncode == 0, drawn
    assert all(f"resource.service.name={service}" in drawn.stdout for service in SERVICES) and "█" in drawn.stdout


def test_the_rules_of_the_later_release_are_a_setting(all_in_one):
    """Of a step as long as the range 2.10 makes one value, 3.x intervals."""
    stamps = {}
    for release in ("v2", "v3"):
        one = all_in_one.with_config(f"query_frontend: {{metrics: {{release: {release}}}}}").start()
        now = int(time.time()) // 300 * 300
        (series,) = ask(one.query, "/api/metrics/query_range", q="{} | rate()", start=now - 300, end=now, step=300)["series"]
        stamps[release] = [int(sample["timestampMs"]) // 1000 - now for sample in series["samples"]]
        assert one.program.stop() == 0
    assert stamps == {"v2": [0], "v3": [-300, 0]}


def test_streamed_answers_end_with_the_whole(all_in_one):
    """Grafana dials the data source's HTTP address for streaming."""
    import grpc

    one = all_in_one.start()
    sent = Sent(one.otlp_http_url, int(time.time()))
    sent.send(0, 9)
    q = b"{} | count_over_time()"

    def varint(number):
        out = b""
        while number > 127:
            out, number = out + bytes([number & 127 | 128]), number >> 7
        return out + bytes([number])

    # QueryRangeRequest { query = 1, start = 2, end = 3, step = 4 }, times in nanoseconds
    request = b"\x0a" + bytes([len(q)]) + q
    for tag, value in ((b"\x10", sent.base), (b"\x18", sent.base + 600), (b"\x20", STEP)):
        request += tag + varint(value * 10**9)
    for port in (one.http, one.grpc):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream("/tempopb.StreamingQuerier/MetricsQueryRange", request_serializer=bytes, response_deserializer=bytes)
            last = list(call(request, timeout=10))[-1]
        assert b"count_over_time" in last
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream("/tempopb.StreamingQuerier/MetricsQueryInstant", request_serializer=bytes, response_deserializer=bytes)
            last = list(call(request, timeout=10))[-1]
        import struct

        assert struct.pack("<d", 27.0) in last
        with pytest.raises(grpc.RpcError) as refused, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream("/tempopb.StreamingQuerier/MetricsQueryRange", request_serializer=bytes, response_deserializer=bytes)
            list(call(b"\x0a\x02{}", timeout=10))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_three_replicas_count_once_also_without_one_of_them(tmp_path, minio, programs):
    cluster = harness.Cluster(tmp_path, minio)
    programs.extend(cluster.programs.values())
    cluster.start()
    sent = Sent(cluster.otlp_http_url, int(time.time()))
    sent.send(0, 60)
    require_right(cluster.query, sent)
    # What the dead one was the primary of is held by two others.
    cluster.programs["ingester-1"].kill()
    eventually("the others count for it", lambda: require_right(cluster.query, sent) is None, seconds=60)
    cluster.programs["ingester-1"].start().wait_ready()
    eventually("it is back", lambda: cluster.ring_size() == 3)
    require_right(cluster.query, sent)
    cluster.flush()
    eventually("blocks are in the bucket", cluster.blocks)
    eventually("all is counted from the bucket", lambda: require_right(cluster.query, sent) is None, seconds=30)
