//! Metrics queries over a block.

use std::ops::{ControlFlow, Range};

use vivace_core::TraceId;
use vivace_traceql::{MetricsPlan, Partial};

use super::bits::Outcome;
use super::fault::ReadError;
use super::group::Group;
use super::order::RepeatedTraces;
use super::reader::BlockReader;
use super::search::{ScanStats, scan_with};
use crate::{SpanMessages, live};

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
        if plan.wants_all_attributes() {
            return self.observe_every(plan, partial, row_groups, wanted, stop);
        }
        self.search(plan.fetch(), row_groups, &mut |mut batch| {
            batch.traces.retain(|trace| wanted(&trace.trace_id));
            plan.observe(partial, &batch, stop)
        })
    }

    /// The same for `compare`, which looks at all attributes that spans have.
    fn observe_every(
        &self,
        plan: &MetricsPlan,
        partial: &mut Partial,
        row_groups: Range<usize>,
        wanted: &dyn Fn(&TraceId) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<ScanStats, ReadError> {
        let mut stats = ScanStats::default();
        let mut repeated = RepeatedTraces::of(&self.file)?;
        for index in row_groups.start..row_groups.end.min(self.row_groups()) {
            let mut group = Group::new(&self.file, index);
            stats.traces += group.rows() as u64;
            let mut rows: Vec<usize> = match group.candidates(plan.fetch())? {
                Outcome::None => Vec::new(),
                Outcome::All => (0..group.rows()).collect(),
                Outcome::Some(rows) => rows.iter().collect(),
            };
            let apart = repeated.take_out(&self.file, index, &mut rows, false)?;
            let counted = scan_with(group, rows, plan.fetch(), &mut stats, true, &mut |mut batch, attributes| {
                batch.traces.retain(|trace| wanted(&trace.trace_id));
                plan.observe_with(partial, &batch, &attributes, stop)
            })?;
            if counted.is_break() || self.observe_whole(plan, partial, &apart, wanted, stop)?.is_break() {
                break;
            }
        }
        Ok(stats)
    }

    /// The same for traces that have several rows, of which few blocks have some.
    fn observe_whole(
        &self,
        plan: &MetricsPlan,
        partial: &mut Partial,
        ids: &[TraceId],
        wanted: &dyn Fn(&TraceId) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut messages = SpanMessages::default();
        for id in ids.iter().filter(|id| wanted(id)) {
            messages.read(&self.find(*id, None)?.unwrap_or_default());
            if live::observe(plan, partial, &[(*id, messages.refs())], stop).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
