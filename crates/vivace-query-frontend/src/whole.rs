//! Queries that several spans of a trace decide together: whose jobs are told of the other places where a trace's spans may be,
//! and traces that are in several of them, which are judged by jobs of their own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use vivace_block::{BlockMeta, TRACE_SPREAD_NANOS};
use vivace_core::{BlockId, TenantId};
use vivace_proto::tempopb::SearchRequest;
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{BlockPart, Places, SearchRecentTraces, SearchTraces, SeriesRequest, SeriesTraces, TracePart};
use vivace_storage::{Blocklist, overlaps};

use crate::params::TimeRange;

const NANOS: u64 = 1_000_000_000;
/// Traces that one job brings together.
const TRACES_PER_JOB: usize = 64;

/// A tenant's blocks as one query sees them.
pub(crate) struct View {
    live: Arc<Vec<BlockMeta>>,
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
        Self { live, known }
    }

    /// Where else the traces of a block may be.
    pub(crate) fn beside_block(&self, block: &BlockMeta, ingesters: bool) -> Places {
        let (start, end) = match block.end_unix_nanos {
            0 => (0, 0),
            end => (block.start_unix_nanos, end),
        };
        self.places(start, end, Some(block.block_id), ingesters)
    }

    /// Where else the traces may be that the ingesters have.
    pub(crate) fn beside_ingesters(&self, range: TimeRange) -> Places {
        self.places(u64::from(range.start) * NANOS, u64::from(range.end) * NANOS, None, true)
    }

    /// An end of 0: at any time.
    fn places(&self, start: u64, end: u64, own: Option<BlockId>, ingesters: bool) -> Places {
        let (from, to) = match end {
            0 => (0, 0),
            _ => (start.saturating_sub(TRACE_SPREAD_NANOS).max(1), end.saturating_add(TRACE_SPREAD_NANOS)),
        };
        let others = self.live.iter().filter(|meta| Some(meta.block_id) != own);
        let others = others.filter(|meta| meta.end_unix_nanos == 0 || overlaps(meta, from, to));
        Places { blocks: others.flat_map(|meta| meta.block_id.0).collect(), known_blocks: self.known.clone(), ingesters }
    }
}

/// Whether the query reaches to what ingesters hold.
pub(crate) fn asks_ingesters(jobs: &[(TenantId, Work)]) -> bool {
    jobs.iter().any(|(_, work)| matches!(work, Work::SearchRecent(_) | Work::SeriesRecent(_)))
}

/// Tells the jobs of a query that traces are judged as a whole, or counted once.
pub(crate) fn judge_whole_traces(jobs: &mut [(TenantId, Work)], blocklist: &Blocklist, range: TimeRange) {
    let ingesters = asks_ingesters(jobs);
    let mut views: HashMap<TenantId, View> = HashMap::new();
    for (tenant, work) in jobs {
        let view = views.entry(tenant.clone()).or_insert_with(|| View::of(blocklist, tenant));
        let beside = |part: &Option<BlockPart>| {
            let meta = part.as_ref().and_then(|part| BlockMeta::from_json(&part.meta_json, "a job").ok());
            meta.map(|meta| view.beside_block(&meta, ingesters))
        };
        match work {
            Work::SearchBlock(job) => job.places = beside(&job.part),
            Work::SeriesBlock(job) => job.places = beside(&job.part),
            Work::SeriesRecent(job) => job.places = Some(view.beside_ingesters(range)),
            Work::SearchRecent(request) => {
                let (request, places) = (Some(std::mem::take(request)), Some(view.beside_ingesters(range)));
                *work = Work::SearchRecentTraces(SearchRecentTraces { request, places });
            }
            _ => {}
        }
    }
}

/// Traces that are in several places, on their way to jobs that bring them together. Each is judged once.
pub(crate) struct Together {
    /// Makes a job for some traces.
    job: Box<dyn Fn(Vec<TracePart>) -> Work + Send + Sync>,
    seen: HashSet<(TenantId, Bytes)>,
    waiting: Vec<(TenantId, TracePart)>,
}

impl Together {
    /// `job` makes a job for some traces.
    pub(crate) fn new(job: impl Fn(Vec<TracePart>) -> Work + Send + Sync + 'static) -> Self {
        Self { job: Box::new(job), seen: HashSet::new(), waiting: Vec::new() }
    }

    /// Of a search. `ingesters`: its range reaches to what they hold.
    pub(crate) fn of_search(request: SearchRequest, ingesters: bool) -> Self {
        Self::new(move |traces| Work::SearchTraces(SearchTraces { request: Some(request.clone()), traces, ingesters }))
    }

    /// Of a metrics query.
    pub(crate) fn of_series(request: SeriesRequest, ingesters: bool) -> Self {
        Self::new(move |traces| Work::SeriesTraces(SeriesTraces { request: Some(request.clone()), traces, ingesters }))
    }

    pub(crate) fn add(&mut self, tenant: &TenantId, parts: Vec<TracePart>) {
        for part in parts {
            if self.seen.insert((tenant.clone(), part.trace_id.clone())) {
                self.waiting.push((tenant.clone(), part));
            }
        }
    }

