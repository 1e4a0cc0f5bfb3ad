"""What Grafana's Tempo data source asks, with streaming off and on, and how it puts the answers together.

With streaming off it asks over HTTP and parses JSON strictly; with streaming on it dials the same address with gRPC and joins messages.
Either way, and wherever the spans lie, the user must see the same, and what was sent.
"""

import time
import urllib.parse
from collections import defaultdict

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import otlp
import otlp_rules
import spans
import tempopb
from harness import eventually, http

MESSAGE_BYTES_MAX = 4 << 20  # Grafana Live takes no more
CONFIG = "compactor: {compaction: {compaction_cycle: 1h}} # the blocks stay apart\n"
STEP = 60


class DataSource:
    """The data source with streaming off or on."""

    def __init__(self, url, is_streaming, start, end):
        self.url, self.is_streaming, self.start, self.end = url, is_streaming, start, end
        self.messages = 0  # of the last answer

    def get(self, path, kind, **parameters):
        """An answer in JSON that has no member which the data source does not know."""
        query = {"start": self.start, "end": self.end, **parameters}
        answer = http(f"{self.url}{path}?{urllib.parse.urlencode(query)}", Accept="application/json")
        assert answer.status == 200, answer
        return json_format.Parse(answer.body, kind())

    def stream(self, method, request, kind):
        # Grafana dials the data source's HTTP address.
        with grpc.insecure_channel(self.url.removeprefix("http://")) as channel:
            call = channel.unary_stream(f"/tempopb.StreamingQuerier/{method}", lambda r: r.SerializeToString(), kind.FromString)
            messages = list(call(request, timeout=30))
        assert messages and all(message.ByteSize() < MESSAGE_BYTES_MAX for message in messages)
        assert messages[-1].metrics.completedJobs == messages[-1].metrics.totalJobs, messages[-1].metrics
        return messages

    def search(self, q, limit=100, spss=10):
        """Traces by id, the latest first; of a trace that comes twice the first copy stays."""
        if self.is_streaming:
            request = tempopb.SearchRequest(Query=q, start=self.start, end=self.end, Limit=limit, SpansPerSpanSet=spss)
            messages = self.stream("Search", request, tempopb.SearchResponse)
        else:
            messages = [self.get("/api/search", tempopb.SearchResponse, q=q, limit=limit, spss=spss)]
        traces, self.messages = {}, len(messages)
        for trace in (trace for message in messages for trace in message.traces):
            traces.setdefault(trace.traceID, trace)
        return dict(sorted(traces.items(), key=lambda item: -item[1].startTimeUnixNano))

    def range(self, q):
        """Values by labels and time; of one that comes twice the last counts."""
        if self.is_streaming:
            request = tempopb.QueryRangeRequest(query=q, start=self.start * 10**9, end=self.end * 10**9, step=STEP * 10**9)
            messages = self.stream("MetricsQueryRange", request, tempopb.QueryRangeResponse)
        else:
            messages = [self.get("/api/metrics/query_range", tempopb.QueryRangeResponse, q=q, step=f"{STEP}s")]
        series = defaultdict(dict)
        for one in (one for message in messages for one in message.series):
            series[name_of(one)].update({sample.timestamp_ms: sample.value for sample in one.samples})
        return dict(series)

    def instant(self, q):
        """Values by labels; each message takes the place of the one before."""
        if self.is_streaming:
            request = tempopb.QueryInstantRequest(query=q, start=self.start * 10**9, end=self.end * 10**9)
            message = self.stream("MetricsQueryInstant", request, tempopb.QueryInstantResponse)[-1]
        else:
            message = self.get("/api/metrics/query", tempopb.QueryInstantResponse, q=q)
        return {name_of(one): one.value for one in message.series}


def name_of(series):
    return tuple(sorted((label.key, text_of(label.value)) for label in series.labels))


def text_of(any_value):
    return json_format.MessageToJson(any_value, indent=None, sort_keys=True)


# Lists and maps have no column there: what becomes of them is the same with any server.
COLUMNS = {"string_value": "text", "int_value": "number", "double_value": "number", "bool_value": "bool"}


