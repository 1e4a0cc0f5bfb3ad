//! Spans in the client's own bytes: walking over them, and writing chosen ones as a smaller message.
//!
//! `TracesData` and `ExportTraceServiceRequest` are the same on the wire: field 1 repeats `ResourceSpans`.
//! Source: OpenTelemetry protocol, `trace.proto`.

use crate::wire::{Fields, Reader, UsualFields, Value, WireError, bytes_field_len, offset_in, put_bytes, put_key};
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

/// `ResourceSpans` has its `ScopeSpans` in this field.
pub const SCOPE_SPANS: u32 = 2;
/// The field that OTLP 0.15 moved instrumentation library spans to, as scope spans were called before.
pub const INSTRUMENTATION_LIBRARY_SPANS: u32 = 1000;

/// A message that holds resources, scopes or spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// `TracesData`
    Traces,
    /// `ResourceSpans`
    Resource,
    /// `ScopeSpans`
    Scope,
}

/// What [`walk`] comes by.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// A message that has other fields than the usual ones, or its resource or scope more than once: all of it, once, before its parts. Of
    /// the outermost one only groups are told, where the first stands.
    Unusual(Around, &'a [u8]),
    /// A resource, also an empty one. Its scopes follow.
    Resource(SpanContext<'a>),
    /// A scope, also an empty one. Its spans follow.
    Scope(SpanContext<'a>),
    /// A span.
    Span(SpanContext<'a>, SpanHead<'a>),
}

/// Calls `visit` for every span of a `TracesData` message, in its order.
///
/// # Errors
/// [`WireError`] for the first place that is no valid message; spans before it have been visited.
pub fn walk_spans<'a>(traces_data: &'a [u8], mut visit: impl FnMut(SpanContext<'a>, SpanHead<'a>)) -> Result<(), WireError> {
    walk(traces_data, |part| {
        if let Part::Span(at, span) = part {
            visit(at, span);
        }
        Ok(())
    })
}

/// Calls `visit` for every part of a `TracesData` message, in its order. Where a resource or scope is there more than once in its
/// message, it is the last.
///
/// # Errors
/// [`WireError`] for the first place that is no valid message; parts before it have been visited. What `visit` says ends the walk.
#[inline]
pub fn walk<'a, E: From<WireError>>(traces_data: &'a [u8], mut visit: impl FnMut(Part<'a>) -> Result<(), E>) -> Result<(), E> {
    let mut at = SpanContext { resource: &[], scope: &[], resource_index: 0, scope_index: 0 };
    let mut traces = Reader::new(traces_data);
    let mut is_usual = true;
    while let Some((field, value)) = traces.next_field()? {
        let resource_spans = match (field, value) {
            (1, Value::Bytes(resource_spans)) => resource_spans,
            (1, _) => return Err(traces.wrong_type(field).into()),
            (_, Value::Group) if is_usual => {
                is_usual = false;
                visit(Part::Unusual(Around::Traces, traces_data))?;
                continue;
            }
            _ => continue,
        };
        let broken = |error: WireError| error.after(offset_in(traces_data, resource_spans));
        let (resource, is_usual) = head(resource_spans).map_err(broken)?;
        at.resource = resource;
        if !is_usual {
            visit(Part::Unusual(Around::Resource, resource_spans))?;
        }
        visit(Part::Resource(at))?;
        let mut scopes = Reader::new(resource_spans);
        while let Some((field, value)) = scopes.next_field().map_err(broken)? {
            match (field, value) {
                (SCOPE_SPANS | INSTRUMENTATION_LIBRARY_SPANS, Value::Bytes(scope_spans)) => {
                    walk_scope(traces_data, scope_spans, &mut at, &mut visit)?;
                }
                (SCOPE_SPANS | INSTRUMENTATION_LIBRARY_SPANS, _) => return Err(broken(scopes.wrong_type(field)).into()),
                _ => {}
            }
        }
        at.resource_index += 1;
    }
    Ok(())
}

fn walk_scope<'a, E: From<WireError>>(
    traces_data: &'a [u8],
    scope_spans: &'a [u8],
    at: &mut SpanContext<'a>,
    visit: &mut impl FnMut(Part<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let broken = |error: WireError| error.after(offset_in(traces_data, scope_spans));
    let (scope, is_usual) = head(scope_spans).map_err(broken)?;
    at.scope = scope;
    if !is_usual {
        visit(Part::Unusual(Around::Scope, scope_spans))?;
    }
    visit(Part::Scope(*at))?;
    let mut spans = Reader::new(scope_spans);
    while let Some((field, value)) = spans.next_field().map_err(broken)? {
        match (field, value) {
            (2, Value::Bytes(span)) => {
                let head = SpanHead::read(span).map_err(|error| error.after(offset_in(traces_data, span)))?;
                visit(Part::Span(*at, head))?;
            }
            (2, _) => return Err(broken(spans.wrong_type(field)).into()),
            _ => {}
        }
    }
    at.scope_index += 1;
    Ok(())
}

/// The resource of a `ResourceSpans`, or the scope of a `ScopeSpans`, which have the same number, and whether the message has that at
/// most once and else only lists and a schema URL. Fields may stand in any order on the wire.
fn head(bytes: &[u8]) -> Result<(&[u8], bool), WireError> {
    let (mut found, mut is_usual): (Option<&[u8]>, _) = (None, true);
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (2 | 3, Value::Bytes(_)) => {}
            (1, Value::Bytes(head)) => is_usual &= found.replace(head).is_none(),
            (1, _) => return Err(reader.wrong_type(field)),
            _ => is_usual = false,
        }
    }
    Ok((found.unwrap_or_default(), is_usual))
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
    fn errors_say_where_in_the_whole_message() {
        let bytes = data().encode_to_vec();
        let mut places = Vec::new();
        walk_spans(&bytes, |_, span| places.push(offset_in(&bytes, span.bytes))).expect("valid");
        for place in places {
            let mut broken = bytes.clone();
            // A number of no field.
            broken[place] = 0;
            assert_eq!(walk_spans(&broken, |_, _| {}), Err(WireError::Key { key: 0, offset: place }));
        }
        assert_eq!(walk_spans(&[0x0a, 4, 0x12, 2, 0x12, 5], |_, _| {}), Err(WireError::Truncated { offset: 4 }));
    }

    #[test]
    fn each_message_is_told_of_once() {
        let group = [9 << 3 | 3, 9 << 3 | 4];
        let mut bytes = group.repeat(3);
        put_bytes(&mut bytes, 1, &group.repeat(3));
        bytes.extend(group);
        let mut told = Vec::new();
        let walked = walk(&bytes, |part| {
            if let Part::Unusual(around, _) = part {
                told.push(around);
            }
            Ok::<_, WireError>(())
        });
        assert_eq!((walked, told), (Ok(()), vec![Around::Traces, Around::Resource]));
    }

    #[test]
    fn spans_of_the_old_field_are_spans() {
        let mut resource_spans = Vec::new();
        let new = data().resource_spans[0].scope_spans[0].encode_to_vec();
        put_bytes(&mut resource_spans, SCOPE_SPANS, &new);
        put_bytes(&mut resource_spans, INSTRUMENTATION_LIBRARY_SPANS, &new);
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, &resource_spans);
        let (mut unusual, mut scopes) = (Vec::new(), Vec::new());
        let walked = walk(&bytes, |part| {
            match part {
                Part::Unusual(around, message) => unusual.push((around, message.len())),
                Part::Span(at, _) => scopes.push(at.scope_index),
                Part::Resource(_) | Part::Scope(_) => {}
            }
            Ok::<_, WireError>(())
        });
        assert_eq!((walked, scopes), (Ok(()), vec![0, 0, 1, 1]));
        assert_eq!(unusual, [(Around::Resource, resource_spans.len())]);
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
