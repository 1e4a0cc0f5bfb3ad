//! One block: its columns in Parquet, bloom filters, `meta.json`; and live spans answered as a block would.
//!
//! The crate opens no bucket and lists none: it is handed bytes and hands out bytes.
//! Start with [`BlockWriter`], [`BlockReader`], [`BlockMeta`] and [`schema`].

pub mod analyse;
pub mod bloom;
pub mod dedicated;
mod frames;
pub mod index;
mod joined;
pub mod live;
mod merge;
mod meta;
pub mod nested_set;
pub mod objects;
mod parquet_source;
mod read;
mod row;
pub mod schema;
mod span_messages;
#[cfg(test)]
mod testdata;
pub mod verify;
mod write;

pub use dedicated::{DedicatedColumn, DedicatedOption, DedicatedScope, DedicatedType};
pub use joined::JoinedFetch;
pub use merge::{MergeError, MergedBlock, merge};
pub use meta::{BlockMeta, CorruptMeta, Format, parse_rfc3339, rfc3339};
pub use parquet_source::ParquetSource;
pub use read::{BlockReader, DictionaryUse, Parts, ReadAt, ReadError, ScanStats, TRACE_SPREAD_NANOS, TracePart, Traces, part_filter};
pub use row::SpanRef;
pub use span_messages::SpanMessages;
pub use write::{BlockOptions, BlockWriter, FinishedBlock, WriteError};
