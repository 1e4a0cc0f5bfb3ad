"""The bucket as it grows over years: thousands of tenants, spans of any time, and whoever reads what a program says."""

import json
import os
import subprocess
import time

import harness
from harness import eventually, http

GOLDEN = harness.ROOT / "crates" / "vivace-block" / "testdata" / "v4-edge-default"
TENANTS = 6000
TRACES = 86


def with_tenants(folder):
    """A bucket with one small block of each of thousands of tenants: one file many times, but for its meta."""
    meta = json.loads((GOLDEN / "meta.json").read_text())
    for number in range(TENANTS):
        tenant = f"customer-{number:05}"
        block = folder / tenant / meta["blockID"]
        block.mkdir(parents=True)
        for name in ["data.parquet", "bloom-0", "index"]:
            if number == 0:
                (folder / name).write_bytes((GOLDEN / name).read_bytes())
            os.link(folder / name, block / name)
        (block / "meta.json").write_text(json.dumps({**meta, "tenantID": tenant}))


def cpu_seconds(program):
    fields = (harness.Path("/proc") / str(program.process.pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_thousands_of_tenants_cost_what_their_blocks_cost(all_in_one, tmp_path):
    """The limits are wide, for builds without optimisation on busy machines; the figures are printed."""
    with_tenants(tmp_path / "blocks")
    one = all_in_one.with_config("multitenancy_enabled: true\ncompactor: {compaction: {block_retention: 876000h}}")
    begun = time.monotonic()
    one.program.start()
    last = harness.Query(one.program.url, x_scope_orgid=f"customer-{TENANTS - 1:05}")
    times = {"start": 1795176000 - 3600, "end": 1795176000 + 7200}
    searched = lambda: len(last.search("{}", **times)) == TRACES  # noqa: E731
    eventually("the last tenant's traces are found", searched, seconds=60)
    found = time.monotonic() - begun
    one.program.wait_ready(60)
    ready, at_start = time.monotonic() - begun, cpu_seconds(one.program)
    # It polls every two seconds.
    time.sleep(20)
    idle = (cpu_seconds(one.program) - at_start) / 10
    print(f"{TENANTS} tenants: found after {found:.1f} s, ready after {ready:.1f} s and {at_start:.1f} s of CPU, a poll costs {idle:.2f} s")
    assert searched()
    one.program.stop()
    begun = time.monotonic()
    one.start()
    print(f"started again: ready after {time.monotonic() - begun:.1f} s and {cpu_seconds(one.program):.1f} s of CPU")


def test_spans_of_any_time_stay_and_are_found(all_in_one):
    """Older than the retention, of time 0, and of the year 2200: each is acknowledged, so it is kept as long as any other."""
    one = all_in_one.with_config("compactor: {compaction: {block_retention: 336h, compacted_block_retention: 1s}}")
    one.start()
    now = time.time_ns()
    starts = {"old": now - 60 * 86400 * 10**9, "zero": 0, "future": 7258118400 * 10**9, "now": now}
    for number, (name, start) in enumerate(starts.items(), 1):
        span = {
            "traceId": f"{number:032x}",
            "spanId": f"{number:016x}",
            "name": name,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + 10**6),
        }
        body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
        answer = http(one.otlp_http_url, data=json.dumps(body).encode(), content_type="application/json")
        assert answer.status == 200, answer
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204

    def stored():
        return list((one.folder / "blocks" / "single-tenant").glob("*/meta.json"))

    eventually("the block is stored", stored, seconds=60)
    # Several polls, and as many looks at what has expired.
    time.sleep(10)
    assert stored()
    for number, name in enumerate(starts, 1):
        assert list(one.query.trace(f"{number:032x}").values()) == [name]
    for meta in map(json.loads, (path.read_text() for path in stored())):
        assert meta["startTime"] > "2026" and meta["endTime"] < "2100", meta


def test_a_reader_that_has_enough_ends_the_programs_quietly(tmp_path):
    config = tmp_path / "vivace.yaml"
    config.write_text("storage: {trace: {backend: local, local: {path: /tmp/b}}}\n")
    for program, arguments in [("vivace", "--help"), ("vivace", f"-config.verify -config.file={config}"), ("vivace-cli", "--help")]:
        script = f"({harness.binaries() / program} {arguments}; echo $? >status) | true"
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        # A short answer may be written before the reader is gone.
        assert (tmp_path / "status").read_text().strip() in ("0", "141"), (program, arguments)
        assert done.stderr == "", (program, arguments)
