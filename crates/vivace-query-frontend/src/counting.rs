//! The jobs of a metrics query, so that each span counts once: first what is live is named and counted, then the blocks, which are
//! told what of theirs is live too, and last what several places have, which those have left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use vivace_block::BlockMeta;
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{BlockTraces, SeriesRecent, SeriesRequest, SeriesTraces};
use vivace_storage::Blocklist;

use crate::error::QueryError;
use crate::params::SearchRange;
use crate::run::Named;
use crate::split::{Request, SplitRules, of_blocks};
use crate::whole::{TRACES_PER_JOB, View};

/// A trace that a job has named, and the place of the block that has it; none of what is live.
type Naming = (TraceId, Option<u32>);

/// What is known of a metrics query's traces so far.
pub(crate) struct Counting {
    request: SeriesRequest,
    range: SearchRange,
    target_bytes_per_job: u64,
    tenants: BTreeMap<TenantId, OfTenant>,
    /// Of each job that was given out.
    jobs: Vec<(TenantId, Kind)>,
    /// Blocks that are looked into, and their size.
    pub(crate) blocks: u32,
    pub(crate) block_bytes: u64,
}

struct OfTenant {
    view: View,
    state: State,
    /// Traces that are in several places and may count.
    named: Vec<Naming>,
    /// Those that are live.
    live: HashSet<TraceId>,
    /// By block, its traces that are live too, 16 bytes each: it does not count them.
    told: HashMap<BlockId, Bytes>,
}

/// What there is to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Recent,
    /// Ingesters have not said yet what they have.
    Asked,
    Blocks,
    Together,
    Over,
}

#[derive(Clone, Copy)]
enum Kind {
    Recent,
    /// The block's place.
    Block(usize),
    Together,
}

impl Counting {
    /// Nothing known. The rules say whether ingesters are asked.
    pub(crate) fn new(request: SeriesRequest, tenants: &[TenantId], blocklist: &Blocklist, range: SearchRange, rules: SplitRules) -> Self {
        let state = if u64::from(range.end) >= rules.ingesters_since { State::Recent } else { State::Blocks };
        let of_tenant = |tenant: &TenantId| OfTenant {
            view: View::of(blocklist, tenant),
            state,
            named: Vec::new(),
            live: HashSet::new(),
            told: HashMap::new(),
        };
        Self {
            request,
            range,
            target_bytes_per_job: rules.target_bytes_per_job,
            tenants: tenants.iter().map(|tenant| (tenant.clone(), of_tenant(tenant))).collect(),
            jobs: Vec::new(),
            blocks: 0,
            block_bytes: 0,
        }
    }

    /// Takes what the job at this place has left to others.
    ///
    /// # Errors
    /// It makes no sense.
    pub(crate) fn take_named(&mut self, job: usize, named: Named) -> Result<(), QueryError> {
        let (tenant, kind) = &self.jobs[job];
        let Some(of_tenant) = self.tenants.get_mut(tenant) else { return Ok(()) };
        match *kind {
            Kind::Recent => {
                for json in &named.served {
                    let meta = BlockMeta::from_json(json, "an ingester's answer").map_err(|error| QueryError::Job(error.to_string()))?;
                    of_tenant.view.place_of(&meta);
                }
                of_tenant.named.extend(ids(&named.split).map(|id| (id, None)));
                of_tenant.live.extend(ids(&named.split));
                for BlockTraces { block_id, trace_ids } in named.live_in_blocks {
                    let Ok(block_id) = block_id[..].try_into() else { continue };
                    of_tenant.live.extend(ids(&trace_ids));
                    of_tenant.told.insert(BlockId(block_id), trace_ids);
                }
                of_tenant.state = State::Blocks;
            }
            Kind::Block(place) => of_tenant.named.extend(ids(&named.split).map(|id| (id, u32::try_from(place).ok()))),
            Kind::Together => {}
        }
        Ok(())
    }

