//! TraceQL: text to AST to plan, evaluation over spansets, combining results.
//!
//! The crate declares what must be fetched ([`Fetch`]) and evaluates what it is given ([`Batch`]); how data is stored is
//! not its business. Live data and blocks fill the same [`Batch`], so an answer never depends on where data lives.

mod arithmetic;
pub mod ast;
mod attribute;
mod batch;
mod combine;
mod compare;
mod duration;
mod error;
mod explain;
mod expr;
mod fetch;
mod fold;
mod group;
mod held;
mod legacy;
mod lexer;
mod metrics;
mod need;
mod parser;
mod pattern;
mod pipeline;
mod plan;
mod print;
mod request;
mod structure;
mod tags;
mod types;
mod validate;
mod value;
mod whole;

pub use ast::Query;
pub use attribute::{Attribute, Intrinsic, Scope, intrinsic_tags};
pub use batch::{Batch, ChildRows, ServiceStat, SpanRow, TraceRow};
pub use combine::{ROOT_NOT_YET_RECEIVED, SearchCombiner};
pub use compare::CompareOp;
pub use error::{ParseError, QueryError};
pub use explain::Explanation;
pub use fetch::{Comparison, Condition, Fetch, RowParts, SpanFilter, TraceFilter};
pub use held::TooLarge;
pub use legacy::{LegacySearch, parse_tags};
pub use metrics::{
    Answer, Exemplar, Halted, Label, MAX_EXEMPLARS, MAX_GROUPS, MAX_INTERVALS, MetricsPlan, MetricsRange, Partial, PartialError, Release,
    Sample, Series, SpanAttributes,
};
pub use parser::{MAX_HEIGHT, MAX_NESTING, MAX_QUERY_BYTES, parse, parse_attribute};
pub use pattern::{MAX_PATTERN_BYTES, MAX_PATTERNS_BYTES, Pattern, compile as compile_pattern};
pub use plan::{DEFAULT_SPANS_PER_SPANSET, SearchPlan};
pub use request::{DEFAULT_SEARCH_LIMIT, TagScope, search_limit, tag_limit, tag_names_answer, tag_values_answer};
pub use tags::{MAX_TAG_FILTER_GROUPS, TagFilter, TagValue, fixed_tag_values};
pub use value::{Kind, Status, Value};
