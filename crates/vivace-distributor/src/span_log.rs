//! Spans in the log and in a metric of their own, for those who look for where spans come from or where they went. Off by default:
//! each span is a line. Source: docs/facts/components.md, "Discard reasons".

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault};

use parking_lot::Mutex;
use prost::Message as _;
use rustc_hash::{FxHashSet, FxHasher};
use vivace_config::{Distributor, LogSpans, MetricReceivedSpans};
use vivace_core::otlp::walk_spans;
use vivace_core::{SpanId, TenantId, TraceId};
use vivace_proto::otlp::status::StatusCode;
use vivace_proto::otlp::{AnyValue, KeyValue, Resource, Span, any_value};

use crate::metrics::DEBUG_SPANS_RECEIVED;

/// Different series of [`DEBUG_SPANS_RECEIVED`] in a process; further ones are counted under one name.
const SERIES_MAX: usize = 10_000;
const OVERFLOW: &str = "__overflow__";
const SERVICE_NAME: &str = "service.name";

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
            each(body, |resource, span| self.count(tenant, resource, span));
        }
    }

    /// Those spans of a request that `is_discarded` picks, by trace id and span id as they were sent, are dropped for good.
    pub(crate) fn discarded(&self, tenant: &TenantId, body: &[u8], is_discarded: impl Fn(&[u8], &[u8]) -> bool) {
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

fn log(message: &str, what: &LogSpans, tenant: &TenantId, body: &[u8], is_meant: impl Fn(&[u8], &[u8]) -> bool) {
    each(body, |resource, span| {
        let status = span.status.clone().unwrap_or_default();
        if !is_meant(&span.trace_id, &span.span_id) || (what.filter_by_status_error && status.code() != StatusCode::Error) {
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

/// Calls `visit` with each span that can be read.
fn each(body: &[u8], mut visit: impl FnMut(&Resource, &Span)) {
    let mut resource = Resource::default();
    let mut resource_index = None;
    // What is no message is refused elsewhere.
    let _ = walk_spans(body, |at, head| {
        if resource_index != Some(at.resource_index) {
            resource_index = Some(at.resource_index);
            resource = Resource::decode(at.resource).unwrap_or_default();
        }
        if let Ok(span) = Span::decode(head.bytes) {
            visit(&resource, &span);
        }
    });
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
