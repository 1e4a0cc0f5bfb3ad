//! Traces of a search that are in several places: jobs of their own bring each of them together, once, to judge it as a whole or
//! to look once more at what was found by a part of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use vivace_block::TRACE_SPREAD_NANOS;
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_proto::tempopb::SearchRequest;
use vivace_proto::vivace::v1::SearchTraces;
use vivace_proto::vivace::v1::job::Work;

use crate::job_plan::PlannedJob;
use crate::view::View;

/// Traces that the first job of a search brings together: often they are enough.
const TRACES_FIRST: usize = 512;
/// Traces that one job brings together.
pub(crate) const TRACES_PER_JOB: usize = 4096;

/// Split traces of a search on their way to jobs. Each is judged once.
pub(crate) struct SplitTraces {
    request: SearchRequest,
    /// Whether traces are judged as a whole; else they are found by what one place has, and then looked at as a whole.
    pub(crate) needs_whole_traces: bool,
    asks_ingesters: bool,
    now_unix_nanos: u64,
    views: BTreeMap<TenantId, View>,
    seen: HashSet<(TenantId, TraceId)>,
    waiting: Vec<Waiting>,
    jobs: usize,
}

struct Waiting {
    tenant: TenantId,
    id: TraceId,
    /// Places of blocks that have it.
    blocks: Vec<usize>,
    /// It does not start after this, Unix nanoseconds.
    newest: u64,
}

impl SplitTraces {
    /// None yet.
    pub(crate) fn new(
        request: SearchRequest,
        needs_whole_traces: bool,
        asks_ingesters: bool,
        views: BTreeMap<TenantId, View>,
        now_unix_nanos: u64,
    ) -> Self {
        let (seen, waiting) = (HashSet::new(), Vec::new());
        Self { request, needs_whole_traces, asks_ingesters, now_unix_nanos, views, seen, waiting, jobs: 0 }
    }

    /// The place of a block that a job has named.
    pub(crate) fn place(&self, tenant: &TenantId, block_id: &[u8]) -> Option<usize> {
        self.views.get(tenant)?.place(BlockId(block_id.try_into().ok()?))
    }

    /// Places of blocks that may have more of a live trace, by its times in Unix nanoseconds: near these, or, if these are odd, near
    /// now, when its spans arrived.
    pub(crate) fn near_live(&self, tenant: &TenantId, start: u64, end: u64) -> Vec<usize> {
        let Some(view) = self.views.get(tenant) else { return Vec::new() };
        let mut places: Vec<usize> = view.near(TimeRange::between(start, end)).collect();
        let is_odd =
            end > self.now_unix_nanos.saturating_add(TRACE_SPREAD_NANOS) || end < self.now_unix_nanos.saturating_sub(TRACE_SPREAD_NANOS);
        if is_odd {
            places.extend(view.near(TimeRange::between(self.now_unix_nanos, self.now_unix_nanos)));
        }
        places
    }

    /// Takes a trace that is, or may be, in several places, among them these blocks.
    pub(crate) fn add(&mut self, tenant: &TenantId, id: TraceId, blocks: Vec<usize>, newest: u64) {
        if self.seen.insert((tenant.clone(), id)) {
            self.waiting.push(Waiting { tenant: tenant.clone(), id, blocks, newest });
        }
    }

    /// Takes a trace once more if it comes again.
    pub(crate) fn forget(&mut self, tenant: &TenantId, id: TraceId) {
        self.seen.remove(&(tenant.clone(), id));
    }

    /// The latest start that a trace that waits may have.
    pub(crate) fn newest_unix_nanos(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.newest).max()
    }

    /// Jobs for traces that wait, newest first, each with its traces: full ones, and with `all` the last ones too.
    pub(crate) fn take_jobs(&mut self, all: bool) -> Vec<(PlannedJob, Vec<TraceId>)> {
        let size = |jobs: usize| if jobs == 0 { TRACES_FIRST } else { TRACES_PER_JOB };
        if self.waiting.is_empty() || !all && self.waiting.len() < size(self.jobs) {
            return Vec::new();
        }
        self.waiting.sort_by(|a, b| a.tenant.cmp(&b.tenant).then(b.newest.cmp(&a.newest)).then(a.id.cmp(&b.id)));
        let mut jobs = Vec::new();
        let mut left = Vec::new();
        let mut waiting = std::mem::take(&mut self.waiting);
        while let Some(first) = waiting.first() {
            let of_tenant = waiting.partition_point(|other| other.tenant <= first.tenant);
            let rest = waiting.split_off(of_tenant.min(size(self.jobs)));
            let some = std::mem::replace(&mut waiting, rest);
            if all || some.len() == size(self.jobs) {
                jobs.push(self.job(some));
                self.jobs += 1;
            } else {
                left.extend(some);
            }
        }
        self.waiting = left;
        jobs
    }

    fn job(&self, mut some: Vec<Waiting>) -> (PlannedJob, Vec<TraceId>) {
        some.sort_unstable_by_key(|waiting| waiting.id);
        let tenant = some[0].tenant.clone();
        let blocks: BTreeSet<usize> = some.iter().flat_map(|waiting| waiting.blocks.iter().copied()).collect();
        let work = Work::SearchTraces(SearchTraces {
            request: Some(self.request.clone()),
            trace_ids: some.iter().flat_map(|waiting| waiting.id.0).collect(),
            places: self.views.get(&tenant).map(|view| view.around(&blocks, self.asks_ingesters)),
            only_split: !self.needs_whole_traces,
        });
        let newest_unix_nanos = some.iter().map(|waiting| waiting.newest).max().unwrap_or(u64::MAX);
        let job = PlannedJob { tenant, work, block: None, newest_unix_nanos };
        (job, some.into_iter().map(|waiting| waiting.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{block, ids, view};

    #[test]
    fn a_trace_is_brought_together_once_in_the_order_of_ids() {
        let tenant = TenantId::single();
        let views = view(vec![block(1, 10_000, 11_000), block(2, 11_000, 12_000), block(3, 20_000, 21_000), block(10, 0, 0)]);
        let mut split = SplitTraces::new(SearchRequest::default(), true, false, views, 0);
        let id = |n: usize| TraceId((n as u128).to_be_bytes());
        let third = split.place(&tenant, &[3; 16]).into_iter().collect::<Vec<_>>();
        (0..TRACES_FIRST + 7).rev().for_each(|n| split.add(&tenant, id(n), third.clone(), n as u64));
        split.add(&tenant, id(3), Vec::new(), u64::MAX);
        assert_eq!(split.newest_unix_nanos(), Some(TRACES_FIRST as u64 + 6));
        let mut jobs = split.take_jobs(false);
        let (job, traces) = jobs.remove(0);
        assert!(jobs.is_empty() && split.take_jobs(false).is_empty());
        assert_eq!((traces.len(), traces[0], traces.is_sorted()), (TRACES_FIRST, id(7), true));
        assert_eq!((job.newest_unix_nanos, job.block), (TRACES_FIRST as u64 + 6, None));
        let Work::SearchTraces(work) = job.work else { panic!("{:?}", job.work) };
        assert_eq!(ids(&work.places.expect("places").blocks), [3, 10], "the block and those near it");
        assert_eq!(split.take_jobs(true).remove(0).1, (0..7).map(id).collect::<Vec<_>>());
        split.add(&tenant, id(5), Vec::new(), 1);
        assert!(split.take_jobs(true).is_empty());
        split.forget(&tenant, id(5));
        split.add(&tenant, id(5), Vec::new(), 1);
        assert_eq!(split.take_jobs(true).len(), 1);
    }
}
