use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashSet;
use vivace_block::{BlockMeta, BlockOptions, BlockWriter, FinishedBlock, WriteError, objects};
use vivace_core::{BlockId, TenantId, TraceId};

use crate::gather::Gathered;
use crate::live::{Head, TraceEntry};
use crate::log::ReadError;
use crate::segment::{Segment, SegmentError};

/// Span bytes that one pass over a head's segments collects: what a build takes of memory, beside the writer's row group.
const PASS_BYTES: u64 = 160 << 20;
/// What the block's file is written through.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// Why no block was built. All of these are worth a retry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("could not write {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not write the block in {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: Box<WriteError>,
    },
    #[error("could not read a segment back from the log")]
    Log(#[source] ReadError),
    #[error("the process is stopping")]
    Stopped,
}

/// What became of a head.
#[derive(Debug)]
pub(crate) struct Built {
    /// None when there was nothing to store.
    pub(crate) block: Option<Block>,
    /// To be removed when the block is stored.
    pub(crate) folder: PathBuf,
    /// What the block could not take in; its records stay in the log.
    pub(crate) unreadable: Vec<Arc<Segment>>,
}

/// A block on the local disk, ready to be stored.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) meta: BlockMeta,
    pub(crate) blooms: Vec<Vec<u8>>,
    pub(crate) index: Vec<u8>,
    /// `data.parquet`
    pub(crate) data: PathBuf,
}

/// What a build needs to know.
pub(crate) struct BuildJob<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) block: BlockId,
    pub(crate) head: &'a Head,
    /// Where the block's folder is made.
    pub(crate) blocks: &'a Path,
    pub(crate) options: BlockOptions,
    /// No span ends after this as far as the block's range is concerned: one wrong clock must not keep a block for ever.
    pub(crate) latest_end_unix_nanos: u64,
    /// Asked between traces.
    pub(crate) is_stopped: &'a dyn Fn() -> bool,
}

/// Writes a head as a block: passes over its segments, each of which takes one range of trace ids. Burns CPU.
///
/// # Errors
/// [`BuildError`]; the folder is removed then.
pub(crate) fn build(job: &BuildJob<'_>) -> Result<Built, BuildError> {
    let folder = job.blocks.join(job.tenant.as_str()).join(job.block.to_string());
    let built = write(job, &folder);
    if built.is_err() {
        // What is left is removed at the next start.
        let _ = fs::remove_dir_all(&folder);
    }
    built
}

fn write(job: &BuildJob<'_>, folder: &Path) -> Result<Built, BuildError> {
    let data = folder.join(objects::DATA);
    let io_error = |source| BuildError::Io { path: data.clone(), source };
    let write_error = |source| BuildError::Write { path: data.clone(), source: Box::new(source) };
    fs::create_dir_all(folder).map_err(io_error)?;
    let file = BufWriter::with_capacity(WRITE_BUFFER_BYTES, File::create(&data).map_err(io_error)?);
    let (mut traces, segments) = job.head.read(|contents| {
        let traces: Vec<(TraceId, TraceEntry)> = contents.index.iter().map(|(id, entry)| (*id, entry.clone())).collect();
        (traces, contents.segments.clone())
    });
    traces.sort_unstable_by_key(|(id, _)| *id);
    let mut writer =
        BlockWriter::new(job.options.clone(), job.tenant.clone(), job.block, file, traces.len() as u64).map_err(write_error)?;
    let mut unreadable: Vec<Arc<Segment>> = Vec::new();
    for range in passes(&traces, PASS_BYTES) {
        let (Some((first, _)), Some((last, _))) = (range.first(), range.last()) else { continue };
        let bytes: u64 = range.iter().map(|(_, entry)| entry.bytes).sum();
        let mut gathered = Gathered::with_capacity(usize::try_from(bytes + bytes / 16).unwrap_or_default());
        for place in places(range) {
            let segment = &segments[place as usize];
            if (job.is_stopped)() {
                return Err(BuildError::Stopped);
            }
            match gathered.take(segment, |trace| (first..=last).contains(&trace)) {
                Ok(()) => {}
                Err(SegmentError::Log(error @ ReadError::Io { .. })) => return Err(BuildError::Log(error)),
                Err(error) if unreadable.iter().any(|s| Arc::ptr_eq(s, segment)) => drop(error),
                Err(error) => {
                    tracing::error!(tenant = %job.tenant, segment = ?segment.header.id, file = segment.at.file.number, offset = segment.at.offset,
                        %error, "segment left out of its block and kept in the log");
                    unreadable.push(Arc::clone(segment));
                }
            }
        }
        gathered.for_each_trace(|id, spans| {
            if (job.is_stopped)() {
                return Err(BuildError::Stopped);
            }
            writer.push_trace(id, spans).map_err(write_error)
        })?;
    }
    let block = match writer.finish() {
        Ok(FinishedBlock { mut meta, blooms, index, .. }) => {
            meta.end_unix_nanos = meta.end_unix_nanos.min(job.latest_end_unix_nanos).max(meta.start_unix_nanos);
            Some(Block { meta, blooms, index, data })
        }
        // All traces were refused, or no span of them is a message; the writer has named those.
        Err(WriteError::Empty { .. }) => None,
        Err(error) => return Err(write_error(error)),
    };
    Ok(Built { block, folder: folder.to_owned(), unreadable })
}

/// Splits traces, ascending by id, into ranges of about as many bytes. Each has at least one trace.
fn passes(traces: &[(TraceId, TraceEntry)], bytes_max: u64) -> impl Iterator<Item = &[(TraceId, TraceEntry)]> {
    let mut rest = traces;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut len = 0;
        for (_, entry) in rest {
            bytes += entry.bytes;
            if len > 0 && bytes > bytes_max {
                break;
            }
            len += 1;
        }
        let (pass, after) = rest.split_at(len);
        rest = after;
        (len > 0).then_some(pass)
    })
}

/// The segments that hold spans of these traces, in the order of their arrival.
fn places(traces: &[(TraceId, TraceEntry)]) -> Vec<u32> {
    let places: FxHashSet<u32> = traces.iter().flat_map(|(_, entry)| entry.segments()).copied().collect();
    let mut places: Vec<u32> = places.into_iter().collect();
    places.sort_unstable();
    places
}
