//! What a metric is. Each crate that counts has a room for its own, `metrics.rs`, written with [`metrics!`](crate::metrics!).
//!
//! This is the declaration only: who counts names the constant, and the process' recorder is told of the list at start.

/// One metric: everything about it but its values.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// As `/metrics` spells it.
    pub name: &'static str,
    /// What its values mean to who reads them.
    pub kind: Kind,
    /// What its values are measured in.
    pub unit: Unit,
    /// Names of its labels, in no order. Their values are bounded.
    pub labels: &'static [&'static str],
    /// What is counted, and when.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets; empty where they are those of short durations.
    pub buckets: &'static [f64],
}

/// The kinds of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many values were at most as large as each bucket's bound.
    Histogram,
}

impl Kind {
    /// As the text format of Prometheus spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What values are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// How many there are of what the help names, or no measure at all.
    Number,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// Declares a crate's metrics as constants, and `ALL`, the list of them. The doc comment of a metric is its help text.
///
/// ```
/// vivace_core::metrics! {
///     /// Letters that were posted.
///     counter LETTERS = "letters_total" by "country";
///     /// How long a letter was on its way.
///     histogram TRANSIT = "letter_transit_seconds" in seconds at [3600.0, 86_400.0];
/// }
/// assert_eq!((LETTERS.name, LETTERS.labels, TRANSIT.help), ("letters_total", &["country"][..], "How long a letter was on its way."));
/// assert_eq!(ALL.len(), 2);
/// ```
#[macro_export]
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $constant:ident = $name:literal
        $(in $unit:ident)? $(by $($label:literal),+)? $(at [$($bucket:expr),+ $(,)?])?;)+) => {
        $(
            $(#[doc = $help])+
            pub(crate) const $constant: $crate::metric::Metric = $crate::metric::Metric {
                name: $name,
                kind: $crate::metrics!(@kind $kind),
                unit: $crate::metrics!(@unit $($unit)?),
                labels: &[$($($label),+)?],
                help: concat!($($help),+).trim_ascii(),
                buckets: &[$($($bucket),+)?],
            };
        )+
        /// All of this crate.
        pub(crate) const ALL: &[$crate::metric::Metric] = &[$($constant),+];
    };
    (@kind counter) => { $crate::metric::Kind::Counter };
    (@kind gauge) => { $crate::metric::Kind::Gauge };
    (@kind histogram) => { $crate::metric::Kind::Histogram };
    (@unit) => { $crate::metric::Unit::Number };
    (@unit bytes) => { $crate::metric::Unit::Bytes };
    (@unit seconds) => { $crate::metric::Unit::Seconds };
}
