#!/usr/bin/env python3
"""Writes Grafana's dashboards into the chart: charts/vivace-distributed/files/dashboards/*.json.

Change them here, run this, and commit both. `job` is <namespace>/<component>, as the chart's ServiceMonitors set it.

    scripts/dashboards.py          # writes the files
    scripts/dashboards.py --check  # fails where a file is not current
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "charts" / "vivace-distributed" / "files" / "dashboards"
# Grafana's grid has 24 columns.
PANELS_PER_ROW, PANEL_WIDTH, PANEL_HEIGHT = 3, 8, 7
RATE = "[$__rate_interval]"
JOB = 'job=~"$job"'


class Panel:
    """A time series. `quiet` ones have nothing to show while nothing goes wrong, or nothing of their kind happens."""

    def __init__(self, title, unit, *queries, about="", quiet=False):
        self.title, self.unit, self.queries, self.about, self.quiet = title, unit, queries, about, quiet


def rate(metric, by="", more=""):
    """Sum of a counter's rate, and its legend."""
    labels = ", ".join(filter(None, [JOB, more]))
    grouped = f" by ({by})" if by else ""
    legend = " ".join("{{%s}}" % name.strip() for name in by.split(",")) if by else "all"
    return f"sum{grouped} (rate({metric}{{{labels}}}{RATE}))", legend


def gauge(metric, by="", more="", how="sum"):
    labels = ", ".join(filter(None, [JOB, more]))
    grouped = f" by ({by})" if by else ""
    legend = " ".join("{{%s}}" % name.strip() for name in by.split(",")) if by else "all"
    return f"{how}{grouped} ({metric}{{{labels}}})", legend


def quantiles(metric, more=""):
    labels = ", ".join(filter(None, [JOB, more]))
    return [(f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{labels}}}{RATE})))", f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)]


WRITES = {
    "Received": [
        Panel("Spans", "spans/s", rate("tempo_distributor_spans_received_total", "tenant")),
        Panel("Bytes", "Bps", rate("tempo_distributor_bytes_received_total", "tenant")),
        Panel("By receiver", "spans/s", rate("tempo_receiver_accepted_spans", "receiver, transport")),
    ],
    "Refused": [
        Panel("Spans of refused requests", "spans/s", rate("tempo_receiver_refused_spans", "receiver, transport")),
        Panel("Spans dropped for good", "spans/s", rate("tempo_discarded_spans_total", "reason, tenant"), quiet=True),
        Panel("Refused for want of memory", "ops", rate("vivace_memory_refused_total", "job, account"), quiet=True),
    ],
    "Acknowledged": [
        Panel("Time until a quorum has it", "s", *quantiles("tempo_distributor_push_duration_seconds")),
        Panel("Segments that an ingester did not take", "ops", rate("tempo_distributor_ingester_append_failures_total", "ingester"), quiet=True),
        Panel("Log written", "Bps", rate("vivace_ingester_log_bytes_total", "job"), about="With copies held for other ingesters."),
    ],
    "Flushed": [
        Panel("Blocks", "ops", rate("tempo_ingester_blocks_flushed_total", "job")),
        Panel("Time of a flush", "s", *quantiles("tempo_ingester_flush_duration_seconds")),
        Panel("Failed tries", "ops", rate("tempo_ingester_failed_flushes_total", "job"), quiet=True),
    ],
    "Waiting": [
        Panel("Live traces", "short", gauge("tempo_ingester_live_traces", "tenant")),
        Panel("Log's files", "bytes", gauge("vivace_ingester_log_size_bytes", "job")),
        Panel(
            "Held for others; short of copies",
            "short",
            (gauge("vivace_ingester_held_segments")[0], "held"),
            (gauge("vivace_ingester_under_replicated_segments")[0], "fewer copies than acknowledged"),
        ),
    ],
    "Merged": [
        Panel("Blocks to be merged", "short", gauge("tempodb_compaction_outstanding_blocks", "tenant", how="max")),
        Panel("Blocks merged", "ops", rate("tempodb_compaction_blocks_total", "level"), quiet=True),
        Panel(
            "Failed merges and retention",
            "ops",
            (rate("tempodb_compaction_errors_total")[0], "merging"),
            (rate("tempodb_retention_errors_total")[0], "retention"),
            quiet=True,
        ),
    ],
}