def assert_one_type_per_column(traces):
    """Grafana makes a column of each attribute, of the type that it meets first, and ends with an error at any other."""
    types = defaultdict(set)
    for trace in traces.values():
        for span in (span for span_set in trace.spanSets for span in span_set.spans):
            for attribute in span.attributes:
                if column := COLUMNS.get(attribute.value.WhichOneof("value")):
                    types[attribute.key].add(column)
    mixed = {key: found for key, found in types.items() if len(found) > 1}
    assert not mixed, mixed
    return types


class Shop:
    """Traces of a shop and its stock, two minutes apart, and what is known of them."""

    def __init__(self, one):
        self.one, self.base = one, (int(time.time()) - 1200) // STEP * STEP
        self.traces = {}

    def send(self, numbers, mixed):
        """Traces with these numbers. `mixed` sets the value of the attribute `mixed` of a trace's first span."""
        message = ExportTraceServiceRequest()
        for number in numbers:
            request, (trace_id,) = spans.request("shop" if number % 2 else "stock", start=int((self.base + number * 120 + 0.5) * 1e9))
            scope = request.resource_spans[0].scope_spans[0]
            first = scope.spans[0]
            scope.spans[2].status.code = 2
            for key, value in (("number", number), ("share", number / 4), ("is.odd", number % 2 == 1), ("title", f"order {number}")):
                kind = {int: "int_value", float: "double_value", bool: "bool_value", str: "string_value"}[type(value)]
                setattr(first.attributes.add(key=key).value, kind, value)
            listed = first.attributes.add(key="list").value.array_value.values
            listed.add().string_value, listed.add().string_value = "a", "b"
            first.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.int_value = number
            mixed(first.attributes.add(key="mixed").value, number)
            packed = first.events.add(name="packed", time_unix_nano=first.start_time_unix_nano + 1000)
            packed.attributes.add(key="by").value.string_value = "anna"
            message.MergeFrom(request)
            self.traces[number] = (trace_id, request)
        assert http(self.one.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf").status == 200

    def sources(self):
        window = (self.base - STEP, self.base + 20 * STEP)
        return [DataSource(self.one.program.url, is_streaming, *window) for is_streaming in (False, True)]

    def flush(self):
        before = len(self.blocks())
        assert http(f"{self.one.program.url}/flush", data=b"", method="POST").status == 204
        eventually("a block more", lambda: len(self.blocks()) > before)

    def blocks(self):
        return list(self.one.folder.glob("blocks/single-tenant/*/meta.json"))

    def ids(self, numbers):
        """As searches give them, the latest first."""
        return [self.traces[number][0].lstrip("0") for number in sorted(numbers, reverse=True)]


def a_number(value, number):
    value.int_value = number


def a_text(value, number):
    value.string_value = f"text {number}"


def a_list(value, number):
    value.array_value.values.add().int_value = number


SEARCHES = [
    "{}",
    '{ resource.service.name = "shop" }',
    "{ span.number >= 2 } | select(span.number, span.share, span.is.odd, span.title)",
    "{ span.number >= 0 } | select(span.list, span.map)",
    '{ event.by = "anna" } | select(event:name, status, kind, nestedSetParent, nestedSetLeft, nestedSetRight)',
    "{ nestedSetParent < 0 } >> { status = error }",
    "({nestedSetParent<0 && true} &>> {status = error}) || ({nestedSetParent<0 && true})"
    " | select(status, resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)",
    "{ status = error } | by(resource.service.name) | count() > 0",
    '{ name = "nothing" }',
]
RANGES = ["{} | rate()", "{} | count_over_time() by(resource.service.name)", "{} | quantile_over_time(duration, .5, .9) by(name)"]
RANGES += ["{} | histogram_over_time(duration)", "{ status = error } | rate() by(resource.service.name)", "{} | avg_over_time(span.share)"]
RANGES += ["{} | compare({ status = error })"]


@pytest.fixture
def shop(all_in_one):
    return Shop(all_in_one.with_config(CONFIG).start())


def test_streaming_or_not_live_or_stored_the_answers_are_the_same(shop):
    shop.send(range(0, 4), a_number)
    shop.send(range(4, 8), a_number)
    expected = None
    for stage in ("live", "one block", "one block and live", "two blocks"):
        if stage == "one block":
            shop.flush()
        if stage == "one block and live":
            shop.send([8, 9], a_number)
            expected = None  # there is more to see now
        if stage == "two blocks":
            shop.flush()
        off, on = shop.sources()
        for q in SEARCHES:
            found = off.search(q)
            assert found == on.search(q), (stage, q)
            assert list(found) == list(on.search(q)), (stage, q)
            assert_one_type_per_column(found)
        for q in RANGES:
            assert off.range(q) == on.range(q), (stage, q)
            assert off.instant(q) == on.instant(q), (stage, q)
        seen = ({q: off.search(q) for q in SEARCHES}, {q: off.range(q) for q in RANGES})
        assert expected is None or seen == expected, stage
        expected = seen
        assert_what_was_sent(shop, off)


def assert_what_was_sent(shop, source):
    numbers = set(shop.traces)
    assert list(source.search("{}")) == shop.ids(numbers)
    assert list(source.search('{ resource.service.name = "shop" }')) == shop.ids(n for n in numbers if n % 2)
    found = source.search("{ span.number >= 2 } | select(span.number, span.share, span.is.odd, span.title)")
    assert list(found) == shop.ids(n for n in numbers if n >= 2)
    for number in numbers - {0, 1}:
        trace = found[shop.ids([number])[0]]
        assert (trace.rootServiceName, trace.rootTraceName) == ("shop" if number % 2 else "stock", "span 0")
        (span,) = trace.spanSets[0].spans
        got = {attribute.key: attribute.value for attribute in span.attributes}
        assert (got["number"].int_value, got["share"].double_value) == (number, number / 4)
        assert (got["is.odd"].bool_value, got["title"].string_value) == (number % 2 == 1, f"order {number}")
    counted = source.range("{} | count_over_time() by(resource.service.name)")
    totals = {labels[0][1]: sum(samples.values()) for labels, samples in counted.items()}
    odd = sum(n % 2 for n in numbers)
    assert totals == {'{"stringValue": "shop"}': 3 * odd, '{"stringValue": "stock"}': 3 * (len(numbers) - odd)}
    known = {"span.number": map(str, numbers), "resource.service.name": ["shop", "stock"], "name": ["span 0", "span 1", "span 2"]}
    for tag, values in known.items():
        answer = http(f"{source.url}/api/v2/search/tag/{tag}/values?limit=5000&tag={tag}&start={source.start}&end={source.end}").json()
        assert {value["value"] for value in answer["tagValues"]} == set(values)
    scopes = http(f"{source.url}/api/v2/search/tags?limit=5000&start={source.start}&end={source.end}").json()["scopes"]
    tags = {scope["name"]: set(scope["tags"]) for scope in scopes}
    assert tags["span"] == {"number", "share", "is.odd", "title", "list", "map", "mixed"} and tags["event"] == {"by"}
    for trace_id, request in shop.traces.values():
        answer = http(f"{source.url}/api/v2/traces/{trace_id}", Accept="application/protobuf")
        trace = dict(otlp.from_protobuf("TraceByIdResponse", answer.body))[1]
        sent = otlp.from_protobuf("TracesData", request.SerializeToString())
        assert otlp_rules.in_order(otlp_rules.spans_of(trace)) == otlp_rules.in_order(otlp_rules.spans_of(sent))


@pytest.mark.parametrize("later", [a_text, a_list])
@pytest.mark.parametrize("is_stored", [False, True], ids=["live", "stored"])
def test_one_attribute_of_several_types_makes_one_column(shop, later, is_stored):
    shop.send(range(0, 4), a_number)
    if is_stored:
        shop.flush()
    shop.send(range(4, 8), later)
    if is_stored:
        shop.flush()
    for source in shop.sources():
        found = source.search("{ span.mixed != nil } | select(span.mixed)")
        assert len(found) == 8
        if source.messages == 1:  # what a stream sent before it met the other type stays
            assert_one_type_per_column(found)
