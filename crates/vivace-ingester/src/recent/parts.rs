//! `vivace.v1.Recent`: traces of which blocks or other ingesters may have spans too. Whoever asks knows those; here is said
//! what is in this place.

use std::ops::ControlFlow;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;
use vivace_block::{ReadError, TRACE_SPREAD_NANOS, TracePart, live, part_filter};
use vivace_core::pieces::{PIECE_BYTES, Pieces};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::SearchMetrics;
use vivace_proto::vivace::v1::{self as proto, CountPlacesRequest, CountPlacesResponse, SearchPartsRequest, SearchPartsResponse};
use vivace_traceql::{Batch, SearchCombiner, SearchPlan, TraceFilter, search_limit};

use super::error::QueryError;
use super::left_out::LeftOut;
use super::reader::Reader;
use super::search::{AtOnce, Found, plan};
use super::sources::Sources;
use super::{Recent, ids_of};
use crate::store::{ServedBlock, View};

impl Recent {
    /// Judges traces by what is here of them, newest first, and names all that may match together with spans from elsewhere.
    ///
    /// # Errors
    /// As for [`Recent::search`].
    pub(crate) async fn search_parts(&self, tenant: &TenantId, request: SearchPartsRequest) -> Result<FoundParts, QueryError> {
        let SearchPartsRequest { request, known_blocks } = request;
        let request = request.unwrap_or_default();
        let plan = plan(&request)?;
        let answering = request.answering.clone();
        self.look(tenant, &answering, &known_blocks, move |mut sources| {
            let limit = search_limit(&request);
            let mut search = PartsSearch {
                combiner: SearchCombiner::within(&sources.budget, limit, plan.most_recent()),
                plan,
                limit,
                spans_per_spanset: request.spans_per_span_set as usize,
                stop: sources.stop.clone(),
                matched: 0,
                candidates: FxHashMap::default(),
                metrics: SearchMetrics::default(),
                left_out: LeftOut::default(),
                more: false,
            };
            let mut reader = sources.index_held()?;
            search.live(&sources.view, &mut reader);
            search.metrics.inspected_bytes += reader.inspected_bytes;
            search.left_out = reader.left_out;
            // What it holds is room for the blocks.
            drop(reader);
            for block in sources.view.served.iter().rev() {
                search.block(&sources, block)?;
            }
            search.combiner.check_any()?;
            let places = 1 + u32::try_from(sources.view.served.len()).unwrap_or(u32::MAX - 1);
            Ok(search.finish(places))
        })
        .await
    }

    /// In how many places traces are here: live spans are one, each served block that is not known another.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for ids that are none, [`QueryError::Unavailable`] where a flushed block cannot be read.
    pub(crate) async fn count_places(
        &self,
        tenant: &TenantId,
        request: CountPlacesRequest,
    ) -> Result<(CountPlacesResponse, LeftOut), QueryError> {
        let CountPlacesRequest { trace_ids, known_blocks, answering } = request;
        let ids: Vec<TraceId> = ids_of(&trace_ids)?.map(TraceId).collect();
        let (counts, left_out) = self
            .look(tenant, &answering, &known_blocks, move |mut sources| {
                // Only what is held has to be read, and most often nothing is.
                let mut left_out = if sources.view.held.is_empty() { LeftOut::default() } else { sources.index_held()?.left_out };
                let mut counts: Vec<u8> = are_live(&sources.view, &ids).into_iter().map(u8::from).collect();
                for block in &sources.view.served {
                    if sources.stop.is_cancelled() {
                        break;
                    }
                    match ids_in(&sources, block, &ids) {
                        Ok(found) => {
                            let here = ids.iter().zip(&mut counts).filter(|(id, _)| found.contains(*id));
                            here.for_each(|(_, count)| *count = count.saturating_add(1));
                        }
                        Err(error) => left_out.block(block, error)?,
                    }
                }
                Ok((counts, left_out))
            })
            .await?;
        Ok((CountPlacesResponse { counts: counts.into() }, left_out))
    }
}

/// Which of these traces have live spans.
fn are_live(view: &View, ids: &[TraceId]) -> Vec<bool> {
    let mut are_live = vec![false; ids.len()];
    for head in &view.heads {
        head.read(|contents| {
            for (id, is_live) in ids.iter().zip(&mut are_live) {
                *is_live |= contents.index.contains_key(id);
            }
        });
    }
    are_live
}

/// Which of these traces a block has.
fn ids_in(sources: &Sources, block: &ServedBlock, ids: &[TraceId]) -> Result<FxHashSet<TraceId>, ReadError> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(FxHashSet::default()) };
    let wanted: FxHashSet<TraceId> = ids.iter().copied().collect();
    let reader = sources.open(block)?;
    let mut found = FxHashSet::default();
    for (group, bounds) in reader.id_bounds().into_iter().enumerate() {
        if bounds.is_none_or(|(low, high)| low <= *last && *first <= high) {
            found.extend(reader.ids_of(group)?.iter().copied().filter(|id| wanted.contains(id)));
        }
    }
    Ok(found)
}

/// What was found, and what was looked at.
pub(crate) struct FoundParts {
    pub(crate) found: Found,
    candidates: Vec<proto::TracePart>,
    more: bool,
    places: u32,
}

