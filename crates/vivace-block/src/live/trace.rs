//! A live trace as OTLP, as a block would give it back.

use bytes::Bytes;
use vivace_core::TraceId;
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::span::{Event, Link};
use vivace_proto::otlp::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status};

use super::tags::column_name;
use crate::dedicated::put_column_value;
use crate::row::{self, Attr, AttrValue, Layout, ResourceCache, Row, Scalar, SpanRef, any_value_json};
use crate::schema::Leaf;

/// The trace of these spans, which came in this order, and how many are left out since their bytes are no message.
///
/// Equal to what [`crate::BlockReader::find`] gives once the spans are in a block, in every field but the order of attributes that
/// have columns there; what a block does not keep, such as flags, is not in the answer. Copies of a span come once.
#[must_use]
pub fn trace(id: TraceId, spans: &[SpanRef<'_>]) -> (Vec<ResourceSpans>, usize) {
    let row = Row::build(&Layout::vparquet4(&[]), &mut ResourceCache::default(), id, spans);
    let trace_id = Bytes::copy_from_slice(&id.0);
    let resources = row.resources.iter().map(|resource| ResourceSpans {
        resource: Some(of_resource(&row, resource)),
        scope_spans: row.scopes[resource.scopes.clone()]
            .iter()
            .map(|scope| ScopeSpans {
                scope: Some(of_scope(&row, scope)),
                spans: row.spans[scope.spans.clone()].iter().map(|span| of_span(&row, span, &trace_id)).collect(),
                schema_url: String::new(),
            })
            .collect(),
        schema_url: String::new(),
    });
    (resources.collect(), row.invalid.len())
}

fn of_resource(row: &Row<'_>, resource: &row::Resource<'_>) -> Resource {
    let mut attributes = attributes(&row.resource_attrs[resource.attrs.clone()]);
    // A resource without a name and one of an empty name are one in a block.
    if !resource.service_name.is_empty() {
        put_column_value(&mut attributes, key_value(b"service.name", string(resource.service_name)));
    }
    put_columns(&row.resource_columns[resource.columns.clone()], &mut attributes);
    Resource { attributes, dropped_attributes_count: resource.dropped_attrs.cast_unsigned() }
}

fn of_scope(row: &Row<'_>, scope: &row::Scope<'_>) -> InstrumentationScope {
    InstrumentationScope {
        name: text(scope.name),
        version: text(scope.version),
        attributes: attributes(&row.scope_attrs[scope.attrs.clone()]),
        dropped_attributes_count: scope.dropped_attrs.cast_unsigned(),
    }
}

fn of_span(row: &Row<'_>, span: &row::Span<'_>, trace_id: &Bytes) -> Span {
    let mut attributes = attributes(&row.span_attrs[span.attrs.clone()]);
    put_columns(&row.span_columns[span.columns.clone()], &mut attributes);
    if let Some(code) = span.http_status_code {
        put_column_value(&mut attributes, key_value(b"http.status_code", AnyKind::IntValue(code)));
    }
    let event = |event: &row::Event<'_>| Event {
        time_unix_nano: span.start.wrapping_add(event.time_since_start),
        name: text(event.name),
        attributes: self::attributes(&row.event_attrs[event.attrs.clone()]),
        dropped_attributes_count: event.dropped_attrs.cast_unsigned(),
    };
    let link = |link: &row::Link<'_>| Link {
        trace_id: Bytes::copy_from_slice(link.trace_id),
        span_id: Bytes::copy_from_slice(link.span_id),
        trace_state: text(link.trace_state),
        attributes: self::attributes(&row.link_attrs[link.attrs.clone()]),
        dropped_attributes_count: link.dropped_attrs.cast_unsigned(),
        flags: 0,
    };
    let narrow = |number: i64| i32::try_from(number).unwrap_or_default();
    Span {
        trace_id: trace_id.clone(),
        span_id: Bytes::copy_from_slice(span.id),
        trace_state: text(span.trace_state),
        parent_span_id: Bytes::copy_from_slice(span.parent_id),
        name: text(span.name),
        kind: narrow(span.kind),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.start.wrapping_add(span.duration),
        attributes,
        dropped_attributes_count: span.dropped_attrs.cast_unsigned(),
        events: row.events[span.events.clone()].iter().map(event).collect(),
        dropped_events_count: span.dropped_events.cast_unsigned(),
        links: row.links[span.links.clone()].iter().map(link).collect(),
        dropped_links_count: span.dropped_links.cast_unsigned(),
        status: Some(Status { message: text(span.status_message), code: narrow(span.status_code) }),
        flags: 0,
    }
}

fn attributes(attrs: &[Attr<'_>]) -> Vec<KeyValue> {
    let value = |value: &AttrValue<'_>| match value {
        AttrValue::Scalar(value) => Some(scalar(*value)),
        AttrValue::Array(array) => {
            let values = array.elements().map(|value| AnyValue { value: Some(scalar(value)) }).collect();
            Some(AnyKind::ArrayValue(ArrayValue { values }))
        }
        // By the text that blocks hold, so that what is lost there is lost here too.
        AttrValue::Unsupported(message) => {
            let json = any_value_json(message);
            match serde_json::from_str::<AnyValue>(&json) {
                Ok(value) => value.value,
                Err(_) => Some(AnyKind::StringValue(json)),
            }
        }
    };
    attrs.iter().map(|attr| KeyValue { key: text(attr.key), value: Some(AnyValue { value: value(&attr.value) }) }).collect()
}

/// In the order of the columns.
fn put_columns(columns: &[(Leaf, &[u8])], attributes: &mut Vec<KeyValue>) {
    let mut columns = columns.to_vec();
    columns.sort_by_key(|(leaf, _)| *leaf);
    for (leaf, value) in columns {
        put_column_value(attributes, key_value(column_name(leaf).as_bytes(), string(value)));
    }
}

fn scalar(value: Scalar<'_>) -> AnyKind {
    match value {
        Scalar::Str(value) => string(value),
        Scalar::Int(value) => AnyKind::IntValue(value),
        Scalar::Double(value) => AnyKind::DoubleValue(value),
        Scalar::Bool(value) => AnyKind::BoolValue(value),
    }
}

fn string(value: &[u8]) -> AnyKind {
    AnyKind::StringValue(text(value))
}

fn key_value(key: &[u8], value: AnyKind) -> KeyValue {
    KeyValue { key: text(key), value: Some(AnyValue { value: Some(value) }) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
