#!/usr/bin/env python3
"""Runs the tests of the charts on a real Kubernetes: `make test-kubernetes`.

    scripts/kubernetes.py [options of pytest, such as -k seed]

The cluster is one of these, the first that is there:

- the context named by $VIVACE_KUBE_CONTEXT, which kubectl and helm reach. Its nodes must be able to pull the images that the
  charts name, and `localhost/vivace-client:dev`, `localhost/otelcol:dev` and `localhost/prometheus:dev` (scripts/images.py makes
  their content).
  The tests make namespaces of their own, drain nodes, and delete what they made: use a cluster that is there for this.
- a bare machine's, started and stopped here, where the kit that does so is found: $VIVACE_KUBE_KIT, by default ../shared/kube beside
  the clone. It is a program `cluster` that knows `build`, `up`, `image NAME FOLDER ENTRYPOINT...`, `run COMMAND...` and `down`.
  $VIVACE_KUBE_KEEP=1 leaves it running afterwards.

The kit's programs are built at the first run, in about ten minutes, and kept in $KUBE_BIN (by default in the cache).
Where there is no cluster, or the kit cannot start one on this machine, the status is 77: nothing was tested.
$VIVACE_BINARIES names a folder with `vivace` and `vivace-cli` to be used instead of a release build.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import images
import tools

# What a build of the kit's programs may take at most, seconds.
BUILD_SECONDS = 1500
NOT_RUN = 77

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "e2e" / "kubernetes"
# Names under which images are given to the kit's cluster beside those that the charts' values name.
OWN_IMAGES = {"client": "localhost/vivace-client:dev", "collector": "localhost/otelcol:dev", "prometheus": "localhost/prometheus:dev"}


def kit():
    for candidate in [os.environ.get("VIVACE_KUBE_KIT"), ROOT.parent / "shared" / "kube"]:
        if candidate and (Path(candidate) / "cluster").exists():
            return Path(candidate) / "cluster"
    return None


def chart_images(helm):
    """The images that the charts name with everything switched on that the tests use: {name: kind}."""
    named = {}
    for chart, values in (("vivace-distributed", ["minio.enabled=true", "metricsGenerator.enabled=true"]), ("vivace", [])):
        if not (ROOT / "charts" / chart).exists():
            continue
        settings = [part for value in values for part in ("--set", value)]
        template = [*helm, "template", "--kube-version", "1.33.0", "tempo", ROOT / "charts" / chart, *settings]
        rendered = subprocess.run(template, check=True, capture_output=True, text=True)
        for line in rendered.stdout.splitlines():
            key, _, name = line.strip().removeprefix("- ").partition("image: ")
            if key == "" and name:
                name = name.strip("\"'")
                kind = next((kind for kind in ("minio", "memcached") if kind in name), "vivace")
                named[name] = kind
    return named


class Kit:
    """The bare machine's cluster."""

    def __init__(self, program):
        self.program = program
        self.environment = {**os.environ}
        self.environment.setdefault("KUBE_BIN", str(tools.CACHE / "kubernetes"))

    def __call__(self, *arguments, **options):
        return subprocess.run([self.program, *map(str, arguments)], check=True, env=self.environment, **options)

    def built(self):
        return (Path(self.environment["KUBE_BIN"]) / "helm").exists()

    def image(self, name, kind, folder):
        root, entrypoint = folder
        tools.progress(f"image {name} from the folder of {kind}")
        self("image", qualified(name), root, *entrypoint)


def not_run(why):
    print(f"{why}; nothing was tested on Kubernetes.", flush=True)
    return NOT_RUN


def qualified(name):
    """As containerd stores it: `docker.io/` where no registry is named."""
    first = name.split("/")[0]
    if "/" not in name:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


def run_on_kit(program, options):
    cluster = Kit(program)
    if not cluster.built():
        tools.progress("building the cluster's programs (once, about ten minutes)")
        try:
            cluster("build", timeout=BUILD_SECONDS)
        except (subprocess.SubprocessError, OSError) as error:
            return not_run(f"the cluster's programs could not be built: {error}")
    work = tools.CACHE / "rootfs"
    named = chart_images([Path(cluster.environment["KUBE_BIN"]) / "helm"])
    # What the short form leaves out need not be built for it.
    short = "not collector" in " ".join(options)
    named |= {name: kind for kind, name in OWN_IMAGES.items() if not (short and kind in ("collector", "prometheus"))}
    folders = {kind: images.make(work, kind) for kind in sorted(set(named.values()))}
    began = time.monotonic()
    there = subprocess.run([program, "kubectl", "get", "--raw", "/readyz"], env=cluster.environment, capture_output=True, check=False)
    try:
        try:
            if there.returncode != 0:
                cluster("up")
            for name, kind in named.items():
                cluster.image(name, kind, folders[kind])
        except subprocess.SubprocessError as error:
            return not_run(f"the cluster did not start: {error}")
        tools.progress(f"the cluster is up, with {len(named)} images, after {time.monotonic() - began:.0f} s")
        return pytest([program, "run"], options, {**cluster.environment, "VIVACE_SECOND_NODE": str(ROOT / "scripts" / "second-node")})
    finally:
        # One that was there before is someone else's to end.
        if there.returncode != 0 and not os.environ.get("VIVACE_KUBE_KEEP"):
            subprocess.run([program, "down"], env=cluster.environment, check=False)


def pytest(before, options, environment):
    binaries = Path(os.environ["VIVACE_BINARIES"]) if os.environ.get("VIVACE_BINARIES") else None
    if binaries is None:
        described = ["cargo", "metadata", "--format-version=1", "--no-deps"]
        metadata = subprocess.run(described, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        binaries = Path(json.loads(metadata)["target_directory"]) / "release"
    environment = {**environment, "VIVACE_KUBE": "1", "VIVACE_CLI": str(binaries / "vivace-cli")}
    command = [*before, tools.venv_python(), "-m", "pytest", "-q", "--color=no", "-rf", TESTS, *options]
    return subprocess.run([str(c) for c in command], cwd=ROOT, env=environment, check=False).returncode


def main():
    options = sys.argv[1:]
    context = os.environ.get("VIVACE_KUBE_CONTEXT")
    if context:
        current = subprocess.run(["kubectl", "config", "current-context"], check=True, capture_output=True, text=True).stdout.strip()
        if current != context:
            sys.exit(f"VIVACE_KUBE_CONTEXT is {context}, kubectl's context is {current}: `kubectl config use-context {context}` switches")
        return pytest([], options, {**os.environ})
    program = kit()
    if program is None:
        return not_run("No cluster: set VIVACE_KUBE_CONTEXT to the context of one for tests, or VIVACE_KUBE_KIT")
    return run_on_kit(program, options)


if __name__ == "__main__":
    sys.exit(main())
