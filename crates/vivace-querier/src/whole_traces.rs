//! Searches whose conditions several spans of a trace decide together. A trace that is in one place only is judged there;
//! the others are named, and judged once they are brought together.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tonic::{Request, Response, Status};
use vivace_block::{BlockMeta, part_filter};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::{SearchMetrics, SearchRequest};
use vivace_proto::vivace::v1::recent_client::RecentClient;
use vivace_proto::vivace::v1::{BlockTraces, Places, SearchPartsRequest, SearchPartsResponse, SearchTraces};
use vivace_ring::Connection;
use vivace_traceql::{Batch, Fetch, SearchCombiner, SearchPlan, search_limit};

use crate::JobError;
use crate::blocks::{Found, skipped};
use crate::error::add_new;
use crate::join::{JoinStats, JoinedQuery};
use crate::other_places::{OtherPlaces, PartsFrom, united};
use crate::querier::Querier;
use crate::search::{Matches, Matching, plan, stop_if};
use crate::wire::{ids_of, trace_part};

/// Once the ingesters gave so many matches, no more are asked for in place of those that are split.
const MATCHES_MAX: u32 = 20_000;

/// What a job found, and the traces that it could not judge.
pub(crate) struct SearchedParts {
    pub(crate) found: Found<Matches>,
    /// Traces that may match and are in several places, ascending.
    pub(crate) split: Vec<TraceId>,
    /// Which of them, if they are live, blocks have.
    pub(crate) live_in_blocks: Vec<BlockTraces>,
}

