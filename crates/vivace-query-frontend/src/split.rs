//! From a request and the list of blocks to jobs. Pure: no clock, no queue.

use bytes::Bytes;
use vivace_block::BlockMeta;
use vivace_core::{BlockId, TraceId};
use vivace_proto::tempopb::{SearchRequest, SearchTagValuesRequest, SearchTagsRequest, TraceByIdRequest};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{BlockPart, FindInBlocks, SearchBlock, SeriesBlock, SeriesRecent, SeriesRequest, TagValuesBlock, TagsBlock};

use crate::params::SearchRange;

/// A lookup reads the bloom filters of about so many blocks per job.
const BLOCKS_PER_LOOKUP: usize = 10;

/// A query as jobs, newest data first.
#[derive(Debug, Default)]
pub(crate) struct Split {
    pub(crate) jobs: Vec<SplitJob>,
    /// Blocks that are looked into.
    pub(crate) blocks: u32,
    /// Their size.
    pub(crate) block_bytes: u64,
}

/// One job and how new its data can be.
#[derive(Debug)]
pub(crate) struct SplitJob {
    pub(crate) work: Work,
    /// No trace of this job starts after this. Unix nanoseconds.
    pub(crate) newest_unix_nanos: u64,
}

/// What a query over a range of time looks for.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Search(SearchRequest),
    /// And the bytes at which an answer ends; 0: none.
    Tags(SearchTagsRequest, u64),
    /// The same.
    TagValues(SearchTagValuesRequest, u64),
    Series(SeriesRequest),
}

impl Request {
    fn recent(&self) -> Work {
        match self.clone() {
            Self::Search(request) => Work::SearchRecent(request),
            Self::Tags(request, _) => Work::TagsRecent(request),
            Self::TagValues(request, _) => Work::TagValuesRecent(request),
            Self::Series(request) => Work::SeriesRecent(SeriesRecent { request: Some(request), places: None }),
        }
    }

    fn block(&self, part: BlockPart) -> Work {
        let part = Some(part);
        match self.clone() {
            Self::Search(request) => Work::SearchBlock(SearchBlock { request: Some(request), part, places: None }),
            Self::Tags(request, max_bytes) => Work::TagsBlock(TagsBlock { request: Some(request), part, max_bytes }),
            Self::TagValues(request, max_bytes) => Work::TagValuesBlock(TagValuesBlock { request: Some(request), part, max_bytes }),
            Self::Series(request) => Work::SeriesBlock(SeriesBlock { request: Some(request), part, ..SeriesBlock::default() }),
        }
    }
}

/// How jobs are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SplitRules {
    /// Bytes of a block that one job reads.
    pub(crate) target_bytes_per_job: u64,
    /// Ranges that end before this, in Unix seconds, are in blocks only.
    pub(crate) ingesters_since: u64,
}

/// A search or a tag query: one job for what the ingesters hold, and one per part of each block that overlaps the range.
///
/// Both sides are asked for the whole range. They overlap, and what is found twice is combined: data that arrived late,
/// or that a block's writer has forgotten already, is found in either place.
pub(crate) fn by_range(request: &Request, range: SearchRange, live: &[BlockMeta], rules: SplitRules) -> Split {
    let mut split = of_blocks(request, range, live, rules.target_bytes_per_job);
    if u64::from(range.end) >= rules.ingesters_since {
        split.jobs.insert(0, SplitJob { work: request.recent(), newest_unix_nanos: u64::MAX });
    }
    split
}

/// The part of [`by_range`] that is about blocks.
pub(crate) fn of_blocks(request: &Request, range: SearchRange, live: &[BlockMeta], target_bytes_per_job: u64) -> Split {
    let mut split = Split::default();
    for meta in overlapping(live, range) {
        split.blocks += 1;
        split.block_bytes += meta.size_bytes;
        let meta_json = Bytes::from(meta.to_json());
        for (first, count) in parts(meta, target_bytes_per_job) {
            let part = BlockPart { meta_json: meta_json.clone(), first_row_group: first, row_groups: count };
            let newest = meta.times().map_or(u64::MAX, |(_, end)| end);
            split.jobs.push(SplitJob { work: request.block(part), newest_unix_nanos: newest });
        }
    }
    split
}

/// Blocks that overlap the range, newest end first. Those that do not know their times overlap everything.
fn overlapping(live: &[BlockMeta], range: SearchRange) -> Vec<&BlockMeta> {
    let mut blocks: Vec<&BlockMeta> = live.iter().filter(|meta| vivace_storage::overlaps(meta, range.into())).collect();
    blocks.sort_by_key(|meta| (std::cmp::Reverse(meta.end_unix_nanos), meta.block_id));
    blocks
}

/// First row group and number of them; 0 is all that follow. The last part is open, since metas of the original may count one too many.
fn parts(meta: &BlockMeta, target_bytes: u64) -> Vec<(u32, u32)> {
    let groups = u64::from(meta.row_groups);
    if groups <= 1 || meta.size_bytes <= target_bytes {
        return vec![(0, 0)];
    }
    let per_job = (target_bytes / (meta.size_bytes / groups).max(1)).clamp(1, groups);
    let per_job = u32::try_from(per_job).unwrap_or(u32::MAX);
    let last = (meta.row_groups - 1) / per_job * per_job;
    (0..meta.row_groups).step_by(per_job as usize).map(|first| (first, if first == last { 0 } else { per_job })).collect()
}

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

