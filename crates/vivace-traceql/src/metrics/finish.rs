//! From counts to series.
//!
//! Source: docs/facts/traceql.md, "First-stage functions", "Grouping and labels", "Exemplars" and "Output".

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::cells::{Cell, Stretch};
use super::compare::META_TYPES;
use super::exemplars::Candidate;
use super::groups::Key;
use super::later;
use super::math;
use super::partial::{Partial, StagePartial, Tally};
use super::plan::{Counter, Expression, Function, MetricsPlan};
use super::quantile::{bound, quantile};
use super::range::MetricsRange;
use super::series::{Answer, Exemplar, Label, Sample, Series};
use crate::Value;
use crate::held::{Held, TooLarge};
use crate::value::cmp_text;

/// Why counts became no series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halted {
    /// Nobody waits for them any more.
    #[error("nobody waits for the query any more")]
    Stopped,
    /// They do not fit into memory.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The room that there is for lines, and whether to go on.
struct Room<'s> {
    held: Held,
    line_bytes: u64,
    stop: &'s dyn Fn() -> bool,
}

impl Room<'_> {
    /// Makes room for so many lines, before they are made.
    fn lines(&mut self, count: usize) -> Result<(), Halted> {
        if (self.stop)() {
            return Err(Halted::Stopped);
        }
        self.bytes(self.line_bytes.saturating_mul(count as u64))
    }

    fn bytes(&mut self, bytes: u64) -> Result<(), Halted> {
        if !self.held.add(bytes) {
            self.held.check()?;
        }
        Ok(())
    }

    /// So many lines are no more.
    fn without(&mut self, count: usize) {
        self.held.remove(self.line_bytes.saturating_mul(count as u64));
    }
}

/// A series while it is worked on.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) labels: Vec<Label>,
    /// One per interval; NaN is none.
    pub(crate) values: Vec<f64>,
    pub(crate) exemplars: Vec<Shown>,
}

/// An exemplar while its series is worked on.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    start_unix_nanos: u64,
    labels: Vec<Label>,
    /// None: that of the series at the time, once that is known.
    pub(crate) value: Option<f64>,
}

/// What an expression gives.
pub(crate) enum Lines {
    Of(Vec<Line>),
    Constant(f64),
}

pub(crate) fn answer(plan: &MetricsPlan, partial: &Partial, stop: &dyn Fn() -> bool) -> Result<Answer, Halted> {
    partial.check()?;
    let line_bytes = (size_of::<Line>() + 2 * size_of::<Label>() + plan.range.intervals() * size_of::<f64>()) as u64;
    let mut room = Room { held: Held::new(partial.held.budget()), line_bytes, stop };
    let counters = plan.stages.iter().zip(&partial.stages);
    let mut stages = counters
        .map(|(counter, stage)| Ok(Found { uses: 0, lines: lines_of(plan, counter, stage, &mut room)? }))
        .collect::<Result<Vec<_>, Halted>>()?;
    count_uses(&plan.expression, &mut stages);
    let lines = match evaluate(&plan.expression, &mut stages, &mut room)? {
        Lines::Of(lines) => lines,
        Lines::Constant(_) => Vec::new(),
    };
    let mut series: Vec<Series> = Vec::new();
    for line in lines {
        let made = line.into_series(&plan.range, &mut room)?;
        room.without(1);
        series.extend(made);
    }
    series.sort_by(|a, b| order(&a.labels, &b.labels));
    let is_truncated = partial.is_truncated || series.len() > plan.series_max;
    series.truncate(plan.series_max);
    Ok(Answer { series, is_truncated, inspected_spans: partial.inspected_spans, held: room.held })
}

/// The lines of a first stage, and in how many places of the expression they are still to be used.
struct Found {
    uses: usize,
    lines: Vec<Line>,
}

fn count_uses(expression: &Expression, stages: &mut [Found]) {
    match expression {
        Expression::Constant(_) => {}
        Expression::Stage(stage) => {
            if let Some(found) = stages.get_mut(*stage) {
                found.uses += 1;
            }
        }
        Expression::Later(of, _) => count_uses(of, stages),
        Expression::Binary(_, sides) => {
            count_uses(&sides.0, stages);
            count_uses(&sides.1, stages);
        }
    }
}

