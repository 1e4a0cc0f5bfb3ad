//! Where the parts of traces may be, as one query sees it; searches that several spans of a trace decide together; and results of
//! searches that are to speak of the whole trace. Traces that are in several places are brought together by jobs of their own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use vivace_block::{BlockMeta, TRACE_SPREAD_NANOS};
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_proto::tempopb::SearchRequest;
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{BlockPart, Places, SearchRecentTraces, SearchTraces};
use vivace_storage::{Blocklist, near, near_range};

use crate::params::SearchRange;

/// Traces that the first job of a search brings together: often they are enough.
const TRACES_FIRST: usize = 512;
/// Traces that one job brings together.
pub(crate) const TRACES_PER_JOB: usize = 4096;

/// A tenant's blocks, fixed for one query: whatever its jobs decide, they decide it about these.
pub(crate) struct View {
    live: Arc<Vec<BlockMeta>>,
    places: HashMap<BlockId, usize>,
    /// Of blocks that an ingester may still serve.
    known: Bytes,
}

impl View {
    pub(crate) fn of(blocklist: &Blocklist, tenant: &TenantId) -> Self {
        let live = blocklist.live(tenant);
        let compacted = blocklist.compacted_into_live(tenant);
        // Ingesters serve what they wrote themselves.
        let fresh = live.iter().chain(&compacted).filter(|meta| meta.compaction_level == 0);
        let known = fresh.flat_map(|meta| meta.block_id.0).collect();
        let places = live.iter().enumerate().map(|(place, meta)| (meta.block_id, place)).collect();
        Self { live, places, known }
    }

    pub(crate) fn blocks(&self) -> &[BlockMeta] {
        &self.live
    }

    /// The place of a block among the others. One that was not known is from now on.
    pub(crate) fn place_of(&mut self, meta: &BlockMeta) -> usize {
        *self.places.entry(meta.block_id).or_insert_with(|| {
            Arc::make_mut(&mut self.live).push(meta.clone());
            self.live.len() - 1
        })
    }

    /// The place of a block that is known.
    pub(crate) fn place(&self, block: BlockId) -> Option<usize> {
        self.places.get(&block).copied()
    }

    /// The blocks that traces of this one are looked for in: the same for all parts of it, and mutual.
    pub(crate) fn neighbours(&self, place: usize) -> impl Iterator<Item = usize> {
        self.live.iter().enumerate().filter(move |(other, meta)| *other != place && near(meta, &self.live[place])).map(|(other, _)| other)
    }

    /// Where else the traces of a block may be.
    pub(crate) fn beside(&self, place: usize, ingesters: bool) -> Places {
        self.these(self.neighbours(place), ingesters)
    }

    /// Where traces may be that some of these blocks have.
    pub(crate) fn around(&self, places: &BTreeSet<usize>, ingesters: bool) -> Places {
        let neighbours = places.iter().flat_map(|place| self.neighbours(*place));
        self.these(neighbours.chain(places.iter().copied()).collect::<BTreeSet<usize>>(), ingesters)
    }

    /// The blocks near a range of time.
    pub(crate) fn near(&self, range: TimeRange) -> impl Iterator<Item = usize> {
        self.live.iter().enumerate().filter(move |(_, meta)| near_range(meta, range)).map(|(place, _)| place)
    }

    /// Where else the traces may be that the ingesters have.
    pub(crate) fn beside_ingesters(&self, range: SearchRange) -> Places {
        self.these(self.near(range.into()), true)
    }

    fn these(&self, blocks: impl IntoIterator<Item = usize>, ingesters: bool) -> Places {
        let blocks = blocks.into_iter().flat_map(|place| self.live[place].block_id.0).collect();
        Places { blocks, known_blocks: if ingesters { self.known.clone() } else { Bytes::new() }, ingesters }
    }
}