impl FoundParts {
    /// In pieces, as [`SearchPartsResponse`] has it.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = SearchPartsResponse> {
        let Self { found, candidates, more, places } = self;
        let candidates = Pieces::of(candidates, PIECE_BYTES);
        let candidates = candidates.map(|candidates| SearchPartsResponse { candidates, ..SearchPartsResponse::default() });
        let found = found.into_messages().map(move |found| match found.metrics {
            Some(_) => SearchPartsResponse { found: Some(found), more, places, ..SearchPartsResponse::default() },
            None => SearchPartsResponse { found: Some(found), ..SearchPartsResponse::default() },
        });
        candidates.chain(found)
    }
}

/// A search of parts under way.
struct PartsSearch {
    plan: SearchPlan,
    combiner: SearchCombiner,
    limit: usize,
    spans_per_spanset: usize,
    stop: CancellationToken,
    matched: usize,
    /// What has been looked at.
    candidates: FxHashMap<TraceId, TracePart>,
    metrics: SearchMetrics,
    left_out: LeftOut,
    /// Something was not looked at, or dropped.
    more: bool,
}

impl PartsSearch {
    fn live(&mut self, view: &View, reader: &mut Reader) {
        let fetch = self.plan.fetch().clone();
        let may_match_alone: FxHashMap<TraceId, bool> = if fetch.filter == TraceFilter::All {
            view.trace_windows(|_| true).concat().into_iter().map(|id| (id, true)).collect()
        } else {
            let mut candidates = live::Candidates::new(&fetch);
            for segment in view.windows().concat() {
                if self.stop.is_cancelled() {
                    return;
                }
                reader.look_at(&segment, &mut candidates);
            }
            candidates.finish_parts().into_iter().collect()
        };
        let range = fetch.range.widened(TRACE_SPREAD_NANOS);
        let parts = view.newest_parts(may_match_alone.keys().copied(), range);
        let (mut rest, mut at_once) = (&parts[..], AtOnce::few());
        while let Some(parts) = at_once.next_of(reader, view, &mut rest, |part| part.trace_id) {
            if self.is_over() {
                self.more = true;
                return;
            }
            parts.iter().for_each(|part| self.add_candidate(*part));
            let alone: Vec<TraceId> = parts.iter().map(|part| part.trace_id).filter(|id| may_match_alone[id]).collect();
            let gathered = reader.gather(&view.heads, &alone);
            self.evaluate(&live::batch(&fetch, &gathered.traces()));
            self.metrics.inspected_traces += u32::try_from(alone.len()).unwrap_or(u32::MAX);
        }
    }

    fn block(&mut self, sources: &Sources, block: &ServedBlock) -> Result<(), QueryError> {
        if self.is_over() {
            self.more = true;
            return Ok(());
        }
        match self.search_block(sources, block) {
            Ok(()) => Ok(()),
            Err(error) => self.left_out.block(block, error),
        }
    }

    fn search_block(&mut self, sources: &Sources, block: &ServedBlock) -> Result<(), ReadError> {
        let fetch = self.plan.fetch().clone();
        let reader = sources.open(block)?;
        let parts = reader.parts(&fetch, &part_filter(&fetch.filter), 0..reader.row_groups())?;
        parts.traces.iter().for_each(|part| self.add_candidate(*part));
        let stats = reader.search_parts(&fetch, &parts, &|_| true, &mut |batch| {
            self.evaluate(&batch);
            if self.is_over() {
                self.more = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        self.metrics.inspected_bytes += stats.bytes + parts.stats.bytes;
        self.metrics.inspected_traces += u32::try_from(parts.stats.traces).unwrap_or(u32::MAX);
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.combiner.is_complete() || self.stop.is_cancelled()
    }

    fn add_candidate(&mut self, part: TracePart) {
        let known = self.candidates.entry(part.trace_id).or_insert(part);
        known.start_unix_nanos = known.start_unix_nanos.min(part.start_unix_nanos);
        known.end_unix_nanos = known.end_unix_nanos.max(part.end_unix_nanos);
    }

    fn evaluate(&mut self, batch: &Batch) {
        self.metrics.inspected_spans += batch.spans.len() as u64;
        let stop = || self.stop.is_cancelled();
        let ended = self.plan.evaluate_each(batch, self.spans_per_spanset, &stop, &mut |trace| {
            // One more than are wanted says that there is more.
            if self.combiner.is_complete() {
                self.matched += 1;
                return ControlFlow::Break(());
            }
            self.matched += 1;
            self.combiner.add(trace);
            ControlFlow::Continue(())
        });
        self.more |= ended.is_break();
    }

    fn finish(self, places: u32) -> FoundParts {
        let part = |part: TracePart| proto::TracePart {
            trace_id: part.trace_id.0.to_vec().into(),
            start_unix_nanos: part.start_unix_nanos,
            end_unix_nanos: part.end_unix_nanos,
        };
        FoundParts {
            more: self.more || self.matched > self.limit,
            found: Found::of(self.combiner, self.metrics, self.left_out),
            candidates: self.candidates.into_values().map(part).collect(),
            places,
        }
    }
}
