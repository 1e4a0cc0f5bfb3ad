use std::ops::ControlFlow;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockReader, live};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::{SearchMetrics, SearchRequest, SearchResponse};
use vivace_storage::overlaps;
use vivace_traceql::{Batch, LegacySearch, SearchCombiner, SearchPlan, TraceFilter, parse};

use crate::ingester::Ingester;
use crate::live::View;
use crate::query::{QueryError, Sources, blocking, read_failed};
use crate::scan::Reader;

/// Traces returned when a request names no limit.
pub(crate) const LIMIT_DEFAULT: usize = 20;
/// Traces brought together for exact evaluation at first; few do when most of them match.
const EVALUATED_FIRST: usize = 64;
/// The same once more were not enough. Each time their segments are walked over.
const EVALUATED_MAX: usize = 1024;

pub(crate) const SECOND: u64 = 1_000_000_000;

impl Ingester {
    /// Searches everything there is of a tenant, newest first. Stops when the client has gone away.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a query that makes no sense, [`QueryError::Unavailable`] where a flushed block cannot be read.
    pub(crate) async fn search(self: &Arc<Self>, tenant: &TenantId, request: SearchRequest) -> Result<SearchResponse, QueryError> {
        let plan = plan(&request)?;
        let sources = self.sources(tenant, &request.answering)?;
        let stop = CancellationToken::new();
        let _stops_with_the_client = stop.clone().drop_guard();
        let ingester = Arc::clone(self);
        blocking(move || {
            let limit = if request.limit == 0 { LIMIT_DEFAULT } else { request.limit as usize };
            let mut search = Search {
                combiner: SearchCombiner::new(limit, plan.most_recent()),
                plan,
                spans_per_spanset: request.spans_per_span_set as usize,
                stop,
                metrics: SearchMetrics::default(),
            };
            let Sources { mut view, held, .. } = sources;
            let mut reader = Reader::default();
            if !held.is_empty() {
                view.add_held(&held, &mut reader);
            }
            search.live(&view, &mut reader);
            search.metrics.inspected_bytes += reader.inspected_bytes;
            drop(reader);
            search.blocks(&ingester, &view)?;
            Ok(SearchResponse { traces: search.combiner.finish(), metrics: Some(search.metrics) })
        })
        .await?
    }
}

pub(crate) fn plan(request: &SearchRequest) -> Result<SearchPlan, QueryError> {
    let (start, end) = (u64::from(request.start) * SECOND, u64::from(request.end) * SECOND);
    let planned = if request.query.is_empty() {
        let some = |ms: u32| (ms > 0).then_some(u64::from(ms));
        let mut tags: Vec<(String, String)> = request.tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        tags.sort();
        let search = LegacySearch { tags, min_duration_ms: some(request.min_duration_ms), max_duration_ms: some(request.max_duration_ms) };
        search.search_plan(start, end)
    } else {
        parse(&request.query).and_then(|query| query.search_plan(start, end))
    };
    planned.map_err(|e| QueryError::Invalid(e.to_string()))
}

/// One search under way.
struct Search {
    plan: SearchPlan,
    combiner: SearchCombiner,
    spans_per_spanset: usize,
    stop: CancellationToken,
    metrics: SearchMetrics,
}

impl Search {
    fn is_over(&self) -> bool {
        self.combiner.is_complete() || self.stop.is_cancelled()
    }

    /// Live segments: first which traces may match, by their raw spans; then those traces exactly, with all their spans.
    fn live(&mut self, view: &View, reader: &mut Reader) {
        if self.plan.fetch().filter == TraceFilter::All {
            for ids in view.trace_windows() {
                if self.is_over() {
                    return;
                }
                self.traces(view, reader, ids);
            }
            return;
        }
        let mut seen: FxHashSet<TraceId> = FxHashSet::default();
        let windows = view.windows();
        // What several spans decide together cannot be told from some of the segments.
        let windows = if is_decided_by_one_span(&self.plan.fetch().filter) { windows } else { vec![windows.concat()] };
        for window in windows {
            let fetch = self.plan.fetch().clone();
            let mut candidates = live::Candidates::new(&fetch);
            for segment in &window {
                if self.stop.is_cancelled() {
                    return;
                }
                if let Some(data) = reader.read(segment)
                    && let Err(error) = candidates.add(&data)
                {
                    tracing::error!(segment = ?segment.header.id, %error, "segment left out of an answer");
                }
            }
            let mut ids = candidates.finish();
            ids.retain(|id| seen.insert(*id));
            self.traces(view, reader, ids);
            if self.is_over() {
                return;
            }
        }
    }

