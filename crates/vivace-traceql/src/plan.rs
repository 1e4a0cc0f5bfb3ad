//! From a query to what must be fetched and to what it finds.

use std::ops::ControlFlow;

use vivace_core::TimeRange;
use vivace_proto::otlp::KeyValue;
use vivace_proto::tempopb;

use crate::ast::{Aggregate, Field, Metrics, Pipeline, Query, Root, Scalar, Spansets, Stage, UnaryOp};
use crate::compare::Val;
use crate::error::QueryError;
use crate::expr::{self, At, Columns, Filter, Literal, Operand, Uses, each_attribute};
use crate::legacy::LegacyProgram;
use crate::pipeline::{Program, Spanset};
use crate::{Attribute, Batch, Comparison, Fetch, Intrinsic, RowParts, TraceRow, Value, need, whole};

/// Spans per spanset when a request asks for none in particular.
pub const DEFAULT_SPANS_PER_SPANSET: usize = 3;

/// A search, ready to run on any number of batches.
#[derive(Debug, Clone)]
pub struct SearchPlan {
    fetch: Fetch,
    kind: Kind,
    most_recent: bool,
    needs_whole_traces: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    TraceQl { program: Program, returned: Returned },
    Legacy(LegacyProgram),
}

impl Query {
    /// Plans a search over the traces that overlap a range of time, compared in whole seconds.
    ///
    /// Of a metrics query the part before the first metrics function is searched.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for arithmetic between metrics.
    pub fn search_plan(&self, range: TimeRange) -> Result<SearchPlan, QueryError> {
        let pipeline = self.pipeline().ok_or_else(|| QueryError::Unsupported("arithmetic between metrics in a search".to_owned()))?;
        let mut columns = Columns::default();
        let program = Program::new(pipeline, &mut columns)?;
        let returned = Returned::new(pipeline, &mut columns)?;
        let fetch = Fetch {
            range: range.in_whole_seconds(),
            filter: need::of_pipeline(pipeline),
            span_attributes: columns.span,
            event_attributes: columns.event,
            link_attributes: columns.link,
            rows: RowParts { summary: true, ..columns.rows },
        };
        let needs_whole_traces = whole::pipeline_needs_whole_traces(pipeline);
        Ok(SearchPlan { fetch, kind: Kind::TraceQl { program, returned }, most_recent: self.most_recent(), needs_whole_traces })
    }

    /// `with(most_recent=true)`: the search wants exactly the newest traces.
    #[must_use]
    pub fn most_recent(&self) -> bool {
        self.hints.iter().any(|(name, value)| name == "most_recent" && *value == Value::Bool(true))
    }

    /// Whether the query makes series.
    #[must_use]
    pub fn is_metrics(&self) -> bool {
        matches!(self.root, Root::Metrics(_))
    }

    /// What finds the spans; none if several pipelines do.
    pub(crate) fn pipeline(&self) -> Option<&Pipeline> {
        let mut metrics = match &self.root {
            Root::Pipeline(pipeline) => return Some(pipeline),
            Root::Metrics(metrics) => metrics,
        };
        loop {
            match metrics {
                Metrics::First { pipeline, .. } => return Some(pipeline),
                Metrics::Later { of, .. } => metrics = of,
                Metrics::Binary { .. } | Metrics::Constant(_) => return None,
            }
        }
    }
}

impl SearchPlan {
    pub(crate) fn legacy(fetch: Fetch, program: LegacyProgram) -> Self {
        Self { fetch, kind: Kind::Legacy(program), most_recent: false, needs_whole_traces: true }
    }

    /// What the batches must hold.
    #[must_use]
    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// Whether spans of one trace decide together which of them match: by structure, aggregates, groups, or what is said of
    /// the whole trace. Then all that is known of a trace must be in one batch for the answer to be right; otherwise its
    /// spans may come in pieces whose results are combined.
    #[must_use]
    pub fn needs_whole_traces(&self) -> bool {
        self.needs_whole_traces
    }

    /// Whether exactly the newest traces are wanted, so that a search cannot stop at the first ones.
    #[must_use]
    pub fn most_recent(&self) -> bool {
        self.most_recent
    }

    /// The traces of the batch that match, in its order, each with at most `spans_per_spanset` spans per spanset (0 means
    /// [`DEFAULT_SPANS_PER_SPANSET`]). The columns of the batch must be those of [`SearchPlan::fetch`].
    ///
    /// The name and service of a root that is not known are empty.
    #[must_use]
    pub fn evaluate(&self, batch: &Batch, spans_per_spanset: usize) -> Vec<tempopb::TraceSearchMetadata> {
        let mut found = Vec::new();
        let _ = self.evaluate_each(batch, spans_per_spanset, &|| false, &mut |trace| {
            found.push(trace);
            ControlFlow::Continue(())
        });
        found
    }

