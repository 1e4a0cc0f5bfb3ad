//! Reading a block: by trace id, by query, by tag, and as a whole.
//!
//! The footer and page locations come first; then only the pages that can matter are read, their levels and dictionary
//! codes decoded into plain vectors, conditions decided once per dictionary entry, and texts made where they are handed out.
//!
//! The `parquet` crate reads Parquet too, and three things keep it from serving here. It trusts counts and depths that a file
//! claims, and blocks come from others. It hands out values, where most conditions are better decided on codes of dictionaries.
//! And it knows no dictionaries in frames ([`crate::frames`]), of which a few rows need a part. It is the second reader instead:
//! tests and [`crate::verify`] have both read the same file.
//!
//! From below: `thrift`, `format`, `encoding`, `page` and `column` know Parquet. `footer`, `layout` and `file` know one file;
//! `group` has its row groups, decoded column by column, `shape` and `lists` which element is in which. Above are the questions,
//! each in a file of its own; `reader` is their door.

mod assemble;
mod attrs;
mod bits;
mod by_id;
mod column;
mod condition;
mod encoding;
mod every;
mod fault;
mod file;
mod footer;
mod format;
mod gather;
mod group;
mod ids;
mod layout;
mod lists;
mod order;
mod page;
mod pages;
mod part_filter;
mod partial;
mod prefetch;
mod reader;
mod search;
mod series;
mod shape;
mod source;
mod tags;
mod thrift;
mod traces;

pub(crate) use column::{Column, Values};
pub use fault::ReadError;
pub(crate) use footer::Physical;
pub(crate) use ids::GroupIds;
pub use pages::DictionaryUse;
pub(crate) use part_filter::part_branch;
pub use part_filter::part_filter;
pub use partial::{Parts, TRACE_SPREAD_NANOS, TracePart};
pub use reader::BlockReader;
pub use search::ScanStats;
pub use source::ReadAt;
pub use traces::Traces;
