"""Blocks as others see them: Arrow's Parquet library, which shares no code with ours, and the command line on real blocks."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import harness
import spans
from harness import eventually, http

GOLDEN = harness.ROOT / "crates" / "vivace-block" / "testdata"
# In vParquet4 every list is a group `list` of a group `element`.
LEAVES = 103


def cli(*arguments, status=0, **environment):
    command = [harness.binaries() / "vivace-cli", "block", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_COLOR": "1", **environment})
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def dump(block):
    """The traces of a block by id, as the command line prints them."""
    traces = {}
    for line in cli("dump", block).splitlines():
        trace = json.loads(line)
        first = trace["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
        traces[first["traceId"]] = trace["resourceSpans"]
    return traces


def golden(tmp_path, name):
    """A bucket with one of the blocks that Tempo wrote."""
    meta = json.loads((GOLDEN / name / "meta.json").read_text())
    block = tmp_path / "golden" / meta["tenantID"] / meta["blockID"]
    shutil.copytree(GOLDEN / name, block)
    return block


def value(attribute):
    """An attribute as the columns of its row say it."""
    if attribute["ValueUnsupported"] is not None:
        return json.loads(attribute["ValueUnsupported"])
    values = [v for column in ("Value", "ValueInt", "ValueDouble", "ValueBool") for v in attribute[column]]
    return values if attribute["IsArray"] else values[0] if values else None


def otlp(any_value):
    """The same of OTLP JSON."""
    ((kind, inner),) = any_value.items() or [(None, None)]
    match kind:
        case "intValue":
            return int(inner)
        case "doubleValue":
            return float(inner)
        case "stringValue" | "boolValue":
            return inner
        case _:
            return any_value


def assert_arrow_reads(block):
    """Reads every column of a block by Arrow and compares it with what the command line dumps. Returns the rows."""
    file = pq.ParquetFile(block / "data.parquet")
    meta = json.loads((block / "meta.json").read_text())
    assert file.metadata.num_columns == LEAVES
    assert file.metadata.num_row_groups == meta["totalRecords"]
    assert file.metadata.num_rows == meta["totalObjects"]
    rows = file.read().to_pylist()
    traces = dump(block)
    assert [row["TraceID"].hex() for row in rows] == sorted(traces)
    for row in rows:
        trace = traces[row["TraceID"].hex()]
        assert row["TraceIDText"] == row["TraceID"].hex().lstrip("0")
        assert len(row["rs"]) == len(trace)
        count = 0
        services = {}
        for resource, want_resource in zip(row["rs"], trace, strict=True):
            named = {a["key"]: a["value"] for a in want_resource["resource"].get("attributes", [])}
            service = resource["Resource"]["ServiceName"]
            assert service == named.get("service.name", {}).get("stringValue", ""), named
            for scope, want_scope in zip(resource["ss"], want_resource["scopeSpans"], strict=True):
                assert scope["Scope"]["Name"] == want_scope["scope"].get("name", "")
                for span, want in zip(scope["Spans"], want_scope["spans"], strict=True):
                    count += 1
                    services[service] = services.get(service, 0) + 1
                    assert_same_span(span, want)
        # How services are counted is derived from the spans; lists of maps come as pairs.
        assert {name: stat["SpanCount"] for name, stat in row["ServiceStats"]} == services
        assert sum(services.values()) == count
    return rows


def assert_same_span(span, want):
    assert span["SpanID"].hex() == want.get("spanId", "")
    assert span["ParentSpanID"].hex() == want.get("parentSpanId", "")
    assert (span["Name"], span["Kind"]) == (want.get("name", ""), want.get("kind", 0))
    start, end = int(want.get("startTimeUnixNano", 0)), int(want.get("endTimeUnixNano", 0))
    assert (span["StartTimeUnixNano"], span["DurationNano"]) == (start, (end - start) % 2**64)
    assert span["StatusCode"] == want["status"].get("code", 0)
    for event, want_event in zip(span["Events"], want.get("events", []), strict=True):
        assert event["Name"] == want_event.get("name", "")
    for link, want_link in zip(span["Links"], want.get("links", []), strict=True):
        assert link["TraceID"].hex() == want_link.get("traceId", "")
    # Generic attributes come first, in their order; then those with a column of their own.
    wanted = want.get("attributes", [])
    for attribute, want_attribute in zip(span["Attrs"], wanted):
        assert attribute["Key"] == want_attribute.get("key", "")
        got = value(attribute)
        if not isinstance(got, (list, dict)) and got is not None:
            expected = otlp(want_attribute["value"])
            assert got == expected or str(got) == str(expected), want_attribute
    own = {a["key"]: otlp(a["value"]) for a in wanted[len(span["Attrs"]) :]}
    for key, column in {"http.method": "HttpMethod", "http.url": "HttpUrl", "http.status_code": "HttpStatusCode"}.items():
        assert span[column] == own.get(key)


@pytest.mark.parametrize("name", ["v4-edge-default", "v4-edge-dedicated", "v4-bulk-rowgroups", "v5-edge-default", "v5-compacted"])
def test_arrow_reads_what_is_converted(tmp_path, name):
    old = golden(tmp_path, name)
    written = cli("convert", old, "--to", tmp_path / "new").split("Written to ")[1].splitlines()[0]
    rows = assert_arrow_reads(Path(written))
    assert len(rows) == json.loads((old / "meta.json").read_text())["totalObjects"]
    report = cli("verify", written)
    assert "Nothing is wrong." in report and "FAILED" not in report, report
    # Spans are the same ones, whatever the format before.
    ids = lambda traces: {t: sorted(s.get("spanId", "") for r in rs for c in r["scopeSpans"] for s in c["spans"]) for t, rs in traces.items()}  # noqa: E731
    assert ids(dump(old)) == ids(dump(written))


def test_arrow_reads_what_is_ingested(all_in_one):
    one = all_in_one.start()
    sdk = spans.Sdk("arrow-shop", grpc=f"127.0.0.1:{one.otlp_grpc}")
    sent = {sdk.order(number) for number in range(20)}
    sdk.close()
    assert http(f"{one.program.url}/flush", data=b"", method="POST").status == 204
    blocks = eventually("a block is in the bucket", lambda: list(one.folder.glob("blocks/single-tenant/*/meta.json")))
    rows = [row for meta in blocks for row in assert_arrow_reads(meta.parent)]
    assert {row["TraceID"].hex() for row in rows} == sent
    assert {(row["RootServiceName"], row["RootSpanName"]) for row in rows} == {("arrow-shop", "POST /order")}
    assert all([(name, s["SpanCount"], s["ErrorCount"]) for name, s in row["ServiceStats"]] == [("arrow-shop", 4, 1)] for row in rows)
    root = lambda row: next(s for r in row["rs"] for c in r["ss"] for s in c["Spans"] if s["ParentID"] == -1)  # noqa: E731
    numbers = {value(a) for row in rows for a in root(row)["Attrs"] if a["Key"] == "order.number"}
    assert numbers == set(range(20))
    for meta in blocks:
        assert "Nothing is wrong." in cli("verify", meta.parent)
        assert "order.number" in cli("analyse", meta.parent, "--top", "50")


def test_a_block_is_converted_into_s3_and_verified_there(tmp_path, minio):
    old = golden(tmp_path, "v5-compacted")
    keys = {"AWS_ACCESS_KEY_ID": minio.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": minio.SECRET_KEY}
    server = ["--endpoint", minio.endpoint, "--insecure"]
    bucket = f"s3://{harness.Cluster.BUCKET}/some/prefix"
    written = cli("convert", old, "--to", bucket, *server, **keys).split("Written to ")[1].splitlines()[0]
    assert written.startswith(f"{bucket}/single-tenant/")
    objects = {o.object_name.rsplit("/", 1)[1] for o in minio.client().list_objects(harness.Cluster.BUCKET, recursive=True)}
    assert objects == {"data.parquet", "bloom-0", "index", "meta.json"}
    assert "Nothing is wrong." in cli("verify", written, *server, **keys)
    assert len(cli("dump", written, *server, **keys).splitlines()) == 60
    minio.client().remove_object(harness.Cluster.BUCKET, f"{written.removeprefix(f's3://{harness.Cluster.BUCKET}/')}/bloom-0")
    assert "bloom-0: is missing" in cli("verify", written, *server, status=1, **keys)


def test_a_damaged_block_is_an_exit_code(tmp_path):
    block = golden(tmp_path, "v4-three-blocks-1")
    cli("verify", block)
    data = bytearray((block / "data.parquet").read_bytes())
    data[300] ^= 1
    (block / "data.parquet").write_bytes(data)
    report = cli("verify", block, status=1)
    assert "column TraceID: a page's checksum is wrong" in report, report
    assert "checksum" in cli("dump", block, status=1)


def test_a_reader_of_a_dump_may_stop_early(tmp_path):
    block = golden(tmp_path, "v4-bulk-rowgroups")
    command = [harness.binaries() / "vivace-cli", "block", "dump", str(block)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        # As after SIGPIPE.
        assert process.wait(timeout=60) == 141, errors
    assert json.loads(first) and errors == b""
