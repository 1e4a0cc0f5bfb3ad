//! Counting spans for metrics queries. A trace that is in one place only is counted there; the others are named, and counted once
//! they are brought together.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_block::{BlockMeta, SpanMessages, TRACE_SPREAD_NANOS, TracePart, live, part_filter};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::SearchMetrics;
use vivace_proto::vivace::v1::{Places, SeriesRequest, SeriesResponse, SeriesTraces};
use vivace_traceql::{MetricsPlan, Partial, TraceFilter};

use crate::JobError;
use crate::blocks::{Found, skipped};
use crate::elsewhere::{Elsewhere, Here, from_message};
use crate::party::Party;
use crate::querier::Querier;
use crate::whole::{TRACES_AT_ONCE, add_new};

/// What a job counted, and the traces that it could not count.
pub(crate) struct Counted {
    pub(crate) found: Found<SeriesResponse>,
    /// Traces that are in several places.
    pub(crate) split: Vec<TracePart>,
}

/// A count under way.
struct Count {
    plan: MetricsPlan,
    partial: Partial,
    metrics: SearchMetrics,
    warnings: Vec<String>,
    split: Vec<TracePart>,
}

impl Count {
    fn new(request: &SeriesRequest) -> Result<Self, JobError> {
        let plan = MetricsPlan::of_request(request).map_err(|error| JobError::Invalid(error.to_string()))?;
        let partial = plan.partial();
        Ok(Self { plan, partial, metrics: SearchMetrics::default(), warnings: Vec::new(), split: Vec::new() })
    }

    /// How far apart in time the spans of a trace are looked for: only copies matter where each span counts for itself.
    fn spread_nanos(&self) -> u64 {
        if self.plan.needs_whole_traces() { TRACE_SPREAD_NANOS } else { 0 }
    }

    /// What some part of a trace has that may count.
    fn part_filter(&self) -> TraceFilter {
        let filter = &self.plan.fetch().filter;
        if self.plan.needs_whole_traces() { part_filter(filter) } else { filter.clone() }
    }

    fn add(&mut self, response: SeriesResponse) -> Result<(), JobError> {
        let partial = Partial::from_message(response.partial.unwrap_or_default(), &self.plan)
            .map_err(|error| JobError::Internal(format!("an ingester's answer: {error}")))?;
        self.plan.merge(&mut self.partial, partial);
        let metrics = response.metrics.unwrap_or_default();
        self.metrics.inspected_traces = self.metrics.inspected_traces.saturating_add(metrics.inspected_traces);
        self.metrics.inspected_bytes += metrics.inspected_bytes;
        Ok(())
    }

    fn finish(self) -> Counted {
        let partial = self.partial.to_message();
        let metrics = SearchMetrics { inspected_spans: partial.inspected_spans, ..self.metrics };
        let result = SeriesResponse { partial: Some(partial), metrics: Some(metrics), ..SeriesResponse::default() };
        Counted { found: Found { result, warnings: self.warnings }, split: self.split }
    }
}