    /// The start of the newest trace that waits.
    pub(crate) fn newest_unix_nanos(&self) -> Option<u64> {
        self.waiting.iter().map(|(_, part)| part.start_unix_nanos).max()
    }

    /// Jobs for traces that wait, newest first, each with the start of its newest: full ones, and with `all` the last ones too.
    pub(crate) fn take_jobs(&mut self, all: bool) -> Vec<(TenantId, Work, u64)> {
        if self.waiting.is_empty() || (!all && self.waiting.len() < TRACES_PER_JOB) {
            return Vec::new();
        }
        self.waiting.sort_by(|(tenant, a), (other, b)| tenant.cmp(other).then(b.start_unix_nanos.cmp(&a.start_unix_nanos)));
        let mut jobs = Vec::new();
        let mut left = Vec::new();
        for of_tenant in self.waiting.chunk_by(|(a, _), (b, _)| a == b) {
            for parts in of_tenant.chunks(TRACES_PER_JOB) {
                if !all && parts.len() < TRACES_PER_JOB {
                    left.extend_from_slice(parts);
                    continue;
                }
                let traces = parts.iter().map(|(_, part)| part.clone()).collect();
                jobs.push((parts[0].0.clone(), (self.job)(traces), parts[0].1.start_unix_nanos));
            }
        }
        self.waiting = left;
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn part(id: u8, start_unix_nanos: u64) -> TracePart {
        TracePart { trace_id: vec![id; 16].into(), start_unix_nanos, end_unix_nanos: start_unix_nanos }
    }

    #[test]
    fn a_trace_is_brought_together_once_newest_first() {
        let mut together = Together::of_search(SearchRequest::default(), true);
        together.add(&tenant("a"), (0..70).map(|id| part(id, u64::from(id))).collect());
        together.add(&tenant("a"), vec![part(3, 1000)]);
        together.add(&tenant("b"), vec![part(3, 500)]);
        assert_eq!(together.newest_unix_nanos(), Some(500));
        let ids = |job: &(TenantId, Work, u64)| match &job.1 {
            Work::SearchTraces(job) => job.traces.iter().map(|part| part.trace_id[0]).collect::<Vec<u8>>(),
            other => panic!("{other:?}"),
        };
        let jobs = together.take_jobs(false);
        assert_eq!(jobs.len(), 1);
        assert_eq!((jobs[0].0.as_str(), jobs[0].2), ("a", 69));
        assert_eq!(ids(&jobs[0]), (6..70).rev().collect::<Vec<u8>>());
        assert!(together.take_jobs(false).is_empty());
        let jobs = together.take_jobs(true);
        assert_eq!(jobs.iter().map(|job| (job.0.as_str(), ids(job))).collect::<Vec<_>>(), [("a", vec![5, 4, 3, 2, 1, 0]), ("b", vec![3])]);
        together.add(&tenant("a"), vec![part(69, 1)]);
        assert!(together.take_jobs(true).is_empty());
    }

    #[test]
    fn places_are_the_live_blocks_near_in_time() {
        let blocklist = Blocklist::new(std::time::Duration::from_secs(300), vivace_server::clock::unix_nanos);
        let block = |id: u8, start: u64, end: u64| BlockMeta {
            format: vivace_block::Format::VParquet4,
            block_id: BlockId([id; 16]),
            tenant_id: TenantId::single(),
            start_unix_nanos: start * NANOS,
            end_unix_nanos: end * NANOS,
            total_objects: 1,
            size_bytes: 1,
            compaction_level: u32::from(id > 9),
            row_groups: 1,
            bloom_shards: 1,
            footer_bytes: 0,
            dedicated_columns: Vec::new(),
            replication_factor: 0,
        };
        let added = vec![block(1, 10_000, 11_000), block(2, 11_000, 12_000), block(3, 20_000, 21_000), block(10, 0, 0)];
        let change = vivace_storage::Change { added, ..Default::default() };
        blocklist.apply(&TenantId::single(), change);
        // Its successor is in the list, so that an ingester that serves it need not answer for it.
        let merged =
            vivace_storage::Change { added: vec![block(11, 10_000, 11_000)], compacted: vec![BlockId([1; 16])], ..Default::default() };
        blocklist.apply(&TenantId::single(), merged);
        let view = View::of(&blocklist, &TenantId::single());
        let ids = |bytes: &Bytes| bytes.chunks(16).map(|id| id[0]).collect::<Vec<u8>>();
        let places = view.beside_block(&block(2, 11_000, 12_000), true);
        assert_eq!((ids(&places.blocks), ids(&places.known_blocks), places.ingesters), (vec![10, 11], vec![2, 3, 1], true));
        assert_eq!(ids(&view.beside_block(&block(3, 20_000, 21_000), false).blocks), [10]);
        assert_eq!(ids(&view.beside_block(&block(10, 0, 0), false).blocks), [2, 3, 11]);
        assert_eq!(ids(&view.beside_ingesters(TimeRange { start: 15_000, end: 17_000 }).blocks), [2, 3, 10]);
    }
}
