//! The series of one tenant: counters and histograms, limited in number, collected into remote-write messages.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vivace_proto::prometheus::{Exemplar, Label, Sample, TimeSeries};

/// Label names and values, sorted by name. Empty values are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels(Vec<(String, String)>);

/// Longer names and values are cut. Source: docs/facts/components.md, "Registry".
const LABEL_NAME_BYTES_MAX: usize = 1024;
const LABEL_VALUE_BYTES_MAX: usize = 2048;

impl Labels {
    /// Adds a label unless its value is empty.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let label = (cut(name, LABEL_NAME_BYTES_MAX).to_owned(), cut(value, LABEL_VALUE_BYTES_MAX).to_owned());
        let at = self.0.partition_point(|(other, _)| *other < label.0);
        self.0.insert(at, label);
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[derive(Debug)]
struct Series {
    value: SeriesValue,
    updated_unix_nanos: u64,
    /// Has been collected, so that its zero has been sent.
    sent: bool,
}

#[derive(Debug)]
enum SeriesValue {
    Counter(f64),
    Histogram { bounds: Vec<f64>, counts: Vec<u64>, sum: f64, exemplars: Vec<Option<LatencyExemplar>> },
}

#[derive(Debug, Clone)]
struct LatencyExemplar {
    trace_id: String,
    seconds: f64,
    unix_millis: i64,
}

/// The series of one tenant.
#[derive(Debug)]
pub(crate) struct Registry {
    metrics: BTreeMap<&'static str, FxHashMap<Labels, Series>>,
    constant_labels: Vec<(String, String)>,
    active: usize,
    active_max: usize,
    /// Additions that went to an overflow series since the last call of [`Registry::take_limited`].
    limited: u64,
}

impl Registry {
    /// At most `active_max` series (0: no limit), each with the constant labels.
    pub(crate) fn new(active_max: usize, mut constant_labels: Vec<(String, String)>) -> Self {
        // To Prometheus an empty label is none, and receivers may refuse it.
        constant_labels.retain(|(_, value)| !value.is_empty());
        Self { metrics: BTreeMap::new(), constant_labels, active: 0, active_max, limited: 0 }
    }

    /// Changes the limit; series that exist stay.
    pub(crate) fn set_active_max(&mut self, active_max: usize) {
        self.active_max = active_max;
    }

    /// Series that exist, as the limiter counts them.
    pub(crate) fn active(&self) -> usize {
        self.active
    }

    /// Label sets that were folded into an overflow series since the last call.
    pub(crate) fn take_limited(&mut self) -> u64 {
        std::mem::take(&mut self.limited)
    }

    /// Adds to a counter.
    pub(crate) fn add(&mut self, metric: &'static str, labels: &Labels, amount: f64, now_unix_nanos: u64) {
        let series = self.series(metric, labels, now_unix_nanos, 1, || SeriesValue::Counter(0.0));
        if let SeriesValue::Counter(value) = &mut series.value {
            *value += amount;
        }
    }

    /// Adds an observation to a histogram, and its trace as the bucket's exemplar.
    pub(crate) fn observe(
        &mut self,
        metric: &'static str,
        labels: &Labels,
        bounds: &[f64],
        seconds: f64,
        trace_id: &[u8],
        now_unix_nanos: u64,
    ) {
        let cost = bounds.len() + 3;
        let series = self.series(metric, labels, now_unix_nanos, cost, || SeriesValue::Histogram {
            bounds: bounds.to_vec(),
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
            exemplars: vec![None; bounds.len() + 1],
        });
        if let SeriesValue::Histogram { bounds, counts, sum, exemplars } = &mut series.value {
            let bucket = bounds.partition_point(|bound| *bound < seconds);
            counts[bucket] += 1;
            *sum += seconds;
            let trace_id = vivace_core::TraceId::from_slice(trace_id).trimmed_hex();
            let unix_millis = i64::try_from(now_unix_nanos / 1_000_000).unwrap_or(i64::MAX);
            exemplars[bucket] = Some(LatencyExemplar { trace_id, seconds, unix_millis });
        }
    }

    fn series(
        &mut self,
        metric: &'static str,
        labels: &Labels,
        now_unix_nanos: u64,
        cost: usize,
        new: impl FnOnce() -> SeriesValue,
    ) -> &mut Series {
        let family = self.metrics.entry(metric).or_default();
        let mut overflow = None;
        if !family.contains_key(labels) {
            if self.active_max > 0 && self.active + cost > self.active_max {
                self.limited += 1;
                let mut only = Labels::default();
                only.push("metric_overflow", "true");
                overflow = Some(only);
            } else {
                self.active += cost;
            }
        }
        let labels = overflow.unwrap_or_else(|| labels.clone());
        let series = family.entry(labels).or_insert_with(|| Series { value: new(), updated_unix_nanos: 0, sent: false });
        series.updated_unix_nanos = now_unix_nanos;
        series
    }

