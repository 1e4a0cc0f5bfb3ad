//! What a receiver gets of a registry.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use vivace_core::TraceId;

use super::*;
use crate::histogram::HistogramShape;
use crate::labels::LabelSet;
use crate::native_histogram::NativeLimits;
use crate::registry::{EntityId, RegistryLimits};

const SECOND: u64 = 1_000_000_000;

fn registry(series_max: usize) -> Registry {
    Registry::new(RegistryLimits { series_max, entities_max: 0, values_max: 0 }, vec![("cluster".to_owned(), "demo".to_owned())])
}

fn entity(registry: &mut Registry, value: &str, now: u64) -> EntityId {
    let mut labels = LabelSet::new(1024, 2048, Vec::new());
    labels.push("span_name", value);
    registry.entity(&mut labels, 1, now)
}

fn add(registry: &mut Registry, value: &str, amount: f64, now: u64) {
    let entity = entity(registry, value, now);
    registry.add(entity, Metric::Calls, amount);
}

fn observe(registry: &mut Registry, shape: &Arc<HistogramShape>, seconds: f64, now: u64) {
    let entity = entity(registry, "a", now);
    let observation = Observation { seconds, weight: 1.0, trace: TraceId::from_slice(&[0, 0x2a]), unix_nanos: now };
    registry.observe(entity, Metric::Latency, shape, observation);
}

fn classic(bounds: &[f64]) -> Arc<HistogramShape> {
    Arc::new(HistogramShape { classic: Some(bounds.into()), native: None })
}

fn collect(registry: &mut Registry, now: u64, stale_before: u64) -> Vec<TimeSeries> {
    let mut collection = Collection::new(registry, now, stale_before, "", 1);
    std::iter::from_fn(|| collection.part(registry)).flatten().collect()
}

fn label<'s>(series: &'s TimeSeries, name: &str) -> &'s str {
    series.labels.iter().find(|label| label.name == name).map_or("", |label| label.value.as_str())
}

/// Names, with the bound, and last values; `stale` for those that ended.
fn shown(series: &[TimeSeries]) -> Vec<String> {
    let mut all: Vec<String> = series
        .iter()
        .map(|series| {
            let le = label(series, "le");
            let name = label(series, "__name__");
            let value = match (series.samples.last(), series.histograms.last()) {
                (Some(sample), _) if sample.value.to_bits() == STALE.to_bits() => "stale".to_owned(),
                (_, Some(histogram)) if histogram.sum.to_bits() == STALE.to_bits() => "stale".to_owned(),
                (Some(sample), _) => sample.value.to_string(),
                (_, Some(histogram)) => format!("{:?}", histogram.count),
                _ => "nothing".to_owned(),
            };
            format!("{name}{}{le} {value}", if le.is_empty() { "" } else { " " })
        })
        .collect();
    all.sort();
    all
}

#[test]
fn new_series_begin_with_a_zero_before_the_minute() {
    let mut registry = registry(0);
    add(&mut registry, "a", 2.0, 1);
    let first = collect(&mut registry, 125 * SECOND, 0);
    let samples: Vec<(f64, i64)> = first[0].samples.iter().map(|s| (s.value, s.timestamp)).collect();
    assert_eq!(samples, [(0.0, 119_999), (2.0, 125_000)]);
    assert_eq!(label(&first[0], "cluster"), "demo");
    assert!(first[0].labels.is_sorted_by_key(|label| &label.name), "as receivers need them");
    assert_eq!(collect(&mut registry, 140 * SECOND, 0)[0].samples.len(), 1);
}

