//! From a request and its tenants' blocks to jobs, made once and complete. Pure: no clock, no queue.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use vivace_block::BlockMeta;
use vivace_core::TenantId;
use vivace_proto::tempopb::{SearchRequest, SearchTagValuesRequest, SearchTagsRequest};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{BlockPart, Places, SearchBlock, SearchRecentTraces, TagValuesBlock, TagsBlock};

use crate::params::SearchRange;
use crate::view::View;

/// The jobs of a query over all its tenants.
#[derive(Debug, Default)]
pub(crate) struct JobPlan {
    /// Newest data first.
    pub(crate) jobs: Vec<PlannedJob>,
    /// Whether jobs ask the ingesters too.
    pub(crate) asks_ingesters: bool,
    /// Blocks that are looked into.
    pub(crate) blocks: u32,
    /// Their size.
    pub(crate) block_bytes: u64,
}

/// One job, and what its query has to know of it later.
#[derive(Debug)]
pub(crate) struct PlannedJob {
    pub(crate) tenant: TenantId,
    pub(crate) work: Work,
    /// The place, in the tenant's [`View`], of the block that it reads; none where it reads no single one.
    pub(crate) block: Option<usize>,
    /// No trace of this job starts after this. Unix nanoseconds.
    pub(crate) newest_unix_nanos: u64,
}

/// What a query over a range of time looks for in each place by itself.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Where it needs whole traces, a job is told where else their spans may be.
    Search { request: SearchRequest, needs_whole_traces: bool },
    /// `max_bytes`: at which an answer ends; 0: none.
    Tags { request: SearchTagsRequest, max_bytes: u64 },
    /// The same.
    TagValues { request: SearchTagValuesRequest, max_bytes: u64 },
}

/// How jobs are planned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlanRules {
    /// Bytes of a block that one job reads.
    pub(crate) target_bytes_per_job: u64,
    /// Ranges that end before this, in Unix seconds, are in blocks only.
    pub(crate) ingesters_since: u64,
}

impl PlanRules {
    pub(crate) fn asks_ingesters(self, range: SearchRange) -> bool {
        u64::from(range.end) >= self.ingesters_since
    }
}

impl JobPlan {
    /// Of each tenant one job for what the ingesters hold, and one per part of each block that overlaps the range.
    ///
    /// Both sides are asked for the whole range. They overlap, and what is found twice is combined: data that arrived late,
    /// or that a block's writer has forgotten already, is found in either place.
    pub(crate) fn new(request: &Request, range: SearchRange, views: &BTreeMap<TenantId, View>, rules: PlanRules) -> Self {
        let asks_ingesters = rules.asks_ingesters(range);
        let mut plan = Self { asks_ingesters, ..Self::default() };
        for (tenant, view) in views {
            if asks_ingesters {
                let work = request.recent(view, range);
                plan.jobs.push(PlannedJob { tenant: tenant.clone(), work, block: None, newest_unix_nanos: u64::MAX });
            }
            plan.add_blocks(tenant, view, range, rules.target_bytes_per_job, |place, _| {
                let places = request.places(view, place, asks_ingesters);
                move |part| request.block(part, places.clone())
            });
        }
        plan.jobs.sort_by_key(|job| Reverse(job.newest_unix_nanos));
        plan
    }

    /// Adds a job for each part of each block that overlaps the range, newest block first. `of_block` is called once for
    /// each block and its place, and gives what makes the work of its parts.
    pub(crate) fn add_blocks<W: Fn(BlockPart) -> Work>(
        &mut self,
        tenant: &TenantId,
        view: &View,
        range: SearchRange,
        target_bytes_per_job: u64,
        of_block: impl Fn(usize, &BlockMeta) -> W,
    ) {
        for (place, meta) in view.overlapping(range) {
            self.blocks += 1;
            self.block_bytes += meta.size_bytes;
            let newest_unix_nanos = meta.times().map_or(u64::MAX, |(_, end)| end);
            let (work_of, meta_json) = (of_block(place, meta), Bytes::from(meta.to_json()));
            self.jobs.extend(parts(meta, target_bytes_per_job).into_iter().map(|(first_row_group, row_groups)| PlannedJob {
                tenant: tenant.clone(),
                work: work_of(BlockPart { meta_json: meta_json.clone(), first_row_group, row_groups }),
                block: Some(place),
                newest_unix_nanos,
            }));
        }
    }

    /// The jobs as they are given out.
    pub(crate) fn into_jobs(self) -> Vec<(TenantId, Work)> {
        self.jobs.into_iter().map(|job| (job.tenant, job.work)).collect()
    }
}

impl Request {
    fn recent(&self, view: &View, range: SearchRange) -> Work {
        match self.clone() {
            Self::Search { request, needs_whole_traces: false } => Work::SearchRecent(request),
            Self::Search { request, needs_whole_traces: true } => {
                let places = Some(view.beside_ingesters(range));
                Work::SearchRecentTraces(SearchRecentTraces { request: Some(request), places })
            }
            Self::Tags { request, .. } => Work::TagsRecent(request),
            Self::TagValues { request, .. } => Work::TagValuesRecent(request),
        }
    }

