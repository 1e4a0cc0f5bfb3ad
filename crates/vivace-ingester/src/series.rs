use std::ops::ControlFlow;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockReader, live};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::SearchMetrics;
use vivace_proto::vivace::v1::{HeldBlock, RecentTraces, SeriesRequest, SeriesResponse};
use vivace_storage::overlaps;
use vivace_traceql::{MetricsPlan, Partial};

use crate::ingester::Ingester;
use crate::live::{Contents, View};
use crate::parts::ids_of;
use crate::query::{QueryError, Sources, blocking, read_failed};
use crate::ranges::SegmentSet;
use crate::scan::Reader;
use crate::search::in_time;

impl Ingester {
    /// Counts what there is of a tenant for a metrics query: its own, or what it holds for others. Stops when the client has gone away.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a query that makes no sense, [`QueryError::Unavailable`] where a flushed block cannot be read.
    pub(crate) async fn series(self: &Arc<Self>, tenant: &TenantId, request: SeriesRequest) -> Result<SeriesResponse, QueryError> {
        let plan = plan(&request)?;
        let elsewhere: FxHashSet<TraceId> = ids_of(&request.known_traces)?.map(TraceId).collect();
        let known_segments = SegmentSet::from_proto(&request.known_segments)
            .ok_or_else(|| QueryError::Invalid("an incarnation of known_segments has not 16 bytes".to_owned()))?;
        let Sources { mut view, mut held, takeovers } = self.sources_without(tenant, &request.answering, &request.known_blocks)?;
        let (own_blocks, blocks_of_others): (Vec<_>, Vec<_>) = view.served.into_iter().partition(|block| *block.writer == *self.id);
        let holds_some = !held.is_empty() || !blocks_of_others.is_empty();
        let holds_more = holds_some && !request.only_held;
        if request.only_held {
            view = View { heads: Vec::new(), served: blocks_of_others };
            held.retain(|segment| !known_segments.contains(&segment.header.id));
        } else {
            view.served = own_blocks;
            held.clear();
        }
        let others = view.served.iter().filter(|_| request.only_held);
        let held_blocks: Vec<u8> = others.flat_map(|block| block.meta.block_id.0).collect();
        let counted: SegmentSet = held.iter().map(|segment| segment.header.id).collect();
        let stop = CancellationToken::new();
        let _stops_with_the_client = stop.clone().drop_guard();
        let ingester = Arc::clone(self);
        blocking(move || {
            let mut reader = Reader::default();
            if !held.is_empty() {
                view.add_held(&held, &mut reader);
            }
            let mut count = Count { partial: plan.partial(), plan, elsewhere, stop, metrics: SearchMetrics::default() };
            count.live(&view, &mut reader);
            count.metrics.inspected_bytes += reader.inspected_bytes;
            drop(reader);
            count.blocks(&ingester, &view)?;
            let (partial, metrics) = (Some(count.partial.to_message()), Some(count.metrics));
            Ok(SeriesResponse { partial, metrics, held: counted.to_proto(), held_blocks: held_blocks.into(), holds_more, takeovers })
        })
        .await?
    }