/// Traces of a search that are in several places, on their way to jobs that bring them together. Each is judged once.
pub(crate) struct Together {
    request: SearchRequest,
    /// Whether traces are judged as a whole; else they are found by what one place has, and then looked at as a whole.
    pub(crate) whole: bool,
    ingesters: bool,
    now_unix_nanos: u64,
    views: HashMap<TenantId, View>,
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

/// A job that brings traces together.
pub(crate) struct TogetherJob {
    pub(crate) tenant: TenantId,
    pub(crate) work: Work,
    pub(crate) ids: Vec<TraceId>,
    /// None of its traces starts after this, Unix nanoseconds.
    pub(crate) newest: u64,
}

impl Together {
    /// Of a search with these jobs.
    pub(crate) fn new(
        request: SearchRequest,
        whole: bool,
        jobs: &[(TenantId, Work)],
        blocklist: &Blocklist,
        tenants: &[TenantId],
        now_unix_nanos: u64,
    ) -> Self {
        let ingesters = jobs.iter().any(|(_, work)| matches!(work, Work::SearchRecent(_)));
        let mut views: HashMap<TenantId, View> = tenants.iter().map(|tenant| (tenant.clone(), View::of(blocklist, tenant))).collect();
        for (tenant, work) in jobs {
            // The list may have changed since the jobs were made.
            if let (Some(view), Some(meta)) = (views.get_mut(tenant), block(work)) {
                view.place_of(&meta);
            }
        }
        Self { request, whole, ingesters, now_unix_nanos, views, seen: HashSet::new(), waiting: Vec::new(), jobs: 0 }
    }

