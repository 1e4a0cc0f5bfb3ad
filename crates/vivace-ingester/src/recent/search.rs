//! Searches in what is live and in blocks that are still served. Traces are judged by the spans that are here; where those of
//! other places count too, `parts` is asked instead.

use std::ops::ControlFlow;

use tokio_util::sync::CancellationToken;
use vivace_block::live;
use vivace_core::budget::Charge;
use vivace_core::pieces::{PIECE_BYTES, Pieces};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::{SearchMetrics, SearchRequest, SearchResponse, TraceSearchMetadata};
use vivace_storage::overlaps;
use vivace_traceql::{Batch, SearchCombiner, SearchPlan, search_limit};

use super::Recent;
use super::error::QueryError;
use super::left_out::LeftOut;
use super::reader::Reader;
use super::sources::Sources;
use crate::store::View;

/// How many traces are brought together at once for exact evaluation: few at first, since they do when most of them match, and
/// then more and more, since each time their segments are walked over.
pub(super) struct AtOnce(usize);

impl AtOnce {
    const MAX: usize = 1024;

    pub(super) fn few() -> Self {
        Self(64)
    }

    /// Takes the next ones; none at the end.
    pub(super) fn next_of<'t, T>(
        &mut self,
        reader: &Reader,
        view: &View,
        traces: &mut &'t [T],
        id: impl Fn(&T) -> TraceId,
    ) -> Option<&'t [T]> {
        let chunk;
        (chunk, *traces) = traces.split_at(reader.at_once(view, traces.iter().map(id), self.0).min(traces.len()));
        self.0 = (2 * self.0).min(Self::MAX);
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// What was found, charged until all of it has been sent.
pub(crate) struct Found {
    pub(crate) traces: Vec<TraceSearchMetadata>,
    pub(crate) metrics: SearchMetrics,
    /// What is missing.
    pub(crate) warning: Option<String>,
    held: Charge,
}

impl Found {
    pub(super) fn of(combiner: SearchCombiner, metrics: SearchMetrics, left_out: LeftOut) -> Self {
        let warnings: Vec<String> = combiner.warning().into_iter().chain(left_out.warning()).collect();
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        let (traces, held) = combiner.finish_charged();
        Self { traces, metrics, warning, held }
    }

    /// In pieces, at least one; the metrics stand in the last.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = SearchResponse> {
        let (metrics, held) = (self.metrics, self.held);
        Pieces::of(self.traces, PIECE_BYTES).with_last().map(move |(traces, is_last)| {
            let _held_until_the_last = &held;
            SearchResponse { traces, metrics: is_last.then_some(metrics) }
        })
    }
}

impl Recent {
    /// Searches everything there is of a tenant, newest first. Stops when the client has gone away.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a query that makes no sense, [`QueryError::Unavailable`] where a flushed block cannot be read,
    /// [`QueryError::TooLarge`].
    pub(crate) async fn search(&self, tenant: &TenantId, request: SearchRequest) -> Result<Found, QueryError> {
        let plan = plan(&request)?;
        let answering = request.answering.clone();
        self.look(tenant, &answering, &[], move |mut sources| {
            let mut search = Search {
                combiner: SearchCombiner::within(&sources.budget, search_limit(&request), plan.most_recent()),
                plan,
                spans_per_spanset: request.spans_per_span_set as usize,
                at_once: AtOnce::few(),
                stop: sources.stop.clone(),
                metrics: SearchMetrics::default(),
                left_out: LeftOut::default(),
            };
            let mut reader = sources.index_held()?;
            search.live(&sources.view, &mut reader);
            search.metrics.inspected_bytes += reader.inspected_bytes;
            search.left_out = reader.left_out;
            // What it holds is room for the blocks.
            drop(reader);
            search.blocks(&sources)?;
            search.combiner.check_any()?;
            Ok(Found::of(search.combiner, search.metrics, search.left_out))
        })
        .await
    }
}

pub(super) fn plan(request: &SearchRequest) -> Result<SearchPlan, QueryError> {
    SearchPlan::of_request(request).map_err(|e| QueryError::Invalid(e.to_string()))
}

/// One search under way.
struct Search {
    plan: SearchPlan,
    combiner: SearchCombiner,
    spans_per_spanset: usize,
    at_once: AtOnce,
    stop: CancellationToken,
    metrics: SearchMetrics,
    left_out: LeftOut,
}

impl Search {
    fn is_over(&self) -> bool {
        self.combiner.is_complete() || self.stop.is_cancelled()
    }

    /// Live segments: first which traces may match, by their raw spans; then those traces exactly, with all their spans.
    fn live(&mut self, view: &View, reader: &mut Reader) {
        let (fetch, stop) = (self.plan.fetch().clone(), self.stop.clone());
        view.candidates(&fetch, &stop, reader, &mut |reader, traces| {
            let alone = traces.into_iter().filter(|(_, may_match)| *may_match).map(|(id, _)| id);
            self.traces(view, reader, alone.collect());
            if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Traces that may match.
    fn traces(&mut self, view: &View, reader: &mut Reader, ids: Vec<TraceId>) {
        let fetch = self.plan.fetch().clone();
        let parts = view.newest_parts(ids.iter().copied(), fetch.range);
        let ids: Vec<TraceId> = parts.into_iter().map(|part| part.trace_id).collect();
        let mut rest = &ids[..];
        while let Some(chunk) = self.at_once.next_of(reader, view, &mut rest, |id| *id) {
            if self.is_over() {
                return;
            }
            let gathered = reader.gather(&view.heads, chunk);
            self.evaluate(&live::batch(&fetch, &gathered.traces()));
            self.metrics.inspected_traces += u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        }
    }

    /// Flushed blocks that are still served from here, newest first.
    fn blocks(&mut self, sources: &Sources) -> Result<(), QueryError> {
        let fetch = self.plan.fetch().clone();
        for block in sources.view.served.iter().rev() {
            if self.is_over() {
                break;
            }
            if !overlaps(&block.meta, fetch.range) {
                continue;
            }
            let reader = match sources.open(block) {
                Ok(reader) => reader,
                Err(error) => {
                    self.left_out.block(block, error)?;
                    continue;
                }
            };
            let searched = reader.search(&fetch, 0..reader.row_groups(), &mut |batch| {
                self.evaluate(&batch);
                if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match searched {
                Ok(stats) => {
                    self.metrics.inspected_bytes += stats.bytes;
                    self.metrics.inspected_traces += u32::try_from(stats.traces).unwrap_or(u32::MAX);
                }
                Err(error) => self.left_out.block(block, error)?,
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, batch: &Batch) {
        self.metrics.inspected_spans += batch.spans.len() as u64;
        let stop = || self.stop.is_cancelled();
        let _ = self.plan.evaluate_each(batch, self.spans_per_spanset, &stop, &mut |trace| {
            self.combiner.add(trace);
            if self.combiner.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
}
