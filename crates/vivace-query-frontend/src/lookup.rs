//! The lookup of a trace by its id, as jobs. Pure: no clock, no queue.

use bytes::Bytes;
use vivace_core::{BlockId, TraceId};
use vivace_proto::tempopb::TraceByIdRequest;
use vivace_proto::vivace::v1::FindInBlocks;
use vivace_proto::vivace::v1::job::Work;

/// A lookup reads the bloom filters of about so many blocks per job.
const BLOCKS_PER_JOB: usize = 10;

/// All block ids.
pub(crate) const ALL_BLOCKS: (BlockId, BlockId) = (BlockId([0; 16]), BlockId([0xff; 16]));

/// Where a lookup by id looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupMode {
    All,
    Ingesters,
    Blocks,
}

/// A lookup by id.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    pub(crate) trace_id: TraceId,
    pub(crate) mode: LookupMode,
    /// Unix seconds, 0 is open. Restricts blocks only.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// The range of block ids, both included.
    pub(crate) blocks: (BlockId, BlockId),
}

impl Lookup {
    /// One job for what the ingesters hold, and ranges of block ids that leave no gap. At most `max_jobs` jobs.
    pub(crate) fn jobs(&self, live_blocks: usize, max_jobs: usize) -> Vec<Work> {
        let mut jobs = Vec::new();
        let trace_id = Bytes::copy_from_slice(&self.trace_id.0);
        if self.mode != LookupMode::Blocks {
            jobs.push(Work::FindRecent(TraceByIdRequest { trace_id: trace_id.clone(), allow_partial_trace: true, ..Default::default() }));
        }
        if self.mode != LookupMode::Ingesters {
            let ranges = live_blocks.div_ceil(BLOCKS_PER_JOB).clamp(1, max_jobs.saturating_sub(1).max(1));
            jobs.extend(id_ranges(self.blocks, ranges as u128).into_iter().map(|(first, last)| {
                Work::FindInBlocks(FindInBlocks {
                    trace_id: trace_id.clone(),
                    first_block: Bytes::copy_from_slice(&first.0),
                    last_block: Bytes::copy_from_slice(&last.0),
                    start: self.start,
                    end: self.end,
                })
            }));
        }
        jobs
    }
}

/// Cuts a range of ids into equal parts without gaps, both ends of each included.
fn id_ranges((first, last): (BlockId, BlockId), count: u128) -> Vec<(BlockId, BlockId)> {
    let (first, last) = (u128::from_be_bytes(first.0), u128::from_be_bytes(last.0));
    if first > last {
        return Vec::new();
    }
    let width = (last - first) / count;
    let id = |number: u128| BlockId(number.to_be_bytes());
    (0..count)
        .map(|i| {
            let begin = first + width * i + if i == 0 { 0 } else { 1 };
            let end = if i + 1 == count { last } else { first + width * (i + 1) };
            (begin, end)
        })
        .filter(|(begin, end)| begin <= end)
        .map(|(begin, end)| (id(begin), id(end)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_cover_every_block_id_once() {
        for count in [1, 2, 49] {
            let ranges = id_ranges(ALL_BLOCKS, count);
            assert_eq!(ranges.len() as u128, count);
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), ALL_BLOCKS);
            for pair in ranges.windows(2) {
                assert_eq!(u128::from_be_bytes(pair[0].1.0) + 1, u128::from_be_bytes(pair[1].0.0));
            }
        }
        let lookup = Lookup { trace_id: TraceId([1; 16]), mode: LookupMode::All, start: 0, end: 0, blocks: ALL_BLOCKS };
        assert_eq!(lookup.jobs(0, 50).len(), 2);
        assert_eq!(lookup.jobs(100_000, 50).len(), 50);
    }
}
