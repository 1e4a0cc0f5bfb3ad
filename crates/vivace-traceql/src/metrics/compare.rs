//! `compare`: which values are more frequent among the spans of a selection than among the others.
//!
//! Source: docs/facts/traceql.md, "compare".

use std::ops::ControlFlow;
use std::sync::Arc;

use super::cells::{Cell as _, Count, Stretch};
use super::every::{Every, SpanAttributes, shown};
use super::groups::{Groups, Key, ValueNumbers};
use super::plan::label;
use super::range::{MetricsRange, Release};
use crate::ast::Field;
use crate::compare::Val;
use crate::error::QueryError;
use crate::expr::{At, Columns, Filter, Operand};
use crate::group::GroupKey;
use crate::held::Held;
use crate::{Attribute, Batch, Intrinsic, Scope, TraceRow, Value};

/// Values listed per side and attribute when the query does not say how many.
const TOP: usize = 10;

/// Distinct values of one attribute that are counted on one side in one place. The totals count all.
const VALUES_MAX: u32 = 10_000;

/// The first part of a group's key, and its name in the answer.
pub(crate) const META_TYPES: [&str; 4] = ["baseline", "selection", "baseline_total", "selection_total"];

#[derive(Debug, Clone)]
pub(crate) struct Compare {
    selection: Filter,
    /// Start and end of the selection in Unix nanoseconds: open on the left, closed on the right.
    range: Option<(u64, u64)>,
    pub(crate) top: usize,
    attributes: Vec<Compared>,
}

#[derive(Debug, Clone)]
struct Compared {
    label: Arc<str>,
    operand: Operand,
    /// It is one of the attributes that [`SpanAttributes`] has.
    is_among_all: bool,
}

impl Compare {
    /// Compared whatever a query mentions.
    pub(crate) const INTRINSICS: [Intrinsic; 8] = [
        Intrinsic::Name,
        Intrinsic::Status,
        Intrinsic::StatusMessage,
        Intrinsic::Kind,
        Intrinsic::RootName,
        Intrinsic::RootService,
        Intrinsic::ScopeName,
        Intrinsic::ScopeVersion,
    ];

    pub(crate) fn new(
        filter: &Field,
        top: Option<i64>,
        range: Option<(i64, i64)>,
        attributes: Vec<(Arc<str>, Operand)>,
        columns: &mut Columns,
    ) -> Result<Self, QueryError> {
        Ok(Self {
            selection: Filter::new(filter, columns)?,
            range: range.map(|(start, end)| (u64::try_from(start).unwrap_or(0), u64::try_from(end).unwrap_or(0))),
            top: top.and_then(|top| usize::try_from(top).ok()).unwrap_or(TOP),
            attributes: attributes
                .into_iter()
                .map(|(label, operand)| Compared { label, is_among_all: is_among_all(operand, &columns.span), operand })
                .collect(),
        })
    }

    pub(crate) fn add(&mut self, label: Arc<str>, operand: Operand) {
        if self.attributes.iter().all(|known| known.operand != operand) {
            self.attributes.push(Compared { label, operand, is_among_all: true });
        }
    }

    fn selects(&self, batch: &Batch, trace: &TraceRow, span: usize) -> bool {
        let start = batch.spans.get(span).map_or(0, |span| span.start_unix_nanos);
        self.range.is_none_or(|(from, to)| from < start && start <= to) && self.selection.matches(batch, trace, span)
    }
}

/// Whether an operand is an attribute of spans, resources or scopes.
fn is_among_all(operand: Operand, columns: &[Attribute]) -> bool {
    let Operand::Span(column) = operand else { return false };
    let all = [Scope::Span, Scope::Resource, Scope::Instrumentation];
    matches!(columns.get(column), Some(Attribute::Named { scope, .. }) if all.contains(scope))
}

/// Counts spans of one batch, attribute by attribute.
pub(crate) struct Comparer<'a, 'p> {
    compare: &'p Compare,
    groups: &'p mut Groups,
    counts: &'p mut Vec<Stretch<Count>>,
    columns: Vec<Column<'a>>,
    /// Attributes whatever their names, and how labels spell them.
    every: Option<(Every<'a>, Release)>,
    intervals: usize,
    groups_max: usize,
    held: &'p mut Held,
    pub(crate) is_truncated: bool,
}

struct Column<'a> {
    values: ValueNumbers<'a>,
    /// Groups of a side's values by their numbers.
    groups: [Vec<Option<u32>>; 2],
    totals: [Option<u32>; 2],
    distinct: [u32; 2],
}

