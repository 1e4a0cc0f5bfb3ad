use std::ops::{ControlFlow, Range};

use vivace_core::TraceId;
use vivace_traceql::{Attribute, MetricsPlan, Partial, Scope};

use super::fault::ReadError;
use super::reader::BlockReader;
use super::search::ScanStats;

impl BlockReader {
    /// Counts the spans of these row groups for a metrics query, of the traces that are `wanted`. Row groups that do not exist are
    /// none. Stops when `stop` says so, or when what is counted does not fit into memory ([`Partial::check`]).
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had. Some may have been counted before.
    pub fn observe(
        &self,
        plan: &MetricsPlan,
        partial: &mut Partial,
        row_groups: Range<usize>,
        wanted: &dyn Fn(&TraceId) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<ScanStats, ReadError> {
        let mut stats = ScanStats::default();
        let compared;
        let plan = if plan.wants_all_attributes() {
            let mut names = Vec::new();
            stats += self.tag_names(None, None, row_groups.clone(), &mut |scope, key| {
                if matches!(scope, Scope::Span | Scope::Resource | Scope::Instrumentation) {
                    names.push(Attribute::Named { scope, key: key.into() });
                }
                ControlFlow::Continue(())
            })?;
            compared = plan.clone().with_attributes(names);
            &compared
        } else {
            plan
        };
        let scanned = self.search(plan.fetch(), row_groups, &mut |mut batch| {
            batch.traces.retain(|trace| wanted(&trace.trace_id));
            plan.observe(partial, &batch, stop)
        })?;
        stats += scanned;
        Ok(stats)
    }
}
