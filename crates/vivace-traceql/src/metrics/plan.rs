//! From a metrics query to what must be fetched, what is counted, and what becomes of the counts.

use std::ops::ControlFlow;
use std::sync::Arc;

use vivace_core::budget::Budget;

use super::compare::Compare;
use super::every::SpanAttributes;
use super::exemplars::Slots;
use super::finish::Halted;
use super::groups::{BY_MAX, Groups};
use super::partial::{Partial, StagePartial, Tally};
use super::range::{MetricsRange, Release};
use super::series::Answer;
use crate::ast::{Arithmetic, Field, FirstStage, LaterStage, Metrics, OverTime, Pipeline, Query, Root, SpansetOp, Spansets, Stage};
use crate::error::QueryError;
use crate::expr::{Columns, Operand, each_attribute};
use crate::held::Held;
use crate::pipeline::Program;
use crate::types::Type;
use crate::{Attribute, Batch, Fetch, Intrinsic, Scope, TraceFilter, Value, need, whole};
use vivace_core::TimeRange;

/// No query has more exemplars than this.
pub const MAX_EXEMPLARS: usize = 100;

/// No first stage has more groups of spans than this; what comes later is left out and the answer is marked.
pub const MAX_GROUPS: usize = 1_000_000;

/// A metrics query over a range of time, ready to count the spans of any number of batches.
#[derive(Debug, Clone)]
pub struct MetricsPlan {
    fetch: Fetch,
    pub(crate) range: MetricsRange,
    pub(crate) stages: Vec<Counter>,
    pub(crate) expression: Expression,
    pub(crate) exemplars: usize,
    pub(crate) series_max: usize,
    needs_whole_traces: bool,
}

/// A first stage: which spans are counted and how. Equal ones are counted once.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    source: (Pipeline, FirstStage),
    /// Folded to nothing: there are no series, not even of zeros.
    pub(crate) is_nothing: bool,
    pub(crate) program: Program,
    pub(crate) function: Function,
    /// Label and operand of each attribute of `by`.
    pub(crate) by: Vec<Operand>,
    pub(crate) labels: Vec<Arc<str>>,
    /// What exemplars tell of a span.
    pub(crate) mentioned: Vec<(Arc<str>, Operand)>,
}

/// What is done with the spans of a group.
#[derive(Debug, Clone)]
pub(crate) enum Function {
    Count,
    Rate,
    Min(Argument),
    Max(Argument),
    Sum(Argument),
    Avg(Argument),
    Histogram(Argument),
    Quantile(Argument, Vec<f64>),
    Compare(Compare),
}

/// The number that a function looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Argument {
    pub(crate) operand: Operand,
    /// What the value is divided by in the end: nanoseconds become seconds.
    pub(crate) divisor: f64,
}

/// What becomes of the series of the first stages.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Stage(usize),
    Constant(f64),
    Later(Box<Expression>, LaterStage),
    Binary(Arithmetic, Box<(Expression, Expression)>),
}

impl Function {
    /// Whether a bucket is part of the group.
    pub(crate) fn is_bucketed(&self) -> bool {
        matches!(self, Self::Histogram(_) | Self::Quantile(..))
    }

    /// `__name__` of a series that has no other label.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Self::Count => Some("count_over_time"),
            Self::Rate => Some("rate"),
            Self::Min(_) => Some("min_over_time"),
            Self::Max(_) => Some("max_over_time"),
            Self::Sum(_) => Some("sum_over_time"),
            Self::Avg(_) => Some("avg_over_time"),
            Self::Histogram(_) | Self::Quantile(..) | Self::Compare(_) => None,
        }
    }
}

impl Query {
    /// Plans a metrics query. `exemplars` is how many are wanted, 0 for none; a hint of the query beats it.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if it is no metrics query.
    pub fn metrics_plan(&self, range: MetricsRange, exemplars: usize) -> Result<MetricsPlan, QueryError> {
        let Root::Metrics(metrics) = &self.root else { return Err(QueryError::Invalid("not a metrics query".to_owned())) };
        let wanted = self.hints.iter().rev().find(|(name, _)| name == "exemplars").and_then(|(_, value)| match value {
            Value::Bool(false) => Some(0),
            Value::Int(count) => usize::try_from(*count).ok(),
            _ => None,
        });
        let exemplars = if range.is_instant() { 0 } else { wanted.unwrap_or(exemplars).min(MAX_EXEMPLARS) };
        let mut builder = Builder { columns: Columns::default(), stages: Vec::new(), release: range.release() };
        let expression = builder.expression(metrics)?;
        let Builder { columns, stages, .. } = builder;
        let filters = stages.iter().map(|stage| match stage.is_nothing {
            true => TraceFilter::Nothing,
            false => need::of_pipeline(&stage.source.0),
        });
        let fetch = Fetch {
            range: TimeRange::between(range.start_unix_nanos(), range.end_unix_nanos()),
            filter: need::any_of(filters),
            span_attributes: columns.span,
            event_attributes: columns.event,
            link_attributes: columns.link,
            rows: columns.rows,
        };
        let needs_whole_traces = stages
            .iter()
            .any(|stage| whole::pipeline_needs_whole_traces(&stage.source.0) || whole::first_stage_needs_whole_traces(&stage.source.1));
        Ok(MetricsPlan { fetch, range, stages, expression, exemplars, series_max: usize::MAX, needs_whole_traces })
    }
}

