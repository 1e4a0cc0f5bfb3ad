"""The client in the cluster: sends spans as the OTLP specification says, remembers what was acknowledged, and asks for it again.

Runs in a pod. Other tests speak to it over HTTP:

    POST /start   {"writers": 4, "readers": 2, "rate": 20}   begins a steady load; rate is requests a second in all
    POST /stop                                               ends it; what is being tried again is tried to its end
    POST /verify                                             reads everything acknowledged since the start; says what is missing
    GET  /stats                                              the numbers so far
"""

import collections
import http.client
import json
import os
import random
import socket
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

OTLP_GRPC = os.environ.get("OTLP_GRPC", "tempo-distributor:4317")
OTLP_HTTP = os.environ.get("OTLP_HTTP", "tempo-distributor:4318")
QUERY = os.environ.get("QUERY", "tempo-query-frontend:3200")

# What a client tries again. Source: OTLP specification 1.x, "Failures".
RETRYABLE_GRPC = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
RETRYABLE_HTTP = {429, 502, 503, 504}
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, PATIENCE_SECONDS = 0.5, 5.0, 120.0
TRACES_PER_REQUEST, SPANS_PER_TRACE = 5, 4


class Refused(Exception):
    """An answer that is no acknowledgement."""

    def __init__(self, code, text, retryable, wait=None):
        super().__init__(f"{code}: {text}")
        self.code, self.text, self.retryable, self.wait = str(code), text, retryable, wait


class OverGrpc:
    """One connection, as an exporter holds it."""

    def __init__(self):
        # Names and closed ports are tried again soon, as exporters do; idle connections say nothing.
        options = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000), ("grpc.min_reconnect_backoff_ms", 200)]
        self.channel = grpc.insecure_channel(OTLP_GRPC, options=[*options, ("grpc.use_local_subchannel_pool", 1)])
        self.stub = TraceServiceStub(self.channel)

    def send(self, message):
        try:
            answer = self.stub.Export(message, timeout=10)
        except grpc.RpcError as error:
            code = error.code().name
            trailers = {key: value for key, value in error.trailing_metadata() or ()}
            told = "grpc-status-details-bin" in trailers
            raise Refused(code, error.details(), code in RETRYABLE_GRPC or code == "RESOURCE_EXHAUSTED" and told) from None
        if answer.partial_success.rejected_spans:
            raise Refused("PARTIAL", answer.partial_success.error_message, False)


class OverHttp:
    """One kept-alive connection."""

    def __init__(self):
        self.connection = None

    def send(self, message):
        try:
            if self.connection is None:
                host, port = OTLP_HTTP.rsplit(":", 1)
                self.connection = http.client.HTTPConnection(host, int(port), timeout=10)
            self.connection.request("POST", "/v1/traces", message.SerializeToString(), {"Content-Type": "application/x-protobuf"})
            answer = self.connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            if self.connection is not None:
                self.connection.close()
                self.connection = None
            raise Refused(type(error).__name__, str(error), True) from None
        if answer.status != 200:
            wait = answer.getheader("Retry-After")
            wait = float(wait) if wait and wait.isdigit() else None
            raise Refused(answer.status, body[-300:].decode(errors="replace"), answer.status in RETRYABLE_HTTP, wait)


