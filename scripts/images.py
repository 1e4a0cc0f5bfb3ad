#!/usr/bin/env python3
"""Folders with the content of the images that the tests on Kubernetes run, where no registry can be asked.

    scripts/images.py OUT_DIR [NAME...]     names: vivace, minio, memcached, prometheus, collector, client

Vivace's own folder is made by scripts/rootfs, as in docker/Dockerfile. The others hold what the images of the same name would
hold: MinIO and the OpenTelemetry Collector built from their Go modules, Debian's memcached and Prometheus, and Python with the
OpenTelemetry SDK for the test's own client.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import tools

ROOT = Path(__file__).resolve().parent.parent
COLLECTOR_VERSION = "v0.161.0"
CLIENT_PACKAGES = [
    "opentelemetry-exporter-otlp-proto-grpc==1.45.1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    "opentelemetry-sdk==1.45.1",
]
# The pipelines of the tutorials: OTLP in, batch or tail sampling, OTLP out; logs and metrics on their ways.
COLLECTOR_PARTS = {
    "receivers": ["go.opentelemetry.io/collector/receiver/otlpreceiver"],
    "processors": [
        "go.opentelemetry.io/collector/processor/batchprocessor",
        "go.opentelemetry.io/collector/processor/memorylimiterprocessor",
        "github.com/open-telemetry/opentelemetry-collector-contrib/processor/tailsamplingprocessor",
    ],
    "exporters": [
        "go.opentelemetry.io/collector/exporter/debugexporter",
        "go.opentelemetry.io/collector/exporter/otlpexporter",
        "go.opentelemetry.io/collector/exporter/otlphttpexporter",
        "github.com/open-telemetry/opentelemetry-collector-contrib/exporter/prometheusexporter",
        "github.com/open-telemetry/opentelemetry-collector-contrib/exporter/zipkinexporter",
    ],
}


def linked(*files):
    """Paths of the shared libraries that programs and libraries are linked to."""
    found = set()
    for file in files:
        output = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        found |= set(re.findall(r"(?:=> |^\s*)(/\S+) \(", output, re.MULTILINE))
    return sorted(found)


def copy(root, source, at=None):
    """Copies a file into the folder, to the path it has here unless told otherwise."""
    target = root / str(at or source).lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(source).resolve(), target)


def fill(root, programs):
    """Puts programs and what they are linked to into an empty folder: {path in the image: path here}."""
    for at, source in programs.items():
        copy(root, source, at)
        for library in linked(source):
            copy(root, library)
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")
    (root / "etc" / "group").write_text("root:x:0:\nnobody:x:65534:\n")
    (root / "etc" / "nsswitch.conf").write_text("hosts: files dns\n")
    (root / "tmp").mkdir(mode=0o1777, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    return root


def debian(package, path):
    """Path of a program from a Debian package; the package is unpacked, not installed."""
    folder = tools.CACHE / package
    program = folder / path
    if not program.exists():
        tools.progress(f"fetching Debian's {package} package (once)")
        folder.mkdir(parents=True, exist_ok=True)
        needed = [package, *DEBIAN_LIBRARIES.get(package, [])]
        if subprocess.run(["apt-get", "-qq", "download", *needed], cwd=folder, check=False, stderr=subprocess.DEVNULL).returncode != 0:
            subprocess.run(["apt-get", "-qq", "update"], check=True)
            subprocess.run(["apt-get", "-qq", "download", *needed], cwd=folder, check=True)
        for deb in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return program


DEBIAN_LIBRARIES = {"memcached": ["libevent-2.1-7", "libsasl2-2"]}


def vivace(root):
    """The program that `-target` makes any service, and the CLI; VIVACE_BINARIES names a folder that has them built."""
    binaries = os.environ.get("VIVACE_BINARIES")
    if not binaries:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "vivace", "-p", "vivace-cli"], cwd=ROOT, check=True)
        described = ["cargo", "metadata", "--format-version=1", "--no-deps"]
        metadata = json.loads(subprocess.run(described, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        binaries = Path(metadata["target_directory"]) / "release"
    subprocess.run([ROOT / "scripts" / "rootfs", root.parent, binaries, "vivace"], check=True)
    return ["/usr/bin/vivace"]


def minio(root):
    busybox = debian("busybox-static", "bin/busybox")
    fill(root, {"/usr/bin/minio": tools.go_tool("minio"), "/bin/busybox": busybox})
    for name in ["sh", "mkdir", "sleep", "cat", "ls", "rm"]:
        (root / "bin" / name).symlink_to("busybox")
    return ["/usr/bin/minio"]


def prometheus(root):
    fill(root, {"/usr/bin/prometheus": tools.prometheus()})
    return ["/usr/bin/prometheus"]


def memcached(root):
    program = debian("memcached", "usr/bin/memcached")
    libraries = [p for p in (tools.CACHE / "memcached").rglob("*.so*") if p.is_file()]
    fill(root, {"/usr/bin/memcached": program})
    for library in libraries:
        copy(root, library, f"/lib/{library.name}")
        for link in library.parent.iterdir():
            if link.is_symlink() and link.resolve() == library.resolve():
                copy(root, library, f"/lib/{link.name}")
    for library in linked(program, *libraries):
        if "not found" not in library:
            copy(root, library)
    return ["/usr/bin/memcached"]


def collector_program():
    """The OpenTelemetry Collector with the parts that the tutorials use, built once."""
    if os.environ.get("OTELCOL"):
        return Path(os.environ["OTELCOL"])
    parts = {kind: [{"gomod": f"{module} {COLLECTOR_VERSION}"} for module in modules] for kind, modules in COLLECTOR_PARTS.items()}
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    folder = tools.CACHE / f"otelcol-{digest}"
    program = folder / "otelcol"
    if not program.exists():
        tools.progress("building the OpenTelemetry Collector (once, some minutes)")
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / "builder.json"  # YAML takes JSON
        manifest.write_text(json.dumps({"dist": {"name": "otelcol", "output_path": str(folder)}, **parts}))
        builder = ["go", "run", f"go.opentelemetry.io/collector/cmd/builder@{COLLECTOR_VERSION}", "--config", manifest]
        subprocess.run(builder, cwd=folder, check=True, env={**os.environ, "CGO_ENABLED": "0"})
    return program


def collector(root):
    fill(root, {"/otelcol": collector_program()})
    return ["/otelcol"]


def client(root):
    python = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_paths()["stdlib"])
    fill(root, {f"/usr/bin/{version}": python})
    kept = root / "usr" / "lib" / version
    unused = ["site-packages", "dist-packages", "test", "tests", "__pycache__", "idlelib", "tkinter", "ensurepip", "config-*", "*.a"]
    left_out = shutil.ignore_patterns(*unused)
    shutil.copytree(library, kept, ignore=left_out, dirs_exist_ok=True)
    packages = kept / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--target", packages]
    subprocess.run([*pip, *CLIENT_PACKAGES], check=True)
    for found in linked(*root.rglob("*.so*")):
        copy(root, found)
    shutil.copy2(ROOT / "e2e" / "kubernetes" / "client.py", root / "client.py")
    (root / "usr" / "bin" / "python3").symlink_to(version)
    return ["/usr/bin/python3", "-B", "/client.py"]


KINDS = {"vivace": vivace, "minio": minio, "memcached": memcached, "prometheus": prometheus, "collector": collector, "client": client}


def make(out, name):
    """Makes one folder anew. Returns it and the image's entry point."""
    root = Path(out) / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    entrypoint = KINDS[name](root)
    return root, entrypoint


if __name__ == "__main__":
    for chosen in sys.argv[2:] or KINDS:
        folder, started_by = make(sys.argv[1], chosen)
        print(f"{folder} {' '.join(started_by)}", flush=True)
