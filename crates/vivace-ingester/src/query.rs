//! What all queries begin with: what there is of a tenant at that moment, and a place among the few that may work at once.
//! Look-ups of a trace by its id are here as well; they take no such place.

use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockReader, live};
use vivace_core::budget::Charge;
use vivace_core::combine::combine;
use vivace_core::{TenantId, TraceId};
use vivace_proto::otlp::ResourceSpans;
use vivace_proto::tempopb::{PartialStatus, Trace, TraceByIdMetrics, TraceByIdResponse};
use vivace_server::{lookup_bytes, room_for_lookup};
use vivace_traceql::TooLarge;

use crate::gather::gather_readable;
use crate::ingester::Ingester;
use crate::left_out::LeftOut;
use crate::segment::Segment;
use crate::store::View;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What it had before it was started may still be elsewhere. Others answer for it meanwhile.
    #[error("the ingester is still joining the ring")]
    Joining,
    /// The bucket did not answer. Worth a retry.
    #[error("could not read a block that is still served from here")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What it takes does not fit into memory.
    #[error("{0}")]
    TooLarge(#[from] vivace_traceql::TooLarge),
    /// A part of the query failed in a way it should not.
    #[error("query failed: {0}")]
    Internal(String),
}

/// What a query of one tenant looks at.
pub(crate) struct Sources {
    pub(crate) view: View,
    /// Segments held for instances that do not answer themselves.
    pub(crate) held: Vec<Arc<Segment>>,
}

impl Ingester {
    /// Everything there is of a tenant now. `answering`: instances that answer for themselves;
    /// what is held for any other is a source too, and so are the blocks that it wrote.
    ///
    /// # Errors
    /// [`QueryError::Joining`].
    pub(crate) fn sources(&self, tenant: &TenantId, answering: &[String]) -> Result<Sources, QueryError> {
        if self.is_joining() {
            return Err(QueryError::Joining);
        }
        let mut view = self.store.view(tenant, answering);
        let held = std::mem::take(&mut view.held);
        Ok(Sources { view, held })
    }

    /// The spans of a trace that this instance has, and what is charged for the answer.
    ///
    /// # Errors
    /// [`QueryError::Unavailable`] where a flushed block could not be read, [`QueryError::Joining`], [`QueryError::TooLarge`].
    pub(crate) async fn find_trace(
        self: &Arc<Self>,
        tenant: &TenantId,
        trace: TraceId,
        answering: &[String],
    ) -> Result<(TraceByIdResponse, Charge), QueryError> {
        let Sources { view, held } = self.sources(tenant, answering)?;
        let (mut blocks, mut left_out) = (Vec::new(), LeftOut::default());
        for block in view.served {
            match self.bucket.bloom_may_contain(&block.meta, trace).await {
                Ok(true) => blocks.push(block),
                Ok(false) => {}
                Err(error) => left_out.object(&block, error)?,
            }
        }
        let live_bytes: u64 = view.heads.iter().map(|h| h.read(|c| c.index.get(&trace).map_or(0, |entry| entry.bytes))).sum();
        let room = room_for_lookup(&self.settings.budget, live_bytes, !blocks.is_empty()).await;
        let mut charge = room.map_err(|over| TooLarge { held: 0, over })?;
        let ingester = Arc::clone(self);
        let stop = CancellationToken::new();
        let _stops_with_the_client = stop.clone().drop_guard();
        let find = move || {
            let mut segments: Vec<Arc<Segment>> = view.heads.iter().flat_map(|head| head.segments_of(&trace)).collect();
            segments.extend(held);
            let mut inspected: u64 = segments.iter().map(|s| u64::from(s.header.uncompressed_bytes)).sum();
            let mut gathered = gather_readable(&segments, |id| *id == trace, &stop, &mut left_out);
            let mut parts = Vec::new();
            for (id, spans) in gathered.traces() {
                let (part, invalid) = live::trace(id, &spans);
                if invalid > 0 {
                    tracing::warn!(trace_id = %trace, invalid, "spans that are no messages left out of an answer");
                }
                parts.push(part);
            }
            for block in blocks {
                if stop.is_cancelled() {
                    break;
                }
                let reader = ingester.bucket.reader(&block.meta);
                match BlockReader::open(block.meta.clone(), reader).and_then(|b| b.find(trace, None)) {
                    Ok(part) => parts.extend(part),
                    Err(error) => left_out.block(&block, error)?,
                }
                inspected += block.meta.size_bytes / u64::from(block.meta.row_groups.max(1));
            }
            let found = combine(parts);
            charge
                .resize(lookup_bytes(found.iter().map(prost::Message::encoded_len)))
                .map_err(|over| TooLarge { held: charge.bytes(), over })?;
            Ok((found, inspected, left_out, charge))
        };
        // Short, and not to wait for searches.
        let found: Result<(Vec<ResourceSpans>, u64, LeftOut, Charge), QueryError> =
            spawn_blocking(find).await.map_err(|e| QueryError::Internal(e.to_string()))?;
        let (resource_spans, inspected_bytes, left_out, charge) = found?;
        let warning = left_out.warning();
        let status = if warning.is_some() { PartialStatus::Partial } else { PartialStatus::Complete };
        let answer = TraceByIdResponse {
            trace: (!resource_spans.is_empty()).then_some(Trace { resource_spans }),
            metrics: Some(TraceByIdMetrics { inspected_bytes }),
            status: status.into(),
            message: warning.unwrap_or_default(),
        };
        Ok((answer, charge))
    }
}

/// Queries that work at the same time: more would only hold more memory. The others wait in the order in which they came.
static AT_ONCE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    Arc::new(Semaphore::new(cores * 2))
});

/// Runs what burns CPU or reads files off the async threads. One that has been dropped meanwhile ends at its next look at its
/// token, and keeps its place until then.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, QueryError> {
    let permit = Arc::clone(&AT_ONCE).acquire_owned().await.map_err(|e| QueryError::Internal(e.to_string()))?;
    let done = spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|e| QueryError::Internal(e.to_string()))
}
