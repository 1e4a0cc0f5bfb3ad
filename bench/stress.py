#!/usr/bin/env python3
"""What overload does to one Vivace process: split traces, hostile requests under a memory limit, thousands of tenants, queries at once.

    bench/stress.py [--binary PATH] [split] [memory] [tenants] [overload]

Prints a table per part: CPU seconds of the process, its peak of resident memory, and how requests were answered. It runs with
the Python of the end-to-end tests, which it installs where it is missing. Everything is on loopback, in a temporary folder.
"""

import argparse
import collections
import concurrent.futures
import gzip
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "e2e"), str(ROOT / "scripts")]

import tools  # noqa: E402

if Path(sys.executable).parent != tools.venv_python().parent:
    os.execv(tools.venv_python(), [str(tools.venv_python()), *sys.argv])

import grpc  # noqa: E402
import harness  # noqa: E402
import spans  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
# Stands at the beginning of every id of a template; each request gets another four bytes.
MARK = b"\xaa\xbb\xcc\xdd"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def cpu_seconds(program):
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(program):
    """The most that was resident at one time."""
    for line in Path(f"/proc/{program.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


def table(title, head, rows):
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, ["-" * width for width in widths], *rows]:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())
    sys.stdout.flush()


def template(traces, per_trace):
    """A request whose ids begin with MARK."""
    message, _ = spans.request("shop", traces=0)
    scope = message.resource_spans[0].scope_spans[0]
    now = time.time_ns()
    for _ in range(traces):
        trace_id, root = MARK + random.randbytes(12), MARK + random.randbytes(4)
        for number in range(per_trace):
            span = scope.spans.add(trace_id=trace_id, span_id=root if number == 0 else MARK + random.randbytes(4))
            span.name = f"GET /{number}"
            if number:
                span.parent_span_id = root
            span.start_time_unix_nano, span.end_time_unix_nano = now + number * 1_000_000, now + number * 1_000_000 + 5_000_000
            span.status.code = 2 if number % 2 else 0
            for key, value in [("http.method", "GET"), ("user", f"user-{random.randrange(10_000)}"), ("db.statement", "select 1" * 8)]:
                span.attributes.add(key=key).value.string_value = value
    return message.SerializeToString()


def send(one, body, **headers):
    return harness.http(one.otlp_http_url, data=body, method="POST", timeout=120, Content_Type="application/x-protobuf", **headers)


def fill(one, requests, traces, per_trace):
    """Sends so many requests of other ids."""
    body = template(traces, per_trace)
    for _ in range(requests):
        answer = send(one, body.replace(MARK, random.randbytes(4)))
        assert answer.status == 200, answer


class Server:
    """One process on free ports, ended with the block."""

    def __init__(self, binary, config, memory_bytes=None):
        self.binary, self.config, self.memory_bytes = binary, config, memory_bytes

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        environment = {"GOMEMLIMIT": str(self.memory_bytes)} if self.memory_bytes else None
        self.one = harness.AllInOne(self.folder.name, environment=environment).with_config(self.config)
        program = self.one.program
        if self.binary:
            program.arguments[0] = str(self.binary)
        self.group = MemoryGroup(self.memory_bytes) if self.memory_bytes else None
        if self.group:
            program.arguments = self.group.wrap(program.arguments)
        return self.one.start()

    def __exit__(self, *_):
        if self.one.program.running():
            self.one.program.kill()
        if self.group:
            self.group.close()
        self.folder.cleanup()


class MemoryGroup:
    """A control group (version 1 or 2) that a process is started in, so that the kernel ends what takes more. None where that is
    not permitted."""

    def __init__(self, limit_bytes):
        name = f"vivace-stress-{os.getpid()}"
        own = {line.split(":")[1]: line.strip().split(":", 2)[2] for line in open("/proc/self/cgroup")}
        first = Path(f"/sys/fs/cgroup/memory{own.get('memory', '')}") / name
        second = Path(f"/sys/fs/cgroup{own.get('', '')}") / name
        self.folder, file = (first, "memory.limit_in_bytes") if "memory" in own else (second, "memory.max")
        try:
            self.folder.mkdir(exist_ok=True)
            (self.folder / file).write_text(str(limit_bytes))
        except OSError as error:
            print(f"  no control group ({error}): the limit is told by GOMEMLIMIT alone")
            self.folder = None

    def wrap(self, arguments):
        if self.folder is None:
            return arguments
        return ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(self.folder), *arguments]

    def close(self):
        if self.folder is not None:
            harness.eventually("the group is empty", lambda: not (self.folder / "cgroup.procs").read_text())
            self.folder.rmdir()


