//! A value of an attribute or intrinsic, and how two of them compare.

use std::fmt;
use std::sync::Arc;

use vivace_proto::otlp::{AnyValue, ArrayValue, any_value};

use crate::duration;

/// A span's status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// OTLP 0
    Unset,
    /// OTLP 1
    Ok,
    /// OTLP 2
    Error,
}

/// A span's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// OTLP 0 and unknown numbers
    Unspecified,
    /// OTLP 1
    Internal,
    /// OTLP 2
    Server,
    /// OTLP 3
    Client,
    /// OTLP 4
    Producer,
    /// OTLP 5
    Consumer,
}

/// A value of the language.
///
/// Source: docs/facts/traceql.md, "Values".
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The attribute is absent.
    Nil,
    /// The key exists with a value that queries cannot see: bytes, kvlist, mixed or empty arrays.
    Opaque,
    /// A signed number.
    Int(i64),
    /// A double.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Text.
    Str(Arc<str>),
    /// Nanoseconds.
    Duration(i64),
    /// A status code.
    Status(Status),
    /// A span kind.
    Kind(Kind),
    /// Two or more numbers.
    IntArray(Arc<[i64]>),
    /// Two or more doubles.
    FloatArray(Arc<[f64]>),
    /// Two or more texts.
    StrArray(Arc<[Arc<str>]>),
    /// Two or more booleans.
    BoolArray(Arc<[bool]>),
}

impl Status {
    /// The word of the language.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }

    /// From the word of the language.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Unset, Self::Ok, Self::Error].into_iter().find(|status| status.text() == text)
    }

    /// From OTLP's number; unknown numbers are unset.
    #[must_use]
    pub fn from_otlp(code: i64) -> Self {
        match code {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }
}

impl Status {
    /// OTLP's number.
    #[must_use]
    pub fn to_otlp(self) -> u32 {
        match self {
            Self::Unset => 0,
            Self::Ok => 1,
            Self::Error => 2,
        }
    }
}

impl Kind {
    /// OTLP's number.
    #[must_use]
    pub fn to_otlp(self) -> u32 {
        match self {
            Self::Unspecified => 0,
            Self::Internal => 1,
            Self::Server => 2,
            Self::Client => 3,
            Self::Producer => 4,
            Self::Consumer => 5,
        }
    }
}

