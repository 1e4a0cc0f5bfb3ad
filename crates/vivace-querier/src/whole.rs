//! Searches whose conditions several spans of a trace decide together. A trace that is in one place only is judged there;
//! the others are named, and judged once they are brought together.

use std::ops::Range;
use std::time::Duration;

use futures::StreamExt;
use rustc_hash::FxHashSet;
use vivace_block::{BlockMeta, SpanMessages, TRACE_SPREAD_NANOS, TracePart, live, part_filter};
use vivace_core::{TenantId, TraceId};
use vivace_proto::otlp::ResourceSpans;
use vivace_proto::tempopb::{SearchMetrics, SearchRequest, SearchResponse, TraceByIdRequest};
use vivace_proto::vivace::v1::{FindInBlocks, Places, SearchPartsRequest, SearchTraces};
use vivace_traceql::SearchCombiner;

use crate::JobError;
use crate::blocks::{Found, skipped};
use crate::elsewhere::{Elsewhere, Here, from_message, united};
use crate::querier::Querier;
use crate::search::{plan, stop_if};

const SECOND: u64 = 1_000_000_000;
/// Traces that are brought together at the same time.
pub(crate) const TRACES_AT_ONCE: usize = 8;
/// Once the ingesters gave so many matches, no more are asked for in place of those that are split.
const MATCHES_MAX: u32 = 20_000;

/// What a job found, and the traces that it could not judge.
pub(crate) struct Judged {
    pub(crate) found: Found<SearchResponse>,
    /// Traces that may match and are in several places, ascending by id.
    pub(crate) split: Vec<TracePart>,
}

