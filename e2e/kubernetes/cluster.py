"""kubectl and helm for the tests, and what a release of the chart is made of."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "e2e"))

import harness  # noqa: E402

CHARTS = ROOT / "charts"
HERE = Path(__file__).resolve().parent
# Two polls of the block list by default, the compactor's and a reader's, and a little.
MISSING_FOR_GOOD_SECONDS = int(os.environ.get("VIVACE_KUBE_PATIENCE", "630"))
CLIENT_IMAGE, COLLECTOR_IMAGE, PROMETHEUS_IMAGE = "localhost/vivace-client:dev", "localhost/otelcol:dev", "localhost/prometheus:dev"
# Component: kind of its workload.
COMPONENTS = {
    "distributor": "deployment",
    "ingester": "statefulset",
    "querier": "deployment",
    "query-frontend": "deployment",
    "compactor": "deployment",
}


def run(*command, check=True, stdin=None, timeout=600):
    done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done


def kubectl(*arguments, **options):
    return run("kubectl", *arguments, **options).stdout


def clear(namespace, wait=True):
    """Deletes a namespace. Ingesters whose bucket goes with it would wait for the bucket as long as they may, so no pod is given time."""
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
    kubectl("delete", "pod", "-n", namespace, "--all", "--grace-period=0", "--force", "--wait=false", check=False)
    if wait:
        kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=300s")


def objects(*arguments):
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def apply(namespace, *manifests):
    kubectl("apply", "-n", namespace, "-f", "-", stdin="\n---\n".join(json.dumps(m) for m in manifests))


class Forward:
    """`kubectl port-forward`, as a person runs it. Gives the local address."""

    def __init__(self, namespace, target, port):
        self.command = ["kubectl", "port-forward", "-n", namespace, target, f":{port}"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.process.stdout.readline()
        match = re.match(r"Forwarding from (127\.0\.0\.1:\d+)", line)
        if not match:
            self.process.kill()
            raise AssertionError(f"{' '.join(self.command)}: {line}{self.process.stdout.read()}")
        # What follows is read and dropped, so that the pipe never fills.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=subprocess.DEVNULL)
        return match[1]

    def __exit__(self, *_):
        for process in (self.process, self.drain):
            process.terminate()
            process.wait()


class Release:
    """A `helm install`, and questions about it."""

    def __init__(self, namespace, values, name="tempo", chart="vivace-distributed", settings=()):
        self.namespace, self.name, self.chart = namespace, name, CHARTS / chart
        self.values, self.settings = values, list(settings)

    def helm(self, verb, *more, **options):
        place = ["-n", self.namespace, *(["--create-namespace"] if verb == "install" else [])]
        values = [part for file in self.values for part in ("--values", file)]
        settings = [part for setting in self.settings for part in ("--set", setting)]
        return run("helm", verb, self.name, self.chart, *place, *values, *settings, *more, **options)

    def install(self, *more, **options):
        return self.helm("install", *more, **options)

    def upgrade(self, *more, **options):
        return self.helm("upgrade", *more, **options)

    def rollback(self):
        return run("helm", "rollback", self.name, "-n", self.namespace)

    def uninstall(self):
        return run("helm", "uninstall", self.name, "-n", self.namespace, "--wait", "--timeout", "300s")

    def pods(self, component=None):
        selector = f"app.kubernetes.io/instance={self.name}" + (f",app.kubernetes.io/component={component}" if component else "")
        found = objects("pods", "-n", self.namespace, "-l", selector)["items"]
        return {pod["metadata"]["name"]: pod for pod in found}

    def everything(self):
        """All pods of the namespace but those of jobs and of `helm test`, and the tests' own."""
        found = objects("pods", "-n", self.namespace)["items"]
        mine = lambda pod: "vivace-test" in pod["metadata"].get("labels", {})  # noqa: E731
        of_job = lambda pod: any(o["kind"] == "Job" for o in pod["metadata"].get("ownerReferences", []))  # noqa: E731
        hook = lambda pod: "helm.sh/hook" in pod["metadata"].get("annotations", {})  # noqa: E731
        return {pod["metadata"]["name"]: pod for pod in found if not (mine(pod) or of_job(pod) or hook(pod))}

    def wait_ready(self, count=None, seconds=180):
        """Waits until all pods are ready, `count` of them where that is known. Returns them."""

        def ready():
            pods = {n: p for n, p in self.everything().items() if not p["metadata"].get("deletionTimestamp")}
            waiting = [name for name, pod in pods.items() if not is_ready(pod)]
            assert not waiting, f"not ready: {waiting}"
            assert count is None or len(pods) == count, f"{len(pods)} pods: {sorted(pods)}"
            return pods

        try:
            return harness.eventually(f"release {self.name} is ready", ready, seconds, every=0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    def settle(self):
        """Waits until what an upgrade began is done: every pod is of the newest revision and ready."""
        for component in COMPONENTS:
            kubectl("rollout", "status", "-n", self.namespace, self.workload(component), "--timeout=300s")
            self.wait_gone(component)
        return self.wait_ready()

    def describe(self):
        """What a person would look at: pods, and the last log lines of those that are not ready."""
        text = [kubectl("get", "pods", "-n", self.namespace, "-o", "wide", check=False)]
        for name, pod in self.everything().items():
            if not is_ready(pod):
                text.append(f"--- {name}\n{self.log(name, 15)}")
        text.append(kubectl("get", "events", "-n", self.namespace, "--sort-by=.lastTimestamp", check=False)[-3000:])
        return "\n".join(text)

    def log(self, pod, lines=200, previous=False):
        return kubectl("logs", "-n", self.namespace, pod, f"--tail={lines}", *(["--previous"] if previous else []), check=False)

    def forward(self, service, port):
        return Forward(self.namespace, f"svc/{self.name}-{service}", port)

    def get(self, pod, path, port=3200):
        """An HTTP answer of one pod, through the API server."""
        return kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy{path}")

    def metric(self, pod, name):
        """Sum of a metric's samples in one pod."""
        samples = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.get(pod, "/metrics"), re.MULTILINE)
        return sum(float(s) for s in samples)

    def workload(self, component):
        return f"{COMPONENTS[component]}/{self.name}-{component}"

    def rollout_restart(self, component, seconds=240):
        """Restarts a component and waits for it. Returns the seconds it took."""
        began = time.monotonic()
        kubectl("rollout", "restart", "-n", self.namespace, self.workload(component))
        kubectl("rollout", "status", "-n", self.namespace, self.workload(component), f"--timeout={seconds}s")
        self.wait_gone(component)
        return time.monotonic() - began

    def scale(self, component, replicas, seconds=240):
        """Scales a component and waits until its pods are ready, and those to go are gone. Returns the seconds it took."""
        began = time.monotonic()
        kubectl("scale", "-n", self.namespace, self.workload(component), f"--replicas={replicas}")
        kubectl("rollout", "status", "-n", self.namespace, self.workload(component), f"--timeout={seconds}s")
        self.wait_gone(component, replicas)
        return time.monotonic() - began

    def wait_gone(self, component, replicas=None, seconds=300):
        def gone():
            pods = self.pods(component)
            leaving = [name for name, pod in pods.items() if pod["metadata"].get("deletionTimestamp")]
            assert not leaving, f"still ending: {leaving}"
            assert replicas is None or len(pods) == replicas, sorted(pods)
            return True

        harness.eventually(f"{component} pods that go are gone", gone, seconds, every=0.5)

    def ring(self, component="distributor"):
        """States of the ingesters as one pod sees them: {id: state}."""
        pod = next(iter(self.pods(component)))
        page = kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:3200/proxy/ingester/ring?format=json")
        return {shard["id"]: shard["state"] for shard in json.loads(page)["shards"]} if page.startswith("{") else page


