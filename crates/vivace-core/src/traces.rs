//! What a message holds of each trace: counted while somebody walks over its spans, so that nobody has to again.

use rustc_hash::FxHashMap;

use crate::TraceId;
use crate::otlp::SpanHead;

/// The spans of one trace in a message. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSpans {
    /// Whose.
    pub trace: TraceId,
    /// How many.
    pub spans: u32,
    /// Of the span messages.
    pub bytes: u64,
    /// Earliest start.
    pub first_start: u64,
    /// Latest start.
    pub last_start: u64,
    /// Earliest end.
    pub first_end: u64,
    /// Latest end.
    pub last_end: u64,
    /// A span ends before it starts.
    pub has_backwards: bool,
}

/// All traces of a message, in the order of their first spans.
#[derive(Debug, Default)]
pub struct Traces {
    found: Vec<TraceSpans>,
    places: FxHashMap<TraceId, usize>,
    /// Of the trace that came last: neighbours are mostly of one.
    last: usize,
}

impl Traces {
    /// Counts a span of so many bytes. Tells whether it is the first of a trace.
    pub fn add(&mut self, trace: TraceId, span: &SpanHead<'_>, bytes: usize) -> bool {
        let (start, end) = (span.start_unix_nanos, span.end_unix_nanos);
        let mut is_new = false;
        if self.found.get(self.last).is_none_or(|found| found.trace != trace) {
            self.last = *self.places.entry(trace).or_insert(self.found.len());
            is_new = self.last == self.found.len();
        }
        if is_new {
            self.found.push(TraceSpans {
                trace,
                spans: 0,
                bytes: 0,
                first_start: start,
                last_start: start,
                first_end: end,
                last_end: end,
                has_backwards: false,
            });
        }
        let found = &mut self.found[self.last];
        found.spans += 1;
        found.bytes += bytes as u64;
        (found.first_start, found.last_start) = (found.first_start.min(start), found.last_start.max(start));
        (found.first_end, found.last_end) = (found.first_end.min(end), found.last_end.max(end));
        found.has_backwards |= end < start;
        is_new
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there was no span.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was counted.
    #[must_use]
    pub fn into_inner(self) -> Vec<TraceSpans> {
        self.found
    }
}
