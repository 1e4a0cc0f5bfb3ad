//! Searches, as a table of traces. What the server says against a query is shown below the query where it names a place; metrics
//! queries do the same with [`place`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::StatusCode;
use serde::Deserialize;
use vivace_proto::otlp::KeyValue;

use crate::client::{Client, Refusal, accepted};
use crate::text::{bytes, count, duration, pointed, short, table};
use crate::times::Times;
use crate::trace::plain;

/// Traces that a TraceQL query finds, newest first.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The query, such as '{ resource.service.name = "shop" && status = error }'.
    traceql: String,
    #[command(flatten)]
    times: Times,
    /// Traces at most.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Matching spans to show below each trace.
    #[arg(long)]
    spss: Option<u32>,
    /// Print the server's JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// The parts of a search answer that are shown. 64-bit numbers are texts in JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    traces: Vec<Trace>,
    metrics: Metrics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metrics {
    inspected_bytes: String,
    total_blocks: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Trace {
    #[serde(rename = "traceID")]
    trace_id: String,
    root_service_name: String,
    root_trace_name: String,
    start_time_unix_nano: String,
    duration_ms: u64,
    span_sets: Vec<SpanSet>,
    service_stats: BTreeMap<String, ServiceStats>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceStats {
    span_count: u64,
    error_count: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpanSet {
    spans: Vec<Span>,
    matched: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Span {
    #[serde(rename = "spanID")]
    span_id: String,
    name: String,
    duration_nanos: String,
    attributes: Vec<KeyValue>,
}

pub(crate) async fn run(command: Command, client: &Client) -> anyhow::Result<String> {
    let query = command.traceql.trim();
    if let Err(vivace_traceql::QueryError::Parse(error)) = vivace_traceql::parse(query) {
        bail!("{}", pointed(query, error.line, error.column, &error.reason));
    }
    let mut parameters = command.times.parameters()?;
    parameters.push(("q", query.to_owned()));
    parameters.push(("limit", command.limit.to_string()));
    if let Some(spss) = command.spss {
        parameters.push(("spss", spss.to_string()));
    }
    let body = match client.json("/api/search", &parameters).await? {
        Err(Refusal { status: StatusCode::BAD_REQUEST, text }) => match place(&text) {
            Some((line, column, reason)) => bail!("{}", pointed(query, line, column, &reason)),
            None => bail!("the server refuses this query: {text}"),
        },
        other => accepted(other)?,
    };
    if command.json {
        let value: serde_json::Value = serde_json::from_slice(&body).context("the server's answer is no JSON")?;
        return Ok(format!("{value:#}\n"));
    }
    let answer: Answer =
        serde_json::from_slice(&body).context("the server's answer is no search result; does --address name a query-frontend?")?;
    Ok(show(&answer, command.spss.is_some()))
}

/// Finds `line 1, col 9: reason` in what the server says.
pub(crate) fn place(text: &str) -> Option<(usize, usize, String)> {
    let (line, rest) = text.split_once("line ")?.1.split_once(", col ")?;
    let (column, reason) = rest.split_once(':')?;
    Some((line.trim().parse().ok()?, column.trim().parse().ok()?, reason.trim().to_owned()))
}

fn show(answer: &Answer, spans: bool) -> String {
    let Answer { traces, metrics } = answer;
    let read = format!("{} read in {}", bytes(metrics.inspected_bytes.parse().unwrap_or_default()), count(metrics.total_blocks, "block"));
    if traces.is_empty() {
        return format!("No trace matches ({read}). A wider range may help: --since 24h.\n");
    }
    let rows: Vec<Vec<String>> = traces.iter().map(row).collect();
    let listing = table(&["TRACE ID", "START", "DURATION", "ROOT", "SPANS", "ERRORS", "MATCHED"], &rows);
    let mut out = String::new();
    for (index, line) in listing.lines().enumerate() {
        let _ = writeln!(out, "{line}");
        let Some(trace) = index.checked_sub(1).and_then(|index| traces.get(index)).filter(|_| spans) else { continue };
        for span in trace.span_sets.iter().flat_map(|set| &set.spans) {
            let attributes: Vec<String> = span
                .attributes
                .iter()
                .map(|attribute| format!("{}={}", attribute.key, attribute.value.as_ref().map_or_else(String::new, plain)))
                .collect();
            let took = duration(span.duration_nanos.parse().unwrap_or_default());
            let _ = writeln!(out, "  {}  {:>8}  {}  {}", span.span_id, took, short(&span.name, 60), attributes.join(" "));
        }
    }
    let _ = writeln!(out, "{}, {read}", count(traces.len() as u64, "trace"));
    out
}

fn row(trace: &Trace) -> Vec<String> {
    let start: u64 = trace.start_time_unix_nano.parse().unwrap_or_default();
    let sum = |of: fn(&ServiceStats) -> u64| trace.service_stats.values().map(of).sum::<u64>().to_string();
    vec![
        format!("{:0>32}", trace.trace_id),
        vivace_block::rfc3339(start / 1_000_000 * 1_000_000),
        duration(trace.duration_ms * 1_000_000),
        short(&format!("{}: {}", trace.root_service_name, trace.root_trace_name), 60),
        sum(|stats| stats.span_count),
        sum(|stats| stats.error_count),
        trace.span_sets.iter().map(|set| set.matched).sum::<u64>().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_a_table() {
        let json = r#"{"traces":[{"traceID":"1f","rootServiceName":"shop","rootTraceName":"pay","startTimeUnixNano":"1700000000000000000",
            "durationMs":12,"spanSets":[{"spans":[{"spanID":"00000000000000aa","durationNanos":"9000000",
            "attributes":[{"key":"status","value":{"stringValue":"error"}}]}],"matched":1}],
            "serviceStats":{"shop":{"spanCount":4,"errorCount":1}}}],"metrics":{"inspectedBytes":"4096","totalBlocks":2,"somethingNew":1}}"#;
        let answer: Answer = serde_json::from_str(json).expect("an answer");
        let want = "\
TRACE ID                          START                 DURATION  ROOT       SPANS  ERRORS  MATCHED
0000000000000000000000000000001f  2023-11-14T22:13:20Z  12.0ms    shop: pay  4      1       1
  00000000000000aa    9.00ms    status=error
1 trace, 4.0 KiB read in 2 blocks
";
        assert_eq!(show(&answer, true), want);
    }

    #[test]
    fn the_server_s_place_is_found() {
        let text = "invalid TraceQL query: parse error at line 1, col 9: unexpected end";
        assert_eq!(place(text), Some((1, 9, "unexpected end".to_owned())));
        assert_eq!(place("limit must be a positive number"), None);
    }
}
