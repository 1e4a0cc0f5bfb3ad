"""OpenTelemetry's agent for Java, over both of its protocols."""

import subprocess

import pytest

import harness
import tools
from harness import eventually


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_java_agent(tmp_path, programs, protocol):
    """An application without a word of tracing: its call and the call's other side are one trace."""
    one = harness.AllInOne(tmp_path)
    programs.append(one.program)
    one.start()
    port = one.otlp_grpc if protocol == "grpc" else one.otlp_http
    options = {
        "service.name": "shop",
        "exporter.otlp.protocol": protocol,
        "exporter.otlp.endpoint": f"http://127.0.0.1:{port}",
        "metrics.exporter": "none",
        "logs.exporter": "none",
    }
    settings = [f"-Dotel.{key}={value}" for key, value in options.items()]
    agent = tools.java_agent()
    subprocess.run(["javac", "-d", tmp_path, harness.ROOT / "e2e" / "java" / "Shop.java"], check=True)
    command = ["java", f"-javaagent:{agent}", *settings, "-cp", tmp_path, "Shop"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "200", done
    query = '{ name = "GET /item" && kind = server && span.http.response.status_code = 200 }'
    found = eventually("the server's span is there", lambda: one.query.found(query))
    assert len(found) == 1
    assert one.query.found('{ resource.service.name = "shop" && name = "GET" && kind = client } > { name = "GET /item" }') == found
    assert sorted(one.query.trace(found.pop()).values()) == ["GET", "GET /item"]
    assert one.query.values("resource.telemetry.sdk.language") == {"java"}
