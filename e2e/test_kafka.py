"""Spans from a topic of Kafka: what each encoding becomes, and that none is lost whoever ends when."""

import base64
import json
import random
import struct
import subprocess
import time

import pytest

import harness
import kafka_broker
import spans
from harness import eventually, http
from otlp import delimited, varint

START = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    one = kafka_broker.Broker(tmp_path_factory.mktemp("broker"))
    yield one.start()
    if one.running():
        one.kill()


@pytest.fixture
def topic(broker, request):
    name = f"{request.node.name.partition('[')[0]}-{random.randrange(1 << 32):08x}"
    return broker.create(name, getattr(request, "param", 1))


def reader(broker, topic, **more):
    """A receiver's block. Each topic has a group of its own."""
    return {"brokers": [broker.address], "traces": {"topic": topic}, "group_id": topic, "initial_offset": "earliest", **more}


class Reading(harness.AllInOne):
    """The single binary with receivers of Kafka's beside those of OTLP."""

    def __init__(self, folder, receivers, extra=""):
        super().__init__(folder)
        lines = "".join(f"    {name}: {json.dumps(block)}\n" for name, block in receivers.items())
        file = self.folder / "vivace.yaml"
        file.write_text(file.read_text().replace("  receivers:\n", f"  receivers:\n{lines}") + extra)

    def skipped(self, **labels):
        return self.program.metric("vivace_receiver_messages_skipped_total", **labels)

    def done(self):
        return self.program.metric("vivace_receiver_messages_total")


@pytest.fixture
def reading(tmp_path, programs):
    def start(receivers, extra=""):
        one = Reading(tmp_path, receivers, extra)
        programs.append(one.program)
        return one.start()

    return start


def trace_of(query, trace_id):
    """What is stored of a trace: each span's name with the attributes of its resource and its own."""
    answer = query.get(f"/api/v2/traces/{trace_id}")
    assert answer.status == 200, answer
    found = []
    for resource in answer.json().get("trace", {}).get("resourceSpans", []):
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                attributes = resource["resource"].get("attributes", []) + span.get("attributes", [])
                found.append((span["name"], {a["key"]: next(iter(a["value"].values())) for a in attributes}))
    return found


def stored(query, ids):
    return all(trace_of(query, trace_id) for trace_id in ids)


def span_ids(query, trace_id):
    """Every span of a trace by its id, as often as it is there."""
    answer = query.get(f"/api/v2/traces/{trace_id}")
    if answer.status != 200:
        return []
    resources = answer.json().get("trace", {}).get("resourceSpans", [])
    return [span["spanId"] for resource in resources for scope in resource["scopeSpans"] for span in scope["spans"]]


# One span in each encoding.


def otlp_proto(trace_id):
    message, _ = spans.request("shop", spans=1, start=START, attributes={"color": "red"})
    message.resource_spans[0].scope_spans[0].spans[0].trace_id = trace_id
    message.resource_spans[0].scope_spans[0].spans[0].name = "order"
    return message.SerializeToString()


def otlp_json(trace_id):
    text = lambda key, value: {"key": key, "value": {"stringValue": value}}  # noqa: E731
    span = {
        "traceId": trace_id.hex(),
        "spanId": "0102030405060708",
        "name": "order",
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 1000),
        "attributes": [text("color", "red")],
    }
    resource = {"attributes": [text("service.name", "shop")]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}).encode()


def number(field, value):
    return varint(field << 3) + varint(value)


