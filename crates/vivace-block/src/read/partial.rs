//! Traces of which other places may have spans too: what a query must look at before it judges whole ones.

use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use vivace_core::TraceId;
use vivace_traceql::{Attribute, Batch, Comparison, Condition, Fetch, Intrinsic, RowParts, SpanFilter, TraceFilter, TraceRow, Value};

use super::bits::Outcome;
use super::fault::ReadError;
use super::group::Group;
use super::order::{Repeated, RepeatedTraces};
use super::reader::BlockReader;
use super::search::{ScanStats, scan};

/// Parts of a trace that lie farther apart in time than this are not looked for, nanoseconds. A trace's root spans its time,
/// so parts of one that has come whole lie within it.
pub const TRACE_SPREAD_NANOS: u64 = 3600 * 1_000_000_000;

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
    /// The traces of these row groups that pass `part_filter` (see [`part_filter`]) and overlap the time of `fetch`, widened by
    /// [`TRACE_SPREAD_NANOS`] on both sides; and, for [`BlockReader::search_parts`], which of them may match by themselves.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn parts(&self, fetch: &Fetch, part_filter: &TraceFilter, row_groups: Range<usize>) -> Result<Parts, ReadError> {
        let wide = Fetch {
            start_unix_nanos: fetch.start_unix_nanos.saturating_sub(TRACE_SPREAD_NANOS),
            end_unix_nanos: if fetch.end_unix_nanos == 0 { 0 } else { fetch.end_unix_nanos.saturating_add(TRACE_SPREAD_NANOS) },
            filter: part_filter.clone(),
            span_attributes: Vec::new(),
            event_attributes: Vec::new(),
            link_attributes: Vec::new(),
            rows: RowParts::LEAST,
        };
        let mut parts = Parts::default();
        let mut repeated = RepeatedTraces::of(self)?;
        for index in row_groups.start..row_groups.end.min(self.row_groups()) {
            let mut group = Group::new(self, index);
            parts.stats.traces += group.rows() as u64;
            let found = group.candidates(&wide)?;
            let mut here = Repeated::default();
            if found != Outcome::None || repeated.reach_beyond_groups() {
                here = repeated.take(self, index)?;
            }
            if found != Outcome::None {
                let alone = group.candidates(fetch)?;
                let layout = &self.layout;
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
            if !rows.is_empty() && scan(Group::new(self, *index), rows, fetch, &mut stats, each)?.is_break() {
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
        self.footer.groups.iter().map(|group| group.chunks[self.layout.trace_id].id_bounds.map(bounds)).collect()
    }

    /// Trace ids of a row group, ascending and each once, whatever the order of its rows. Other row groups may have some of
    /// them too, in blocks that are not in order. Reads that one column.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn ids_of(&self, row_group: usize) -> Result<&[TraceId], ReadError> {
        if row_group < self.row_groups() { Ok(self.group_ids(row_group)?.distinct()) } else { Ok(&[]) }
    }
}

/// What some part of a trace has if the whole matches, wherever its other spans are: a condition that one span decides.
///
/// Of conditions that several spans satisfy together, one is enough to find the trace: the one that seems to pass least.
#[must_use]
pub fn part_filter(filter: &TraceFilter) -> TraceFilter {
    match filter {
        TraceFilter::All => TraceFilter::All,
        TraceFilter::Nothing => TraceFilter::Nothing,
        TraceFilter::AnySpan(filter) => match of_one_span(filter) {
            SpanFilter::Maybe => TraceFilter::All,
            filter => TraceFilter::AnySpan(filter),
        },
        TraceFilter::And(filters) => part_branch(filters).map_or(TraceFilter::All, |branch| part_filter(&filters[branch])),
        TraceFilter::Or(filters) => {
            let filters: Vec<TraceFilter> = filters.iter().map(part_filter).collect();
            if filters.contains(&TraceFilter::All) { TraceFilter::All } else { TraceFilter::Or(filters) }
        }
    }
}

/// Which of several necessary conditions is taken.
pub(crate) fn part_branch(filters: &[TraceFilter]) -> Option<usize> {
    (0..filters.len()).min_by_key(|index| passes(&part_filter(&filters[*index])))
}

