//! Writing segments to their primary and its followers, and around those that do not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use prost::Message as _;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use vivace_core::traces::TraceSpans;
use vivace_core::{TenantId, Token};
use vivace_proto::vivace::v1::push_request::Compression;
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;
use vivace_proto::vivace::v1::{self as proto, PushRequest, PushResponse, RefusedTrace, SegmentId};
use vivace_ring::{ClientPool, Instance, Ring, Snapshot};
use vivace_server::RequestCharge;

use crate::metrics::{APPEND_FAILURES, APPENDS, INGESTER_CLIENTS};
use crate::plan::{Part, PlanError, PlanLimits, Survey, plan};
use crate::too_large::TooLarge;

/// How often the spans of one segment are sent, each time around those that failed, before the client is told.
const TRIES_MAX: u32 = 3;
/// How long an instance that failed a write is not chosen as a primary, where others are left.
const SUSPECT_FOR: Duration = Duration::from_secs(2);
/// How long the answers of a replication set are waited for before the spans go elsewhere too. The sends go on meanwhile: what
/// arrives twice is only a duplicate, and a client that waits longer may give up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests up to this size are taken apart where they arrive: handing them to another thread costs more than it saves.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// Writes to the ingesters. One per process.
#[derive(Debug)]
pub(crate) struct Replicator {
    ring: Ring,
    pool: ClientPool,
    options: ReplicationOptions,
    incarnation: Bytes,
    sequence: AtomicU64,
    suspects: Mutex<FxHashMap<String, Instant>>,
    /// Sends outlive the requests that they belong to; shutdown waits for them.
    sends: TaskTracker,
}

/// How segments are replicated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplicationOptions {
    /// Logs that a segment goes to, the primary's included.
    pub(crate) replication_factor: usize,
    /// Longest time of one send.
    pub(crate) timeout: Duration,
    /// Largest message sent, bytes.
    pub(crate) message_bytes_max: usize,
    /// Largest message that ingesters take, bytes: parts are cut to it.
    pub(crate) taken_bytes_max: usize,
    /// The option that `taken_bytes_max` is from.
    pub(crate) taken_bytes_key: &'static str,
}

impl ReplicationOptions {
    /// Logs that must have a segment before it is acknowledged, the primary's included.
    pub(crate) fn quorum(&self) -> usize {
        vivace_ring::quorum(self.replication_factor)
    }
}

/// A request, ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    snapshot: Arc<Snapshot>,
    segments: Vec<Segment>,
    /// What its spans are.
    pub(crate) survey: Survey,
    /// Spans that are refused for what is in them, counted from 1.
    pub(crate) refused: FxHashSet<u32>,
    /// Spans that no ingester takes. They are in none of the segments.
    pub(crate) too_large: TooLarge,
}

impl Prepared {
    /// What is sent to each log, bytes.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.request.payload.len() as u64).sum()
    }
}

/// The unit of replication.
#[derive(Debug, Clone)]
struct Segment {
    primary: Instance,
    request: PushRequest,
    tries: u32,
    /// Instances that have failed these spans.
    avoided: Arc<FxHashSet<String>>,
}

/// Why spans could not be stored.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// The request itself is at fault.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Too few instances take writes.
    #[error("at least {needed} live replicas required, could only find {found}")]
    TooFew { needed: usize, found: usize },
    /// All instances tried have failed.
    #[error("no replication set took the spans in {tries} tries; {instance} said last: {message}")]
    Failed { tries: u32, instance: String, message: String, busy: bool },
    /// No instance would take these spans.
    #[error("{instance} refused the spans: {message}")]
    Refused { instance: String, message: String },
    /// A fault of this program.
    #[error("a fault in this program, not in the request: {0}")]
    Fault(String),
    /// The process is about to end.
    #[error("the distributor is shutting down")]
    Stopping,
}

/// What one replication set answered.
struct Failure {
    segment: Segment,
    failed: Vec<String>,
    primary_failed: bool,
    last: Status,
}

impl Replicator {
    pub(crate) fn new(ring: Ring, pool: ClientPool, options: ReplicationOptions) -> Self {
        let incarnation = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self { ring, pool, options, incarnation, sequence: AtomicU64::new(1), suspects: Mutex::default(), sends: TaskTracker::new() }
    }

