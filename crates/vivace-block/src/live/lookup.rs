//! The value of an attribute or intrinsic on a span of a row.
//!
//! Source: docs/facts/traceql.md, "Values", "Intrinsics", "Looking up an attribute".

use std::sync::Arc;

use rustc_hash::FxHashMap;
use vivace_core::{SpanId, TraceId};
use vivace_traceql::{Attribute, Intrinsic, Kind, Scope, Status, Value};

use crate::row::{Attr, AttrValue, Event, Layout, Link, Row, Scalar, Span};
use crate::schema::Leaf;

/// Makes values. Equal texts share their memory.
pub(super) struct Lookup<'a, 'l> {
    layout: &'l Layout,
    texts: FxHashMap<&'a [u8], Arc<str>>,
}

/// A limit on remembered texts; past it equal texts are made anew. Bounds the memory of scans over all live data.
const TEXTS_MAX: usize = 100_000;

impl<'a, 'l> Lookup<'a, 'l> {
    /// `layout` must be the one the rows were built with.
    pub(super) fn new(layout: &'l Layout) -> Self {
        Self { layout, texts: FxHashMap::default() }
    }

    pub(super) fn text(&mut self, bytes: &'a [u8]) -> Arc<str> {
        if let Some(text) = self.texts.get(bytes) {
            return Arc::clone(text);
        }
        let text: Arc<str> = String::from_utf8_lossy(bytes).into();
        if self.texts.len() < TEXTS_MAX {
            self.texts.insert(bytes, Arc::clone(&text));
        }
        text
    }

    /// A value of a span, its scope, its resource or its trace. Nil for what stands on events and links.
    pub(super) fn of_span(&mut self, row: &Row<'a>, span: &Span<'a>, attribute: &Attribute) -> Value {
        match attribute {
            Attribute::Intrinsic(intrinsic) => self.intrinsic(row, span, *intrinsic),
            Attribute::Named { scope, key } => {
                let key = key.as_bytes();
                match scope {
                    Scope::Span => self.span_attr(row, span, key),
                    Scope::Resource => self.resource_attr(row, span, key),
                    Scope::Instrumentation => self.find(&row.scope_attrs[row.context(span).0.attrs.clone()], key),
                    Scope::Unscoped => match self.span_attr(row, span, key) {
                        Value::Nil => self.resource_attr(row, span, key),
                        value => value,
                    },
                    Scope::Event | Scope::Link => Value::Nil,
                }
            }
        }
    }

    pub(super) fn of_event(&mut self, row: &Row<'a>, event: &Event<'a>, attribute: &Attribute) -> Value {
        match attribute {
            Attribute::Intrinsic(Intrinsic::EventName) => Value::Str(self.text(event.name)),
            Attribute::Intrinsic(Intrinsic::EventTimeSinceStart) => Value::Duration(event.time_since_start as i64),
            Attribute::Named { scope: Scope::Event, key } => self.find(&row.event_attrs[event.attrs.clone()], key.as_bytes()),
            _ => Value::Nil,
        }
    }

    pub(super) fn of_link(&mut self, row: &Row<'a>, link: &Link<'a>, attribute: &Attribute) -> Value {
        match attribute {
            Attribute::Intrinsic(Intrinsic::LinkTraceId) => Value::Str(TraceId::from_slice(link.trace_id).trimmed_hex().into()),
            Attribute::Intrinsic(Intrinsic::LinkSpanId) => Value::Str(SpanId::from_slice(link.span_id).to_string().into()),
            Attribute::Named { scope: Scope::Link, key } => self.find(&row.link_attrs[link.attrs.clone()], key.as_bytes()),
            _ => Value::Nil,
        }
    }

