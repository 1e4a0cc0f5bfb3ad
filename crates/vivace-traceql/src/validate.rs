//! Queries that can be read and make no sense.
//!
//! Source: docs/facts/traceql.md, "Checks".

use crate::ast::{
    Aggregate, Field, FieldOp, FirstStage, LaterStage, Metrics, OverTime, Pipeline, Query, Root, Scalar, ScalarFilter, SpansetOp, Spansets,
    Stage,
};
use crate::error::{QueryError, in_a_line};
use crate::types::{self, Misfit, Type};
use crate::{Attribute, Scope, Value, pattern};

type Check<T = ()> = Result<T, QueryError>;

fn refuse<T>(message: String) -> Check<T> {
    Err(QueryError::Invalid(in_a_line(&message)))
}

pub(crate) fn query(query: &Query) -> Check {
    match &query.root {
        Root::Pipeline(pipeline) => check_pipeline(pipeline),
        Root::Metrics(metrics) => check_metrics(metrics),
    }
}

fn check_pipeline(pipeline: &Pipeline) -> Check {
    pipeline.stages.iter().try_for_each(|stage| match stage {
        Stage::Spansets(spansets) => check_spansets(spansets),
        Stage::Group(field) => {
            check_field(field)?;
            if !references_span(field) {
                return refuse(format!("grouping field expressions must reference the span: {stage}"));
            }
            Ok(())
        }
        Stage::Coalesce | Stage::Select(_) => Ok(()),
        Stage::ScalarFilter(filter) => check_scalar_filter(filter),
    })
}

fn check_spansets(spansets: &Spansets) -> Check {
    match spansets {
        Spansets::Filter(field) => check_filter(field),
        Spansets::Pipeline(pipeline) => check_pipeline(pipeline),
        Spansets::Binary { op, left, right } => {
            check_spansets(left)?;
            check_spansets(right)?;
            if matches!(op, SpansetOp::Structural { .. }) && (yields_groups(left) || yields_groups(right)) {
                return refuse("spanset operators are not supported for multiple spansets per trace. consider using coalesce()".to_owned());
            }
            Ok(())
        }
    }
}

/// Whether the side of an operator can yield several spansets for one trace.
fn yields_groups(spansets: &Spansets) -> bool {
    let Spansets::Pipeline(pipeline) = spansets else { return false };
    pipeline.stages.iter().fold(false, |groups, stage| match stage {
        Stage::Group(_) => true,
        Stage::Coalesce => false,
        _ => groups,
    })
}

fn check_filter(field: &Field) -> Check {
    match check_field(field)? {
        Type::Bool | Type::Unknown => Ok(()),
        _ => refuse(format!("span filter field expressions must resolve to a boolean: {{ {field} }}")),
    }
}

/// Checks an expression and tells its type.
pub(crate) fn check_field(field: &Field) -> Check<Type> {
    match field {
        Field::Literal(value) => Ok(types::of_literal(value)),
        Field::Attribute(attribute) => Ok(types::of_attribute(attribute)),
        Field::Exists(of) => check_field(of).map(|_| Type::Bool),
        Field::NotExists(of) => {
            check_field(of)?;
            match &**of {
                Field::Attribute(intrinsic @ Attribute::Intrinsic(_)) => {
                    refuse(format!("{intrinsic}=nil is not valid because intrinsics cannot be nil"))
                }
                Field::Attribute(Attribute::Named { scope: Scope::Resource, key }) if &**key == "service.name" => {
                    refuse("resource.service.name=nil is not valid because resource.service.name cannot be nil".to_owned())
                }
                _ => Ok(Type::Bool),
            }
        }
        Field::Unary { op, of } => {
            let inner = check_field(of)?;
            if !inner.allows_unary(*op) {
                return refuse(format!("illegal operation for the given type: {field}"));
            }
            Ok(inner)
        }
        Field::Binary { op, left, right } => {
            let (left_type, right_type) = (check_field(left)?, check_field(right)?);
            match types::check_binary(*op, left_type, right_type) {
                Some(Misfit::Types) => return refuse(format!("binary operations must operate on the same type: {field}")),
                Some(Misfit::Operator) => return refuse(format!("illegal operation for the given types: {field}")),
                None => {}
            }
            if matches!(op, FieldOp::Regex | FieldOp::NotRegex) {
                let Field::Literal(Value::Str(text)) = &**right else {
                    return refuse(format!("invalid type for =~ or !~: {right}"));
                };
                pattern::compiled(text)?;
            }
            Ok(types::of_binary(*op, left_type, right_type))
        }
    }
}

