//! Spans that no ingester takes, since a message that has nothing else is too large.

use vivace_core::otlp::walk_spans;
use vivace_core::wire::WireError;
use vivace_core::{SpanId, TraceId};

/// Those of a request.
#[derive(Debug)]
pub(crate) struct TooLarge {
    pub(crate) spans: Vec<LargeSpan>,
    /// Largest message, bytes, and the option that says so.
    pub(crate) limit: usize,
    pub(crate) key: &'static str,
}

/// A span that is too large.
#[derive(Debug)]
pub(crate) struct LargeSpan {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    /// Of the message, with its resource and scope, compressed where that makes it smaller.
    pub(crate) bytes: usize,
}

impl TooLarge {
    pub(crate) fn new(limit: usize, key: &'static str) -> Self {
        Self { spans: Vec::new(), limit, key }
    }

    /// Whether the message of a part, a serialised `TracesData`, is one of them.
    pub(crate) fn add(&mut self, part: &[u8], message_bytes: usize) -> Result<bool, WireError> {
        let is_too_large = message_bytes > self.limit;
        if is_too_large {
            walk_spans(part, |_, span| self.spans.push(LargeSpan { trace: span.trace(), span: span.span(), bytes: message_bytes }))?;
        }
        Ok(is_too_large)
    }

    pub(crate) fn contains(&self, trace: TraceId, span: SpanId) -> bool {
        self.spans.iter().any(|large| large.trace == trace && large.span == span)
    }
}
