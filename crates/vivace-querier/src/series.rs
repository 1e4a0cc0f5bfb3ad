//! Counting spans for metrics queries. A trace that is in one place only is counted there; the others are named, and counted once
//! they are brought together. Who counts what is decided in `counting`.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use vivace_block::{BlockMeta, part_filter};
use vivace_core::budget::Budget;
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::tempopb::SearchMetrics;
use vivace_proto::vivace::v1::{BlockTraces, Places, SeriesBlock, SeriesRequest, SeriesResponse, SeriesTraces};
use vivace_traceql::{Attribute, Batch, Fetch, MetricsPlan, Partial, TraceFilter};

use crate::JobError;
use crate::blocks::{Found, skipped};
use crate::counting::{NamedTraces, left_by, share};
use crate::error::add_new;
use crate::join::{JoinStats, JoinedQuery, TracesToJoin, served};
use crate::querier::Querier;
use crate::wire::{ids_of, packed};

/// What a job counted, and the traces that it could not count.
pub(crate) struct Counted {
    pub(crate) found: Found<SeriesResponse>,
    /// Traces that may count and are in several places.
    pub(crate) split: Vec<TraceId>,
    /// Of blocks, the traces that are live too.
    pub(crate) live_in_blocks: Vec<BlockTraces>,
    /// Blocks that ingesters have written and that the query did not know.
    pub(crate) served: Vec<BlockMeta>,
}

/// A count under way.
struct Count {
    plan: MetricsPlan,
    partial: Partial,
    metrics: SearchMetrics,
    warnings: Vec<String>,
    split: Vec<TraceId>,
}

impl Count {
    fn new(request: &SeriesRequest, budget: &Budget) -> Result<Self, JobError> {
        let plan = MetricsPlan::of_request(request).map_err(|error| JobError::Invalid(error.to_string()))?;
        let partial = plan.partial_within(budget);
        Ok(Self { plan, partial, metrics: SearchMetrics::default(), warnings: Vec::new(), split: Vec::new() })
    }

    /// What some part of a trace has that may count.
    fn part_filter(&self) -> TraceFilter {
        let filter = &self.plan.fetch().filter;
        if self.plan.needs_whole_traces() { part_filter(filter) } else { filter.clone() }
    }

    fn add(&mut self, response: SeriesResponse) -> Result<(), JobError> {
        self.plan
            .merge_message(&mut self.partial, response.partial.unwrap_or_default())
            .map_err(|error| JobError::Internal(format!("an ingester's answer: {error}")))?;
        self.partial.check()?;
        let metrics = response.metrics.unwrap_or_default();
        self.metrics.inspected_traces = self.metrics.inspected_traces.saturating_add(metrics.inspected_traces);
        self.metrics.inspected_bytes += metrics.inspected_bytes;
        self.split.extend(ids_of(&response.split));
        Ok(())
    }

    fn finish(mut self) -> Result<Counted, JobError> {
        // What has not fitted is no answer.
        self.partial.check()?;
        let partial = self.partial.to_message();
        let metrics = SearchMetrics { inspected_spans: partial.inspected_spans, ..self.metrics };
        let result = SeriesResponse { partial: Some(partial), metrics: Some(metrics), ..SeriesResponse::default() };
        self.split.sort_unstable();
        self.split.dedup();
        let found = Found { result, warnings: self.warnings };
        Ok(Counted { found, split: self.split, live_in_blocks: Vec::new(), served: Vec::new() })
    }
}

impl JoinedQuery for MetricsPlan {
    type State = Partial;

    fn fetch(&self) -> &Fetch {
        self.fetch()
    }

    fn take(&self, partial: &mut Partial, batch: &Batch, stop: &dyn Fn() -> bool) -> ControlFlow<()> {
        self.observe(partial, batch, stop)
    }

    fn with_attributes(&self, names: &dyn Fn() -> Vec<Attribute>) -> Option<Self> {
        self.wants_all_attributes().then(|| self.clone().with_attributes(names()))
    }
}