/// The filter without conditions on the whole trace.
fn of_one_span(filter: &SpanFilter) -> SpanFilter {
    match filter {
        SpanFilter::Maybe => SpanFilter::Maybe,
        SpanFilter::Leaf(condition) if condition.attribute.is_of_trace() && !asks_for_root(condition) => SpanFilter::Maybe,
        SpanFilter::Leaf(condition) => SpanFilter::Leaf(condition.clone()),
        SpanFilter::And(filters) => {
            let mut filters: Vec<SpanFilter> = filters.iter().map(of_one_span).filter(|filter| *filter != SpanFilter::Maybe).collect();
            match filters.len() {
                0 => SpanFilter::Maybe,
                1 => filters.remove(0),
                _ => SpanFilter::And(filters),
            }
        }
        SpanFilter::Or(filters) => {
            let filters: Vec<SpanFilter> = filters.iter().map(of_one_span).collect();
            if filters.contains(&SpanFilter::Maybe) { SpanFilter::Maybe } else { SpanFilter::Or(filters) }
        }
    }
}

/// `nestedSetParent < 0`: a root says itself that it is one.
fn asks_for_root(condition: &Condition) -> bool {
    condition.attribute == Attribute::Intrinsic(Intrinsic::NestedSetParent) && condition.comparison == Comparison::Less(Value::Int(0))
}

/// How much passes, roughly: 0 is least.
fn passes(filter: &TraceFilter) -> u32 {
    match filter {
        TraceFilter::Nothing => 0,
        TraceFilter::AnySpan(filter) => span_passes(filter),
        TraceFilter::And(filters) => filters.iter().map(passes).min().unwrap_or(u32::MAX),
        TraceFilter::Or(filters) => filters.iter().map(passes).max().unwrap_or(0),
        TraceFilter::All => u32::MAX,
    }
}

fn span_passes(filter: &SpanFilter) -> u32 {
    match filter {
        SpanFilter::Maybe => u32::MAX,
        SpanFilter::And(filters) => filters.iter().map(span_passes).min().unwrap_or(u32::MAX),
        SpanFilter::Or(filters) => filters.iter().map(span_passes).max().unwrap_or(0),
        SpanFilter::Leaf(Condition { attribute, comparison }) => match (attribute, comparison) {
            (Attribute::Intrinsic(Intrinsic::Kind), Comparison::Equal(_)) => 5,
            (Attribute::Intrinsic(Intrinsic::Status), Comparison::Equal(_)) => 3,
            (_, Comparison::Equal(_)) => 1,
            (_, Comparison::Regex(_)) => 2,
            (_, Comparison::Less(_) | Comparison::LessEqual(_) | Comparison::Greater(_) | Comparison::GreaterEqual(_)) => 4,
            (_, Comparison::Exists) => 6,
            (_, Comparison::NotEqual(_) | Comparison::NotRegex(_) | Comparison::NotExists) => 7,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found_by(query: &str, want: &str) {
        let filter = |query: &str| vivace_traceql::parse(query).unwrap().search_plan(0, 0).unwrap().fetch().filter.clone();
        assert_eq!(part_filter(&filter(query)), filter(want), "{query}");
    }

    #[test]
    fn a_part_needs_what_one_span_decides() {
        found_by("{ .a = 1 }", "{ .a = 1 }");
        found_by("{ .a = 1 } && { .b != 2 }", "{ .a = 1 }");
        found_by("{ .b != 2 } >> { .a = 1 }", "{ .a = 1 }");
        found_by("{ .a = 1 } !>> { .b != 2 }", "{ .b != 2 }"); // without any `a` it gives all `b`
        found_by("({ .a = 1 } && { kind = server }) || { .c = 3 }", "{ .a = 1 } || { .c = 3 }");
        found_by("{ .a = 1 } && { traceDuration > 1s }", "{ .a = 1 }");
        found_by("{ .a = 1 && traceDuration > 1s }", "{ .a = 1 }");
        found_by("{ rootName = `x` }", "{ }");
        found_by("{ .a = 1 || rootName = `x` }", "{ }");
        found_by("{ span:childCount > 2 && nestedSetParent < 0 }", "{ nestedSetParent < 0 }");
        found_by("{ span:childCount > 2 && (.a = 1 || nestedSetParent = 2) } | count() > 3", "{ }");
        found_by("{ false } && { .a = 1 }", "{ false }");
    }
}
