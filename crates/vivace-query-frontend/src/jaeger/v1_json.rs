//! A trace as version 1 has it: spans that name their process, tags with types, microseconds.
//! Source: docs/facts/clients.md, "Jaeger's query API".
//!
//! Written span by span, so that no second copy of a large trace is held.

use std::borrow::Cow;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use vivace_proto::otlp::any_value::Value;
use vivace_proto::otlp::span::{Event, SpanKind};
use vivace_proto::otlp::status::StatusCode;
use vivace_proto::otlp::{InstrumentationScope, KeyValue, ResourceSpans, Span};

use crate::attribute_json::{self, EXACT_INT, value_of};
use crate::combine::CombinedTrace;
use crate::finding::service_of;

/// What spans without a service are said to be of.
const NO_SERVICE: &str = "OTLPResourceNoServiceName";

/// The envelope of all answers.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<T> {
    data: T,
    total: usize,
    limit: usize,
    offset: usize,
    errors: Option<()>,
}

impl<T> Envelope<T> {
    /// `total`: how many there are in `data`.
    pub(crate) fn of(data: T, total: usize) -> Self {
        Self { data, total, limit: 0, offset: 0, errors: None }
    }
}

/// A whole trace, with at least one span.
pub(crate) struct TraceV1(pub(crate) CombinedTrace);

impl Serialize for TraceV1 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let resources = &self.0.trace.resource_spans[..];
        let first = resources.iter().flat_map(|resource| &resource.scope_spans).find_map(|scope| scope.spans.first());
        let mut map = to.serialize_map(Some(4))?;
        map.serialize_entry("traceID", &first.map(|span| hex::encode(&span.trace_id)).unwrap_or_default())?;
        map.serialize_entry("spans", &Spans(resources))?;
        map.serialize_entry("processes", &Processes(resources))?;
        map.serialize_entry("warnings", &Some(&self.0.message).filter(|text| !text.is_empty()).map(|text| [text]))?;
        map.end()
    }
}

struct Spans<'a>(&'a [ResourceSpans]);

impl Serialize for Spans<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().enumerate().flat_map(|(process, resource)| {
            let spans = resource.scope_spans.iter().flat_map(|scope| scope.spans.iter().map(move |span| (scope.scope.as_ref(), span)));
            spans.map(move |(scope, span)| SpanV1::of(process, scope, span))
        }))
    }
}

struct Processes<'a>(&'a [ResourceSpans]);

impl Serialize for Processes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().enumerate().map(|(process, resource)| (process_id(process), Process::of(resource))))
    }
}

fn process_id(process: usize) -> String {
    format!("p{}", process + 1)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process<'a> {
    service_name: &'a str,
    tags: Vec<Tag<'a>>,
}

impl<'a> Process<'a> {
    fn of(resource: &'a ResourceSpans) -> Self {
        let attributes = resource.resource.as_ref().map(|resource| &resource.attributes[..]).unwrap_or_default();
        Self {
            service_name: service_of(resource.resource.as_ref()).unwrap_or(NO_SERVICE),
            tags: attributes.iter().filter(|attribute| attribute.key != "service.name").map(Tag::of).collect(),
        }
    }
}

#[derive(Serialize)]
struct SpanV1<'a> {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    flags: u32,
    #[serde(rename = "operationName")]
    operation_name: &'a str,
    references: Vec<Reference>,
    /// Microseconds since 1970.
    #[serde(rename = "startTime")]
    start_time: u64,
    /// Microseconds.
    duration: u64,
    tags: Vec<Tag<'a>>,
    logs: Vec<Log<'a>>,
    #[serde(rename = "processID")]
    process_id: String,
    warnings: Option<()>,
}

impl<'a> SpanV1<'a> {
    fn of(process: usize, scope: Option<&'a InstrumentationScope>, span: &'a Span) -> Self {
        Self {
            trace_id: hex::encode(&span.trace_id),
            span_id: hex::encode(&span.span_id),
            // The others of OTLP's flags say where a parent is.
            flags: span.flags & 0xff,
            operation_name: &span.name,
            references: references(span),
            start_time: span.start_time_unix_nano / 1000,
            duration: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) / 1000,
            tags: tags(scope, span),
            logs: span.events.iter().map(Log::of).collect(),
            process_id: process_id(process),
            warnings: None,
        }
    }
}

