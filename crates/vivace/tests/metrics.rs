//! docs/metrics.md is current, and the metrics keep to the rules of their names. `UPDATE_GOLDEN=1` writes the page anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use vivace_core::metric::{Kind, Metric, Unit};

const HEAD: &str = "\
# Metrics

What `/metrics` has, by who counts it; the single binary has all of it.
Those that Tempo has keep its names and meaning, so that dashboards and alerts made for it go on working, and so do those that Prometheus' clients publish everywhere; all others start with `vivace_`.
A series appears once there is something to count. Where no buckets are named, those of a histogram go from 0.005 to 10.
The page is written by `UPDATE_GOLDEN=1 cargo test -p vivace --test metrics` from each crate's `src/metrics.rs`.
";

fn page() -> String {
    let mut out = HEAD.to_owned();
    for (who, metrics) in vivace::METRICS {
        writeln!(out, "\n## {who}\n\n| metric | kind | labels | what |\n|---|---|---|---|").expect("writing to a string does not fail");
        for metric in metrics {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, labels) = (metric.name, metric.kind.as_str(), labels.join(", "));
            writeln!(out, "| `{name}` | {kind} | {labels} | {}{} |", metric.help, buckets(metric))
                .expect("writing to a string does not fail");
        }
    }
    out
}

fn buckets(metric: &Metric) -> String {
    let bounds: Vec<String> = metric.buckets.iter().map(f64::to_string).collect();
    if bounds.is_empty() { String::new() } else { format!(" Buckets: {}.", bounds.join(", ")) }
}

#[test]
fn the_page_is_current() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let fresh = page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&committed, fresh).expect("docs/metrics.md is written");
        return;
    }
    let same = std::fs::read_to_string(&committed).is_ok_and(|text| text == fresh);
    assert!(same, "docs/metrics.md is out of date; run `UPDATE_GOLDEN=1 cargo test -p vivace --test metrics`");
}

#[test]
fn names_say_what_a_metric_is() {
    let mut names = BTreeSet::new();
    for metric in vivace::METRICS.iter().flat_map(|(_, metrics)| *metrics) {
        let Metric { name, kind, unit, help, buckets, .. } = *metric;
        assert!(names.insert(name), "{name} stands in the list twice");
        let measure = name.trim_end_matches("_total");
        let by_name = [("_bytes", Unit::Bytes), ("_seconds", Unit::Seconds)].into_iter().find(|(end, _)| measure.ends_with(end));
        assert!(by_name.is_none_or(|(_, of_name)| of_name == unit), "{name} is in {unit:?}");
        assert!(help.ends_with('.') && !help.contains(['\n', '|']), "the help of {name} is no sentence: {help}");
        assert!(buckets.is_empty() || kind == Kind::Histogram, "{name} has buckets and is no histogram");
        assert!(buckets.is_sorted_by(|a, b| a < b), "buckets of {name}");
        if name.starts_with("vivace_") && !name.ends_with("_info") {
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "counters of ours, and they alone, end in _total: {name}");
        }
    }
}
