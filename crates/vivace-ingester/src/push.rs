//! A segment arrives: it is checked, counted against the tenant's limits by its primary, and given to the store, which logs it before
//! it is live or held.

use bytes::Bytes;
use vivace_core::{TenantId, TraceId};
use vivace_proto::vivace::v1::push_request;
use vivace_proto::vivace::v1::{PushRequest, PushResponse, RefusedTrace, TraceSpans};
use vivace_server::clock;

use crate::header::{Compression, Refused, SEGMENT_BYTES_MAX, SegmentHeader, SegmentId};
use crate::ingester::Ingester;
use crate::log::LogError;
use crate::metrics::{BYTES_RECEIVED, TRACES_CREATED, WARNINGS};
use crate::segment::{SegmentError, traces_of};
use crate::summary::{Arrival, TraceSummary};

/// Segments up to this size are read on the spot; handing a smaller one to another thread costs more than reading it.
const READ_INLINE_BYTES_MAX: u32 = 64 << 10;
/// No instance has a longer id.
const INSTANCE_ID_BYTES_MAX: usize = 1024;

/// Why a segment is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// Going away; another ingester is to be tried.
    #[error("Ingester is shutting down")]
    ShuttingDown,
    /// Not a member of the ring yet; another ingester is to be tried.
    #[error("the ingester is still joining the ring")]
    Joining,
    /// The request is not what it should be. Never worth a retry.
    #[error("{0}")]
    Invalid(String),
    /// The index of live segments takes all the memory it may. Worth a retry once a block is built.
    #[error("the index of live spans takes {used} of {max} bytes of memory")]
    Memory {
        /// What it takes.
        used: u64,
        /// What it may take.
        max: u64,
    },
    /// A fault of ours, met while the spans were read.
    #[error("reading the segment panicked")]
    Panicked,
    /// Not logged.
    #[error("segment was not logged")]
    Log(#[from] LogError),
}

impl From<SegmentError> for PushError {
    fn from(error: SegmentError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::Invalid(format!("{error}{source}"))
    }
}

impl Ingester {
    /// Logs a segment. When this returns it is on disk, and where this instance is its primary every query sees it.
    ///
    /// May be dropped midway: then the segment is logged and seen, or not at all.
    pub(crate) async fn push(&self, request: PushRequest) -> Result<PushResponse, PushError> {
        if self.lifecycle.is_joining() {
            return Err(PushError::Joining);
        }
        let _under_way = self.lifecycle.begin_push().ok_or(PushError::ShuttingDown)?;
        let header = check(&request)?;
        if header.primary == *self.store.id() {
            return self.push_own(header, request.payload, &request.traces).await;
        }
        if !self.store.is_held(&header.primary, &header.id) {
            self.store.hold(header, request.payload).await?;
        }
        Ok(PushResponse::default())
    }

    async fn push_own(&self, header: SegmentHeader, payload: Bytes, told: &[TraceSpans]) -> Result<PushResponse, PushError> {
        if let Some(known) = self.store.own(&header.id) {
            return Ok(response(&known.header.refused));
        }
        self.check_memory()?;
        let slack_nanos = self.settings.slack_nanos();
        let (mut header, traces) = match summaries_told(&header, told, slack_nanos) {
            Some(traces) => (header, traces),
            None => read(header, payload.clone(), slack_nanos).await?,
        };
        let limits = self.limits.traces(&header.tenant);
        let (refused, created) = self.store.admit(&header.tenant, &traces, header.received_unix_seconds, limits);
        count(&header.tenant, &traces, created);
        let answer = response(&refused);
        let is_all_refused = refused.len() == traces.len();
        header.refused = refused;
        // A segment without any span left is logged all the same, so that followers are told that it is covered.
        let payload = if is_all_refused { Bytes::new() } else { payload };
        if is_all_refused {
            (header.compression, header.uncompressed_bytes, header.spans) = (Compression::None, 0, 0);
        }
        self.store.take_own(header, payload, traces).await?;
        Ok(answer)
    }

    /// What is logged cannot be refused any more, so that happens before.
    fn check_memory(&self) -> Result<(), PushError> {
        let used = self.store.memory_bytes();
        let max = self.settings.live_memory_bytes_max;
        if used > max / 2 {
            self.store.flush_soon();
        }
        if used > max { Err(PushError::Memory { used, max }) } else { Ok(()) }
    }
}