READS = {
    "Queries": [
        Panel("By kind", "reqps", rate("tempo_query_frontend_queries_total", "op, result")),
        Panel("Time", "s", *quantiles("tempo_request_duration_seconds", 'route=~"api_.+"')),
        Panel(
            "Share within the objective",
            "percentunit",
            (
                f"sum by (op) (rate(tempo_query_frontend_queries_within_slo_total{{{JOB}}}{RATE})) "
                f"/ sum by (op) (rate(tempo_query_frontend_queries_total{{{JOB}}}{RATE}))",
                "{{op}}",
            ),
        ),
    ],
    "Jobs": [
        Panel("Waiting for a querier", "short", gauge("tempo_query_frontend_queue_length", "user")),
        Panel("Time waited", "s", *quantiles("tempo_query_frontend_queue_duration_seconds")),
        Panel(
            "Time of a job",
            "s",
            (f"histogram_quantile(0.95, sum by (le, exported_job) (rate(vivace_querier_job_duration_seconds_bucket{{{JOB}}}{RATE})))", "p95 {{exported_job}}"),
        ),
    ],
    "What goes wrong": [
        Panel("Refused queries", "reqps", rate("tempo_query_frontend_discarded_requests_total", "user"), quiet=True),
        Panel("Calls of ingesters that failed", "ops", rate("vivace_querier_ingester_failures_total"), quiet=True),
        Panel("Left out of answers", "ops", rate("vivace_ingester_left_out_total", "what"), rate("vivace_storage_bad_objects_total", "tenant"), quiet=True),
    ],
    "Bucket": [
        Panel("Read", "Bps", rate("vivace_storage_read_bytes_total", "job")),
        Panel("Caches", "ops", rate("vivace_storage_cache_requests_total", "role, status")),
        Panel("Blocks", "short", gauge("tempodb_blocklist_length", "tenant", how="max")),
    ],
}

RESOURCES = {
    "Processor": [
        Panel("Cores used", "short", rate("process_cpu_seconds_total", "job, instance")),
        Panel("Tasks", "short", gauge("go_goroutines", "job, instance")),
        Panel("Threads", "short", gauge("process_threads", "job, instance")),
    ],
    "Memory": [
        Panel("Resident", "bytes", gauge("process_resident_memory_bytes", "job, instance")),
        Panel("Budget by account", "bytes", gauge("vivace_memory_bytes", "account")),
        Panel(
            "Share of the budget",
            "percentunit",
            (f"sum by (job, instance) (vivace_memory_bytes{{{JOB}}}) / sum by (job, instance) (vivace_memory_limit_bytes{{{JOB}}})", "{{job}} {{instance}}"),
        ),
    ],
    "Connections": [
        Panel("Open", "short", gauge("tempo_tcp_connections", "job, protocol")),
        Panel("Cut and refused", "ops", rate("vivace_connections_cut_total", "protocol, reason"), rate("vivace_connections_refused_total", "protocol"), quiet=True),
        Panel("Open files", "short", gauge("process_open_fds", "job, instance")),
    ],
}

TENANT = 'tenant=~"$tenant"'
TENANTS = {
    "Received": [
        Panel("Spans", "spans/s", rate("tempo_distributor_spans_received_total", "tenant", TENANT)),
        Panel("Bytes", "Bps", rate("tempo_distributor_bytes_received_total", "tenant", TENANT)),
        Panel("Dropped for good", "spans/s", rate("tempo_discarded_spans_total", "tenant, reason", TENANT), quiet=True),
    ],
    "Kept": [
        Panel("Live traces", "short", gauge("tempo_ingester_live_traces", "tenant", TENANT)),
        Panel("Bytes in the bucket", "bytes", gauge("tempodb_backend_bytes_total", "tenant, status", TENANT, how="max")),
        Panel("Spans with another's id and other content", "spans/s", rate("vivace_ingester_conflicting_spans_total", "tenant", TENANT), quiet=True),
    ],
    "Asked": [
        Panel("Queries", "reqps", rate("tempo_query_frontend_queries_total", "tenant, op", TENANT)),
        Panel("Bytes looked at", "Bps", rate("tempo_query_frontend_bytes_inspected_total", "tenant, op", TENANT)),
        Panel("Series of metrics", "short", gauge("tempo_metrics_generator_registry_active_series", "tenant", TENANT)),
    ],
    "Limits": [
        Panel("Defaults", "short", gauge("tempo_limits_defaults", "limit_name", how="max")),
        Panel("Of its own", "short", gauge("tempo_limits_overrides", "user, limit_name", 'user=~"$tenant"', how="max"), quiet=True),
        Panel("Attributes cut", "ops", rate("tempo_distributor_attributes_truncated_total", "tenant", TENANT), quiet=True),
    ],
}