impl MetricsPlan {
    /// The plan, answering at most `max` series; 0 is no limit.
    #[must_use]
    pub fn with_max_series(self, max: usize) -> Self {
        Self { series_max: if max == 0 { usize::MAX } else { max }, ..self }
    }

    /// What is said with the status `PARTIAL` when series were left out.
    #[must_use]
    pub fn truncation_message(&self) -> String {
        let max = if self.series_max == usize::MAX { MAX_GROUPS } else { self.series_max };
        format!(
            "Response exceeds maximum series limit of {max}, a partial response is returned. Warning: the accuracy of each individual value is not guaranteed."
        )
    }

    /// Whether every attribute of the spans is looked at, as `compare` does. Then a place should add those that it
    /// holds, best by counting with [`MetricsPlan::observe_with`]; else with [`MetricsPlan::with_attributes`], and fetch for that
    /// plan, which costs spans times names.
    #[must_use]
    pub fn wants_all_attributes(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage.function, Function::Compare(_)))
    }

    /// The plan, comparing these attributes of spans, resources and scopes too. Others are passed over: what is named by
    /// the language is compared anyway, and events and links where the query mentions them.
    ///
    /// Its partials merge with those of the plan without, and with those of other attributes.
    #[must_use]
    pub fn with_attributes(mut self, attributes: impl IntoIterator<Item = Attribute>) -> Self {
        let mut columns = Columns {
            span: std::mem::take(&mut self.fetch.span_attributes),
            event: std::mem::take(&mut self.fetch.event_attributes),
            link: std::mem::take(&mut self.fetch.link_attributes),
            rows: self.fetch.rows,
        };
        let release = self.range.release();
        for attribute in attributes {
            if !matches!(&attribute, Attribute::Named { scope: Scope::Span | Scope::Resource | Scope::Instrumentation, .. }) {
                continue;
            }
            let operand = columns.operand(&attribute);
            for stage in &mut self.stages {
                if let Function::Compare(compare) = &mut stage.function {
                    compare.add(label(&attribute, release), operand);
                }
            }
        }
        (self.fetch.span_attributes, self.fetch.event_attributes, self.fetch.link_attributes) = (columns.span, columns.event, columns.link);
        self
    }

    /// What the batches must hold.
    #[must_use]
    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// The time that is counted.
    #[must_use]
    pub fn range(&self) -> &MetricsRange {
        &self.range
    }

    /// Whether spans of one trace decide together which of them are counted. Then all that is known of a trace must be in
    /// one batch; otherwise its spans may come in any number of pieces.
    #[must_use]
    pub fn needs_whole_traces(&self) -> bool {
        self.needs_whole_traces
    }

    /// Nothing counted yet, and no limit to what is held.
    #[must_use]
    pub fn partial(&self) -> Partial {
        self.partial_within(&Budget::unlimited())
    }

    /// Nothing counted yet. What is held will be charged to the budget's account for queries.
    #[must_use]
    pub fn partial_within(&self, budget: &Budget) -> Partial {
        let exemplars = self.exemplars_per_stage();
        let stage = |counter: &Counter| StagePartial {
            groups: Groups::default(),
            tally: match counter.function {
                Function::Min(_) => Tally::Mins(Vec::new()),
                Function::Max(_) => Tally::Maxs(Vec::new()),
                Function::Sum(_) | Function::Avg(_) => Tally::Sums(Vec::new()),
                _ => Tally::Counts(Vec::new()),
            },
            exemplars: Slots::new(if matches!(counter.function, Function::Compare(_)) { 0 } else { exemplars }, &self.range),
        };
        Partial { stages: self.stages.iter().map(stage).collect(), is_truncated: false, inspected_spans: 0, held: Held::new(budget) }
    }

    /// Counts the spans of a batch, whose columns must be those of [`MetricsPlan::fetch`].
    ///
    /// Breaks where more batches are no use: `stop`, which is asked every few thousand spans, says so, or what is counted does
    /// not fit into memory ([`Partial::check`]).
    pub fn observe(&self, partial: &mut Partial, batch: &Batch, stop: &dyn Fn() -> bool) -> ControlFlow<()> {
        self.observe_all(partial, batch, None, stop)
    }

    /// The same for a plan that [wants all attributes](MetricsPlan::wants_all_attributes), with those of the spans of the batch.
    pub fn observe_with(
        &self,
        partial: &mut Partial,
        batch: &Batch,
        attributes: &SpanAttributes,
        stop: &dyn Fn() -> bool,
    ) -> ControlFlow<()> {
        self.observe_all(partial, batch, Some(attributes), stop)
    }

    fn observe_all(
        &self,
        partial: &mut Partial,
        batch: &Batch,
        every: Option<&SpanAttributes>,
        stop: &dyn Fn() -> bool,
    ) -> ControlFlow<()> {
        for (counter, stage) in self.stages.iter().zip(&mut partial.stages) {
            if !counter.is_nothing {
                partial.is_truncated |=
                    !counter.observe(stage, batch, &self.range, self.groups_max(counter), every, &mut partial.held, stop);
            }
        }
        partial.inspected_spans = partial.inspected_spans.saturating_add(batch.spans.len() as u64);
        if partial.held.is_over() || stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Adds what was counted elsewhere, as far as it fits ([`Partial::check`]). Whatever the order, the sum is the same.
    pub fn merge(&self, partial: &mut Partial, other: Partial) {
        for ((counter, stage), other) in self.stages.iter().zip(&mut partial.stages).zip(other.stages) {
            partial.is_truncated |= !stage.merge(other, self.groups_max(counter), self.range.intervals(), &mut partial.held);
        }
        partial.held.refuse(other.held.check());
        partial.is_truncated |= other.is_truncated;
        partial.inspected_spans = partial.inspected_spans.saturating_add(other.inspected_spans);
    }

    /// The series of all that was counted: later stages look at the whole.
    ///
    /// # Errors
    /// `stop` says so, or what was counted or the series do not fit into memory.
    pub fn finish(&self, partial: &Partial, stop: &dyn Fn() -> bool) -> Result<Answer, Halted> {
        super::finish::answer(self, partial, stop)
    }

    /// Groups that a stage may have: no fewer than it needs for as many series as are allowed.
    pub(crate) fn groups_max(&self, counter: &Counter) -> usize {
        let groups = match counter.function {
            // Of many values few are answered.
            Function::Compare(_) => MAX_GROUPS,
            // The buckets of a group become one series.
            Function::Quantile(..) => self.series_max.saturating_mul(64),
            _ => self.series_max,
        };
        groups.min(MAX_GROUPS)
    }

    pub(crate) fn exemplars_per_stage(&self) -> usize {
        if self.exemplars == 0 { 0 } else { (self.exemplars / self.stages.len().max(1)).max(1) }
    }
}