LIMITS = """
overrides:
  defaults:
    ingestion: {rate_limit_bytes: 2000000000, burst_size_bytes: 2000000000, max_traces_per_user: 0}
    global: {max_bytes_per_trace: 0}
"""

SPLIT_QUERIES = [
    ("query_range", "{ } | count_over_time()"),
    ("query_range", "{ status = error } | rate() by (name)"),
    ("search", "{ status = error } | count() > 2"),
    ("search", "{ } >> { status = error }"),
    ("search", '{ span.user = "user-7" }'),
]


def ask(one, kind, query, timeout=70, **parameters):
    now = int(time.time())
    path = "/api/search" if kind == "search" else "/api/metrics/query_range"
    asked = {"q": query, "start": now - 1800, "end": now + 60, **({"limit": 20} if kind == "search" else {"step": "60s"}), **parameters}
    url = f"{one.program.url}{path}?{harness.urllib.parse.urlencode(asked)}"
    try:
        return harness.http(url, timeout=timeout).status
    except OSError:
        return "no answer"


def split(binary):
    """Every trace in 1, 2 and 10 blocks."""
    rows = {query: [query] for _, query in SPLIT_QUERIES}
    config = "query_frontend: {search: {query_backend_after: 0s}}\ncompactor: {disabled: true}\ningester: {complete_block_timeout: 1s}\n" + LIMITS
    copies = [1, 2, 10]
    for count in copies:
        with Server(binary, config) as one:
            bodies = [template(500, 4).replace(MARK, random.randbytes(4)) for _ in range(15)]
            for number in range(count):
                for body in bodies:
                    assert send(one, body).status == 200
                assert harness.http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
                harness.eventually("the block is stored", lambda n=number: len(list(Path(one.folder, "blocks").glob("*/*/meta.json"))) > n)
            # Until the ingester leaves the blocks to the list.
            time.sleep(10)
            for kind, query in SPLIT_QUERIES:
                before = cpu_seconds(one.program)
                status = ask(one, kind, query)
                spent = cpu_seconds(one.program) - before
                rows[query].append(f"{spent:.2f} s" + ("" if status == 200 else f" ({status})"))
    table("7,500 traces of four spans, all of them in each of so many blocks: CPU of a query", ["query", *(f"{n} blocks" for n in copies)], list(rows.values()))


def gzip_bombs(one):
    body = gzip.compress(b'{"resourceSpans":[' + b",".join([b"{}"] * 6_500_000) + b"]}")
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        post = lambda _: harness.http(one.otlp_http_url, data=body, method="POST", timeout=60, Content_Type="application/json", Content_Encoding="gzip")  # noqa: E731
        return outcomes(pool, post, range(200))


def outcomes(pool, work, items):
    """How often each answer came."""

    def one(item):
        try:
            return work(item).status
        except OSError:
            return "cut"

    return collections.Counter(pool.map(one, items))


def grpc_streams(one):
    body = template(2000, 1)
    body = body * (14_000_000 // len(body))
    channel = grpc.insecure_channel(f"127.0.0.1:{one.otlp_grpc}", options=[("grpc.max_send_message_length", -1)])
    call = channel.unary_unary(EXPORT, request_serializer=lambda b: b, response_deserializer=lambda b: b)

    def send_one(_):
        try:
            call(body, timeout=60)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        found = collections.Counter(pool.map(send_one, range(40)))
    channel.close()
    return found


def chunked_uploads(one):
    """Bodies that grow and never end."""
    sockets, counts = [], collections.Counter()
    for _ in range(30):
        s = socket.create_connection(("127.0.0.1", one.otlp_http))
        s.settimeout(5)
        s.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n")
        sockets.append(s)
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    for _ in range(18):
        for s in list(sockets):
            try:
                s.sendall(piece)
            except OSError:
                sockets.remove(s)
                counts["refused while it grew"] += 1
    counts["taken so far"] = len(sockets)
    for s in sockets:
        s.close()
    return counts


def unread_answers(one):
    """Answers that nobody reads."""
    now = int(time.time())
    sockets = []
    path = f"/api/search?limit=100000&spss=100&start={now - 3600}&end={now + 60}&q=%7B%7D+%7C+select(span.db.statement)"
    for _ in range(100):
        s = socket.create_connection(("127.0.0.1", one.http))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sockets.append(s)
    time.sleep(20)
    for s in sockets:
        s.close()
    return {"sent": 100}


def wide_queries(one):
    asked = [
        ("query_range", "{} | rate() by (span:id)", {}),
        ("query_range", "{} | rate() by (span.user, span:id)", {}),
        ("search", "{} | select(span.db.statement, span.user)", {"limit": 1_000_000, "spss": 100}),
        ("query_range", "{} | compare({ status = error })", {}),
    ]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(ask, one, kind, query, 90, **more) for kind, query, more in asked * 2]
        return collections.Counter(job.result() for job in jobs)