impl Querier {
    fn elsewhere<'a>(&'a self, tenant: &'a TenantId, places: &'a Places, call: Duration) -> Elsewhere<'a> {
        Elsewhere { blocks: &self.blocks, ingesters: &self.ingesters, tenant, places, call }
    }

    /// The matching traces of some row groups that are nowhere else, and those that are elsewhere too and may match.
    pub(crate) async fn search_block_parts(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchRequest,
        places: &Places,
        call: Duration,
    ) -> Result<Judged, JobError> {
        let plan = plan(request)?;
        let weaker = part_filter(&plan.fetch().filter);
        let (limit, spans_per_spanset) = (request.limit as usize, request.spans_per_span_set as usize);
        let mut combiner = SearchCombiner::new(limit, plan.most_recent());
        let mut judged = Judged { found: Found { result: SearchResponse::default(), warnings: Vec::new() }, split: Vec::new() };
        let mut metrics = SearchMetrics::default();
        let opened = self.blocks.with_block(meta.clone(), |block, _| Ok(block.clone())).await?;
        let block = match opened {
            Ok((block, bytes)) => {
                metrics.inspected_bytes += bytes;
                block
            }
            Err(fault) => {
                judged.found.warnings.push(skipped(&meta, fault)?);
                return Ok(judged);
            }
        };
        let elsewhere = self.elsewhere(&meta.tenant_id, places, call);
        // One after another, so that a search that is soon complete reads no more.
        for group in row_groups.start..row_groups.end.min(block.row_groups()) {
            let (fetch, filter) = (plan.fetch().clone(), weaker.clone());
            let found = self.blocks.with_reader(&block, move |block, _| block.parts(&fetch, &filter, group..group + 1)).await?;
            let parts = match found {
                Ok(parts) => parts,
                Err(error) => {
                    judged.found.warnings.push(skipped(&meta, error.into())?);
                    break;
                }
            };
            let split = elsewhere.also_has(&parts.traces, Here::Block, TRACE_SPREAD_NANOS).await?;
            add_new(&mut judged.found.warnings, split.warnings);
            metrics.inspected_traces = metrics.inspected_traces.saturating_add(u32::try_from(parts.stats.traces).unwrap_or(u32::MAX));
            metrics.inspected_bytes += parts.stats.bytes + split.inspected_bytes;
            judged.split.extend(parts.traces.iter().filter(|part| split.traces.contains(&part.trace_id)));
            let (plan, mut taken) = (plan.clone(), combiner);
            let searched;
            (combiner, searched) = self
                .blocks
                .with_reader(&block, move |block, cancelled| {
                    let stats = block.search_parts(plan.fetch(), &parts, &|id| !split.traces.contains(id), &mut |batch| {
                        plan.evaluate(&batch, spans_per_spanset).into_iter().for_each(|trace| taken.add(trace));
                        stop_if(cancelled.is_cancelled() || taken.is_complete())
                    });
                    (taken, stats)
                })
                .await?;
            match searched {
                Ok(stats) => {
                    metrics.inspected_spans += stats.spans;
                    metrics.inspected_bytes += stats.bytes;
                }
                Err(error) => {
                    judged.found.warnings.push(skipped(&meta, error.into())?);
                    break;
                }
            }
            if combiner.is_complete() {
                break;
            }
        }
        judged.found.result = SearchResponse { traces: combiner.finish(), metrics: Some(metrics) };
        Ok(judged)
    }

    /// The same for everything that the ingesters hold.
    pub(crate) async fn search_recent_parts(
        &self,
        tenant: &TenantId,
        request: SearchRequest,
        places: &Places,
        call: Duration,
    ) -> Result<Judged, JobError> {
        let (limit, mut asked) = (request.limit, request.limit);
        loop {
            let parts_request = SearchPartsRequest {
                request: Some(SearchRequest { limit: asked, ..request.clone() }),
                known_blocks: places.known_blocks.clone(),
            };
            let answers = self.ingesters.ask_recent(tenant, parts_request, call, |mut c, r| async move { c.search_parts(r).await }).await?;
            let mut warnings: Vec<String> = answers.warning.into_iter().collect();
            let candidates = united(answers.parts.iter().flat_map(|part| &part.candidates).map(from_message));
            // One ingester that has all in one place need not be asked again.
            let ingesters = answers.parts.iter().map(|part| part.places).sum::<u32>() > 1;
            let places = Places { ingesters, ..places.clone() };
            let elsewhere = self.elsewhere(tenant, &places, call);
            let split = elsewhere.also_has(&candidates, Here::Ingesters, TRACE_SPREAD_NANOS).await?;
            add_new(&mut warnings, split.warnings);
            let has_more = answers.parts.iter().any(|part| part.more);
            let not_judged: FxHashSet<String> = split.traces.iter().map(TraceId::trimmed_hex).collect();
            let mut found: Vec<SearchResponse> = answers.parts.into_iter().filter_map(|part| part.found).collect();
            found.iter_mut().for_each(|part| part.traces.retain(|trace| !not_judged.contains(&trace.trace_id)));
            let mut result = crate::search::combined(found, limit as usize);
            if let Some(metrics) = &mut result.metrics {
                metrics.inspected_bytes += split.inspected_bytes;
            }
            // Matches that are split may have stood in the way of others.
            if has_more && result.traces.len() < limit as usize && asked < MATCHES_MAX {
                asked = asked.saturating_mul(8);
                continue;
            }
            let split = candidates.into_iter().filter(|part| split.traces.contains(&part.trace_id)).collect();
            return Ok(Judged { found: Found { result, warnings }, split });
        }
    }

    /// Brings traces together from all places and judges them.
    pub(crate) async fn search_traces(
        &self,
        tenant: &TenantId,
        job: SearchTraces,
        call: Duration,
    ) -> Result<Found<SearchResponse>, JobError> {
        let request = job.request.unwrap_or_default();
        let plan = plan(&request)?;
        let spans_per_spanset = request.spans_per_span_set as usize;
        let mut combiner = SearchCombiner::new(request.limit as usize, plan.most_recent());
        let mut metrics = SearchMetrics::default();
        let mut warnings = Vec::new();
        let parts = job.traces.iter().map(from_message);
        let mut traces = futures::stream::iter(parts)
            .map(|part| async move { (part.trace_id, self.whole_trace(tenant, part, job.ingesters, call).await) })
            .buffered(TRACES_AT_ONCE);
        while let Some((id, whole)) = traces.next().await {
            let whole = whole?;
            add_new(&mut warnings, whole.warnings);
            let (spans, bytes) = whole.result;
            let plan = plan.clone();
            let judged = tokio::task::spawn_blocking(move || {
                let mut messages = SpanMessages::default();
                messages.read(&spans);
                let batch = live::batch(plan.fetch(), &[(id, messages.refs())]);
                (plan.evaluate(&batch, spans_per_spanset), batch.spans.len() as u64)
            });
            let (found, spans) = judged.await.map_err(|e| JobError::Internal(format!("trace {id}: {e}")))?;
            metrics.inspected_traces += 1;
            metrics.inspected_spans += spans;
            metrics.inspected_bytes += bytes;
            found.into_iter().for_each(|trace| combiner.add(trace));
            if combiner.is_complete() {
                break;
            }
        }
        Ok(Found { result: SearchResponse { traces: combiner.finish(), metrics: Some(metrics) }, warnings })
    }

    /// All spans of a trace, each once, and the bytes that were read for them.
    pub(crate) async fn whole_trace(
        &self,
        tenant: &TenantId,
        part: TracePart,
        ingesters: bool,
        call: Duration,
    ) -> Result<Found<(Vec<ResourceSpans>, u64)>, JobError> {
        let seconds = |nanos: u64| u32::try_from(nanos / SECOND).unwrap_or(u32::MAX);
        let trace_id = bytes::Bytes::copy_from_slice(&part.trace_id.0);
        let find = FindInBlocks {
            trace_id: trace_id.clone(),
            first_block: bytes::Bytes::from_static(&[0; 16]),
            last_block: bytes::Bytes::from_static(&[0xff; 16]),
            start: seconds(part.start_unix_nanos.saturating_sub(TRACE_SPREAD_NANOS)),
            end: seconds(part.end_unix_nanos.saturating_add(TRACE_SPREAD_NANOS)).saturating_add(1),
        };
        let recent = async {
            if !ingesters {
                return Ok(None);
            }
            let request = TraceByIdRequest { trace_id, allow_partial_trace: true, ..Default::default() };
            self.find_recent(tenant, request, call).await.map(Some)
        };
        let (stored, recent) = futures::try_join!(self.blocks.find(tenant, &find), recent)?;
        let mut warnings = Vec::new();
        let (mut spans, mut bytes) = (Vec::new(), 0);
        for found in [Some(stored), recent].into_iter().flatten() {
            add_new(&mut warnings, found.warnings);
            bytes += found.result.metrics.map_or(0, |metrics| metrics.inspected_bytes);
            spans.extend(found.result.trace.map(|trace| trace.resource_spans));
        }
        Ok(Found { result: (vivace_core::combine::combine(spans), bytes), warnings })
    }
}

pub(crate) fn add_new(warnings: &mut Vec<String>, more: Vec<String>) {
    for warning in more {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}