fn evaluate(expression: &Expression, stages: &mut [Found], room: &mut Room<'_>) -> Result<Lines, Halted> {
    Ok(match expression {
        Expression::Constant(value) => Lines::Constant(*value),
        Expression::Stage(stage) => Lines::Of(match stages.get_mut(*stage) {
            Some(found) if found.uses > 1 => {
                room.lines(found.lines.len())?;
                found.uses -= 1;
                found.lines.clone()
            }
            Some(found) => std::mem::take(&mut found.lines),
            None => Vec::new(),
        }),
        Expression::Later(of, stage) => match evaluate(of, stages, room)? {
            Lines::Of(lines) => {
                let before = lines.len();
                let lines = later::apply(lines, stage);
                room.without(before - lines.len());
                Lines::Of(lines)
            }
            constant => constant,
        },
        Expression::Binary(op, sides) => {
            let (left, right) = (evaluate(&sides.0, stages, room)?, evaluate(&sides.1, stages, room)?);
            let (a, b) = (left.len(), right.len());
            room.lines(a.max(b))?;
            let lines = math::apply(*op, left, right);
            room.without(a + b + a.max(b) - lines.len());
            lines
        }
    })
}

impl Lines {
    fn len(&self) -> usize {
        match self {
            Self::Of(lines) => lines.len(),
            Self::Constant(_) => 0,
        }
    }
}

/// The series of one first stage.
fn lines_of(plan: &MetricsPlan, counter: &Counter, stage: &StagePartial, room: &mut Room<'_>) -> Result<Vec<Line>, Halted> {
    if counter.is_nothing {
        return Ok(Vec::new());
    }
    let range = &plan.range;
    let StagePartial { groups, tally, exemplars } = stage;
    let keys = groups.keys();
    let exemplars = exemplars.chosen(plan.exemplars_per_stage());
    #[allow(clippy::cast_precision_loss)]
    let mut found = match (&counter.function, tally) {
        (Function::Quantile(of, quantiles), Tally::Counts(cells)) => {
            return quantiles_of(counter, keys, cells, quantiles, of.divisor, range, exemplars, room);
        }
        (Function::Compare(compare), Tally::Counts(cells)) => return compared(compare.top, keys, cells, range, room),
        (Function::Histogram(of), Tally::Counts(cells)) => {
            return histogram(counter, keys, cells, of.divisor, range, exemplars, room);
        }
        (Function::Rate, Tally::Counts(cells)) => {
            let seconds = range.step_nanos() as f64 / 1e9;
            lines(keys, cells, range, 0.0, room, |cell| cell.0 as f64 / seconds)
        }
        (Function::Count, Tally::Counts(cells)) => lines(keys, cells, range, 0.0, room, |cell| cell.0 as f64),
        (Function::Min(of), Tally::Mins(cells)) => lines(keys, cells, range, f64::NAN, room, |cell| cell.0 / of.divisor),
        (Function::Max(of), Tally::Maxs(cells)) => lines(keys, cells, range, f64::NAN, room, |cell| cell.0 / of.divisor),
        (Function::Sum(of), Tally::Sums(cells)) => {
            lines(keys, cells, range, f64::NAN, room, |cell| (cell.total + cell.correction) / of.divisor)
        }
        (Function::Avg(of), Tally::Sums(cells)) => {
            lines(keys, cells, range, f64::NAN, room, |cell| (cell.total + cell.correction) / of.divisor / cell.count as f64)
        }
        _ => Ok(FxHashMap::default()),
    }?;
    if counter.by.is_empty() && matches!(counter.function, Function::Count | Function::Rate) {
        room.lines(1)?;
        found.entry(Key([].into())).or_insert_with(|| vec![0.0; range.intervals()]);
    }
    let mut shown = by_key(exemplars, &counter.function);
    let to_line = |(key, values)| {
        let exemplars = shown.remove(&key).unwrap_or_default();
        let mut labels = labels_of(counter, &key);
        if labels.is_empty() {
            labels.extend(counter.function.name().map(|name| Label { key: "__name__".into(), value: Value::Str(name.into()) }));
        }
        Line { labels, values, exemplars }
    };
    Ok(found.into_iter().map(to_line).collect())
}

/// The values of each group, where `empty` stands for what has none.
fn lines<C: Cell>(
    keys: &[Key],
    cells: &[Stretch<C>],
    range: &MetricsRange,
    empty: f64,
    room: &mut Room<'_>,
    value: impl Fn(C) -> f64,
) -> Result<FxHashMap<Key, Vec<f64>>, Halted> {
    let mut found = FxHashMap::default();
    for (key, stretch) in keys.iter().zip(cells) {
        room.lines(1)?;
        found.insert(key.clone(), values(stretch, range, empty, &value));
    }
    Ok(found)
}

fn values<C: Cell>(stretch: &Stretch<C>, range: &MetricsRange, empty: f64, value: impl Fn(C) -> f64) -> Vec<f64> {
    let mut values = vec![empty; range.intervals()];
    for (interval, cell) in stretch.iter() {
        if let Some(slot) = values.get_mut(interval) {
            *slot = value(cell);
        }
    }
    values
}