/// Counts a segment that came as its primary's.
fn count(tenant: &TenantId, traces: &[TraceSummary], created: u64) {
    let name = tenant.to_string();
    let bytes = traces.iter().map(|trace| trace.bytes).sum();
    metrics::counter!(BYTES_RECEIVED.name, "tenant" => name.clone(), "data_type" => "trace").increment(bytes);
    if created > 0 {
        metrics::counter!(TRACES_CREATED.name, "tenant" => name.clone()).increment(created);
    }
    let outside_slack = traces.iter().filter(|trace| trace.range.has_others).count();
    if outside_slack > 0 {
        let labels = [("tenant", name), ("reason", "outside_ingestion_time_slack".to_owned())];
        metrics::counter!(WARNINGS.name, &labels).increment(outside_slack as u64);
    }
}

/// Checks everything of a request but the spans in it.
fn check(request: &PushRequest) -> Result<SegmentHeader, PushError> {
    let invalid = |what: String| PushError::Invalid(what);
    let id = request.id.as_ref().ok_or_else(|| invalid("the segment has no id".to_owned()))?;
    let incarnation = <[u8; 16]>::try_from(&id.incarnation[..])
        .map_err(|_| invalid(format!("the segment's incarnation has {} bytes, expected 16", id.incarnation.len())))?;
    let tenant = TenantId::new(&request.tenant).map_err(|e| invalid(e.to_string()))?;
    if request.primary.is_empty() || request.primary.len() > INSTANCE_ID_BYTES_MAX {
        return Err(invalid(format!("the primary's id has {} bytes, expected 1 to {INSTANCE_ID_BYTES_MAX}", request.primary.len())));
    }
    let compression = match push_request::Compression::try_from(request.compression) {
        Ok(push_request::Compression::None) => Compression::None,
        Ok(push_request::Compression::Lz4) => Compression::Lz4,
        Err(_) => return Err(invalid(format!("unknown compression {}", request.compression))),
    };
    if request.payload.len() > SEGMENT_BYTES_MAX as usize {
        return Err(invalid(format!("the payload has {} bytes, at most {SEGMENT_BYTES_MAX} are taken", request.payload.len())));
    }
    Ok(SegmentHeader {
        id: SegmentId { incarnation, sequence: id.sequence },
        tenant,
        primary: request.primary.as_str().into(),
        compression,
        uncompressed_bytes: request.uncompressed_bytes,
        spans: request.spans,
        received_unix_seconds: clock::unix_seconds(),
        refused: Vec::new(),
    })
}

/// What the sender says of the traces, who has walked over their spans. None where that is not all, or where the spans' own times decide.
fn summaries_told(header: &SegmentHeader, told: &[TraceSpans], slack_nanos: u64) -> Option<Vec<TraceSummary>> {
    let spans: u64 = told.iter().map(|trace| u64::from(trace.spans)).sum();
    if told.is_empty() || spans != u64::from(header.spans) || told.iter().any(|trace| trace.trace_id.len() != TraceId::default().0.len()) {
        return None;
    }
    let arrival = Arrival::of(header, slack_nanos);
    told.iter().map(|trace| TraceSummary::told(trace, arrival)).collect()
}

/// Decompresses and walks over all spans, off the async threads when that takes long. Gives the header back.
async fn read(header: SegmentHeader, payload: Bytes, slack_nanos: u64) -> Result<(SegmentHeader, Vec<TraceSummary>), PushError> {
    if header.uncompressed_bytes <= READ_INLINE_BYTES_MAX {
        let traces = traces_of(&header, &payload, slack_nanos)?;
        return Ok((header, traces));
    }
    let read = tokio::task::spawn_blocking(move || {
        let traces = traces_of(&header, &payload, slack_nanos)?;
        Ok((header, traces))
    });
    match read.await {
        Ok(read) => read,
        Err(error) if error.is_panic() => Err(PushError::Panicked),
        // The task is not aborted by anyone, so this is a process that ends.
        Err(_) => Err(PushError::ShuttingDown),
    }
}

fn response(refused: &[Refused]) -> PushResponse {
    let refused = refused.iter().map(|r| RefusedTrace { trace_id: r.trace.0.to_vec().into(), reason: r.reason.into(), spans: r.spans });
    PushResponse { refused: refused.collect() }
}
