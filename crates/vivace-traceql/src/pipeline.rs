//! A pipeline made ready to run, and running it on one trace.
//!
//! Source: docs/facts/traceql.md, "Evaluation of a query on one trace".

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::ast::{Aggregate, Field, Pipeline, Scalar, SpansetOp, Spansets, Stage};
use crate::compare::{CompareOp, Val, compare};
use crate::error::QueryError;
use crate::expr::{At, Columns, Expr, Filter};
use crate::group::GroupKey;
use crate::{Batch, TraceRow, Value, structure};

/// Spans of one trace that belong together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanset {
    /// Indices into [`Batch::spans`], ascending. Never empty.
    pub(crate) spans: Vec<u32>,
    /// What grouping and aggregates said about it, by canonical text.
    pub(crate) attributes: Vec<(Arc<str>, Value)>,
}

/// The stages of a pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Keep(Sets),
    Group { by: Expr, name: Arc<str> },
    Coalesce,
    Scalar { function: Function, of: Expr, name: Arc<str>, op: CompareOp, constant: Value },
}

#[derive(Debug, Clone)]
enum Sets {
    Filter(Filter),
    Binary { op: SpansetOp, left: Box<Sets>, right: Box<Sets> },
    Program(Program),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Count,
    Min,
    Max,
    Avg,
    Sum,
}

/// The spans a set is taken from, without listing all of a trace.
#[derive(Clone)]
enum Input<'a> {
    All(Range<u32>),
    Some(&'a [u32]),
}

impl Input<'_> {
    fn filter(&self, keep: impl Fn(usize) -> bool) -> Vec<u32> {
        let mut kept = Vec::new();
        match self {
            Self::All(range) => kept.extend(range.clone().filter(|span| keep(*span as usize))),
            Self::Some(spans) => kept.extend(spans.iter().filter(|span| keep(**span as usize))),
        }
        kept
    }
}

impl Program {
    pub(crate) fn new(pipeline: &Pipeline, columns: &mut Columns) -> Result<Self, QueryError> {
        let mut steps = Vec::new();
        for stage in &pipeline.stages {
            match stage {
                // Alone, a pipeline in parentheses is that pipeline.
                Stage::Spansets(Spansets::Pipeline(inner)) => steps.extend(Self::new(inner, columns)?.steps),
                Stage::Spansets(spansets) => steps.push(Step::Keep(Sets::new(spansets, columns)?)),
                Stage::Group(field) => steps.push(Step::Group { by: Expr::new(field, columns)?, name: stage.to_string().into() }),
                Stage::Coalesce => steps.push(Step::Coalesce),
                Stage::Select(attributes) => attributes.iter().for_each(|attribute| {
                    columns.operand(attribute);
                }),
                Stage::ScalarFilter(filter) => {
                    let (Scalar::Aggregate(aggregate), Scalar::Constant(constant)) = (&filter.left, &filter.right) else {
                        return Err(QueryError::Unsupported(format!("the scalar filter {filter}")));
                    };
                    let nothing = Field::Literal(Value::Bool(true));
                    let (function, of) = match aggregate {
                        Aggregate::Count => (Function::Count, &nothing),
                        Aggregate::Min(of) => (Function::Min, of),
                        Aggregate::Max(of) => (Function::Max, of),
                        Aggregate::Avg(of) => (Function::Avg, of),
                        Aggregate::Sum(of) => (Function::Sum, of),
                    };
                    let (of, name) = (Expr::new(of, columns)?, aggregate.to_string().into());
                    steps.push(Step::Scalar { function, of, name, op: filter.op, constant: constant.clone() });
                }
            }
        }
        Ok(Self { steps })
    }

    /// The filters that a span must pass, where they alone decide span by span.
    pub(crate) fn filters(&self) -> Option<Vec<&Filter>> {
        let filters = self.steps.iter().map(|step| match step {
            Step::Keep(Sets::Filter(filter)) => Some(filter),
            _ => None,
        });
        let filters: Vec<_> = filters.collect::<Option<_>>()?;
        Some(filters.into_iter().filter(|filter| !filter.is_always_true()).collect())
    }

    /// The spansets that are left of a trace.
    pub(crate) fn run(&self, batch: &Batch, trace: &TraceRow) -> Vec<Spanset> {
        let end = trace.spans.end.min(batch.spans.len());
        let all = u32::try_from(trace.spans.start).unwrap_or(u32::MAX)..u32::try_from(end).unwrap_or(u32::MAX);
        self.run_on(batch, trace, Input::All(all))
    }

    fn run_on(&self, batch: &Batch, trace: &TraceRow, input: Input<'_>) -> Vec<Spanset> {
        // The first step sees the trace in place; only what it keeps is listed.
        let (mut sets, rest) = match self.steps.split_first() {
            Some((Step::Keep(first), rest)) => (vec![Spanset { spans: first.keep(batch, trace, &input), attributes: Vec::new() }], rest),
            _ => (vec![Spanset { spans: input.filter(|_| true), attributes: Vec::new() }], self.steps.as_slice()),
        };
        sets.retain(|set| !set.spans.is_empty());
        for step in rest {
            if sets.is_empty() {
                break;
            }
            sets = step.apply(batch, trace, sets);
        }
        sets
    }
}

