//! Whether a query must see the spans of a trace together.

use crate::ast::{Field, FirstStage, OverTime, Pipeline, Scalar, SpansetOp, Spansets, Stage};
use crate::expr::each_attribute;
use crate::{Attribute, Intrinsic};

/// Whether several spans of a trace decide together what the pipeline leaves of it. Plain filters decide span by span.
pub(crate) fn pipeline_needs_whole_traces(pipeline: &Pipeline) -> bool {
    pipeline.stages.iter().any(stage_needs_whole_traces)
}

pub(crate) fn stage_needs_whole_traces(stage: &Stage) -> bool {
    match stage {
        Stage::Spansets(spansets) => of_spansets(spansets),
        Stage::Group(_) | Stage::Coalesce => true,
        Stage::Select(attributes) => attributes.iter().any(is_of_trace),
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
            by.iter().any(is_of_trace)
                || match function {
                    OverTime::Rate | OverTime::Count => false,
                    OverTime::Min(of)
                    | OverTime::Max(of)
                    | OverTime::Sum(of)
                    | OverTime::Avg(of)
                    | OverTime::Histogram(of)
                    | OverTime::Quantile(of, _) => is_of_trace(of),
                }
        }
    }
}

fn of_field(field: &Field) -> bool {
    let mut whole = false;
    each_attribute(field, &mut |attribute| whole |= is_of_trace(attribute));
    whole
}

/// What depends on other spans of the trace.
fn is_of_trace(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::Intrinsic(
            Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootService
                | Intrinsic::ChildCount
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent
        )
    )
}
