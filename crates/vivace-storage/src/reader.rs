//! A block's data for code that may block, as decoding does: reads of a remote object wait on the runtime. The end of the file,
//! with its footer, is read once and kept in a cache.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use tokio::runtime::Handle;
use vivace_block::ReadAt;

use crate::cache::{Cache, CacheKey};
use crate::metrics::READ_BYTES;

/// `data.parquet` of one block. Blocks the calling thread, so it is for `spawn_blocking`.
pub(crate) struct DataFile {
    pub(crate) source: Source,
    pub(crate) len: u64,
    /// Bytes from the start of the footer to the end of the file; 0 when the meta does not know.
    pub(crate) tail_len: u64,
    pub(crate) tails: Arc<Cache>,
    pub(crate) cache_key: CacheKey,
}

pub(crate) enum Source {
    Object { store: Arc<dyn ObjectStore>, location: Path, runtime: Handle },
    File { path: PathBuf, file: OnceLock<File> },
}

impl Source {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        match self {
            Self::Object { store, location, runtime } => {
                let bytes = runtime.block_on(store.get_range(location, range.clone())).map_err(|e| unread(location, &e))?;
                if bytes.len() as u64 != range.end - range.start {
                    return Err(short(location, &range, bytes.len()));
                }
                metrics::counter!(READ_BYTES.name).increment(bytes.len() as u64);
                Ok(bytes)
            }
            Self::File { path, file } => {
                let named = |e: io::Error| io::Error::new(e.kind(), format!("could not read bytes {range:?} of {}: {e}", path.display()));
                let file = match file.get() {
                    Some(file) => file,
                    None => {
                        let opened = File::open(path).map_err(named)?;
                        file.get_or_init(|| opened)
                    }
                };
                let len = usize::try_from(range.end - range.start).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, range.start).map_err(named)?;
                metrics::counter!(READ_BYTES.name).increment(len as u64);
                Ok(buffer.into())
            }
        }
    }
}

fn unread(location: &Path, error: &object_store::Error) -> io::Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("could not read {location}: {error}"))
}

fn short(location: &Path, range: &Range<u64>, got: usize) -> io::Error {
    let problem = format!("{location} ends within bytes {range:?}: {got} of {} came", range.end - range.start);
    io::Error::new(io::ErrorKind::UnexpectedEof, problem)
}

impl ReadAt for DataFile {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.len {
            let problem = format!("bytes {range:?} of a file of {} bytes", self.len);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let tail_start = self.len - self.tail_len;
        if self.tail_len == 0 || range.start < tail_start {
            return self.source.read(range);
        }
        let tail = match self.tails.get(&self.cache_key) {
            Some(tail) => tail,
            None => {
                let tail = self.source.read(tail_start..self.len)?;
                self.tails.put(self.cache_key.clone(), tail.clone());
                tail
            }
        };
        // A cached tail has the length that the key's meta gave it, and metas never change.
        let at = |position: u64| usize::try_from(position - tail_start).unwrap_or(usize::MAX).min(tail.len());
        Ok(tail.slice(at(range.start)..at(range.end)))
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        match &self.source {
            // In parallel, ranges with small gaps in one request.
            Source::Object { store, location, runtime } if ranges.iter().all(|r| r.start < r.end && r.end <= self.len) => {
                let got = runtime.block_on(store.get_ranges(location, ranges)).map_err(|e| unread(location, &e))?;
                if let Some((range, bytes)) = ranges.iter().zip(&got).find(|(range, bytes)| range.end - range.start != bytes.len() as u64) {
                    return Err(short(location, range, bytes.len()));
                }
                metrics::counter!(READ_BYTES.name).increment(got.iter().map(|b| b.len() as u64).sum());
                Ok(got)
            }
            _ => ranges.iter().map(|range| self.read(range.clone())).collect(),
        }
    }
}