impl Kind {
    /// The word of the language.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// From the word of the language.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Unspecified, Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer]
            .into_iter()
            .find(|kind| kind.text() == text)
    }

    /// From OTLP's number; unknown numbers are unspecified.
    #[must_use]
    pub fn from_otlp(kind: i64) -> Self {
        match kind {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

/// Makes the value of an OTLP array whose elements all have one type.
macro_rules! array_of {
    ($($name:ident $element:ty, $scalar:ident, $array:ident;)*) => {$(
        /// The value of an array: opaque when empty, the scalar when it has one element.
        #[must_use]
        pub fn $name(elements: impl IntoIterator<Item = $element>) -> Self {
            let elements: Arc<[$element]> = elements.into_iter().collect();
            match &*elements {
                [] => Self::Opaque,
                [one] => Self::$scalar(one.clone()),
                _ => Self::$array(elements),
            }
        }
    )*};
}

impl Value {
    array_of! {
        int_array i64, Int, IntArray;
        float_array f64, Float, FloatArray;
        str_array Arc<str>, Str, StrArray;
        bool_array bool, Bool, BoolArray;
    }

    /// As query results carry it: durations in Go's notation, status and kind as their word. Nil and opaque have none.
    #[must_use]
    pub fn to_otlp(&self) -> Option<AnyValue> {
        use any_value::Value as Otlp;
        fn array(items: impl Iterator<Item = Otlp>) -> Otlp {
            Otlp::ArrayValue(ArrayValue { values: items.map(|value| AnyValue { value: Some(value) }).collect() })
        }
        let value = match self {
            Self::Nil | Self::Opaque => return None,
            Self::Int(v) => Otlp::IntValue(*v),
            Self::Float(v) => Otlp::DoubleValue(*v),
            Self::Bool(v) => Otlp::BoolValue(*v),
            Self::Str(v) => Otlp::StringValue(v.to_string()),
            Self::Duration(v) => Otlp::StringValue(duration::text(*v)),
            Self::Status(v) => Otlp::StringValue(v.text().to_owned()),
            Self::Kind(v) => Otlp::StringValue(v.text().to_owned()),
            Self::IntArray(v) => array(v.iter().map(|v| Otlp::IntValue(*v))),
            Self::FloatArray(v) => array(v.iter().map(|v| Otlp::DoubleValue(*v))),
            Self::StrArray(v) => array(v.iter().map(|v| Otlp::StringValue(v.to_string()))),
            Self::BoolArray(v) => array(v.iter().map(|v| Otlp::BoolValue(*v))),
        };
        Some(AnyValue { value: Some(value) })
    }
}

impl fmt::Display for Value {
    /// The literal as it stands in a query's canonical text. Arrays, which have no literal, are listed in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil | Self::Opaque => f.write_str("nil"),
            Self::Int(i64::MIN) => f.write_str("minInt"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v:?}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Str(v) if !v.contains(['`', '\r']) => write!(f, "`{v}`"),
            Self::Str(v) => {
                f.write_str("\"")?;
                for c in v.chars() {
                    match c {
                        '"' => f.write_str("\\\"")?,
                        '\\' => f.write_str("\\\\")?,
                        '\n' => f.write_str("\\n")?,
                        '\r' => f.write_str("\\r")?,
                        c => write!(f, "{c}")?,
                    }
                }
                f.write_str("\"")
            }
            Self::Duration(v) => f.write_str(&duration::text(*v)),
            Self::Status(v) => f.write_str(v.text()),
            Self::Kind(v) => f.write_str(v.text()),
            Self::IntArray(v) => write!(f, "{v:?}"),
            Self::FloatArray(v) => write!(f, "{v:?}"),
            Self::StrArray(v) => write!(f, "{v:?}"),
            Self::BoolArray(v) => write!(f, "{v:?}"),
        }
    }
}

/// Compares values as their texts with the type in front, so that `10` comes before `9`: the order of series. Only values
/// of the same type and the same bits are equal.
pub(crate) fn cmp_text(a: &Value, b: &Value) -> std::cmp::Ordering {
    type Text<'a> = (&'static str, std::borrow::Cow<'a, str>, (u8, u64));
    fn text(value: &Value) -> Text<'_> {
        let bits = exact(value);
        match value {
            Value::Str(text) => ("string_value", (&**text).into(), bits),
            Value::Int(v) => ("int_value", v.to_string().into(), bits),
            Value::Float(v) => ("double_value", v.to_string().into(), bits),
            Value::Bool(v) => ("bool_value", v.to_string().into(), bits),
            Value::Status(v) => ("string_value", v.text().into(), bits),
            Value::Kind(v) => ("string_value", v.text().into(), bits),
            Value::Duration(v) => ("string_value", duration::text(*v).into(), bits),
            Value::Nil | Value::Opaque => ("", "".into(), bits),
            array => ("array_value", array.to_string().into(), bits),
        }
    }
    text(a).cmp(&text(b))
}

/// The type's place among all types, and the bits of a number.
pub(crate) fn exact(value: &Value) -> (u8, u64) {
    match value {
        Value::Int(v) => (1, v.cast_unsigned()),
        Value::Float(v) => (2, v.to_bits()),
        Value::Str(_) => (3, 0),
        Value::Bool(v) => (4, u64::from(*v)),
        Value::Duration(v) => (5, v.cast_unsigned()),
        Value::Status(v) => (6, *v as u64),
        Value::Kind(v) => (7, *v as u64),
        _ => (0, 0),
    }
}
