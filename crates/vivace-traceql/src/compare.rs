//! Comparing values: what equals, precedes or matches what.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::{Comparison, Kind, Status, Value};

/// The six comparisons that are no pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
}

impl CompareOp {
    /// The operator of `b op a` that says the same as `a op b`.
    #[must_use]
    pub fn flipped(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
        }
    }

    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    fn holds_for_equality(self, equal: bool) -> bool {
        match self {
            Self::Equal => equal,
            Self::NotEqual => !equal,
            _ => false,
        }
    }
}

/// A value seen in place: evaluation copies no text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Val<'a> {
    Nil,
    Opaque,
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(&'a str),
    /// An id written out.
    Hex(Hex),
    Duration(i64),
    Status(Status),
    Kind(Kind),
    Ints(&'a [i64]),
    Floats(&'a [f64]),
    Strs(&'a [Arc<str>]),
    Bools(&'a [bool]),
}

/// The hex digits of an id, on the stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hex {
    digits: [u8; 32],
    start: u8,
    end: u8,
}

impl Hex {
    /// All digits of an id of at most 16 bytes.
    pub(crate) fn padded(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [b'0'; 32];
        let mut end = 0;
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
            end += 2;
        }
        Self { digits, start: 0, end }
    }

    /// Without leading zeros; the zero id is empty.
    pub(crate) fn trimmed(bytes: &[u8]) -> Self {
        let mut hex = Self::padded(bytes);
        while hex.start < hex.end && hex.digits[usize::from(hex.start)] == b'0' {
            hex.start += 1;
        }
        hex
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[usize::from(self.start)..usize::from(self.end)]).unwrap_or_default()
    }
}

impl<'a> From<&'a Value> for Val<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Opaque => Self::Opaque,
            Value::Int(v) => Self::Int(*v),
            Value::Float(v) => Self::Float(*v),
            Value::Bool(v) => Self::Bool(*v),
            Value::Str(v) => Self::Str(v),
            Value::Duration(v) => Self::Duration(*v),
            Value::Status(v) => Self::Status(*v),
            Value::Kind(v) => Self::Kind(*v),
            Value::IntArray(v) => Self::Ints(v),
            Value::FloatArray(v) => Self::Floats(v),
            Value::StrArray(v) => Self::Strs(v),
            Value::BoolArray(v) => Self::Bools(v),
        }
    }
}

impl Val<'_> {
    /// A value of its own, for results.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Nil => Value::Nil,
            Self::Opaque => Value::Opaque,
            Self::Int(v) => Value::Int(v),
            Self::Float(v) => Value::Float(v),
            Self::Bool(v) => Value::Bool(v),
            Self::Str(v) => Value::Str(v.into()),
            Self::Hex(v) => Value::Str(v.as_str().into()),
            Self::Duration(v) => Value::Duration(v),
            Self::Status(v) => Value::Status(v),
            Self::Kind(v) => Value::Kind(v),
            Self::Ints(v) => Value::IntArray(v.into()),
            Self::Floats(v) => Value::FloatArray(v.into()),
            Self::Strs(v) => Value::StrArray(v.into()),
            Self::Bools(v) => Value::BoolArray(v.into()),
        }
    }

    /// Int, float or duration as a double.
    pub(crate) fn number(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)]
        match self {
            Self::Int(v) | Self::Duration(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            Self::Hex(hex) => Some(hex.as_str()),
            _ => None,
        }
    }
}

/// Compares two scalars across numeric types; what cannot be compared is false, also for `!=`.
fn scalars(op: CompareOp, a: Val<'_>, b: Val<'_>) -> bool {
    match (a, b) {
        (Val::Int(a) | Val::Duration(a), Val::Int(b) | Val::Duration(b)) => op.holds(Some(a.cmp(&b))),
        (Val::Bool(a), Val::Bool(b)) => op.holds_for_equality(a == b),
        (Val::Status(a), Val::Status(b)) => op.holds_for_equality(a == b),
        (Val::Kind(a), Val::Kind(b)) => op.holds_for_equality(a == b),
        _ => {
            if let (Some(a), Some(b)) = (a.number(), b.number()) {
                return op.holds(a.partial_cmp(&b));
            }
            match (a.text(), b.text()) {
                (Some(a), Some(b)) => op.holds(Some(a.cmp(b))),
                _ => false,
            }
        }
    }
}

