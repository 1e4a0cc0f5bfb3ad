"""OpenTelemetry's JavaScript, in Node.js and in a browser's page: its spans come back attribute by attribute."""

import http.server
import subprocess
import threading

import pytest

import harness
import tools
from harness import eventually
from stored import both, checked_family

PAGE = b'<!doctype html><meta charset="utf-8"><title>page</title><script type="module" src="/browser.js"></script>'
OF_RESOURCE = {"service.name": "shop", "deployment.environment": "e2e"}
ATTRIBUTES = {"order.number": 7, "order.total": 1.5, "vip": True, "customer": "Zoë"}


class Shop(harness.AllInOne):
    """The single binary with receivers of Jaeger's and Zipkin's, whose OTLP is open to pages of one origin."""

    def __init__(self, folder, origin="http://localhost:1"):
        super().__init__(folder)
        self.thrift, self.zipkin = harness.free_ports(2)
        file = self.folder / "vivace.yaml"
        config = file.read_text()
        endpoint = f'"127.0.0.1:{self.otlp_http}"'
        cors = f'cors: {{allowed_origins: ["{origin}"], allowed_headers: [x-application]}}'
        config = config.replace(f"{{endpoint: {endpoint}}}", f"{{endpoint: {endpoint}, {cors}}}")
        others = f"""  receivers:
    jaeger: {{protocols: {{thrift_http: {{endpoint: "127.0.0.1:{self.thrift}"}}}}}}
    zipkin: {{endpoint: "127.0.0.1:{self.zipkin}"}}
"""
        file.write_text(config.replace("  receivers:\n", others))


def in_node(shop, exporter, url, *compression):
    """Sends; both spans, once they are stored."""
    command = ["node", tools.javascript() / "node.mjs", exporter, url, *compression]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return checked_family(eventually(f"both spans of {exporter}", lambda: both(shop.query, done.stdout.strip())))


def require_otlp(root, child, language):
    assert root["resource"] == child["resource"]
    resource = dict(root["resource"])
    assert resource.pop("telemetry.sdk.name") == "opentelemetry" and resource.pop("telemetry.sdk.version")
    assert resource == {**OF_RESOURCE, "telemetry.sdk.language": language}
    assert root["scope"] == child["scope"] == ("orders", "1.0")
    assert (root["kind"], root["attributes"], root["status"]) == ("SERVER", {**ATTRIBUTES, "items": ["a", "b"]}, ("UNSET", ""))
    assert (child["kind"], child["attributes"], child["status"]) == ("CLIENT", {}, ("ERROR", "card declined"))
    assert child["events"] == [("retry", {"attempt": "2"})]
    assert root["links"] == [{"why": "retry"}] and child["links"] == []


@pytest.fixture
def shop(tmp_path, programs):
    shop = Shop(tmp_path)
    programs.append(shop.program)
    return shop.start()


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("exporter", ["otlp-grpc", "otlp-proto", "otlp-json"])
def test_node_with_otlp(shop, exporter, compression):
    url = f"http://127.0.0.1:{shop.otlp_grpc}" if exporter == "otlp-grpc" else shop.otlp_http_url
    root, child = in_node(shop, exporter, url, compression)
    require_otlp(root, child, "nodejs")


def test_node_with_jaegers_exporter(shop):
    root, child = in_node(shop, "jaeger", f"http://127.0.0.1:{shop.thrift}/api/traces")
    # The exporter writes what the resource says at each span.
    assert root["resource"]["service.name"] == "shop" and root["attributes"]["deployment.environment"] == "e2e"
    assert {name: root["attributes"].get(name) for name in ATTRIBUTES} == ATTRIBUTES
    assert (root["kind"], child["kind"], child["status"]) == ("SERVER", "CLIENT", ("ERROR", "card declined"))
    assert child["events"] == [("retry", {"attempt": "2"})]


def test_node_with_zipkins_exporter(shop):
    root, child = in_node(shop, "zipkin", f"http://127.0.0.1:{shop.zipkin}/api/v2/spans")
    assert root["resource"]["service.name"] == "shop"
    assert {name: root["attributes"][name] for name in ATTRIBUTES} == {
        "order.number": "7",
        "order.total": "1.5",
        "vip": "true",
        "customer": "Zoë",
    }
    assert (root["kind"], child["kind"], child["status"]) == ("SERVER", "CLIENT", ("ERROR", "card declined"))


class Site(http.server.ThreadingHTTPServer):
    """A page of its own origin, which reports the ids of the traces that it sent."""

    def __init__(self):
        self.sent = []
        super().__init__(("127.0.0.1", 0), Pages)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def origin(self):
        return f"http://localhost:{self.server_port}"


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        script = self.path == "/browser.js"
        body = (tools.javascript() / "node_modules" / ".bundle" / "browser.js").read_bytes() if script else PAGE
        self.send_response(200)
        self.send_header("content-type", "text/javascript" if script else "text/html")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.server.sent.append(self.rfile.read(int(self.headers["content-length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("is_allowed", [True, False], ids=["allowed", "another"])
def test_a_page_of_another_origin(tmp_path, programs, is_allowed):
    """The browser asks first, and sends where it may."""
    with Site() as site:
        shop = Shop(tmp_path, site.origin if is_allowed else "https://another.example")
        programs.append(shop.program)
        shop.start()
        page = f"{site.origin}/?to={shop.otlp_http_url}"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path}/browser"]
        browser = harness.Program("browser", [tools.chromium(), *options, page], tmp_path)
        programs.append(browser.start())
        (trace_id,) = eventually("the page has sent", lambda: site.sent)
        if is_allowed:
            require_otlp(*checked_family(eventually("both spans", lambda: both(shop.query, trace_id))), "webjs")
        else:
            assert shop.query.get(f"/api/v2/traces/{trace_id}").json()["trace"] == {}
