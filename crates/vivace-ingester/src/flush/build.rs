//! From a head to the bytes of one block. Segments are read back from the log once for each range of trace ids, so that memory is
//! bounded by a range and not by the block. Where the bytes go, and what happens after a failure, is the business of `flush`.

use std::io::Write;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use vivace_block::{BlockMeta, BlockOptions, BlockWriter, FinishedBlock, WriteError};
use vivace_core::{BlockId, TenantId, TraceId};

use crate::gather::Gathered;
use crate::log::ReadError;
use crate::metrics::CONFLICTING_SPANS;
use crate::segment::{Segment, SegmentError};
use crate::store::{Head, TraceEntry};
use crate::summary::BlockRange;

/// Span bytes that one pass over a head's segments collects: what a build takes of memory, beside the writer's row group.
const PASS_BYTES: u64 = 160 << 20;

/// Why no block was built. All of these are worth a retry.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error("could not write the block")]
    Write(#[source] Box<WriteError>),
    #[error("could not read a segment back from the log")]
    Log(#[source] ReadError),
    #[error("the process is stopping")]
    Stopped,
}

/// What became of a head.
#[derive(Debug)]
pub(super) struct Built<W> {
    /// None when there was nothing to store.
    pub(super) block: Option<Block<W>>,
    /// What the block could not take in; the log's files with their records are set aside.
    pub(super) unreadable: Vec<Arc<Segment>>,
}

/// A block, to be stored.
#[derive(Debug)]
pub(super) struct Block<W> {
    pub(super) meta: BlockMeta,
    pub(super) blooms: Vec<Vec<u8>>,
    pub(super) index: Vec<u8>,
    /// What `data.parquet` was written to.
    pub(super) data: W,
}

/// What a build needs to know.
pub(super) struct BuildJob<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) block: BlockId,
    pub(super) head: &'a Head,
    pub(super) options: BlockOptions,
    pub(super) now_unix_nanos: u64,
    /// `storage.trace.wal.ingestion_time_range_slack`
    pub(super) slack_nanos: u64,
    /// What the disk does not give is left out like damage; it was asked often enough.
    pub(super) leave_out_unread: bool,
    /// Asked between traces.
    pub(super) is_stopped: &'a dyn Fn() -> bool,
}

/// Writes a head as a block: passes over its segments, each of which takes one range of trace ids. Burns CPU.
///
/// # Errors
/// [`BuildError`].
pub(super) fn build<W: Write + Send>(job: &BuildJob<'_>, data: W) -> Result<Built<W>, BuildError> {
    let (mut traces, segments, range) = job.head.read(|contents| {
        let traces: Vec<(TraceId, TraceEntry)> = contents.index.iter().map(|(id, entry)| (*id, entry.clone())).collect();
        (traces, contents.segments.clone(), contents.range)
    });
    traces.sort_unstable_by_key(|(id, _)| *id);
    let mut writer =
        BlockWriter::new(job.options.clone(), job.tenant.clone(), job.block, data, traces.len() as u64).map_err(write_error)?;
    let mut unreadable: Vec<Arc<Segment>> = Vec::new();
    for pass in passes(&traces, PASS_BYTES) {
        gather(job, pass, &segments, &mut unreadable)?.for_each_trace(|id, spans| {
            check_stopped(job)?;
            writer.push_trace(id, spans).map_err(write_error)
        })?;
    }
    let block = match writer.finish() {
        Ok(finished) => Some(block_of(job, range, finished)),
        // All traces were refused, or no span of them is a message; the writer has named those.
        Err(WriteError::Empty { .. }) => None,
        Err(error) => return Err(write_error(error)),
    };
    Ok(Built { block, unreadable })
}

/// The spans of some traces that are neighbours by their ids. What cannot be read is noted and left out.
fn gather(
    job: &BuildJob<'_>,
    traces: &[(TraceId, TraceEntry)],
    segments: &[Arc<Segment>],
    unreadable: &mut Vec<Arc<Segment>>,
) -> Result<Gathered, BuildError> {
    let (Some((first, _)), Some((last, _))) = (traces.first(), traces.last()) else { return Ok(Gathered::default()) };
    let bytes: u64 = traces.iter().map(|(_, entry)| entry.bytes).sum();
    let mut gathered = Gathered::with_capacity(usize::try_from(bytes + bytes / 16).unwrap_or_default());
    for place in places(traces) {
        let segment = &segments[place as usize];
        check_stopped(job)?;
        match gathered.take(segment, |trace| (first..=last).contains(&trace)) {
            Ok(()) => {}
            Err(SegmentError::Log(error @ ReadError::Io { .. })) if !job.leave_out_unread => return Err(BuildError::Log(error)),
            Err(_) if unreadable.iter().any(|known| Arc::ptr_eq(known, segment)) => {}
            Err(error) => {
                tracing::error!(tenant = %job.tenant, segment = ?segment.header.id, path = %segment.at.file.path.display(), offset = segment.at.offset,
                    bytes = segment.at.len, %error, "segment left out of its block, the log's file with it is set aside");
                unreadable.push(Arc::clone(segment));
            }
        }
    }
    Ok(gathered)
}

fn block_of<W>(
    job: &BuildJob<'_>,
    range: BlockRange,
    FinishedBlock { mut meta, blooms, index, out, conflicting_spans, .. }: FinishedBlock<W>,
) -> Block<W> {
    if conflicting_spans > 0 {
        metrics::counter!(CONFLICTING_SPANS.name, "tenant" => job.tenant.to_string()).increment(conflicting_spans);
    }
    let (start, end) = range.of_block(job.now_unix_nanos, job.slack_nanos);
    meta.start_unix_nanos = start / SECOND_NANOS * SECOND_NANOS;
    // Rounded up: a bounded look-up that begins in the block's last second must find it.
    meta.end_unix_nanos = end.div_ceil(SECOND_NANOS).saturating_mul(SECOND_NANOS);
    Block { meta, blooms, index, data: out }
}

fn check_stopped(job: &BuildJob<'_>) -> Result<(), BuildError> {
    if (job.is_stopped)() { Err(BuildError::Stopped) } else { Ok(()) }
}

fn write_error(source: WriteError) -> BuildError {
    BuildError::Write(Box::new(source))
}

/// A block's times are whole seconds.
const SECOND_NANOS: u64 = 1_000_000_000;

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
