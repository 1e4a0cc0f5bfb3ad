use std::ops::ControlFlow;

use rustc_hash::FxHashSet;
use vivace_core::TraceId;
use vivace_traceql::{Attribute, MetricsPlan, Partial, Scope, SpanFilter};

use super::{batch, tag_names};
use crate::row::SpanRef;

/// Traces in one batch.
const BATCH_TRACES: usize = 1024;

/// Counts the spans of whole traces for a metrics query.
pub fn observe(plan: &MetricsPlan, partial: &mut Partial, traces: &[(TraceId, Vec<SpanRef<'_>>)]) {
    let compared;
    let plan = if plan.wants_all_attributes() {
        compared = plan.clone().with_attributes(names(traces));
        &compared
    } else {
        plan
    };
    for traces in traces.chunks(BATCH_TRACES) {
        plan.observe(partial, &batch(plan.fetch(), traces));
    }
}

/// The attributes of spans, resources and scopes.
fn names(traces: &[(TraceId, Vec<SpanRef<'_>>)]) -> Vec<Attribute> {
    let mut known: FxHashSet<(Scope, Box<str>)> = FxHashSet::default();
    for (_, spans) in traces {
        tag_names(spans, None, &SpanFilter::And(Vec::new()), &mut |scope, name| {
            if matches!(scope, Scope::Span | Scope::Resource | Scope::Instrumentation) && !known.contains(&(scope, name.into())) {
                known.insert((scope, name.into()));
            }
            ControlFlow::Continue(())
        });
    }
    known.into_iter().map(|(scope, key)| Attribute::Named { scope, key: key.into() }).collect()
}
