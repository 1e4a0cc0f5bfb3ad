//! TraceQL metrics: from spans to series.
//!
//! A [`MetricsPlan`] counts the spans of batches into a [`Partial`]; partials of any places merge in any order, and the
//! last one becomes the [`Answer`]. What they hold is charged to a budget; a partial that does not fit says so
//! ([`Partial::check`]) and counts no more.
//!
//! The hints `sample`, `span_sample`, `trace_sample` and `extrapolate` are accepted and change nothing: every span is
//! counted, once.
//!
//! ```
//! use vivace_core::budget::Budget;
//! use vivace_traceql::{Batch, MetricsRange, Release, parse};
//!
//! let range = MetricsRange::range(0, 120_000_000_000, Some(60_000_000_000), Release::default())?;
//! let plan = parse("{ status = error } | rate() by (resource.service.name)")?.metrics_plan(range, 0)?;
//! let (budget, go_on) = (Budget::new(1 << 30), || false);
//! let mut here = plan.partial_within(&budget);
//! let _ = plan.observe(&mut here, &Batch::default(), &go_on);
//! let mut there = plan.partial_within(&budget);
//! let _ = plan.observe(&mut there, &Batch::default(), &go_on);
//! plan.merge(&mut here, there);
//! here.check()?;
//! assert!(plan.finish(&here, &go_on)?.series.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cells;
mod compare;
mod every;
mod exemplars;
mod finish;
mod groups;
mod later;
mod math;
mod message;
mod observe;
mod partial;
mod plan;
mod quantile;
mod range;
mod request;
mod series;

pub use every::SpanAttributes;
pub use finish::Halted;
pub use message::PartialError;
pub use partial::Partial;
pub use plan::{MAX_EXEMPLARS, MAX_GROUPS, MetricsPlan};
pub use range::{MAX_INTERVALS, MetricsRange, Release};
pub use series::{Answer, Exemplar, Label, Sample, Series};
