#!/usr/bin/env python3
"""The demo: builds Vivace, starts it with its defaults, runs a real instrumented application against it and finds its traces.

Needs only Rust and Python. Stays up until interrupted; with --once it ends by itself.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".demo"
STEPS = 7
PORTS = {3200: "query API", 9095: "gRPC", 4317: "OTLP over gRPC", 4318: "OTLP over HTTP", 8000: "the notes application"}


class Failure(Exception):
    """Something a person can mend; shown without a stack trace."""


def step(number, text):
    print(f"\033[1m[{number}/{STEPS}]\033[0m {text}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--once", action="store_true", help="end after the trace was shown")
    arguments.add_argument("--profile", default="dev", choices=["release", "dev"], help="how to build")
    options = arguments.parse_args()
    children = []
    try:
        run(options, children)
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping")
    finally:
        for child in reversed(children):
            stop(child)
    return 0


def run(options, children):
    step(1, "looking for free ports")
    for port, use in PORTS.items():
        require_free(port, use)

    step(2, f"building vivace and vivace-cli ({options.profile} profile; the first build takes some minutes)")
    binaries = build(options.profile)

    step(3, "setting up the notes application: Django and OpenTelemetry in a virtual environment")
    python = environment()

    data = WORK / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    step(4, "starting vivace with its defaults")
    children.append(start([binaries / "vivace"], data, "vivace"))
    wait_until("vivace is ready", lambda: get("http://127.0.0.1:3200/ready")[0] == 200, children, seconds=60)

    step(5, "starting the notes application and using it: five notes, two lists, one failing request")
    notes = [python, ROOT / "demo" / "notes.py", data / "notes.sqlite3"]
    children.append(start(notes, data, "notes", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4317"))
    wait_until("the application answers", lambda: get("http://127.0.0.1:8000/")[0] == 200, children, seconds=30)
    for text in ["buy milk", "call Ada", "water the plants", "read the paper", "sleep"]:
        expect(201, "http://127.0.0.1:8000/create?text=" + urllib.parse.quote(text))
    expect(200, "http://127.0.0.1:8000/")
    expect(200, "http://127.0.0.1:8000/notes/2")
    expect(500, "http://127.0.0.1:8000/notes/404")

    step(6, "finding the failing request by TraceQL")
    query = '{ resource.service.name = "django-notes-app" && status = error }'
    found = []

    def search():
        status, body = get("http://127.0.0.1:3200/api/search?" + urllib.parse.urlencode({"q": query}))
        found[:] = json.loads(body)["traces"] if status == 200 else []
        return found

    wait_until("the search finds it", search, children, seconds=30)
    cli = binaries / "vivace-cli"
    command([cli, "query", "search", query])

    step(7, "showing two traces: a created note, and the failure")
    created = '{ name = "note_create" && span.note.length > 8 }'
    status, body = get("http://127.0.0.1:3200/api/search?" + urllib.parse.urlencode({"q": created, "limit": 1}))
    if status != 200 or not json.loads(body)["traces"]:
        raise Failure(f"{created} found nothing (status {status}); the log is {data / 'vivace.log'}")
    command([cli, "query", "trace", json.loads(body)["traces"][0]["traceID"]])
    command([cli, "query", "trace", found[0]["traceID"]])

    print(
        f"""
It is all up:
  the application   http://127.0.0.1:8000/            (make some requests)
  search            http://127.0.0.1:3200/api/search?q=%7B%7D
  one trace         http://127.0.0.1:3200/api/v2/traces/{found[0]["traceID"]}
  status            http://127.0.0.1:3200/status
  metrics           http://127.0.0.1:3200/metrics
  send your own     OTLP on 127.0.0.1:4317 (gRPC) and http://127.0.0.1:4318/v1/traces
  command line      {os.path.relpath(cli, Path.cwd()) if cli.is_relative_to(Path.cwd()) else cli} query search '{{ status = error }}'
  logs and data     {data.relative_to(ROOT)}/
"""
    )
    if options.once:
        return
    print("Interrupt (Ctrl-C) to stop.", flush=True)
    while True:
        time.sleep(1)
        require_running(children)


def require_free(port, use):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Failure(
                f"Port {port} ({use}) is in use by another process. Stop that process and run the demo again; "
                f"`ss -ltnp 'sport = :{port}'` names it."
            ) from None


def build(profile):
    if shutil.which("cargo") is None:
        raise Failure("cargo is not installed; see https://rustup.rs")
    flags = ["--release"] if profile == "release" else []
    done = subprocess.run(["cargo", "build", *flags, "-p", "vivace", "-p", "vivace-cli"], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise Failure("The build failed; the compiler's messages stand above.")
    target = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return Path(json.loads(target.stdout)["target_directory"]) / ("release" if profile == "release" else "debug")


def environment():
    folder = WORK / "venv"
    wanted = (ROOT / "demo" / "requirements.txt").read_text()
    marker = folder / "installed"
    if not marker.exists() or marker.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", ROOT / "demo" / "requirements.txt"]
        if subprocess.run(pip, check=False).returncode != 0:
            raise Failure("Installing the application's packages failed; pip's messages stand above.")
        marker.write_text(wanted)
    return folder / "bin" / "python"


def start(arguments, data, name, **environment_changes):
    with open(data / f"{name}.log", "wb") as log:
        child = subprocess.Popen(
            [str(a) for a in arguments], cwd=data, stdout=log, stderr=log, env={**os.environ, **environment_changes}
        )
    child.log = data / f"{name}.log"
    return child


def stop(child):
    child.terminate()
    try:
        child.wait(timeout=30)
    except subprocess.TimeoutExpired:
        child.kill()


def require_running(children):
    for child in children:
        if child.poll() is not None:
            tail = "\n".join(child.log.read_text(errors="replace").splitlines()[-10:])
            raise Failure(f"{Path(child.args[0]).name} ended with status {child.returncode}. The end of {child.log}:\n{tail}")


def wait_until(what, condition, children, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        require_running(children)
        if time.monotonic() > deadline:
            raise Failure(f"Gave up waiting until {what} ({seconds} s). Logs are in {WORK / 'data'}.")
        time.sleep(0.2)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def expect(status, url):
    got, body = get(url)
    if got != status:
        raise Failure(f"{url} answered {got} instead of {status}: {body[:300]!r}")


def command(arguments):
    arguments = [str(a) for a in arguments]
    shown = " ".join(f"'{a}'" if " " in a else a for a in [Path(arguments[0]).name, *arguments[1:]])
    print(f"\n  $ {shown}", flush=True)
    if subprocess.run(arguments, check=False).returncode != 0:
        raise Failure(f"{shown} failed; its message stands above.")


if __name__ == "__main__":
    sys.exit(main())
