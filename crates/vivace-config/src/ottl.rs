//! Conditions on spans and their events in the OpenTelemetry Transformation Language, as `distributor.forwarders[].filter` has them:
//! comparisons, `and`, `or`, `not`, and functions that are true or not. What is none of that is an error with its place.

mod parse;

use regex::Regex;

/// What a condition is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A span.
    Span,
    /// An event of a span.
    Event,
}

/// Something that is true of a span, or not.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Any of these is.
    Or(Vec<Condition>),
    /// All of these are.
    And(Vec<Condition>),
    /// This is not.
    Not(Box<Condition>),
    /// Two values compare so.
    Compare(Operand, Comparison, Operand),
    /// A value is `true`.
    True(Operand),
    /// A text has a match: `IsMatch`. Numbers and booleans are texts here.
    Match(Operand, Regex),
    /// A text begins with another: `HasPrefix`.
    Prefix(Operand, Operand),
    /// A text ends with another: `HasSuffix`.
    Suffix(Operand, Operand),
    /// A value is a text: `IsString`.
    IsText(Operand),
    /// A span has no parent: `IsRootSpan`.
    IsRoot,
}

/// How two values compare. Those of different kinds are not equal, and none of them is less; numbers are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A value that stands in a condition, or the place where it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// No value.
    Nil,
    /// A boolean.
    Bool(bool),
    /// A whole number; names of kinds and status codes are such.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// Something of the span, the event, or what they belong to.
    Field(Of, Field),
}

/// Whose field it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The span.
    Span,
    /// The event.
    Event,
    /// The span's instrumentation scope.
    Scope,
    /// The span's resource.
    Resource,
}

/// Which field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `attributes["…"]`; further keys lead into maps.
    Attribute(Vec<String>),
    /// `name` of a span, an event or a scope.
    Name,
    /// `version` of a scope.
    Version,
    /// `kind`, OTLP's number.
    Kind,
    /// `kind.string`: `Server`, `Client` and so on.
    KindText,
    /// `status.code`, OTLP's number.
    StatusCode,
    /// `status.message`.
    StatusMessage,
    /// `trace_id.string`, hexadecimal.
    TraceId,
    /// `span_id.string`, hexadecimal.
    SpanId,
    /// `parent_span_id.string`, hexadecimal; empty for a root.
    ParentSpanId,
    /// `trace_state`.
    TraceState,
    /// `start_time_unix_nano`.
    Start,
    /// `end_time_unix_nano`.
    End,
    /// `time_unix_nano` of an event.
    Time,
}

/// Why a text is no condition.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("at byte {at}: {expected}")]
pub struct OttlError {
    /// Where in the text, bytes.
    pub at: usize,
    /// What was expected, and what stands there.
    pub expected: String,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is not understood: it must not be taken for something else, or more would leave than was meant.
    pub fn parse(text: &str, context: Context) -> Result<Self, OttlError> {
        parse::condition(text, context)
    }
}
