//! Spans in the client's own bytes: walking over them, and writing chosen ones as a smaller message.
//!
//! `TracesData` and `ExportTraceServiceRequest` are the same on the wire: field 1 repeats `ResourceSpans`.
//! Source: OpenTelemetry protocol, `trace.proto`.

use crate::wire::{Fields, Reader, UsualFields, Value, WireError, bytes_field_len, put_bytes, put_key};
use crate::{SpanId, TraceId};

/// What is read of every span on the write path. The rest stays in `bytes`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanHead<'a> {
    /// As sent; 16 bytes where the client is right.
    pub trace_id: &'a [u8],
    /// As sent; 8 bytes where the client is right.
    pub span_id: &'a [u8],
    /// Empty for a root.
    pub parent_span_id: &'a [u8],
    /// OTLP's number.
    pub kind: u64,
    /// Nanoseconds since the epoch.
    pub start_unix_nanos: u64,
    /// Nanoseconds since the epoch.
    pub end_unix_nanos: u64,
    /// The whole `Span` message.
    pub bytes: &'a [u8],
}

impl<'a> SpanHead<'a> {
    /// Reads ids, kind and times of one `Span` message.
    ///
    /// # Errors
    /// The bytes are no message, or one of these fields has the wrong type.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        Self::of_fields(bytes, UsualFields::new(bytes)).or_else(|_| Self::of_fields(bytes, Reader::new(bytes)))
    }

    fn of_fields(bytes: &'a [u8], mut reader: impl Fields<'a>) -> Result<Self, WireError> {
        let mut head = Self { trace_id: &[], span_id: &[], parent_span_id: &[], kind: 0, start_unix_nanos: 0, end_unix_nanos: 0, bytes };
        while let Some((field, value)) = reader.next_field()? {
            match (field, value) {
                (1, Value::Bytes(v)) => head.trace_id = v,
                (2, Value::Bytes(v)) => head.span_id = v,
                (4, Value::Bytes(v)) => head.parent_span_id = v,
                (6, Value::Varint(v)) => head.kind = v,
                (7, Value::Fixed64(v)) => head.start_unix_nanos = v,
                (8, Value::Fixed64(v)) => head.end_unix_nanos = v,
                (1 | 2 | 4 | 6 | 7 | 8, _) => return Err(reader.wrong_type(field)),
                _ => {}
            }
        }
        Ok(head)
    }

    /// The trace id, padded.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        TraceId::from_slice(self.trace_id)
    }

    /// The span id, padded.
    #[must_use]
    pub fn span(&self) -> SpanId {
        SpanId::from_slice(self.span_id)
    }
}

/// Where a span stands. Indexes count from 0 over the whole message, so equal indexes mean the same resource or scope.
#[derive(Debug, Clone, Copy)]
pub struct SpanContext<'a> {
    /// The `Resource` message; empty when there is none.
    pub resource: &'a [u8],
    /// The `InstrumentationScope` message; empty when there is none.
    pub scope: &'a [u8],
    /// Counts `ResourceSpans`.
    pub resource_index: u32,
    /// Counts `ScopeSpans` over all resources.
    pub scope_index: u32,
}

