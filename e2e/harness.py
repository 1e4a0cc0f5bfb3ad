"""Starts and stops real processes for the tests: Vivace's own, MinIO, Prometheus. Everything on loopback, each process ended by its id."""

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import tools  # noqa: E402

SERVICES = ["distributor", "ingester", "querier", "query-frontend", "compactor", "metrics-generator"]


def binaries():
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return Path(json.loads(metadata.stdout)["target_directory"]) / "debug"


GIVEN_PORTS = set()


def free_ports(count):
    """Distinct ports that nobody uses now. Below those from which outgoing connections come: one of these would take the place
    before a program listens there."""
    ports = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        if port not in GIVEN_PORTS and is_free(port):
            GIVEN_PORTS.add(port)
            ports.append(port)
    return ports


def is_free(port):
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def in_use(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Ended(Exception):
    """A program ended that should run: nothing is worth waiting for."""


def eventually(what, condition, seconds=30, every=0.1):
    """Waits until condition() is true and returns it. Says what was last seen when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = condition()
        except (AssertionError, OSError) as error:
            seen, last = None, error
        else:
            last = seen
            if seen:
                return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s; last seen: {last!r}")
        time.sleep(every)


class Answer:
    def __init__(self, status, body, headers):
        self.status, self.body, self.headers = status, body, headers

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:400]!r}>"


def http(url, data=None, method=None, timeout=30, **headers):
    request = urllib.request.Request(url, data=data, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.read(), answer.headers)
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(), error.headers)


class Program:
    """One process with its log. Killed at the end of the test at the latest."""

    def __init__(self, name, arguments, folder, environment=None):
        self.name, self.arguments, self.folder = name, [str(a) for a in arguments], Path(folder)
        self.environment = {**os.environ, **(environment or {})}
        self.log = self.folder / f"{name}.log"
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def require_running(self):
        if not self.running():
            raise Ended(f"{self.name} ended with status {self.process.returncode}:\n{self.tail()}")

    def kill(self):
        """kill -9"""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=60):
        if not self.running():
            return self.process and self.process.returncode
        self.process.terminate()
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {seconds} s:\n{self.tail()}") from None

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines=25):
        return "\n".join(self.output().splitlines()[-lines:])

    def rss_bytes(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0


class Vivace(Program):
    """One of Vivace's own processes."""

    def __init__(self, name, arguments, folder, http_port, environment=None):
        super().__init__(name, arguments, folder, environment)
        self.url = f"http://127.0.0.1:{http_port}"

    def wait_ready(self, seconds=60):
        def ready():
            self.require_running()
            answer = http(f"{self.url}/ready")
            return answer if answer.status == 200 else None

        try:
            eventually(f"{self.name} is ready", ready, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        return self

    def metrics(self):
        return http(f"{self.url}/metrics").body.decode()

    def metric(self, name, /, **labels):
        """Sum of the samples of a metric whose labels include the given ones."""
        total = 0.0
        for line in self.metrics().splitlines():
            match = re.match(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", line)
            if match and match[1] == name and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items()):
                total += float(match[3])
        return total


class Query:
    """The query API at one address."""

    def __init__(self, url, **headers):
        self.url, self.headers = url.rstrip("/"), headers

    def get(self, path, **parameters):
        query = urllib.parse.urlencode({k: v for k, v in parameters.items() if v is not None})
        return http(f"{self.url}{path}" + (f"?{query}" if query else ""), **self.headers)

    def search(self, q, **parameters):
        answer = self.get("/api/search", q=q, **{"limit": 1000, **parameters})
        assert answer.status == 200, answer
        return answer.json()["traces"]

    def found(self, q, **parameters):
        """Ids of the traces found, padded."""
        return {trace["traceID"].rjust(32, "0") for trace in self.search(q, **parameters)}

    def trace(self, trace_id):
        """Spans of a trace by id: {span id: name}."""
        answer = self.get(f"/api/v2/traces/{trace_id}")
        assert answer.status == 200, answer
        trace = answer.json().get("trace", {})
        return {
            span["spanId"]: span["name"]
            for resource in trace.get("resourceSpans", [])
            for scope in resource.get("scopeSpans", [])
            for span in scope["spans"]
        }

    def values(self, tag, **parameters):
        answer = self.get(f"/api/v2/search/tag/{tag}/values", **parameters)
        assert answer.status == 200, answer
        return {value["value"] for value in answer.json()["tagValues"]}


class Minio(Program):
    ACCESS_KEY, SECRET_KEY = "vivace-test", "vivace-test-secret"

    def __init__(self, folder):
        port, console = free_ports(2)
        self.endpoint = f"127.0.0.1:{port}"
        data = Path(folder) / "minio"
        data.mkdir(parents=True, exist_ok=True)
        super().__init__(
            "minio",
            [tools.go_tool("minio"), "server", "--address", self.endpoint, "--console-address", f"127.0.0.1:{console}", data],
            folder,
            {"MINIO_ROOT_USER": self.ACCESS_KEY, "MINIO_ROOT_PASSWORD": self.SECRET_KEY, "MINIO_UPDATE": "off", "MINIO_CI_CD": "1"},
        )

    def client(self):
        import minio

        return minio.Minio(self.endpoint, access_key=self.ACCESS_KEY, secret_key=self.SECRET_KEY, secure=False)

    def start_with(self, bucket):
        self.start()
        eventually("MinIO is up", lambda: http(f"http://{self.endpoint}/minio/health/live").status == 200)
        if not self.client().bucket_exists(bucket):
            self.client().make_bucket(bucket)
        return self


class Prometheus(Program):
    """Takes remote write, and scrapes these jobs (name to `host:port`) each second."""

    def __init__(self, folder, scraped=None):
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        config = Path(folder) / "prometheus.yml"
        jobs = [{"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in (scraped or {}).items()]
        config.write_text(json.dumps({"global": {"scrape_interval": "1s" if jobs else "1h"}, "scrape_configs": jobs}))
        super().__init__(
            "prometheus",
            [
                tools.prometheus(),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/prometheus",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-remote-write-receiver",
                "--enable-feature=exemplar-storage,native-histograms",
            ],
            folder,
        )

    def query(self, promql):
        answer = http(f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": promql}))
        assert answer.status == 200, answer
        return answer.json()["data"]["result"]

    def exemplars(self, promql):
        """Exemplars of the last hour."""
        now = int(time.time())
        parameters = urllib.parse.urlencode({"query": promql, "start": now - 3600, "end": now + 60})
        answer = http(f"{self.url}/api/v1/query_exemplars?{parameters}")
        assert answer.status == 200, answer
        return [exemplar for series in answer.json()["data"] for exemplar in series["exemplars"]]


class AllInOne:
    """The single binary."""

    def __init__(self, folder, config="", environment=None):
        self.folder = Path(folder)
        self.http, self.grpc, self.otlp_grpc, self.otlp_http = free_ports(4)
        file = self.folder / "vivace.yaml"
        file.write_text(
            config.replace("@HTTP", str(self.http))
            .replace("@GRPC", str(self.grpc))
            .replace("@OTLP_GRPC", str(self.otlp_grpc))
            .replace("@OTLP_HTTP", str(self.otlp_http))
            if config
            else self.default_config()
        )
        self.program = Vivace("vivace", [binaries() / "vivace", f"-config.file={file}"], self.folder, self.http, environment)
        self.query = Query(self.program.url)

    def default_config(self, extra=""):
        return f"""
server: {{http_listen_address: 127.0.0.1, http_listen_port: {self.http}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {self.grpc}}}
distributor:
  receivers:
    otlp:
      protocols:
        grpc: {{endpoint: "127.0.0.1:{self.otlp_grpc}"}}
        http: {{endpoint: "127.0.0.1:{self.otlp_http}"}}
storage:
  trace:
    backend: local
    local: {{path: {self.folder}/blocks}}
    wal: {{path: {self.folder}/wal}}
    blocklist_poll: 2s
{extra}"""

    def with_config(self, extra):
        (self.folder / "vivace.yaml").write_text(self.default_config(extra))
        return self

    def start(self):
        self.program.start().wait_ready()
        return self

    @property
    def otlp_http_url(self):
        return f"http://127.0.0.1:{self.otlp_http}/v1/traces"


class Cluster:
    """Six services in processes of their own: three ingesters, replication factor 3, blocks in S3."""

    BUCKET = "tempo-traces"

    def __init__(self, folder, minio, extra="", poll="2s", ingester=""):
        """`poll`: how often the block list is polled; `ingester`: further keys of that block, indented by two; `extra`: further blocks."""
        self.folder = Path(folder)
        self.programs = {}
        self.minio = minio
        names = ["ingester-0", "ingester-1", "ingester-2", "distributor", "querier", "query-frontend", "compactor", "metrics-generator"]
        self.ports = {name: free_ports(3) for name in names}
        self.otlp_grpc, self.otlp_http = free_ports(2)
        join = ", ".join(f'"127.0.0.1:{self.ports[f"ingester-{i}"][2]}"' for i in range(3))
        frontend_grpc = self.ports["query-frontend"][1]
        (self.folder / "cluster.yaml").write_text(
            f"""
server:
  http_listen_address: 127.0.0.1
  http_listen_port: ${{HTTP_PORT}}
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: ${{GRPC_PORT}}
memberlist:
  bind_addr: [127.0.0.1]
  bind_port: ${{GOSSIP_PORT}}
  advertise_addr: 127.0.0.1
  advertise_port: ${{GOSSIP_PORT}}
  node_name: ${{NAME}}
  join_members: [{join}]
  abort_if_cluster_join_fails: false
distributor:
  receivers:
    otlp:
      protocols:
        grpc: {{endpoint: "127.0.0.1:{self.otlp_grpc}"}}
        http: {{endpoint: "127.0.0.1:{self.otlp_http}"}}
ingester:
  lifecycler:
    id: ${{NAME}}
    address: 127.0.0.1
    min_ready_duration: 0s
    ring: {{kvstore: {{store: memberlist}}, replication_factor: 3}}
  max_block_duration: 30m
{ingester}
querier: {{frontend_worker: {{frontend_address: "127.0.0.1:{frontend_grpc}"}}}}
compactor:
  ring: {{kvstore: {{store: memberlist}}, instance_id: "${{NAME}}", instance_addr: 127.0.0.1}}
  compaction: {{compaction_cycle: 1h}} # the tests count what was flushed
metrics_generator:
  ring: {{kvstore: {{store: memberlist}}, instance_id: "${{NAME}}", instance_addr: 127.0.0.1}}
  storage: {{path: {self.folder}/generator}}
storage:
  trace:
    backend: s3
    blocklist_poll: {poll}
    wal: {{path: {self.folder}/${{NAME}}/wal}}
    s3:
      bucket: {self.BUCKET}
      endpoint: {minio.endpoint}
      access_key: {minio.ACCESS_KEY}
      secret_key: {minio.SECRET_KEY}
      insecure: true
      forcepathstyle: true
{extra}"""
        )
        for name in names:
            service = name.rsplit("-", 1)[0] if name.startswith("ingester") else name
            http_port, grpc_port, gossip_port = self.ports[name]
            environment = {"NAME": name, "HTTP_PORT": str(http_port), "GRPC_PORT": str(grpc_port), "GOSSIP_PORT": str(gossip_port)}
            arguments = [binaries() / f"vivace-{service}", f"-config.file={self.folder}/cluster.yaml", "-config.expand-env=true"]
            self.programs[name] = Vivace(name, arguments, self.folder, http_port, environment)
        self.query = Query(self.programs["query-frontend"].url)

    def start(self):
        for program in self.programs.values():
            program.start()
        for program in self.programs.values():
            program.wait_ready()
        # Ready is each process's own view; wait until the distributor sees all three ingesters.
        eventually("the distributor sees three ingesters", lambda: self.ring_size() == 3)
        querier = self.programs["querier"].metric
        eventually("and so does the querier", lambda: querier("tempo_ring_members", name="ingester", state="ACTIVE") == 3)
        # Metrics of spans that come before their generator is known are left out, by design.
        members = self.programs["distributor"].metric
        eventually("and the metrics-generator", lambda: members("tempo_ring_members", name="metrics-generator", state="ACTIVE") == 1)
        return self

    def ring_size(self):
        ring = http(f"{self.programs['distributor'].url}/ingester/ring", Accept="application/json").json()
        return sum(1 for shard in ring["shards"] if shard["state"] == "ACTIVE")

    def ingesters(self):
        return [self.programs[f"ingester-{i}"] for i in range(3)]

    def flush(self):
        for ingester in self.ingesters():
            assert http(f"{ingester.url}/flush", data=b"", method="POST").status == 204

    def flush_living(self, except_for):
        for ingester in self.ingesters():
            if ingester.name != except_for:
                assert http(f"{ingester.url}/flush", data=b"", method="POST").status == 204

    def blocks(self):
        """Keys of the live blocks' metas in the bucket."""
        objects = self.minio.client().list_objects(self.BUCKET, recursive=True)
        return [o.object_name for o in objects if o.object_name.endswith("/meta.json")]

    def stored_traces(self):
        """Traces in all live blocks of the bucket; one that is in two blocks counts twice."""
        client = self.minio.client()
        return sum(json.loads(client.get_object(self.BUCKET, key).read())["totalObjects"] for key in self.blocks())

    def stop(self):
        order = ["distributor", "query-frontend", "querier", "compactor", "metrics-generator", "ingester-0", "ingester-1", "ingester-2"]
        for name in order:
            self.programs[name].stop()

    @property
    def otlp_http_url(self):
        return f"http://127.0.0.1:{self.otlp_http}/v1/traces"
