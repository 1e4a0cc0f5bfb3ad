//! The parsed query.
//!
//! Source: docs/facts/traceql.md, "Grammar".

use crate::compare::CompareOp;
use crate::{Attribute, Value};

/// A query: what to evaluate and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What to evaluate.
    pub root: Root,
    /// `with(name=value, …)`; of several groups the last.
    pub hints: Vec<(String, Value)>,
}

/// The two kinds of query.
#[derive(Debug, Clone, PartialEq)]
pub enum Root {
    /// Finds spans.
    Pipeline(Pipeline),
    /// Makes series of them.
    Metrics(Metrics),
}

/// Stages joined by `|`; each maps spansets to spansets.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// At least one.
    pub stages: Vec<Stage>,
}

/// One stage of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// `{ … }` and their combinations.
    Spansets(Spansets),
    /// `by(expression)`
    Group(Field),
    /// `coalesce()`
    Coalesce,
    /// `select(attribute, …)`
    Select(Vec<Attribute>),
    /// `aggregate op constant`
    ScalarFilter(ScalarFilter),
}

/// An expression whose value is a set of spans.
#[derive(Debug, Clone, PartialEq)]
pub enum Spansets {
    /// `{ expression }`
    Filter(Field),
    /// `left op right`
    Binary {
        /// How they are combined.
        op: SpansetOp,
        /// Left side.
        left: Box<Spansets>,
        /// Right side; structural operators return its spans.
        right: Box<Spansets>,
    },
    /// `( pipeline )`
    Pipeline(Pipeline),
}

/// Operators between sets of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpansetOp {
    /// `&&`
    And,
    /// `||`
    Or,
    /// `>` and its kin
    Structural {
        /// How a span of the right side relates to one of the left.
        relation: Relation,
        /// Which spans that gives.
        mode: Mode,
    },
}

/// What a span of the right side is to one of the left side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `>`
    Child,
    /// `<`
    Parent,
    /// `>>`
    Descendant,
    /// `<<`
    Ancestor,
    /// `~`
    Sibling,
}

/// Which spans a structural operator gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those of the right side that are related.
    Plain,
    /// `!`: those of the right side that are not.
    Negated,
    /// `&`: the related ones of both sides.
    Union,
}

/// An expression on one span.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// A constant.
    Literal(Value),
    /// An attribute or intrinsic.
    Attribute(Attribute),
    /// `-x`, `!x`
    Unary {
        /// The operator.
        op: UnaryOp,
        /// Its operand.
        of: Box<Field>,
    },
    /// `x op y`
    Binary {
        /// The operator.
        op: FieldOp,
        /// Left operand.
        left: Box<Field>,
        /// Right operand.
        right: Box<Field>,
    },
    /// `x != nil`
    Exists(Box<Field>),
    /// `x = nil`
    NotExists(Box<Field>),
}

/// Operators with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-`
    Minus,
    /// `!`
    Not,
}

/// Operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOp {
    /// `&&`
    And,
    /// `||`
    Or,
    /// `=` and its kin
    Compare(CompareOp),
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
    /// `+` and its kin
    Arithmetic(Arithmetic),
}

/// Arithmetic operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `^`
    Power,
}

/// `left op right` on a spanset.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalarFilter {
    /// Left side; only an aggregate evaluates.
    pub left: Scalar,
    /// The comparison.
    pub op: CompareOp,
    /// Right side; only a constant evaluates.
    pub right: Scalar,
}

/// A number about a spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A constant.
    Constant(Value),
    /// A number computed from the spans.
    Aggregate(Aggregate),
    /// Arithmetic between them.
    Binary {
        /// The operator.
        op: Arithmetic,
        /// Left operand.
        left: Box<Scalar>,
        /// Right operand.
        right: Box<Scalar>,
    },
}

/// Aggregates over the spans of a spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregate {
    /// `count()`
    Count,
    /// `min(x)`
    Min(Field),
    /// `max(x)`
    Max(Field),
    /// `avg(x)`
    Avg(Field),
    /// `sum(x)`
    Sum(Field),
}

impl Aggregate {
    /// What is aggregated; nothing where spans are counted.
    #[must_use]
    pub fn operand(&self) -> Option<&Field> {
        match self {
            Self::Count => None,
            Self::Min(of) | Self::Max(of) | Self::Avg(of) | Self::Sum(of) => Some(of),
        }
    }
}

/// An expression whose value is a set of series.
#[derive(Debug, Clone, PartialEq)]
pub enum Metrics {
    /// `pipeline | first stage`
    First {
        /// Gives the spans.
        pipeline: Pipeline,
        /// Counts them.
        stage: FirstStage,
    },
    /// `metrics | topk(n)`, `metrics > x`
    Later {
        /// What it is applied to.
        of: Box<Metrics>,
        /// What is done.
        stage: LaterStage,
    },
    /// `left op right`
    Binary {
        /// One of `+ - * /`.
        op: Arithmetic,
        /// Left operand.
        left: Box<Metrics>,
        /// Right operand.
        right: Box<Metrics>,
    },
    /// A number beside metrics.
    Constant(Value),
}

/// What turns spans into series.
#[derive(Debug, Clone, PartialEq)]
pub enum FirstStage {
    /// All but `compare`.
    Over {
        /// The function.
        function: OverTime,
        /// `by(…)`
        by: Vec<Attribute>,
    },
    /// `compare({ … }, n, start, end)`
    Compare {
        /// Chooses the selection.
        filter: Field,
        /// Values per attribute.
        top: Option<i64>,
        /// Start and end of the selection, Unix nanoseconds.
        range: Option<(i64, i64)>,
    },
}

/// Functions over time.
#[derive(Debug, Clone, PartialEq)]
pub enum OverTime {
    /// `rate()`
    Rate,
    /// `count_over_time()`
    Count,
    /// `min_over_time(x)`
    Min(Attribute),
    /// `max_over_time(x)`
    Max(Attribute),
    /// `sum_over_time(x)`
    Sum(Attribute),
    /// `avg_over_time(x)`
    Avg(Attribute),
    /// `histogram_over_time(x)`
    Histogram(Attribute),
    /// `quantile_over_time(x, q, …)`
    Quantile(Attribute, Vec<f64>),
}

/// What is done with series.
#[derive(Debug, Clone, PartialEq)]
pub enum LaterStage {
    /// `topk(n)`
    Top(i64),
    /// `bottomk(n)`
    Bottom(i64),
    /// `op number`
    Compare(CompareOp, Value),
}
