//! OTLP messages into the parts of a row.

use vivace_core::TraceId;
use vivace_core::wire::{Fields, Reader, UsualFields, Value, WireError};

use super::{Attr, AttrValue, Event, Layout, Link, Resource, Row, Scalar, Scope, Span};
use crate::schema::Leaf;

/// A span, and what its trace wants to know of it.
pub(super) struct ParsedSpan<'a> {
    pub(super) span: Span<'a>,
    /// As sent.
    pub(super) end: u64,
    /// It says, the OpenTracing way, that another span of this trace is its parent.
    pub(super) is_child_of_own_trace: bool,
    pub(super) mark: Mark,
}

/// Where a row's lists ended before a span was read.
pub(super) struct Mark {
    events: usize,
    links: usize,
    span_attrs: usize,
    event_attrs: usize,
    link_attrs: usize,
    span_columns: usize,
}

impl Mark {
    fn of(row: &Row<'_>) -> Self {
        Self {
            events: row.events.len(),
            links: row.links.len(),
            span_attrs: row.span_attrs.len(),
            event_attrs: row.event_attrs.len(),
            link_attrs: row.link_attrs.len(),
            span_columns: row.span_columns.len(),
        }
    }

    /// Forgets what was read since.
    pub(super) fn roll_back(&self, row: &mut Row<'_>) {
        row.events.truncate(self.events);
        row.links.truncate(self.links);
        row.span_attrs.truncate(self.span_attrs);
        row.event_attrs.truncate(self.event_attrs);
        row.link_attrs.truncate(self.link_attrs);
        row.span_columns.truncate(self.span_columns);
    }
}

