//! Searches: rows that may match are found by their columns, and handed out to be judged.

use std::ops::{AddAssign, ControlFlow, Range};

use vivace_core::TimeRange;
use vivace_traceql::{Attribute, Batch, Fetch, Intrinsic, Scope, SpanAttributes, SpanFilter, TraceFilter};

use super::bits::{Bits, Outcome};
use super::every::Every;
use super::fault::ReadError;
use super::gather::Gather;
use super::group::Group;
use super::order::RepeatedTraces;
use super::part_filter::part_filter;
use super::reader::BlockReader;
use super::shape::Node;

/// Traces in one batch.
pub(super) const BATCH_TRACES: usize = 256;

/// What a scan took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Bytes of columns read. The footer and page locations, which stay in memory, do not count.
    pub bytes: u64,
    /// Spans of the traces that were handed out.
    pub spans: u64,
    /// Traces in the row groups that were looked at.
    pub traces: u64,
}

impl AddAssign for ScanStats {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.spans += other.spans;
        self.traces += other.traces;
    }
}

impl BlockReader {
    /// Hands out the traces of these row groups that may match, in the order of the file, in batches of at most 256.
    /// Row groups that do not exist are none. `each` may stop the scan.
    ///
    /// A trace with several rows, of which some blocks have a few, comes whole, with the row group of its first row.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had. Batches may have been handed out before.
    pub fn search(
        &self,
        fetch: &Fetch,
        row_groups: Range<usize>,
        each: &mut dyn FnMut(Batch) -> ControlFlow<()>,
    ) -> Result<ScanStats, ReadError> {
        let row_groups = row_groups.start..row_groups.end.min(self.row_groups());
        let mut repeated = RepeatedTraces::of(&self.file)?;
        // Whether a trace of several rows matches only where one of them passes.
        let one_row_decides = part_filter(&fetch.filter) == fetch.filter;
        let mut stats = ScanStats::default();
        for index in row_groups {
            let mut group = Group::new(&self.file, index);
            stats.traces += group.rows() as u64;
            let mut rows: Vec<usize> = match group.candidates(fetch)? {
                Outcome::None => Vec::new(),
                Outcome::All => (0..group.rows()).collect(),
                Outcome::Some(rows) => rows.iter().collect(),
            };
            let apart = repeated.take_out(&self.file, index, &mut rows, one_row_decides)?;
            let stop = scan(group, rows, fetch, &mut stats, each)?;
            if stop.is_break() || self.whole(&apart, fetch, &mut stats, each)?.is_break() {
                break;
            }
        }
        Ok(stats)
    }
}

