//! Series as they are sent: one sample each at one time, gathered in parts so that nobody who counts waits for all of them.
//!
//! Source: docs/facts/components.md, "Registry".

use vivace_proto::prometheus::{Exemplar, Histogram, Label, Sample, TimeSeries};

use crate::histogram::Observation;
use crate::labels::labels_of;
use crate::registry::{Ended, Form, Metric, Registry, Value};

/// Says that a series has ended. Source: Prometheus remote write specification.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Series that may get nothing any more, since labels changed, end after so many collections without anything: a minute by default.
const DOUBTED_COLLECTIONS: u64 = 4;

/// A collection under way.
#[derive(Debug)]
pub(crate) struct Collection {
    now_unix_millis: i64,
    stale_before_unix_nanos: u64,
    trace_id_label: String,
    next: usize,
    /// A part has at least so many series, unless it is the last one.
    part_series: usize,
    /// As it was when this began.
    floor_unix_millis: i64,
    number: u64,
}

impl Collection {
    /// Ends series that were not updated since `stale_before_unix_nanos`.
    pub(crate) fn new(
        registry: &mut Registry,
        now_unix_nanos: u64,
        stale_before_unix_nanos: u64,
        trace_id_label: &str,
        part_series: usize,
    ) -> Self {
        let now_unix_millis = i64::try_from(now_unix_nanos / 1_000_000).unwrap_or(i64::MAX);
        let trace_id_label = if trace_id_label.is_empty() { "traceID" } else { trace_id_label }.to_owned();
        registry.collections += 1;
        registry.forget(now_unix_nanos, stale_before_unix_nanos);
        registry.compact();
        registry.collected_unix_millis = now_unix_millis;
        let (floor_unix_millis, number) = (registry.floor_unix_millis, registry.collections);
        Self { now_unix_millis, stale_before_unix_nanos, trace_id_label, next: 0, part_series, floor_unix_millis, number }
    }

    /// The next series, or none at the end.
    pub(crate) fn part(&mut self, registry: &mut Registry) -> Option<Vec<TimeSeries>> {
        let mut out = Vec::new();
        while self.next < registry.entities.len() && out.len() < self.part_series {
            let index = self.next;
            self.next += 1;
            // One that is new since this began may have ended in it already.
            let Some(entity) = registry.entities[index].as_ref().filter(|entity| entity.born < self.number) else { continue };
            let is_in_vain = entity.doubted.is_some_and(|since| since.get() + DOUBTED_COLLECTIONS < self.number);
            if is_in_vain || entity.updated_unix_nanos < self.stale_before_unix_nanos {
                registry.remove(index);
            } else {
                self.entity(registry, index, &mut out);
            }
        }
        // What ended between the collections, too.
        for ended in std::mem::take(&mut registry.ended) {
            // It ends now: if it comes back, its zero is later.
            registry.floor_unix_millis = registry.floor_unix_millis.max(self.now_unix_millis);
            self.ended(registry, &ended, &mut out);
        }
        (!out.is_empty() || self.next < registry.entities.len()).then_some(out)
    }