    /// The traces that are here in the time of a metrics query, as often as there are places that have them: all live spans are
    /// one, and each block that is still served and known to nobody else is another.
    ///
    /// # Errors
    /// As for [`Ingester::series`].
    pub(crate) async fn traces(self: &Arc<Self>, tenant: &TenantId, request: SeriesRequest) -> Result<RecentTraces, QueryError> {
        let plan = plan(&request)?;
        let Sources { view, held, takeovers } = self.sources_without(tenant, &request.answering, &request.known_blocks)?;
        let ingester = Arc::clone(self);
        blocking(move || {
            let (start, end) = (plan.fetch().start_unix_nanos, plan.fetch().end_unix_nanos);
            let live: FxHashSet<TraceId> = view.heads.iter().flat_map(|head| head.read(Contents::traces)).collect();
            let mut found = RecentTraces { start: u64::MAX, takeovers, ..RecentTraces::default() };
            if !held.is_empty() {
                let mut of_others = View::default();
                of_others.add_held(&held, &mut Reader::default());
                let ids: FxHashSet<TraceId> = of_others.heads.iter().flat_map(|head| head.read(Contents::traces)).collect();
                let mut held_ids = Vec::new();
                for (first, last, id) in in_time(&of_others, ids.into_iter().collect(), start, end) {
                    held_ids.extend_from_slice(&id.0);
                    (found.start, found.end) = (found.start.min(first), found.end.max(last));
                }
                found.held_trace_ids = held_ids.into();
            }
            let mut trace_ids = Vec::new();
            for (first, last, id) in in_time(&view, live.into_iter().collect(), start, end) {
                trace_ids.extend_from_slice(&id.0);
                (found.start, found.end) = (found.start.min(first), found.end.max(last));
            }
            for block in view.served.iter().filter(|block| overlaps(&block.meta, start, end)) {
                let mut ids = Vec::new();
                let read = BlockReader::open(block.meta.clone(), ingester.bucket.reader(&block.meta)).and_then(|reader| {
                    (0..reader.row_groups()).try_for_each(|group| {
                        reader.ids_of(group)?.iter().for_each(|id| ids.extend_from_slice(&id.0));
                        Ok(())
                    })
                });
                match read {
                    Ok(()) => {
                        let meta = &block.meta;
                        if *block.writer == *ingester.id {
                            trace_ids.append(&mut ids);
                        } else {
                            let block_id = meta.block_id.0.to_vec().into();
                            found.held_blocks.push(HeldBlock { block_id, trace_ids: ids.into() });
                        }
                        (found.start, found.end) = (found.start.min(meta.start_unix_nanos), found.end.max(meta.end_unix_nanos));
                    }
                    Err(error) => read_failed(block, error)?,
                }
            }
            found.trace_ids = trace_ids.into();
            Ok(found)
        })
        .await?
    }
}

fn plan(request: &SeriesRequest) -> Result<MetricsPlan, QueryError> {
    MetricsPlan::of_request(request).map_err(|e| QueryError::Invalid(e.to_string()))
}

/// One metrics query under way.
struct Count {
    plan: MetricsPlan,
    /// Traces that others count.
    elsewhere: FxHashSet<TraceId>,
    partial: Partial,
    stop: CancellationToken,
    metrics: SearchMetrics,
}

impl Count {
    /// Live segments: first which traces may count, by their raw spans; then those traces exactly, with all their spans, so that
    /// copies are known as such.
    fn live(&mut self, view: &View, reader: &mut Reader) {
        let (fetch, stop) = (self.plan.fetch().clone(), self.stop.clone());
        view.candidates(&fetch, &stop, reader, &mut |reader, ids| {
            self.traces(view, reader, ids);
            ControlFlow::Continue(())
        });
    }

    /// Those of these traces that nobody else counts.
    fn traces(&mut self, view: &View, reader: &mut Reader, mut ids: Vec<TraceId>) {
        ids.retain(|id| !self.elsewhere.contains(id));
        let fetch = self.plan.fetch();
        let ids = in_time(view, ids, fetch.start_unix_nanos, fetch.end_unix_nanos);
        let ids: Vec<TraceId> = ids.into_iter().map(|(_, _, id)| id).collect();
        let gathered = reader.gather(&view.heads, &ids);
        let _ = live::observe(&self.plan, &mut self.partial, &gathered.traces(), &|| self.stop.is_cancelled());
        self.metrics.inspected_traces += u32::try_from(ids.len()).unwrap_or(u32::MAX);
    }

    /// Flushed blocks that are still served from here and that nobody else counts.
    fn blocks(&mut self, ingester: &Ingester, view: &View) -> Result<(), QueryError> {
        let fetch = self.plan.fetch();
        for block in &view.served {
            if self.stop.is_cancelled() || !overlaps(&block.meta, fetch.start_unix_nanos, fetch.end_unix_nanos) {
                continue;
            }
            // A block that cannot be read to its end must not count in part.
            let mut partial = self.plan.partial();
            let wanted = |id: &TraceId| !self.elsewhere.contains(id);
            let counted = BlockReader::open(block.meta.clone(), ingester.bucket.reader(&block.meta))
                .and_then(|reader| reader.observe(&self.plan, &mut partial, 0..reader.row_groups(), &wanted, &|| self.stop.is_cancelled()));
            match counted {
                Ok(stats) => {
                    self.plan.merge(&mut self.partial, partial);
                    self.metrics.inspected_bytes += stats.bytes;
                    self.metrics.inspected_traces += u32::try_from(stats.traces).unwrap_or(u32::MAX);
                }
                Err(error) => read_failed(block, error)?,
            }
        }
        Ok(())
    }
}