    /// Where else the traces of the block at this place may be, if that matters.
    fn places(&self, view: &View, place: usize, asks_ingesters: bool) -> Option<Places> {
        match self {
            Self::Search { needs_whole_traces, .. } => needs_whole_traces.then(|| view.beside(place, asks_ingesters)),
            Self::Tags { .. } | Self::TagValues { .. } => None,
        }
    }

    fn block(&self, part: BlockPart, places: Option<Places>) -> Work {
        let part = Some(part);
        match self.clone() {
            Self::Search { request, .. } => Work::SearchBlock(SearchBlock { request: Some(request), part, places }),
            Self::Tags { request, max_bytes } => Work::TagsBlock(TagsBlock { request: Some(request), part, max_bytes }),
            Self::TagValues { request, max_bytes } => Work::TagValuesBlock(TagValuesBlock { request: Some(request), part, max_bytes }),
        }
    }
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

#[cfg(test)]
mod tests {
    use vivace_core::BlockId;

    use super::*;
    use crate::view::tests::{block, ids, view};

    fn sized(size_bytes: u64, row_groups: u32, block: BlockMeta) -> BlockMeta {
        BlockMeta { size_bytes, row_groups, ..block }
    }

    fn search(needs_whole_traces: bool, range: (u32, u32), blocks: Vec<BlockMeta>, ingesters_since: u64) -> JobPlan {
        let rules = PlanRules { target_bytes_per_job: 100, ingesters_since };
        let request = Request::Search { request: SearchRequest::default(), needs_whole_traces };
        JobPlan::new(&request, SearchRange { start: range.0, end: range.1 }, &view(blocks), rules)
    }

    /// Of each job of a block the block's id and its row groups.
    fn block_parts(plan: &JobPlan) -> Vec<(u8, u32, u32)> {
        let part = |job: &PlannedJob| match &job.work {
            Work::SearchBlock(SearchBlock { part: Some(part), .. }) => {
                let meta = BlockMeta::from_json(&part.meta_json, "test").unwrap();
                Some((meta.block_id.0[0], part.first_row_group, part.row_groups))
            }
            _ => None,
        };
        plan.jobs.iter().filter_map(part).collect()
    }

    #[test]
    fn blocks_that_overlap_are_cut_by_bytes_newest_first() {
        let blocks = vec![sized(50, 3, block(1, 10, 20)), sized(400, 8, block(2, 15, 40)), sized(50, 1, block(3, 50, 60))];
        let plan = search(false, (18, 30), blocks, 0);
        assert_eq!(block_parts(&plan), [(2, 0, 2), (2, 2, 2), (2, 4, 2), (2, 6, 0), (1, 0, 0)]);
        assert!(matches!(plan.jobs[0].work, Work::SearchRecent(_)) && plan.asks_ingesters);
        assert_eq!((plan.blocks, plan.block_bytes), (2, 450));
    }

    #[test]
    fn a_job_is_planned_with_the_place_of_its_block_and_those_beside_it() {
        let blocks = vec![block(1, 10_000, 11_000), sized(200, 2, block(2, 12_000, 13_000)), block(3, 30_000, 31_000)];
        let (views, want) = (view(blocks.clone()), [(2, vec![1]), (2, vec![1]), (1, vec![2])]);
        let plan = search(true, (9_000, 14_000), blocks, 0);
        assert!(matches!(&plan.jobs[0].work, Work::SearchRecentTraces(job) if job.places.is_some()));
        for (job, (id, beside)) in plan.jobs[1..].iter().zip(want) {
            assert_eq!(job.block, views[&job.tenant].place(BlockId([id; 16])));
            let Work::SearchBlock(SearchBlock { places: Some(places), .. }) = &job.work else { panic!("{job:?}") };
            assert_eq!((ids(&places.blocks), places.ingesters), (beside, true));
        }
        assert_eq!(plan.jobs.len(), 4);
    }

    #[test]
    fn a_block_that_does_not_know_its_times_is_looked_into() {
        assert_eq!(block_parts(&search(false, (18, 30), vec![block(1, 0, 0), block(2, 50, 60)], 0)), [(1, 0, 0)]);
    }

    #[test]
    fn ingesters_are_left_out_of_old_ranges_only() {
        assert_eq!(search(false, (18, 30), Vec::new(), 31).jobs.len(), 0);
        assert_eq!(search(false, (18, 30), Vec::new(), 30).jobs.len(), 1);
    }

    #[test]
    fn row_groups_larger_than_the_target_are_one_job_each_and_none_is_lost() {
        let parts = |row_groups| block_parts(&search(false, (1, 30), vec![sized(900, row_groups, block(1, 10, 20))], 31));
        assert_eq!(parts(3), [(1, 0, 1), (1, 1, 1), (1, 2, 0)]);
        assert_eq!(parts(0), [(1, 0, 0)]);
    }
}
