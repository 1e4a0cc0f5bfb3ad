//! A histogram whose buckets grow by a constant factor and exist only where values are: Prometheus' native histogram.
//!
//! Source: docs/facts/components.md, "Native histograms".

use std::collections::BTreeMap;
use std::time::Duration;

use vivace_proto::prometheus::{BucketSpan, Histogram, histogram};

/// How fine a native histogram is, and how large it becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NativeLimits {
    schema: i32,
    buckets_max: usize,
    reset_after: Duration,
}

/// Values up to here are in the bucket of zero: 2^-128.
const ZERO_THRESHOLD: f64 = 1.0 / (u128::MAX as f64 + 1.0);
const SCHEMA_MIN: i32 = -4;
const SCHEMA_MAX: i32 = 8;

impl NativeLimits {
    /// The coarsest buckets that grow by at most `factor`, at most `buckets_max` of them (0: any number). A histogram that would have
    /// more begins anew if it is as old as `reset_after`, or else makes its buckets wider.
    pub(crate) fn new(factor: f64, buckets_max: u32, reset_after: Duration) -> Self {
        let fits = |schema: &i32| (1.0 / f64::from(*schema).exp2()).exp2() <= factor;
        let schema = (SCHEMA_MIN..SCHEMA_MAX).find(fits).unwrap_or(SCHEMA_MAX);
        let buckets_max = if buckets_max == 0 { usize::MAX } else { usize::try_from(buckets_max).unwrap_or(usize::MAX) };
        Self { schema, buckets_max, reset_after }
    }
}

/// The counts. Values are not negative.
#[derive(Debug)]
pub(crate) struct Native {
    limits: NativeLimits,
    schema: i32,
    buckets: BTreeMap<i32, f64>,
    zero: f64,
    count: f64,
    sum: f64,
    began_unix_nanos: u64,
}

impl Native {
    pub(crate) fn new(limits: NativeLimits, now_unix_nanos: u64) -> Self {
        Self { limits, schema: limits.schema, buckets: BTreeMap::new(), zero: 0.0, count: 0.0, sum: 0.0, began_unix_nanos: now_unix_nanos }
    }

    pub(crate) fn limits(&self) -> NativeLimits {
        self.limits
    }

    pub(crate) fn observe(&mut self, value: f64, weight: f64, now_unix_nanos: u64) {
        if value > ZERO_THRESHOLD && !self.has_room(value) {
            let age = Duration::from_nanos(now_unix_nanos.saturating_sub(self.began_unix_nanos));
            if age >= self.limits.reset_after {
                *self = Self::new(self.limits, now_unix_nanos);
            }
            while !self.has_room(value) && self.schema > SCHEMA_MIN {
                self.widen();
            }
        }
        self.count += weight;
        self.sum += value * weight;
        if value > ZERO_THRESHOLD {
            *self.buckets.entry(self.bucket(value)).or_default() += weight;
        } else {
            self.zero += weight;
        }
    }

    fn has_room(&self, value: f64) -> bool {
        self.buckets.len() < self.limits.buckets_max || self.buckets.contains_key(&self.bucket(value))
    }

    /// The bucket that ends at or next after the value.
    fn bucket(&self, value: f64) -> i32 {
        // Between -1074 and 1024, times 256 at most.
        (value.log2() * f64::from(self.schema).exp2()).ceil() as i32
    }

    /// Two buckets become one.
    fn widen(&mut self) {
        self.schema -= 1;
        for (bucket, count) in std::mem::take(&mut self.buckets) {
            *self.buckets.entry((bucket + 1) >> 1).or_default() += count;
        }
    }

    /// As it is sent.
    pub(crate) fn message(&self, timestamp: i64) -> Histogram {
        let mut message = Histogram {
            sum: self.sum,
            schema: self.schema,
            zero_threshold: ZERO_THRESHOLD,
            positive_spans: self.spans(),
            timestamp,
            ..Histogram::default()
        };
        let whole = |count: &f64| count.fract() == 0.0 && *count < 9e15;
        if whole(&self.count) && whole(&self.zero) && self.buckets.values().all(whole) {
            message.count = Some(histogram::Count::CountInt(self.count as u64));
            message.zero_count = Some(histogram::ZeroCount::ZeroCountInt(self.zero as u64));
            let mut last = 0;
            for count in self.buckets.values() {
                let count = *count as i64;
                message.positive_deltas.push(count - std::mem::replace(&mut last, count));
            }
        } else {
            message.count = Some(histogram::Count::CountFloat(self.count));
            message.zero_count = Some(histogram::ZeroCount::ZeroCountFloat(self.zero));
            message.positive_counts = self.buckets.values().copied().collect();
        }
        message
    }

