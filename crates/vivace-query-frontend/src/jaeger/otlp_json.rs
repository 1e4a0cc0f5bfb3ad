//! Traces as version 3 has them: OTLP's own JSON, whose ids are hex and whose enums are numbers. The query API has base64 and names.
//! Source: docs/facts/clients.md, "Jaeger's query API".
//!
//! Written span by span, so that no second copy of a large trace is held.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use vivace_proto::otlp::any_value::Value;
use vivace_proto::otlp::span::{Event, Link};
use vivace_proto::otlp::{KeyValue, ResourceSpans, ScopeSpans, Span};

use super::v1_json::is_id;
use crate::attribute_json::{self, value_of};
use crate::combine::CombinedTrace;

/// `{"result":{"resourceSpans":[…]}}` with the spans of all traces.
pub(crate) struct TracesV3(pub(crate) Vec<CombinedTrace>);

impl Serialize for TracesV3 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry(
            "result",
            &TracesJson { resource_spans: Seq(|| self.0.iter().flat_map(|trace| &trace.trace.resource_spans).map(ResourceJson)) },
        )?;
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TracesJson<T: Serialize> {
    resource_spans: T,
}

/// What an iterator yields, written as it is asked for.
struct Seq<F>(F);

impl<I: IntoIterator<Item: Serialize>, F: Fn() -> I> Serialize for Seq<F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

struct ResourceJson<'a>(&'a ResourceSpans);

impl Serialize for ResourceJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        let attributes = self.0.resource.as_ref().map(|resource| &resource.attributes[..]).unwrap_or_default();
        map.serialize_entry("resource", &Attributes { attributes: pairs(attributes) })?;
        map.serialize_entry("scopeSpans", &Seq(|| self.0.scope_spans.iter().map(ScopeJson)))?;
        if !self.0.schema_url.is_empty() {
            map.serialize_entry("schemaUrl", &self.0.schema_url)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<Pair<'a>>,
}

struct ScopeJson<'a>(&'a ScopeSpans);

impl Serialize for ScopeJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Scope<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            name: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            version: &'a str,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            attributes: Vec<Pair<'a>>,
        }
        let mut map = to.serialize_map(None)?;
        let scope =
            self.0.scope.as_ref().map(|scope| Scope { name: &scope.name, version: &scope.version, attributes: pairs(&scope.attributes) });
        map.serialize_entry("scope", &scope.unwrap_or(Scope { name: "", version: "", attributes: Vec::new() }))?;
        map.serialize_entry("spans", &Seq(|| self.0.spans.iter().map(SpanJson::of)))?;
        if !self.0.schema_url.is_empty() {
            map.serialize_entry("schemaUrl", &self.0.schema_url)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    /// Of a root none: an empty one is no id.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    name: &'a str,
    kind: i32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<Pair<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventJson<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_events_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<LinkJson<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_links_count: u32,
    status: StatusJson<'a>,
}

#[derive(Serialize)]
struct StatusJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "is_no_code")]
    code: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_no_code(code: &i32) -> bool {
    *code == 0
}

impl<'a> SpanJson<'a> {
    fn of(span: &'a Span) -> Self {
        let status = span.status.as_ref();
        Self {
            trace_id: hex::encode(&span.trace_id),
            span_id: hex::encode(&span.span_id),
            trace_state: &span.trace_state,
            parent_span_id: is_id(&span.parent_span_id).then(|| hex::encode(&span.parent_span_id)),
            flags: span.flags,
            name: &span.name,
            kind: span.kind.max(0),
            start_time_unix_nano: span.start_time_unix_nano.to_string(),
            end_time_unix_nano: span.end_time_unix_nano.to_string(),
            attributes: pairs(&span.attributes),
            dropped_attributes_count: span.dropped_attributes_count,
            events: span.events.iter().map(EventJson::of).collect(),
            dropped_events_count: span.dropped_events_count,
            // One that names no span leads nowhere, and Jaeger's UI refuses the whole trace for it.
            links: span.links.iter().filter(|link| is_id(&link.trace_id) && is_id(&link.span_id)).map(LinkJson::of).collect(),
            dropped_links_count: span.dropped_links_count,
            status: StatusJson {
                message: status.map_or("", |status| &status.message),
                code: status.map_or(0, |status| status.code.max(0)),
            },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    time_unix_nano: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<Pair<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
}

impl<'a> EventJson<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            time_unix_nano: event.time_unix_nano.to_string(),
            name: &event.name,
            attributes: pairs(&event.attributes),
            dropped_attributes_count: event.dropped_attributes_count,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<Pair<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
}

impl<'a> LinkJson<'a> {
    fn of(link: &'a Link) -> Self {
        // Ids come in every length; clients take only whole ones.
        let id = |bytes: &[u8], len: usize| format!("{:0>width$}", hex::encode(&bytes[..bytes.len().min(len)]), width = 2 * len);
        Self {
            trace_id: id(&link.trace_id, 16),
            span_id: id(&link.span_id, 8),
            trace_state: &link.trace_state,
            attributes: pairs(&link.attributes),
            dropped_attributes_count: link.dropped_attributes_count,
            flags: link.flags,
        }
    }
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    value: AnyJson<'a>,
}

/// Those that have a value: one without is refused by Jaeger's UI, and the whole trace with it.
fn pairs(attributes: &[KeyValue]) -> Vec<Pair<'_>> {
    let pair = |attribute| Some((attribute, value_of(attribute)?));
    attributes.iter().filter_map(pair).map(|(attribute, value)| Pair { key: &attribute.key, value: AnyJson(value) }).collect()
}