    /// Forgets series that were not updated since the given time.
    pub(crate) fn drop_stale(&mut self, updated_before_unix_nanos: u64) {
        for family in self.metrics.values_mut() {
            family.retain(|_, series| {
                let keep = series.updated_unix_nanos >= updated_before_unix_nanos;
                if !keep {
                    self.active = self.active.saturating_sub(match &series.value {
                        SeriesValue::Counter(_) => 1,
                        SeriesValue::Histogram { bounds, .. } => bounds.len() + 3,
                    });
                }
                keep
            });
        }
    }

    /// All series with one sample each at `now_unix_millis`; new ones also with a zero at the end of the minute before,
    /// so that `rate` and `increase` see the first increment.
    pub(crate) fn collect(&mut self, now_unix_millis: u64) -> Vec<TimeSeries> {
        let now = i64::try_from(now_unix_millis).unwrap_or(i64::MAX);
        let zero_at = now - now.rem_euclid(60_000) - 1;
        let mut out = Vec::new();
        for (metric, family) in &mut self.metrics {
            for (labels, series) in family {
                let zero_at = (!std::mem::replace(&mut series.sent, true)).then_some(zero_at);
                let mut push = |suffix: &str, extra: Option<(&str, String)>, value: f64, zero: bool, exemplar: Option<Exemplar>| {
                    let mut all: Vec<(&str, &str)> = labels.0.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    all.extend(self.constant_labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
                    let name = format!("{metric}{suffix}");
                    all.push(("__name__", &name));
                    all.extend(extra.as_ref().map(|(n, v)| (*n, v.as_str())));
                    all.sort_unstable();
                    let zero = zero_at.filter(|_| zero).map(|timestamp| Sample { value: 0.0, timestamp });
                    out.push(TimeSeries {
                        labels: all.into_iter().map(|(n, v)| Label { name: n.to_owned(), value: v.to_owned() }).collect(),
                        samples: zero.into_iter().chain([Sample { value, timestamp: now }]).collect(),
                        exemplars: exemplar.into_iter().collect(),
                    });
                };
                match &mut series.value {
                    SeriesValue::Counter(value) => push("", None, *value, true, None),
                    SeriesValue::Histogram { bounds, counts, sum, exemplars } => {
                        let mut below = 0;
                        for (i, count) in counts.iter().enumerate() {
                            below += count;
                            let le = bounds.get(i).map_or_else(|| "+Inf".to_owned(), f64::to_string);
                            push("_bucket", Some(("le", le)), below as f64, true, exemplars[i].take().map(exemplar));
                        }
                        push("_sum", None, *sum, false, None);
                        push("_count", None, below as f64, true, None);
                    }
                }
            }
        }
        out
    }
}

fn exemplar(of: LatencyExemplar) -> Exemplar {
    let labels = vec![Label { name: "traceID".to_owned(), value: of.trace_id }];
    Exemplar { labels, value: of.seconds, timestamp: of.unix_millis }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: &str) -> Labels {
        let mut labels = Labels::default();
        labels.push("span_name", value);
        labels
    }

    #[test]
    fn new_series_begin_with_a_zero_before_the_minute() {
        let mut registry = Registry::new(0, vec![("cluster".to_owned(), "demo".to_owned())]);
        registry.add("calls_total", &labels("a"), 2.0, 1);
        let first = registry.collect(125_000);
        let samples: Vec<(f64, i64)> = first[0].samples.iter().map(|s| (s.value, s.timestamp)).collect();
        assert_eq!(samples, [(0.0, 119_999), (2.0, 125_000)]);
        assert!(first[0].labels.iter().any(|l| l.name == "cluster"));
        assert_eq!(registry.collect(140_000)[0].samples.len(), 1);
    }

    #[test]
    fn empty_labels_are_not_sent() {
        let constant = [("cluster", ""), ("__metrics_gen_instance", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut registry = Registry::new(0, constant.to_vec());
        registry.add("calls_total", &labels(""), 1.0, 1);
        let names: Vec<_> = registry.collect(1)[0].labels.iter().map(|label| label.name.clone()).collect();
        assert_eq!(names, ["__metrics_gen_instance", "__name__"]);
    }

    #[test]
    fn label_sets_over_the_limit_are_folded_and_totals_stay_right() {
        let mut registry = Registry::new(2, Vec::new());
        for name in ["a", "b", "c", "d", "a"] {
            registry.add("calls_total", &labels(name), 1.0, 1);
        }
        let series = registry.collect(1);
        assert_eq!(series.len(), 3);
        assert_eq!(series.iter().map(|s| s.samples.last().expect("one").value).sum::<f64>(), 5.0);
        assert!(series.iter().any(|s| s.labels.iter().any(|l| l.name == "metric_overflow")));
        assert_eq!((registry.active(), registry.take_limited(), registry.take_limited()), (2, 2, 0));
    }

    #[test]
    fn idle_series_are_forgotten() {
        let mut registry = Registry::new(0, Vec::new());
        registry.add("calls_total", &labels("a"), 1.0, 10);
        registry.add("calls_total", &labels("b"), 1.0, 20);
        registry.drop_stale(15);
        assert_eq!((registry.collect(30).len(), registry.active()), (1, 1));
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let mut labels = Labels::default();
        labels.push("k", &"é".repeat(2000));
        assert_eq!(labels.0[0].1.len(), 2048);
    }
}
