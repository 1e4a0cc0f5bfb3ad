//! TraceQL: text to AST to plan, evaluation over spansets, combining results.
//!
//! The crate declares what must be fetched ([`Fetch`]) and evaluates what it is given ([`Batch`]); how data is stored is
//! not its business. Live data and blocks fill the same [`Batch`], so an answer never depends on where data lives.

mod attribute;
mod batch;
mod compare;
mod duration;
mod error;
mod fetch;
mod lexer;
mod parser;
mod pattern;
mod value;

pub use attribute::{Attribute, Intrinsic, Scope};
pub use batch::{Batch, ChildRows, ServiceStat, SpanRow, TraceRow};
pub use compare::CompareOp;
pub use error::{ParseError, QueryError};
pub use fetch::{Comparison, Condition, Fetch, SpanFilter, TraceFilter};
pub use parser::parse_attribute;
pub use pattern::compile as compile_pattern;
pub use value::{Kind, Status, Value};