/// Calls `visit` for every span of a `TracesData` message, in its order.
///
/// # Errors
/// [`WireError`] for the first place that is no valid message; spans before it have been visited.
/// The offset counts from the start of the innermost message.
pub fn walk_spans<'a>(traces_data: &'a [u8], mut visit: impl FnMut(SpanContext<'a>, SpanHead<'a>)) -> Result<(), WireError> {
    let mut at = SpanContext { resource: &[], scope: &[], resource_index: 0, scope_index: 0 };
    let mut traces = Reader::new(traces_data);
    while let Some((field, value)) = traces.next_field()? {
        let Value::Bytes(resource_spans) = value else {
            if field == 1 {
                return Err(traces.wrong_type(field));
            }
            continue;
        };
        if field != 1 {
            continue;
        }
        at.resource = last_message(resource_spans, 1)?;
        let mut scopes = Reader::new(resource_spans);
        while let Some((field, value)) = scopes.next_field()? {
            let scope_spans = match (field, value) {
                (2, Value::Bytes(scope_spans)) => scope_spans,
                (2, _) => return Err(scopes.wrong_type(field)),
                _ => continue,
            };
            at.scope = last_message(scope_spans, 1)?;
            let mut spans = Reader::new(scope_spans);
            while let Some((field, value)) = spans.next_field()? {
                match (field, value) {
                    (2, Value::Bytes(span)) => visit(at, SpanHead::read(span)?),
                    (2, _) => return Err(spans.wrong_type(field)),
                    _ => {}
                }
            }
            at.scope_index += 1;
        }
        at.resource_index += 1;
    }
    Ok(())
}

/// The content of the last length-delimited field with this number. Fields may stand in any order on the wire.
fn last_message(bytes: &[u8], number: u32) -> Result<&[u8], WireError> {
    let mut found: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.next_field()? {
        match value {
            Value::Bytes(v) if field == number => found = v,
            _ if field == number => return Err(reader.wrong_type(field)),
            // Writers put the resource or scope first; nothing after the first span list is looked at for long.
            _ => {}
        }
    }
    Ok(found)
}

/// Collects spans, given in the order of [`walk_spans`], into a new `TracesData` message.
///
/// Neighbours with the same resource and scope share them, so the output is no longer than the input.
#[derive(Debug, Default)]
pub struct Regroup<'a> {
    resources: Vec<ResourceGroup<'a>>,
    spans: u32,
    /// Of the message, at most.
    len: usize,
}

/// What a length-delimited field adds to its content, at most: a key below 16 and a length of five digits.
const FIELD_BYTES: usize = 6;

#[derive(Debug)]
struct ResourceGroup<'a> {
    index: u32,
    bytes: &'a [u8],
    scopes: Vec<ScopeGroup<'a>>,
}

#[derive(Debug)]
struct ScopeGroup<'a> {
    index: u32,
    bytes: &'a [u8],
    spans: Vec<&'a [u8]>,
}

impl<'a> Regroup<'a> {
    /// The length that the message has at most if this span is added.
    #[must_use]
    pub fn len_with(&self, at: SpanContext<'a>, span: &'a [u8]) -> usize {
        let resource = self.resources.last().filter(|r| r.index == at.resource_index);
        let scope = resource.and_then(|r| r.scopes.last()).filter(|s| s.index == at.scope_index);
        let of_resource = if resource.is_some() { 0 } else { at.resource.len() + 2 * FIELD_BYTES };
        let of_scope = if scope.is_some() { 0 } else { at.scope.len() + 2 * FIELD_BYTES };
        self.len + of_resource + of_scope + span.len() + FIELD_BYTES
    }

    /// Adds one span.
    pub fn push(&mut self, at: SpanContext<'a>, span: &'a [u8]) {
        self.len = self.len_with(at, span);
        if self.resources.last().is_none_or(|r| r.index != at.resource_index) {
            self.resources.push(ResourceGroup { index: at.resource_index, bytes: at.resource, scopes: Vec::new() });
        }
        let scopes = &mut self.resources.last_mut().expect("one was pushed").scopes;
        if scopes.last().is_none_or(|s| s.index != at.scope_index) {
            scopes.push(ScopeGroup { index: at.scope_index, bytes: at.scope, spans: Vec::new() });
        }
        scopes.last_mut().expect("one was pushed").spans.push(span);
        self.spans += 1;
    }