impl Querier {
    /// Counts the spans of some row groups, of traces that are nowhere else.
    pub(crate) async fn series_block(&self, meta: BlockMeta, row_groups: Range<usize>, job: SeriesBlock) -> Result<Counted, JobError> {
        let mut count = Count::new(&job.request.unwrap_or_default(), &self.budget)?;
        let block = match self.blocks.with_block(meta.clone(), |block, _| Ok(block.clone())).await? {
            Ok((block, bytes)) => {
                count.metrics.inspected_bytes += bytes;
                block
            }
            Err(fault) => {
                count.warnings.push(skipped(&meta, fault)?);
                return count.finish();
            }
        };
        let row_groups = row_groups.start..row_groups.end.min(block.row_groups());
        let (fetch, filter, groups) = (count.plan.fetch().clone(), count.part_filter(), row_groups.clone());
        let parts = match self.blocks.with_reader(&block, move |block, _| block.parts(&fetch, &filter, groups)).await? {
            Ok(parts) => parts,
            Err(error) => {
                count.warnings.push(skipped(&meta, error.into())?);
                return count.finish();
            }
        };
        let ids: Vec<TraceId> = parts.traces.iter().map(|part| part.trace_id).collect();
        let neighbours = self.blocks.metas(&meta.tenant_id, &job.places.unwrap_or_default().blocks).await?;
        let also = self.blocks.all_holding(neighbours, &ids, &mut count.metrics.inspected_bytes).await?;
        let mut left: FxHashSet<TraceId> = ids_of(&job.live_traces).collect();
        left.extend(also.into_iter().flat_map(|(_, ids)| ids));
        count.metrics.inspected_bytes += parts.stats.bytes;
        count.metrics.inspected_traces = u32::try_from(parts.stats.traces).unwrap_or(u32::MAX);
        count.split = ids.into_iter().filter(|id| left.contains(id)).collect();
        let (plan, mut partial) = (count.plan.clone(), count.partial.clone());
        let observed = self
            .blocks
            .with_reader(&block, move |block, cancelled| {
                let wanted = |id: &TraceId| !left.contains(id);
                block.observe(&plan, &mut partial, row_groups, &wanted, &|| cancelled.is_cancelled()).map(|stats| (partial, stats))
            })
            .await?;
        match observed {
            Ok((partial, stats)) => {
                count.partial = partial;
                count.metrics.inspected_bytes += stats.bytes;
            }
            // What was counted until then is left out too: nothing is better than a part that looks like all.
            Err(error) => count.warnings.push(skipped(&meta, error.into())?),
        }
        count.finish()
    }

    /// The same for what is live, and which traces it shares with blocks: those of `places` and those that ingesters have written
    /// since.
    pub(crate) async fn series_recent(
        &self,
        tenant: &TenantId,
        request: SeriesRequest,
        places: &Places,
        call: Duration,
    ) -> Result<Counted, JobError> {
        let request = SeriesRequest { known_blocks: places.known_blocks.clone(), ..request };
        let listed = self.blocks.metas(tenant, &places.blocks).await?;
        let mut failed = Vec::new();
        loop {
            let mut count = Count::new(&request, &self.budget)?;
            let mut round = self.ingesters.begin_counting(&mut failed, tenant, &request, call).await?;
            let named = round.take_named();
            let served = served(tenant, round.served())?;
            let mut in_blocks: FxHashSet<TraceId> = FxHashSet::default();
            let mut live_in_blocks = Vec::new();
            let blocks = listed.iter().chain(&served);
            for (block, held) in self.live_in(blocks.cloned(), &named, &mut count.metrics.inspected_bytes).await? {
                in_blocks.extend(&held);
                let (block_id, trace_ids) = (block.block_id.0.to_vec().into(), packed(&held).into());
                live_in_blocks.push(BlockTraces { block_id, trace_ids });
            }
            let shares = share(&named, &in_blocks);
            let Some(counts) = self.ingesters.count(&mut failed, round, shares, call).await? else { continue };
            add_new(&mut count.warnings, counts.warning.into_iter().collect());
            for mut part in counts.parts {
                add_new(&mut count.warnings, std::mem::take(&mut part.warnings));
                count.add(part)?;
            }
            return Ok(Counted { live_in_blocks, served, ..count.finish()? });
        }
    }

