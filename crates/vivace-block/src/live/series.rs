//! Metrics queries over live spans.

use std::ops::ControlFlow;

use vivace_core::TraceId;
use vivace_traceql::{MetricsPlan, Partial};

use super::{batch, batch_with_attributes};
use crate::row::SpanRef;

/// Traces in one batch.
const BATCH_TRACES: usize = 1024;

/// Counts the spans of whole traces for a metrics query. Breaks as [`MetricsPlan::observe`] does.
pub fn observe(
    plan: &MetricsPlan,
    partial: &mut Partial,
    traces: &[(TraceId, Vec<SpanRef<'_>>)],
    stop: &dyn Fn() -> bool,
) -> ControlFlow<()> {
    for traces in traces.chunks(BATCH_TRACES) {
        if plan.wants_all_attributes() {
            let (batch, attributes) = batch_with_attributes(plan.fetch(), traces);
            plan.observe_with(partial, &batch, &attributes, stop)?;
        } else {
            plan.observe(partial, &batch(plan.fetch(), traces), stop)?;
        }
    }
    ControlFlow::Continue(())
}