impl Querier {
    fn other_places<'a>(&'a self, tenant: &'a TenantId, places: &'a Places, call: Duration) -> OtherPlaces<'a> {
        OtherPlaces { blocks: &self.blocks, ingesters: &self.ingesters, tenant, places, call }
    }

    /// The matching traces of some row groups that are nowhere else, and those that are elsewhere too and may match.
    pub(crate) async fn search_block_parts(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchRequest,
        places: &Places,
        call: Duration,
    ) -> Result<SearchedParts, JobError> {
        let plan = plan(request)?;
        let weaker = part_filter(&plan.fetch().filter);
        let (limit, spans_per_spanset) = (search_limit(request), request.spans_per_span_set as usize);
        let mut combiner = SearchCombiner::within(&self.budget, limit, plan.most_recent());
        let (mut metrics, mut warnings, mut named) = (SearchMetrics::default(), Vec::new(), Vec::new());
        let searched_parts = |combiner, metrics, warnings, split| SearchedParts {
            found: Found::of(combiner, metrics, warnings),
            split,
            live_in_blocks: Vec::new(),
        };
        let opened = self.blocks.with_block(meta.clone(), |block, _| Ok(block.clone())).await?;
        let block = match opened {
            Ok((block, bytes)) => {
                metrics.inspected_bytes += bytes;
                block
            }
            Err(fault) => {
                warnings.push(skipped(&meta, fault)?);
                return Ok(searched_parts(combiner, metrics, warnings, named));
            }
        };
        let others = self.other_places(&meta.tenant_id, places, call);
        // One after another, so that a search that is soon complete reads no more.
        for group in row_groups.start..row_groups.end.min(block.row_groups()) {
            let (fetch, filter) = (plan.fetch().clone(), weaker.clone());
            let found = self.blocks.with_reader(&block, move |block, _| block.parts(&fetch, &filter, group..group + 1)).await?;
            let parts = match found {
                Ok(parts) => parts,
                Err(error) => {
                    warnings.push(skipped(&meta, error.into())?);
                    break;
                }
            };
            let also = others.also_have(&parts.traces, PartsFrom::Block).await?;
            add_new(&mut warnings, also.warnings);
            metrics.inspected_traces = metrics.inspected_traces.saturating_add(u32::try_from(parts.stats.traces).unwrap_or(u32::MAX));
            metrics.inspected_bytes += parts.stats.bytes + also.inspected_bytes;
            named.extend(parts.traces.iter().map(|part| part.trace_id).filter(|id| also.traces.contains(id)));
            let (plan, mut taken) = (plan.clone(), combiner);
            let searched;
            (combiner, searched) = self
                .blocks
                .with_reader(&block, move |block, cancelled| {
                    let stats = block.search_parts(plan.fetch(), &parts, &|id| !also.traces.contains(id), &mut |batch| {
                        plan.evaluate_each(&batch, spans_per_spanset, &|| cancelled.is_cancelled(), &mut |trace| {
                            taken.add(trace);
                            stop_if(taken.is_complete())
                        })
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
                    warnings.push(skipped(&meta, error.into())?);
                    break;
                }
            }
            if combiner.is_complete() {
                break;
            }
        }
        combiner.check_any()?;
        Ok(searched_parts(combiner, metrics, warnings, named))
    }

    /// The same for everything that the ingesters hold.
    pub(crate) async fn search_recent_parts(
        &self,
        tenant: &TenantId,
        request: SearchRequest,
        places: &Places,
        call: Duration,
    ) -> Result<SearchedParts, JobError> {
        let limit = search_limit(&request);
        let mut asked = u32::try_from(limit).unwrap_or(u32::MAX);
        loop {
            let parts_request = SearchPartsRequest {
                request: Some(SearchRequest { limit: asked, ..request.clone() }),
                known_blocks: places.known_blocks.clone(),
            };
            // Which of them are wanted is known at the end, so all are kept.
            let matching = Arc::new(Mutex::new(Matching::within(&self.budget, 0)));
            let answers = self.ingesters.ask_recent(tenant, parts_request, call, |client, request| {
                let matching = matching.clone();
                async move { parts(client, request, &matching).await }
            });
            let answers = answers.await?;
            let mut matching = std::mem::replace(&mut *matching.lock(), Matching::within(&self.budget, 1));
            let mut warnings = answers.warnings;
            let candidates = united(answers.parts.iter().flat_map(|part| &part.candidates).map(trace_part));
            // One ingester that has all in one place need not be asked again.
            let ingesters = answers.parts.iter().map(|part| part.places).sum::<u32>() > 1;
            let places = Places { ingesters, ..places.clone() };
            let others = self.other_places(tenant, &places, call);
            let also = others.also_have(&candidates, PartsFrom::Ingesters).await?;
            add_new(&mut warnings, also.warnings);
            let has_more = answers.parts.iter().any(|part| part.more);
            let not_judged: FxHashSet<String> = also.traces.iter().map(TraceId::trimmed_hex).collect();
            matching.combiner.check_any()?;
            matching.combiner.retain(limit, |trace| !not_judged.contains(&trace.trace_id));
            matching.metrics.inspected_bytes += also.inspected_bytes;
            // Matches that are split may have stood in the way of others.
            if has_more && matching.combiner.len() < limit && asked < MATCHES_MAX {
                asked = asked.saturating_mul(8);
                continue;
            }
            let mut found = matching.finish();
            add_new(&mut found.warnings, warnings);
            let named = candidates.into_iter().map(|part| part.trace_id).filter(|id| also.traces.contains(id)).collect();
            return Ok(SearchedParts { found, split: named, live_in_blocks: also.in_blocks });
        }
    }

    /// Brings traces together from all places and judges them.
    pub(crate) async fn search_traces(&self, tenant: &TenantId, job: SearchTraces, call: Duration) -> Result<Found<Matches>, JobError> {
        let request = job.request.unwrap_or_default();
        let plan = plan(&request)?;
        let combiner = SearchCombiner::within(&self.budget, search_limit(&request), plan.most_recent());
        let query = Arc::new(SearchQuery { plan, spans_per_spanset: request.spans_per_span_set as usize });
        let mut metrics = SearchMetrics::default();
        let ids = ids_of(&job.trace_ids).collect();
        let mut wanted = self.all_places(tenant, ids, &job.places.unwrap_or_default(), &mut metrics.inspected_bytes).await?;
        wanted.only_split = job.only_split;
        let joined = self.join_traces(tenant, wanted, query, (combiner, 0), call).await?;
        let ((combiner, spans), JoinStats { traces, bytes }) = joined.result;
        metrics.inspected_traces = traces;
        metrics.inspected_spans = spans;
        metrics.inspected_bytes += bytes;
        combiner.check_any()?;
        Ok(Found::of(combiner, metrics, joined.warnings))
    }
}

/// What one ingester says beside the traces that match, which go to `matching`.
async fn parts(
    mut client: RecentClient<Connection>,
    request: Request<SearchPartsRequest>,
    matching: &Mutex<Matching>,
) -> Result<Response<SearchPartsResponse>, Status> {
    let (metadata, mut messages, extensions) = client.search_parts(request).await?.into_parts();
    let mut all = SearchPartsResponse::default();
    while let Some(SearchPartsResponse { found, candidates, more, places }) = messages.message().await? {
        matching.lock().add(found.unwrap_or_default());
        all.candidates.extend(candidates);
        (all.more, all.places) = (all.more || more, all.places + places);
    }
    Ok(Response::from_parts(metadata, all, extensions))
}

/// A search, asked of whole traces.
struct SearchQuery {
    plan: SearchPlan,
    spans_per_spanset: usize,
}

impl JoinedQuery for SearchQuery {
    /// The matches, and the spans that were looked at.
    type State = (SearchCombiner, u64);

    fn fetch(&self) -> &Fetch {
        self.plan.fetch()
    }

    fn take(&self, (combiner, spans): &mut Self::State, batch: &Batch, stop: &dyn Fn() -> bool) -> ControlFlow<()> {
        *spans += batch.spans.len() as u64;
        self.plan.evaluate_each(batch, self.spans_per_spanset, stop, &mut |trace| {
            combiner.add(trace);
            stop_if(combiner.is_complete())
        })
    }
}