    /// Spans added so far.
    #[must_use]
    pub fn spans(&self) -> u32 {
        self.spans
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let scope_len =
            |s: &ScopeGroup<'_>| bytes_field_len(s.bytes.len()) + s.spans.iter().map(|span| bytes_field_len(span.len())).sum::<usize>();
        let resource_len =
            |r: &ResourceGroup<'_>| bytes_field_len(r.bytes.len()) + r.scopes.iter().map(|s| bytes_field_len(scope_len(s))).sum::<usize>();
        let mut out = Vec::with_capacity(self.resources.iter().map(|r| bytes_field_len(resource_len(r))).sum());
        for resource in &self.resources {
            put_key(&mut out, 1, resource_len(resource));
            put_bytes(&mut out, 1, resource.bytes);
            for scope in &resource.scopes {
                put_key(&mut out, 2, scope_len(scope));
                put_bytes(&mut out, 1, scope.bytes);
                for span in &scope.spans {
                    put_bytes(&mut out, 2, span);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use vivace_proto::otlp::{InstrumentationScope, Resource, ResourceSpans, ScopeSpans, Span, TracesData};

    fn data() -> TracesData {
        let span = |trace: u8, id: u8| Span {
            trace_id: vec![trace; 16].into(),
            span_id: vec![id; 8].into(),
            name: format!("span {id}"),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            kind: 2,
            ..Span::default()
        };
        let scope = |name: &str, spans| ScopeSpans {
            scope: Some(InstrumentationScope { name: name.to_owned(), ..Default::default() }),
            spans,
            ..Default::default()
        };
        let resource = |dropped, scope_spans| ResourceSpans {
            resource: Some(Resource { dropped_attributes_count: dropped, ..Default::default() }),
            scope_spans,
            ..Default::default()
        };
        TracesData {
            resource_spans: vec![
                resource(1, vec![scope("a", vec![span(1, 1), span(2, 2)]), scope("b", vec![span(1, 3)])]),
                resource(2, vec![scope("c", vec![span(2, 4), span(1, 5)])]),
            ],
        }
    }

    #[test]
    fn chosen_spans_keep_their_resource_and_scope() {
        let bytes = data().encode_to_vec();
        let mut chosen = Regroup::default();
        let mut seen = 0;
        walk_spans(&bytes, |at, span| {
            seen += 1;
            if span.trace_id[0] == 1 {
                chosen.push(at, span.bytes);
            }
        })
        .expect("valid");
        assert_eq!((seen, chosen.spans()), (5, 3));
        assert!((chosen.encode().len()..chosen.encode().len() + 100).contains(&chosen.len), "{} foretold", chosen.len);
        let mut want = data();
        for resource in &mut want.resource_spans {
            for scope in &mut resource.scope_spans {
                scope.spans.retain(|s| s.trace_id[0] == 1);
            }
        }
        assert_eq!(TracesData::decode(chosen.encode().as_slice()).expect("decodes"), want);
    }

    #[test]
    fn all_spans_give_the_same_bytes() {
        let bytes = data().encode_to_vec();
        let mut all = Regroup::default();
        walk_spans(&bytes, |at, span| all.push(at, span.bytes)).expect("valid");
        assert_eq!(all.encode(), bytes);
    }

    #[test]
    fn cut_messages_are_errors() {
        let bytes = data().encode_to_vec();
        for len in 1..bytes.len() {
            // A cut at the border between two resources is a valid message.
            let _ = walk_spans(&bytes[..len], |_, _| {});
        }
        assert!(walk_spans(&bytes[..bytes.len() - 1], |_, _| {}).is_err());
    }

    #[test]
    fn heads_are_the_same_however_they_are_read() {
        let span = data().resource_spans.remove(0).scope_spans.remove(0).spans.remove(0).encode_to_vec();
        let mut usual = 0;
        for at in 0..span.len() {
            for byte in [span[at], 0, 1, 0x0a, 0x48, 0x7f, 0x80, 0xff] {
                let mut span = span.clone();
                span[at] = byte;
                if let Ok(head) = SpanHead::of_fields(&span, UsualFields::new(&span)) {
                    usual += 1;
                    assert_eq!(Ok(head), SpanHead::of_fields(&span, Reader::new(&span)), "{span:?}");
                }
            }
        }
        assert!(usual > span.len(), "{usual}");
    }
}
