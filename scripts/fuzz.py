#!/usr/bin/env python3
"""Builds the fuzz targets and runs each, or those named as arguments; prints what they did in a table.

    scripts/fuzz.py [--keep] [target ...]

FUZZ_SECONDS   how long each runs, 600 when unset
--keep         afterwards writes few inputs with nearly the same coverage to fuzz/corpus/

An input that makes a target panic, hang or take too much memory is written to fuzz/findings/<target>/ and ends that
target's run. Coverage comes from the stable compiler's own pass, so no other toolchain and no clang is needed, but a
C++ compiler is.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "fuzz"
BUILD = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SECONDS = int(os.environ.get("FUZZ_SECONDS", "600"))
# A corpus in the repository is a start, not an archive, and every test run goes through it.
KEPT_BYTES_MAX = 110 << 10
KEPT_FILES_MAX = 120

FLAGS = ["-Cpasses=sancov-module"] + [
    f"-Cllvm-args=-sanitizer-coverage-{option}" for option in ("level=4", "inline-8bit-counters", "pc-table", "trace-compares")
]
# Longest input, where libFuzzer's own 4 kB is not right.
LENGTHS = {"footer": 32 << 10, "spans": 8 << 10, "written": 8 << 10}


def targets():
    return re.findall(r'^name = "(\w+)"\npath', (FUZZ / "Cargo.toml").read_text(), re.M)


def build():
    """Builds all targets and returns the folder they are in."""
    host = re.search(r"^host: (.*)$", subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout, re.M)[1]
    # With a target given, the flags are not for build scripts and procedural macros, which would not link with them.
    command = ["cargo", "build", "-p", "vivace-fuzz", "--features", "libfuzzer", "--profile", "fuzz", "--target", host]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "RUSTFLAGS": " ".join(FLAGS)})
    return BUILD / host / "fuzz"


def run(folder, target):
    """Runs one target and returns its row of the table."""
    corpus, kept, findings = BUILD / "fuzz-corpus" / target, FUZZ / "corpus" / target, FUZZ / "findings" / target
    for path in (corpus, kept, findings):
        path.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    options = [
        f"-max_total_time={SECONDS}",
        f"-max_len={LENGTHS.get(target, 4096)}",
        # Most inputs are a program of changes; short ones say little.
        "-len_control=0",
        "-timeout=30",
        "-rss_limit_mb=3072",
        "-print_final_stats=1",
        f"-artifact_prefix={findings}/",
    ]
    print(f"\n=== {target}", flush=True)
    began = time.monotonic()
    child = subprocess.Popen(
        [folder / target, *options, corpus, kept], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    executions = coverage = features = 0
    for line in child.stdout:
        if found := re.match(r"#(\d+)\s.*cov: (\d+) ft: (\d+)", line):
            executions, coverage, features = map(int, found.groups())
        if found := re.match(r"stat::number_of_executed_units:\s*(\d+)", line):
            executions = int(found[1])
        if not re.match(r"#\d+\s+(NEW|REDUCE|RELOAD|pulse)", line):
            print(line, end="", flush=True)
    child.wait()
    new = sorted(path.name for path in set(findings.iterdir()) - before)
    if not any(findings.iterdir()):
        findings.rmdir()
    return [target, f"{(time.monotonic() - began) / 60:.1f}", str(executions), str(coverage), str(features), ", ".join(new) or "none"]


def keep(folder, target):
    """Replaces the kept corpus by few inputs with the same coverage, as far as there is room."""
    corpus, kept = BUILD / "fuzz-corpus" / target, FUZZ / "corpus" / target
    merged = BUILD / "fuzz-merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    # What reaches the same edges, however often; all that came by counting would be some thousand.
    options = ["-set_cover_merge=1", "-use_counters=0", f"-max_len={LENGTHS.get(target, 4096)}"]
    subprocess.run([folder / target, *options, merged, kept, corpus], cwd=ROOT, check=True, capture_output=True)
    shutil.rmtree(kept)
    kept.mkdir()
    found = sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    # Of too many, some of every size.
    found = [found[i * len(found) // KEPT_FILES_MAX] for i in range(KEPT_FILES_MAX)] if len(found) > KEPT_FILES_MAX else found
    room = KEPT_BYTES_MAX
    for path in found:
        room -= path.stat().st_size
        if room >= 0:
            shutil.copy(path, kept)


def main():
    chosen = [argument for argument in sys.argv[1:] if argument != "--keep"]
    for target in chosen:
        if target not in targets():
            sys.exit(f"there is no target {target!r}; the targets are {', '.join(targets())}")
    folder = build()
    rows = [["target", "minutes", "executions", "edges", "features", "findings"]]
    for target in chosen or targets():
        rows.append(run(folder, target))
        if "--keep" in sys.argv:
            keep(folder, target)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 1 if any(row[-1] != "none" for row in rows[1:]) else 0


if __name__ == "__main__":
    sys.exit(main())