#[derive(Serialize)]
struct Reference {
    #[serde(rename = "refType")]
    kind: &'static str,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

fn references(span: &Span) -> Vec<Reference> {
    let reference =
        |kind, trace_id: &[u8], span_id: &[u8]| Reference { kind, trace_id: hex::encode(trace_id), span_id: hex::encode(span_id) };
    let parent = is_id(&span.parent_span_id).then(|| reference("CHILD_OF", &span.trace_id, &span.parent_span_id));
    let links = span.links.iter().filter(|link| is_id(&link.trace_id) && is_id(&link.span_id)).map(|link| {
        // What Jaeger's own references became on their way in.
        let is_parent = link.attributes.iter().any(|attribute| {
            attribute.key == "opentracing.ref_type" && value_of(attribute) == Some(&Value::StringValue("child_of".to_owned()))
        });
        reference(if is_parent { "CHILD_OF" } else { "FOLLOWS_FROM" }, &link.trace_id, &link.span_id)
    });
    parent.into_iter().chain(links).collect()
}

/// Whether something is named at all.
pub(crate) fn is_id(id: &[u8]) -> bool {
    id.iter().any(|byte| *byte != 0)
}

/// A span's attributes, and what else of it Jaeger has as tags.
fn tags<'a>(scope: Option<&'a InstrumentationScope>, span: &'a Span) -> Vec<Tag<'a>> {
    let mut tags: Vec<Tag<'a>> = span.attributes.iter().map(Tag::of).collect();
    let has = |key: &str| span.attributes.iter().any(|attribute| attribute.key == key);
    let kind = match span.kind() {
        SpanKind::Unspecified => "",
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    };
    let status = span.status.as_ref();
    let code = match status.map(|status| status.code()) {
        None | Some(StatusCode::Unset) => "",
        Some(StatusCode::Ok) => "OK",
        Some(StatusCode::Error) => "ERROR",
    };
    let texts = [
        ("otel.scope.name", scope.map_or("", |scope| &scope.name)),
        ("otel.scope.version", scope.map_or("", |scope| &scope.version)),
        ("span.kind", kind),
        ("otel.status_code", code),
        ("otel.status_description", status.map_or("", |status| &status.message)),
        ("w3c.tracestate", &span.trace_state),
    ];
    let texts = texts.into_iter().filter(|(key, text)| !text.is_empty() && !has(key));
    tags.extend(texts.map(|(key, text)| Tag { key, kind: "string", value: TagValue::Text(text.into()) }));
    if code == "ERROR" && !has("error") {
        tags.push(Tag { key: "error", kind: "bool", value: TagValue::Bool(true) });
    }
    tags
}

#[derive(Serialize)]
struct Log<'a> {
    /// Microseconds since 1970.
    timestamp: u64,
    fields: Vec<Tag<'a>>,
}

impl<'a> Log<'a> {
    fn of(event: &'a Event) -> Self {
        let has_name = event.name.is_empty() || event.attributes.iter().any(|attribute| attribute.key == "event");
        let name = (!has_name).then(|| Tag { key: "event", kind: "string", value: TagValue::Text(event.name.as_str().into()) });
        Self { timestamp: event.time_unix_nano / 1000, fields: name.into_iter().chain(event.attributes.iter().map(Tag::of)).collect() }
    }
}