class Client:
    """The pod that sends and reads: client.py."""

    def __init__(self, namespace, release="tempo", name="client"):
        self.namespace, self.name = namespace, name
        environment = {
            "OTLP_GRPC": f"{release}-distributor.{namespace}.svc.cluster.local:4317",
            "OTLP_HTTP": f"{release}-distributor.{namespace}.svc.cluster.local:4318",
            "QUERY": f"{release}-query-frontend.{namespace}.svc.cluster.local:3200",
        }
        container = {
            "name": "client",
            "image": CLIENT_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "readinessProbe": {"httpGet": {"path": "/stats", "port": 8080}, "periodSeconds": 1},
        }
        labels = {"vivace-test": name}
        apply(
            namespace,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        )
        kubectl("wait", "-n", namespace, f"pod/{name}", "--for=condition=Ready", "--timeout=120s")
        self.forward = Forward(namespace, f"pod/{name}", 8080)
        self.address = self.forward.__enter__()

    def close(self):
        self.forward.__exit__()
        kubectl("delete", "-n", self.namespace, f"pod/{self.name}", "--grace-period=0", "--force", check=False)

    def post(self, path, timeout=600, **given):
        answer = harness.http(f"http://{self.address}{path}", data=json.dumps(given).encode(), method="POST", timeout=timeout)
        assert answer.status == 200, answer
        return answer.json()

    def stats(self):
        return harness.http(f"http://{self.address}/stats").json()

    def more_requests(self, count):
        """Waits until the load has gone on for this many requests."""
        mark = self.stats()["numbers"]["requests"]
        harness.eventually("the load went on", lambda: self.stats()["numbers"]["requests"] > mark + count, 120)

    @contextlib.contextmanager
    def load(self, **given):
        """A steady load around what is done inside; gives a place where its numbers are afterwards."""
        outcome = {}
        self.post("/start", **given)
        try:
            harness.eventually("the load has begun", lambda: self.stats()["numbers"].get("requests", 0) > 5, 60)
            yield outcome
        finally:
            outcome.update(self.post("/stop"))
        ended = time.monotonic()
        outcome["verified"] = again = self.post("/verify")
        # Missing at first, or for good? The difference is worth the wait.
        while again["missing"] and time.monotonic() - ended < MISSING_FOR_GOOD_SECONDS:
            time.sleep(2)
            again = self.post("/verify")
        outcome["missing for good"] = again["missing"]
        outcome["whole after seconds"] = round(time.monotonic() - ended, 1)


def is_ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def note(name, **figures):
    """One line for the person who runs this, and for the figures' file."""
    line = json.dumps({"what": name, **figures})
    print(f"\n  {line}", flush=True)
    if os.environ.get("VIVACE_KUBE_FIGURES"):
        with open(os.environ["VIVACE_KUBE_FIGURES"], "a") as file:
            file.write(line + "\n")


def query_string(**parameters):
    return urllib.parse.urlencode(parameters)
