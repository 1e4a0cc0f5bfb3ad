//! Counting the spans of a batch.

use std::ops::ControlFlow;

use super::cells::{Cell, Stretch};
use super::compare::Comparer;
use super::every::SpanAttributes;
use super::exemplars::{Candidate, Rank, Slots, trace_hash};
use super::groups::Lookup;
use super::partial::{StagePartial, Tally};
use super::plan::{Argument, Counter, Function};
use super::quantile::exponent;
use super::range::MetricsRange;
use super::series::Label;
use crate::compare::Val;
use crate::expr::At;
use crate::held::Held;
use crate::{Batch, TraceRow, Value};

/// Spans between two looks at whether to go on.
const SPANS_PER_LOOK: usize = 4096;

/// Finds the interval of a time; spans of a trace are near each other, so that dividing is rare.
struct Intervals<'r> {
    range: &'r MetricsRange,
    /// What the last one holds: after the first, not after the second.
    bounds: (u64, u64),
    last: usize,
}

impl<'r> Intervals<'r> {
    fn new(range: &'r MetricsRange) -> Self {
        Self { range, bounds: (0, 0), last: 0 }
    }

    #[inline]
    fn of(&mut self, unix_nanos: u64) -> Option<usize> {
        if self.bounds.0 < unix_nanos && unix_nanos <= self.bounds.1 {
            return Some(self.last);
        }
        self.last = self.range.interval_of(unix_nanos)?;
        self.bounds = self.range.bounds(self.last);
        Some(self.last)
    }
}

impl Counter {
    /// Counts the spans of a batch, until `stop` or until there is no room for more; false if some had to be left out because
    /// there are too many groups.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn observe(
        &self,
        stage: &mut StagePartial,
        batch: &Batch,
        range: &MetricsRange,
        groups_max: usize,
        every: Option<&SpanAttributes>,
        held: &mut Held,
        stop: &dyn Fn() -> bool,
    ) -> bool {
        let StagePartial { groups, tally, exemplars } = stage;
        if let (Function::Compare(compare), Tally::Counts(counts)) = (&self.function, &mut *tally) {
            let mut comparer = Comparer::new(compare, groups, counts, range, groups_max, every, held);
            self.each_span(batch, range, stop, |at, interval| comparer.add(at, interval));
            return !comparer.is_truncated;
        }
        let counting = Counting { batch, range, stop };
        let lookup = Lookup::new(&self.by, self.function.is_bucketed(), groups, groups_max, held);
        let number = |argument: &Argument, at: &At<'_>| match argument.operand.get(at).number() {
            Some(value) if !value.is_nan() => Some((value, 0)),
            _ => None,
        };
        match (&self.function, tally) {
            (Function::Count | Function::Rate, Tally::Counts(cells)) => self.fill(counting, lookup, cells, exemplars, |_| Some((0.0, 0))),
            (Function::Histogram(of) | Function::Quantile(of, _), Tally::Counts(cells)) => {
                self.fill(counting, lookup, cells, exemplars, |at| match of.operand.get(at) {
                    Val::Int(v) | Val::Duration(v) =>
                    {
                        #[allow(clippy::cast_precision_loss)]
                        Some((v as f64, exponent(v)?))
                    }
                    _ => None,
                })
            }
            (Function::Min(of), Tally::Mins(cells)) => self.fill(counting, lookup, cells, exemplars, |at| number(of, at)),
            (Function::Max(of), Tally::Maxs(cells)) => self.fill(counting, lookup, cells, exemplars, |at| number(of, at)),
            (Function::Sum(of) | Function::Avg(of), Tally::Sums(cells)) => {
                self.fill(counting, lookup, cells, exemplars, |at| number(of, at))
            }
            // The plan made the partial.
            _ => true,
        }
    }

    /// Adds each span's value to the cell of its group and interval. `value` gives the value and the bucket.
    fn fill<'a, C: Cell>(
        &self,
        Counting { batch, range, stop }: Counting<'a, '_>,
        mut lookup: Lookup<'a, '_>,
        cells: &mut Vec<Stretch<C>>,
        exemplars: &mut Slots,
        value: impl Fn(&At<'a>) -> Option<(f64, u32)>,
    ) -> bool {
        let intervals = range.intervals();
        let mut chooser = exemplars.are_wanted().then_some(Chooser { counter: self, slots: exemplars, trace: None });
        self.each_span(batch, range, stop, |at, interval| {
            let Some((value, bucket)) = value(at) else { return ControlFlow::Continue(()) };
            let Some(group) = lookup.group(at, bucket) else { return lookup.flow() };
            let group = group as usize;
            if cells.len() <= group {
                cells.resize_with(lookup.len().max(group + 1), Stretch::default);
            }
            let Some(cell) = cells[group].at(interval, intervals, lookup.held) else { return ControlFlow::Break(()) };
            cell.add(value);
            if let Some(chooser) = &mut chooser {
                chooser.offer(at, value, u32::try_from(group).unwrap_or(0), &mut lookup);
            }
            ControlFlow::Continue(())
        });
        !lookup.is_truncated
    }

    /// Calls `visit` for every span that is counted, with its interval, until it breaks or `stop` says so.
    fn each_span<'a>(
        &self,
        batch: &'a Batch,
        range: &MetricsRange,
        stop: &dyn Fn() -> bool,
        mut visit: impl FnMut(&At<'a>, usize) -> ControlFlow<()>,
    ) {
        let mut seen = 0;
        let mut intervals = Intervals::new(range);
        let filters = self.program.filters();
        let sees_children = !batch.events.offsets.is_empty() || !batch.links.offsets.is_empty();
        let at = |trace, span| {
            if sees_children { At::first(batch, trace, span) } else { At { batch, trace, span, event: None, link: None } }
        };
        for trace in &batch.traces {
            if trace.end_unix_nanos < range.start_unix_nanos() && trace.start_unix_nanos <= trace.end_unix_nanos
                || trace.start_unix_nanos > range.end_unix_nanos()
            {
                continue;
            }
            seen += trace.spans.len() + 1;
            if seen >= SPANS_PER_LOOK {
                seen = 0;
                if stop() {
                    return;
                }
            }
            let Some(filters) = &filters else {
                for set in self.program.run(batch, trace) {
                    for span in set.spans {
                        let span = span as usize;
                        let interval = batch.spans.get(span).and_then(|row| intervals.of(row.start_unix_nanos));
                        if interval.is_some_and(|interval| visit(&at(trace, span), interval).is_break()) {
                            return;
                        }
                    }
                }
                continue;
            };
            let end = trace.spans.end.min(batch.spans.len());
            let start = trace.spans.start.min(end);
            for (span, row) in batch.spans[start..end].iter().enumerate() {
                let span = start + span;
                let Some(interval) = intervals.of(row.start_unix_nanos) else { continue };
                if filters.iter().all(|filter| filter.matches(batch, trace, span)) && visit(&at(trace, span), interval).is_break() {
                    return;
                }
            }
        }
    }
}

