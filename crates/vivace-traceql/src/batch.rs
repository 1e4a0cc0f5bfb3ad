//! What evaluation works on: some traces with their spans, and a column of values for each attribute that was asked for. Live spans
//! and blocks both come in this form, so that one evaluation serves both.

use std::ops::Range;
use std::sync::Arc;

use vivace_core::{SpanId, TraceId};

use crate::Value;

/// Whole traces, with the attributes that a [`crate::Fetch`] asked for. What queries are evaluated on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// One row per trace.
    pub traces: Vec<TraceRow>,
    /// All spans; each trace owns a range of them.
    pub spans: Vec<SpanRow>,
    /// `columns[i][span]` is the value of `fetch.span_attributes[i]`, nil where absent.
    pub columns: Vec<Vec<Value>>,
    /// Events, with the columns of `fetch.event_attributes`. Empty when none were asked for.
    pub events: ChildRows,
    /// Links, with the columns of `fetch.link_attributes`. Empty when none were asked for.
    pub links: ChildRows,
}

/// A trace, as far as one place holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceRow {
    /// Its id.
    pub trace_id: TraceId,
    /// Earliest span start, nanoseconds since the epoch.
    pub start_unix_nanos: u64,
    /// Latest span end, nanoseconds since the epoch.
    pub end_unix_nanos: u64,
    /// Empty without a root.
    pub root_name: Arc<str>,
    /// Empty without a root.
    pub root_service: Arc<str>,
    /// Spans and errors per service, over the whole trace.
    pub services: Vec<ServiceStat>,
    /// Its spans in [`Batch::spans`].
    pub spans: Range<usize>,
}

/// Counts of one service in one trace.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStat {
    /// `service.name`, may be empty.
    pub service: Arc<str>,
    /// Its spans.
    pub spans: u32,
    /// Those with status error.
    pub errors: u32,
}

/// What every span brings along, asked for or not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SpanRow {
    /// First 8 bytes, padded on the right.
    pub id: SpanId,
    /// Nanoseconds since the epoch.
    pub start_unix_nanos: u64,
    /// End minus start, wrapping.
    pub duration_nanos: u64,
    /// Position in the tree; 0 when unknown.
    pub nested_set_left: i32,
    /// Position in the tree; 0 when unknown.
    pub nested_set_right: i32,
    /// The parent's left, -1 for a root, 0 when unknown.
    pub nested_set_parent: i32,
    /// Direct children.
    pub child_count: i32,
    /// Which of the trace's resources: spans with equal numbers share one. Legacy search looks for all tags in one.
    pub resource: u32,
}

/// Events or links: rows that belong to spans.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChildRows {
    /// Rows of span `i` are `offsets[i]..offsets[i + 1]`. One longer than the spans, or empty when nothing was asked for.
    pub offsets: Vec<u32>,
    /// `columns[i][row]`, in the order of the fetch's list.
    pub columns: Vec<Vec<Value>>,
}

impl ChildRows {
    /// The rows of one span.
    #[must_use]
    pub fn of_span(&self, span: usize) -> Range<usize> {
        match (self.offsets.get(span), self.offsets.get(span + 1)) {
            (Some(first), Some(end)) => *first as usize..*end as usize,
            _ => 0..0,
        }
    }
}