    /// As [`SearchPlan::evaluate`], one trace at a time, so that nobody has to hold them all. Breaks when `each` does, or when
    /// `stop`, which is asked before every trace, says so.
    pub fn evaluate_each(
        &self,
        batch: &Batch,
        spans_per_spanset: usize,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(tempopb::TraceSearchMetadata) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let max_spans = if spans_per_spanset == 0 { DEFAULT_SPANS_PER_SPANSET } else { spans_per_spanset };
        for trace in batch.traces.iter().filter(|trace| self.fetch.range.overlaps(trace.start_unix_nanos, trace.end_unix_nanos)) {
            if stop() {
                return ControlFlow::Break(());
            }
            if let Some(found) = self.evaluate_trace(batch, trace, max_spans) {
                each(found)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn evaluate_trace(&self, batch: &Batch, trace: &TraceRow, max_spans: usize) -> Option<tempopb::TraceSearchMetadata> {
        match &self.kind {
            Kind::Legacy(program) => program.matches(batch, trace).then(|| metadata(trace)),
            Kind::TraceQl { program, returned } => {
                let sets = program.run(batch, trace);
                if sets.is_empty() {
                    return None;
                }
                let span_sets: Vec<_> = sets.iter().map(|set| returned.span_set(batch, trace, set, max_spans)).collect();
                let service_stats = trace
                    .services
                    .iter()
                    .map(|stat| (stat.service.to_string(), tempopb::ServiceStats { span_count: stat.spans, error_count: stat.errors }));
                Some(tempopb::TraceSearchMetadata { span_sets, service_stats: service_stats.collect(), ..metadata(trace) })
            }
        }
    }
}

fn metadata(trace: &TraceRow) -> tempopb::TraceSearchMetadata {
    let duration_ms = trace.end_unix_nanos.saturating_sub(trace.start_unix_nanos) / 1_000_000;
    tempopb::TraceSearchMetadata {
        trace_id: trace.trace_id.trimmed_hex(),
        root_service_name: trace.root_service.to_string(),
        root_trace_name: trace.root_name.to_string(),
        start_time_unix_nano: trace.start_unix_nanos,
        duration_ms: u32::try_from(duration_ms).unwrap_or(u32::MAX),
        ..Default::default()
    }
}

/// What of a matching span is returned: the attributes that the query mentions.
#[derive(Debug, Clone, Default)]
struct Returned {
    mentions: Vec<Mention>,
    /// The filters that look at events or links. The one that matched is returned.
    filters: Vec<Filter>,
}

#[derive(Debug, Clone)]
struct Mention {
    attribute: Attribute,
    operand: Operand,
    key: String,
    /// The query asks for `= nil`: then nil is returned, as text.
    asked_for_nil: bool,
    /// The filter that chooses among events and links, as an index.
    filter: Option<usize>,
    /// What the query compares it with: values that satisfy one of these are returned, and such elements of arrays.
    comparisons: Vec<Comparison>,
    /// The query also uses the attribute in other ways: then its value is always returned.
    always: bool,
}

impl Returned {
    fn new(pipeline: &Pipeline, columns: &mut Columns) -> Result<Self, QueryError> {
        let mut returned = Self::default();
        returned.visit_pipeline(pipeline, columns)?;
        Ok(returned)
    }

    fn visit_pipeline(&mut self, pipeline: &Pipeline, columns: &mut Columns) -> Result<(), QueryError> {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spansets(spansets) => self.visit_spansets(spansets, columns)?,
                Stage::Group(field) => self.visit_field(field, None, columns),
                Stage::Coalesce => {}
                Stage::Select(attributes) => {
                    for attribute in attributes {
                        self.visit_field(&Field::Attribute(attribute.clone()), None, columns);
                    }
                }
                Stage::ScalarFilter(filter) => {
                    for side in [&filter.left, &filter.right] {
                        if let Scalar::Aggregate(Aggregate::Min(of) | Aggregate::Max(of) | Aggregate::Avg(of) | Aggregate::Sum(of)) = side {
                            self.visit_field(of, None, columns);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn visit_spansets(&mut self, spansets: &Spansets, columns: &mut Columns) -> Result<(), QueryError> {
        match spansets {
            Spansets::Pipeline(pipeline) => self.visit_pipeline(pipeline, columns),
            Spansets::Binary { left, right, .. } => {
                self.visit_spansets(left, columns)?;
                self.visit_spansets(right, columns)
            }
            Spansets::Filter(field) => {
                let filter = if Uses::of(field) == Uses::default() {
                    None
                } else {
                    self.filters.push(Filter::new(field, columns)?);
                    Some(self.filters.len() - 1)
                };
                self.visit_field(field, filter, columns);
                Ok(())
            }
        }
    }

    fn visit_field(&mut self, field: &Field, filter: Option<usize>, columns: &mut Columns) {
        each_attribute(field, &mut |attribute| {
            self.mention(attribute, filter, columns);
        });
        self.visit_uses(field, false);
    }

    /// Notes how attributes are used that were mentioned before.
    fn visit_uses(&mut self, field: &Field, negated: bool) {
        if let Some((attribute, literal)) = expr::direct_comparison(field) {
            if let Some(mention) = self.mentioned(attribute) {
                match literal {
                    Literal::Typed(comparison) if !negated => mention.comparisons.push(comparison),
                    Literal::Never => {}
                    Literal::Typed(_) | Literal::Numeric => mention.always = true,
                }
            }
            return;
        }
        match field {
            Field::Literal(_) => {}
            Field::Attribute(attribute) => {
                if let Some(mention) = self.mentioned(attribute) {
                    mention.always = true;
                }
            }
            Field::Exists(of) | Field::NotExists(of) => {
                if let (Field::NotExists(_), Field::Attribute(attribute)) = (field, &**of)
                    && let Some(mention) = self.mentioned(attribute)
                {
                    mention.asked_for_nil = true;
                }
                self.visit_uses(of, negated);
            }
            Field::Unary { op, of } => self.visit_uses(of, negated || *op == UnaryOp::Not),
            Field::Binary { left, right, .. } => {
                self.visit_uses(left, negated);
                self.visit_uses(right, negated);
            }
        }
    }

    fn mentioned(&mut self, attribute: &Attribute) -> Option<&mut Mention> {
        self.mentions.iter_mut().find(|mention| mention.attribute == *attribute)
    }

    fn mention(&mut self, attribute: &Attribute, filter: Option<usize>, columns: &mut Columns) {
        let key = match attribute {
            // These have fields of their own in the result.
            Attribute::Intrinsic(
                Intrinsic::Duration
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootService
                | Intrinsic::TraceId
                | Intrinsic::SpanId,
            ) => return,
            Attribute::Intrinsic(intrinsic) => intrinsic.text().to_owned(),
            Attribute::Named { key, .. } => key.to_string(),
        };
        if self.mentioned(attribute).is_some() {
            return;
        }
        let operand = columns.operand(attribute);
        let filter = filter.filter(|_| matches!(operand, Operand::Event(_) | Operand::Link(_)));
        self.mentions.push(Mention {
            attribute: attribute.clone(),
            operand,
            key,
            asked_for_nil: false,
            filter,
            comparisons: Vec::new(),
            always: false,
        });
    }

    fn span_set(&self, batch: &Batch, trace: &TraceRow, set: &Spanset, max_spans: usize) -> tempopb::SpanSet {
        tempopb::SpanSet {
            matched: u32::try_from(set.spans.len()).unwrap_or(u32::MAX),
            spans: set.spans.iter().take(max_spans).map(|span| self.span(batch, trace, *span as usize)).collect(),
            attributes: set.attributes.iter().filter_map(|(name, value)| key_value(name, value)).collect(),
        }
    }

    fn span(&self, batch: &Batch, trace: &TraceRow, span: usize) -> tempopb::Span {
        let first = At::first(batch, trace, span);
        let matched: Vec<At<'_>> = self.filters.iter().map(|filter| filter.find(batch, trace, span).unwrap_or(first)).collect();
        let mut name = String::new();
        let mut attributes = Vec::new();
        for mention in &self.mentions {
            let at = mention.filter.and_then(|filter| matched.get(filter)).unwrap_or(&first);
            match (mention.visible(mention.operand.get(at).to_value()), &mention.attribute) {
                (Value::Str(text), Attribute::Intrinsic(Intrinsic::Name)) => text.as_ref().clone_into(&mut name),
                (Value::Nil, _) if mention.asked_for_nil => attributes.extend(key_value(&mention.key, &Value::Str("nil".into()))),
                (value, _) => attributes.extend(key_value(&mention.key, &value)),
            }
        }
        let row = &batch.spans[span];
        tempopb::Span {
            span_id: row.id.to_string(),
            name,
            start_time_unix_nano: row.start_unix_nanos,
            duration_nanos: row.duration_nanos,
            attributes,
        }
    }
}

impl Mention {
    /// The value as far as the query asked for it: what satisfies none of its comparisons is nil; of an array the
    /// elements that satisfy one are left, one alone as a scalar.
    fn visible(&self, value: Value) -> Value {
        let wanted = |value: Val<'_>| self.comparisons.iter().any(|comparison| comparison.accepts(value));
        match &value {
            _ if self.always => value,
            Value::IntArray(v) => Value::int_array(v.iter().copied().filter(|v| wanted(Val::Int(*v)))),
            Value::FloatArray(v) => Value::float_array(v.iter().copied().filter(|v| wanted(Val::Float(*v)))),
            Value::StrArray(v) => Value::str_array(v.iter().filter(|v| wanted(Val::Str(v))).cloned()),
            Value::BoolArray(v) => Value::bool_array(v.iter().copied().filter(|v| wanted(Val::Bool(*v)))),
            Value::Nil => value,
            _ if wanted(Val::from(&value)) => value,
            _ => Value::Opaque,
        }
    }
}

/// None for nil and opaque values.
fn key_value(key: &str, value: &Value) -> Option<KeyValue> {
    Some(KeyValue { key: key.to_owned(), value: Some(value.to_otlp()?) })
}