class Load:
    """A steady load, and what became of it."""

    def __init__(self, writers, readers, rate):
        self.run = f"{random.getrandbits(32):08x}"
        self.began = time.time()
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.acknowledged = {}  # trace id -> span ids
        self.order = []  # trace ids as they were first acknowledged
        self.batches = []  # (attribute value, its trace ids)
        self.numbers = collections.Counter()
        self.refusals = collections.Counter()  # first attempts, by code
        self.texts = {}  # code -> one of its messages
        self.slow = []  # (seconds since the start, seconds that a request took with its retries), over a second
        self.bad_reads = []
        self.slowest_read = self.slowest_lookup = 0.0
        self.slow_reads = []  # (seconds since the start, kind, seconds), over a second
        self.pause = writers / rate
        self.writers = [threading.Thread(target=self.write, args=(i,), daemon=True) for i in range(writers)]
        self.readers = [threading.Thread(target=self.read, args=(i,), daemon=True) for i in range(readers)]
        for thread in [*self.writers, *self.readers]:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in [*self.writers, *self.readers]:
            thread.join()

    def write(self, number):
        wire = OverGrpc() if number % 2 == 0 else OverHttp()
        counter = 0
        while not self.stopping.is_set():
            began = time.monotonic()
            counter += 1
            batch = f"{self.run}-{number}-{counter}"
            first, second, spans = build(batch)
            # The halves of each trace come in requests of their own, as they do from two services.
            if self.deliver(wire, first) and self.deliver(wire, second):
                with self.lock:
                    self.acknowledged.update(spans)
                    self.order.extend(spans)
                    self.batches.append((batch, set(spans)))
            self.stopping.wait(max(0.0, 2 * self.pause - (time.monotonic() - began)))

    def deliver(self, wire, message):
        """Sends until acknowledged. False: given up, so nothing is known of these spans."""
        began, wait, attempt = time.monotonic(), FIRST_WAIT_SECONDS, 0
        while True:
            attempt += 1
            try:
                wire.send(message)
                with self.lock:
                    self.numbers["requests"] += 1
                    self.numbers["attempts"] += attempt
                    took = time.monotonic() - began
                    if took > 1:
                        self.slow.append((round(time.time() - self.began, 1), round(took, 2)))
                return True
            except Refused as refused:
                with self.lock:
                    self.texts[refused.code] = refused.text
                    if attempt == 1:
                        self.refusals[refused.code] += 1
                    self.numbers["refused attempts"] += 1
                if not refused.retryable or time.monotonic() - began > PATIENCE_SECONDS:
                    with self.lock:
                        self.numbers["requests"] += 1
                        self.numbers["attempts"] += attempt
                        self.numbers["given up" if refused.retryable else "not retryable"] += 1
                    return False
                time.sleep(refused.wait if refused.wait is not None else wait * random.uniform(0.5, 1.5))
                wait = min(wait * 1.5, LONGEST_WAIT_SECONDS)

    def read(self, number):
        """Traces by id of any age, and now and then a search for a batch; each must be whole at the first answer."""
        turn = number
        while not self.stopping.wait(0.2):
            turn += 1
            with self.lock:
                if not self.order:
                    continue
                # The newest every other time: what was acknowledged must be there at once.
                trace_id = self.order[-1] if turn % 2 else random.choice(self.order)
                wanted = self.acknowledged[trace_id]
                batch, members = random.choice(self.batches)
            # The name is looked up apart: a lost packet of the resolver takes 5 s and says nothing of the answer.
            began = time.monotonic()
            address = look_up(QUERY)
            asked = time.monotonic()
            if turn % 5 == 0:
                kind, problem = "search", search_problem(batch, members, address)
            else:
                kind, problem = "by id", trace_problem(trace_id, wanted, address)
            took = time.monotonic() - asked
            with self.lock:
                self.slowest_lookup = max(self.slowest_lookup, asked - began)
                self.slowest_read = max(self.slowest_read, took)
                if took > 1:
                    self.slow_reads.append((round(time.time() - self.began, 1), kind, round(took, 2)))
                self.numbers[f"reads {kind}"] += 1
                if problem:
                    self.numbers[f"bad reads {kind}"] += 1
                    self.bad_reads.append((round(time.time() - self.began, 1), kind, problem))

    def verify(self):
        """Reads everything that was acknowledged. Returns what is missing."""
        wanted = list(self.acknowledged.items())
        missing, lock = {}, threading.Lock()

        def look(share):
            for trace_id, spans in share:
                problem = trace_problem(trace_id, spans)
                if problem:
                    with lock:
                        missing[trace_id] = problem

        threads = [threading.Thread(target=look, args=(wanted[i::8],)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"traces": len(wanted), "missing": len(missing), "examples": dict(list(missing.items())[:5])}

    def stats(self):
        with self.lock:
            return {
                "run": self.run,
                "seconds": round(time.time() - self.began, 1),
                "numbers": dict(self.numbers),
                "refused first attempts": dict(self.refusals),
                "texts": dict(self.texts),
                "slow": self.slow[-20:],
                "slowest seconds": max((took for _, took in self.slow), default=0),
                "slowest read seconds": round(self.slowest_read, 2),
                "slowest lookup seconds": round(self.slowest_lookup, 2),
                "slow reads": self.slow_reads[-20:],
                "acknowledged traces": len(self.acknowledged),
                "bad reads": self.bad_reads[:20],
                "last bad read": self.bad_reads[-1][0] if self.bad_reads else None,
            }


def build(batch):
    """Two requests with the halves of the same traces, and the ids: {trace id: {span ids}}."""
    halves = ExportTraceServiceRequest(), ExportTraceServiceRequest()
    scopes = []
    for half, service in zip(halves, ("load-front", "load-back"), strict=True):
        resource = half.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        scopes.append(resource.scope_spans.add())
    now, spans = time.time_ns(), {}
    for _ in range(TRACES_PER_REQUEST):
        trace_id, root = random.randbytes(16), random.randbytes(8)
        ids = [root, *(random.randbytes(8) for _ in range(SPANS_PER_TRACE - 1))]
        spans[trace_id.hex()] = {span_id.hex() for span_id in ids}
        for index, span_id in enumerate(ids):
            scope = scopes[0 if index < SPANS_PER_TRACE // 2 else 1]
            span = scope.spans.add(trace_id=trace_id, span_id=span_id, name="root" if index == 0 else f"step {index}")
            if index:
                span.parent_span_id = root
            span.start_time_unix_nano = now + index * 1_000_000
            span.end_time_unix_nano = span.start_time_unix_nano + 5_000_000
            span.attributes.add(key="batch").value.string_value = batch
    return *halves, spans


def look_up(address):
    """The address with its name looked up; as it is when the name is not known, so that the request says so."""
    host, port = address.rsplit(":", 1)
    try:
        return f"{socket.gethostbyname(host)}:{port}"
    except OSError:
        return address


def get(path, address=QUERY):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def base64_or_hex(text):
    import base64

    return text if len(text) == 16 else base64.b64decode(text).hex()


def trace_problem(trace_id, wanted, address=QUERY):
    """None when the trace is there with all these spans."""
    try:
        status, body = get(f"/api/v2/traces/{trace_id}", address)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    if status != 200:
        return f"status {status}: {body[:200].decode(errors='replace')}"
    answer = json.loads(body)
    found = {
        base64_or_hex(span["spanId"])
        for resource in answer.get("trace", {}).get("resourceSpans", [])
        for scope in resource.get("scopeSpans", [])
        for span in scope["spans"]
    }
    return None if wanted <= found else f"{len(wanted - found)} of {len(wanted)} spans missing; status {answer.get('status')}"


def search_problem(batch, members, address):
    query = urllib.parse.urlencode({"q": f'{{ span.batch = "{batch}" }}', "limit": 100})
    try:
        status, body = get(f"/api/search?{query}", address)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    if status != 200:
        return f"status {status}: {body[:200].decode(errors='replace')}"
    found = {trace["traceID"].rjust(32, "0") for trace in json.loads(body)["traces"]}
    return None if found == members else f"{len(members - found)} of {len(members)} traces missing, {len(found - members)} too many"


class Control(BaseHTTPRequestHandler):
    load = None

    def do_GET(self):
        self.answer(Control.load.stats() if Control.load else {})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        given = json.loads(self.rfile.read(length) or "{}")
        if self.path == "/start":
            Control.load = Load(given.get("writers", 4), given.get("readers", 2), given.get("rate", 20))
            self.answer({"run": Control.load.run})
        elif self.path == "/stop":
            Control.load.stop()
            self.answer(Control.load.stats())
        elif self.path == "/verify":
            self.answer(Control.load.verify())
        else:
            self.send_error(404)

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    print(f"client: {OTLP_GRPC}, {OTLP_HTTP}, {QUERY}", file=sys.stderr, flush=True)
    ThreadingHTTPServer(("0.0.0.0", 8080), Control).serve_forever()