    /// One without any value, as a series begins.
    pub(crate) fn empty_message(&self, timestamp: i64) -> Histogram {
        Self::new(NativeLimits { schema: self.schema, ..self.limits }, 0).message(timestamp)
    }

    fn spans(&self) -> Vec<BucketSpan> {
        let mut spans: Vec<BucketSpan> = Vec::new();
        let mut next = 0;
        for bucket in self.buckets.keys() {
            match spans.last_mut() {
                Some(span) if *bucket == next => span.length += 1,
                _ => spans.push(BucketSpan { offset: bucket - next, length: 1 }),
            }
            next = bucket + 1;
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(buckets_max: u32) -> NativeLimits {
        NativeLimits::new(1.1, buckets_max, Duration::from_secs(900))
    }

    /// Upper bounds and counts, read from a message as a receiver reads it.
    fn buckets(message: &Histogram) -> Vec<(f64, f64)> {
        let mut counts: Vec<f64> = message.positive_counts.clone();
        let mut last = 0;
        counts.extend(message.positive_deltas.iter().map(|delta| {
            last += delta;
            last as f64
        }));
        let (mut found, mut index, mut counts) = (Vec::new(), 0, counts.into_iter());
        for span in &message.positive_spans {
            index += span.offset;
            for _ in 0..span.length {
                let bound = (f64::from(index) / f64::from(message.schema).exp2()).exp2();
                found.push((bound, counts.next().expect("a count of each bucket")));
                index += 1;
            }
        }
        assert_eq!(counts.next(), None);
        found
    }

    #[test]
    fn the_factor_chooses_the_schema() {
        let schema = |factor| NativeLimits::new(factor, 0, Duration::ZERO).schema;
        assert_eq!((schema(1.1), schema(2.0), schema(1.0001), schema(70_000.0)), (3, 0, 8, -4));
    }

    #[test]
    fn bounds_are_inclusive_and_spans_skip_what_is_empty() {
        let mut native = Native::new(NativeLimits::new(2.0, 0, Duration::ZERO), 0);
        [0.0, 1.0, 1.5, 2.0, 16.0].into_iter().for_each(|value| native.observe(value, 1.0, 0));
        let message = native.message(7);
        assert_eq!(buckets(&message), [(1.0, 1.0), (2.0, 2.0), (16.0, 1.0)]);
        assert_eq!(message.count, Some(histogram::Count::CountInt(5)));
        assert_eq!(message.zero_count, Some(histogram::ZeroCount::ZeroCountInt(1)));
        assert_eq!((message.sum, message.timestamp), (20.5, 7));
    }

    #[test]
    fn fractions_are_sent_as_such() {
        let mut native = Native::new(NativeLimits::new(2.0, 0, Duration::ZERO), 0);
        native.observe(1.0, 2.5, 0);
        let message = native.message(0);
        assert_eq!((message.count, message.positive_deltas.len()), (Some(histogram::Count::CountFloat(2.5)), 0));
        assert_eq!(buckets(&message), [(1.0, 2.5)]);
    }

    #[test]
    fn an_old_histogram_that_is_full_begins_anew() {
        let mut native = Native::new(limits(2), 0);
        [0.001, 1.0, 1000.0].into_iter().for_each(|value| native.observe(value, 1.0, 1_000_000_000_000));
        assert_eq!((native.count, native.schema), (1.0, 3));
    }

    proptest! {
        #[test]
        fn buckets_are_bounded_and_hold_every_value(values in proptest::collection::vec(0.0..100_000.0f64, 1..200), most in 1u32..40) {
            let mut native = Native::new(limits(most), 0);
            values.iter().for_each(|value| native.observe(*value, 1.0, 1));
            let message = native.message(0);
            let buckets = buckets(&message);
            prop_assert!(buckets.len() <= usize::try_from(most).expect("small").max(8), "{} buckets", buckets.len());
            prop_assert_eq!(message.count, Some(histogram::Count::CountInt(values.len() as u64)));
            let mut below = native.zero;
            for (bound, count) in buckets {
                below += count;
                // A bound that is no power of two is not exact.
                let (low, high) = (bound * (1.0 - 1e-9), bound * (1.0 + 1e-9));
                let at_most = |bound: f64| values.iter().filter(|value| **value <= bound).count() as f64;
                prop_assert!(at_most(low) <= below && below <= at_most(high));
            }
        }
    }
}
