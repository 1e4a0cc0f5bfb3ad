//! Series drawn as text. The query is parsed here before the server is asked, so that a typing error is shown in its place at
//! once.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::StatusCode;
use serde::Deserialize;
use vivace_proto::otlp::KeyValue;

use crate::client::{Client, Refusal, accepted};
use crate::search::place;
use crate::text::{bytes, count, pointed, short, table};
use crate::times::Times;
use crate::trace::plain;

/// Characters of a chart.
const CHART_WIDTH: usize = 40;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Series over time that a TraceQL metrics query makes, such as '{ status = error } | rate() by (resource.service.name)'.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The query: a search, then a metrics function.
    traceql: String,
    #[command(flatten)]
    times: Times,
    /// Time between two samples, such as 15s or 5m. Without it the server chooses.
    #[arg(long, conflicts_with = "instant")]
    step: Option<String>,
    /// One value per series over the whole range instead of samples over time.
    #[arg(long)]
    instant: bool,
    /// Print the server's JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// The parts of an answer that are shown. 64-bit numbers are texts in JSON, and zeros are left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    series: Vec<Series>,
    metrics: Metrics,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metrics {
    inspected_bytes: String,
    inspected_spans: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Series {
    labels: Vec<KeyValue>,
    samples: Vec<Sample>,
    /// Of instant queries.
    value: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Sample {
    timestamp_ms: String,
    value: f64,
}

pub(crate) async fn run(command: Command, client: &Client) -> anyhow::Result<String> {
    let query = command.traceql.trim();
    if let Err(vivace_traceql::QueryError::Parse(error)) = vivace_traceql::parse(query) {
        bail!("{}", pointed(query, error.line, error.column, &error.reason));
    }
    let mut parameters = command.times.parameters()?;
    parameters.push(("q", query.to_owned()));
    parameters.extend(command.step.map(|step| ("step", step)));
    let path = if command.instant { "/api/metrics/query" } else { "/api/metrics/query_range" };
    let body = match client.json(path, &parameters).await? {
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
        serde_json::from_slice(&body).context("the server's answer is no list of series; does --address name a query-frontend?")?;
    Ok(show(&answer, command.instant))
}

fn show(answer: &Answer, is_instant: bool) -> String {
    let Answer { series, metrics, message } = answer;
    let spans: u64 = metrics.inspected_spans.parse().unwrap_or_default();
    let read = format!("{} read, {} looked at", bytes(metrics.inspected_bytes.parse().unwrap_or_default()), count(spans, "span"));
    if series.is_empty() {
        return format!("No series ({read}). A wider range may help: --since 24h.\n");
    }
    let mut out = if is_instant { values(series) } else { charts(series) };
    let _ = writeln!(out, "{} series, {read}", series.len());
    if !message.is_empty() {
        let _ = writeln!(out, "Not everything is here: {message}");
    }
    out
}

/// One value per series, the largest with the longest bar.
fn values(series: &[Series]) -> String {
    let most = series.iter().map(|series| series.value.abs()).fold(0.0, f64::max);
    let row = |series: &Series| {
        let share = if most > 0.0 { series.value.abs() / most } else { 0.0 };
        vec![name(series), number(series.value), "█".repeat((share * CHART_WIDTH as f64).round() as usize)]
    };
    table(&["SERIES", "VALUE", ""], &series.iter().map(row).collect::<Vec<_>>())
}

/// One line per series, all drawn to one scale.
fn charts(series: &[Series]) -> String {
    let time = |sample: &Sample| sample.timestamp_ms.parse::<u64>().unwrap_or_default();
    let times = || series.iter().flat_map(|series| &series.samples).map(time);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return String::new() };
    let most = series.iter().flat_map(|series| &series.samples).map(|sample| sample.value).fold(0.0, f64::max);
    let row = |series: &Series| {
        let all = || series.samples.iter().map(|sample| sample.value);
        let mean = all().sum::<f64>() / series.samples.len().max(1) as f64;
        let newest = series.samples.last().map_or(0.0, |sample| sample.value);
        let (least, greatest) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let points: Vec<(u64, f64)> = series.samples.iter().map(|sample| (time(sample), sample.value)).collect();
        vec![name(series), number(least), number(mean), number(greatest), number(newest), chart(&points, first, last, most)]
    };
    let rfc3339 = |ms: u64| vivace_block::rfc3339(ms * 1_000_000);
    let over_time = format!("{} to {}", rfc3339(first), rfc3339(last));
    table(&["SERIES", "MIN", "MEAN", "MAX", "LAST", &over_time], &series.iter().map(row).collect::<Vec<_>>())
}

/// A line of blocks, each as high as the largest value of its part of the time; blank where there is none.
fn chart(points: &[(u64, f64)], first: u64, last: u64, most: f64) -> String {
    let width = CHART_WIDTH.min(usize::try_from(last - first).unwrap_or(usize::MAX).saturating_add(1));
    let mut columns: Vec<Option<f64>> = vec![None; width];
    for (time, value) in points {
        let column = (time - first) as usize * (width - 1) / (last - first).max(1) as usize;
        let column = &mut columns[column];
        *column = Some(column.map_or(*value, |known: f64| known.max(*value)));
    }
    let level = |value: f64| {
        let share = if most > 0.0 { value.max(0.0) / most } else { 0.0 };
        LEVELS[((share * 7.0).round() as usize).min(7)]
    };
    columns.into_iter().map(|value| value.map_or(' ', level)).collect()
}

fn name(series: &Series) -> String {
    let label = |label: &KeyValue| format!("{}={}", label.key, label.value.as_ref().map_or_else(String::new, plain));
    short(&series.labels.iter().map(label).collect::<Vec<_>>().join(" "), 60)
}

/// Three digits or all that stand before the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        v if v >= 100.0 => 0,
        v if v >= 1.0 => 2,
        v if v >= 0.001 => 4,
        _ => return format!("{value:.2e}"),
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_line_of_blocks_per_series() {
        let json = r#"{"series":[
            {"labels":[{"key":"resource.service.name","value":{"stringValue":"shop"}}],"samples":[
              {"timestampMs":"1700000000000","value":1},{"timestampMs":"1700000060000","value":4},{"timestampMs":"1700000120000"}]},
            {"labels":[{"key":"resource.service.name","value":{"stringValue":"cart"}}],"samples":[{"timestampMs":"1700000120000","value":0.0625}]}],
            "metrics":{"inspectedBytes":"4096","inspectedSpans":"12"},"status":"PARTIAL","message":"too many"}"#;
        let shown = show(&serde_json::from_str(json).expect("an answer"), false);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "SERIES                      MIN     MEAN    MAX     LAST    2023-11-14T22:13:20Z to 2023-11-14T22:15:20Z");
        let chart = lines[1].strip_prefix("resource.service.name=shop  0       1.67    4.00    0       ").expect("the line of shop");
        assert_eq!((chart.chars().count(), chart.chars().next(), chart.chars().last()), (40, Some('▃'), Some('▁')));
        assert_eq!(chart.chars().filter(|c| *c == '█').count(), 1);
        assert!(lines[2].starts_with("resource.service.name=cart  0.0625  0.0625  0.0625  0.0625  "), "{}", lines[2]);
        assert_eq!(lines[3], "2 series, 4.0 KiB read, 12 spans looked at");
        assert_eq!(lines[4], "Not everything is here: too many");
    }

    #[test]
    fn an_instant_is_a_bar_per_series() {
        let json = r#"{"series":[{"labels":[{"key":"__name__","value":{"stringValue":"rate"}}],"value":250},
            {"labels":[{"key":"p","value":{"doubleValue":0.5}}]}],"metrics":{}}"#;
        let shown = show(&serde_json::from_str(json).expect("an answer"), true);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "SERIES         VALUE");
        assert_eq!(lines[1], format!("__name__=rate  250    {}", "█".repeat(40)));
        assert_eq!(lines[2], "p=0.5          0");
    }

    #[test]
    fn nothing_found_says_what_to_try() {
        assert_eq!(show(&Answer::default(), false), "No series (0 B read, 0 spans looked at). A wider range may help: --since 24h.\n");
    }
}
