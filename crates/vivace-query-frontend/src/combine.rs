//! Bringing the jobs' answers together. Order-free and repeatable: retries and overlapping sources are harmless.

mod columns;
mod names;
mod search;
mod trace;

pub(crate) use columns::ValueTypes;
pub(crate) use names::{Limits, TagCombiner, ValueCombiner, flat, untyped};
pub(crate) use search::{SearchResult, with_first_set};
pub(crate) use trace::{CombinedTrace, TraceCombiner};
