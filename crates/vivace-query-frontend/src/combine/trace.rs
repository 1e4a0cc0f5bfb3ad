//! The parts of one trace.

use rustc_hash::{FxHashMap, FxHashSet};
use vivace_core::SpanId;
use vivace_core::budget::{Account, Budget, Charge};
use vivace_core::combine::combine;
use vivace_proto::otlp::{ResourceSpans, Span, span::SpanKind};
use vivace_proto::tempopb::{PartialStatus, Trace, TraceByIdResponse};

use crate::error::QueryError;

/// Memory of a decoded trace for each byte of its message, about.
const DECODED_PER_BYTE: u64 = 4;

/// Collects the parts of a trace up to a number of bytes.
pub(crate) struct TraceCombiner {
    max_bytes: u64,
    parts: Vec<Vec<ResourceSpans>>,
    /// Of all parts, those that are held twice counted twice.
    bytes: u64,
    inspected_bytes: u64,
    /// Why the trace is not complete.
    reasons: Vec<String>,
    too_large: bool,
    held: Charge,
}

/// A whole trace, or as much of it as the limit allows.
pub(crate) struct CombinedTrace {
    pub(crate) trace: Trace,
    pub(crate) inspected_bytes: u64,
    /// The limit in bytes, where it was exceeded: spans are missing.
    pub(crate) too_large_for: Option<u64>,
    /// Why spans are missing; empty where none are.
    pub(crate) message: String,
    /// What is charged for it.
    pub(crate) held: Charge,
}

impl TraceCombiner {
    /// `max_bytes` 0: any size that fits into memory.
    pub(crate) fn new(budget: &Budget, max_bytes: u64) -> Self {
        let held = budget.charge(Account::Queries, 0).expect("nothing fits always");
        Self { max_bytes, parts: Vec::new(), bytes: 0, inspected_bytes: 0, reasons: Vec::new(), too_large: false, held }
    }

    /// Adds a job's answer. Once the limit is crossed, by a part that stays, later parts are left out.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn add(&mut self, answer: TraceByIdResponse) -> Result<(), QueryError> {
        self.inspected_bytes += answer.metrics.map_or(0, |metrics| metrics.inspected_bytes);
        if answer.status() == PartialStatus::Partial {
            self.missing(answer.message);
        }
        let Some(trace) = answer.trace else { return Ok(()) };
        if self.too_large || trace.resource_spans.is_empty() {
            return Ok(());
        }
        let bytes = size(&trace.resource_spans);
        self.held.grow(bytes.saturating_mul(DECODED_PER_BYTE))?;
        self.bytes += bytes;
        self.parts.push(trace.resource_spans);
        if self.max_bytes > 0 && self.bytes > self.max_bytes {
            // Perhaps only because copies were counted.
            let combined = combine(std::mem::take(&mut self.parts));
            self.bytes = size(&combined);
            self.parts.push(combined);
            if self.bytes > self.max_bytes {
                self.too_large = true;
                self.missing(format!("trace exceeds max size (max bytes: {})", self.max_bytes));
            }
        }
        Ok(())
    }

    /// The answer lacks something.
    pub(crate) fn missing(&mut self, reason: String) {
        if !reason.is_empty() && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// The limit is crossed: nothing more will be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.too_large
    }

    pub(crate) fn finish(self) -> CombinedTrace {
        let mut resource_spans = combine(self.parts);
        tell_shared_spans_apart(&mut resource_spans);
        complete(&mut resource_spans);
        CombinedTrace {
            trace: Trace { resource_spans },
            inspected_bytes: self.inspected_bytes,
            too_large_for: self.too_large.then_some(self.max_bytes),
            message: self.reasons.join("; "),
            held: self.held,
        }
    }
}

fn size(resource_spans: &[ResourceSpans]) -> u64 {
    use prost::Message as _;
    resource_spans.iter().map(|resource| resource.encoded_len() as u64).sum()
}

/// Grafana reads these submessages without a look whether they are there, and subtracts start from end without sign.
///
/// Source: docs/facts/clients.md, "Messages must be there" and "An end before its start".
fn complete(resource_spans: &mut [ResourceSpans]) {
    for resource in resource_spans {
        resource.resource.get_or_insert_default();
        for scope in &mut resource.scope_spans {
            scope.scope.get_or_insert_default();
            for span in &mut scope.spans {
                span.status.get_or_insert_default();
                span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano);
            }
        }
    }
}

fn spans(resource_spans: &mut [ResourceSpans]) -> impl Iterator<Item = &mut Span> {
    resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans).flat_map(|scope| &mut scope.spans)
}