impl<'a> Row<'a> {
    pub(super) fn read_resource(&mut self, layout: &Layout, message: &'a [u8]) -> Result<Resource<'a>, WireError> {
        let (attrs, columns) = (self.resource_attrs.len(), self.resource_columns.len());
        let result = self.try_resource(layout, message, attrs, columns);
        if result.is_err() {
            self.resource_attrs.truncate(attrs);
            self.resource_columns.truncate(columns);
        }
        result
    }

    fn try_resource(&mut self, layout: &Layout, message: &'a [u8], attrs: usize, columns: usize) -> Result<Resource<'a>, WireError> {
        let (mut service_name, mut dropped_attrs): (Option<&[u8]>, _) = (None, 0);
        let mut root_service: Option<&[u8]> = None;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.next_field()? {
            match field {
                (1, Value::Bytes(v)) => {
                    let attr = Attr::read(v)?;
                    match (layout.resource_column(attr.key), attr.as_str()) {
                        (Some(Leaf::SERVICE_NAME), text) => {
                            root_service.get_or_insert(text.unwrap_or_default());
                            match text.filter(|_| service_name.is_none()) {
                                Some(text) => service_name = Some(text),
                                None => self.resource_attrs.push(attr),
                            }
                        }
                        (Some(leaf), Some(text)) if is_unset(&self.resource_columns[columns..], leaf) => {
                            self.resource_columns.push((leaf, text));
                        }
                        _ => self.resource_attrs.push(attr),
                    }
                }
                (2, Value::Varint(v)) => dropped_attrs = v as i32,
                (1 | 2, _) => return Err(reader.wrong_type(field.0)),
                _ => {}
            }
        }
        self.resource_attrs[attrs..].sort_by_key(|attr| attr.key);
        self.resource_columns[columns..].sort_by_key(|(leaf, _)| *leaf);
        Ok(Resource {
            content: 0,
            service_name: service_name.unwrap_or_default(),
            dropped_attrs,
            attrs: attrs..self.resource_attrs.len(),
            columns: columns..self.resource_columns.len(),
            scopes: 0..0,
            root_service: root_service.unwrap_or_default(),
        })
    }

    pub(super) fn read_scope(&mut self, message: &'a [u8]) -> Result<Scope<'a>, WireError> {
        let first = self.scope_attrs.len();
        let mut scope = Scope { name: &[], version: &[], dropped_attrs: 0, attrs: first..first, spans: 0..0, resource: 0 };
        let mut reader = Reader::new(message);
        let mut read = || {
            while let Some(field) = reader.next_field()? {
                match field {
                    (1, Value::Bytes(v)) => scope.name = v,
                    (2, Value::Bytes(v)) => scope.version = v,
                    (3, Value::Bytes(v)) => self.scope_attrs.push(Attr::read(v)?),
                    (4, Value::Varint(v)) => scope.dropped_attrs = v as i32,
                    (1..=4, _) => return Err(reader.wrong_type(field.0)),
                    _ => {}
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            self.scope_attrs.truncate(first);
            return Err(error);
        }
        scope.attrs.end = self.scope_attrs.len();
        Ok(scope)
    }

    pub(super) fn read_span(&mut self, layout: &Layout, message: &'a [u8]) -> Result<ParsedSpan<'a>, WireError> {
        let mark = Mark::of(self);
        if let Ok(span) = self.try_span(layout, UsualFields::new(message)) {
            return Ok(span);
        }
        mark.roll_back(self);
        self.try_span(layout, Reader::new(message)).inspect_err(|_| mark.roll_back(self))
    }

    fn try_span(&mut self, layout: &Layout, mut reader: impl Fields<'a>) -> Result<ParsedSpan<'a>, WireError> {
        let mark = Mark::of(self);
        let mut span = Span::default();
        let mut end = 0;
        let mut is_child_of_own_trace = false;
        while let Some(field) = reader.next_field()? {
            match field {
                (2, Value::Bytes(v)) => span.id = v,
                (3, Value::Bytes(v)) => span.trace_state = v,
                // Some clients send zeros for "no parent".
                (4, Value::Bytes(v)) => span.parent_id = if v.iter().all(|b| *b == 0) { &[] } else { v },
                (5, Value::Bytes(v)) => span.name = v,
                (6, Value::Varint(v)) => span.kind = i64::from(v as i32),
                (7, Value::Fixed64(v)) => span.start = v,
                (8, Value::Fixed64(v)) => end = v,
                (9, Value::Bytes(v)) => {
                    // Read in any case, since a span with an attribute that is no message is none itself.
                    let attr = Attr::read(v)?;
                    if layout.wanted.wants(attr.key) {
                        self.push_span_attr(layout, &mut span, mark.span_columns, attr);
                    }
                }
                (10, Value::Varint(v)) => span.dropped_attrs = v as i32,
                (11, Value::Bytes(v)) => {
                    self.push_event(v)?;
                    if !layout.wanted.events {
                        self.events.truncate(mark.events);
                        self.event_attrs.truncate(mark.event_attrs);
                    }
                }
                (12, Value::Varint(v)) => span.dropped_events = v as i32,
                (13, Value::Bytes(v)) => is_child_of_own_trace |= self.push_link(v)?,
                (14, Value::Varint(v)) => span.dropped_links = v as i32,
                (15, Value::Bytes(v)) => read_status(&mut span, v)?,
                (2..=15, _) => return Err(reader.wrong_type(field.0)),
                _ => {}
            }
        }
        span.duration = end.wrapping_sub(span.start);
        for event in &mut self.events[mark.events..] {
            event.time_since_start = event.time_since_start.wrapping_sub(span.start);
        }
        span.attrs = mark.span_attrs..self.span_attrs.len();
        span.columns = mark.span_columns..self.span_columns.len();
        span.events = mark.events..self.events.len();
        span.links = mark.links..self.links.len();
        Ok(ParsedSpan { span, end, is_child_of_own_trace, mark })
    }

    fn push_span_attr(&mut self, layout: &Layout, span: &mut Span<'a>, columns: usize, attr: Attr<'a>) {
        match (layout.span_column(attr.key), attr.value) {
            (Some(Leaf::HTTP_STATUS_CODE), AttrValue::Scalar(Scalar::Int(code))) if span.http_status_code.is_none() => {
                span.http_status_code = Some(code);
            }
            (Some(leaf), AttrValue::Scalar(Scalar::Str(text)))
                if leaf != Leaf::HTTP_STATUS_CODE && is_unset(&self.span_columns[columns..], leaf) =>
            {
                self.span_columns.push((leaf, text));
            }
            _ => self.span_attrs.push(attr),
        }
    }

    /// Leaves the absolute time in `time_since_start`, since the span's start may come later in the message.
    fn push_event(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let first = self.event_attrs.len();
        let mut event = Event::default();
        let mut reader = Reader::new(message);
        while let Some(field) = reader.next_field()? {
            match field {
                (1, Value::Fixed64(v)) => event.time_since_start = v,
                (2, Value::Bytes(v)) => event.name = v,
                (3, Value::Bytes(v)) => self.event_attrs.push(Attr::read(v)?),
                (4, Value::Varint(v)) => event.dropped_attrs = v as i32,
                (1..=4, _) => return Err(reader.wrong_type(field.0)),
                _ => {}
            }
        }
        event.attrs = first..self.event_attrs.len();
        self.events.push(event);
        Ok(())
    }

    /// Whether the link says `child_of` about this very trace.
    fn push_link(&mut self, message: &'a [u8]) -> Result<bool, WireError> {
        let first = self.link_attrs.len();
        let mut link = Link::default();
        let mut reader = Reader::new(message);
        while let Some(field) = reader.next_field()? {
            match field {
                (1, Value::Bytes(v)) => link.trace_id = v,
                (2, Value::Bytes(v)) => link.span_id = v,
                (3, Value::Bytes(v)) => link.trace_state = v,
                (4, Value::Bytes(v)) => self.link_attrs.push(Attr::read(v)?),
                (5, Value::Varint(v)) => link.dropped_attrs = v as i32,
                (1..=5, _) => return Err(reader.wrong_type(field.0)),
                _ => {}
            }
        }
        link.attrs = first..self.link_attrs.len();
        let is_child_of = |attr: &Attr<'_>| attr.key == b"opentracing.ref_type" && attr.as_str() == Some(b"child_of");
        let answer = TraceId::from_slice(link.trace_id) == self.trace_id && self.link_attrs[first..].iter().any(is_child_of);
        self.links.push(link);
        Ok(answer)
    }

    /// Equal for resources that are stored as one. The count of dropped attributes plays no part.
    pub(super) fn resource_content(&self, resource: &Resource<'a>) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        put(&mut out, resource.service_name);
        for (leaf, value) in &self.resource_columns[resource.columns.clone()] {
            put(&mut out, &[leaf.index() as u8]);
            put(&mut out, value);
        }
        put(&mut out, &[]);
        put_attrs(&mut out, &self.resource_attrs[resource.attrs.clone()]);
        out
    }

    /// Equal for scopes of one resource that are stored as one.
    pub(super) fn scope_content(&self, scope: &Scope<'a>) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put(&mut out, scope.name);
        put(&mut out, scope.version);
        let mut attrs = self.scope_attrs[scope.attrs.clone()].to_vec();
        attrs.sort_by_key(|attr| attr.key);
        put_attrs(&mut out, &attrs);
        out
    }
}

fn read_status<'a>(span: &mut Span<'a>, message: &'a [u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some(field) = reader.next_field()? {
        match field {
            (2, Value::Bytes(v)) => span.status_message = v,
            (3, Value::Varint(v)) => span.status_code = i64::from(v as i32),
            (2 | 3, _) => return Err(reader.wrong_type(field.0)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a column has no value yet. The first of equal keys counts, as for those who read attributes by key; further ones are
/// kept beside it, among the attributes that have no column.
fn is_unset(columns: &[(Leaf, &[u8])], leaf: Leaf) -> bool {
    columns.iter().all(|(of, _)| *of != leaf)
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    vivace_core::wire::put_varint(out, part.len() as u64);
    out.extend_from_slice(part);
}

fn put_attrs(out: &mut Vec<u8>, attrs: &[Attr<'_>]) {
    for attr in attrs {
        put(out, attr.key);
        match attr.value {
            AttrValue::Scalar(scalar) => put_scalar(out, scalar),
            AttrValue::Array(array) => {
                out.push(5);
                vivace_core::wire::put_varint(out, array.len as u64);
                array.elements().for_each(|scalar| put_scalar(out, scalar));
            }
            AttrValue::Unsupported(message) => {
                out.push(6);
                put(out, message);
            }
        }
    }
}

fn put_scalar(out: &mut Vec<u8>, scalar: Scalar<'_>) {
    match scalar {
        Scalar::Str(text) => {
            out.push(1);
            put(out, text);
        }
        Scalar::Int(v) => {
            out.push(2);
            out.extend(v.to_le_bytes());
        }
        Scalar::Double(v) => {
            out.push(3);
            out.extend(v.to_bits().to_le_bytes());
        }
        Scalar::Bool(v) => out.extend([4, u8::from(v)]),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use vivace_proto::otlp::any_value::Value as AnyKind;
    use vivace_proto::otlp::span::Event;
    use vivace_proto::otlp::{AnyValue, KeyValue, Span as OtlpSpan, Status};

    use super::*;

    #[test]
    fn usual_spans_are_read_as_all_others_are() {
        let attribute = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) };
        let span = OtlpSpan {
            trace_id: vec![1; 16].into(),
            span_id: vec![2; 8].into(),
            parent_span_id: vec![3; 8].into(),
            name: "name".to_owned(),
            kind: 3,
            start_time_unix_nano: 1_000,
            end_time_unix_nano: 3_000,
            attributes: vec![attribute("http.method", AnyKind::StringValue("GET".to_owned())), attribute("n", AnyKind::IntValue(7))],
            dropped_attributes_count: 300,
            events: vec![Event { time_unix_nano: 1_500, name: "event".to_owned(), ..Event::default() }],
            status: Some(Status { code: 2, message: "no".to_owned() }),
            flags: 1,
            ..OtlpSpan::default()
        };
        let few_dropped = OtlpSpan { dropped_attributes_count: 3, ..span.clone() };
        let layout = Layout::vparquet4(&[]);
        let read = |fields: &mut dyn FnMut(&mut Row<'static>) -> Result<Span<'static>, WireError>| {
            let mut row = Row::default();
            let span = fields(&mut row)?;
            Ok::<_, WireError>((span, row.span_attrs, row.events, row.span_columns))
        };
        let (mut usual, mut all) = (0, 0);
        for bytes in [span.encode_to_vec(), few_dropped.encode_to_vec()] {
            for at in 0..bytes.len() {
                for byte in [bytes[at], 0, 1, 8, 0x4a, 0x7f, 0x80, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] = byte;
                    let bytes: &'static [u8] = bytes.leak();
                    let fast = read(&mut |row| row.try_span(&layout, UsualFields::new(bytes)).map(|parsed| parsed.span));
                    let slow = read(&mut |row| row.try_span(&layout, Reader::new(bytes)).map(|parsed| parsed.span));
                    all += usize::from(slow.is_ok());
                    if fast.is_ok() {
                        usual += 1;
                        assert_eq!(fast, slow, "{bytes:?}");
                    }
                }
            }
        }
        assert!(usual > 500 && all > usual, "{usual} of {all}");
    }
}