impl Step {
    fn apply(&self, batch: &Batch, trace: &TraceRow, mut sets: Vec<Spanset>) -> Vec<Spanset> {
        match self {
            Self::Keep(filter) => {
                for set in &mut sets {
                    set.spans = filter.keep(batch, trace, &Input::Some(&set.spans));
                }
                sets.retain(|set| !set.spans.is_empty());
                sets
            }
            Self::Group { by, name } => sets.into_iter().flat_map(|set| group(batch, trace, &set, by, name)).collect(),
            Self::Coalesce => {
                let spans = spans_of(sets);
                vec![Spanset { spans, attributes: Vec::new() }]
            }
            Self::Scalar { function, of, name, op, constant } => {
                sets.retain_mut(|set| {
                    let value = aggregate(batch, trace, &set.spans, *function, of);
                    let holds = compare(*op, (&value).into(), constant.into());
                    set.attributes.push((name.clone(), value));
                    holds
                });
                sets
            }
        }
    }
}

impl Sets {
    fn new(spansets: &Spansets, columns: &mut Columns) -> Result<Self, QueryError> {
        Ok(match spansets {
            Spansets::Filter(field) => Self::Filter(Filter::new(field, columns)?),
            Spansets::Pipeline(pipeline) => Self::Program(Program::new(pipeline, columns)?),
            Spansets::Binary { op, left, right } => {
                columns.rows.positions |= matches!(op, SpansetOp::Structural { .. });
                Self::Binary { op: *op, left: Box::new(Self::new(left, columns)?), right: Box::new(Self::new(right, columns)?) }
            }
        })
    }

    fn keep(&self, batch: &Batch, trace: &TraceRow, input: &Input<'_>) -> Vec<u32> {
        match self {
            Self::Filter(filter) => input.filter(|span| filter.matches(batch, trace, span)),
            Self::Program(program) => spans_of(program.run_on(batch, trace, input.clone())),
            Self::Binary { op, left, right } => {
                let left = left.keep(batch, trace, input);
                if left.is_empty() && *op == SpansetOp::And {
                    return left;
                }
                let right = right.keep(batch, trace, input);
                match op {
                    SpansetOp::And if right.is_empty() => right,
                    SpansetOp::And | SpansetOp::Or => structure::union(&left, &right),
                    SpansetOp::Structural { relation, mode } => structure::structural(&batch.spans, *relation, *mode, &left, &right),
                }
            }
        }
    }
}

/// The spans of all sets, ascending, each once.
fn spans_of(mut sets: Vec<Spanset>) -> Vec<u32> {
    if sets.len() == 1 {
        return sets.remove(0).spans;
    }
    let mut spans: Vec<u32> = sets.into_iter().flat_map(|set| set.spans).collect();
    spans.sort_unstable();
    spans.dedup();
    spans
}

/// One spanset per value of `by`, in the order in which the values appear.
fn group(batch: &Batch, trace: &TraceRow, set: &Spanset, by: &Expr, name: &Arc<str>) -> Vec<Spanset> {
    let mut places: FxHashMap<GroupKey<'_>, usize> = FxHashMap::default();
    let mut groups: Vec<Spanset> = Vec::new();
    for span in &set.spans {
        let value = match by.value(&At::first(batch, trace, *span as usize)) {
            Val::Opaque => Val::Nil,
            value => value,
        };
        let place = *places.entry(GroupKey(value)).or_insert_with(|| {
            let shown = match value.to_value() {
                Value::Nil => Value::Str("nil".into()),
                value => value,
            };
            let mut attributes = set.attributes.clone();
            attributes.push((name.clone(), shown));
            groups.push(Spanset { spans: Vec::new(), attributes });
            groups.len() - 1
        });
        groups[place].spans.push(*span);
    }
    groups
}

/// Nil when no span has a number.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn aggregate(batch: &Batch, trace: &TraceRow, spans: &[u32], function: Function, of: &Expr) -> Value {
    if function == Function::Count {
        return Value::Int(i64::try_from(spans.len()).unwrap_or(i64::MAX));
    }
    let mut count = 0u32;
    let (mut ints, mut durations) = (true, true);
    let (mut sum, mut min, mut max) = (0i128, i64::MAX, i64::MIN);
    let (mut float_sum, mut float_min, mut float_max) = (0.0, f64::INFINITY, f64::NEG_INFINITY);
    for span in spans {
        let value = of.value(&At::first(batch, trace, *span as usize));
        let Some(number) = value.number() else { continue };
        match value {
            Val::Int(v) | Val::Duration(v) => {
                sum += i128::from(v);
                min = min.min(v);
                max = max.max(v);
            }
            _ => {}
        }
        ints &= matches!(value, Val::Int(_));
        durations &= matches!(value, Val::Duration(_));
        count += 1;
        float_sum += number;
        float_min = number.min(float_min);
        float_max = number.max(float_max);
    }
    if count == 0 {
        return Value::Nil;
    }
    let whole: Option<fn(i64) -> Value> = match (ints, durations) {
        (true, _) => Some(Value::Int),
        (_, true) => Some(Value::Duration),
        _ => None,
    };
    match (function, whole) {
        (Function::Avg, Some(_)) if durations => Value::Duration((sum / i128::from(count)) as i64),
        (Function::Avg, Some(_)) => Value::Float(sum as f64 / f64::from(count)),
        (Function::Avg, None) => Value::Float(float_sum / f64::from(count)),
        (Function::Min, Some(whole)) => whole(min),
        (Function::Max, Some(whole)) => whole(max),
        (Function::Min, None) => Value::Float(float_min),
        (Function::Max, None) => Value::Float(float_max),
        (_, Some(whole)) => whole(sum as i64),
        (_, None) => Value::Float(float_sum),
    }
}
