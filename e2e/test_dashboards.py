"""Dashboards ask for series that exist, and show something."""

import re
import subprocess
import sys

import dashboards
import pytest
import tools

import charts
import harness
import spans
from harness import eventually

DISTRIBUTED = tools.ROOT / "charts" / "vivace-distributed"
# What a query may name beside the labels of its metric: Prometheus' own.
SCRAPED = {"job", "instance", "le", "exported_job"}


def documented():
    """Labels by metric, as docs/metrics.md has them, which a test of the crates holds against the code."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", (tools.ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    names = {}
    for name, kind, labels in rows:
        suffixes = ["_bucket", "_count", "_sum"] if kind == "histogram" else [""]
        for suffix in suffixes:
            names[name + suffix] = set(re.findall(r"`(\w+)`", labels))
    return names


def test_the_files_are_current():
    done = subprocess.run([sys.executable, tools.ROOT / "scripts" / "dashboards.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_metric_and_label_exists():
    known = documented()
    for file, row, panel in dashboards.panels():
        for expr, _ in panel.queries:
            metrics = set(re.findall(r"(\w+)\{", expr))
            assert metrics and metrics <= set(known), f"{file}, {row}, {panel.title}: {metrics - set(known)}"
            labels = set(re.findall(r"(\w+)=~?\"", expr)) | {name for names in re.findall(r"by \(([^)]*)\)", expr) for name in names.split(", ")}
            there = SCRAPED.union(*(known[metric] for metric in metrics))
            assert labels <= there, f"{file}, {row}, {panel.title}: {labels - there}"


def test_the_chart_brings_them_when_asked():
    assert not [o for o in charts.render(DISTRIBUTED) if "dashboard" in o["metadata"]["name"]]
    objects = charts.render(DISTRIBUTED, values="{dashboards: {enabled: true, labels: {grafana_dashboard: yes-please}}}")
    maps = [o for o in objects if o["kind"] == "ConfigMap" and "dashboard" in o["metadata"]["name"]]
    assert len(maps) == len(dashboards.DASHBOARDS)
    for one in maps:
        assert one["metadata"]["labels"]["grafana_dashboard"] == "yes-please"
        ((file, text),) = one["data"].items()
        assert text == (dashboards.FOLDER / file).read_text().rstrip("\n")


@pytest.fixture
def watched(tmp_path, programs):
    """A Prometheus that scrapes a process with some of everything in it."""
    one = harness.AllInOne(tmp_path)
    extra = (
        f"metrics_generator: {{storage: {{path: {tmp_path}/generator}}}}\n"
        "overrides: {defaults: {metrics_generator: {processors: [span-metrics], collection_interval: 1s}}}\n"
    )
    (tmp_path / "vivace.yaml").write_text(one.default_config(extra))
    programs.append(one.program)
    one.start()
    prometheus = harness.Prometheus(tmp_path, {"obs/all": one.program.url.removeprefix("http://")})
    programs.append(prometheus)
    prometheus.start()
    sdk = spans.Sdk("watched", grpc=f"127.0.0.1:{one.otlp_grpc}")
    return one, prometheus, sdk


def test_panels_show_something(watched):
    one, prometheus, sdk = watched

    def missing():
        trace_id = sdk.order(1)
        one.query.get(f"/api/v2/traces/{trace_id}")
        one.query.get("/api/search", q="{ }")
        one.query.get("/api/v2/search/tags")
        one.query.get("/api/metrics/query_range", q="{ } | rate()", since="10m")
        harness.http(f"{one.program.url}/flush", method="POST")
        empty = []
        for file, row, panel in dashboards.panels():
            for expr, _ in panel.queries:
                filled = expr.replace("$__rate_interval", "1m").replace("$job", ".+").replace("$tenant", ".+")
                # A mistake in the query is an error even where there is nothing to show.
                if not prometheus.query(filled) and not panel.quiet:
                    empty.append(f"{file}, {row}, {panel.title}: {filled}")
        return empty

    last = []

    def all_show():
        last[:] = missing()
        return not last

    try:
        eventually("every panel shows something", all_show, seconds=60)
    except AssertionError:
        raise AssertionError("nothing to show in:\n" + "\n".join(last)) from None
    finally:
        sdk.close()
