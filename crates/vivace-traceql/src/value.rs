use std::sync::Arc;

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
/// Source: TraceQL description, "Values".
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

impl Kind {
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
