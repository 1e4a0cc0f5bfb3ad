#!/usr/bin/env python3
"""Runs everything, or the steps named as arguments, and closes with one summary line.

    scripts/test.py [fmt] [lint] [unused] [doc] [unit] [e2e] [kubernetes]
    scripts/test.py quick        for the hand: fmt, lint, and the tests of the crates that start no process
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import tools

ROOT = Path(__file__).resolve().parent.parent
# Status of scripts/kubernetes.py where there is no cluster.
CLUSTER_NOT_RUN = 77
# What should be free before the cluster's programs are built.
ROOM_BYTES = 20 << 30

passed = failed = 0


def run(name, command, **options):
    """Runs one step, shows its output, and returns it."""
    print(f"\n=== {name}: {' '.join(str(c) for c in command)}", flush=True)
    began = time.monotonic()
    child = subprocess.Popen(
        [str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options
    )
    lines = []
    for line in child.stdout:
        lines.append(line)
        if not re.match(r"^test .* \.\.\. ok$|^\s*(Compiling|Checking|Downloaded|Downloading) ", line):
            sys.stdout.write(line)
            sys.stdout.flush()
    status = child.wait()
    result = {0: "ok", CLUSTER_NOT_RUN: "not run"}.get(status, f"FAILED (status {status})")
    print(f"=== {name}: {result} after {time.monotonic() - began:.0f} s", flush=True)
    return status, "".join(lines)


def count(status, output, pattern_passed, pattern_failed):
    global passed, failed
    passed += sum(int(n) for n in re.findall(pattern_passed, output))
    broken = sum(int(n) for n in re.findall(pattern_failed, output))
    failed += broken if broken or status == 0 else 1


def fmt():
    status, _ = run("fmt", ["cargo", "fmt", "--all", "--check"])
    count(status, "1 passed" if status == 0 else "", r"(\d+) passed", r"(\d+) failed")


def lint():
    status, _ = run("lint", ["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
    count(status, "1 passed" if status == 0 else "", r"(\d+) passed", r"(\d+) failed")


def unused():
    """Dependencies that no source names."""
    command = [tools.cargo_tool("cargo-machete"), "--skip-target-dir", "."]
    status, _ = run("unused", command)
    count(status, "1 passed" if status == 0 else "", r"(\d+) passed", r"(\d+) failed")


def doc():
    """Links of the documentation in the code lead somewhere."""
    command = ["cargo", "doc", "--workspace", "--no-deps", "--document-private-items"]
    status, _ = run("doc", command, env={**os.environ, "RUSTDOCFLAGS": "-D warnings"})
    count(status, "1 passed" if status == 0 else "", r"(\d+) passed", r"(\d+) failed")


def quick():
    status, output = run("quick", ["cargo", "test", "--workspace", "--lib", "--no-fail-fast"])
    count(status, output, r"test result: .*?(\d+) passed", r"test result: .*?(\d+) failed")


def unit():
    status, output = run("unit", ["cargo", "test", "--workspace", "--no-fail-fast"])
    count(status, output, r"test result: .*?(\d+) passed", r"test result: .*?(\d+) failed")


def e2e():
    print("\n=== tools", flush=True)
    tools.install_all()
    status, _ = run("e2e build", ["cargo", "build", "--workspace", "--bins"])
    if status != 0:
        count(status, "", "^$", "^$")
        return
    status, output = run("e2e", [tools.venv_python(), "-m", "pytest", "-q", "--color=no", "-rf", "e2e"])
    count(status, output, r"(\d+) passed", r"(\d+) (?:failed|error)")


def kubernetes():
    """The tutorial's path, where a bare machine's cluster is at hand; `make test-kubernetes` does all."""
    make_room()
    command = [sys.executable, ROOT / "scripts" / "kubernetes.py", "-k", "seed and not collector"]
    status, output = run("kubernetes", command, env={**os.environ, "VIVACE_BINARIES": str(binaries())})
    if status != CLUSTER_NOT_RUN:
        count(status, output, r"(\d+) passed", r"(\d+) (?:failed|error)")


def make_room():
    """The cluster's programs take gigabytes while they are built. What rustc keeps for the next build is the first that can go."""
    kept = binaries() / "incremental"
    if kept.exists() and shutil.disk_usage(kept).free < ROOM_BYTES:
        print(f"  little room on the disk: removing {kept}", flush=True)
        shutil.rmtree(kept, ignore_errors=True)


def binaries():
    """Folder of the programs that the end-to-end tests were built for."""
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return Path(json.loads(metadata.stdout)["target_directory"]) / "debug"


def main():
    steps = {"fmt": fmt, "lint": lint, "unused": unused, "doc": doc, "unit": unit, "e2e": e2e, "kubernetes": kubernetes}
    chosen = sys.argv[1:] or list(steps)
    if chosen == ["quick"]:
        steps, chosen = {**steps, "quick": quick}, ["fmt", "lint", "quick"]
    for name in chosen:
        if name not in steps:
            sys.exit(f"there is no step {name!r}; the steps are {', '.join(steps)}")
    for name in chosen:
        steps[name]()
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
