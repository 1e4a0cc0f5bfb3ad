//! Whether a query must see the spans of a trace together.

use crate::ast::{Field, FieldOp, FirstStage, OverTime, Pipeline, Scalar, SpansetOp, Spansets, Stage};
use crate::{Attribute, CompareOp, Intrinsic, Value};

/// Whether several spans of a trace decide together what the pipeline leaves of it. Plain filters decide span by span.
pub(crate) fn pipeline_needs_whole_traces(pipeline: &Pipeline) -> bool {
    pipeline.stages.iter().any(stage_needs_whole_traces)
}

pub(crate) fn stage_needs_whole_traces(stage: &Stage) -> bool {
    match stage {
        Stage::Spansets(spansets) => of_spansets(spansets),
        Stage::Group(_) | Stage::Coalesce => true,
        Stage::Select(attributes) => attributes.iter().any(Attribute::is_of_trace),
        Stage::ScalarFilter(filter) => [&filter.left, &filter.right].into_iter().any(|side| !matches!(side, Scalar::Constant(_))),
    }
}

fn of_spansets(spansets: &Spansets) -> bool {
    match spansets {
        Spansets::Filter(field) => of_field(field),
        Spansets::Pipeline(pipeline) => pipeline_needs_whole_traces(pipeline),
        Spansets::Binary { op: SpansetOp::Or, left, right } => of_spansets(left) || of_spansets(right),
        Spansets::Binary { .. } => true,
    }
}

pub(crate) fn first_stage_needs_whole_traces(stage: &FirstStage) -> bool {
    match stage {
        // Compared are also the names of the root.
        FirstStage::Compare { .. } => true,
        FirstStage::Over { function, by } => {
            by.iter().any(Attribute::is_of_trace)
                || match function {
                    OverTime::Rate | OverTime::Count => false,
                    OverTime::Min(of)
                    | OverTime::Max(of)
                    | OverTime::Sum(of)
                    | OverTime::Avg(of)
                    | OverTime::Histogram(of)
                    | OverTime::Quantile(of, _) => of.is_of_trace(),
                }
        }
    }
}

fn of_field(field: &Field) -> bool {
    match field {
        Field::Literal(_) => false,
        Field::Attribute(attribute) => attribute.is_of_trace(),
        Field::Unary { of, .. } | Field::Exists(of) | Field::NotExists(of) => of_field(of),
        Field::Binary { op, left, right } => !asks_for_root(*op, left, right) && (of_field(left) || of_field(right)),
    }
}

/// `nestedSetParent < 0`: a root says itself that it is one.
fn asks_for_root(op: FieldOp, left: &Field, right: &Field) -> bool {
    let is_parent = matches!(left, Field::Attribute(Attribute::Intrinsic(Intrinsic::NestedSetParent)));
    is_parent && op == FieldOp::Compare(CompareOp::Less) && *right == Field::Literal(Value::Int(0))
}