impl<'a, 'p> Comparer<'a, 'p> {
    pub(crate) fn new(
        compare: &'p Compare,
        groups: &'p mut Groups,
        counts: &'p mut Vec<Stretch<Count>>,
        range: &MetricsRange,
        groups_max: usize,
        every: Option<&'a SpanAttributes>,
        held: &'p mut Held,
    ) -> Self {
        let column = || Column { values: ValueNumbers::new(), groups: [Vec::new(), Vec::new()], totals: [None; 2], distinct: [0; 2] };
        let columns = compare.attributes.iter().map(|_| column()).collect();
        let every = every.map(|attributes| (Every::new(attributes), range.release()));
        Self { compare, groups, counts, columns, every, intervals: range.intervals(), groups_max, held, is_truncated: false }
    }

    /// Breaks when there is no room for more.
    pub(crate) fn add(&mut self, at: &At<'a>, interval: usize) -> ControlFlow<()> {
        let side = usize::from(self.compare.selects(at.batch, at.trace, at.span));
        for (column, Compared { label, operand, is_among_all }) in self.columns.iter_mut().zip(&self.compare.attributes) {
            if *is_among_all && self.every.is_some() {
                continue;
            }
            let value = operand.get(at);
            let number = match value {
                // Durations are not compared.
                Val::Duration(_) => continue,
                // No label can show an array: all of them are the value nil.
                Val::Ints(_) | Val::Floats(_) | Val::Strs(_) | Val::Bools(_) => 0,
                value => match column.values.number(value) as usize {
                    0 => continue,
                    number => number,
                },
            };
            let mut group = |meta: usize, value: Value| {
                let meta = Value::Int(i64::try_from(meta).unwrap_or(0));
                self.groups.number(Key([meta, Value::Str(label.clone()), value].into()), self.groups_max, self.held)
            };
            let known = &mut column.groups[side];
            if known.len() <= number {
                known.resize(number + 1, None);
            }
            if known[number].is_none() && column.distinct[side] < VALUES_MAX {
                known[number] = group(side, column.values.value(u32::try_from(number).unwrap_or(0)));
                column.distinct[side] += 1;
                self.is_truncated |= known[number].is_none();
            }
            if column.totals[side].is_none() {
                column.totals[side] = group(side + 2, Value::Nil);
                self.is_truncated |= column.totals[side].is_none();
            }
            for group in [known[number], column.totals[side]].into_iter().flatten() {
                let group = group as usize;
                if self.counts.len() <= group {
                    self.counts.resize_with(group + 1, Stretch::default);
                }
                if let Some(cell) = self.counts[group].at(interval, self.intervals, self.held) {
                    cell.add(0.0);
                }
            }
        }
        self.add_every(at.span, side, interval);
        if self.held.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The same for attributes that are found by looking at the span.
    fn add_every(&mut self, span: usize, side: usize, interval: usize) {
        let Some((every, release)) = &mut self.every else { return };
        let attributes = every.attributes;
        for (name, value) in attributes.of_span(span) {
            let (Some(shown), Some(of_name)) = (shown(value.into()), every.names.get_mut(*name as usize)) else { continue };
            let Some(attribute) = attributes.names.get(*name as usize) else { continue };
            let label = of_name.label.get_or_insert_with(|| label(attribute, *release));
            let mut group = |meta: usize, value: Value| {
                let meta = Value::Int(i64::try_from(meta).unwrap_or(0));
                self.groups.number(Key([meta, Value::Str(label.clone()), value].into()), self.groups_max, self.held)
            };
            let known = &mut every.groups.entry((*name, GroupKey(shown))).or_default()[side];
            if known.is_none() && of_name.distinct[side] < VALUES_MAX {
                *known = group(side, shown.to_value());
                of_name.distinct[side] += 1;
                self.is_truncated |= known.is_none();
            }
            let total = &mut of_name.totals[side];
            if total.is_none() {
                *total = group(side + 2, Value::Nil);
                self.is_truncated |= total.is_none();
            }
            for group in [*known, *total].into_iter().flatten() {
                let group = group as usize;
                if self.counts.len() <= group {
                    self.counts.resize_with(group + 1, Stretch::default);
                }
                if let Some(cell) = self.counts[group].at(interval, self.intervals, self.held) {
                    cell.add(0.0);
                }
            }
        }
    }
}