/// `array op scalar`: some element for all operators but `!=`, which asks that no element is equal.
fn array<'a>(op: CompareOp, elements: impl IntoIterator<Item = Val<'a>>, scalar: Val<'_>) -> bool {
    let mut elements = elements.into_iter();
    match op {
        // An element of another type makes `!=` false, as it does for scalars.
        CompareOp::NotEqual => elements.all(|element| scalars(op, element, scalar)),
        _ => elements.any(|element| scalars(op, element, scalar)),
    }
}

/// Compares any two values, numbers across types, arrays with scalars by their elements.
///
/// Source: docs/facts/traceql.md, "Comparison" and "Boolean operators and arrays".
pub(crate) fn compare(op: CompareOp, a: Val<'_>, b: Val<'_>) -> bool {
    let is_array = |v: &Val<'_>| matches!(v, Val::Ints(_) | Val::Floats(_) | Val::Strs(_) | Val::Bools(_));
    match (is_array(&a), is_array(&b)) {
        (false, false) => scalars(op, a, b),
        (true, true) => false,
        (false, true) => compare(op.flipped(), b, a),
        (true, false) => match a {
            Val::Ints(v) => array(op, v.iter().map(|v| Val::Int(*v)), b),
            Val::Floats(v) => array(op, v.iter().map(|v| Val::Float(*v)), b),
            Val::Strs(v) => array(op, v.iter().map(|v| Val::Str(v)), b),
            Val::Bools(v) => array(op, v.iter().map(|v| Val::Bool(*v)), b),
            _ => false,
        },
    }
}

/// Compares under the rule of typed literals: an attribute's value takes part only if it has the literal's type. A
/// duration, which no attribute can be, is compared with every number.
fn compare_typed(op: CompareOp, value: Val<'_>, literal: &Value) -> bool {
    let fits = matches!(
        (&value, literal),
        (Val::Int(_) | Val::Ints(_), Value::Int(_))
            | (Val::Float(_) | Val::Floats(_), Value::Float(_))
            | (Val::Str(_) | Val::Hex(_) | Val::Strs(_), Value::Str(_))
            | (Val::Bool(_) | Val::Bools(_), Value::Bool(_))
            | (Val::Duration(_), Value::Duration(_) | Value::Int(_) | Value::Float(_))
            | (Val::Status(_), Value::Status(_))
            | (Val::Kind(_), Value::Kind(_))
    );
    fits && compare(op, value, Val::from(literal))
}

impl Comparison {
    /// Whether `value` compared with this right side is true.
    ///
    /// Only values of the literal's type take part, except that durations compare with all numbers. Of an array some
    /// element must satisfy the comparison; for `!=` and `!~` every element. Nil satisfies `NotExists` alone, an
    /// opaque value nothing at all.
    ///
    /// Source: docs/facts/traceql.md, "Comparison", "Nil", "Regular expressions", "Boolean operators and arrays".
    #[must_use]
    pub fn matches(&self, value: &Value) -> bool {
        self.accepts(Val::from(value))
    }