    fn entity(&self, registry: &mut Registry, index: usize, out: &mut Vec<TimeSeries>) {
        // `rate` and `increase` see the first increment only if there is a zero before it. It stands at the end of the minute before,
        // unless a series of the same name may have a later sample: receivers refuse what is out of order.
        let zero_at = (self.now_unix_millis - self.now_unix_millis.rem_euclid(60_000) - 1).max(self.floor_unix_millis + 1);
        let Registry { entities, constant_labels, host_info_name, .. } = registry;
        let Some(entity) = &mut entities[index] else { return };
        let mut labels: Vec<(&str, &str)> = labels_of(&entity.key).collect();
        labels.extend(constant_labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        for series in &mut entity.series {
            let zero_at = (!std::mem::replace(&mut series.sent, true) && zero_at < self.now_unix_millis).then_some(zero_at);
            let name = name(series.metric, host_info_name);
            let samples = |value: f64, zero_at: Option<i64>| {
                let zero = zero_at.map(|timestamp| Sample { value: 0.0, timestamp });
                zero.into_iter().chain([Sample { value, timestamp: self.now_unix_millis }]).collect::<Vec<_>>()
            };
            let histogram = match &mut series.value {
                Value::Counter(value) => {
                    out.push(TimeSeries { samples: samples(*value, zero_at), ..with_labels(name, "", &labels, None) });
                    continue;
                }
                Value::Gauge(value) => {
                    out.push(TimeSeries { samples: samples(*value, None), ..with_labels(name, "", &labels, None) });
                    continue;
                }
                Value::Histogram(histogram) => histogram,
            };
            if let Some(classic) = &mut histogram.classic {
                let (mut below, newest) = (0.0, classic.take_exemplars());
                for (i, count) in classic.counts.iter().enumerate() {
                    below += count;
                    let exemplars = newest.iter().filter(|(of, _)| *of == i).map(|(_, observation)| self.exemplar(observation)).collect();
                    let le = bound(&classic.bounds, i);
                    out.push(TimeSeries {
                        samples: samples(below, zero_at),
                        exemplars,
                        ..with_labels(name, "_bucket", &labels, Some(&le))
                    });
                }
                out.push(TimeSeries { samples: samples(classic.sum, None), ..with_labels(name, "_sum", &labels, None) });
                out.push(TimeSeries { samples: samples(below, zero_at), ..with_labels(name, "_count", &labels, None) });
            }
            if let Some(native) = &histogram.native {
                let zero = zero_at.map(|timestamp| native.empty_message(timestamp));
                let histograms = zero.into_iter().chain([native.message(self.now_unix_millis)]).collect();
                let exemplars = std::mem::take(&mut histogram.exemplars).iter().map(|observation| self.exemplar(observation)).collect();
                out.push(TimeSeries { histograms, exemplars, ..with_labels(name, "", &labels, None) });
            }
        }
    }

    /// A last sample that says so, unless the series is back.
    fn ended(&self, registry: &Registry, ended: &Ended, out: &mut Vec<TimeSeries>) {
        let name = name(ended.metric, &ended.host_info_name);
        let mut labels: Vec<(&str, &str)> = labels_of(&ended.key).collect();
        labels.extend(registry.constant_labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let is_renamed = ended.metric == Metric::HostInfo && ended.host_info_name != registry.host_info_name;
        let now = registry.value(&ended.key, ended.metric).filter(|_| !is_renamed);
        let mut stale = |suffix: &str, le: Option<&str>| {
            let samples = vec![Sample { value: STALE, timestamp: self.now_unix_millis }];
            out.push(TimeSeries { samples, ..with_labels(name, suffix, &labels, le) });
        };
        match (&ended.form, now) {
            (Form::Plain, None) => stale("", None),
            (Form::Plain, Some(_)) => {}
            (Form::Classic(bounds), now) => {
                let kept = match now {
                    Some(Value::Histogram(histogram)) => histogram.classic.as_ref().map(|classic| &classic.bounds),
                    _ => None,
                };
                for bound in bounds.iter().filter(|bound| !kept.is_some_and(|kept| kept.contains(bound))) {
                    stale("_bucket", Some(&bound.to_string()));
                }
                if kept.is_none() {
                    stale("_bucket", Some("+Inf"));
                    stale("_sum", None);
                    stale("_count", None);
                }
            }
            (Form::Native, Some(Value::Histogram(histogram))) if histogram.native.is_some() => {}
            (Form::Native, _) => {
                let histograms = vec![Histogram { sum: STALE, timestamp: self.now_unix_millis, ..Histogram::default() }];
                out.push(TimeSeries { histograms, ..with_labels(name, "", &labels, None) });
            }
        }
    }

    fn exemplar(&self, of: &Observation) -> Exemplar {
        let labels = vec![Label { name: self.trace_id_label.clone(), value: of.trace.trimmed_hex() }];
        let timestamp = i64::try_from(of.unix_nanos / 1_000_000).unwrap_or(i64::MAX);
        Exemplar { labels, value: of.seconds, timestamp }
    }
}

/// The name of a metric, without what its series add to it.
pub(crate) fn name(metric: Metric, host_info_name: &str) -> &str {
    match metric {
        Metric::Calls => "traces_spanmetrics_calls_total",
        Metric::Latency => "traces_spanmetrics_latency",
        Metric::Size => "traces_spanmetrics_size_total",
        Metric::TargetInfo => "traces_target_info",
        Metric::HostInfo => host_info_name,
        Metric::Requests => "traces_service_graph_request_total",
        Metric::FailedRequests => "traces_service_graph_request_failed_total",
        Metric::ServerSeconds => "traces_service_graph_request_server_seconds",
        Metric::ClientSeconds => "traces_service_graph_request_client_seconds",
        Metric::MessagingSeconds => "traces_service_graph_request_messaging_system_seconds",
    }
}

fn bound(bounds: &[f64], bucket: usize) -> String {
    bounds.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string)
}

fn with_labels(name: &str, suffix: &str, labels: &[(&str, &str)], le: Option<&str>) -> TimeSeries {
    let own = [("le", le)].into_iter().filter_map(|(name, value)| Some((name, value?)));
    let mut all: Vec<Label> =
        labels.iter().copied().chain(own).map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() }).collect();
    all.push(Label { name: "__name__".to_owned(), value: format!("{name}{suffix}") });
    all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    TimeSeries { labels: all, ..TimeSeries::default() }
}

#[cfg(test)]
mod tests;
