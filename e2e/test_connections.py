"""Connections: a thousand that idle or drip stop nobody, however few files a process may open."""

import socket
import time

import spans
from harness import eventually, http

FILES = 1024


def few_files(one, kind):
    """`kind`: S is the soft limit, which a process may raise, and H the hard one, which it may not."""
    limit = f"ulimit -S -n {FILES}" if kind == "S" else f"ulimit -n {FILES}"
    one.program.arguments = ["bash", "-c", f'{limit} && exec "$0" "$@"', *one.program.arguments]
    return one


def idle(port, count, first=b""):
    """Connections that send no more than this."""
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.connect(("127.0.0.1", port))
        if first:
            client.sendall(first)
        clients.append(client)
    return clients


def write_and_read(one):
    message, (trace_id,) = spans.request()
    answer = http(one.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf", timeout=5)
    assert answer.status == 200, answer
    sdk = spans.Sdk("connections", grpc=f"127.0.0.1:{one.otlp_grpc}")
    try:
        sdk.order(1)
        assert sdk.exporter.failed == 0
    finally:
        sdk.close()
    assert len(one.query.trace(trace_id)) == 3


def test_idle_connections_on_every_port(all_in_one):
    one = few_files(all_in_one, "S").start()
    clients = [client for port in (one.http, one.grpc, one.otlp_grpc, one.otlp_http) for client in idle(port, 1000)]
    write_and_read(one)
    assert one.program.metric("process_max_fds") > FILES, "the soft limit is raised"
    for client in clients:
        client.close()


def test_idle_connections_where_few_files_may_be_open(all_in_one):
    one = few_files(all_in_one, "H").with_config("ingester: {flush_check_period: 1s, max_block_duration: 3s, trace_idle_period: 1s}")
    one.start()
    clients = []
    for port in (one.otlp_http, one.otlp_grpc, one.grpc, one.http):
        try:
            clients += idle(port, 1000, b"POST /v1/traces HTTP/1.1\r\nhost: a" if port != one.grpc else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        except OSError:
            pass  # cut already, to make room
        for _ in range(5):
            write_and_read(one)
    # The log, blocks and the bucket still find descriptors.
    eventually("a block is flushed", lambda: one.program.metric("tempo_ingester_blocks_flushed_total") > 0, 60)
    write_and_read(one)
    one.program.require_running()
    assert one.program.metric("process_open_fds") < FILES
    assert "Too many open files" not in one.program.output()
    for client in clients:
        client.close()


def test_who_drips_is_cut(all_in_one):
    one = all_in_one
    port = one.otlp_http
    file = one.folder / "vivace.yaml"
    file.write_text(
        one.default_config().replace(
            f'http: {{endpoint: "127.0.0.1:{port}"}}',
            f'http: {{endpoint: "127.0.0.1:{port}", read_header_timeout: 1s, read_timeout: 2s, idle_timeout: 3s}}',
        )
    )
    one.start()
    assert "without effect" not in one.program.output()
    head = b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n"
    for what, first, drop, seconds in [
        ("a head", b"POST /v1/tra", b"x", 1),
        ("a body", head + b"content-type: application/x-protobuf\r\ncontent-length: 100000\r\n\r\n", b"x", 2),
        ("nothing", b"", b"", 1),
    ]:
        (client,) = idle(port, 1, first)
        began = time.monotonic()
        client.settimeout(0.2)
        while time.monotonic() - began < 20:
            try:
                if drop:
                    client.sendall(drop)
                if client.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        took = time.monotonic() - began
        assert seconds * 0.8 < took < seconds + 4, f"{what}: {took:.1f} s"
    write_and_read(one)