def send_spans(one, trace_of, count, big=""):
    """Spans in requests of a thousand; `trace_of` gives the id of the trace of each."""
    now = time.time_ns()
    for first in range(0, count, 1000):
        def span(number):
            attributes = [{"key": "big", "value": {"stringValue": f"{number:08}{random.randbytes(len(big) // 2).hex()}"}}] if big else []
            at = {"startTimeUnixNano": str(now - 10**9), "endTimeUnixNano": str(now), "attributes": attributes}
            return {"traceId": trace_of(number), "spanId": f"{number + 1:016x}", "name": f"op {number % 7}", **at}
        spans_of = [span(number) for number in range(first, min(count, first + 1000))]
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans_of}]}]}).encode()
        answer = harness.http(one.otlp_http_url, data=body, method="POST", timeout=60, Content_Type="application/json")
        assert answer.status == 200, answer


def store(one):
    assert harness.http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    harness.eventually("the block is stored", lambda: list(Path(one.folder, "blocks").glob("*/*/meta.json")), seconds=60)


def long_values(one):
    """Values of an attribute of which each span has another, of 1,500 bytes, live and stored, forty at once."""
    trace_of = lambda number: f"{number + 1:032x}"  # noqa: E731
    send_spans(one, trace_of, 20_000, "x" * 1500)
    store(one)
    send_spans(one, trace_of, 5_000, "x" * 1500)
    url = f"{one.program.url}/api/v2/search/tag/span.big/values"
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        return outcomes(pool, lambda _: harness.http(url, timeout=90), range(40))


def large_look_ups(one):
    """A trace of 40,000 spans, live and stored, looked up by twenty at once."""
    trace_id = "77" * 16
    found = collections.Counter()
    send_spans(one, lambda _: trace_id, 40_000)
    for is_stored in [False, True]:
        if is_stored:
            store(one)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            found += outcomes(pool, lambda _: harness.http(f"{one.program.url}/api/traces/{trace_id}", timeout=90), range(20))
    return found


def memory(binary):
    """Hostile requests while the process is told that it has 512 MiB."""
    rows = []
    attacks = [
        ("200 requests that unpack to 19 MB of empty objects", gzip_bombs),
        ("40 gRPC messages of 14 MB on one connection", grpc_streams),
        ("30 chunked uploads of 18 MB that do not end", chunked_uploads),
        ("100 large answers that nobody reads", unread_answers),
        ("queries for a series or a result per span", wide_queries),
        ("values of 1,500 bytes, forty at once", long_values),
        ("a trace of 40,000 spans, looked up by twenty at once", large_look_ups),
    ]
    for name, attack in attacks:
        with Server(binary, LIMITS, memory_bytes=512 << 20) as one:
            fill(one, 10, 1000, 10)
            filled = peak_mib(one.program)
            found = attack(one)
            try:
                after, peak = send(one, template(1, 1)).status, peak_mib(one.program)
            except OSError as error:
                after, peak = type(error).__name__, peak_mib(one.program) if one.program.running() else "killed"
            rows.append([name, filled, peak, dict(found), after])
            print(f"  {name}: {peak}", flush=True)
    table("512 MiB: peak of resident memory", ["what", "before, MiB", "peak, MiB", "answers", "a request after it"], rows)