/// What is counted, over which time, and until when.
#[derive(Clone, Copy)]
struct Counting<'a, 'r> {
    batch: &'a Batch,
    range: &'r MetricsRange,
    stop: &'r dyn Fn() -> bool,
}

/// Offers spans as exemplars.
struct Chooser<'s> {
    counter: &'s Counter,
    slots: &'s mut Slots,
    /// Where the spans of the last trace begin, and the hash of its id.
    trace: Option<(usize, u64)>,
}

impl Chooser<'_> {
    #[inline]
    fn offer(&mut self, at: &At<'_>, value: f64, group: u32, lookup: &mut Lookup<'_, '_>) {
        let trace = at.trace;
        let hash = match self.trace {
            Some((start, hash)) if start == trace.spans.start => hash,
            _ => {
                let hash = trace_hash(trace.trace_id);
                self.trace = Some((trace.spans.start, hash));
                hash
            }
        };
        let row = &at.batch.spans[at.span];
        let Some(slot) = self.slots.open_slot(hash, trace.trace_id, row.start_unix_nanos) else { return };
        let rank = Rank::new(trace.trace_id, hash, row.id, row.start_unix_nanos);
        if !self.slots.accepts(slot, &rank) {
            return;
        }
        let candidate = Candidate { rank, value, key: lookup.key(group), labels: self.counter.labels_of(at, trace) };
        self.slots.offer(slot, candidate, lookup.held);
    }
}

impl Counter {
    /// `trace:id` and what the query mentions, where the span has it as one value.
    fn labels_of(&self, at: &At<'_>, trace: &TraceRow) -> Vec<Label> {
        let id = Label { key: "trace:id".into(), value: Value::Str(trace.trace_id.trimmed_hex().into()) };
        let mentioned = self.mentioned.iter().filter_map(|(key, operand)| match operand.get(at).to_value() {
            Value::Nil | Value::Opaque | Value::IntArray(_) | Value::FloatArray(_) | Value::StrArray(_) | Value::BoolArray(_) => None,
            value => Some(Label { key: key.clone(), value }),
        });
        std::iter::once(id).chain(mentioned.filter(|label| &*label.key != "trace:id")).collect()
    }
}
