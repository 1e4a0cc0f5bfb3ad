//! Arithmetic on values.
//!
//! Source: docs/facts/traceql.md, "Arithmetic", "Evaluation errors".

use crate::ast::Arithmetic;
use crate::compare::Val;

impl Arithmetic {
    /// Two ints give an int, other numbers a float, durations counting nanoseconds. What fails is nil, as is what has a nil operand.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub(crate) fn apply(self, a: Val<'_>, b: Val<'_>) -> Val<'static> {
        if let (Val::Int(a), Val::Int(b)) = (a, b) {
            return match self {
                Self::Add => Val::Int(a.wrapping_add(b)),
                Self::Subtract => Val::Int(a.wrapping_sub(b)),
                Self::Multiply => Val::Int(a.wrapping_mul(b)),
                Self::Divide | Self::Modulo if b == 0 => Val::Nil,
                Self::Divide => Val::Int(a.wrapping_div(b)),
                Self::Modulo => Val::Int(a.wrapping_rem(b)),
                Self::Power => Val::Int((a as f64).powf(b as f64) as i64),
            };
        }
        let (Some(a), Some(b)) = (a.number(), b.number()) else { return Val::Nil };
        Val::Float(match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Modulo => a % b,
            Self::Power => a.powf(b),
        })
    }

    /// As it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
        }
    }
}

/// `-x`: keeps the type of a number; nil of anything else.
pub(crate) fn negated(value: Val<'_>) -> Val<'static> {
    match value {
        Val::Int(v) => Val::Int(v.wrapping_neg()),
        Val::Float(v) => Val::Float(-v),
        Val::Duration(v) => Val::Duration(v.wrapping_neg()),
        _ => Val::Nil,
    }
}

/// `!x`: nil of anything that is no boolean. What is missing is not false, and so its opposite is not true.
pub(crate) fn not(value: Val<'_>) -> Val<'static> {
    match value {
        Val::Bool(v) => Val::Bool(!v),
        _ => Val::Nil,
    }
}
