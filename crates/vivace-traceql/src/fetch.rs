//! What a query needs of the data: which traces may pass, and which attributes of their spans are read. It says what, never how.

use std::sync::Arc;

use vivace_core::TimeRange;

use crate::{Attribute, Pattern, Value};

/// What a query must be given: a filter that skips traces which cannot match, and the attributes it looks at.
///
/// A trace that does not pass `filter` cannot match the query; one that passes may or may not. Storage uses the filter
/// as far as it can decide it cheaply and returns the rest; evaluation is exact and always runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetch {
    /// Traces that do not overlap it are no candidates.
    pub range: TimeRange,
    /// A necessary condition.
    pub filter: TraceFilter,
    /// Attributes and intrinsics of spans, resources, scopes, in the order of [`crate::Batch::columns`].
    pub span_attributes: Vec<Attribute>,
    /// Of events, in the order of the columns of [`crate::Batch::events`].
    pub event_attributes: Vec<Attribute>,
    /// Of links.
    pub link_attributes: Vec<Attribute>,
    /// Parts of the rows that are looked at.
    pub rows: RowParts,
}

/// Which parts of [`crate::TraceRow`] and [`crate::SpanRow`] a query looks at. Storage may leave the others at zero and empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowParts {
    /// The positions of spans in the tree.
    pub positions: bool,
    /// The numbers of children.
    pub child_counts: bool,
    /// Name and service of the root, and the counts of services.
    pub summary: bool,
}

impl RowParts {
    /// Every part.
    pub const ALL: Self = Self { positions: true, child_counts: true, summary: true };
    /// Ids and times alone.
    pub const LEAST: Self = Self { positions: false, child_counts: false, summary: false };

    pub(crate) fn add(&mut self, other: Self) {
        let Self { positions, child_counts, summary } = other;
        self.positions |= positions;
        self.child_counts |= child_counts;
        self.summary |= summary;
    }
}

/// A condition on a trace.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceFilter {
    /// Every trace may match.
    All,
    /// No trace can match.
    Nothing,
    /// Some span passes.
    AnySpan(SpanFilter),
    /// Each of these holds.
    And(Vec<TraceFilter>),
    /// One of these holds.
    Or(Vec<TraceFilter>),
}

/// A condition on a span. Event and link conditions hold when one event or link satisfies them.
#[derive(Debug, Clone, PartialEq)]
pub enum SpanFilter {
    /// Undecided here: passes.
    Maybe,
    /// One comparison.
    Leaf(Condition),
    /// Each of these holds.
    And(Vec<SpanFilter>),
    /// One of these holds.
    Or(Vec<SpanFilter>),
}

/// An attribute compared with a literal, under the rules of typed literals, arrays and nil.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The left side.
    pub attribute: Attribute,
    /// The comparison.
    pub comparison: Comparison,
}

/// The right side and how it is compared. [`Comparison::matches`] decides it for one value.
#[derive(Debug, Clone)]
pub enum Comparison {
    /// `= v`
    Equal(Value),
    /// `!= v`
    NotEqual(Value),
    /// `< v`
    Less(Value),
    /// `<= v`
    LessEqual(Value),
    /// `> v`
    Greater(Value),
    /// `>= v`
    GreaterEqual(Value),
    /// `=~ "…"`, anchored
    Regex(Arc<Pattern>),
    /// `!~ "…"`, anchored
    NotRegex(Arc<Pattern>),
    /// `!= nil`
    Exists,
    /// `= nil`
    NotExists,
}

impl PartialEq for Comparison {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Equal(a), Self::Equal(b))
            | (Self::NotEqual(a), Self::NotEqual(b))
            | (Self::Less(a), Self::Less(b))
            | (Self::LessEqual(a), Self::LessEqual(b))
            | (Self::Greater(a), Self::Greater(b))
            | (Self::GreaterEqual(a), Self::GreaterEqual(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) | (Self::NotRegex(a), Self::NotRegex(b)) => a.as_str() == b.as_str(),
            (Self::Exists, Self::Exists) | (Self::NotExists, Self::NotExists) => true,
            _ => false,
        }
    }
}