#[test]
fn series_that_have_ended_take_no_room() {
    let mut registry = registry(0);
    (0..5000).for_each(|number| add(&mut registry, &format!("old-{number}"), 1.0, 1));
    collect(&mut registry, 10, 0);
    (0..10).for_each(|number| add(&mut registry, &format!("new-{number}"), 1.0, 20));
    assert_eq!(collect(&mut registry, 30, 15).len(), 5010, "the old ones are said to have ended");
    assert_eq!(collect(&mut registry, 40, 15).len(), 10);
    assert!(registry.entities.capacity() < 100);
    (0..10).for_each(|number| add(&mut registry, &format!("new-{number}"), 1.0, 50));
    let series = collect(&mut registry, 60, 0);
    assert_eq!(series.iter().map(|series| series.samples.last().expect("one").value).collect::<Vec<_>>(), [2.0; 10], "found again");
    assert_eq!((registry.active_series(), registry.active_entities()), (10, 10));
}

#[test]
fn a_zero_never_comes_before_what_was_sent() {
    let mut registry = registry(0);
    add(&mut registry, "a", 2.0, 130 * SECOND);
    collect(&mut registry, 130 * SECOND, 0);
    let ended = collect(&mut registry, 140 * SECOND, 135 * SECOND);
    assert_eq!(shown(&ended), ["traces_spanmetrics_calls_total stale"]);
    assert_eq!(registry.active_series(), 0);
    add(&mut registry, "a", 1.0, 150 * SECOND);
    let again = collect(&mut registry, 150 * SECOND, 0);
    let times: Vec<i64> = again[0].samples.iter().map(|s| s.timestamp).collect();
    assert_eq!(times, [140_001, 150_000], "the end of the minute before is 119999, which is before the last sample");
    assert!(collect(&mut registry, 500 * SECOND, 0).iter().all(|series| series.samples.len() == 1));
}

#[test]
fn what_was_never_sent_ends_in_silence() {
    let mut registry = registry(0);
    add(&mut registry, "a", 2.0, 1);
    assert_eq!(shown(&collect(&mut registry, 140 * SECOND, 100 * SECOND)), [""; 0]);
}

#[test]
fn label_sets_over_the_limit_are_folded_and_totals_stay_right() {
    let mut registry = registry(2);
    for name in ["a", "b", "c", "d", "a"] {
        add(&mut registry, name, 1.0, 1);
    }
    let series = collect(&mut registry, 1, 0);
    assert_eq!(series.iter().map(|s| s.samples.last().expect("one").value).sum::<f64>(), 5.0);
    let folded: Vec<_> = series.iter().filter(|series| label(series, "metric_overflow") == "true").collect();
    assert_eq!((series.len(), folded.len(), folded[0].labels.len()), (3, 1, 3));
    assert_eq!((registry.active_series(), registry.take_changes().series_limited, registry.take_changes().series_limited), (2, 2, 0));
}

#[test]
fn entities_are_limited_as_a_whole() {
    let mut registry = Registry::new(RegistryLimits { series_max: 0, entities_max: 1, values_max: 0 }, Vec::new());
    for name in ["a", "b"] {
        let entity = entity(&mut registry, name, 1);
        registry.add(entity, Metric::Calls, 1.0);
        registry.add(entity, Metric::Size, 1.0);
    }
    let changes = registry.take_changes();
    assert_eq!((registry.active_entities(), changes.entities_limited, changes.series_added), (1, 1, 2));
    assert_eq!(collect(&mut registry, 1, 0).len(), 4);
}

#[test]
fn a_histogram_is_cumulative_and_its_exemplars_are_sent_once() {
    let mut registry = registry(0);
    let shape = classic(&[0.1, 0.25]);
    [0.05, 0.2, 7.0].into_iter().for_each(|seconds| observe(&mut registry, &shape, seconds, 3_000_000));
    let series = collect(&mut registry, 5 * SECOND, 0);
    assert_eq!(
        shown(&series),
        [
            "traces_spanmetrics_latency_bucket +Inf 3",
            "traces_spanmetrics_latency_bucket 0.1 1",
            "traces_spanmetrics_latency_bucket 0.25 2",
            "traces_spanmetrics_latency_count 3",
            "traces_spanmetrics_latency_sum 7.25",
        ]
    );
    let exemplars: Vec<_> = series.iter().flat_map(|series| &series.exemplars).collect();
    let of: Vec<_> = exemplars.iter().map(|e| (e.labels[0].name.as_str(), e.labels[0].value.as_str(), e.value, e.timestamp)).collect();
    assert_eq!(of, [("traceID", "2a", 0.05, 3), ("traceID", "2a", 0.2, 3), ("traceID", "2a", 7.0, 3)]);
    assert!(collect(&mut registry, 6 * SECOND, 0).iter().all(|series| series.exemplars.is_empty()));
}

