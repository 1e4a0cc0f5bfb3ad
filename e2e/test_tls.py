"""TLS with certificates of one's own, as the command line meets it."""

import subprocess

import harness
import pytest


@pytest.fixture
def certificates(tmp_path):
    """Files of an authority `ca` and of `own`, which it signed for 127.0.0.1."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    openssl("req", *new_key, "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=vivace")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "own.csr", *signed, "-days", "2", "-out", "own.pem")
    return tmp_path


def test_the_command_line_trusts_and_shows_certificates(certificates, programs):
    files = {name: certificates / name for name in ("ca.pem", "own.pem", "own.key")}
    pair = f"cert_file: {files['own.pem']}, key_file: {files['own.key']}, client_ca_file: {files['ca.pem']}"
    config = f"""
server:
  http_listen_address: 127.0.0.1
  http_listen_port: @HTTP
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: @GRPC
  http_tls_config: {{{pair}, client_auth_type: RequireAndVerifyClientCert}}
distributor:
  receivers:
    otlp:
      protocols:
        grpc: {{endpoint: "127.0.0.1:@OTLP_GRPC", tls: {{{pair}}}}}
        http: {{endpoint: "127.0.0.1:@OTLP_HTTP", tls: {{{pair}}}}}
storage: {{trace: {{backend: local, local: {{path: {certificates}/blocks}}, wal: {{path: {certificates}/wal}}}}}}
"""
    one = harness.AllInOne(certificates, config)
    programs.append(one.program.start())
    ca, own = ["--ca-file", files["ca.pem"]], ["--cert-file", files["own.pem"], "--key-file", files["own.key"]]
    url = one.program.url.replace("http:", "https:")

    def cli(*arguments, **environment):
        command = [harness.binaries() / "vivace-cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)

    def ready():
        return cli("check", "ready", "--url", url, *ca, *own).returncode == 0

    harness.eventually("it is ready", ready)
    for write in (f"grpcs://127.0.0.1:{one.otlp_grpc}", f"https://127.0.0.1:{one.otlp_http}"):
        there_and_back = ["check", "round-trip", "--write", write, "--read", url]
        by_option = cli(*there_and_back, *ca, *own)
        assert by_option.returncode == 0, by_option
        by_environment = cli(*there_and_back, *own, SSL_CERT_FILE=str(files["ca.pem"]))
        assert by_environment.returncode == 0, by_environment
    asked = cli("query", "--address", url, *ca, *own, "search", "{ }")
    assert asked.returncode == 0 and "round-trip" in asked.stdout, asked
    nobody = cli("query", "--address", url, *ca, "search", "{ }")
    assert nobody.returncode == 1 and "CertificateRequired" in nobody.stderr, nobody
    stranger = cli("query", "--address", url, *own, "search", "{ }")
    assert stranger.returncode == 1 and "UnknownIssuer" in stranger.stderr, stranger
    half = cli("query", "--address", url, "--cert-file", files["own.pem"], "search", "{ }")
    assert half.returncode == 1 and "both --cert-file and --key-file" in half.stderr, half
    missing = cli("query", "--address", url, "--ca-file", "/none", "search", "{ }")
    assert missing.returncode == 1 and "--ca-file: cannot read /none" in missing.stderr, missing