    pub(crate) fn accepts(&self, value: Val<'_>) -> bool {
        match self {
            Self::Equal(literal) => compare_typed(CompareOp::Equal, value, literal),
            Self::NotEqual(literal) => compare_typed(CompareOp::NotEqual, value, literal),
            Self::Less(literal) => compare_typed(CompareOp::Less, value, literal),
            Self::LessEqual(literal) => compare_typed(CompareOp::LessEqual, value, literal),
            Self::Greater(literal) => compare_typed(CompareOp::Greater, value, literal),
            Self::GreaterEqual(literal) => compare_typed(CompareOp::GreaterEqual, value, literal),
            Self::Regex(pattern) => match value {
                Val::Strs(elements) => elements.iter().any(|e| pattern.is_match(e)),
                _ => value.text().is_some_and(|text| pattern.is_match(text)),
            },
            Self::NotRegex(pattern) => match value {
                Val::Strs(elements) => !elements.iter().any(|e| pattern.is_match(e)),
                _ => value.text().is_some_and(|text| !pattern.is_match(text)),
            },
            Self::Exists => !matches!(value, Val::Nil | Val::Opaque),
            Self::NotExists => matches!(value, Val::Nil),
        }
    }

    /// `op literal`
    #[must_use]
    pub fn new(op: CompareOp, literal: Value) -> Self {
        match op {
            CompareOp::Equal => Self::Equal(literal),
            CompareOp::NotEqual => Self::NotEqual(literal),
            CompareOp::Less => Self::Less(literal),
            CompareOp::LessEqual => Self::LessEqual(literal),
            CompareOp::Greater => Self::Greater(literal),
            CompareOp::GreaterEqual => Self::GreaterEqual(literal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern;

    fn strings(items: &[&str]) -> Value {
        Value::StrArray(items.iter().map(|s| Arc::from(*s)).collect())
    }

    fn regex(text: &str) -> Arc<pattern::Pattern> {
        Arc::new(pattern::compile(text).expect("a pattern"))
    }

    #[test]
    fn only_values_of_the_literals_type_take_part() {
        use Comparison::{Equal, Greater, NotEqual};
        assert!(Greater(Value::Int(2)).matches(&Value::Int(3)));
        assert!(!Greater(Value::Int(2)).matches(&Value::Float(3.0)));
        assert!(!NotEqual(Value::Int(2)).matches(&Value::Str("x".into())));
        assert!(!Equal(Value::Duration(5)).matches(&Value::Int(5)));
        assert!(Equal(Value::Int(5)).matches(&Value::Duration(5)));
        assert!(Greater(Value::Float(4.5)).matches(&Value::Duration(5)));
        assert!(!NotEqual(Value::Int(2)).matches(&Value::Nil));
        assert!(NotEqual(Value::Float(2.0)).matches(&Value::Float(f64::NAN)));
        assert!(!Greater(Value::Bool(false)).matches(&Value::Bool(true)));
    }

    #[test]
    fn arrays_are_compared_by_their_elements() {
        let ab = strings(&["a", "b"]);
        assert!(Comparison::Equal(Value::Str("a".into())).matches(&ab));
        assert!(!Comparison::NotEqual(Value::Str("a".into())).matches(&ab));
        assert!(Comparison::NotEqual(Value::Str("z".into())).matches(&ab));
        assert!(Comparison::Regex(regex("b|z")).matches(&ab));
        assert!(!Comparison::NotRegex(regex("b|z")).matches(&ab));
        assert!(!Comparison::NotEqual(Value::Int(1)).matches(&ab));
        assert!(Comparison::Less(Value::Int(2)).matches(&Value::IntArray([1, 9].into())));
    }

    #[test]
    fn nil_and_opaque_are_not_the_same() {
        assert!(Comparison::NotExists.matches(&Value::Nil));
        assert!(!Comparison::NotExists.matches(&Value::Opaque));
        assert!(!Comparison::Exists.matches(&Value::Opaque));
        assert!(Comparison::Exists.matches(&Value::Str("".into())));
        assert!(!Comparison::NotRegex(regex("x")).matches(&Value::Int(1)));
    }

    #[test]
    fn ids_are_written_without_allocation() {
        assert_eq!(Hex::padded(&[0, 0xa1]).as_str(), "00a1");
        assert_eq!(Hex::trimmed(&[0, 0x0a]).as_str(), "a");
        assert_eq!(Hex::trimmed(&[0; 16]).as_str(), "");
    }
}
