//! The necessary condition of a query: what storage may use to skip traces.

use crate::ast::{Field, FieldOp, Mode, Pipeline, SpansetOp, Spansets, Stage, UnaryOp};
use crate::expr::{self, Literal, Uses};
use crate::{Attribute, Comparison, Condition, Scope, SpanFilter, TraceFilter, Value};

/// What a trace must have for the pipeline to leave anything of it.
pub(crate) fn of_pipeline(pipeline: &Pipeline) -> TraceFilter {
    all_of(pipeline.stages.iter().filter_map(|stage| match stage {
        Stage::Spansets(spansets) => Some(of_spansets(spansets)),
        _ => None,
    }))
}

fn of_spansets(spansets: &Spansets) -> TraceFilter {
    match spansets {
        Spansets::Filter(field) => match of_field(field) {
            Need::Never => TraceFilter::Nothing,
            Need::Unknown => TraceFilter::All,
            Need::Span(filter) => TraceFilter::AnySpan(filter),
        },
        Spansets::Pipeline(pipeline) => of_pipeline(pipeline),
        Spansets::Binary { op: SpansetOp::Or, left, right } => any_of([of_spansets(left), of_spansets(right)]),
        // Without anything on the left, a negated operator gives all of the right.
        Spansets::Binary { op: SpansetOp::Structural { mode: Mode::Negated, .. }, right, .. } => of_spansets(right),
        Spansets::Binary { left, right, .. } => all_of([of_spansets(left), of_spansets(right)]),
    }
}

pub(crate) fn all_of(filters: impl IntoIterator<Item = TraceFilter>) -> TraceFilter {
    let mut needed = Vec::new();
    for filter in filters {
        match filter {
            TraceFilter::Nothing => return TraceFilter::Nothing,
            TraceFilter::All => {}
            TraceFilter::And(inner) => needed.extend(inner),
            other => needed.push(other),
        }
    }
    match needed.len() {
        0 => TraceFilter::All,
        1 => needed.remove(0),
        _ => TraceFilter::And(needed),
    }
}

pub(crate) fn any_of(filters: impl IntoIterator<Item = TraceFilter>) -> TraceFilter {
    let mut accepted = Vec::new();
    for filter in filters {
        match filter {
            TraceFilter::All => return TraceFilter::All,
            TraceFilter::Nothing => {}
            TraceFilter::Or(inner) => accepted.extend(inner),
            other => accepted.push(other),
        }
    }
    match accepted.len() {
        0 => TraceFilter::Nothing,
        1 => accepted.remove(0),
        _ => TraceFilter::Or(accepted),
    }
}

/// The parts of a filter that the conditions for storage leave out or only hint at.
pub(crate) fn undecided<'a>(field: &'a Field, parts: &mut Vec<&'a Field>) {
    if let Some((_, literal)) = expr::direct_comparison(field) {
        if matches!(literal, Literal::Numeric) {
            parts.push(field);
        }
        return;
    }
    match field {
        Field::Literal(_) | Field::Attribute(_) => {}
        Field::Exists(of) if matches!(**of, Field::Attribute(_)) => {}
        Field::NotExists(of) if matches!(&**of, Field::Attribute(of) if !of.is_of_events() && !of.is_of_links()) => {}
        Field::Binary { op: FieldOp::And, left, right } => {
            // One event must satisfy all; storage looks at each condition for itself.
            if Uses::of(field) != Uses::default() {
                parts.push(field);
                return;
            }
            undecided(left, parts);
            undecided(right, parts);
        }
        Field::Binary { op: FieldOp::Or, left, right } => {
            let before = parts.len();
            undecided(left, parts);
            undecided(right, parts);
            // One side alone decides nothing.
            if parts.len() > before {
                parts.truncate(before);
                parts.push(field);
            }
        }
        _ => parts.push(field),
    }
}

/// What a span must have for an expression to be true.
pub(crate) enum Need {
    /// It is never true.
    Never,
    /// Nothing that storage could decide.
    Unknown,
    Span(SpanFilter),
}