/// The labels of what is not nil. A bucket that follows has none here.
fn labels_of(counter: &Counter, key: &Key) -> Vec<Label> {
    let with_value = counter.labels.iter().zip(&*key.0).filter(|(_, value)| **value != Value::Nil);
    with_value.map(|(label, value)| Label { key: label.clone(), value: value.clone() }).collect()
}

fn by_key(exemplars: Vec<Candidate>, function: &Function) -> FxHashMap<Key, Vec<Shown>> {
    let mut shown: FxHashMap<Key, Vec<Shown>> = FxHashMap::default();
    for candidate in exemplars {
        let value = match function {
            Function::Min(of) | Function::Max(of) | Function::Sum(of) | Function::Avg(of) | Function::Quantile(of, _) => {
                Some(candidate.value / of.divisor)
            }
            Function::Count | Function::Rate | Function::Histogram(_) | Function::Compare(_) => None,
        };
        let Candidate { rank, key, labels, .. } = candidate;
        shown.entry(key).or_default().push(Shown { start_unix_nanos: rank.start_unix_nanos, labels, value });
    }
    shown
}

/// The bucket at the end of a key.
fn exponent_of(key: &Key) -> i64 {
    match key.0.last() {
        Some(Value::Int(exponent)) => *exponent,
        _ => 0,
    }
}

/// The key without its bucket.
fn group_of(key: &Key) -> Key {
    Key(key.0[..key.0.len().saturating_sub(1)].into())
}

fn histogram(
    counter: &Counter,
    keys: &[Key],
    cells: &[Stretch<super::cells::Count>],
    divisor: f64,
    range: &MetricsRange,
    exemplars: Vec<Candidate>,
    room: &mut Room<'_>,
) -> Result<Vec<Line>, Halted> {
    let mut shown = by_key(exemplars, &counter.function);
    let bucket: Arc<str> = "__bucket".into();
    let line = |(key, stretch): (&Key, &Stretch<_>)| {
        room.lines(1)?;
        let mut labels = labels_of(counter, key);
        labels.push(Label { key: bucket.clone(), value: Value::Float(bound(exponent_of(key), divisor)) });
        #[allow(clippy::cast_precision_loss)]
        let values = values(stretch, range, 0.0, |cell: super::cells::Count| cell.0 as f64);
        Ok(Line { labels, values, exemplars: shown.remove(key).unwrap_or_default() })
    };
    keys.iter().zip(cells).map(line).collect()
}

#[allow(clippy::too_many_arguments)]
fn quantiles_of(
    counter: &Counter,
    keys: &[Key],
    cells: &[Stretch<super::cells::Count>],
    quantiles: &[f64],
    divisor: f64,
    range: &MetricsRange,
    exemplars: Vec<Candidate>,
    room: &mut Room<'_>,
) -> Result<Vec<Line>, Halted> {
    let mut groups: FxHashMap<Key, Vec<(i64, &Stretch<super::cells::Count>)>> = FxHashMap::default();
    for (key, stretch) in keys.iter().zip(cells) {
        groups.entry(group_of(key)).or_default().push((exponent_of(key), stretch));
    }
    let mut shown: FxHashMap<Key, Vec<Shown>> = FxHashMap::default();
    for (key, exemplars) in by_key(exemplars, &counter.function) {
        shown.entry(group_of(&key)).or_default().extend(exemplars);
    }
    let p: Arc<str> = "p".into();
    let mut lines = Vec::new();
    for (key, mut buckets) in groups {
        room.lines(quantiles.len())?;
        buckets.sort_unstable_by_key(|(exponent, _)| *exponent);
        // Of each interval, the buckets that have counts; and of the whole range.
        let mut counts: Vec<Vec<(f64, u64)>> = vec![Vec::new(); range.intervals()];
        let mut overall: Vec<(f64, u64)> = Vec::new();
        for (exponent, stretch) in buckets {
            let bound = bound(exponent, divisor);
            let mut total = 0u64;
            for (interval, cell) in stretch.iter() {
                total = total.saturating_add(cell.0);
                if let Some(buckets) = counts.get_mut(interval) {
                    buckets.push((bound, cell.0));
                }
            }
            overall.push((bound, total));
        }
        let first = lines.len();
        for q in quantiles {
            let mut labels = labels_of(counter, &key);
            labels.push(Label { key: p.clone(), value: Value::Float(*q) });
            let values = counts.iter().map(|buckets| quantile(*q, buckets)).collect();
            lines.push(Line { labels, values, exemplars: Vec::new() });
        }
        // An exemplar belongs to the quantile it is nearest to.
        let overall: Vec<f64> = quantiles.iter().map(|q| quantile(*q, &overall)).collect();
        for exemplar in shown.remove(&key).unwrap_or_default() {
            let distance = |q: &f64| (q - exemplar.value.unwrap_or(0.0)).abs();
            let nearest = (0..overall.len()).min_by(|a, b| distance(&overall[*a]).total_cmp(&distance(&overall[*b])));
            if let Some(nearest) = nearest {
                lines[first + nearest].exemplars.push(exemplar);
            }
        }
    }
    Ok(lines)
}

