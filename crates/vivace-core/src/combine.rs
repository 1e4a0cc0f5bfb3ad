//! Bringing parts of one trace together. Order-free and repeatable, so retries, replicas and overlapping blocks are harmless.

use rustc_hash::FxHashSet;
use vivace_proto::otlp::{ResourceSpans, Span};

use crate::SpanId;

/// Combines parts of one trace.
///
/// Spans are the same when id and kind are equal; the first copy stays. When several parts had spans, spans are
/// sorted by start and id within their scope, and scopes and resources by their first span.
///
/// Source: docs/facts/blocks.md, "Combining rows and compaction".
#[must_use]
pub fn combine(parts: impl IntoIterator<Item = Vec<ResourceSpans>>) -> Vec<ResourceSpans> {
    let mut seen = FxHashSet::default();
    let mut result: Vec<ResourceSpans> = Vec::new();
    let mut contributed = 0;
    for mut part in parts {
        let before = seen.len();
        for resource in &mut part {
            for scope in &mut resource.scope_spans {
                scope.spans.retain(|span| seen.insert(identity(span)));
            }
            resource.scope_spans.retain(|scope| !scope.spans.is_empty());
        }
        part.retain(|resource| !resource.scope_spans.is_empty());
        contributed += usize::from(seen.len() > before);
        result.append(&mut part);
    }
    if contributed > 1 {
        sort(&mut result);
    }
    result
}

/// What tells spans of one trace apart: the id, and the kind, since the two halves of a shared span have one id.
#[must_use]
pub fn identity(span: &Span) -> (SpanId, i32) {
    let kind = if (0..=7).contains(&span.kind) { span.kind } else { 0 };
    (SpanId::from_slice(&span.span_id), kind)
}

fn sort(resources: &mut [ResourceSpans]) {
    let span_key = |span: &Span| (span.start_time_unix_nano, span.span_id.clone());
    for resource in resources.iter_mut() {
        for scope in &mut resource.scope_spans {
            scope.spans.sort_by_key(span_key);
        }
        resource.scope_spans.sort_by_key(|scope| scope.spans.first().map(span_key));
    }
    resources.sort_by_key(|resource| resource.scope_spans.first().and_then(|scope| scope.spans.first()).map(span_key));
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_proto::otlp::ScopeSpans;

    fn part(spans: &[(u8, u64)]) -> Vec<ResourceSpans> {
        let spans = spans
            .iter()
            .map(|(id, start)| Span { span_id: vec![*id; 8].into(), start_time_unix_nano: *start, ..Default::default() })
            .collect();
        vec![ResourceSpans { scope_spans: vec![ScopeSpans { spans, ..Default::default() }], ..Default::default() }]
    }

    #[test]
    fn parts_combine_in_any_order_and_any_number_of_times() {
        let (a, b) = (part(&[(1, 10), (3, 30)]), part(&[(2, 20), (1, 10)]));
        let ids = |trace: &[ResourceSpans]| {
            let mut ids: Vec<u8> = trace.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).map(|s| s.span_id[0]).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&combine([a.clone(), b.clone()])), [1, 2, 3]);
        assert_eq!(ids(&combine([b.clone(), a.clone()])), [1, 2, 3]);
        assert_eq!(combine([a.clone(), a.clone()]), combine([a.clone()]));
        assert_eq!(combine([combine([a.clone(), b.clone()]), b.clone()]), combine([a, b]));
    }

    #[test]
    fn both_halves_of_a_shared_span_stay() {
        let mut server = part(&[(1, 10)]);
        server[0].scope_spans[0].spans[0].kind = 2;
        assert_eq!(combine([part(&[(1, 10)]), server]).len(), 2);
    }
}