    /// Blocks that have some of the traces that ingesters have named, each with those.
    async fn live_in(
        &self,
        blocks: impl Iterator<Item = BlockMeta>,
        named: &[Vec<NamedTraces>],
        bytes: &mut u64,
    ) -> Result<Vec<(BlockMeta, Vec<TraceId>)>, JobError> {
        let mut holding = Vec::new();
        for block in blocks {
            let may_be_there = named.iter().flatten().filter(|group| group.may_be_in(&block));
            let mut ids: Vec<TraceId> = may_be_there.flat_map(|group| &group.traces).copied().collect();
            if ids.is_empty() {
                continue;
            }
            ids.sort_unstable();
            ids.dedup();
            let held = self.blocks.holding(block.clone(), ids.into(), bytes).await?;
            if !held.is_empty() {
                holding.push((block, held));
            }
        }
        Ok(holding)
    }

    /// Brings traces together from the places that have not counted them, and counts them.
    pub(crate) async fn series_traces(
        &self,
        tenant: &TenantId,
        job: SeriesTraces,
        call: Duration,
    ) -> Result<Found<SeriesResponse>, JobError> {
        let mut count = Count::new(&job.request.clone().unwrap_or_default(), &self.budget)?;
        let wanted = self.left_places(tenant, job, &mut count.metrics.inspected_bytes).await?;
        let joined = self.join_traces(tenant, wanted, Arc::new(count.plan.clone()), count.partial, call).await?;
        let JoinStats { traces, bytes } = joined.result.1;
        count.partial = joined.result.0;
        count.metrics.inspected_traces += traces;
        count.metrics.inspected_bytes += bytes;
        count.warnings = joined.warnings;
        Ok(count.finish()?.found)
    }

    /// Of all places that have the traces, those that have left them to this job.
    async fn left_places(&self, tenant: &TenantId, job: SeriesTraces, bytes: &mut u64) -> Result<TracesToJoin, JobError> {
        let ids: Vec<TraceId> = ids_of(&job.trace_ids).collect();
        let mut wanted = self.all_places(tenant, ids, &job.places.unwrap_or_default(), bytes).await?;
        wanted.live = ids_of(&job.live_traces).collect();
        let live: FxHashSet<TraceId> = wanted.live.iter().copied().collect();
        let told: FxHashMap<BlockId, FxHashSet<TraceId>> = job
            .live_in_blocks
            .iter()
            .filter_map(|told| Some((BlockId(told.block_id[..].try_into().ok()?), ids_of(&told.trace_ids).collect())))
            .collect();
        let mut holders: FxHashMap<TraceId, Vec<usize>> = FxHashMap::default();
        for (block, (_, held)) in wanted.blocks.iter().enumerate() {
            held.iter().for_each(|id| holders.entry(*id).or_default().push(block));
        }
        let metas: Vec<BlockMeta> = wanted.blocks.iter().map(|(meta, _)| meta.clone()).collect();
        for (meta, held) in &mut wanted.blocks {
            held.retain(|id| {
                let holders: Vec<&BlockMeta> = holders.get(id).into_iter().flatten().map(|block| &metas[*block]).collect();
                let is_told = |block: &BlockMeta| told.get(&block.block_id).is_some_and(|told| told.contains(id));
                left_by(&holders, live.contains(id), is_told).iter().any(|block| block.block_id == meta.block_id)
            });
        }
        Ok(wanted)
    }
}