    /// The place of the block that a job reads.
    pub(crate) fn block_of(&self, tenant: &TenantId, work: &Work) -> Option<usize> {
        self.views.get(tenant)?.place(block(work)?.block_id)
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

    /// Jobs for traces that wait, newest first: full ones, and with `all` the last ones too.
    pub(crate) fn take_jobs(&mut self, all: bool) -> Vec<TogetherJob> {
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

    fn job(&self, mut some: Vec<Waiting>) -> TogetherJob {
        some.sort_unstable_by_key(|waiting| waiting.id);
        let tenant = some[0].tenant.clone();
        let blocks: BTreeSet<usize> = some.iter().flat_map(|waiting| waiting.blocks.iter().copied()).collect();
        let work = Work::SearchTraces(SearchTraces {
            request: Some(self.request.clone()),
            trace_ids: some.iter().flat_map(|waiting| waiting.id.0).collect(),
            places: self.views.get(&tenant).map(|view| view.around(&blocks, self.ingesters)),
            only_split: !self.whole,
        });
        let newest = some.iter().map(|waiting| waiting.newest).max().unwrap_or(u64::MAX);
        TogetherJob { tenant, work, ids: some.into_iter().map(|waiting| waiting.id).collect(), newest }
    }
}

/// The block that a job reads.
fn block(work: &Work) -> Option<BlockMeta> {
    let Work::SearchBlock(job) = work else { return None };
    let part: &BlockPart = job.part.as_ref()?;
    BlockMeta::from_json(&part.meta_json, "a job").ok()
}

/// Tells the jobs of a search that traces are judged as a whole.
pub(crate) fn judge_whole_traces(jobs: &mut [(TenantId, Work)], together: &Together, range: SearchRange) {
    for (tenant, work) in jobs {
        let Some(view) = together.views.get(tenant) else { continue };
        let place = together.block_of(tenant, work);
        match work {
            Work::SearchBlock(job) => job.places = place.map(|place| view.beside(place, together.ingesters)),
            Work::SearchRecent(request) => {
                let (request, places) = (Some(std::mem::take(request)), Some(view.beside_ingesters(range)));
                *work = Work::SearchRecentTraces(SearchRecentTraces { request, places });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_core::SECOND;

    fn block(id: u8, start: u64, end: u64) -> BlockMeta {
        BlockMeta {
            format: vivace_block::Format::VParquet4,
            block_id: BlockId([id; 16]),
            tenant_id: TenantId::single(),
            start_unix_nanos: start * SECOND,
            end_unix_nanos: end * SECOND,
            total_objects: 1,
            size_bytes: 1,
            compaction_level: u32::from(id > 9),
            row_groups: 1,
            bloom_shards: 1,
            footer_bytes: 0,
            dedicated_columns: Vec::new(),
            replication_factor: 0,
        }
    }

    fn blocklist() -> Blocklist {
        let blocklist = Blocklist::new(std::time::Duration::from_secs(300), vivace_server::clock::unix_nanos);
        let added = vec![block(1, 10_000, 11_000), block(2, 11_000, 12_000), block(3, 20_000, 21_000), block(10, 0, 0)];
        blocklist.apply(&TenantId::single(), vivace_storage::Change { added, ..Default::default() });
        // Its successor is in the list, so that an ingester that serves it need not answer for it.
        let merged =
            vivace_storage::Change { added: vec![block(11, 10_000, 11_000)], compacted: vec![BlockId([1; 16])], ..Default::default() };
        blocklist.apply(&TenantId::single(), merged);
        blocklist
    }

    fn ids(bytes: &Bytes) -> Vec<u8> {
        let mut ids: Vec<u8> = bytes.chunks(16).map(|id| id[0]).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_trace_is_brought_together_once_in_the_order_of_ids() {
        let tenant = TenantId::single();
        let mut together = Together::new(SearchRequest::default(), true, &[], &blocklist(), std::slice::from_ref(&tenant), 0);
        let id = |n: usize| TraceId((n as u128).to_be_bytes());
        let third = together.place(&tenant, &[3; 16]).into_iter().collect::<Vec<_>>();
        (0..TRACES_FIRST + 7).rev().for_each(|n| together.add(&tenant, id(n), third.clone(), n as u64));
        together.add(&tenant, id(3), Vec::new(), u64::MAX);
        assert_eq!(together.newest_unix_nanos(), Some(TRACES_FIRST as u64 + 6));
        let mut jobs = together.take_jobs(false);
        let job = jobs.remove(0);
        assert!(jobs.is_empty() && together.take_jobs(false).is_empty());
        assert_eq!((job.newest, job.ids.len(), job.ids[0], job.ids.is_sorted()), (TRACES_FIRST as u64 + 6, TRACES_FIRST, id(7), true));
        let Work::SearchTraces(work) = job.work else { panic!("{:?}", job.work) };
        assert_eq!(ids(&work.places.expect("places").blocks), [3, 10], "the block and those near it");
        assert_eq!(together.take_jobs(true).remove(0).ids, (0..7).map(id).collect::<Vec<_>>());
        together.add(&tenant, id(5), Vec::new(), 1);
        assert!(together.take_jobs(true).is_empty());
        together.forget(&tenant, id(5));
        together.add(&tenant, id(5), Vec::new(), 1);
        assert_eq!(together.take_jobs(true).len(), 1);
    }

    #[test]
    fn places_are_the_live_blocks_near_in_time() {
        let mut view = View::of(&blocklist(), &TenantId::single());
        let mut beside = |id: u8, start, end, ingesters| {
            let place = view.place_of(&block(id, start, end));
            view.beside(place, ingesters)
        };
        let places = beside(2, 11_000, 12_000, true);
        assert_eq!((ids(&places.blocks), ids(&places.known_blocks), places.ingesters), (vec![10, 11], vec![1, 2, 3], true));
        assert_eq!(ids(&beside(3, 20_000, 21_000, false).blocks), [10]);
        assert_eq!(ids(&beside(10, 0, 0, false).blocks), [2, 3, 11]);
        assert_eq!(ids(&view.beside_ingesters(SearchRange { start: 15_000, end: 17_000 }).blocks), [2, 3, 10]);
        // One that an ingester names is near others as they are near it.
        let served = view.place_of(&block(4, 17_000, 18_000));
        assert_eq!(ids(&view.beside(served, false).blocks), [3, 10]);
        assert_eq!(ids(&view.around(&BTreeSet::from([served]), false).blocks), [3, 4, 10]);
    }
}
