//! Static types: which operands an operator takes.
//!
//! Source: docs/facts/traceql.md, "Static rules".

use crate::ast::{FieldOp, UnaryOp};
use crate::compare::CompareOp;
use crate::{Attribute, Value};

/// What is known about an expression's value before any data is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Unknown,
    Int,
    Float,
    Duration,
    String,
    Bool,
    Status,
    Kind,
}

/// Why an operator does not take its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// They have nothing in common.
    Types,
    /// One of them does not know the operator.
    Operator,
}

impl Type {
    pub(crate) fn is_numeric(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration)
    }

    fn allows(self, op: FieldOp) -> bool {
        use CompareOp::{Equal, NotEqual};
        match self {
            Self::Unknown => true,
            Self::Bool => matches!(op, FieldOp::And | FieldOp::Or | FieldOp::Compare(Equal | NotEqual)),
            Self::Int | Self::Float | Self::Duration => matches!(op, FieldOp::Arithmetic(_) | FieldOp::Compare(_)),
            Self::String => matches!(op, FieldOp::Compare(_) | FieldOp::Regex | FieldOp::NotRegex),
            Self::Status | Self::Kind => matches!(op, FieldOp::Compare(Equal | NotEqual)),
        }
    }

    pub(crate) fn allows_unary(self, op: UnaryOp) -> bool {
        self == Self::Unknown
            || match op {
                UnaryOp::Minus => self.is_numeric(),
                UnaryOp::Not => self == Self::Bool,
            }
    }
}

pub(crate) fn of_literal(value: &Value) -> Type {
    match value {
        Value::Int(_) => Type::Int,
        Value::Float(_) => Type::Float,
        Value::Bool(_) => Type::Bool,
        Value::Str(_) => Type::String,
        Value::Duration(_) => Type::Duration,
        Value::Status(_) => Type::Status,
        Value::Kind(_) => Type::Kind,
        _ => Type::Unknown,
    }
}

pub(crate) fn of_attribute(attribute: &Attribute) -> Type {
    match attribute {
        Attribute::Intrinsic(intrinsic) => intrinsic.value_type(),
        Attribute::Named { .. } => Type::Unknown,
    }
}

/// Why `left op right` is refused, if it is.
pub(crate) fn check_binary(op: FieldOp, left: Type, right: Type) -> Option<Misfit> {
    let fit = left == right || left == Type::Unknown || right == Type::Unknown || (left.is_numeric() && right.is_numeric());
    if !fit {
        Some(Misfit::Types)
    } else if !(left.allows(op) && right.allows(op)) {
        Some(Misfit::Operator)
    } else {
        None
    }
}

/// The type of `left op right`.
pub(crate) fn of_binary(op: FieldOp, left: Type, right: Type) -> Type {
    match op {
        FieldOp::Arithmetic(_) if left == Type::Unknown => right,
        FieldOp::Arithmetic(_) => left,
        _ => Type::Bool,
    }
}
