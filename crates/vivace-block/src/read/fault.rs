//! Why a block cannot be read: inside as a [`Fault`], which knows no place, outside as a [`ReadError`], which names it.

use std::borrow::Cow;
use std::ops::Range;

use vivace_core::BlockId;

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Another format than vParquet4 and vParquet5.
    #[error("block {block} has format {format:?}; vParquet4 and vParquet5 can be read{}", advice(format))]
    Format {
        /// Which block.
        block: BlockId,
        /// As `meta.json` says.
        format: String,
    },
    /// Bytes that are not what the format says.
    #[error("block {block}, data.parquet, {place}: {what}")]
    Corrupt {
        /// Which block.
        block: BlockId,
        /// Footer or column, with its position.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Legal, but nothing that is known to write blocks writes it.
    #[error("block {block}, data.parquet, {place}: {what} is not supported")]
    Unsupported {
        /// Which block.
        block: BlockId,
        /// Footer or column, with its position.
        place: String,
        /// The codec, encoding or type.
        what: String,
    },
    /// The bytes could not be had.
    #[error("block {block}, data.parquet, bytes {start}..{end}")]
    Io {
        /// Which block.
        block: BlockId,
        /// First byte that was asked for.
        start: u64,
        /// End of what was asked for.
        end: u64,
        /// What the store said.
        source: std::io::Error,
    },
}

/// What to do about a format that cannot be read.
fn advice(format: &str) -> &'static str {
    match format {
        "vParquet3" => ". Let Tempo 2.x serve it until its retention ends",
        _ => ". A newer release may know it",
    }
}

impl ReadError {
    pub(crate) fn io(block: BlockId, range: &Range<u64>, source: std::io::Error) -> Self {
        Self::Io { block, start: range.start, end: range.end, source }
    }
}

/// What a decoder found, before anybody has said where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Corrupt(Cow<'static, str>),
    Unsupported(String),
}

impl Fault {
    pub(crate) fn corrupt(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt(what.into())
    }

    pub(crate) fn at(self, block: BlockId, place: impl Into<String>) -> ReadError {
        let place = place.into();
        match self {
            Self::Corrupt(what) => ReadError::Corrupt { block, place, what: what.into_owned() },
            Self::Unsupported(what) => ReadError::Unsupported { block, place, what },
        }
    }
}