/// The totals, and of each side and attribute the most frequent values.
fn compared(
    top: usize,
    keys: &[Key],
    cells: &[Stretch<super::cells::Count>],
    range: &MetricsRange,
    room: &mut Room<'_>,
) -> Result<Vec<Line>, Halted> {
    let meta_type: Arc<str> = "__meta_type".into();
    let mut lists: FxHashMap<Key, Vec<(u64, &Key, &Stretch<_>)>> = FxHashMap::default();
    for (key, stretch) in keys.iter().zip(cells) {
        let total = stretch.iter().fold(0u64, |sum, (_, cell)| sum.saturating_add(cell.0));
        lists.entry(group_of(key)).or_default().push((total, key, stretch));
    }
    let mut lines = Vec::new();
    for mut list in lists.into_values() {
        list.sort_unstable_by(|a, b| {
            b.0.cmp(&a.0)
                .then_with(|| a.1.0.iter().zip(&*b.1.0).fold(std::cmp::Ordering::Equal, |order, (a, b)| order.then_with(|| cmp_text(a, b))))
        });
        for (_, key, stretch) in list.into_iter().take(top) {
            let [Value::Int(meta), Value::Str(attribute), value] = &*key.0 else { continue };
            room.lines(1)?;
            let Some(name) = usize::try_from(*meta).ok().and_then(|meta| META_TYPES.get(meta)) else { continue };
            let value = if *value == Value::Nil { Value::Str("nil".into()) } else { value.clone() };
            let labels = vec![Label { key: meta_type.clone(), value: Value::Str((*name).into()) }, Label { key: attribute.clone(), value }];
            #[allow(clippy::cast_precision_loss)]
            let values = values(stretch, range, 0.0, |cell: super::cells::Count| cell.0 as f64);
            lines.push(Line { labels, values, exemplars: Vec::new() });
        }
    }
    Ok(lines)
}

impl Line {
    /// None without samples.
    fn into_series(self, range: &MetricsRange, room: &mut Room<'_>) -> Result<Option<Series>, Halted> {
        let Self { labels, values, mut exemplars } = self;
        let with_value = values.iter().enumerate().filter(|(_, value)| !value.is_nan());
        room.bytes(series_bytes(&labels, with_value.clone().count(), &exemplars))?;
        let samples: Vec<_> =
            with_value.map(|(interval, value)| Sample { timestamp_ms: range.timestamp_ms(interval), value: *value }).collect();
        if samples.is_empty() {
            return Ok(None);
        }
        exemplars.sort_by_key(|exemplar| exemplar.start_unix_nanos);
        let shown = |exemplar: Shown| {
            let sampled = || range.interval_of(exemplar.start_unix_nanos).and_then(|interval| values.get(interval).copied());
            let value = exemplar.value.or_else(sampled).filter(|value| !value.is_nan())?;
            let timestamp_ms = i64::try_from(exemplar.start_unix_nanos / 1_000_000).unwrap_or(i64::MAX);
            Some(Exemplar { labels: exemplar.labels, timestamp_ms, value })
        };
        let exemplars = exemplars.into_iter().filter_map(shown).collect();
        Ok(Some(Series { labels, samples, exemplars }))
    }
}

/// Memory of a series as a message, whose texts are its own.
fn series_bytes(labels: &[Label], samples: usize, exemplars: &[Shown]) -> u64 {
    let texts = |labels: &[Label]| {
        let text = |label: &Label| if let Value::Str(text) = &label.value { text.len() } else { 0 };
        labels.iter().map(|label| 2 * size_of::<Label>() + label.key.len() + text(label)).sum::<usize>()
    };
    let exemplars = exemplars.iter().map(|exemplar| size_of::<Exemplar>() + texts(&exemplar.labels)).sum::<usize>();
    (size_of::<Series>() + samples * size_of::<Sample>() + texts(labels) + exemplars) as u64
}

/// The order of series in an answer: by number of labels, then label by label.
fn order(a: &[Label], b: &[Label]) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| {
        let labels = a.iter().zip(b);
        labels.fold(std::cmp::Ordering::Equal, |order, (a, b)| {
            order.then_with(|| a.key.cmp(&b.key)).then_with(|| cmp_text(&a.value, &b.value))
        })
    })
}
