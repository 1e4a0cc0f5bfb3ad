//! A trace in a few numbers, for the list of a search. Source: docs/facts/clients.md, "Jaeger's query API".

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use serde::Serialize;
use vivace_proto::otlp::status::StatusCode;
use vivace_proto::tempopb::Trace;

use super::v1_json::is_id;
use crate::finding::service_of;

/// All that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Summaries {
    pub(crate) summaries: Vec<Summary>,
}

/// One trace.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    trace_id: String,
    root_service_name: String,
    root_operation_name: String,
    min_start_time_unix_nano: String,
    max_end_time_unix_nano: String,
    span_count: u32,
    error_span_count: u32,
    /// Spans whose parent is not there.
    orphan_span_count: u32,
    services: Vec<Service>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    name: String,
    span_count: u32,
    error_span_count: u32,
}

impl Summary {
    /// Of a trace with at least one span.
    pub(crate) fn of(trace: &Trace) -> Self {
        let spans = || {
            trace.resource_spans.iter().flat_map(|resource| {
                let service = service_of(resource.resource.as_ref()).unwrap_or_default();
                resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |span| (service, span))
            })
        };
        let ids: FxHashSet<&[u8]> = spans().map(|(_, span)| &span.span_id[..]).collect();
        let has_parent = |parent: &[u8]| ids.contains(parent);
        // The first of those without a parent; where there is none of them, of those whose parent has not come.
        let root = spans()
            .filter(|(_, span)| !has_parent(&span.parent_span_id))
            .min_by_key(|(_, span)| (is_id(&span.parent_span_id), span.start_time_unix_nano))
            .or_else(|| spans().next());
        let mut services: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        let (mut span_count, mut error_span_count, mut orphan_span_count) = (0, 0, 0);
        for (service, span) in spans() {
            let is_error = u32::from(span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error));
            let of_service = services.entry(service).or_default();
            of_service.0 += 1;
            of_service.1 += is_error;
            span_count += 1;
            error_span_count += is_error;
            orphan_span_count += u32::from(is_id(&span.parent_span_id) && !has_parent(&span.parent_span_id));
        }
        Self {
            trace_id: root.map(|(_, span)| hex::encode(&span.trace_id)).unwrap_or_default(),
            root_service_name: root.map(|(service, _)| service.to_owned()).unwrap_or_default(),
            root_operation_name: root.map(|(_, span)| span.name.clone()).unwrap_or_default(),
            min_start_time_unix_nano: spans().map(|(_, span)| span.start_time_unix_nano).min().unwrap_or(0).to_string(),
            max_end_time_unix_nano: spans().map(|(_, span)| span.end_time_unix_nano).max().unwrap_or(0).to_string(),
            span_count,
            error_span_count,
            orphan_span_count,
            services: services
                .into_iter()
                .map(|(name, (span_count, error_span_count))| Service { name: name.to_owned(), span_count, error_span_count })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vivace_proto::otlp::any_value::Value;
    use vivace_proto::otlp::{AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status};

    use super::*;

    fn span(id: u8, parent: u8, start: u64, code: i32) -> Span {
        Span {
            trace_id: vec![0xab; 16].into(),
            span_id: vec![id; 8].into(),
            parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] }.into(),
            name: format!("span {id}"),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 10,
            status: Some(Status { code, ..Default::default() }),
            ..Default::default()
        }
    }

    fn of(service: &str, spans: Vec<Span>) -> ResourceSpans {
        let value = Some(AnyValue { value: Some(Value::StringValue(service.to_owned())) });
        let resource = Resource { attributes: vec![KeyValue { key: "service.name".to_owned(), value }], ..Default::default() };
        ResourceSpans { resource: Some(resource), scope_spans: vec![ScopeSpans { spans, ..Default::default() }], ..Default::default() }
    }

    #[test]
    fn roots_errors_and_orphans_are_counted() {
        let trace = Trace { resource_spans: vec![of("b", vec![span(2, 1, 20, 2), span(3, 9, 5, 0)]), of("a", vec![span(1, 0, 10, 0)])] };
        let want = json!({
            "traceId": "ab".repeat(16), "rootServiceName": "a", "rootOperationName": "span 1",
            "minStartTimeUnixNano": "5", "maxEndTimeUnixNano": "30",
            "spanCount": 3, "errorSpanCount": 1, "orphanSpanCount": 1,
            "services": [{"name": "a", "spanCount": 1, "errorSpanCount": 0}, {"name": "b", "spanCount": 2, "errorSpanCount": 1}],
        });
        assert_eq!(serde_json::to_value(Summary::of(&trace)).unwrap(), want);
        let orphans = Trace { resource_spans: vec![of("b", vec![span(2, 1, 20, 2), span(3, 9, 5, 0)])] };
        assert_eq!(Summary::of(&orphans).root_operation_name, "span 3");
        let circle = Trace { resource_spans: vec![of("b", vec![span(1, 2, 1, 0), span(2, 1, 2, 0)])] };
        assert_eq!(Summary::of(&circle).root_operation_name, "span 1");
    }
}
