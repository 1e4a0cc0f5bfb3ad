"""What a process makes of its configuration: what it refuses, what it ignores with a word, and how it stops."""

import http.server
import subprocess
import threading
import time

import harness
import pytest
from harness import eventually

import spans


def vivace(folder, config, *arguments):
    file = folder / "tempo.yaml"
    file.write_text(config)
    command = [harness.binaries() / "vivace", *arguments, f"-config.file={file}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=30)


STORE = "storage: {trace: {backend: local, local: {path: ./b}, wal: {path: ./w}}}\n"
REFUSED = {
    "grpc-tls": ("server:\n  grpc_tls_config: {cert_file: /c, key_file: /k}\n", "line 2: server.grpc_tls_config: is not supported yet"),
    "server-tls": ("server:\n  http_tls_config: {cert_file: /c, key_file: /k}\n", "server.http_tls_config.cert_file: cannot read \"/c\""),
    "receiver-tls": (
        "distributor: {receivers: {otlp: {protocols: {grpc: {\n  tls: {cert_file: /c, key_file: /k}}}}}}\n",
        'distributor.receivers.otlp.protocols.grpc.tls.cert_file: cannot read "/c"',
    ),
    "memberlist-tls": ("memberlist:\n  tls_enabled: true\n", "line 2: memberlist.tls_enabled: is not supported yet"),
    "prefix": ("\nhttp_api_prefix: tempo\n", "line 2: http_api_prefix: expected a path that starts with /"),
    "nothing-received": (
        "distributor:\n  receivers: {opencensus: {endpoint: '127.0.0.1:55678'}}\n",
        "line 2: distributor.receivers: names only receivers that Vivace does not have",
    ),
}


@pytest.mark.parametrize(("config", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_start_and_its_rehearsal_refuse_the_same(tmp_path, config, reason):
    for arguments in ([], ["-config.verify=true"]):
        ended = vivace(tmp_path, config + STORE, *arguments)
        assert ended.returncode == 1 and reason in ended.stderr, ended
    assert not (tmp_path / "w").exists(), "nothing was started"


def test_a_file_of_limits_is_verified_too(tmp_path):
    limits = tmp_path / "overrides.yaml"
    config = f"overrides: {{per_tenant_override_config: {limits}}}\n{STORE}"
    missing = vivace(tmp_path, config, "-config.verify=true")
    assert missing.returncode == 0 and "is not there: a start would fail" in missing.stdout, missing
    limits.write_text("overrides: {a: {ingestion: {rate_limit_byts: 1}}}")
    wrong = vivace(tmp_path, config, "-config.verify=true")
    assert wrong.returncode == 1 and "did you mean rate_limit_bytes?" in wrong.stderr, wrong
    limits.write_text("overrides: {a: {ingestion: {rate_limit_bytes: 1}}}")
    assert vivace(tmp_path, config, "-config.verify=true").returncode == 0


def test_a_stray_argument_is_ignored(tmp_path):
    ended = vivace(tmp_path, STORE, "/tempo", "-config.verify=true")
    assert ended.returncode == 0 and 'argument "/tempo" is ignored' in ended.stdout, ended


def test_metrics_that_nobody_takes_do_not_hold_up_a_stop(tmp_path, programs):
    """The ingester's blocks go to the bucket first, and within the ten seconds that Docker gives."""
    all_in_one = harness.AllInOne(tmp_path)
    (dead,) = harness.free_ports(1)
    all_in_one.with_config(f"""
ingester: {{flush_all_on_shutdown: true}}
metrics_generator: {{storage: {{path: {tmp_path}/generator, remote_write: [{{url: "http://127.0.0.1:{dead}/api/v1/write"}}]}}}}
overrides: {{defaults: {{metrics_generator: {{processors: [span-metrics]}}}}}}
""")
    programs.append(all_in_one.program)
    all_in_one.start()
    sdk = spans.Sdk("stopped", grpc=f"127.0.0.1:{all_in_one.otlp_grpc}")
    sdk.order(1)
    sdk.close()
    eventually("spans reach the generator", lambda: all_in_one.program.metric("tempo_metrics_generator_spans_received_total") > 0)
    begun = time.monotonic()
    assert all_in_one.program.stop() == 0, all_in_one.program.tail()
    took = time.monotonic() - begun
    assert took < 10, f"{took:.1f} s"
    said = all_in_one.program.output()
    assert said.index("part=ingester") < said.index("part=metrics-generator") < said.index("no receiver takes the last metrics"), said
    assert list((tmp_path / "blocks" / "single-tenant").glob("*/meta.json")), "the block was written"


UNSHARE = ["unshare", "--uts", "sh", "-c"]


@pytest.mark.skipif(
    subprocess.run([*UNSHARE, "hostname generator-b"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="only root may give a process another host name",
)
def test_metrics_of_two_hosts_are_two_series(tmp_path, programs):
    """Without a configured name, series carry the host's: else one generator overwrites the other's."""
    bodies = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        all_in_one = harness.AllInOne(tmp_path)
        all_in_one.with_config(f"""
metrics_generator:
  registry: {{collection_interval: 1s, external_labels: {{cluster: ""}}}}
  storage: {{path: {tmp_path}/generator, remote_write: [{{url: "http://127.0.0.1:{receiver.server_port}/api/v1/write"}}]}}
overrides: {{defaults: {{metrics_generator: {{processors: [span-metrics]}}}}}}
""")
        arguments = " ".join(all_in_one.program.arguments)
        all_in_one.program.arguments = [*UNSHARE, f"hostname generator-b && exec {arguments}"]
        programs.append(all_in_one.program)
        all_in_one.start()
        sdk = spans.Sdk("named", grpc=f"127.0.0.1:{all_in_one.otlp_grpc}")
        sdk.order(1)
        sdk.close()
        # Snappy keeps the first of equal texts as it is.
        eventually("metrics arrive", lambda: any(b"__metrics_gen_instance" in body for body in bodies))
        receiver.shutdown()
    series = [body for body in bodies if b"__name__" in body]  # the others tell what kind of metrics there are
    assert series and all(b"generator-b" in body and b"cluster" not in body for body in series)


def test_a_health_check_needs_no_shell(tmp_path, programs):
    all_in_one = harness.AllInOne(tmp_path)

    def check():
        command = [harness.binaries() / "vivace-cli", "check", "ready", "--url", all_in_one.program.url]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check().returncode == 1
    programs.append(all_in_one.program)
    all_in_one.start()
    ready = check()
    assert ready.returncode == 0 and ready.stdout == f"{all_in_one.program.url} is ready\n", ready
