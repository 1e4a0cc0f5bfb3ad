//! Spans in the client's own bytes, as live search, tags and the log's scan read them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use vivace_block::{SpanRef, live};
use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;

use crate::ask::Question;
use crate::input::Input;

/// Reads what to ask; the rest is a `TracesData` message.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let question = Question::read(&mut input);
    let payload = input.rest();
    let (traces, is_whole) = traces(payload);
    let batch = live::batch(question.fetch, &traces);
    let spans: Vec<SpanRef<'_>> = traces.iter().flat_map(|(_, spans)| spans.iter().copied()).collect();
    let filter = question.span_filter();
    live::tag_names(&spans, question.scope, &filter, &mut |_, _| ControlFlow::Continue(()));
    live::tag_values(&spans, question.attribute, &filter, &mut |_| ControlFlow::Continue(()));
    traces.iter().for_each(|(id, spans)| drop(live::trace(*id, spans)));
    let mut candidates = live::Candidates::new(question.fetch);
    let added = candidates.add(payload);
    let candidates: BTreeSet<TraceId> = candidates.finish().into_iter().collect();
    if is_whole && added.is_ok() {
        for trace in &batch.traces {
            assert!(candidates.contains(&trace.trace_id), "trace {} matches and is no candidate for {:?}", trace.trace_id, question.fetch);
        }
    }
}

/// The spans of every trace in the order of the message, up to the first place that is none; and whether there was none.
pub(crate) fn traces(payload: &[u8]) -> (Vec<(TraceId, Vec<SpanRef<'_>>)>, bool) {
    let mut traces: BTreeMap<TraceId, Vec<SpanRef<'_>>> = BTreeMap::new();
    let walked = walk_spans(payload, |at, head| {
        traces.entry(head.trace()).or_default().push(SpanRef { resource: at.resource, scope: at.scope, span: head.bytes });
    });
    (traces.into_iter().collect(), walked.is_ok())
}
