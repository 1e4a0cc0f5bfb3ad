//! The jobs of a metrics query, so that each span counts once: first what is live is named and counted, then the blocks, which are
//! told what of theirs is live too, and last what several places have, which those have left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use vivace_block::BlockMeta;
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{BlockPart, BlockTraces, SeriesBlock, SeriesRecent, SeriesRequest, SeriesTraces};

use crate::error::QueryError;
use crate::job_plan::{JobPlan, PlanRules};
use crate::params::SearchRange;
use crate::run::{NamedTraces, ids};
use crate::split_traces::TRACES_PER_JOB;
use crate::view::View;

/// A trace that a job has named, and the place of the block that has it; none of what is live.
type Naming = (TraceId, Option<u32>);

/// What is known of a metrics query's traces so far.
pub(crate) struct Counting {
    request: SeriesRequest,
    range: SearchRange,
    target_bytes_per_job: u64,
    tenants: BTreeMap<TenantId, TenantCounting>,
    /// Of each job that was given out.
    jobs: Vec<(TenantId, JobKind)>,
    /// Blocks that are looked into, and their size.
    pub(crate) blocks: u32,
    pub(crate) block_bytes: u64,
}

struct TenantCounting {
    view: View,
    next: Phase,
    /// Traces that are in several places and may count.
    named: Vec<Naming>,
    /// Those that are live.
    live: HashSet<TraceId>,
    /// By block, its traces that are live too, 16 bytes each: it does not count them.
    live_in_blocks: HashMap<BlockId, Bytes>,
}

/// What there is to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Live,
    /// Nothing, until ingesters have said what they have.
    LiveIsAsked,
    Blocks,
    SplitTraces,
    Over,
}

#[derive(Clone, Copy)]
enum JobKind {
    Live,
    /// The block's place.
    Block(Option<usize>),
    SplitTraces,
}

impl Counting {
    /// Nothing known. The rules say whether ingesters are asked.
    pub(crate) fn new(request: SeriesRequest, views: BTreeMap<TenantId, View>, range: SearchRange, rules: PlanRules) -> Self {
        let next = if rules.asks_ingesters(range) { Phase::Live } else { Phase::Blocks };
        let of_tenant = |view| TenantCounting { view, next, named: Vec::new(), live: HashSet::new(), live_in_blocks: HashMap::new() };
        Self {
            request,
            range,
            target_bytes_per_job: rules.target_bytes_per_job,
            tenants: views.into_iter().map(|(tenant, view)| (tenant, of_tenant(view))).collect(),
            jobs: Vec::new(),
            blocks: 0,
            block_bytes: 0,
        }
    }

    /// Takes what the job at this place has left to others.
    ///
    /// # Errors
    /// It makes no sense.
    pub(crate) fn take_named(&mut self, job: usize, named: NamedTraces) -> Result<(), QueryError> {
        let (tenant, kind) = &self.jobs[job];
        let Some(of_tenant) = self.tenants.get_mut(tenant) else { return Ok(()) };
        match *kind {
            JobKind::Live => of_tenant.take_live(named)?,
            JobKind::Block(place) => {
                let place = place.and_then(|place| u32::try_from(place).ok());
                of_tenant.named.extend(ids(&named.split).map(|id| (id, place)));
            }
            JobKind::SplitTraces => {}
        }
        Ok(())
    }

    /// The next jobs. `all_ended`: none is left of those before.
    pub(crate) fn more_jobs(&mut self, all_ended: bool) -> Vec<(TenantId, Work)> {
        let mut jobs = Vec::new();
        for (tenant, of_tenant) in &mut self.tenants {
            if of_tenant.next == Phase::Live {
                of_tenant.next = Phase::LiveIsAsked;
                let places = Some(of_tenant.view.beside_ingesters(self.range));
                let work = Work::SeriesRecent(SeriesRecent { request: Some(self.request.clone()), places });
                self.jobs.push((tenant.clone(), JobKind::Live));
                jobs.push((tenant.clone(), work));
            }
            if of_tenant.next == Phase::Blocks {
                of_tenant.next = Phase::SplitTraces;
                let plan = of_tenant.plan_blocks(tenant, &self.request, self.range, self.target_bytes_per_job);
                self.blocks += plan.blocks;
                self.block_bytes += plan.block_bytes;
                self.jobs.extend(plan.jobs.iter().map(|job| (tenant.clone(), JobKind::Block(job.block))));
                jobs.extend(plan.into_jobs());
            }
        }
        // Only now is it known of each trace who has left it alone.
        if all_ended && jobs.is_empty() {
            for (tenant, of_tenant) in &mut self.tenants {
                if of_tenant.next == Phase::SplitTraces {
                    of_tenant.next = Phase::Over;
                    for work in of_tenant.split_trace_jobs(&self.request) {
                        self.jobs.push((tenant.clone(), JobKind::SplitTraces));
                        jobs.push((tenant.clone(), work));
                    }
                }
            }
        }
        jobs
    }
}