/// The text of a label.
pub(crate) fn label(attribute: &Attribute, release: Release) -> Arc<str> {
    match (attribute, release) {
        (Attribute::Named { scope, key }, Release::V2) => format!("{}{key}", scope.prefix()).into(),
        _ => attribute.to_string().into(),
    }
}

struct Builder {
    columns: Columns,
    stages: Vec<Counter>,
    release: Release,
}

impl Builder {
    fn expression(&mut self, metrics: &Metrics) -> Result<Expression, QueryError> {
        Ok(match metrics {
            Metrics::First { pipeline, stage } => Expression::Stage(self.stage(pipeline, stage)?),
            Metrics::Later { of, stage } => Expression::Later(Box::new(self.expression(of)?), stage.clone()),
            Metrics::Binary { op, left, right } => Expression::Binary(*op, Box::new((self.expression(left)?, self.expression(right)?))),
            Metrics::Constant(value) => Expression::Constant(crate::compare::Val::from(value).number().unwrap_or(f64::NAN)),
        })
    }

    fn stage(&mut self, pipeline: &Pipeline, stage: &FirstStage) -> Result<usize, QueryError> {
        if let Some(known) = self.stages.iter().position(|known| known.source.0 == *pipeline && known.source.1 == *stage) {
            return Ok(known);
        }
        let program = Program::new(pipeline, &mut self.columns)?;
        let mut mentioned = Vec::new();
        each_attribute_of_pipeline(pipeline, &mut |attribute| self.mention(&mut mentioned, attribute));
        let (function, by) = match stage {
            FirstStage::Over { function, by } => (self.function(function, &mut mentioned), by.as_slice()),
            FirstStage::Compare { filter, top, range } => {
                let mut operands: Vec<(Arc<str>, Operand)> = Vec::new();
                each_attribute_of_pipeline(pipeline, &mut |attribute| self.compared(&mut operands, attribute));
                each_attribute(filter, &mut |attribute| self.compared(&mut operands, attribute));
                for intrinsic in Compare::INTRINSICS {
                    self.mention(&mut operands, &Attribute::Intrinsic(intrinsic));
                }
                (Function::Compare(Compare::new(filter, *top, *range, operands, &mut self.columns)?), &[][..])
            }
        };
        for attribute in by {
            self.mention(&mut mentioned, attribute);
        }
        let by = &by[..by.len().min(BY_MAX)];
        self.stages.push(Counter {
            source: (pipeline.clone(), stage.clone()),
            is_nothing: folds_to_nothing(pipeline),
            program,
            function,
            by: by.iter().map(|attribute| self.columns.operand(attribute)).collect(),
            labels: by.iter().map(|attribute| label(attribute, self.release)).collect(),
            mentioned,
        });
        Ok(self.stages.len() - 1)
    }