struct AnyJson<'a>(&'a Value);

impl Serialize for AnyJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        match self.0 {
            Value::StringValue(text) => map.serialize_entry("stringValue", text)?,
            Value::BoolValue(value) => map.serialize_entry("boolValue", value)?,
            Value::IntValue(value) => map.serialize_entry("intValue", &value.to_string())?,
            Value::DoubleValue(value) if value.is_finite() => map.serialize_entry("doubleValue", value)?,
            // JSON has no such number.
            Value::DoubleValue(value) => map.serialize_entry("stringValue", &value.to_string())?,
            Value::BytesValue(_) => map.serialize_entry("bytesValue", &attribute_json::text(Some(self.0)))?,
            Value::ArrayValue(list) => {
                let values = || list.values.iter().filter_map(|value| value.value.as_ref()).map(AnyJson);
                map.serialize_entry("arrayValue", &Values { values: Seq(values) })?;
            }
            Value::KvlistValue(list) => map.serialize_entry("kvlistValue", &Values { values: pairs(&list.values) })?,
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Values<T: Serialize> {
    values: T,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vivace_core::budget::{Account, Budget};
    use vivace_proto::otlp::{AnyValue, ArrayValue, Resource};
    use vivace_proto::tempopb::Trace;

    use super::*;

    #[test]
    fn ids_are_hex_enums_are_numbers_and_what_clients_refuse_is_left_out() {
        let attribute = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(AnyValue { value }) };
        let span = Span {
            trace_id: vec![1; 16].into(),
            span_id: vec![2; 8].into(),
            name: "pay".to_owned(),
            kind: 2,
            start_time_unix_nano: u64::MAX,
            end_time_unix_nano: u64::MAX,
            attributes: vec![
                attribute("i", Some(Value::IntValue(-3))),
                attribute("inf", Some(Value::DoubleValue(f64::INFINITY))),
                attribute("bytes", Some(Value::BytesValue(vec![1, 2, 255].into()))),
                attribute(
                    "list",
                    Some(Value::ArrayValue(ArrayValue {
                        values: vec![AnyValue { value: None }, AnyValue { value: Some(Value::BoolValue(true)) }],
                    })),
                ),
                attribute("none", None),
            ],
            events: vec![Event { time_unix_nano: 5, name: "e".to_owned(), ..Default::default() }],
            links: vec![
                Link { trace_id: vec![5].into(), span_id: vec![6; 8].into(), ..Default::default() },
                Link { trace_id: vec![5; 16].into(), ..Default::default() },
            ],
            ..Default::default()
        };
        let scope = ScopeSpans { spans: vec![span], ..Default::default() };
        let resource =
            Resource { attributes: vec![attribute("service.name", Some(Value::StringValue("shop".to_owned())))], ..Default::default() };
        let spans = ResourceSpans { resource: Some(resource), scope_spans: vec![scope], ..Default::default() };
        let trace = CombinedTrace {
            trace: Trace { resource_spans: vec![spans] },
            inspected_bytes: 0,
            too_large_for: None,
            message: String::new(),
            held: Budget::unlimited().open(Account::Queries),
        };
        let want = json!({"result": {"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [{"scope": {}, "spans": [{
                "traceId": "01".repeat(16), "spanId": "02".repeat(8), "name": "pay", "kind": 2,
                "startTimeUnixNano": "18446744073709551615", "endTimeUnixNano": "18446744073709551615",
                "attributes": [
                    {"key": "i", "value": {"intValue": "-3"}},
                    {"key": "inf", "value": {"stringValue": "inf"}},
                    {"key": "bytes", "value": {"bytesValue": "AQL/"}},
                    {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}]}}},
                ],
                "events": [{"timeUnixNano": "5", "name": "e"}],
                "links": [{"traceId": "00000000000000000000000000000005", "spanId": "06".repeat(8)}],
                "status": {},
            }]}],
        }]}});
        assert_eq!(serde_json::to_value(TracesV3(vec![trace])).unwrap(), want);
    }
}