/// Zipkin's clients and servers share a span. The server's half gets an id of its own below the client's half, and the children
/// move to the server's half.
///
/// Source: docs/facts/components.md, "Trace by id".
fn tell_shared_spans_apart(resource_spans: &mut [ResourceSpans]) {
    let mut kinds: FxHashMap<SpanId, (bool, bool)> = FxHashMap::default();
    for span in spans(resource_spans) {
        let (client, server) = kinds.entry(SpanId::from_slice(&span.span_id)).or_default();
        *client |= span.kind == SpanKind::Client as i32;
        *server |= span.kind == SpanKind::Server as i32;
    }
    let shared: FxHashSet<SpanId> = kinds.iter().filter(|(_, (client, server))| *client && *server).map(|(id, _)| *id).collect();
    if shared.is_empty() {
        return;
    }
    let mut next = 0u64;
    let mut new_ids: FxHashMap<SpanId, SpanId> = FxHashMap::default();
    let mut ids: Vec<SpanId> = shared.into_iter().collect();
    ids.sort_unstable(); // the same answer every time
    for id in ids {
        let new = loop {
            next += 1;
            let candidate = SpanId(next.to_be_bytes());
            if !kinds.contains_key(&candidate) {
                break candidate;
            }
        };
        new_ids.insert(id, new);
    }
    for span in spans(resource_spans) {
        let id = SpanId::from_slice(&span.span_id);
        match new_ids.get(&id) {
            Some(new) if span.kind == SpanKind::Server as i32 => {
                span.parent_span_id = span.span_id.clone();
                span.span_id = new.0.to_vec().into();
            }
            _ => {
                if let Some(new) = new_ids.get(&SpanId::from_slice(&span.parent_span_id)).filter(|_| !span.parent_span_id.is_empty()) {
                    span.parent_span_id = new.0.to_vec().into();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_proto::otlp::ScopeSpans;

    fn span(id: u8, parent: u8, kind: SpanKind) -> Span {
        let parent_span_id = if parent == 0 { Vec::new() } else { vec![parent; 8] };
        Span { span_id: vec![id; 8].into(), parent_span_id: parent_span_id.into(), kind: kind as i32, ..Default::default() }
    }

    fn part(spans: Vec<Span>) -> TraceByIdResponse {
        let resource = ResourceSpans { scope_spans: vec![ScopeSpans { spans, ..Default::default() }], ..Default::default() };
        TraceByIdResponse { trace: Some(Trace { resource_spans: vec![resource] }), ..Default::default() }
    }

    #[test]
    fn grafana_finds_the_messages_it_reads_without_looking() {
        let mut combiner = TraceCombiner::new(&Budget::unlimited(), 0);
        combiner.add(part(vec![Span { start_time_unix_nano: 10, end_time_unix_nano: 3, ..span(1, 0, SpanKind::Server) }])).unwrap();
        let trace = combiner.finish().trace;
        let resource = &trace.resource_spans[0];
        assert!(resource.resource.as_ref().unwrap().attributes.is_empty(), "nothing is made up");
        assert!(resource.scope_spans[0].scope.is_some());
        let span = &resource.scope_spans[0].spans[0];
        assert!(span.status.is_some());
        assert_eq!(span.end_time_unix_nano, 10);
        // Set but empty survives the wire.
        let bytes = prost::Message::encode_to_vec(&trace);
        let again: Trace = prost::Message::decode(bytes.as_slice()).unwrap();
        assert!(again.resource_spans[0].resource.is_some() && again.resource_spans[0].scope_spans[0].spans[0].status.is_some());
    }

    #[test]
    fn the_part_that_crosses_the_limit_stays_and_later_ones_do_not() {
        let one = size(&part(vec![span(1, 0, SpanKind::Server)]).trace.unwrap().resource_spans);
        let mut combiner = TraceCombiner::new(&Budget::unlimited(), one);
        for id in [1, 1, 2, 3] {
            combiner.add(part(vec![span(id, 0, SpanKind::Server)])).unwrap(); // the copy is not counted
        }
        let combined = combiner.finish();
        assert_eq!(combined.too_large_for, Some(one));
        assert_eq!(combined.message, format!("trace exceeds max size (max bytes: {one})"));
        let ids: Vec<u8> =
            combined.trace.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).map(|s| s.span_id[0]).collect();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn a_trace_that_does_not_fit_into_memory_is_refused() {
        let budget = Budget::new(1000);
        let mut combiner = TraceCombiner::new(&budget, 0);
        let error = (0..=255).find_map(|id| combiner.add(part(vec![span(id, 0, SpanKind::Server)])).err()).expect("too large");
        assert!(error.to_string().starts_with("out of memory for queries"), "{error}");
        drop(combiner);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_servers_half_of_a_shared_span_gets_its_own_id() {
        let mut combiner = TraceCombiner::new(&Budget::unlimited(), 0);
        combiner.add(part(vec![span(7, 0, SpanKind::Client), span(7, 0, SpanKind::Server), span(9, 7, SpanKind::Internal)])).unwrap();
        let trace = combiner.finish().trace;
        let spans: Vec<&Span> = trace.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).collect();
        let by_kind = |kind: SpanKind| spans.iter().find(|s| s.kind == kind as i32).unwrap();
        assert_eq!(by_kind(SpanKind::Client).span_id[..], [7; 8]);
        assert_eq!(by_kind(SpanKind::Server).span_id[..], 1u64.to_be_bytes());
        assert_eq!(by_kind(SpanKind::Server).parent_span_id[..], [7; 8]);
        assert_eq!(by_kind(SpanKind::Internal).parent_span_id[..], 1u64.to_be_bytes());
    }
}