pub(super) fn scan(
    group: Group<'_>,
    rows: Vec<usize>,
    fetch: &Fetch,
    stats: &mut ScanStats,
    each: &mut dyn FnMut(Batch) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ReadError> {
    scan_with(group, rows, fetch, stats, false, &mut |batch, _| each(batch))
}

/// The same; with `every`, all attributes of the spans of each batch are handed out too.
pub(super) fn scan_with(
    mut group: Group<'_>,
    mut rows: Vec<usize>,
    fetch: &Fetch,
    stats: &mut ScanStats,
    every: bool,
    each: &mut dyn FnMut(Batch, SpanAttributes) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ReadError> {
    if rows.is_empty() {
        stats.bytes += group.bytes_read;
        return Ok(ControlFlow::Continue(()));
    }
    // For few of the rows, only the pages that hold them are read, and only their part is kept.
    if rows.len() < group.rows() / 4 * 3 {
        let few = rows.len();
        group = group.narrow(rows);
        rows = (0..few).collect();
    }
    let gather = Gather::new(&mut group, fetch)?;
    let mut every = if every { Some(Every::new(&mut group)?) } else { None };
    stats.bytes += group.bytes_read;
    for some in rows.chunks(BATCH_TRACES) {
        let batch = gather.batch(some);
        stats.spans += batch.spans.len() as u64;
        let attributes = every.as_mut().map(|every| every.of(gather.elements(some))).unwrap_or_default();
        if each(batch, attributes).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

impl Group<'_> {
    /// The rows that may match.
    pub(super) fn candidates(&mut self, fetch: &Fetch) -> Result<Outcome, ReadError> {
        let in_time = self.in_time(fetch.range)?;
        if in_time == Outcome::None {
            return Ok(Outcome::None);
        }
        Ok(in_time.and(self.trace_filter(&fetch.filter)?))
    }

    fn in_time(&mut self, range: TimeRange) -> Result<Outcome, ReadError> {
        let layout = &self.file.layout;
        let mut rows = Outcome::All;
        if let Some(start) = range.start {
            let ends = self.column(layout.end)?;
            rows = Bits::where_true(self.rows(), |row| ends.values.i64(row).cast_unsigned() >= start).into();
        }
        if let Some(end) = range.end {
            let starts = self.column(layout.start)?;
            rows = rows.and(Bits::where_true(self.rows(), |row| starts.values.i64(row).cast_unsigned() <= end).into());
        }
        Ok(rows)
    }

    fn trace_filter(&mut self, filter: &TraceFilter) -> Result<Outcome, ReadError> {
        match filter {
            TraceFilter::All => Ok(Outcome::All),
            TraceFilter::Nothing => Ok(Outcome::None),
            TraceFilter::AnySpan(filter) => Ok(match self.span_filter(filter)? {
                Outcome::Some(spans) => {
                    let shape = self.shape()?;
                    Bits::where_true(shape.count(Node::Trace), |row| spans.any_in(shape.spans_of_row(row))).into()
                }
                outcome => outcome,
            }),
            TraceFilter::And(filters) => all_of(filters, |filter| self.trace_filter(filter)),
            TraceFilter::Or(filters) => one_of(filters, |filter| self.trace_filter(filter)),
        }
    }

    /// The spans that may satisfy a filter.
    pub(crate) fn span_filter(&mut self, filter: &SpanFilter) -> Result<Outcome, ReadError> {
        match filter {
            SpanFilter::Maybe => Ok(Outcome::All),
            SpanFilter::Leaf(condition) => self.condition(condition),
            SpanFilter::And(filters) => {
                let mut cheap_first: Vec<&SpanFilter> = filters.iter().collect();
                cheap_first.sort_by_key(|filter| cost(filter));
                all_of(cheap_first, |filter| self.span_filter(filter))
            }
            SpanFilter::Or(filters) => one_of(filters, |filter| self.span_filter(filter)),
        }
    }
}

fn all_of<T>(filters: impl IntoIterator<Item = T>, mut eval: impl FnMut(T) -> Result<Outcome, ReadError>) -> Result<Outcome, ReadError> {
    let mut outcome = Outcome::All;
    for filter in filters {
        outcome = outcome.and(eval(filter)?);
        if outcome == Outcome::None {
            break;
        }
    }
    Ok(outcome)
}

fn one_of<T>(filters: impl IntoIterator<Item = T>, mut eval: impl FnMut(T) -> Result<Outcome, ReadError>) -> Result<Outcome, ReadError> {
    let mut outcome = Outcome::None;
    for filter in filters {
        outcome = outcome.or(eval(filter)?);
        if outcome == Outcome::All {
            break;
        }
    }
    Ok(outcome)
}

/// How much has to be read, roughly: 0 is least.
fn cost(filter: &SpanFilter) -> u32 {
    match filter {
        SpanFilter::Maybe => 0,
        SpanFilter::Leaf(condition) => match &condition.attribute {
            Attribute::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::TraceDuration | Intrinsic::RootName | Intrinsic::RootService | Intrinsic::TraceId => 1,
                Intrinsic::Duration | Intrinsic::Status | Intrinsic::Kind | Intrinsic::Name => 3,
                Intrinsic::StatusMessage
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::ChildCount
                | Intrinsic::EventName
                | Intrinsic::EventTimeSinceStart
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
                | Intrinsic::ScopeName
                | Intrinsic::ScopeVersion
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent => 4,
            },
            Attribute::Named { scope: Scope::Resource, .. } => 2,
            Attribute::Named { scope: Scope::Unscoped, .. } => 6,
            Attribute::Named { .. } => 5,
        },
        SpanFilter::And(filters) => filters.iter().map(cost).min().unwrap_or(0),
        SpanFilter::Or(filters) => filters.iter().map(cost).sum(),
    }
}