    /// Whether enough instances take writes.
    pub(crate) fn check_ready(&self) -> Result<(), StoreError> {
        self.check_enough(&self.ring.snapshot())
    }

    /// Waits for the sends that are under way. No more are started.
    pub(crate) async fn drain(&self) {
        self.sends.close();
        self.sends.wait().await;
    }

    /// Takes a request apart, on another thread if that is worth it.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        body: Bytes,
        tenant: &TenantId,
        max_attribute_bytes: usize,
    ) -> Result<Prepared, StoreError> {
        let snapshot = self.ring.snapshot();
        self.check_enough(&snapshot)?;
        let avoided = Arc::new(self.suspects(&snapshot));
        self.segments(snapshot, body, tenant.clone(), max_attribute_bytes, avoided, 1).await
    }

    /// Stores a request. Ends once every segment is acknowledged by a quorum; the other sends go on.
    ///
    /// Returns the traces that primaries refused. `hold` is kept until the last send is over.
    pub(crate) async fn store(
        self: &Arc<Self>,
        tenant: &TenantId,
        prepared: Prepared,
        hold: Arc<RequestCharge>,
    ) -> Result<Vec<RefusedTrace>, StoreError> {
        let mut refused = Vec::new();
        let mut waiting: FuturesUnordered<_> =
            prepared.segments.into_iter().map(|s| self.attempt(prepared.snapshot.clone(), s, hold.clone())).collect();
        while let Some(outcome) = waiting.next().await {
            match outcome {
                Ok(traces) => refused.extend(traces),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Failed(failure)) => {
                    for segment in self.around(*failure, tenant).await? {
                        waiting.push(self.attempt(self.ring.snapshot(), segment, hold.clone()));
                    }
                }
            }
        }
        Ok(refused)
    }

    async fn segments(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        body: Bytes,
        tenant: TenantId,
        max_attribute_bytes: usize,
        avoided: Arc<FxHashSet<String>>,
        tries: u32,
    ) -> Result<Prepared, StoreError> {
        let this = self.clone();
        let small = body.len() <= INLINE_BYTES_MAX;
        let work = move || -> Result<Prepared, StoreError> {
            let owner = |token: Token| match avoided.is_empty() {
                true => snapshot.primary(token),
                false => snapshot.owners(token).find(|i| !avoided.contains(&i.id)),
            };
            let limits = PlanLimits::new(max_attribute_bytes, this.options.taken_bytes_max);
            let plan = plan(&body, &tenant, limits, owner)?;
            let mut too_large = TooLarge::new(this.options.taken_bytes_max, this.options.taken_bytes_key);
            let mut segments = Vec::with_capacity(plan.parts.len());
            for part in plan.parts {
                // Only a single span can be too large; it may fit once it is compressed.
                let is_large = part.payload.len() > limits.part_bytes_max;
                let payload = is_large.then(|| part.payload.clone());
                let segment = this.segment(part, &tenant, avoided.clone(), tries);
                match payload {
                    Some(payload) if too_large.add(&payload, segment.request.encoded_len()).map_err(PlanError::from)? => {}
                    _ => segments.push(segment),
                }
            }
            Ok(Prepared { segments, survey: plan.survey, refused: plan.refused, too_large, snapshot: snapshot.clone() })
        };
        if small {
            return work();
        }
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| match error.is_panic() {
            true => {
                tracing::error!(%error, "taking a request apart panicked");
                Err(StoreError::Fault(format!("could not take the request apart: {error}")))
            }
            false => Err(StoreError::Stopping),
        })
    }

    fn segment(&self, part: Part<'_>, tenant: &TenantId, avoided: Arc<FxHashSet<String>>, tries: u32) -> Segment {
        let uncompressed_bytes = u32::try_from(part.payload.len()).unwrap_or(u32::MAX);
        let compressed = lz4_flex::block::compress(&part.payload);
        let (compression, payload) = if compressed.len() < part.payload.len() {
            (Compression::Lz4, Bytes::from(compressed))
        } else {
            (Compression::None, part.payload)
        };
        let id = SegmentId { incarnation: self.incarnation.clone(), sequence: self.sequence.fetch_add(1, Ordering::Relaxed) };
        let request = PushRequest {
            id: Some(id),
            tenant: tenant.as_str().to_owned(),
            primary: part.owner.id.clone(),
            compression: compression.into(),
            uncompressed_bytes,
            payload,
            spans: part.spans,
            traces: part.traces.into_iter().map(to_proto).collect(),
        };
        Segment { primary: part.owner.clone(), request, tries, avoided }
    }

    /// Sends one segment to its replication set and waits for the quorum.
    async fn attempt(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        segment: Segment,
        hold: Arc<RequestCharge>,
    ) -> Result<Vec<RefusedTrace>, Attempt> {
        let (factor, needed) = (self.options.replication_factor, self.options.quorum());
        let mut targets = vec![&segment.primary];
        let followers = snapshot.followers(&segment.primary.id, factor + segment.avoided.len());
        // A suspect is no better as a follower: the next in order takes its place while it is avoided.
        let (good, bad): (Vec<&Instance>, Vec<&Instance>) = followers.into_iter().partition(|f| !segment.avoided.contains(&f.id));
        targets.extend(good.into_iter().chain(bad).take(factor - 1));
        if targets.len() < needed {
            return Err(Attempt::Final(StoreError::TooFew { needed, found: targets.len() }));
        }
        let (answers, mut answered) = mpsc::channel(targets.len());
        for target in &targets {
            self.send(target, segment.request.clone(), answers.clone(), hold.clone());
        }
        drop(answers);

        let patience = if segment.tries < TRIES_MAX { PATIENCE.min(self.options.timeout) } else { self.options.timeout };
        let deadline = Instant::now() + patience;
        let mut silent: Vec<String> = targets.iter().map(|t| t.id.clone()).collect();
        let (mut refused, mut stored, mut failed) = (None, 0, Vec::new());
        let mut last = Status::deadline_exceeded(format!("no answer within {patience:?}"));
        while let Ok(Some((id, answer))) = tokio::time::timeout_at(deadline, answered.recv()).await {
            silent.retain(|s| *s != id);
            match answer {
                Ok(PushResponse { refused: traces }) => {
                    stored += 1;
                    if id == segment.primary.id {
                        refused = Some(traces);
                    }
                }
                Err(status) => {
                    last = status;
                    let primary_failed = id == segment.primary.id;
                    failed.push(id);
                    if primary_failed || stored + silent.len() < needed {
                        return Err(Attempt::Failed(Box::new(Failure { segment, failed, primary_failed, last })));
                    }
                }
            }
            if stored >= needed
                && let Some(traces) = refused.take()
            {
                return Ok(traces);
            }
        }
        let primary_failed = silent.contains(&segment.primary.id);
        silent.iter().for_each(|id| self.suspect(id));
        failed.extend(silent);
        Err(Attempt::Failed(Box::new(Failure { segment, failed, primary_failed, last })))
    }

    /// Starts one send, which goes on also when nobody waits for its answer any more.
    fn send(
        self: &Arc<Self>,
        target: &Instance,
        request: PushRequest,
        answers: mpsc::Sender<(String, Result<PushResponse, Status>)>,
        hold: Arc<RequestCharge>,
    ) {
        let (this, id, addr) = (self.clone(), target.id.clone(), target.addr.clone());
        self.sends.spawn(async move {
            let answer = this.call(&addr, request).await;
            metrics::counter!(APPENDS.name, "ingester" => addr.clone()).increment(1);
            match &answer {
                Ok(_) => this.trust(&id),
                Err(status) => {
                    metrics::counter!(APPEND_FAILURES.name, "ingester" => addr.clone()).increment(1);
                    tracing::debug!(ingester = %id, %addr, code = ?status.code(), error = status.message(), "could not append a segment");
                    if !is_our_fault(status.code()) {
                        this.suspect(&id);
                    }
                }
            }
            // Nobody listens once the quorum is reached.
            let _ = answers.send((id, answer)).await;
            drop(hold);
        });
    }

    async fn call(&self, addr: &str, request: PushRequest) -> Result<PushResponse, Status> {
        let channel = self.pool.connection(addr).map_err(|error| Status::unavailable(error.to_string()))?;
        metrics::gauge!(INGESTER_CLIENTS.name).set(self.pool.len() as f64);
        let mut client = SegmentLogClient::new(channel).max_encoding_message_size(self.options.message_bytes_max);
        match tokio::time::timeout(self.options.timeout, client.push(request)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer from {addr} within {:?}", self.options.timeout))),
        }
    }

    /// What to send next after a failure: the same segment to other followers, or its spans under their next owners.
    async fn around(self: &Arc<Self>, failure: Failure, tenant: &TenantId) -> Result<Vec<Segment>, StoreError> {
        let Failure { segment, failed, primary_failed, last } = failure;
        let instance = failed.last().cloned().unwrap_or_default();
        tracing::warn!(
            primary = %segment.primary.id, failed = ?failed, tries = segment.tries, error = last.message(), "a replication set failed a segment"
        );
        let mut avoided = FxHashSet::clone(&segment.avoided);
        avoided.extend(failed);
        let snapshot = self.ring.snapshot();
        let left = snapshot.writable().filter(|i| !avoided.contains(&i.id)).count();
        let exhausted = segment.tries >= TRIES_MAX || left < if primary_failed { self.options.quorum() } else { 1 };
        if is_our_fault(last.code()) {
            let hint = match last.code() {
                Code::OutOfRange => " (its server.grpc_server_max_recv_msg_size is lower than this distributor's)",
                _ => "",
            };
            return Err(StoreError::Refused { instance, message: format!("{}{hint}", last.message()) });
        }
        if exhausted {
            return Err(StoreError::Failed {
                tries: segment.tries,
                instance,
                message: last.message().to_owned(),
                busy: last.code() == Code::ResourceExhausted,
            });
        }
        let (avoided, tries) = (Arc::new(avoided), segment.tries + 1);
        if !primary_failed {
            return Ok(vec![Segment { tries, avoided, ..segment }]);
        }
        let body = match segment.request.compression() {
            Compression::None => segment.request.payload,
            Compression::Lz4 => {
                let size = segment.request.uncompressed_bytes as usize;
                lz4_flex::block::decompress(&segment.request.payload, size)
                    .map_err(|error| StoreError::Fault(format!("its own segment is damaged: {error}")))?
                    .into()
            }
        };
        let Prepared { segments, too_large, .. } = self.segments(snapshot, body, tenant.clone(), 0, avoided, tries).await?;
        match too_large.spans.first() {
            None => Ok(segments),
            // It was small enough for the first instance, and has not grown.
            Some(span) => Err(StoreError::Fault(format!("span {} of trace {} is too large to be sent again", span.span, span.trace))),
        }
    }

    fn check_enough(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (needed, found) = (self.options.quorum(), snapshot.writable().count());
        if found < needed { Err(StoreError::TooFew { needed, found }) } else { Ok(()) }
    }

    /// Instances that failed lately, unless too few others are left.
    fn suspects(&self, snapshot: &Snapshot) -> FxHashSet<String> {
        let mut suspects = self.suspects.lock();
        if suspects.is_empty() {
            return FxHashSet::default();
        }
        let now = Instant::now();
        suspects.retain(|_, until| *until > now);
        let left = snapshot.writable().filter(|i| !suspects.contains_key(&i.id)).count();
        if left < self.options.quorum() { FxHashSet::default() } else { suspects.keys().cloned().collect() }
    }

    fn suspect(&self, id: &str) {
        self.suspects.lock().insert(id.to_owned(), Instant::now() + SUSPECT_FOR);
    }

    fn trust(&self, id: &str) {
        let mut suspects = self.suspects.lock();
        if !suspects.is_empty() {
            suspects.remove(id);
        }
    }
}

fn to_proto(of: TraceSpans) -> proto::TraceSpans {
    proto::TraceSpans {
        trace_id: Bytes::copy_from_slice(&of.trace.0),
        spans: of.spans,
        bytes: of.bytes,
        first_start: of.first_start,
        last_start: of.last_start,
        first_end: of.first_end,
        last_end: of.last_end,
        has_backwards: of.has_backwards,
    }
}

/// The instance could not make sense of the segment, or it is larger than it takes (which the library calls OUT_OF_RANGE).
/// No other instance would do better.
fn is_our_fault(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::OutOfRange)
}

/// How an attempt went wrong.
enum Attempt {
    /// Others may take the spans.
    Failed(Box<Failure>),
    /// Nobody will.
    Final(StoreError),
}
