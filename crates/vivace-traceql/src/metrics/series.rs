//! The answer of a metrics query as series, and their form in messages.

use std::sync::Arc;

use vivace_core::budget::Charge;
use vivace_proto::otlp::KeyValue;
use vivace_proto::tempopb;

use crate::Value;
use crate::held::Held;

/// What a label says of all spans of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Canonical text of an attribute, or a name such as `__name__`, `p`, `__bucket`, `__meta_type`.
    pub key: Arc<str>,
    /// Never nil; status, kind and durations are texts in the answer.
    pub value: Value,
}

/// One value of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The right edge of its interval, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Never NaN.
    pub value: f64,
}

/// A span that shows what a series is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// `trace:id` first, then what the query knows of the span.
    pub labels: Vec<Label>,
    /// The span's start, Unix milliseconds.
    pub timestamp_ms: i64,
    /// The span's own value, or the series' where spans are counted.
    pub value: f64,
}

/// A series as it is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// In the order of the query's `by`.
    pub labels: Vec<Label>,
    /// By time; intervals without value have none. Of an instant query one.
    pub samples: Vec<Sample>,
    /// By time.
    pub exemplars: Vec<Exemplar>,
}

/// The answer to a metrics query.
#[derive(Debug)]
pub struct Answer {
    /// Sorted by number of labels, then label by label by key and value.
    pub series: Vec<Series>,
    /// Series were left out because there were too many: the answer's status is `PARTIAL`.
    pub is_truncated: bool,
    /// Spans that were looked at.
    pub inspected_spans: u64,
    pub(crate) held: Held,
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        (&self.series, self.is_truncated, self.inspected_spans) == (&other.series, other.is_truncated, other.inspected_spans)
    }
}

impl Answer {
    /// As range queries answer it, and what is charged for that.
    #[must_use]
    pub fn into_time_series(self) -> (Vec<tempopb::TimeSeries>, Charge) {
        (self.series.into_iter().map(|series| series.to_time_series()).collect(), self.held.into_charge())
    }

    /// As instant queries answer it, and what is charged for that.
    #[must_use]
    pub fn into_instant_series(self) -> (Vec<tempopb::InstantSeries>, Charge) {
        (self.series.into_iter().filter_map(|series| series.to_instant_series()).collect(), self.held.into_charge())
    }
}

impl Label {
    fn to_message(&self) -> KeyValue {
        KeyValue { key: self.key.to_string(), value: self.value.to_otlp() }
    }
}

fn messages(labels: &[Label]) -> Vec<KeyValue> {
    labels.iter().map(Label::to_message).collect()
}

impl Series {
    /// As range queries answer it.
    #[must_use]
    pub fn to_time_series(&self) -> tempopb::TimeSeries {
        let sample = |sample: &Sample| tempopb::Sample { value: sample.value, timestamp_ms: sample.timestamp_ms };
        let exemplar = |exemplar: &Exemplar| tempopb::Exemplar {
            labels: messages(&exemplar.labels),
            value: exemplar.value,
            timestamp_ms: exemplar.timestamp_ms,
        };
        tempopb::TimeSeries {
            labels: messages(&self.labels),
            samples: self.samples.iter().map(sample).collect(),
            exemplars: self.exemplars.iter().map(exemplar).collect(),
        }
    }

    /// As instant queries answer it: its first sample; none without one.
    #[must_use]
    pub fn to_instant_series(&self) -> Option<tempopb::InstantSeries> {
        let sample = self.samples.first()?;
        Some(tempopb::InstantSeries { labels: messages(&self.labels), value: sample.value })
    }
}