    /// Traces that may match.
    fn traces(&mut self, view: &View, reader: &mut Reader, ids: Vec<TraceId>) {
        let fetch = self.plan.fetch().clone();
        for chunk in growing_chunks(&newest_first(view, ids, fetch.start_unix_nanos, fetch.end_unix_nanos)) {
            if self.is_over() {
                return;
            }
            let mut gathered = reader.gather(&view.heads, chunk);
            self.evaluate(&live::batch(&fetch, &gathered.traces()));
            self.metrics.inspected_traces += u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        }
    }

    /// Flushed blocks that are still served from here, newest first.
    fn blocks(&mut self, ingester: &Ingester, view: &View) -> Result<(), QueryError> {
        let fetch = self.plan.fetch().clone();
        for block in view.served.iter().rev() {
            if self.is_over() {
                break;
            }
            if !overlaps(&block.meta, fetch.start_unix_nanos, if fetch.end_unix_nanos == 0 { u64::MAX } else { fetch.end_unix_nanos }) {
                continue;
            }
            let reader = match BlockReader::open(block.meta.clone(), ingester.bucket.reader(&block.meta)) {
                Ok(reader) => reader,
                Err(error) => {
                    read_failed(block, error)?;
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
                Err(error) => read_failed(block, error)?,
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, batch: &Batch) {
        self.metrics.inspected_spans += batch.spans.len() as u64;
        for trace in self.plan.evaluate(batch, self.spans_per_spanset) {
            self.combiner.add(trace);
        }
    }
}

/// Whether a trace that passes has a span that makes it pass, so that looking at that span's segment is enough.
pub(crate) fn is_decided_by_one_span(filter: &TraceFilter) -> bool {
    match filter {
        TraceFilter::All | TraceFilter::Nothing | TraceFilter::AnySpan(_) => true,
        TraceFilter::And(filters) => filters.len() < 2 && filters.iter().all(is_decided_by_one_span),
        TraceFilter::Or(filters) => filters.iter().all(is_decided_by_one_span),
    }
}

/// What is evaluated at once, of traces in the order in which they are looked at.
pub(crate) fn growing_chunks<T>(mut traces: &[T]) -> impl Iterator<Item = &[T]> {
    let mut size = EVALUATED_FIRST;
    std::iter::from_fn(move || {
        let (chunk, rest) = traces.split_at(size.min(traces.len()));
        (traces, size) = (rest, (2 * size).min(EVALUATED_MAX));
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The traces that overlap the range, those first whose last span ended last. 0 is no bound.
fn newest_first(view: &View, ids: Vec<TraceId>, start_unix_nanos: u64, end_unix_nanos: u64) -> Vec<TraceId> {
    let mut ids = in_time(view, ids, start_unix_nanos, end_unix_nanos);
    ids.sort_unstable_by_key(|(_, end, id)| std::cmp::Reverse((*end, *id)));
    ids.into_iter().map(|(_, _, id)| id).collect()
}

/// The traces that overlap the range, behind the times at which their first span started and their last one ended, in Unix
/// nanoseconds. 0 is no bound.
pub(crate) fn in_time(view: &View, ids: Vec<TraceId>, start_unix_nanos: u64, end_unix_nanos: u64) -> Vec<(u64, u64, TraceId)> {
    let mut times: FxHashMap<TraceId, (u64, u64)> = FxHashMap::default();
    for head in &view.heads {
        head.read(|contents| {
            for id in &ids {
                if let Some(entry) = contents.index.get(id) {
                    let (start, end) = times.entry(*id).or_insert((u64::MAX, 0));
                    *start = entry.start_unix_nanos.min(*start);
                    *end = entry.end_unix_nanos.max(*end);
                }
            }
        });
    }
    let is_in_range = |(start, end): &(u64, u64)| *end >= start_unix_nanos && (end_unix_nanos == 0 || *start <= end_unix_nanos);
    times.iter().filter(|(_, times)| is_in_range(times)).map(|(id, (start, end))| (*start, *end, *id)).collect()
}
