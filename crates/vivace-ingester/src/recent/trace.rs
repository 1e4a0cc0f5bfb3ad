//! Look-ups of a trace by its id. They are short, and do not wait for a place among the queries that work.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use vivace_block::live;
use vivace_core::budget::Charge;
use vivace_core::combine::combine;
use vivace_core::{TenantId, TraceId};
use vivace_proto::otlp::ResourceSpans;
use vivace_proto::tempopb::{PartialStatus, Trace, TraceByIdMetrics, TraceByIdResponse};
use vivace_server::{lookup_bytes, room_for_lookup};
use vivace_traceql::TooLarge;

use super::Recent;
use super::error::QueryError;
use super::left_out::LeftOut;
use super::sources::Sources;
use crate::gather::Gathered;
use crate::segment::Segment;
use crate::store::ServedBlock;

/// What was found of a trace.
struct Found {
    resource_spans: Vec<ResourceSpans>,
    inspected_bytes: u64,
    left_out: LeftOut,
    /// For the answer.
    charge: Charge,
}

impl Recent {
    /// The spans of a trace that this instance has, and what is charged for the answer.
    ///
    /// # Errors
    /// [`QueryError::Unavailable`] where a flushed block could not be read, [`QueryError::Joining`], [`QueryError::TooLarge`].
    pub(crate) async fn find_trace(
        &self,
        tenant: &TenantId,
        trace: TraceId,
        answering: &[String],
    ) -> Result<(TraceByIdResponse, Charge), QueryError> {
        let (mut sources, _stops_with_the_client) = self.sources(tenant, answering, &[])?;
        let mut left_out = LeftOut::default();
        let blocks = may_have(&mut sources, trace, &mut left_out).await?;
        let live_bytes: u64 = sources.view.heads.iter().map(|h| h.read(|c| c.index.get(&trace).map_or(0, |entry| entry.bytes))).sum();
        let room = room_for_lookup(&sources.budget, live_bytes, !blocks.is_empty()).await;
        let charge = room.map_err(|over| TooLarge { held: 0, over })?;
        let found = spawn_blocking(move || find(&sources, &blocks, trace, left_out, charge)).await;
        let Found { resource_spans, inspected_bytes, left_out, charge } = found.map_err(|e| QueryError::Internal(e.to_string()))??;
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

/// The served blocks that may have the trace, as their filters say.
async fn may_have(sources: &mut Sources, trace: TraceId, left_out: &mut LeftOut) -> Result<Vec<Arc<ServedBlock>>, QueryError> {
    let mut blocks = Vec::new();
    for block in std::mem::take(&mut sources.view.served) {
        match sources.bucket.bloom_may_contain(&block.meta, trace).await {
            Ok(true) => blocks.push(block),
            Ok(false) => {}
            Err(error) => left_out.object(&block, error)?,
        }
    }
    Ok(blocks)
}

fn find(
    sources: &Sources,
    blocks: &[Arc<ServedBlock>],
    trace: TraceId,
    mut left_out: LeftOut,
    mut charge: Charge,
) -> Result<Found, QueryError> {
    let Sources { view, stop, .. } = sources;
    let mut segments: Vec<Arc<Segment>> = view.heads.iter().flat_map(|head| head.segments_of(&trace)).collect();
    segments.extend(view.held.iter().cloned());
    let mut inspected_bytes: u64 = segments.iter().map(|s| u64::from(s.header.uncompressed_bytes)).sum();
    let mut gathered = gather_readable(&segments, |id| *id == trace, stop, &mut left_out);
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
        match sources.open(block).and_then(|opened| opened.find(trace, None)) {
            Ok(part) => parts.extend(part),
            Err(error) => left_out.block(block, error)?,
        }
        inspected_bytes += block.meta.size_bytes / u64::from(block.meta.row_groups.max(1));
    }
    let resource_spans = combine(parts);
    charge
        .resize(lookup_bytes(resource_spans.iter().map(prost::Message::encoded_len)))
        .map_err(|over| TooLarge { held: charge.bytes(), over })?;
    Ok(Found { resource_spans, inspected_bytes, left_out, charge })
}

/// Gathers from many segments; those that cannot be read are noted and left out, and so is the rest when the client has gone away.
fn gather_readable<'a>(
    segments: impl IntoIterator<Item = &'a Arc<Segment>>,
    wanted: impl Fn(&TraceId) -> bool,
    stop: &CancellationToken,
    left_out: &mut LeftOut,
) -> Gathered {
    let mut gathered = Gathered::default();
    for segment in segments {
        if stop.is_cancelled() {
            break;
        }
        if let Err(error) = gathered.take(segment, &wanted) {
            left_out.segment(segment, &error);
        }
    }
    gathered
}