impl TenantCounting {
    fn take_live(&mut self, named: NamedTraces) -> Result<(), QueryError> {
        for json in &named.served {
            let meta = BlockMeta::from_json(json, "an ingester's answer").map_err(|error| QueryError::Job(error.to_string()))?;
            self.view.add(&meta);
        }
        self.named.extend(ids(&named.split).map(|id| (id, None)));
        self.live.extend(ids(&named.split));
        for BlockTraces { block_id, trace_ids } in named.live_in_blocks {
            let Ok(block_id) = block_id[..].try_into() else { continue };
            self.live.extend(ids(&trace_ids));
            self.live_in_blocks.insert(BlockId(block_id), trace_ids);
        }
        self.next = Phase::Blocks;
        Ok(())
    }

    /// Jobs of blocks, each of which knows which traces are not its own to count.
    fn plan_blocks(&self, tenant: &TenantId, request: &SeriesRequest, range: SearchRange, target_bytes_per_job: u64) -> JobPlan {
        let mut plan = JobPlan::default();
        plan.add_blocks(tenant, &self.view, range, target_bytes_per_job, |place, meta| {
            let places = self.view.beside(place, false);
            let live_traces = self.live_in_blocks.get(&meta.block_id).cloned().unwrap_or_default();
            move |part: BlockPart| {
                let (places, live_traces) = (Some(places.clone()), live_traces.clone());
                Work::SeriesBlock(SeriesBlock { request: Some(request.clone()), part: Some(part), places, live_traces })
            }
        });
        plan
    }

    /// Jobs that count what was named, in the order of ids, so that each reads as few row groups as can be.
    fn split_trace_jobs(&mut self, request: &SeriesRequest) -> Vec<Work> {
        self.named.sort_unstable();
        let named: Vec<&[Naming]> = self.named.chunk_by(|a, b| a.0 == b.0).collect();
        named.chunks(TRACES_PER_JOB).map(|named| self.split_trace_job(request, named)).collect()
    }

    fn split_trace_job(&self, request: &SeriesRequest, named: &[&[Naming]]) -> Work {
        let traces: Vec<TraceId> = named.iter().map(|namings| namings[0].0).collect();
        let live: Vec<TraceId> = traces.iter().copied().filter(|id| self.live.contains(id)).collect();
        let mut blocks: BTreeSet<usize> =
            named.iter().copied().flatten().filter_map(|(_, place)| place.map(|place| place as usize)).collect();
        let mut live_in_blocks = Vec::new();
        for (block_id, in_block) in &self.live_in_blocks {
            let in_block: Vec<TraceId> = ids(in_block).filter(|id| live.binary_search(id).is_ok()).collect();
            if !in_block.is_empty() {
                blocks.extend(self.view.place(*block_id));
                live_in_blocks.push(BlockTraces { block_id: block_id.0.to_vec().into(), trace_ids: packed(&in_block) });
            }
        }
        Work::SeriesTraces(SeriesTraces {
            request: Some(request.clone()),
            trace_ids: packed(&traces),
            places: Some(self.view.around(&blocks, !live.is_empty())),
            live_traces: packed(&live),
            live_in_blocks,
        })
    }
}

fn packed(ids: &[TraceId]) -> Bytes {
    ids.iter().flat_map(|id| id.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{block, ids, view};

    #[test]
    fn blocks_are_told_what_of_theirs_is_live_and_what_is_left_is_counted_last() {
        let views = view(vec![block(1, 10_000, 11_000), block(2, 11_000, 12_000)]);
        let rules = PlanRules { target_bytes_per_job: 100, ingesters_since: 0 };
        let mut counting = Counting::new(SeriesRequest::default(), views, SearchRange { start: 9_000, end: 13_000 }, rules);
        assert!(matches!(counting.more_jobs(true)[..], [(_, Work::SeriesRecent(_))]));
        assert!(counting.more_jobs(false).is_empty(), "it is not known yet what is live");

        let live_in_blocks = vec![BlockTraces { block_id: vec![2; 16].into(), trace_ids: vec![7; 16].into() }];
        let served = vec![block(3, 12_000, 12_500).to_json().into()];
        counting.take_named(0, NamedTraces { split: vec![7; 16].into(), live_in_blocks, served }).unwrap();
        let jobs = counting.more_jobs(true);
        let told = jobs.iter().map(|(_, work)| {
            let Work::SeriesBlock(job) = work else { panic!("{work:?}") };
            (ids(&job.places.as_ref().unwrap().blocks), ids(&job.live_traces))
        });
        let want = [(vec![1, 2], vec![]), (vec![1, 3], vec![7]), (vec![2, 3], vec![])];
        assert_eq!(told.collect::<Vec<_>>(), want, "the newest first, with the one that an ingester has written since");

        counting.take_named(3, NamedTraces { split: vec![8; 16].into(), ..Default::default() }).unwrap();
        assert!(counting.more_jobs(false).is_empty(), "another job may name more");
        let jobs = counting.more_jobs(true);
        let [(_, Work::SeriesTraces(job))] = &jobs[..] else { panic!("{jobs:?}") };
        let places = job.places.as_ref().unwrap();
        assert_eq!((ids(&job.trace_ids), ids(&job.live_traces)), (vec![7, 8], vec![7]));
        assert_eq!((ids(&places.blocks), places.ingesters), (vec![1, 2, 3], true));
        assert!(counting.more_jobs(true).is_empty());
    }
}