#[derive(Serialize)]
struct Tag<'a> {
    key: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    value: TagValue<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TagValue<'a> {
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl<'a> Tag<'a> {
    fn of(attribute: &'a KeyValue) -> Self {
        let value = value_of(attribute);
        let (kind, value) = match value {
            Some(Value::StringValue(text)) => ("string", TagValue::Text(text.as_str().into())),
            Some(Value::BoolValue(value)) => ("bool", TagValue::Bool(*value)),
            Some(Value::IntValue(value)) if value.unsigned_abs() > EXACT_INT => ("int64", TagValue::Text(value.to_string().into())),
            Some(Value::IntValue(value)) => ("int64", TagValue::Int(*value)),
            Some(Value::DoubleValue(value)) if value.is_finite() => ("float64", TagValue::Float(*value)),
            Some(Value::DoubleValue(value)) => ("float64", TagValue::Text(value.to_string().into())),
            Some(Value::BytesValue(_)) => ("binary", TagValue::Text(attribute_json::text(value).into())),
            Some(Value::ArrayValue(_) | Value::KvlistValue(_)) | None => ("string", TagValue::Text(attribute_json::text(value).into())),
        };
        Self { key: &attribute.key, kind, value }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vivace_core::budget::{Account, Budget};
    use vivace_proto::otlp::span::Link;
    use vivace_proto::otlp::{AnyValue, ArrayValue, Resource, ScopeSpans, Status};
    use vivace_proto::tempopb::Trace;

    use super::*;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }

    fn text(key: &str, value: &str) -> KeyValue {
        attribute(key, Value::StringValue(value.to_owned()))
    }

    #[test]
    fn a_trace_has_typed_tags_references_logs_and_processes() {
        let span = Span {
            trace_id: [vec![0; 15], vec![0xab]].concat().into(),
            span_id: vec![2; 8].into(),
            parent_span_id: vec![1; 8].into(),
            trace_state: "a=b".to_owned(),
            flags: 0x301,
            name: "pay".to_owned(),
            kind: SpanKind::Server as i32,
            start_time_unix_nano: 1_700_000_000_000_001_500,
            end_time_unix_nano: 1_700_000_000_000_004_700,
            attributes: vec![
                text("s", "x"),
                attribute("b", Value::BoolValue(true)),
                attribute("i", Value::IntValue(-3)),
                attribute("big", Value::IntValue(i64::MAX)),
                attribute("f", Value::DoubleValue(0.5)),
                attribute("nan", Value::DoubleValue(f64::NAN)),
                attribute("bytes", Value::BytesValue(vec![1, 2, 255].into())),
                attribute("list", Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(Value::IntValue(1)) }] })),
                KeyValue { key: "none".to_owned(), value: None },
            ],
            events: vec![Event {
                time_unix_nano: 1_700_000_000_000_002_000,
                name: "miss".to_owned(),
                attributes: vec![text("k", "v")],
                ..Default::default()
            }],
            links: vec![
                Link { trace_id: vec![5; 16].into(), span_id: vec![6; 8].into(), ..Default::default() },
                Link { trace_id: vec![0; 16].into(), span_id: vec![6; 8].into(), ..Default::default() },
                Link {
                    trace_id: vec![7; 16].into(),
                    span_id: vec![8; 8].into(),
                    attributes: vec![text("opentracing.ref_type", "child_of")],
                    ..Default::default()
                },
            ],
            status: Some(Status { message: "declined".to_owned(), code: StatusCode::Error as i32 }),
            ..Default::default()
        };
        let scope = InstrumentationScope { name: "lib".to_owned(), version: "1".to_owned(), ..Default::default() };
        let resource = |attributes| Some(Resource { attributes, ..Default::default() });
        let spans = vec![
            ResourceSpans {
                resource: resource(vec![text("service.name", "shop"), text("host", "h")]),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![span], ..Default::default() }],
                ..Default::default()
            },
            ResourceSpans { resource: resource(Vec::new()), ..Default::default() },
        ];
        let trace = CombinedTrace {
            trace: Trace { resource_spans: spans },
            inspected_bytes: 0,
            too_large_for: None,
            message: "a part is missing".to_owned(),
            held: Budget::unlimited().open(Account::Queries),
        };
        let id = "000000000000000000000000000000ab";
        let want = json!({
            "traceID": id,
            "spans": [{
                "traceID": id, "spanID": "0202020202020202", "flags": 1, "operationName": "pay",
                "references": [
                    {"refType": "CHILD_OF", "traceID": id, "spanID": "0101010101010101"},
                    {"refType": "FOLLOWS_FROM", "traceID": "05".repeat(16), "spanID": "06".repeat(8)},
                    {"refType": "CHILD_OF", "traceID": "07".repeat(16), "spanID": "08".repeat(8)},
                ],
                "startTime": 1_700_000_000_000_001_u64, "duration": 3,
                "tags": [
                    {"key": "s", "type": "string", "value": "x"},
                    {"key": "b", "type": "bool", "value": true},
                    {"key": "i", "type": "int64", "value": -3},
                    {"key": "big", "type": "int64", "value": "9223372036854775807"},
                    {"key": "f", "type": "float64", "value": 0.5},
                    {"key": "nan", "type": "float64", "value": "NaN"},
                    {"key": "bytes", "type": "binary", "value": "AQL/"},
                    {"key": "list", "type": "string", "value": "[1]"},
                    {"key": "none", "type": "string", "value": ""},
                    {"key": "otel.scope.name", "type": "string", "value": "lib"},
                    {"key": "otel.scope.version", "type": "string", "value": "1"},
                    {"key": "span.kind", "type": "string", "value": "server"},
                    {"key": "otel.status_code", "type": "string", "value": "ERROR"},
                    {"key": "otel.status_description", "type": "string", "value": "declined"},
                    {"key": "w3c.tracestate", "type": "string", "value": "a=b"},
                    {"key": "error", "type": "bool", "value": true},
                ],
                "logs": [{"timestamp": 1_700_000_000_000_002_u64, "fields": [
                    {"key": "event", "type": "string", "value": "miss"}, {"key": "k", "type": "string", "value": "v"},
                ]}],
                "processID": "p1", "warnings": null,
            }],
            "processes": {
                "p1": {"serviceName": "shop", "tags": [{"key": "host", "type": "string", "value": "h"}]},
                "p2": {"serviceName": "OTLPResourceNoServiceName", "tags": []},
            },
            "warnings": ["a part is missing"],
        });
        assert_eq!(serde_json::to_value(TraceV1(trace)).unwrap(), want);
        let empty = serde_json::to_value(Envelope::of(Vec::<TraceV1>::new(), 0)).unwrap();
        assert_eq!(empty, json!({"data": [], "total": 0, "limit": 0, "offset": 0, "errors": null}));
    }
}