def jaeger_proto(trace_id):
    tag = delimited(1, b"color") + delimited(3, b"red")
    time_of = number(1, START // 1_000_000_000)
    process = delimited(1, b"shop")
    fields = {1: trace_id, 2: bytes(range(1, 9)), 3: b"order", 6: time_of, 7: number(2, 1000), 8: tag, 10: process}
    return b"".join(delimited(field, content) for field, content in fields.items())


def jaeger_json(trace_id):
    return json.dumps(
        {
            "traceId": base64.b64encode(trace_id).decode(),
            "spanId": base64.b64encode(bytes(range(1, 9))).decode(),
            "operationName": "order",
            "startTime": "2023-11-14T22:13:20Z",
            "duration": "0.000001s",
            "tags": [{"key": "color", "vStr": "red"}],
            "process": {"serviceName": "shop"},
        }
    ).encode()


def zipkin_proto(trace_id):
    fixed = lambda field, value: varint(field << 3 | 1) + struct.pack("<Q", value)  # noqa: E731
    tag = delimited(1, b"color") + delimited(2, b"red")
    span = delimited(1, trace_id) + delimited(3, bytes(range(1, 9))) + delimited(5, b"order")
    span += fixed(6, START // 1000) + number(7, 1) + delimited(8, delimited(1, b"shop")) + delimited(11, tag)
    return delimited(1, span)


def zipkin_json(trace_id):
    span = {"traceId": trace_id.hex(), "id": "0102030405060708", "name": "order", "timestamp": START // 1000, "duration": 1}
    return json.dumps([{**span, "localEndpoint": {"serviceName": "shop"}, "tags": {"color": "red"}}]).encode()


def zipkin_thrift(trace_id):
    """A list of structs in binary thrift."""
    high, low = struct.unpack(">qq", trace_id)
    i64 = lambda field, value: struct.pack(">bhq", 10, field, value)  # noqa: E731
    text = lambda field, value: struct.pack(">bhi", 11, field, len(value)) + value  # noqa: E731
    endpoint = struct.pack(">bh", 12, 3 + 1) + text(3, b"shop") + b"\0"
    note = text(1, b"color") + text(2, b"red") + struct.pack(">bhi", 8, 3, 6) + endpoint + b"\0"
    notes = struct.pack(">bhbi", 15, 8, 12, 1) + note
    span = i64(1, low) + text(3, b"order") + i64(4, 0x0102030405060708) + notes + i64(10, START // 1000) + i64(11, 1) + i64(12, high)
    return struct.pack(">bi", 12, 1) + span + b"\0"


ENCODINGS = [otlp_proto, otlp_json, jaeger_proto, jaeger_json, zipkin_proto, zipkin_json, zipkin_thrift]


def test_every_encoding(broker, reading, topic):
    receivers, sent = {}, {}
    for encode in ENCODINGS:
        name = encode.__name__
        of_one = broker.create(f"{topic}-{name}")
        receivers[f"kafka/{name}"] = reader(broker, of_one, traces={"topic": of_one, "encoding": name})
        sent[name] = random.randbytes(16)
        broker.send(of_one, [encode(sent[name])])
    # Of old, and by their defaults.
    old = broker.create(f"{topic}-old")
    receivers["kafka"] = {**reader(broker, ""), "traces": {}, "topic": old, "encoding": "zipkin_json", "group_id": old}
    sent["old"] = random.randbytes(16)
    broker.send(old, [zipkin_json(sent["old"])])
    one = reading(receivers)
    for name, trace_id in sent.items():
        found = eventually(f"the span in {name}", lambda trace_id=trace_id: trace_of(one.query, trace_id.hex()))
        assert [span for span, _ in found] == ["order"], name
        attributes = found[0][1]
        assert (attributes["service.name"], attributes["color"]) == ("shop", "red"), name
    accepted = one.program.metric("tempo_receiver_accepted_spans", receiver="kafka/kafka_receiver", transport="kafka")
    assert accepted == len(sent) and one.skipped() == 0


def requests(count, trace_ids, size=0):
    """Messages of one span each, and the ids of all spans by trace."""
    by_trace = {trace_id: set() for trace_id in trace_ids}
    messages = []
    for each in range(count):
        trace_id = trace_ids[each % len(trace_ids)]
        message, _ = spans.request("bulk", spans=1, attributes={"pad": "x" * size} if size else None)
        span = message.resource_spans[0].scope_spans[0].spans[0]
        span.trace_id = bytes.fromhex(trace_id)
        by_trace[trace_id].add(base64.b64encode(span.span_id).decode())
        messages.append(message.SerializeToString())
    return messages, by_trace


def missing(query, by_trace):
    """How many spans are not there; no span may be there twice."""
    count = 0
    for trace_id, wanted in by_trace.items():
        found = span_ids(query, trace_id)
        assert len(found) == len(set(found)), f"{trace_id}: {len(found) - len(set(found))} spans twice"
        assert set(found) <= wanted
        count += len(wanted) - len(found)
    return count


def trace_ids(count):
    return [random.randbytes(16).hex() for _ in range(count)]


def test_a_broker_that_is_away(tmp_path, programs, reading):
    broker = kafka_broker.Broker(tmp_path)
    programs.append(broker)
    one = reading({"kafka": reader(broker, "late", metadata={"retry": {"backoff": "100ms"}})})
    # Ready for all other receivers meanwhile.
    message, ids = spans.request()
    assert http(one.otlp_http_url, message.SerializeToString(), Content_Type="application/x-protobuf").status == 200
    assert stored(one.query, ids)
    eventually("it is told", lambda: "cannot read from Kafka, and tries again" in one.program.output())
    broker.start()
    broker.create("late")
    messages, early = requests(5, trace_ids(1))
    broker.send("late", messages)
    eventually("what was sent", lambda: missing(one.query, early) == 0, 60)
    refused = one.program.output().count("Connection refused")
    broker.kill()
    eventually("that it is gone is told", lambda: one.program.output().count("Connection refused") > refused, 60)
    broker.start()
    messages, late = requests(5, trace_ids(1))
    broker.send("late", messages)
    eventually("what was sent after a restart", lambda: missing(one.query, late) == 0, 60)
    assert one.program.metric("tempo_receiver_accepted_spans", transport="kafka") >= 10
    assert one.program.stop() == 0
    assert broker.committed("late", group="late") == 10


def test_a_topic_that_comes_later_and_grows(broker, reading):
    topic = f"later-{random.randrange(1 << 32):08x}"
    one = reading({"kafka": reader(broker, topic, metadata={"refresh_interval": "1s"})})
    eventually("it is told", lambda: "the topic does not exist yet" in one.program.output())
    broker.create(topic)
    messages, early = requests(4, trace_ids(1))
    broker.send(topic, messages)
    eventually("what was sent", lambda: missing(one.query, early) == 0)
    broker.grow(topic, 3)
    eventually("all partitions are read", lambda: one.program.metric("vivace_receiver_partitions") == 3)
    messages, late = requests(40, trace_ids(1))
    broker.send(topic, messages)
    eventually("what was sent then", lambda: missing(one.query, late) == 0)
    assert one.done() == 44


def test_a_process_that_only_reads(tmp_path, programs, broker, topic):
    """No port is listened on, and nothing is behind when it stops."""
    one = harness.AllInOne(tmp_path)
    file = tmp_path / "vivace.yaml"
    config = file.read_text()
    begin, end = config.index("    otlp:"), config.index("storage:")
    file.write_text(config[:begin] + f"    kafka: {json.dumps(reader(broker, topic))}\n" + config[end:])
    programs.append(one.program)
    one.start()
    messages, by_trace = requests(3, trace_ids(1))
    broker.send(topic, messages)
    eventually("what was sent", lambda: missing(one.query, by_trace) == 0)
    assert broker.members(topic) == [1]
    assert one.program.stop() == 0
    assert broker.members(topic) == [], "it has left the group"
    assert broker.committed(topic, group=topic) == 3


def test_a_group_that_begins_with_what_is_sent_from_now_on(tmp_path, programs, broker, topic):
    """What was there before is not read, and what comes while nobody reads is, although nothing was read before that."""
    before, of_before = requests(1, trace_ids(1))
    broker.send(topic, before)
    receiver = reader(broker, topic)
    del receiver["initial_offset"]
    one = Reading(tmp_path, {"kafka": receiver})
    programs.append(one.program)
    one.start()
    eventually("it stands at the end", lambda: broker.committed(topic, group=topic) == 1)
    assert one.program.stop() == 0
    meanwhile, of_meanwhile = requests(1, trace_ids(1))
    broker.send(topic, meanwhile)
    one.start()
    eventually("what came meanwhile", lambda: missing(one.query, of_meanwhile) == 0)
    assert missing(one.query, of_before) == 1 and one.done() == 1


def test_broken_messages_hold_nobody_up(broker, reading, topic):
    good, by_trace = requests(4, trace_ids(1))
    nobodys = spans.request(spans=1)[0]
    nobodys.resource_spans[0].scope_spans[0].spans[0].trace_id = b""
    claims = varint(1 << 3 | 2) + varint(1 << 31) + b"short"
    broken = [b"\xff\xff\xff", claims, good[0][:-3], nobodys.SerializeToString(), b"{}"]
    messages = []
    for each in good:
        messages += [*broken, each]
    messages += [b"", None]
    broker.send(topic, messages)
    one = reading({"kafka": reader(broker, topic, autocommit={"enable": False})})
    eventually("the good ones", lambda: missing(one.query, by_trace) == 0)
    eventually("all are done with", lambda: one.done() == len(messages))
    assert one.skipped(reason="malformed") >= 4 * (len(broken) - 1) and one.skipped(reason="empty") == 2
    assert one.program.metric("tempo_discarded_spans_total", reason="invalid_trace_id") == 4
    assert "the spans of a message are lost" in one.program.output()
    assert one.program.metric("vivace_receiver_messages_behind") == 0
    eventually("the offset is behind them", lambda: broker.committed(topic, group=topic) == len(messages))


def test_large_messages(broker, reading, topic):
    sent, per_codec = {}, 4
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        messages, by_trace = requests(per_codec, trace_ids(1), size=1000)
        # A megabyte each, of many small attributes.
        for index, message in enumerate(messages):
            request = spans.ExportTraceServiceRequest.FromString(message)
            span = request.resource_spans[0].scope_spans[0].spans[0]
            for each in range(1000):
                span.attributes.add(key=f"key-{each}").value.string_value = random.randbytes(500).hex()
            messages[index] = request.SerializeToString()
        assert len(messages[0]) > 1_000_000
        broker.send(topic, messages, **{"compression.type": codec})
        sent.update(by_trace)
    one = reading({"kafka": reader(broker, topic, default_fetch_size=1 << 16)})
    eventually("all of them", lambda: missing(one.query, sent) == 0, 60)
    assert one.done() == 5 * per_codec and one.skipped() == 0


def test_tenants_and_their_limits(broker, reading, topic):
    """The header says whose spans they are; one who is over the limit is waited for, and loses nothing."""
    (slow_id, quick_id, extracted_id) = trace_ids(3)
    slow, of_slow = requests(12, [slow_id], size=1000)
    quick, of_quick = requests(12, [quick_id], size=1000)
    huge, _ = requests(1, trace_ids(1), size=9000)
    as_tenant = lambda name, messages, **more: [  # noqa: E731
        (message, [("X-Scope-OrgID", name.encode()), *((key, value.encode()) for key, value in more.items())]) for message in messages
    ]
    extracted, of_extracted = requests(1, [extracted_id])
    sent = [message for pair in zip(as_tenant("slow", slow), as_tenant("quick", quick)) for message in pair]
    sent += as_tenant("slow", huge) + as_tenant("quick", extracted, zone="b", other="c") + [quick[0]] + as_tenant("a/b", [quick[0]])
    broker.send(topic, sent)
    limits = "overrides: {per_tenant_override_config: %s}\n"
    file = tmp_limits(broker, {"slow": {"ingestion": {"rate_limit_bytes": 4000, "burst_size_bytes": 4000}}})
    receiver = reader(
        broker,
        topic,
        error_backoff={"initial_interval": "200ms", "max_interval": "500ms"},
        header_extraction={"extract_headers": True, "headers": ["zone", "absent"]},
    )
    one = reading({"kafka": receiver}, f"multitenancy_enabled: true\n{limits % file}")
    of = lambda tenant: harness.Query(one.program.url, X_Scope_OrgID=tenant)  # noqa: E731
    eventually("the quick one's", lambda: missing(of("quick"), of_quick) == 0)
    eventually("the slow one's", lambda: missing(of("slow"), of_slow) == 0, 60)
    eventually("all are done with", lambda: one.done() == len(sent))
    assert one.program.metric("vivace_receiver_messages_retried_total") > 0
    assert one.skipped(reason="too_large") == 1 and one.skipped(reason="tenant") == 2 and one.skipped() == 3
    assert "messages are refused for now, and tried again" in one.program.output()
    assert missing(of("quick"), of_extracted) == 0
    ((_, attributes),) = trace_of(of("quick"), extracted_id)
    assert attributes["kafka.header.zone"] == "b" and not any("other" in key or "absent" in key for key in attributes)


def tmp_limits(broker, overrides):
    file = broker.folder / f"overrides-{random.randrange(1 << 32)}.yaml"
    file.write_text(json.dumps({"overrides": overrides}))
    return file


class Sharing(harness.AllInOne):
    """The single binary keeps the spans, and distributors of their own read them."""

    def __init__(self, folder, receiver):
        super().__init__(folder)
        gossip, *ports = harness.free_ports(7)
        self.distributors = []
        member = "memberlist: {bind_addr: [127.0.0.1], bind_port: %d, advertise_addr: 127.0.0.1, node_name: %s, join_members: ['127.0.0.1:%d']}\n"
        lifecycler = "{address: 127.0.0.1, min_ready_duration: 0s, ring: {kvstore: {store: memberlist}}}"
        all_others = f"target: scalable-single-binary\ningester: {{lifecycler: {lifecycler}}}\n"
        self.with_config(all_others + member % (gossip, "all", gossip))
        for number in range(2):
            http_port, grpc_port, own = ports[3 * number : 3 * number + 3]
            file = self.folder / f"distributor-{number}.yaml"
            file.write_text(
                f"server: {{http_listen_address: 127.0.0.1, http_listen_port: {http_port}, "
                f"grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc_port}}}\n"
                f"distributor: {{receivers: {{kafka: {json.dumps(receiver)}}}}}\n" + member % (own, f"d{number}", gossip)
            )
            arguments = [harness.binaries() / "vivace-distributor", f"-config.file={file}"]
            self.distributors.append(harness.Vivace(f"distributor-{number}", arguments, self.folder, http_port))

    def partitions(self):
        return [each.metric("vivace_receiver_partitions") if each.running() else 0 for each in self.distributors]


@pytest.fixture
def sharing(tmp_path, programs):
    def start(receiver):
        one = Sharing(tmp_path, receiver)
        programs.extend([one.program, *one.distributors])
        return one.start()

    return start


@pytest.mark.parametrize("topic", [4], indirect=True)
def test_a_killed_distributor_loses_nothing(broker, sharing, topic):
    messages, by_trace = requests(20_000, trace_ids(40))
    one = sharing(reader(broker, topic, session_timeout="6s", heartbeat_interval="1s"))
    (reads, _) = one.distributors
    reads.start().wait_ready()
    broker.send(topic, messages)
    eventually("it has begun", lambda: 100 < reads.metric("vivace_receiver_messages_total"), every=0.01)
    reads.kill()
    left = missing(one.query, by_trace)
    assert left > 0, "it was killed in the middle"
    reads.start().wait_ready()
    eventually("every span", lambda: missing(one.query, by_trace) == 0, 60)
    eventually("all is committed", lambda: broker.committed(topic, 4, group=topic) == len(messages))


@pytest.mark.parametrize("topic", [4], indirect=True)
def test_a_stop_in_the_middle_leaves_the_rest(broker, sharing, topic):
    """Committed is what was stored, and that alone: nothing is missing, and nothing comes twice."""
    messages, by_trace = requests(20_000, trace_ids(40))
    one = sharing(reader(broker, topic))
    (reads, _) = one.distributors
    reads.start().wait_ready()
    broker.send(topic, messages)
    eventually("it has begun", lambda: 100 < reads.metric("vivace_receiver_messages_total"), every=0.01)
    assert reads.stop() == 0
    done = broker.committed(topic, 4, group=topic)
    assert missing(one.query, by_trace) == len(messages) - done
    assert 100 < done < len(messages), "it was stopped in the middle"
    reads.start().wait_ready()
    eventually("every span", lambda: missing(one.query, by_trace) == 0, 60)
    assert reads.metric("vivace_receiver_messages_total") == len(messages) - done


@pytest.mark.parametrize("topic", [4], indirect=True)
def test_ingesters_that_are_away_are_waited_for(broker, sharing, topic):
    """A member that waits stays one: it shares with another that comes meanwhile."""
    messages, by_trace = requests(40, trace_ids(4))
    one = sharing(reader(broker, topic, error_backoff={"max_interval": "1s"}, session_timeout="6s", heartbeat_interval="1s"))
    first, second = one.distributors
    first.start().wait_ready()
    eventually("it has all partitions", lambda: one.partitions() == [4, 0])
    one.program.kill()
    broker.send(topic, messages)
    eventually("it waits", lambda: first.metric("vivace_receiver_messages_retried_total") > 0, 60)
    assert broker.committed(topic, 4, group=topic) < len(messages)
    second.start()
    eventually("they share", lambda: broker.members(topic) == [2, 2], 60)
    one.start()
    eventually("every span", lambda: missing(one.query, by_trace) == 0, 60)
    eventually("all is committed", lambda: broker.committed(topic, 4, group=topic) == len(messages), 60)


@pytest.mark.parametrize("topic", [4], indirect=True)
def test_distributors_share_a_topic(broker, sharing, topic):
    one = sharing(reader(broker, topic, session_timeout="6s", heartbeat_interval="1s"))
    first, second = one.distributors
    first.start().wait_ready()
    eventually("one has all partitions", lambda: one.partitions() == [4, 0])
    sent = {}

    def send():
        messages, by_trace = requests(400, trace_ids(2))
        broker.send(topic, messages)
        sent.update(by_trace)

    send()
    second.start().wait_ready()
    send()
    eventually("each has half of them", lambda: one.partitions() == [2, 2])
    send()
    eventually("every span of both", lambda: missing(one.query, sent) == 0)
    assert second.metric("vivace_receiver_messages_total") > 0
    assert second.stop() == 0
    assert len(broker.members(topic)) == 1, "it said good-bye"
    send()
    eventually("one has all again", lambda: one.partitions() == [4, 0])
    eventually("every span of one", lambda: missing(one.query, sent) == 0)
    second.start().wait_ready()
    eventually("each has half again", lambda: one.partitions() == [2, 2])
    second.kill()
    send()
    eventually("one has all once the other is missed", lambda: one.partitions() == [4, 0], 60)
    eventually("every span at last", lambda: missing(one.query, sent) == 0)
    assert broker.committed(topic, 4, group=topic) <= 2000
    assert first.stop() == 0
    assert broker.committed(topic, 4, group=topic) == 2000


@pytest.mark.parametrize(
    "auth",
    [
        {"plain_text": {"username": kafka_broker.USER, "password": kafka_broker.PASSWORD}},
        {"sasl": {"username": kafka_broker.USER, "password": kafka_broker.PASSWORD, "mechanism": "SCRAM-SHA-256"}},
        {"sasl": {"username": kafka_broker.USER, "password": kafka_broker.PASSWORD, "mechanism": "SCRAM-SHA-512"}},
    ],
    ids=["plain", "scram-256", "scram-512"],
)
def test_passwords(broker, reading, topic, auth):
    messages, by_trace = requests(1, trace_ids(1))
    broker.send(topic, messages)
    one = reading({"kafka": reader(broker, topic, brokers=[broker.sasl], auth=auth)})
    eventually("what was sent", lambda: missing(one.query, by_trace) == 0)
    assert kafka_broker.PASSWORD not in http(f"{one.program.url}/status/config").body.decode() + one.program.output()


@pytest.mark.parametrize("given", ["file", "pem"])
def test_tls(broker, reading, topic, given):
    messages, by_trace = requests(1, trace_ids(1))
    broker.send(topic, messages)
    told = {"ca": broker.certificate, "cert": broker.certificate, "key": broker.key}
    tls = {f"{name}_{given}": str(file) if given == "file" else file.read_text() for name, file in told.items()}
    one = reading({"kafka": reader(broker, topic, brokers=[broker.tls], tls=tls)})
    eventually("what was sent", lambda: missing(one.query, by_trace) == 0)


@pytest.mark.parametrize(
    ("tls", "reason"),
    [({"ca_file": "/absent.pem"}, "/absent.pem"), ({"ca_pem": "nothing"}, "no certificates found in")],
    ids=["absent", "nothing"],
)
def test_certificates_that_are_none_end_the_start(tmp_path, programs, broker, tls, reason):
    one = Reading(tmp_path, {"kafka/tls": reader(broker, "t", brokers=[broker.tls], tls=tls)})
    programs.append(one.program)
    one.program.start()
    assert one.program.process.wait(30) == 1
    assert "distributor.receivers.kafka/tls" in one.program.output() and reason in one.program.output(), one.program.tail()


def test_a_broker_whose_certificate_is_unknown_is_told(broker, reading, topic):
    one = reading({"kafka": reader(broker, topic, brokers=[broker.tls], tls=None)})
    eventually("it is told", lambda: "UnknownIssuer" in one.program.output() and "tries again" in one.program.output())


def test_a_wrong_password_is_told(broker, reading, topic):
    auth = {"sasl": {"username": kafka_broker.USER, "password": "guessed", "mechanism": "PLAIN"}}
    one = reading({"kafka": reader(broker, topic, brokers=[broker.sasl], auth=auth)})
    eventually("it is told", lambda: "uthentication" in one.program.output() and "tries again" in one.program.output())
    assert one.program.stop() == 0
