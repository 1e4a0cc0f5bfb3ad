//! Where our bytes meet the `parquet` crate, which copies whole columns for the writer and judges what we read and write.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::ReadAt;

/// A block's `data.parquet` for the Parquet library, which serves as a second reader beside [`crate::BlockReader`].
///
/// The library trusts what it reads more than that one does: give it bytes only that have been looked at before, or in a
/// process that may end.
#[derive(Clone)]
pub struct ParquetSource(pub Arc<dyn ReadAt>);

impl std::fmt::Debug for ParquetSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetSource").field("len", &self.0.len()).finish()
    }
}

impl ParquetSource {
    fn read(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        self.0.read(range).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

impl Length for ParquetSource {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for ParquetSource {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(Box::new(Tail { source: Arc::clone(&self.0), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.read(start..start.saturating_add(length as u64))
    }
}

/// Reads on from a place.
struct Tail {
    source: Arc<dyn ReadAt>,
    at: u64,
}

impl Read for Tail {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let end = self.source.len().min(self.at + out.len() as u64);
        let mut bytes = self.source.read(self.at..end)?;
        let len = bytes.len();
        bytes.copy_to_slice(&mut out[..len]);
        self.at = end;
        Ok(len)
    }
}
