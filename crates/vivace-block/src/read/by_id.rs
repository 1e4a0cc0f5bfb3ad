//! Traces by their ids, many at a time: what is whole only once the parts in several blocks are joined.

use std::ops::ControlFlow;

use vivace_core::TraceId;
use vivace_traceql::{Batch, Fetch};

use super::fault::ReadError;
use super::gather::Gather;
use super::group::Group;
use super::reader::BlockReader;
use super::search::{BATCH_TRACES, ScanStats};
use crate::JoinedFetch;

/// Traces with several rows that are brought together at a time.
const TRACES_AT_ONCE: usize = 1024;

impl BlockReader {
    /// Hands out what the block has of these traces, which ascend: row group by row group, in each ascending by id, in batches of
    /// at most 256. The filter and the time of `fetch` play no part. `each` may stop it.
    ///
    /// Reads the ids of the row groups that may have some, and then each page that holds what is wanted once. So parts of many
    /// traces are read block beside block, for [`JoinedFetch::join`]:
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use vivace_block::{BlockReader, JoinedFetch, ReadError};
    /// # use vivace_core::TraceId;
    /// # use vivace_traceql::{Batch, Fetch};
    /// # fn whole(blocks: &[BlockReader], ids: &[TraceId], fetch: &Fetch) -> Result<Batch, ReadError> {
    /// let joining = JoinedFetch::new(fetch);
    /// let mut parts = Vec::new();
    /// for block in blocks {
    ///     block.batches_of(ids, joining.of_parts(), &mut |batch| {
    ///         parts.push(batch);
    ///         ControlFlow::Continue(())
    ///     })?;
    /// }
    /// Ok(joining.join(parts))
    /// # }
    /// ```
    ///
    /// In a block that is not in order ([`BlockReader::is_in_order`]) a trace may come several times.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had. Batches may have been handed out before.
    pub fn batches_of(
        &self,
        ids: &[TraceId],
        fetch: &Fetch,
        each: &mut dyn FnMut(Batch) -> ControlFlow<()>,
    ) -> Result<ScanStats, ReadError> {
        let mut stats = ScanStats::default();
        for index in 0..self.row_groups() {
            let mut rows = self.file.rows_in(index, ids)?;
            if rows.is_empty() {
                continue;
            }
            stats.traces += rows.len() as u64;
            let mut group = Group::new(&self.file, index);
            // As when searching: of few rows only the pages that hold them are read. They are counted as they lie there.
            if rows.len() < group.rows() / 4 * 3 {
                let mut ascending = rows.clone();
                ascending.sort_unstable();
                rows.iter_mut().for_each(|row| *row = ascending.partition_point(|other| *other < *row));
                group = group.narrow(ascending);
            }
            let gather = Gather::new(&mut group, fetch)?;
            stats.bytes += group.bytes_read;
            for some in rows.chunks(BATCH_TRACES) {
                let batch = gather.batch(some);
                stats.spans += batch.spans.len() as u64;
                if each(batch).is_break() {
                    return Ok(stats);
                }
            }
        }
        Ok(stats)
    }

    /// Hands out traces by their ids, which ascend, each whole: all its rows together. Of the conditions of `fetch` only the time
    /// is looked at, the others are left to evaluation.
    pub(super) fn whole(
        &self,
        ids: &[TraceId],
        fetch: &Fetch,
        stats: &mut ScanStats,
        each: &mut dyn FnMut(Batch) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let joining = JoinedFetch::new(fetch);
        for some in ids.chunks(TRACES_AT_ONCE) {
            let mut parts = Vec::new();
            stats.bytes += self
                .batches_of(some, joining.of_parts(), &mut |batch| {
                    parts.push(batch);
                    ControlFlow::Continue(())
                })?
                .bytes;
            let batch = joining.join(parts);
            stats.spans += batch.spans.len() as u64;
            if each(batch).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