def tenants(binary, count=6000):
    """Thousands of tenants with a few spans each."""
    with Server(binary, "multitenancy_enabled: true\n" + LIMITS) as one:
        body = template(2, 5)
        before, began = cpu_seconds(one.program), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            post = lambda n: send(one, body.replace(MARK, random.randbytes(4)), X_Scope_OrgID=f"tenant-{n}")  # noqa: E731
            sent = collections.Counter(answer.status for answer in pool.map(post, range(count)))
        rows = [["receiving", f"{cpu_seconds(one.program) - before:.1f}", f"{time.monotonic() - began:.1f}", dict(sent)]]
        slow, stop = [], threading.Event()

        def look():
            while not stop.is_set():
                began = time.monotonic()
                try:
                    status = harness.http(f"{one.program.url}/api/search?q=%7B%7D", timeout=30, X_Scope_OrgID="tenant-7").status
                except OSError:
                    status = "no answer"
                slow.append((time.monotonic() - began, status))
                time.sleep(0.05)

        reader = threading.Thread(target=look)
        reader.start()
        before, began = cpu_seconds(one.program), time.monotonic()
        flushed = lambda: sum(1 for _ in Path(one.folder, "blocks").glob("*/*/meta.json")) >= count  # noqa: E731
        assert harness.http(f"{one.program.url}/flush", data=b"", method="POST", timeout=300).status == 204
        harness.eventually("all is flushed", flushed, 600, every=0.5)
        rows.append(["flushing", f"{cpu_seconds(one.program) - before:.1f}", f"{time.monotonic() - began:.1f}", ""])
        stop.set()
        reader.join()
        worst = max(slow)
        rows.append(["searches meanwhile", "", f"slowest {worst[0]:.2f}", dict(collections.Counter(status for _, status in slow))])
        one.program.stop(300)
        began = time.monotonic()
        one.program.start().wait_ready(300)
        rows.append(["start", f"{cpu_seconds(one.program):.1f}", f"{time.monotonic() - began:.1f}", ""])
        began = time.monotonic()
        status = harness.http(f"{one.program.url}/api/search?q=%7B%7D&start=1&end={int(time.time()) + 60}", timeout=60, X_Scope_OrgID="tenant-7").status
        rows.append(["first search after it", "", f"{time.monotonic() - began:.2f}", {status: 1}])
        before = cpu_seconds(one.program)
        time.sleep(20)
        rows.append(["20 s at rest", f"{cpu_seconds(one.program) - before:.1f}", "", ""])
    table(f"{count} tenants of ten spans", ["what", "CPU, s", "seconds", "answers"], rows)


def overload(binary, at_once=200):
    """Mixed queries at once over a million live spans, and a client that leaves."""
    queries = [
        ("search", "{ status = error }"), ("search", '{ span.user = "user-7" }'), ("search", "{ } >> { status = error }"),
        ("search", "{ status = error } | count() > 2"), ("query_range", "{ } | rate() by (name)"),
        ("query_range", "{ } | quantile_over_time(duration, .9)"), ("query_range", "{ } | count_over_time()"),
        ("query_range", "{ } | compare({ status = error })"),
    ]  # fmt: skip
    with Server(binary, LIMITS) as one:
        fill(one, 100, 1000, 10)
        rows = []
        before, began = cpu_seconds(one.program), time.monotonic()
        alone = collections.Counter(ask(one, *query, timeout=120) for query in queries)
        rows.append(["one after the other", len(queries), dict(alone), f"{time.monotonic() - began:.1f}", f"{cpu_seconds(one.program) - before:.1f}"])
        before, began = cpu_seconds(one.program), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            found = collections.Counter(pool.map(lambda n: ask(one, *queries[n % len(queries)], timeout=120), range(at_once)))
        rows.append(["at once", at_once, dict(found), f"{time.monotonic() - began:.1f}", f"{cpu_seconds(one.program) - before:.1f}"])
        for kind, query in [("query_range", "{ } | compare({ status = error })"), ("search", "{ } >> { span.user = `none` }")]:
            ask(one, kind, query, timeout=0.4)
            time.sleep(1)
            before = cpu_seconds(one.program)
            time.sleep(5)
            rows.append([f"5 s, begun a second after a client left: {query}", 1, "", "5.0", f"{cpu_seconds(one.program) - before:.1f}"])
        rows.append(["peak of resident memory, MiB", "", "", "", peak_mib(one.program)])
    table("A million live spans", ["queries", "number", "answers", "seconds", "CPU, s"], rows)


def main():
    parts = {"split": split, "memory": memory, "tenants": tenants, "overload": overload}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, help="a built vivace; the debug build of this clone when left out")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; all when left out")
    arguments = parser.parse_args()
    for name in arguments.parts or parts:
        if name not in parts:
            parser.error(f"there is no part {name!r}")
    for name in arguments.parts or parts:
        parts[name](arguments.binary and arguments.binary.resolve())


if __name__ == "__main__":
    main()