ROLLOUT = {
    "Versions": [
        Panel("Processes", "short", gauge("vivace_build_info", "job, version", how="count")),
        Panel("Running for", "s", (f"time() - min by (job, instance) (process_start_time_seconds{{{JOB}}})", "{{job}} {{instance}}")),
        Panel("Members of rings", "short", gauge("tempo_ring_members", "name, state", how="max")),
    ],
    "While it goes on": [
        Panel("Requests that fail", "reqps", rate("tempo_request_duration_seconds_count", "job, route", 'status_code=~"5.."'), quiet=True),
        Panel("Segments taken over", "ops", rate("vivace_ingester_adopted_segments_total", "job"), quiet=True),
        Panel("Replay that failed", "ops", rate("tempo_ingester_replay_errors_total", "job"), quiet=True),
    ],
}

GENERATOR = {
    "Spans": [
        Panel("Received", "spans/s", rate("tempo_metrics_generator_spans_received_total", "tenant")),
        Panel("In no metric", "spans/s", rate("tempo_metrics_generator_spans_discarded_total", "tenant, reason, processor"), quiet=True),
        Panel("Requests that were dropped on their way", "ops", rate("tempo_distributor_queue_pushes_failures_total", "name, tenant"), quiet=True),
    ],
    "Series": [
        Panel("Active", "short", gauge("tempo_metrics_generator_registry_active_series", "tenant")),
        Panel("Not made for want of room", "ops", rate("tempo_metrics_generator_registry_series_limited_total", "tenant"), quiet=True),
        Panel("Collections", "ops", rate("tempo_metrics_generator_registry_collections_total", "tenant")),
    ],
    "Remote write": [
        Panel("Taken by the receiver", "ops", rate("prometheus_remote_storage_samples_total", "tenant, url"), quiet=True),
        Panel("Tried again", "ops", rate("prometheus_remote_storage_samples_retried_total", "tenant, url"), quiet=True),
        Panel(
            "Lost",
            "ops",
            rate("prometheus_remote_storage_samples_failed_total", "tenant, url"),
            rate("prometheus_remote_storage_samples_dropped_total", "tenant"),
            quiet=True,
        ),
    ],
}

# By file: title, rows of panels, and the variables beside the data source.
DASHBOARDS = {
    "writes": ("Vivace / Writes", WRITES, ["job"]),
    "reads": ("Vivace / Reads", READS, ["job"]),
    "resources": ("Vivace / Resources", RESOURCES, ["job"]),
    "tenants": ("Vivace / Tenants", TENANTS, ["job", "tenant"]),
    "rollout": ("Vivace / Rollout", ROLLOUT, ["job"]),
    "generator": ("Vivace / Metrics-generator", GENERATOR, ["job"]),
}
VARIABLES = {"job": "label_values(vivace_build_info, job)", "tenant": "label_values(tempo_distributor_spans_received_total, tenant)"}


def panels():
    """Dashboard, row and panel, of all."""
    for file, (_, rows, _) in DASHBOARDS.items():
        for row, members in rows.items():
            yield from ((file, row, panel) for panel in members)


def dashboard(file):
    title, rows, variables = DASHBOARDS[file]
    source = {"type": "prometheus", "uid": "${datasource}"}
    out, y = [], 0
    for row, members in rows.items():
        out.append({"type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        for index, panel in enumerate(members):
            x, down = index % PANELS_PER_ROW * PANEL_WIDTH, index // PANELS_PER_ROW * PANEL_HEIGHT
            out.append(
                {
                    "type": "timeseries",
                    "title": panel.title,
                    "description": panel.about,
                    "datasource": source,
                    "gridPos": {"x": x, "y": y + down, "w": PANEL_WIDTH, "h": PANEL_HEIGHT},
                    "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
                    "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
                    "targets": [
                        {"refId": chr(ord("A") + n), "datasource": source, "expr": expr, "legendFormat": legend}
                        for n, (expr, legend) in enumerate(panel.queries)
                    ],
                }
            )
        y += -(-len(members) // PANELS_PER_ROW) * PANEL_HEIGHT
    for number, panel in enumerate(out, 1):
        panel["id"] = number
    chosen = [
        {
            "name": name,
            "label": name,
            "type": "query",
            "datasource": source,
            "query": {"query": VARIABLES[name], "refId": name},
            "refresh": 2,
            "sort": 1,
            "includeAll": True,
            "allValue": ".+",
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        }
        for name in variables
    ]
    return {
        "uid": f"vivace-{file}",
        "title": title,
        "tags": ["vivace"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"}, *chosen]},
        "links": [{"title": "Vivace", "type": "dashboards", "tags": ["vivace"], "asDropdown": True, "keepTime": True}],
        "panels": out,
    }


def main():
    stale = []
    FOLDER.mkdir(exist_ok=True)
    for file in DASHBOARDS:
        path, text = FOLDER / f"{file}.json", json.dumps(dashboard(file), indent=1) + "\n"
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"not current, run scripts/dashboards.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