impl Querier {
    /// Counts the spans of some row groups, of traces that are nowhere else.
    pub(crate) async fn series_block(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SeriesRequest,
        places: &Places,
        call: Duration,
    ) -> Result<Counted, JobError> {
        let mut count = Count::new(request)?;
        let block = match self.blocks.with_block(meta.clone(), |block, _| Ok(block.clone())).await? {
            Ok((block, bytes)) => {
                count.metrics.inspected_bytes += bytes;
                block
            }
            Err(fault) => {
                count.warnings.push(skipped(&meta, fault)?);
                return Ok(count.finish());
            }
        };
        let elsewhere = Elsewhere { blocks: &self.blocks, ingesters: &self.ingesters, tenant: &meta.tenant_id, places, call };
        let row_groups = row_groups.start..row_groups.end.min(block.row_groups());
        let (fetch, filter, groups) = (count.plan.fetch().clone(), count.part_filter(), row_groups.clone());
        let parts = match self.blocks.with_reader(&block, move |block, _| block.parts(&fetch, &filter, groups)).await? {
            Ok(parts) => parts,
            Err(error) => {
                count.warnings.push(skipped(&meta, error.into())?);
                return Ok(count.finish());
            }
        };
        let split = elsewhere.also_has(&parts.traces, Here::Block, count.spread_nanos()).await?;
        add_new(&mut count.warnings, split.warnings);
        count.metrics.inspected_bytes += parts.stats.bytes + split.inspected_bytes;
        count.metrics.inspected_traces = u32::try_from(parts.stats.traces).unwrap_or(u32::MAX);
        count.split = parts.traces.iter().filter(|part| split.traces.contains(&part.trace_id)).copied().collect();
        let (plan, mut partial) = (count.plan.clone(), count.partial.clone());
        let observed = self
            .blocks
            .with_reader(&block, move |block, cancelled| {
                let wanted = |id: &TraceId| !split.traces.contains(id);
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
        Ok(count.finish())
    }

    /// The same for everything that the ingesters hold.
    pub(crate) async fn series_recent(
        &self,
        tenant: &TenantId,
        request: SeriesRequest,
        places: &Places,
        call: Duration,
    ) -> Result<Counted, JobError> {
        let request = SeriesRequest { known_blocks: places.known_blocks.clone(), ..request };
        let mut party = Party::default();
        loop {
            if let Some(counted) = self.series_of_party(&mut party, tenant, &request, places, call).await? {
                return Ok(counted);
            }
        }
    }

    /// None when something changed meanwhile.
    async fn series_of_party(
        &self,
        party: &mut Party,
        tenant: &TenantId,
        request: &SeriesRequest,
        places: &Places,
        call: Duration,
    ) -> Result<Option<Counted>, JobError> {
        let mut count = Count::new(request)?;
        let listed = self.ingesters.traces(party, tenant, request, call).await?;
        let mut times: FxHashMap<TraceId, u32> = FxHashMap::default();
        for id in listed.iter().flat_map(|traces| traces.trace_ids.as_chunks().0) {
            *times.entry(TraceId(*id)).or_default() += 1;
        }
        // What several hold for one that does not answer is one place, and so is each of its blocks: it counts once, whoever counts it.
        let held: FxHashSet<TraceId> =
            listed.iter().flat_map(|traces| traces.held_trace_ids.as_chunks().0).map(|id| TraceId(*id)).collect();
        held.into_iter().for_each(|id| *times.entry(id).or_default() += 1);
        let blocks: FxHashMap<&Bytes, &Bytes> =
            listed.iter().flat_map(|traces| &traces.held_blocks).map(|block| (&block.block_id, &block.trace_ids)).collect();
        blocks.values().flat_map(|ids| ids.as_chunks().0).for_each(|id| *times.entry(TraceId(*id)).or_default() += 1);
        let start_unix_nanos = listed.iter().map(|traces| traces.start).min().unwrap_or(0);
        let end_unix_nanos = listed.iter().map(|traces| traces.end).max().unwrap_or(0);
        let mut parts: Vec<TracePart> = times.keys().map(|id| TracePart { trace_id: *id, start_unix_nanos, end_unix_nanos }).collect();
        parts.sort_unstable_by_key(|part| part.trace_id);
        // The ingesters have just said what they have.
        let blocks = Places { ingesters: false, ..places.clone() };
        let elsewhere = Elsewhere { blocks: &self.blocks, ingesters: &self.ingesters, tenant, places: &blocks, call };
        let split = elsewhere.also_has(&parts, Here::Ingesters, count.spread_nanos()).await?;
        add_new(&mut count.warnings, split.warnings);
        count.metrics.inspected_bytes += split.inspected_bytes;
        parts.retain(|part| times.get(&part.trace_id).is_some_and(|times| *times > 1) || split.traces.contains(&part.trace_id));
        let known_traces = parts.iter().flat_map(|part| part.trace_id.0).collect::<Vec<u8>>().into();
        count.split = parts;
        let request = SeriesRequest { known_traces, ..request.clone() };
        let Some(answers) = self.ingesters.count(party, tenant, request, call).await? else { return Ok(None) };
        add_new(&mut count.warnings, answers.warning.into_iter().collect());
        for part in answers.parts {
            count.add(part)?;
        }
        Ok(Some(count.finish()))
    }

    /// Brings traces together from all places and counts them.
    pub(crate) async fn series_traces(
        &self,
        tenant: &TenantId,
        job: SeriesTraces,
        call: Duration,
    ) -> Result<Found<SeriesResponse>, JobError> {
        let mut count = Count::new(&job.request.unwrap_or_default())?;
        let parts: Vec<TracePart> = job.traces.iter().map(from_message).collect();
        let mut traces = futures::stream::iter(parts)
            .map(|part| async move { (part.trace_id, self.whole_trace(tenant, part, job.ingesters, call).await) })
            .buffer_unordered(TRACES_AT_ONCE);
        while let Some((id, whole)) = traces.next().await {
            let whole = whole?;
            add_new(&mut count.warnings, whole.warnings);
            let (spans, bytes) = whole.result;
            let (plan, mut partial) = (count.plan.clone(), count.partial);
            let counted = tokio::task::spawn_blocking(move || {
                let mut messages = SpanMessages::default();
                messages.read(&spans);
                let _ = live::observe(&plan, &mut partial, &[(id, messages.refs())], &|| false);
                partial
            });
            count.partial = counted.await.map_err(|e| JobError::Internal(format!("trace {id}: {e}")))?;
            count.metrics.inspected_traces += 1;
            count.metrics.inspected_bytes += bytes;
        }
        Ok(count.finish().found)
    }
}
