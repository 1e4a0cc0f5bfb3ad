//! The histogram of one series: with fixed bounds, native, or both, and the traces that stand for its values.

use std::sync::Arc;

use vivace_core::TraceId;

use crate::native_histogram::{Native, NativeLimits};

/// The form of a histogram: at least one of the two.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HistogramShape {
    /// Upper bounds of buckets, ascending; `+Inf` is added.
    pub(crate) classic: Option<Arc<[f64]>>,
    pub(crate) native: Option<NativeLimits>,
}

impl HistogramShape {
    /// What the limit of series counts. Source: docs/facts/components.md, "Registry".
    pub(crate) fn cost(&self) -> usize {
        self.classic.as_ref().map_or(0, |bounds| bounds.len() + 3) + usize::from(self.native.is_some())
    }
}

/// One value, and the trace it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) seconds: f64,
    /// How many spans it stands for.
    pub(crate) weight: f64,
    pub(crate) trace: TraceId,
    pub(crate) unix_nanos: u64,
}

/// Exemplars of a histogram without fixed buckets, at most.
const NATIVE_EXEMPLARS_MAX: usize = 10;

#[derive(Debug)]
pub(crate) struct Histogram {
    pub(crate) shape: Arc<HistogramShape>,
    pub(crate) classic: Option<Classic>,
    pub(crate) native: Option<Box<Native>>,
    /// The newest ones since the last collection, where there are no fixed buckets.
    pub(crate) exemplars: Vec<Observation>,
}

/// Counts of values by fixed bounds.
#[derive(Debug)]
pub(crate) struct Classic {
    pub(crate) bounds: Arc<[f64]>,
    pub(crate) counts: Box<[f64]>,
    pub(crate) sum: f64,
    /// The newest one of each bucket that was hit since the last collection: of most buckets there is none.
    exemplars: Vec<(usize, Observation)>,
}

impl Histogram {
    pub(crate) fn new(shape: &Arc<HistogramShape>, now_unix_nanos: u64) -> Self {
        Self {
            classic: shape.classic.as_ref().map(Classic::new),
            native: shape.native.map(|limits| Box::new(Native::new(limits, now_unix_nanos))),
            exemplars: Vec::new(),
            shape: shape.clone(),
        }
    }

    /// Takes another form. What stays the same keeps its counts; gives the bounds, and whether there was a native part, that are gone.
    pub(crate) fn reshape(&mut self, shape: &Arc<HistogramShape>, now_unix_nanos: u64) -> (Option<Arc<[f64]>>, bool) {
        self.shape = shape.clone();
        let mut gone = (None, false);
        if self.classic.as_ref().map(|classic| &classic.bounds) != shape.classic.as_ref() {
            gone.0 = self.classic.take().map(|classic| classic.bounds);
            self.classic = shape.classic.as_ref().map(Classic::new);
        }
        if self.native.as_ref().map(|native| native.limits()) != shape.native {
            gone.1 = self.native.take().is_some() && shape.native.is_none();
            self.native = shape.native.map(|limits| Box::new(Native::new(limits, now_unix_nanos)));
        }
        gone
    }

    pub(crate) fn observe(&mut self, observation: Observation) {
        let Observation { seconds, weight, unix_nanos, .. } = observation;
        if let Some(native) = &mut self.native {
            native.observe(seconds, weight, unix_nanos);
        }
        if let Some(classic) = &mut self.classic {
            let bucket = classic.bounds.partition_point(|bound| *bound < seconds);
            classic.counts[bucket] += weight;
            classic.sum += seconds * weight;
            match classic.exemplars.iter_mut().find(|(of, _)| *of == bucket) {
                Some((_, newest)) => *newest = observation,
                None => classic.exemplars.push((bucket, observation)),
            }
        } else if self.exemplars.len() < NATIVE_EXEMPLARS_MAX {
            self.exemplars.push(observation);
        } else {
            // Not always the same ones, and in the order of their times.
            self.exemplars.remove(0);
            self.exemplars.push(observation);
        }
    }
}

impl Classic {
    /// Takes out the exemplars, by bucket.
    pub(crate) fn take_exemplars(&mut self) -> Vec<(usize, Observation)> {
        std::mem::take(&mut self.exemplars)
    }

    fn new(bounds: &Arc<[f64]>) -> Self {
        let buckets = bounds.len() + 1;
        Self { bounds: bounds.clone(), counts: vec![0.0; buckets].into(), sum: 0.0, exemplars: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shape(bounds: Option<&[f64]>, native: bool) -> Arc<HistogramShape> {
        let native = native.then(|| NativeLimits::new(1.1, 100, Duration::from_secs(900)));
        Arc::new(HistogramShape { classic: bounds.map(Arc::from), native })
    }

    fn seconds(seconds: f64) -> Observation {
        Observation { seconds, weight: 1.0, trace: TraceId::from_slice(&[7]), unix_nanos: 1 }
    }

    #[test]
    fn a_bound_is_inclusive() {
        let mut histogram = Histogram::new(&shape(Some(&[0.1, 0.2]), false), 0);
        [0.1, 0.15, 0.2, 9.0].into_iter().for_each(|value| histogram.observe(seconds(value)));
        assert_eq!(*histogram.classic.expect("classic").counts, [1.0, 2.0, 1.0]);
    }

    #[test]
    fn what_stays_keeps_its_counts() {
        let mut histogram = Histogram::new(&shape(Some(&[0.1]), false), 0);
        histogram.observe(seconds(1.0));
        assert_eq!(histogram.reshape(&shape(Some(&[0.1]), true), 0), (None, false));
        histogram.observe(seconds(1.0));
        assert_eq!(*histogram.classic.as_ref().expect("classic").counts, [0.0, 2.0]);
        let (bounds, native) = histogram.reshape(&shape(None, true), 0);
        assert_eq!((bounds.as_deref(), native), (Some([0.1].as_slice()), false));
        assert_eq!(histogram.reshape(&shape(Some(&[1.0]), false), 0), (None, true));
    }

    #[test]
    fn costs_are_those_of_the_series_sent() {
        assert_eq!(shape(Some(&[0.1, 0.2]), true).cost(), 6);
        assert_eq!(shape(None, true).cost(), 1);
    }
}
