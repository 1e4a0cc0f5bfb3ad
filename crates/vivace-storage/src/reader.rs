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
                let wanted = range.end - range.start;
                let bytes = runtime.block_on(store.get_range(location, range.clone())).map_err(|source| {
                    let kind = match source {
                        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
                        _ => io::ErrorKind::Other,
                    };
                    io::Error::new(kind, format!("could not read bytes {range:?} of {location}: {source}"))
                })?;
                if bytes.len() as u64 != wanted {
                    let problem = format!("{location} ends within bytes {range:?}: {} of {wanted} came", bytes.len());
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
                }
                metrics::counter!("vivace_storage_read_bytes_total").increment(wanted);
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
                metrics::counter!("vivace_storage_read_bytes_total").increment(len as u64);
                Ok(buffer.into())
            }
        }
    }
}

impl ReadAt for DataFile {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.len {
            let problem = format!("bytes {range:?} of a file of {} bytes", self.len);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
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
}