/// A lookup by id: one job for what the ingesters hold, and ranges of block ids that leave no gap. At most `max_jobs` jobs.
pub(crate) fn by_id(lookup: &Lookup, live_blocks: usize, max_jobs: usize) -> Split {
    let mut split = Split::default();
    let trace_id = Bytes::copy_from_slice(&lookup.trace_id.0);
    let mut add = |work| split.jobs.push(SplitJob { work, newest_unix_nanos: u64::MAX });
    if lookup.mode != LookupMode::Blocks {
        add(Work::FindRecent(TraceByIdRequest { trace_id: trace_id.clone(), allow_partial_trace: true, ..Default::default() }));
    }
    if lookup.mode != LookupMode::Ingesters {
        let ranges = live_blocks.div_ceil(BLOCKS_PER_LOOKUP).clamp(1, max_jobs.saturating_sub(1).max(1));
        for (first, last) in id_ranges(lookup.blocks, ranges as u128) {
            add(Work::FindInBlocks(FindInBlocks {
                trace_id: trace_id.clone(),
                first_block: Bytes::copy_from_slice(&first.0),
                last_block: Bytes::copy_from_slice(&last.0),
                start: lookup.start,
                end: lookup.end,
            }));
        }
    }
    split
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
    use vivace_core::SECOND;

    use super::*;
    use vivace_core::TenantId;

    fn meta(id: u8, start: u64, end: u64, size: u64, row_groups: u32) -> BlockMeta {
        BlockMeta {
            format: vivace_block::Format::VParquet4,
            block_id: BlockId([id; 16]),
            tenant_id: TenantId::single(),
            start_unix_nanos: start * SECOND,
            end_unix_nanos: end * SECOND,
            total_objects: 1,
            size_bytes: size,
            compaction_level: 0,
            row_groups,
            bloom_shards: 1,
            footer_bytes: 0,
            dedicated_columns: Vec::new(),
            replication_factor: 0,
        }
    }

    fn search(range: (u32, u32), blocks: &[BlockMeta], ingesters_since: u64) -> Split {
        let rules = SplitRules { target_bytes_per_job: 100, ingesters_since };
        by_range(&Request::Search(SearchRequest::default()), SearchRange { start: range.0, end: range.1 }, blocks, rules)
    }

    fn block_parts(split: &Split) -> Vec<(u8, u32, u32)> {
        let part = |job: &SplitJob| match &job.work {
            Work::SearchBlock(SearchBlock { part: Some(part), .. }) => {
                let meta = BlockMeta::from_json(&part.meta_json, "test").unwrap();
                Some((meta.block_id.0[0], part.first_row_group, part.row_groups))
            }
            _ => None,
        };
        split.jobs.iter().filter_map(part).collect()
    }

    #[test]
    fn blocks_that_overlap_are_cut_by_bytes_newest_first() {
        let blocks = [meta(1, 10, 20, 50, 3), meta(2, 15, 40, 400, 8), meta(3, 50, 60, 50, 1)];
        let split = search((18, 30), &blocks, 0);
        assert_eq!(block_parts(&split), [(2, 0, 2), (2, 2, 2), (2, 4, 2), (2, 6, 0), (1, 0, 0)]);
        assert!(matches!(split.jobs[0].work, Work::SearchRecent(_)));
        assert_eq!((split.blocks, split.block_bytes), (2, 450));
    }

    #[test]
    fn a_block_that_does_not_know_its_times_is_looked_into() {
        assert_eq!(block_parts(&search((18, 30), &[meta(1, 0, 0, 50, 1), meta(2, 50, 60, 50, 1)], 0)), [(1, 0, 0)]);
    }

    #[test]
    fn ingesters_are_left_out_of_old_ranges_only() {
        assert_eq!(search((18, 30), &[], 31).jobs.len(), 0);
        assert_eq!(search((18, 30), &[], 30).jobs.len(), 1);
    }

    #[test]
    fn row_groups_larger_than_the_target_are_one_job_each_and_none_is_lost() {
        assert_eq!(block_parts(&search((1, 30), &[meta(1, 10, 20, 900, 3)], 31)), [(1, 0, 1), (1, 1, 1), (1, 2, 0)]);
        assert_eq!(block_parts(&search((1, 30), &[meta(1, 10, 20, 900, 0)], 31)), [(1, 0, 0)]);
    }

    #[test]
    fn lookups_cover_every_block_id_once() {
        let all = (BlockId([0; 16]), BlockId([0xff; 16]));
        for count in [1, 2, 49] {
            let ranges = id_ranges(all, count);
            assert_eq!(ranges.len() as u128, count);
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), all);
            for pair in ranges.windows(2) {
                assert_eq!(u128::from_be_bytes(pair[0].1.0) + 1, u128::from_be_bytes(pair[1].0.0));
            }
        }
        let lookup = Lookup { trace_id: TraceId([1; 16]), mode: LookupMode::All, start: 0, end: 0, blocks: all };
        assert_eq!(by_id(&lookup, 0, 50).jobs.len(), 2);
        assert_eq!(by_id(&lookup, 100_000, 50).jobs.len(), 50);
    }
}
