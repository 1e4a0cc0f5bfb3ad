//! A trace as Zipkin has it: a list of spans, whose tags are all texts, and whose ends are endpoints.
//! Source: docs/facts/clients.md, "Zipkin's query API".
//!
//! Written span by span, so that no second copy of a large trace is held.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json};
use vivace_proto::otlp::any_value::Value;
use vivace_proto::otlp::span::{Event, SpanKind};
use vivace_proto::otlp::status::StatusCode;
use vivace_proto::otlp::{InstrumentationScope, KeyValue, Resource, Span};

use super::request::PEER_SERVICE;
use crate::attribute_json::{self, object, value_of};
use crate::combine::CombinedTrace;
use crate::finding::service_of;

/// Attributes that have the address of the other end, and its port.
const PEER_ADDRESSES: [&str; 4] = ["network.peer.address", "net.sock.peer.addr", "net.peer.ip", "peer.ipv4"];
const PEER_PORTS: [&str; 4] = ["network.peer.port", "net.sock.peer.port", "net.peer.port", "peer.port"];

/// A whole trace, with at least one span.
pub(crate) struct TraceV2(pub(crate) CombinedTrace);

impl Serialize for TraceV2 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let spans = self.0.trace.resource_spans.iter().flat_map(|resource| {
            let of = resource.resource.as_ref();
            resource.scope_spans.iter().flat_map(move |scope| scope.spans.iter().map(move |span| (of, scope.scope.as_ref(), span)))
        });
        to.collect_seq(spans.map(|(resource, scope, span)| SpanV2::of(resource, scope, span)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanV2<'a> {
    trace_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    /// Microseconds since 1970.
    timestamp: u64,
    /// Microseconds, at least one.
    duration: u64,
    #[serde(skip_serializing_if = "Endpoint::is_empty")]
    local_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Endpoint::is_empty")]
    remote_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, String>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl Endpoint<'_> {
    fn is_empty(&self) -> bool {
        self.service_name.is_none() && self.ipv4.is_none() && self.ipv6.is_none() && self.port.is_none()
    }
}

#[derive(Serialize)]
struct Annotation {
    timestamp: u64,
    value: String,
}

impl<'a> SpanV2<'a> {
    fn of(resource: Option<&'a Resource>, scope: Option<&'a InstrumentationScope>, span: &'a Span) -> Self {
        let has_parent = span.parent_span_id.iter().any(|byte| *byte != 0);
        Self {
            trace_id: hex::encode(&span.trace_id),
            parent_id: has_parent.then(|| hex::encode(&span.parent_span_id)),
            id: hex::encode(&span.span_id),
            kind: match span.kind() {
                SpanKind::Unspecified | SpanKind::Internal => None,
                SpanKind::Server => Some("SERVER"),
                SpanKind::Client => Some("CLIENT"),
                SpanKind::Producer => Some("PRODUCER"),
                SpanKind::Consumer => Some("CONSUMER"),
            },
            name: &span.name,
            timestamp: span.start_time_unix_nano / 1000,
            duration: (span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) / 1000).max(1),
            local_endpoint: Endpoint { service_name: service_of(resource), ..Default::default() },
            remote_endpoint: remote(&span.attributes),
            annotations: span.events.iter().map(annotation).collect(),
            tags: tags(resource, scope, span),
        }
    }
}

fn remote(attributes: &[KeyValue]) -> Endpoint<'_> {
    let find = |keys: &[&str]| keys.iter().find_map(|key| attributes.iter().find(|attribute| attribute.key == *key).and_then(value_of));
    let service_name = match find(&[PEER_SERVICE]) {
        Some(Value::StringValue(text)) => Some(text.as_str()),
        _ => None,
    };
    let address = find(&PEER_ADDRESSES).and_then(|value| attribute_json::text(Some(value)).parse().ok());
    Endpoint {
        service_name,
        ipv4: address.filter(IpAddr::is_ipv4).map(|address| address.to_string()),
        ipv6: address.filter(IpAddr::is_ipv6).map(|address| address.to_string()),
        port: find(&PEER_PORTS).and_then(|value| attribute_json::text(Some(value)).parse().ok()),
    }
}

/// An event is its name; with attributes, an object of them by its name. Source: docs/facts/clients.md, "Zipkin's query API".
fn annotation(event: &Event) -> Annotation {
    let value = if event.attributes.is_empty() {
        event.name.clone()
    } else {
        let named = Map::from_iter([(event.name.clone(), Json::Object(object(&event.attributes)))]);
        let object = Json::Object(named).to_string();
        object[1..object.len() - 1].to_owned()
    };
    Annotation { timestamp: event.time_unix_nano / 1000, value }
}

