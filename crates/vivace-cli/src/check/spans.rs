//! The trace that is written: three spans of two services.

use std::collections::BTreeSet;

use vivace_core::TraceId;
use vivace_proto::otlp::span::SpanKind;
use vivace_proto::otlp::{AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, TracesData, any_value};

/// Service of the root span, and with a suffix of the one that it calls.
const SERVICE: &str = "round-trip";
/// Attribute of the root span, whose value no other trace has.
const MARK: &str = "check.id";
const MILLISECOND: u64 = 1_000_000;

/// A trace with an id of its own.
pub(crate) struct Probe {
    pub(crate) id: TraceId,
    pub(crate) spans: TracesData,
}

impl Probe {
    /// `random` makes the trace and its spans unlike all others. It ends at `now`, nanoseconds since 1970.
    pub(crate) fn new(random: [u8; 16], now: u64) -> Self {
        let id = TraceId(random);
        let span = |number: u8, name: &str, kind: SpanKind, before_now: u64| Span {
            trace_id: random.to_vec().into(),
            span_id: span_id(random, number),
            parent_span_id: if number == 0 { Vec::new().into() } else { span_id(random, number - 1) },
            name: name.to_owned(),
            kind: kind as i32,
            start_time_unix_nano: now.saturating_sub(before_now),
            end_time_unix_nano: now,
            ..Span::default()
        };
        let mut root = span(0, "write and read", SpanKind::Server, 30 * MILLISECOND);
        root.attributes = vec![text(MARK, &id.to_string())];
        let call = span(1, "ask", SpanKind::Client, 20 * MILLISECOND);
        let answer = span(2, "answer", SpanKind::Server, 10 * MILLISECOND);
        let called = format!("{SERVICE}-callee");
        Self { id, spans: TracesData { resource_spans: vec![resource(SERVICE, vec![root, call]), resource(&called, vec![answer])] } }
    }

    /// The TraceQL query that this trace alone answers.
    pub(crate) fn query(&self) -> String {
        format!("{{ resource.service.name = \"{SERVICE}\" && span.{MARK} = \"{}\" }}", self.id)
    }

    /// Number of its spans.
    pub(crate) fn len(&self) -> usize {
        ids(&self.spans.resource_spans).len()
    }

    /// How many of its spans an answer has.
    pub(crate) fn count_in(&self, answer: &[ResourceSpans]) -> usize {
        ids(&self.spans.resource_spans).intersection(&ids(answer)).count()
    }
}

fn ids(resource_spans: &[ResourceSpans]) -> BTreeSet<&[u8]> {
    let scopes = resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| &*span.span_id).collect()
}

fn span_id(random: [u8; 16], number: u8) -> vivace_proto::Bytes {
    let mut id = random[8..].to_vec();
    // Never all zeros, which is no id.
    id[0] = number + 1;
    id.into()
}

fn resource(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
    ResourceSpans { resource: Some(resource), scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }], ..ResourceSpans::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spans_are_one_tree_and_the_query_is_traceql() {
        let probe = Probe::new([0; 16], 1_700_000_000_000_000_000);
        let spans: Vec<&Span> = probe.spans.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).collect();
        assert_eq!(probe.len(), 3);
        assert!(spans[0].parent_span_id.is_empty());
        assert!(spans.windows(2).all(|pair| pair[1].parent_span_id == pair[0].span_id));
        assert!(spans.iter().all(|span| span.start_time_unix_nano < span.end_time_unix_nano));
        vivace_traceql::parse(&probe.query()).expect("TraceQL");
        assert_eq!(probe.count_in(&probe.spans.resource_spans[..1]), 2);
        assert_eq!(probe.count_in(&Probe::new([1; 16], 0).spans.resource_spans), 0);
    }
}
