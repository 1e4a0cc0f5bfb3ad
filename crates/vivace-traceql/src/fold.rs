//! Constant folding while parsing.
//!
//! Source: docs/facts/traceql.md, "Constant folding".

use crate::arithmetic::{negated, not};
use crate::ast::{Field, FieldOp, UnaryOp};
use crate::compare::{CompareOp, Val, compare};
use crate::{Value, pattern, types};

/// `op x`, computed if `x` is a literal that `op` takes.
pub(crate) fn unary(op: UnaryOp, of: Field) -> Field {
    let folded = match &of {
        Field::Literal(value) if types::of_literal(value).allows_unary(op) => match op {
            UnaryOp::Minus => literal(negated(value.into())),
            UnaryOp::Not => literal(not(value.into())),
        },
        _ => None,
    };
    folded.unwrap_or_else(|| Field::Unary { op, of: Box::new(of) })
}

/// `x op y`, computed if both are literals that `op` takes and the result can be written.
pub(crate) fn binary(op: FieldOp, left: Field, right: Field) -> Field {
    let folded = match (&left, &right) {
        (Field::Literal(a), Field::Literal(b)) if types::check_binary(op, types::of_literal(a), types::of_literal(b)).is_none() => {
            evaluate(op, a, b)
        }
        _ => None,
    };
    folded.unwrap_or_else(|| Field::Binary { op, left: Box::new(left), right: Box::new(right) })
}

/// `x = nil` or `x != nil`. A literal always exists.
pub(crate) fn nil_test(op: FieldOp, of: Field) -> Field {
    let exists = op == FieldOp::Compare(CompareOp::NotEqual);
    match of {
        Field::Literal(_) => Field::Literal(Value::Bool(exists)),
        of if exists => Field::Exists(Box::new(of)),
        of => Field::NotExists(Box::new(of)),
    }
}

fn evaluate(op: FieldOp, a: &Value, b: &Value) -> Option<Field> {
    let (left, right) = (Val::from(a), Val::from(b));
    literal(match (op, left, right) {
        (FieldOp::Arithmetic(op), ..) => op.apply(left, right),
        (FieldOp::Compare(op), ..) => Val::Bool(compare(op, left, right)),
        (FieldOp::And, Val::Bool(a), Val::Bool(b)) => Val::Bool(a && b),
        (FieldOp::Or, Val::Bool(a), Val::Bool(b)) => Val::Bool(a || b),
        (FieldOp::Regex, Val::Str(text), Val::Str(pattern)) => Val::Bool(pattern::compiled(pattern).ok()?.is_match(text)),
        (FieldOp::NotRegex, Val::Str(text), Val::Str(pattern)) => Val::Bool(!pattern::compiled(pattern).ok()?.is_match(text)),
        _ => return None,
    })
}

/// The value as a literal, unless it has no text: nil, infinities and what is no number.
fn literal(value: Val<'_>) -> Option<Field> {
    match value {
        Val::Nil => None,
        Val::Float(v) if !v.is_finite() => None,
        value => Some(Field::Literal(value.to_value())),
    }
}
