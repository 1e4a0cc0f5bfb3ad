"""Clients of Jaeger and Zipkin that applications have: each sends a trace, which comes back attribute by attribute."""

import socket
import subprocess

import pytest

import harness
import tools
from harness import eventually, http
from stored import both, checked_family

CLIENT = harness.ROOT / "e2e" / "old_clients.py"


class Neighbours(harness.AllInOne):
    """The single binary with every receiver of Jaeger's and Zipkin's."""

    def __init__(self, folder):
        super().__init__(folder)
        self.compact, self.binary, self.thrift, self.jaeger_grpc, self.zipkin = harness.free_ports(5)
        config = self.folder / "vivace.yaml"
        receivers = f"""  receivers:
    jaeger:
      protocols:
        grpc: {{endpoint: "127.0.0.1:{self.jaeger_grpc}"}}
        thrift_http: {{endpoint: "127.0.0.1:{self.thrift}"}}
        thrift_compact: {{endpoint: "127.0.0.1:{self.compact}"}}
        thrift_binary: {{endpoint: "127.0.0.1:{self.binary}"}}
    zipkin: {{endpoint: "127.0.0.1:{self.zipkin}"}}
"""
        config.write_text(config.read_text().replace("  receivers:\n", receivers))

    def send(self, client, port):
        """Sends through a client; what is stored then, once it is all there."""
        command = [tools.venv_python(tools.OLD_CLIENTS), CLIENT, client, "127.0.0.1", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        trace_id = done.stdout.strip()
        return eventually(f"both spans of {client}", lambda: both(self.query, trace_id))



@pytest.fixture
def neighbours(tmp_path, programs):
    one = Neighbours(tmp_path)
    programs.append(one.program)
    return one.start()


OF_SDK = {"telemetry.sdk.language": "python", "telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": "1.10.0"}
OF_RESOURCE = {**OF_SDK, "service.name": "shop", "deployment.environment": "e2e"}


@pytest.mark.parametrize("client", ["jaeger-compact", "jaeger-http", "jaeger-grpc"])
def test_opentelemetry_with_jaegers_exporters(neighbours, client):
    """The exporters write what the resource says at each span; that over gRPC, at the process too."""
    port = {"jaeger-compact": neighbours.compact, "jaeger-http": neighbours.thrift, "jaeger-grpc": neighbours.jaeger_grpc}[client]
    root, child = checked_family(neighbours.send(client, port))
    resource = OF_RESOURCE if client == "jaeger-grpc" else {"service.name": "shop"}
    assert root["resource"] == child["resource"] == resource
    assert root["scope"] == child["scope"] == ("orders", "1.0")
    assert root["kind"] == "SERVER" and child["kind"] == "CLIENT"
    assert root["attributes"] == {"order.number": 7, "order.total": 1.5, "vip": True, "customer": "Zoë", **OF_RESOURCE}
    assert child["attributes"] == OF_RESOURCE
    assert root["status"] == ("UNSET", "") and child["status"] == ("ERROR", "card declined")
    assert child["events"] == [("retry", {"attempt": "2"})]
    assert root["links"] == [{"opentracing.ref_type": "follows_from"}] and child["links"] == []


@pytest.mark.parametrize("client", ["zipkin-json", "zipkin-json-v1", "zipkin-proto"])
def test_opentelemetry_with_zipkins_exporters(neighbours, client):
    """Zipkin knows texts alone, and no attributes of events, which the exporter writes as JSON."""
    root, child = checked_family(neighbours.send(client, neighbours.zipkin))
    assert root["resource"] == child["resource"] == OF_RESOURCE
    assert root["scope"] == child["scope"] == ("orders", "1.0")
    # The exporter writes no kind in version 1.
    kinds = ("UNSPECIFIED", "UNSPECIFIED") if client == "zipkin-json-v1" else ("SERVER", "CLIENT")
    assert (root["kind"], child["kind"]) == kinds
    assert root["attributes"] == {"order.number": "7", "order.total": "1.5", "vip": "true", "customer": "Zoë"}
    assert child["attributes"] == {}
    assert root["status"] == ("UNSET", "") and child["status"] == ("ERROR", "card declined")
    assert child["events"] == [('{"retry": {"attempt": "2"}}', {})]


def test_jaegers_own_client(neighbours):
    root, child = checked_family(neighbours.send("jaeger-client", neighbours.compact))
    resource = root["resource"]
    assert resource == child["resource"]
    assert resource.pop("host.name") and resource.pop("ip")
    assert resource == {"service.name": "shop", "region": "eu", "opencensus.exporterversion": "Jaeger-Python-4.8.0"}
    sampler = {"sampler.type": "const", "sampler.param": True}
    assert (root["kind"], root["attributes"]) == ("SERVER", {"order.number": 7, "order.total": 1.5, "vip": True, **sampler})
    assert (child["kind"], child["attributes"], child["status"]) == ("CLIENT", {}, ("ERROR", ""))
    assert child["events"] == [("retry", {"attempt": 2})]
    assert root["links"] == child["links"] == []


@pytest.mark.parametrize("client", ["py-zipkin-json", "py-zipkin-json-v1", "py-zipkin-proto"])
def test_py_zipkin(neighbours, client):
    root, child = checked_family(neighbours.send(client, neighbours.zipkin))
    assert root["resource"] == child["resource"] == {"service.name": "shop"}
    host = {"net.host.ip": "10.0.0.1", "net.host.port": 8080}
    peer = {"peer.service": "bank", "net.peer.ip": "10.0.0.2", "net.peer.port": 443}
    assert (root["kind"], root["attributes"], root["status"]) == ("SERVER", {"order.number": "7", **host}, ("UNSET", ""))
    assert (child["kind"], child["attributes"]) == ("CLIENT", {"error": "card declined", **host, **peer})
    assert child["status"] == ("ERROR", "card declined")
    assert child["events"] == [("retry", {})]


def test_nonsense_on_every_port_hurts_nobody(neighbours):
    """What is broken is refused or counted, and the next one is stored."""
    before = neighbours.program.rss_bytes()
    noise = bytes(range(256)) * 8
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        for port in (neighbours.compact, neighbours.binary):
            for packet in (noise, b"", b"\x82\x81\x01\x09emitBatch\x1c", b"x" * 65_500):
                udp.sendto(packet, ("127.0.0.1", port))
    posts = [
        (neighbours.thrift, "/api/traces", "application/x-thrift"),
        (neighbours.zipkin, "/api/v2/spans", "application/json"),
        (neighbours.zipkin, "/api/v2/spans", "application/x-protobuf"),
        (neighbours.zipkin, "/api/v1/spans", "application/json"),
        (neighbours.zipkin, "/api/v1/spans", "application/x-thrift"),
    ]
    # A list of 2^31 - 1 structs, in thrift.
    for body in (noise, b"\x0c\x7f\xff\xff\xff", b"\x0f\x00\x02\x0c\x7f\xff\xff\xff", b"[" * 100_000):
        for port, path, kind in posts:
            answer = http(f"http://127.0.0.1:{port}{path}", data=body, content_type=kind)
            assert answer.status == 400 and answer.body, (path, kind, answer)
    assert http(f"http://127.0.0.1:{neighbours.thrift}/api/traces", data=noise, content_type="text/plain").status == 400
    for port, path, kind in posts:
        with socket.create_connection(("127.0.0.1", port)) as tcp:
            head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: {kind}\r\nContent-Length: {100 << 20}\r\n\r\n"
            tcp.sendall(head.encode())
            assert tcp.recv(12) == b"HTTP/1.1 413"
    with socket.create_connection(("127.0.0.1", neighbours.jaeger_grpc)) as tcp:
        tcp.sendall(noise)

    def counted(transport):
        return neighbours.program.metric("vivace_receiver_packets_dropped_total", transport=transport)

    eventually("every broken packet is counted", lambda: counted("udp_thrift_compact") == counted("udp_thrift_binary") == 4)
    assert neighbours.program.rss_bytes() - before < 200 << 20
    for client, port in [("jaeger-compact", neighbours.compact), ("jaeger-grpc", neighbours.jaeger_grpc), ("zipkin-json", neighbours.zipkin)]:
        checked_family(neighbours.send(client, port))
