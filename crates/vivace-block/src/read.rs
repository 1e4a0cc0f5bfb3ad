//! Reading a block: by trace id, by query, by tag, and as a whole.
//!
//! The footer and page locations come first; then only the pages that can matter are read, their levels and dictionary
//! codes decoded into plain vectors, conditions decided once per dictionary entry, and texts made where they are handed out.

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
