//! Brings together the spans of some traces from the segments that they are scattered over, for builds and for queries. Spans are
//! copied, so that segments need not stay decompressed meanwhile.

use std::hash::Hasher;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHasher};
use vivace_block::SpanRef;
use vivace_core::TraceId;
use vivace_core::otlp::{Regroup, SpanContext, walk_spans};

use crate::segment::{Segment, SegmentError};

/// Spans taken out of segments, in the client's own bytes, copied so that the segments need not stay decompressed.
/// Equal resources and scopes are kept once.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    spans: Vec<Place>,
    interned: FxHashMap<u64, Text>,
}

/// A piece of [`Gathered::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    start: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    trace: TraceId,
    resource: Text,
    scope: Text,
    span: Text,
}

impl Gathered {
    /// With room for this many bytes of spans, so that they are not moved as they grow.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Bytes that it holds, but for what is small.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Place>()
    }

    /// Forgets all spans and keeps their memory, with room for this many bytes.
    pub(crate) fn clear(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.reserve(bytes);
        self.spans.clear();
        self.interned.clear();
    }

    /// Takes the spans of the traces that are `wanted` from a segment.
    ///
    /// # Errors
    /// The segment cannot be read; then nothing of it is taken.
    pub(crate) fn take(&mut self, segment: &Segment, wanted: impl Fn(&TraceId) -> bool) -> Result<(), SegmentError> {
        let data = segment.traces_data()?;
        self.take_from(segment, &data, wanted)
    }

    /// The same from a segment that is decompressed already.
    ///
    /// # Errors
    /// The bytes are no `TracesData`.
    pub(crate) fn take_from(&mut self, segment: &Segment, data: &Bytes, wanted: impl Fn(&TraceId) -> bool) -> Result<(), SegmentError> {
        let before = (self.bytes.len(), self.spans.len());
        let mut resource = (u32::MAX, Text { start: 0, len: 0 });
        let mut scope = (u32::MAX, Text { start: 0, len: 0 });
        let walked = walk_spans(data, |at, span| {
            let trace = span.trace();
            if !wanted(&trace) || segment.header.refuses(&trace) {
                return;
            }
            if resource.0 != at.resource_index {
                resource = (at.resource_index, self.intern(at.resource));
            }
            if scope.0 != at.scope_index {
                scope = (at.scope_index, self.intern(at.scope));
            }
            let span = self.push(span.bytes);
            self.spans.push(Place { trace, resource: resource.1, scope: scope.1, span });
        });
        if let Err(error) = walked {
            self.spans.truncate(before.1);
            self.bytes.truncate(before.0);
            self.interned.retain(|_, text| text.start + text.len <= before.0);
            return Err(error.into());
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Text {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Text { start, len: bytes.len() }
    }

    fn intern(&mut self, bytes: &[u8]) -> Text {
        let mut hasher = FxHasher::default();
        hasher.write(bytes);
        let hash = hasher.finish();
        if let Some(text) = self.interned.get(&hash).copied().filter(|t| self.text(*t) == bytes) {
            return text;
        }
        let text = self.push(bytes);
        self.interned.insert(hash, text);
        text
    }

    fn text(&self, text: Text) -> &[u8] {
        &self.bytes[text.start..text.start + text.len]
    }

    /// Calls `visit` for each trace, ascending by id, with its spans in the order of their arrival. Stops at an error.
    ///
    /// # Errors
    /// The first error of `visit`.
    pub(crate) fn for_each_trace<E>(&mut self, mut visit: impl FnMut(TraceId, &[SpanRef<'_>]) -> Result<(), E>) -> Result<(), E> {
        self.spans.sort_by_key(|place| place.trace);
        let mut spans = Vec::new();
        for places in self.spans.chunk_by(|a, b| a.trace == b.trace) {
            spans.clear();
            spans.extend(places.iter().map(|p| self.span_ref(p)));
            visit(places[0].trace, &spans)?;
        }
        Ok(())
    }

    /// All traces with their spans, ascending by id.
    pub(crate) fn traces(&mut self) -> Vec<(TraceId, Vec<SpanRef<'_>>)> {
        self.spans.sort_by_key(|place| place.trace);
        let traces = self.spans.chunk_by(|a, b| a.trace == b.trace);
        traces.map(|places| (places[0].trace, places.iter().map(|p| self.span_ref(p)).collect())).collect()
    }

    fn span_ref(&self, place: &Place) -> SpanRef<'_> {
        SpanRef { resource: self.text(place.resource), scope: self.text(place.scope), span: self.text(place.span) }
    }

    /// All spans as serialised `TracesData`, each of about so many bytes; neighbours with the same resource and scope together.
    pub(crate) fn messages(&self, max_bytes: usize) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut message = Regroup::default();
        let mut bytes = 0;
        let mut at = SpanContext { resource: &[], scope: &[], resource_index: 0, scope_index: 0 };
        let mut last: Option<(Text, Text)> = None;
        for place in &self.spans {
            if last.is_none_or(|(resource, _)| resource != place.resource) {
                (at.resource, at.resource_index) = (self.text(place.resource), at.resource_index + 1);
                last = None;
            }
            if last.is_none_or(|(_, scope)| scope != place.scope) {
                (at.scope, at.scope_index) = (self.text(place.scope), at.scope_index + 1);
                bytes += place.resource.len + place.scope.len;
            }
            last = Some((place.resource, place.scope));
            message.push(at, self.text(place.span));
            bytes += place.span.len;
            if bytes >= max_bytes {
                messages.push(std::mem::take(&mut message).encode());
                bytes = place.resource.len + place.scope.len;
            }
        }
        if message.spans() > 0 {
            messages.push(message.encode());
        }
        messages
    }
}