#[test]
fn other_buckets_end_those_that_are_gone() {
    let mut registry = registry(0);
    observe(&mut registry, &classic(&[0.1, 0.2]), 1.0, 1);
    collect(&mut registry, 5 * SECOND, 0);
    observe(&mut registry, &classic(&[0.2, 0.4]), 1.0, 1);
    assert_eq!(
        shown(&collect(&mut registry, 6 * SECOND, 0)),
        [
            "traces_spanmetrics_latency_bucket +Inf 1",
            "traces_spanmetrics_latency_bucket 0.1 stale",
            "traces_spanmetrics_latency_bucket 0.2 0",
            "traces_spanmetrics_latency_bucket 0.4 0",
            "traces_spanmetrics_latency_count 1",
            "traces_spanmetrics_latency_sum 1",
        ]
    );
    let native = NativeLimits::new(1.1, 100, Duration::ZERO);
    observe(&mut registry, &Arc::new(HistogramShape { classic: None, native: Some(native) }), 1.0, 1);
    let series = collect(&mut registry, 7 * SECOND, 0);
    assert_eq!(series.iter().filter(|series| series.histograms.is_empty()).count(), 5, "all classic series end");
    assert_eq!(series.iter().flat_map(|series| &series.exemplars).count(), 1);
    assert_eq!(registry.active_series(), 1);
    registry.end(|metric| metric == Metric::Latency);
    assert_eq!(shown(&collect(&mut registry, 8 * SECOND, 0)), ["traces_spanmetrics_latency stale"]);
    assert_eq!((registry.active_series(), registry.active_entities()), (0, 0));
}

proptest! {
    #[test]
    fn series_are_bounded_and_nothing_is_lost(
        spans in proptest::collection::vec((0u8..40, 0.0..10.0f64), 1..200),
        most in 1usize..60,
        stale in 0usize..200,
    ) {
        let mut registry = registry(most);
        let shape = classic(&[0.1, 1.0]);
        let mut counted = 0.0;
        for (number, (name, seconds)) in spans.iter().enumerate() {
            let now = number as u64 + 1;
            let mut labels = LabelSet::new(1024, 2048, Vec::new());
            labels.push("span_name", name);
            let entity = registry.entity(&mut labels, 1, now);
            registry.add(entity, Metric::Calls, 1.0);
            let observation = Observation { seconds: *seconds, weight: 1.0, trace: TraceId::from_slice(&[1]), unix_nanos: now };
            registry.observe(entity, Metric::Latency, &shape, observation);
            prop_assert!(registry.active_series() <= most);
            if number == stale {
                let sums = |series: &[TimeSeries], of: &str| -> f64 {
                    series.iter().filter(|s| label(s, "__name__") == of).map(|s| s.samples.last().expect("one").value).sum()
                };
                let series = collect(&mut registry, now, 0);
                counted = sums(&series, "traces_spanmetrics_calls_total");
                prop_assert_eq!(counted, now as f64);
                prop_assert_eq!(sums(&series, "traces_spanmetrics_latency_count"), now as f64);
                collect(&mut registry, now, u64::MAX);
                prop_assert_eq!((registry.active_series(), registry.active_entities()), (0, 0));
            }
        }
        let series = collect(&mut registry, 1000, 0);
        let calls: f64 = series
            .iter()
            .filter(|s| label(s, "__name__") == "traces_spanmetrics_calls_total")
            .map(|s| s.samples.last().expect("one").value)
            .sum();
        prop_assert_eq!(calls + counted, spans.len() as f64);
    }
}
