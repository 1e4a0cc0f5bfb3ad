"""More queries than there is room for: what is begun is finished, the rest is told early when to come back, and nobody works for a
client that has left."""

import os
import socket
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import spans
from harness import eventually, http

SPANS = int(os.environ.get("OVERLOAD_SPANS", "20000"))
AT_ONCE = 200

QUERIES = [
    "/api/search?" + urllib.parse.urlencode({"q": '{ name = "span 3" }'}),
    "/api/search?" + urllib.parse.urlencode({"q": '{ span.n > 5 } >> { name = "span 9" }', "limit": 100}),
    "/api/metrics/query_range?" + urllib.parse.urlencode({"q": "{} | rate() by (resource.service.name)"}),
    "/api/metrics/query_range?" + urllib.parse.urlencode({"q": "{ duration > 1ms } | quantile_over_time(duration, .9) by (name)"}),
    "/api/v2/search/tags",
    "/api/v2/search/tag/span.n/values",
]
COMPARE = "/api/metrics/query_range?" + urllib.parse.urlencode({"q": '{} | compare({ name = "span 3" })'})


def send(one, count):
    per_request = 200
    for number in range(count // (10 * per_request)):
        message, _ = spans.request(f"service {number % 7}", traces=per_request, spans=10, attributes={"n": number, "kind of": "a" * 20})
        headers = {"content_type": "application/x-protobuf"}
        answer = http(one.otlp_http_url, data=message.SerializeToString(), timeout=60, **headers)
        assert answer.status == 200, answer


def running_threads(one):
    """Threads that run or would like to: however busy the machine is with other things."""
    running = 0
    for task in Path(f"/proc/{one.program.process.pid}/task").iterdir():
        try:
            running += (task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "R"
        except OSError:  # it has just ended
            pass
    return running


def cpu_seconds(one):
    fields = Path(f"/proc/{one.program.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_idle(one):
    samples = []
    for _ in range(10):
        samples.append(running_threads(one))
        time.sleep(0.025)
    return sum(sample > 0 for sample in samples) <= 2


def test_two_hundred_queries_at_once(all_in_one):
    one = all_in_one.start()
    send(one, SPANS)
    begun = time.monotonic()
    for path in QUERIES:
        answer = http(one.program.url + path, timeout=120)
        assert answer.status == 200, answer
    sequential = len(QUERIES) / (time.monotonic() - begun)

    def ask(number):
        return http(one.program.url + QUERIES[number % len(QUERIES)], timeout=300)

    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    took = time.monotonic() - begun
    statuses = Counter(answer.status for answer in answers)
    print(f"{SPANS} spans, {AT_ONCE} queries at once: {dict(statuses)} in {took:.1f} s; one after the other {sequential:.1f} a second")
    assert set(statuses) <= {200, 429, 503}, [answer for answer in answers if answer.status not in (200, 429, 503)][:3]
    for answer in answers:
        assert answer.status == 200 or 1 <= int(answer.headers["Retry-After"]) <= 60, answer
    assert statuses[200] > 0, "what was begun is finished"
    eventually("it is idle again", lambda: is_idle(one), 10)
    assert http(one.program.url + QUERIES[0], timeout=60).status == 200


def test_nobody_works_for_a_client_that_has_left(all_in_one):
    one = all_in_one.start()
    send(one, SPANS)
    host, port = urllib.parse.urlparse(one.program.url).netloc.split(":")
    for path in [COMPARE, *QUERIES]:
        eventually("it is idle", lambda: is_idle(one), 30)
        clients = [socket.create_connection((host, int(port))) for _ in range(4)]
        for client in clients:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        time.sleep(0.4)
        for client in clients:
            client.close()
        left, worked = time.monotonic(), cpu_seconds(one)
        eventually(f"it is idle after the clients of {path} have left", lambda: is_idle(one), 30)
        idle_after, worked = time.monotonic() - left, cpu_seconds(one) - worked
        print(f"{path}: idle {idle_after:.2f} s and {worked:.2f} CPU-seconds after the clients left")
        # The machine may be busy with other things.
        assert idle_after < 1.5 or worked < os.cpu_count(), f"{path}: {idle_after:.1f} s, {worked:.1f} CPU-seconds"
