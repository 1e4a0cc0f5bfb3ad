//! Spans in the log and in a metric of their own, for those who look for where spans come from or where they went. Off by default:
//! each span is a line. Source: docs/facts/components.md, "Discard reasons".

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rustc_hash::{FxHashSet, FxHasher};
use vivace_config::{Distributor, LogSpans, MetricReceivedSpans};
use vivace_core::otlp::{SpanHead, walk_spans};
use vivace_core::wire::{Reader, Value};
use vivace_core::{SpanId, TenantId, TraceId};
use vivace_proto::otlp::status::StatusCode;
use vivace_proto::otlp::{AnyValue, KeyValue, Resource, Span, Status, any_value};

use crate::metrics::DEBUG_SPANS_RECEIVED;

/// Different series of [`DEBUG_SPANS_RECEIVED`] in a process; further ones are counted under one name.
const SERIES_MAX: usize = 10_000;
const OVERFLOW: &str = "__overflow__";
const SERVICE_NAME: &str = "service.name";
/// Fields of a span, and of its status.
const NAME: u32 = 5;
const STATUS: u32 = 15;
const STATUS_CODE: u32 = 3;

/// What is logged and counted of single spans.
#[derive(Debug)]
pub(crate) struct SpanLog {
    received: LogSpans,
    discarded: LogSpans,
    counted: MetricReceivedSpans,
    /// Hashes of the series that there are.
    series: Mutex<FxHashSet<u64>>,
}

impl SpanLog {
    pub(crate) fn new(config: &Distributor) -> Self {
        let (received, discarded) = (config.log_received_spans.clone(), config.log_discarded_spans.clone());
        Self { received, discarded, counted: config.metric_received_spans.clone(), series: Mutex::default() }
    }

    /// A request is within its tenant's rate.
    pub(crate) fn received(&self, tenant: &TenantId, body: &[u8]) {
        if self.received.enabled {
            log("received", &self.received, tenant, body, |_, _| true);
        }
        if self.counted.enabled {
            each(body, |_, _| true, |resource, span| self.count(tenant, resource, span));
        }
    }

    /// Those spans of a request that `is_discarded` picks, counted from 1, are dropped for good.
    pub(crate) fn discarded(&self, tenant: &TenantId, body: &[u8], is_discarded: impl Fn(u32, &SpanHead<'_>) -> bool) {
        if self.discarded.enabled {
            log("discarded", &self.discarded, tenant, body, is_discarded);
        }
    }

    fn count(&self, tenant: &TenantId, resource: &Resource, span: &Span) {
        if self.counted.root_only && span.parent_span_id.iter().any(|byte| *byte != 0) {
            return;
        }
        let tenant = tenant.to_string();
        let (mut name, mut service) = (span.name.as_str(), service(resource));
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one((&tenant, name, service));
        let mut series = self.series.lock();
        if !series.contains(&hash) {
            if series.len() >= SERIES_MAX {
                (name, service) = (OVERFLOW, OVERFLOW);
            } else {
                series.insert(hash);
            }
        }
        drop(series);
        let (name, service) = (name.to_owned(), service.to_owned());
        metrics::counter!(DEBUG_SPANS_RECEIVED.name, "tenant" => tenant, "name" => name, "service" => service).increment(1);
    }
}

fn log(message: &str, what: &LogSpans, tenant: &TenantId, body: &[u8], is_meant: impl Fn(u32, &SpanHead<'_>) -> bool) {
    each(body, is_meant, |resource, span| {
        let status = span.status.clone().unwrap_or_default();
        if what.filter_by_status_error && status.code() != StatusCode::Error {
            return;
        }
        let (traceid, spanid) = (TraceId::from_slice(&span.trace_id), SpanId::from_slice(&span.span_id));
        if !what.include_all_attributes {
            return tracing::info!(%tenant, %traceid, %spanid, "{message}");
        }
        let seconds = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) as f64 / 1e9;
        tracing::info!(
            %tenant,
            %traceid,
            %spanid,
            span_name = span.name,
            span_kind = span.kind().as_str_name(),
            span_status = status.code().as_str_name(),
            span_duration_seconds = seconds,
            span_service_name = service(resource),
            resource_attributes = pairs(&resource.attributes),
            span_attributes = pairs(&span.attributes),
            "{message}"
        );
    });
}

/// Calls `visit` with each span that is meant. Of what cannot be decoded, such as values that lie too deep, is left what can be read.
fn each(body: &[u8], is_meant: impl Fn(u32, &SpanHead<'_>) -> bool, mut visit: impl FnMut(&Resource, &Span)) {
    let mut resource = Resource::default();
    let mut resource_index = None;
    let mut ordinal = 0;
    // What is no message is refused elsewhere.
    let _ = walk_spans(body, |at, head| {
        ordinal += 1;
        if !is_meant(ordinal, &head) {
            return;
        }
        if resource_index != Some(at.resource_index) {
            resource_index = Some(at.resource_index);
            resource = Resource::decode(at.resource).unwrap_or_default();
        }
        visit(&resource, &Span::decode(head.bytes).unwrap_or_else(|_| without_attributes(&head)));
    });
}

fn without_attributes(head: &SpanHead<'_>) -> Span {
    let mut span = Span {
        trace_id: Bytes::copy_from_slice(head.trace_id),
        span_id: Bytes::copy_from_slice(head.span_id),
        parent_span_id: Bytes::copy_from_slice(head.parent_span_id),
        kind: head.kind as i32,
        start_time_unix_nano: head.start_unix_nanos,
        end_time_unix_nano: head.end_unix_nanos,
        ..Span::default()
    };
    let mut reader = Reader::new(head.bytes);
    while let Ok(Some((field, value))) = reader.next_field() {
        match (field, value) {
            (NAME, Value::Bytes(name)) => span.name = String::from_utf8_lossy(name).into_owned(),
            (STATUS, Value::Bytes(status)) => span.status = Some(status_of(status)),
            _ => {}
        }
    }
    span
}

fn status_of(message: &[u8]) -> Status {
    let mut status = Status::default();
    let mut reader = Reader::new(message);
    while let Ok(Some((field, value))) = reader.next_field() {
        if let (STATUS_CODE, Value::Varint(code)) = (field, value) {
            status.code = code as i32;
        }
    }
    status
}

fn service(resource: &Resource) -> &str {
    let attribute = resource.attributes.iter().find(|attribute| attribute.key == SERVICE_NAME);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(name)) => name,
        _ => "",
    }
}

/// `key=value`, separated by blanks.
fn pairs(attributes: &[KeyValue]) -> String {
    let mut out = String::new();
    for attribute in attributes {
        let separator = if out.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = write!(out, "{separator}{}={}", attribute.key, attribute.value.as_ref().map(text).unwrap_or_default());
    }
    out
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        None => String::new(),
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BytesValue(bytes)) => hex::encode(bytes),
        Some(any_value::Value::ArrayValue(list)) => format!("[{}]", list.values.iter().map(text).collect::<Vec<_>>().join(",")),
        Some(any_value::Value::KvlistValue(map)) => format!("{{{}}}", pairs(&map.values)),
    }
}
