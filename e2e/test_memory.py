"""Memory: whatever is thrown at a process, it stays within its limit, refuses by name, and serves who comes after."""

import contextlib
import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

import grpc
import spans
from harness import eventually, http

LIMIT_BYTES = 512 << 20
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Peak:
    """The most memory that a program takes while this is open."""

    def __init__(self, program):
        self.program, self.bytes, self.done = program, 0, threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self):
        while not self.done.wait(0.02):
            with contextlib.suppress(OSError):
                self.bytes = max(self.bytes, self.program.rss_bytes())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def limited(one):
    """The limit comes from Tempo's variable, as from a chart."""
    one.program.environment["GOMEMLIMIT"] = f"{LIMIT_BYTES}B"
    return one.start()


def require_within(one, peak, what):
    one.program.require_running()
    print(f"{what}: peak {peak.bytes >> 20} MiB of {LIMIT_BYTES >> 20}")
    assert peak.bytes < LIMIT_BYTES, f"{what}: {peak.bytes >> 20} MiB"
    assert "panicked" not in one.program.output()


def require_serving(one):
    """A good client is served within a moment, and all memory of requests is given back."""
    message, (trace_id,) = spans.request()
    body = message.SerializeToString()
    eventually("a good request is taken", lambda: post(one, body) == 200, 20)
    assert len(one.query.trace(trace_id)) == 3
    # What is left are windows of open connections.
    eventually("memory is given back", lambda: one.program.metric("vivace_memory_bytes", account="requests") < 32 << 20, 20)
    eventually("answers are given back", lambda: one.program.metric("vivace_memory_bytes", account="answers") < 1 << 20, 20)


def post(one, body, content_type="application/x-protobuf", **headers):
    """The status; none where the connection was closed while the request was sent."""
    try:
        return http(one.otlp_http_url, data=body, content_type=content_type, **headers).status
    except (OSError, HTTPException):
        return None


def all_at_once(count, work):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def counted(answers):
    return {answer: answers.count(answer) for answer in sorted(set(answers), key=str)}


def test_small_bodies_that_become_large(all_in_one):
    one = limited(all_in_one)
    of_objects = gzip.compress(b'{"resourceSpans":[' + b"{}," * 6_500_000 + b"{}]}", compresslevel=9)
    of_unknown = gzip.compress(b'{"unknown":[' + b"{}," * 6_500_000 + b"{}]}", compresslevel=9)
    of_spans = gzip.compress(b"\x0a\x04\x12\x02\x12\x00" * 3_000_000, compresslevel=9)
    assert max(map(len, (of_objects, of_unknown, of_spans))) < 60_000

    def send(number):
        body = (of_objects, of_unknown, of_spans)[number % 3]
        kind = "application/x-protobuf" if number % 3 == 2 else "application/json"
        return post(one, body, kind, content_encoding="gzip", timeout=120)

    with Peak(one.program) as peak:
        answers = all_at_once(200, send)
    print(counted(answers))
    # Not one of them has a span with an id, and most do not fit beside each other.
    assert set(answers) <= {200, 400, 429, None} and answers.count(429) > 0, counted(answers)
    require_within(one, peak, "200 bodies of 20 kB")
    require_serving(one)


def test_large_messages_on_one_connection(all_in_one):
    one = limited(all_in_one)
    message, _ = spans.request(spans=1)
    message.resource_spans[0].scope_spans[0].spans[0].name = "x" * (14 << 20)
    plain = message.SerializeToString()

    def raw(data):
        return data

    def send(channel, compression):
        call = channel.unary_unary(EXPORT, request_serializer=raw, response_deserializer=raw)
        try:
            call(plain, timeout=240, compression=compression)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

    options = [("grpc.max_send_message_length", -1)]
    for what, compression in [("plain", grpc.Compression.NoCompression), ("gzip", grpc.Compression.Gzip)]:
        for port in (one.otlp_grpc, one.grpc, one.http):
            with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel, Peak(one.program) as peak:
                answers = all_at_once(40, lambda _: send(channel, compression))
            print(what, port, counted(answers))
            # An ingester that is busy with others' may be late: then it is UNAVAILABLE.
            wanted = {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"} if port == one.otlp_grpc else {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
            assert set(answers) <= wanted, counted(answers)
            require_within(one, peak, f"40 {what} messages of 14 MiB to port {port}")
    require_serving(one)


def test_uploads_in_chunks_and_answers_that_nobody_reads(all_in_one):
    one = limited(all_in_one)
    message, (trace_id,) = spans.request(spans=6)
    for number, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
        span.attributes.add(key="long").value.string_value = chr(ord("a") + number) * 1_900_000
    assert post(one, message.SerializeToString()) == 200

    def upload(_):
        connection = HTTPConnection("127.0.0.1", one.otlp_http, timeout=120)
        chunks = (b"\x0a" * 65_536 for _ in range(19 * 16))
        try:
            connection.request(
                "POST", "/v1/traces", body=chunks, headers={"content-type": "application/x-protobuf"}, encode_chunked=True
            )
            return connection.getresponse().status
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    unread = []
    with Peak(one.program) as peak:
        for _ in range(100):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", one.http))
            client.sendall(f"GET /api/v2/traces/{trace_id} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
            unread.append(client)
        answers = all_at_once(30, upload)
        time.sleep(3)
    print(counted(answers))
    assert set(answers) <= {400, 429, None} and answers.count(429) > 0, counted(answers)
    require_within(one, peak, "30 uploads in chunks and 100 answers of 11 MB that nobody reads")
    for client in unread:
        client.close()
    require_serving(one)