    /// The next jobs. `all_ended`: none is left of those before.
    pub(crate) fn more_jobs(&mut self, all_ended: bool) -> Vec<(TenantId, Work)> {
        let mut jobs = Vec::new();
        for (tenant, of_tenant) in &mut self.tenants {
            let mut give = |kind, work| {
                self.jobs.push((tenant.clone(), kind));
                jobs.push((tenant.clone(), work));
            };
            if of_tenant.state == State::Recent {
                of_tenant.state = State::Asked;
                let places = Some(of_tenant.view.beside_ingesters(self.range));
                give(Kind::Recent, Work::SeriesRecent(SeriesRecent { request: Some(self.request.clone()), places }));
            }
            if of_tenant.state == State::Blocks {
                let request = Request::Series(self.request.clone());
                let split = of_blocks(&request, self.range, of_tenant.view.blocks(), self.target_bytes_per_job);
                self.blocks += split.blocks;
                self.block_bytes += split.block_bytes;
                for job in split.jobs {
                    let Some((place, work)) = of_tenant.told_of(job.work) else { continue };
                    give(Kind::Block(place), work);
                }
                of_tenant.state = State::Together;
            }
        }
        // Only now is it known of each trace who has left it alone.
        if all_ended && jobs.is_empty() {
            for (tenant, of_tenant) in &mut self.tenants {
                if of_tenant.state == State::Together {
                    of_tenant.state = State::Over;
                    for work in of_tenant.together(&self.request) {
                        self.jobs.push((tenant.clone(), Kind::Together));
                        jobs.push((tenant.clone(), work));
                    }
                }
            }
        }
        jobs
    }
}

impl OfTenant {
    /// A block's job that knows which traces are not its own to count, and the block's place.
    fn told_of(&self, work: Work) -> Option<(usize, Work)> {
        let Work::SeriesBlock(mut job) = work else { return None };
        let meta = BlockMeta::from_json(&job.part.as_ref()?.meta_json, "a job").ok()?;
        let place = self.view.place(meta.block_id)?;
        job.places = Some(self.view.beside(place, false));
        job.live_traces = self.told.get(&meta.block_id).cloned().unwrap_or_default();
        Some((place, Work::SeriesBlock(job)))
    }

    /// Jobs that count what was named, in the order of ids, so that each reads as few row groups as can be.
    fn together(&mut self, request: &SeriesRequest) -> Vec<Work> {
        self.named.sort_unstable();
        let named: Vec<&[Naming]> = self.named.chunk_by(|a, b| a.0 == b.0).collect();
        named.chunks(TRACES_PER_JOB).map(|named| self.job(request, named)).collect()
    }

    fn job(&self, request: &SeriesRequest, named: &[&[Naming]]) -> Work {
        let ids: Vec<TraceId> = named.iter().map(|namings| namings[0].0).collect();
        let live: Vec<TraceId> = ids.iter().copied().filter(|id| self.live.contains(id)).collect();
        let mut blocks: BTreeSet<usize> =
            named.iter().copied().flatten().filter_map(|(_, place)| place.map(|place| place as usize)).collect();
        let mut live_in_blocks = Vec::new();
        for (block_id, told) in &self.told {
            let told: Vec<TraceId> = crate::counting::ids(told).filter(|id| live.binary_search(id).is_ok()).collect();
            if !told.is_empty() {
                blocks.extend(self.view.place(*block_id));
                live_in_blocks.push(BlockTraces { block_id: block_id.0.to_vec().into(), trace_ids: packed(&told) });
            }
        }
        Work::SeriesTraces(SeriesTraces {
            request: Some(request.clone()),
            trace_ids: packed(&ids),
            places: Some(self.view.around(&blocks, !live.is_empty())),
            live_traces: packed(&live),
            live_in_blocks,
        })
    }
}

fn ids(packed: &[u8]) -> impl Iterator<Item = TraceId> {
    packed.as_chunks().0.iter().map(|id| TraceId(*id))
}

fn packed(ids: &[TraceId]) -> Bytes {
    ids.iter().flat_map(|id| id.0).collect()
}
