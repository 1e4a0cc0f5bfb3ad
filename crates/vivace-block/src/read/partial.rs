//! Traces of which other places may have spans too: what a query must look at before it judges whole ones.

use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use vivace_core::{SECOND, TraceId};
use vivace_traceql::{Batch, Fetch, RowParts, TraceFilter, TraceRow};

use super::bits::Outcome;
use super::fault::ReadError;
use super::group::Group;
use super::order::{Repeated, RepeatedTraces};
use super::reader::BlockReader;
use super::search::{ScanStats, scan};

/// Parts of a trace that lie farther apart in time than this are not looked for, nanoseconds. A trace's root spans its time,
/// so parts of one that has come whole lie within it.
pub const TRACE_SPREAD_NANOS: u64 = 3600 * SECOND;

/// What one place has of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracePart {
    /// The trace.
    pub trace_id: TraceId,
    /// Earliest span start here, nanoseconds since the epoch.
    pub start_unix_nanos: u64,
    /// Latest span end here, nanoseconds since the epoch.
    pub end_unix_nanos: u64,
}

impl TracePart {
    fn of(trace: &TraceRow) -> Self {
        Self { trace_id: trace.trace_id, start_unix_nanos: trace.start_unix_nanos, end_unix_nanos: trace.end_unix_nanos }
    }
}

/// What [`BlockReader::parts`] found.
#[derive(Debug, Default)]
pub struct Parts {
    /// Traces that may match, alone or together with spans from elsewhere. Ascending by id.
    pub traces: Vec<TracePart>,
    /// What it took.
    pub stats: ScanStats,
    /// Per row group, the rows that may match by themselves.
    alone: Vec<(usize, Vec<(usize, TraceId)>)>,
    /// Traces with several rows here. Ascending.
    repeated: Vec<TraceId>,
}

impl BlockReader {
    /// The traces of these row groups that pass `part_filter` (see [`crate::part_filter`]) and overlap the time of `fetch`, widened by
    /// [`TRACE_SPREAD_NANOS`] on both sides; and, for [`BlockReader::search_parts`], which of them may match by themselves.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn parts(&self, fetch: &Fetch, part_filter: &TraceFilter, row_groups: Range<usize>) -> Result<Parts, ReadError> {
        let wide = Fetch {
            range: fetch.range.widened(TRACE_SPREAD_NANOS),
            filter: part_filter.clone(),
            span_attributes: Vec::new(),
            event_attributes: Vec::new(),
            link_attributes: Vec::new(),
            rows: RowParts::LEAST,
        };
        let mut parts = Parts::default();
        let mut repeated = RepeatedTraces::of(&self.file)?;
        for index in row_groups.start..row_groups.end.min(self.row_groups()) {
            let mut group = Group::new(&self.file, index);
            parts.stats.traces += group.rows() as u64;
            let found = group.candidates(&wide)?;
            let mut here = Repeated::default();
            if found != Outcome::None || repeated.reach_beyond_groups() {
                here = repeated.take(&self.file, index)?;
            }
            if found != Outcome::None {
                let alone = group.candidates(fetch)?;
                let layout = &self.file.layout;
                let [ids, starts, ends] = [layout.trace_id, layout.start, layout.end].map(|leaf| group.column(leaf));
                let (ids, starts, ends) = (ids?, starts?, ends?);
                let id = |row: usize| TraceId::from_slice(ids.values.bytes(row));
                let time = |column: &Rc<super::Column>, row: usize| column.values.i64(row).cast_unsigned();
                let rows = group.rows();
                if [&ids, &starts, &ends].iter().any(|column| column.values.len() != rows) {
                    return Err(group.corrupt(layout.trace_id, "ids and times are not one for each row"));
                }
                let single = |outcome: Outcome| {
                    let mut rows: Vec<usize> = outcome.bits(rows).iter().collect();
                    here.leave_out(&mut rows);
                    rows
                };
                parts.traces.extend(single(found).into_iter().map(|row| TracePart {
                    trace_id: id(row),
                    start_unix_nanos: time(&starts, row),
                    end_unix_nanos: time(&ends, row),
                }));
                parts.alone.push((index, single(alone).into_iter().map(|row| (row, id(row))).collect()));
            }
            parts.stats.bytes += group.bytes_read;
            // Those of several rows may match, whatever each of them says.
            let in_time = Fetch { filter: TraceFilter::All, ..wide.clone() };
            let mut took = ScanStats::default();
            let _ = self.whole(&here.ids, &in_time, &mut took, &mut |batch| {
                parts.traces.extend(batch.traces.iter().map(TracePart::of));
                ControlFlow::Continue(())
            })?;
            parts.stats.bytes += took.bytes;
            parts.repeated.extend(here.ids);
        }
        // Row groups and rows may be in any order.
        if !parts.traces.is_sorted_by_key(|part| part.trace_id) {
            parts.traces.sort_unstable_by_key(|part| part.trace_id);
        }
        parts.repeated.sort_unstable();
        Ok(parts)
    }

    /// Hands out the traces that may match by themselves and are `wanted`, as [`BlockReader::search`] does.
    ///
    /// # Errors
    /// As for [`BlockReader::search`].
    pub fn search_parts(
        &self,
        fetch: &Fetch,
        parts: &Parts,
        wanted: &dyn Fn(&TraceId) -> bool,
        each: &mut dyn FnMut(Batch) -> ControlFlow<()>,
    ) -> Result<ScanStats, ReadError> {
        let mut stats = ScanStats::default();
        for (index, alone) in &parts.alone {
            let rows: Vec<usize> = alone.iter().filter(|(_, id)| wanted(id)).map(|(row, _)| *row).collect();
            if !rows.is_empty() && scan(Group::new(&self.file, *index), rows, fetch, &mut stats, each)?.is_break() {
                return Ok(stats);
            }
        }
        let repeated: Vec<TraceId> = parts.repeated.iter().copied().filter(wanted).collect();
        let _ = self.whole(&repeated, fetch, &mut stats, each)?;
        Ok(stats)
    }

    /// Least and greatest trace id of each row group, where the file says so.
    #[must_use]
    pub fn id_bounds(&self) -> Vec<Option<(TraceId, TraceId)>> {
        let bounds = |(first, last)| (TraceId(first), TraceId(last));
        self.file.footer.groups.iter().map(|group| group.chunks[self.file.layout.trace_id].id_bounds.map(bounds)).collect()
    }

    /// Trace ids of a row group, ascending and each once, whatever the order of its rows. Other row groups may have some of
    /// them too, in blocks that are not in order. Reads that one column.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn ids_of(&self, row_group: usize) -> Result<&[TraceId], ReadError> {
        if row_group < self.row_groups() { Ok(self.file.group_ids(row_group)?.distinct()) } else { Ok(&[]) }
    }
}
