//! Partials on their way from one process to another.

use std::sync::Arc;

use vivace_core::{SpanId, TraceId};
use vivace_proto::vivace::v1::{
    ExemplarCandidate, ExemplarLabel, GroupPartial, SeriesPartial, StagePartial as StageMessage, TypedValue, typed_value,
};

use super::cells::{Cell, Count, Max, Min, Stretch, Sum};
use super::exemplars::{Candidate, Rank, trace_hash};
use super::groups::Key;
use super::partial::{Partial, StagePartial, Tally};
use super::plan::{Counter, Function, MetricsPlan};
use super::series::Label;
use crate::held::Held;
use crate::{Kind, Status, Value};

/// Why a message is no partial of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was counted elsewhere does not fit the query: {0}")]
pub struct PartialError(&'static str);

impl Partial {
    /// Everything that is needed to merge it elsewhere.
    #[must_use]
    pub fn to_message(&self) -> SeriesPartial {
        SeriesPartial {
            stages: self.stages.iter().map(StagePartial::to_message).collect(),
            truncated: self.is_truncated,
            inspected_spans: self.inspected_spans,
        }
    }

    /// Reads what [`Partial::to_message`] wrote for the same query and range.
    ///
    /// # Errors
    /// [`PartialError`] when the message does not fit the plan.
    pub fn from_message(message: SeriesPartial, plan: &MetricsPlan) -> Result<Self, PartialError> {
        let mut partial = plan.partial();
        plan.merge_message(&mut partial, message)?;
        Ok(partial)
    }
}

impl MetricsPlan {
    /// Adds what was counted elsewhere, as [`MetricsPlan::merge`] does, from what [`Partial::to_message`] wrote there for the same
    /// query and range.
    ///
    /// # Errors
    /// [`PartialError`] when the message does not fit the plan; some of it may have been added.
    pub fn merge_message(&self, partial: &mut Partial, message: SeriesPartial) -> Result<(), PartialError> {
        if message.stages.len() != partial.stages.len() {
            return Err(PartialError("another number of stages"));
        }
        for ((stage, counter), message) in partial.stages.iter_mut().zip(&self.stages).zip(message.stages) {
            partial.is_truncated |= !stage.read(message, counter, self, &mut partial.held)?;
        }
        partial.is_truncated |= message.truncated;
        partial.inspected_spans = partial.inspected_spans.saturating_add(message.inspected_spans);
        Ok(())
    }
}

impl StagePartial {
    fn to_message(&self) -> StageMessage {
        let group = |(number, key): (usize, &Key)| {
            let key = key.0.iter().map(value_message).collect();
            let mut message = GroupPartial { key, ..GroupPartial::default() };
            let first;
            match &self.tally {
                Tally::Counts(cells) => (first, message.counts) = list(cells.get(number), |cell| cell.0),
                Tally::Mins(cells) => (first, message.values) = list(cells.get(number), |cell| cell.0),
                Tally::Maxs(cells) => (first, message.values) = list(cells.get(number), |cell| cell.0),
                Tally::Sums(cells) => {
                    (first, message.counts) = list(cells.get(number), |cell| cell.count);
                    message.values = list(cells.get(number), |cell| cell.total).1;
                    message.corrections = list(cells.get(number), |cell| cell.correction).1;
                }
            }
            message.first_interval = u32::try_from(first).unwrap_or(u32::MAX);
            message
        };
        let exemplar = |candidate: &Candidate| ExemplarCandidate {
            trace_id: candidate.rank.trace_id().0.to_vec().into(),
            span_id: candidate.rank.span_id().0.to_vec().into(),
            start: candidate.rank.start_unix_nanos,
            value: candidate.value,
            key: candidate.key.0.iter().map(value_message).collect(),
            labels: candidate
                .labels
                .iter()
                .map(|label| ExemplarLabel { key: label.key.to_string(), value: Some(value_message(&label.value)) })
                .collect(),
        };
        StageMessage {
            groups: self.groups.keys().iter().enumerate().map(group).collect(),
            exemplars: self.exemplars.iter().map(exemplar).collect(),
        }
    }

    /// Adds what a message holds; false if groups had to be left out.
    fn read(&mut self, message: StageMessage, counter: &Counter, plan: &MetricsPlan, held: &mut Held) -> Result<bool, PartialError> {
        let intervals = plan.range.intervals();
        let mut is_complete = true;
        for group in message.groups {
            let key = read_key(group.key, counter)?;
            let first = group.first_interval as usize;
            let lists = [group.counts.len(), group.values.len(), group.corrections.len()];
            let len = lists.into_iter().max().unwrap_or(0);
            if first.checked_add(len).is_none_or(|end| end > intervals) {
                return Err(PartialError("a time outside of the range"));
            }
            let Some(number) = self.groups.number(key, plan.groups_max(counter), held) else {
                if held.is_over() {
                    return Ok(false);
                }
                is_complete = false;
                continue;
            };
            let number = number as usize;
            match (&mut self.tally, lists) {
                (Tally::Counts(cells), [_, 0, 0]) => add(cells, number, intervals, first, held, group.counts.into_iter().map(Count)),
                (Tally::Mins(cells), [0, _, 0]) => add(cells, number, intervals, first, held, group.values.into_iter().map(Min)),
                (Tally::Maxs(cells), [0, _, 0]) => add(cells, number, intervals, first, held, group.values.into_iter().map(Max)),
                (Tally::Sums(cells), [a, b, c]) if a == b && b == c => {
                    let parts = group.counts.into_iter().zip(group.values).zip(group.corrections);
                    add(cells, number, intervals, first, held, parts.map(|((count, total), correction)| Sum { total, correction, count }));
                }
                _ => return Err(PartialError("values of another function")),
            }
        }
        for exemplar in message.exemplars {
            let (Ok(trace_id), Ok(span_id)) = (<[u8; 16]>::try_from(&*exemplar.trace_id), <[u8; 8]>::try_from(&*exemplar.span_id)) else {
                return Err(PartialError("an exemplar without ids"));
            };
            let trace_id = TraceId(trace_id);
            let label = |label: ExemplarLabel| Label { key: label.key.into(), value: read_value(label.value.unwrap_or_default()) };
            let candidate = Candidate {
                rank: Rank::new(trace_id, trace_hash(trace_id), SpanId(span_id), exemplar.start),
                value: exemplar.value,
                key: read_key(exemplar.key, counter)?,
                labels: exemplar.labels.into_iter().map(label).collect(),
            };
            self.exemplars.merge(candidate, held);
        }
        Ok(is_complete)
    }
}

/// The first interval and the values from there.
fn list<C: Cell, T>(stretch: Option<&Stretch<C>>, value: impl Fn(&C) -> T) -> (usize, Vec<T>) {
    let (first, cells) = stretch.map_or((0, &[][..]), Stretch::trimmed);
    (if cells.is_empty() { 0 } else { first }, cells.iter().map(value).collect())
}

fn add<C: Cell>(
    cells: &mut Vec<Stretch<C>>,
    group: usize,
    intervals: usize,
    first: usize,
    held: &mut Held,
    values: impl Iterator<Item = C>,
) {
    if cells.len() <= group {
        cells.resize_with(group + 1, Stretch::default);
    }
    cells[group].merge(&Stretch::new(first, values.collect()), intervals, held);
}

fn read_key(values: Vec<TypedValue>, counter: &Counter) -> Result<Key, PartialError> {
    let key: Arc<[Value]> = values.into_iter().map(read_value).collect();
    let fits = match &counter.function {
        Function::Compare(_) => matches!(&*key, [Value::Int(0..=3), Value::Str(_), _]),
        function if function.is_bucketed() => key.len() == counter.by.len() + 1 && matches!(key.last(), Some(Value::Int(1..=63))),
        _ => key.len() == counter.by.len(),
    };
    if fits { Ok(Key(key)) } else { Err(PartialError("a group of another query")) }
}

fn value_message(value: &Value) -> TypedValue {
    use typed_value::Value as Message;
    let value = match value {
        Value::Int(v) => Some(Message::Int(*v)),
        Value::Float(v) => Some(Message::Float(*v)),
        Value::Str(v) => Some(Message::Text(v.to_string())),
        Value::Bool(v) => Some(Message::Boolean(*v)),
        Value::Duration(v) => Some(Message::Duration(*v)),
        Value::Status(v) => Some(Message::Status(v.to_otlp())),
        Value::Kind(v) => Some(Message::Kind(v.to_otlp())),
        // Neither groups nor exemplars have arrays.
        _ => None,
    };
    TypedValue { value }
}

fn read_value(message: TypedValue) -> Value {
    use typed_value::Value as Message;
    match message.value {
        None => Value::Nil,
        Some(Message::Int(v)) => Value::Int(v),
        Some(Message::Float(v)) if v.is_nan() => Value::Float(f64::NAN),
        Some(Message::Float(v)) => Value::Float(v),
        Some(Message::Text(v)) => Value::Str(v.into()),
        Some(Message::Boolean(v)) => Value::Bool(v),
        Some(Message::Duration(v)) => Value::Duration(v),
        Some(Message::Status(v)) => Value::Status(Status::from_otlp(v.into())),
        Some(Message::Kind(v)) => Value::Kind(Kind::from_otlp(v.into())),
    }
}