/// Attributes of the span and its resource as texts, and what else of it Zipkin has as tags.
fn tags<'a>(resource: Option<&'a Resource>, scope: Option<&'a InstrumentationScope>, span: &'a Span) -> BTreeMap<&'a str, String> {
    let of_resource = resource.map(|resource| &resource.attributes[..]).unwrap_or_default();
    let mut tags = BTreeMap::new();
    for attribute in of_resource.iter().filter(|attribute| attribute.key != "service.name").chain(&span.attributes) {
        tags.insert(attribute.key.as_str(), attribute_json::text(value_of(attribute)));
    }
    let mut add = |key: &'a str, text: &str| {
        if !text.is_empty() {
            tags.entry(key).or_insert_with(|| text.to_owned());
        }
    };
    if let Some(scope) = scope {
        add("otel.scope.name", &scope.name);
        add("otel.scope.version", &scope.version);
    }
    match span.status.as_ref().map(|status| (status.code(), status.message.as_str())) {
        Some((StatusCode::Ok, _)) => add("otel.status_code", "OK"),
        Some((StatusCode::Error, message)) => {
            add("otel.status_code", "ERROR");
            add("error", if message.is_empty() { "true" } else { message });
        }
        Some((StatusCode::Unset, _)) | None => {}
    }
    tags
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vivace_core::budget::{Account, Budget};
    use vivace_proto::otlp::{AnyValue, ResourceSpans, ScopeSpans, Status};
    use vivace_proto::tempopb::Trace;

    use super::*;

    #[test]
    fn spans_have_endpoints_annotations_and_texts_for_tags() {
        let attribute = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) };
        let text = |key: &str, value: &str| attribute(key, Value::StringValue(value.to_owned()));
        let span = Span {
            trace_id: vec![0xab; 16].into(),
            span_id: vec![2; 8].into(),
            parent_span_id: vec![1; 8].into(),
            name: "pay".to_owned(),
            kind: SpanKind::Client as i32,
            start_time_unix_nano: 1_700_000_000_000_001_500,
            end_time_unix_nano: 1_700_000_000_000_001_600,
            attributes: vec![
                text("peer.service", "bank"),
                text("net.peer.ip", "10.0.0.1"),
                attribute("net.peer.port", Value::IntValue(443)),
                attribute("vip", Value::BoolValue(true)),
            ],
            events: vec![
                Event { time_unix_nano: 1_700_000_000_000_002_000, name: "retry".to_owned(), ..Default::default() },
                Event { time_unix_nano: 3000, name: "miss".to_owned(), attributes: vec![text("k", "v")], ..Default::default() },
            ],
            status: Some(Status { message: "declined".to_owned(), code: StatusCode::Error as i32 }),
            ..Default::default()
        };
        let root =
            Span { trace_id: vec![0xab; 16].into(), span_id: vec![1; 8].into(), parent_span_id: vec![0; 8].into(), ..Default::default() };
        let resource = Resource { attributes: vec![text("service.name", "shop"), text("host", "h")], ..Default::default() };
        let of = |resource, span| ResourceSpans {
            resource,
            scope_spans: vec![ScopeSpans { spans: vec![span], ..Default::default() }],
            ..Default::default()
        };
        let trace = CombinedTrace {
            trace: Trace { resource_spans: vec![of(Some(resource), span), of(None, root)] },
            inspected_bytes: 0,
            too_large_for: None,
            message: String::new(),
            held: Budget::unlimited().open(Account::Queries),
        };
        let want = json!([
            {
                "traceId": "ab".repeat(16), "parentId": "01".repeat(8), "id": "02".repeat(8), "kind": "CLIENT", "name": "pay",
                "timestamp": 1_700_000_000_000_001_u64, "duration": 1,
                "localEndpoint": {"serviceName": "shop"},
                "remoteEndpoint": {"serviceName": "bank", "ipv4": "10.0.0.1", "port": 443},
                "annotations": [
                    {"timestamp": 1_700_000_000_000_002_u64, "value": "retry"},
                    {"timestamp": 3, "value": "\"miss\":{\"k\":\"v\"}"},
                ],
                "tags": {
                    "host": "h", "peer.service": "bank", "net.peer.ip": "10.0.0.1", "net.peer.port": "443", "vip": "true",
                    "otel.status_code": "ERROR", "error": "declined",
                },
            },
            {"traceId": "ab".repeat(16), "id": "01".repeat(8), "timestamp": 0, "duration": 1},
        ]);
        assert_eq!(serde_json::to_value(TraceV2(trace)).unwrap(), want);
    }
}