fn references_span(field: &Field) -> bool {
    match field {
        Field::Literal(_) => false,
        Field::Attribute(_) => true,
        Field::Unary { of, .. } | Field::Exists(of) | Field::NotExists(of) => references_span(of),
        Field::Binary { left, right, .. } => references_span(left) || references_span(right),
    }
}

fn check_scalar_filter(filter: &ScalarFilter) -> Check {
    let name = |scalar: &Scalar| match scalar {
        Scalar::Constant(_) => "constant",
        Scalar::Aggregate(_) => "aggregate",
        Scalar::Binary { .. } => "arithmetic",
    };
    let Scalar::Aggregate(aggregate) = &filter.left else {
        return refuse(format!("scalar filter lhs of type {} not yet supported", name(&filter.left)));
    };
    if !matches!(filter.right, Scalar::Constant(_)) {
        return refuse(format!("scalar filter rhs of type {} not yet supported", name(&filter.right)));
    }
    let (Aggregate::Min(of) | Aggregate::Max(of) | Aggregate::Avg(of) | Aggregate::Sum(of)) = aggregate else { return Ok(()) };
    let inner = check_field(of)?;
    if inner != Type::Unknown && !inner.is_numeric() {
        return refuse(format!("aggregate field expressions must resolve to a number type: {aggregate}"));
    }
    if !references_span(of) {
        return refuse(format!("aggregate field expressions must reference the span: {aggregate}"));
    }
    Ok(())
}

fn check_metrics(metrics: &Metrics) -> Check {
    match metrics {
        Metrics::Constant(_) => Ok(()),
        Metrics::First { pipeline, stage } => {
            check_pipeline(pipeline)?;
            check_first_stage(stage)
        }
        Metrics::Later { of, stage } => {
            check_metrics(of)?;
            if let LaterStage::Top(limit) | LaterStage::Bottom(limit) = stage
                && *limit < 1
            {
                return refuse("limit must be greater than 0".to_owned());
            }
            refuse_compare(of)
        }
        Metrics::Binary { left, right, .. } => {
            check_metrics(left)?;
            check_metrics(right)?;
            refuse_compare(left)?;
            refuse_compare(right)
        }
    }
}

fn refuse_compare(metrics: &Metrics) -> Check {
    match metrics {
        Metrics::First { stage: FirstStage::Compare { .. }, .. } => {
            refuse("`compare()` cannot be used with second stage functions".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_first_stage(stage: &FirstStage) -> Check {
    match stage {
        FirstStage::Over { function, by } => {
            let max = match function {
                OverTime::Histogram(_) | OverTime::Quantile(..) | OverTime::Avg(_) => 4,
                _ => 5,
            };
            if by.len() > max {
                return refuse(format!("metrics group by {} values not yet supported", by.len()));
            }
            if let OverTime::Quantile(_, quantiles) = function
                && let Some(q) = quantiles.iter().find(|q| !(0.0..=1.0).contains(*q))
            {
                return refuse(format!("quantile must be between 0 and 1: {q}"));
            }
            Ok(())
        }
        FirstStage::Compare { filter, top, range } => {
            check_filter(filter)?;
            if top.is_some_and(|top| !(1..=1000).contains(&top)) {
                return refuse("compare() top number of values must be an integer between 1 and 1000".to_owned());
            }
            if range.is_some_and(|(start, end)| end <= start) {
                return refuse("compare() end timestamp must be greater than start timestamp".to_owned());
            }
            Ok(())
        }
    }
}