    fn function(&mut self, function: &OverTime, mentioned: &mut Vec<(Arc<str>, Operand)>) -> Function {
        const NANOS: f64 = 1e9;
        let mut argument = |attribute: &Attribute, is_bucketed: bool| {
            self.mention(mentioned, attribute);
            // Other durations than the span's own are in seconds in histograms alone, as they are in the reference.
            let divisor = match attribute {
                Attribute::Intrinsic(Intrinsic::Duration) => NANOS,
                Attribute::Intrinsic(intrinsic) if is_bucketed && intrinsic.value_type() == Type::Duration => NANOS,
                Attribute::Intrinsic(_) | Attribute::Named { .. } => 1.0,
            };
            Argument { operand: self.columns.operand(attribute), divisor }
        };
        match function {
            OverTime::Rate => Function::Rate,
            OverTime::Count => Function::Count,
            OverTime::Min(of) => Function::Min(argument(of, false)),
            OverTime::Max(of) => Function::Max(argument(of, false)),
            OverTime::Sum(of) => Function::Sum(argument(of, false)),
            OverTime::Avg(of) => Function::Avg(argument(of, false)),
            OverTime::Histogram(of) => Function::Histogram(argument(of, true)),
            OverTime::Quantile(of, quantiles) => Function::Quantile(argument(of, true), quantiles.clone()),
        }
    }

    fn mention(&mut self, mentioned: &mut Vec<(Arc<str>, Operand)>, attribute: &Attribute) {
        let operand = self.columns.operand(attribute);
        if mentioned.iter().all(|(_, known)| *known != operand) {
            mentioned.push((label(attribute, self.release), operand));
        }
    }

    /// What `compare` compares of the attributes that a query mentions.
    fn compared(&mut self, operands: &mut Vec<(Arc<str>, Operand)>, attribute: &Attribute) {
        let is_compared = match attribute {
            Attribute::Named { scope, .. } => *scope != Scope::Unscoped,
            Attribute::Intrinsic(intrinsic) => *intrinsic == Intrinsic::EventName,
        };
        if is_compared {
            self.mention(operands, attribute);
        }
    }
}

/// Whether all filters were folded while parsing, to something that is not true.
///
/// Source: docs/facts/traceql.md, "Constant folding".
fn folds_to_nothing(pipeline: &Pipeline) -> bool {
    fn spansets(of: &Spansets) -> bool {
        match of {
            Spansets::Filter(field) => matches!(field, Field::Literal(value) if *value != Value::Bool(true)),
            Spansets::Binary { left, right, op: SpansetOp::And | SpansetOp::Or | SpansetOp::Structural { .. } } => {
                spansets(left) && spansets(right)
            }
            Spansets::Pipeline(pipeline) => folds_to_nothing(pipeline),
        }
    }
    pipeline.stages.iter().all(|stage| matches!(stage, Stage::Spansets(of) if spansets(of)))
}

fn each_attribute_of_pipeline(pipeline: &Pipeline, visit: &mut dyn FnMut(&Attribute)) {
    fn spansets(of: &Spansets, visit: &mut dyn FnMut(&Attribute)) {
        match of {
            Spansets::Filter(field) => each_attribute(field, visit),
            Spansets::Pipeline(pipeline) => each_attribute_of_pipeline(pipeline, visit),
            Spansets::Binary { left, right, .. } => {
                spansets(left, visit);
                spansets(right, visit);
            }
        }
    }
    for stage in &pipeline.stages {
        match stage {
            Stage::Spansets(of) => spansets(of, visit),
            Stage::Group(field) => each_attribute(field, visit),
            Stage::Coalesce => {}
            Stage::Select(attributes) => attributes.iter().for_each(&mut *visit),
            Stage::ScalarFilter(filter) => {
                if let crate::ast::Scalar::Aggregate(aggregate) = &filter.left
                    && let Some(of) = aggregate.operand()
                {
                    each_attribute(of, visit);
                }
            }
        }
    }
}