pub(crate) fn of_field(field: &Field) -> Need {
    if let Some((attribute, literal)) = expr::direct_comparison(field) {
        return match literal {
            Literal::Typed(comparison) => leaf(attribute, comparison),
            Literal::Numeric => Need::Unknown,
            Literal::Never => Need::Never,
        };
    }
    match field {
        Field::Literal(Value::Bool(true)) => Need::Unknown,
        Field::Literal(_) => Need::Never,
        Field::Attribute(attribute) => leaf(attribute, Comparison::Equal(Value::Bool(true))),
        Field::Exists(of) => match &**of {
            Field::Attribute(attribute) => exists(attribute),
            _ => Need::Unknown,
        },
        Field::NotExists(of) => match &**of {
            // Of an event or link that must be there and lack the key, storage knows little.
            Field::Attribute(attribute) if !attribute.is_of_events() && !attribute.is_of_links() => leaf(attribute, Comparison::NotExists),
            _ => Need::Unknown,
        },
        Field::Unary { op: UnaryOp::Not, of } => of_negated(of),
        // A number is not true.
        Field::Unary { op: UnaryOp::Minus, .. } => Need::Never,
        Field::Binary { op: op @ (FieldOp::And | FieldOp::Or), .. } => {
            let (mut items, mut rest) = (Vec::new(), field);
            while let Field::Binary { op: inner, left, right } = rest
                && inner == op
            {
                items.push(&**right);
                rest = left;
            }
            items.push(rest);
            let items = items.into_iter().rev().map(of_field);
            if *op == FieldOp::And { all_needs(items) } else { any_need(items) }
        }
        Field::Binary { op: FieldOp::Compare(_), left, right } => all_needs([operands_exist(left), operands_exist(right)]),
        Field::Binary { op: FieldOp::Regex | FieldOp::NotRegex | FieldOp::Arithmetic(_), .. } => Need::Unknown,
    }
}

/// What a span must have for `!field` to be true: `field` must be false, which a missing attribute is not.
fn of_negated(field: &Field) -> Need {
    match field {
        Field::Attribute(attribute) => leaf(attribute, Comparison::Equal(Value::Bool(false))),
        Field::Unary { op: UnaryOp::Not, of } => of_field(of),
        _ => Need::Unknown,
    }
}

pub(crate) fn all_needs(needs: impl IntoIterator<Item = Need>) -> Need {
    let mut filters = Vec::new();
    for need in needs {
        match need {
            Need::Never => return Need::Never,
            Need::Unknown => {}
            Need::Span(SpanFilter::And(inner)) => filters.extend(inner),
            Need::Span(filter) => filters.push(filter),
        }
    }
    match filters.len() {
        0 => Need::Unknown,
        1 => Need::Span(filters.remove(0)),
        _ => Need::Span(SpanFilter::And(filters)),
    }
}

pub(crate) fn any_need(needs: impl IntoIterator<Item = Need>) -> Need {
    let mut filters = Vec::new();
    for need in needs {
        match need {
            Need::Never => {}
            Need::Unknown => return Need::Unknown,
            Need::Span(SpanFilter::Or(inner)) => filters.extend(inner),
            Need::Span(filter) => filters.push(filter),
        }
    }
    match filters.len() {
        0 => Need::Never,
        1 => Need::Span(filters.remove(0)),
        _ => Need::Span(SpanFilter::Or(filters)),
    }
}

fn leaf(attribute: &Attribute, comparison: Comparison) -> Need {
    Need::Span(SpanFilter::Leaf(Condition { attribute: attribute.clone(), comparison }))
}

/// Whether the attribute is there; what every span has needs no test.
fn exists(attribute: &Attribute) -> Need {
    let always = match attribute {
        Attribute::Named { scope: Scope::Resource, key } => &**key == "service.name",
        Attribute::Named { .. } => false,
        Attribute::Intrinsic(intrinsic) => intrinsic.is_of_every_span(),
    };
    if always { Need::Unknown } else { leaf(attribute, Comparison::Exists) }
}

/// A comparison with nil is false, and arithmetic and `!` with nil are nil: so all attributes in it must exist.
fn operands_exist(field: &Field) -> Need {
    match field {
        Field::Attribute(attribute) => exists(attribute),
        Field::Unary { of, .. } => operands_exist(of),
        Field::Binary { op: FieldOp::Arithmetic(_), left, right } => all_needs([operands_exist(left), operands_exist(right)]),
        _ => Need::Unknown,
    }
}