    fn intrinsic(&mut self, row: &Row<'a>, span: &Span<'a>, intrinsic: Intrinsic) -> Value {
        match intrinsic {
            Intrinsic::Name => Value::Str(self.text(span.name)),
            // Of a span that ends before it starts the difference wraps: it is very long, as for Tempo.
            Intrinsic::Duration => Value::Duration(i64::try_from(span.duration).unwrap_or(i64::MAX)),
            Intrinsic::Status => Value::Status(Status::from_otlp(span.status_code)),
            Intrinsic::StatusMessage => Value::Str(self.text(span.status_message)),
            Intrinsic::Kind => Value::Kind(Kind::from_otlp(span.kind)),
            Intrinsic::SpanId => Value::Str(SpanId::from_slice(span.id).to_string().into()),
            Intrinsic::ParentId => Value::Str(SpanId::from_slice(span.parent_id).to_string().into()),
            Intrinsic::ChildCount => Value::Int(i64::from(span.position.child_count)),
            Intrinsic::TraceId => Value::Str(row.trace_id.trimmed_hex().into()),
            Intrinsic::TraceDuration => Value::Duration(i64::try_from(row.end.saturating_sub(row.start)).unwrap_or(i64::MAX)),
            Intrinsic::RootName => Value::Str(self.text(row.root_name)),
            Intrinsic::RootService => Value::Str(self.text(row.root_service)),
            Intrinsic::ScopeName => Value::Str(self.text(row.context(span).0.name)),
            Intrinsic::ScopeVersion => Value::Str(self.text(row.context(span).0.version)),
            Intrinsic::NestedSetLeft => Value::Int(i64::from(span.position.left)),
            Intrinsic::NestedSetRight => Value::Int(i64::from(span.position.right)),
            Intrinsic::NestedSetParent => Value::Int(i64::from(span.position.parent)),
            Intrinsic::EventName | Intrinsic::EventTimeSinceStart | Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => Value::Nil,
        }
    }

    fn span_attr(&mut self, row: &Row<'a>, span: &Span<'a>, key: &[u8]) -> Value {
        match self.layout.span_column(key) {
            Some(Leaf::HTTP_STATUS_CODE) => {
                if let Some(code) = span.http_status_code {
                    return Value::Int(code);
                }
            }
            Some(leaf) => {
                if let Some((_, text)) = row.span_columns[span.columns.clone()].iter().find(|(l, _)| *l == leaf) {
                    return Value::Str(self.text(text));
                }
            }
            None => {}
        }
        self.find(&row.span_attrs[span.attrs.clone()], key)
    }

    fn resource_attr(&mut self, row: &Row<'a>, span: &Span<'a>, key: &[u8]) -> Value {
        let resource = row.context(span).1;
        match self.layout.resource_column(key) {
            // Always there, be it empty. What is no text is an attribute like others.
            Some(Leaf::SERVICE_NAME) => {
                return match resource.service_name {
                    [] => match self.find(&row.resource_attrs[resource.attrs.clone()], key) {
                        Value::Nil => Value::Str(self.text(&[])),
                        value => value,
                    },
                    name => Value::Str(self.text(name)),
                };
            }
            Some(leaf) => {
                if let Some((_, text)) = row.resource_columns[resource.columns.clone()].iter().find(|(l, _)| *l == leaf) {
                    return Value::Str(self.text(text));
                }
            }
            None => {}
        }
        self.find(&row.resource_attrs[resource.attrs.clone()], key)
    }

    /// Of several attributes with one key the first counts.
    fn find(&mut self, attrs: &[Attr<'a>], key: &[u8]) -> Value {
        attrs.iter().find(|attr| attr.key == key).map_or(Value::Nil, |attr| self.value(&attr.value))
    }

    pub(super) fn value(&mut self, value: &AttrValue<'a>) -> Value {
        match value {
            AttrValue::Scalar(scalar) => self.scalar(*scalar),
            AttrValue::Unsupported(_) => Value::Opaque,
            AttrValue::Array(array) => {
                let mut elements = array.elements();
                match (array.len, elements.next()) {
                    (1, Some(only)) => self.scalar(only),
                    (_, None) => Value::Opaque,
                    (_, Some(Scalar::Str(_))) => Value::StrArray(
                        array.elements().filter_map(|s| if let Scalar::Str(v) = s { Some(self.text(v)) } else { None }).collect(),
                    ),
                    (_, Some(Scalar::Int(_))) => {
                        Value::IntArray(array.elements().filter_map(|s| if let Scalar::Int(v) = s { Some(v) } else { None }).collect())
                    }
                    (_, Some(Scalar::Double(_))) => {
                        Value::FloatArray(array.elements().filter_map(|s| if let Scalar::Double(v) = s { Some(v) } else { None }).collect())
                    }
                    (_, Some(Scalar::Bool(_))) => {
                        Value::BoolArray(array.elements().filter_map(|s| if let Scalar::Bool(v) = s { Some(v) } else { None }).collect())
                    }
                }
            }
        }
    }

    pub(super) fn scalar(&mut self, scalar: Scalar<'a>) -> Value {
        match scalar {
            Scalar::Str(v) => Value::Str(self.text(v)),
            Scalar::Int(v) => Value::Int(v),
            Scalar::Double(v) => Value::Float(v),
            Scalar::Bool(v) => Value::Bool(v),
        }
    }
}
