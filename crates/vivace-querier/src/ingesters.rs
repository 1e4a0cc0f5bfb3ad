//! Asks the ingesters for what is not in the bucket yet.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tonic::{Request, Response, Status};
use vivace_core::TenantId;
use vivace_proto::tempopb::querier_client::QuerierClient;
use vivace_proto::tempopb::{SearchRequest, SearchTagValuesRequest, SearchTagsRequest, TraceByIdRequest};
use vivace_proto::vivace::v1::recent_client::RecentClient;
use vivace_proto::vivace::v1::{CountPlacesRequest, SearchPartsRequest, SpansRequest};
use vivace_ring::{ClientPool, Connection, Instance, Ring, Snapshot, State, quorum};
use vivace_server::warning;

use crate::JobError;
use crate::metrics::INGESTER_FAILURES;

/// Clients of the ingesters' ring.
pub(crate) struct Ingesters {
    pub(crate) ring: Ring,
    pub(crate) pool: ClientPool,
    /// Logs that have a segment when it is acknowledged, the primary's included.
    quorum: usize,
    pub(crate) max_answer_bytes: usize,
}

/// What the ingesters said together.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    pub(crate) parts: Vec<T>,
    /// Whose data may be missing, and why; what they did not look at.
    pub(crate) warnings: Vec<String>,
}

/// What one ingester has of some traces.
#[derive(Debug, Default)]
pub(crate) struct LiveSpans {
    /// Serialised `TracesData`.
    pub(crate) messages: Vec<Bytes>,
    /// meta.json of blocks that it answers from and that were not known.
    pub(crate) served: Vec<Bytes>,
    pub(crate) inspected_bytes: u64,
}

/// Requests that tell an ingester who answers for themselves: of all others it gives what it holds for them.
pub(crate) trait Answering: Clone {
    fn answering(&mut self) -> &mut Vec<String>;
}

macro_rules! answering {
    ($($request:ty)*) => {$(
        impl Answering for $request {
            fn answering(&mut self) -> &mut Vec<String> {
                &mut self.answering
            }
        }
    )*};
}

answering!(TraceByIdRequest SearchRequest SearchTagsRequest SearchTagValuesRequest CountPlacesRequest SpansRequest);

impl Answering for SearchPartsRequest {
    fn answering(&mut self) -> &mut Vec<String> {
        &mut self.request.get_or_insert_default().answering
    }
}

/// An ingester whose own data is not, or not all, in the answers.
#[derive(Clone)]
pub(crate) struct Missing {
    pub(crate) id: String,
    pub(crate) why: String,
}

impl Ingesters {
    pub(crate) fn new(ring: Ring, pool: ClientPool, replication_factor: usize, max_answer_bytes: usize) -> Self {
        Self { ring, pool, quorum: quorum(replication_factor), max_answer_bytes }
    }

    /// Asks all live ingesters at once. Where one is dead, unknown here, still replaying its log, or fails, the others also
    /// answer from the segments they hold for it, and from the blocks that it wrote.
    pub(crate) async fn ask<Req, Resp, F, Fut>(
        &self,
        tenant: &TenantId,
        request: Req,
        timeout: Duration,
        call: F,
    ) -> Result<Answers<Resp>, JobError>
    where
        Req: Answering,
        F: Fn(QuerierClient<Connection>, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let client = |channel| QuerierClient::new(channel).max_decoding_message_size(self.max_answer_bytes);
        self.ask_by(tenant, request, timeout, |channel, request| call(client(channel), request)).await
    }

    /// The same by their other service.
    pub(crate) async fn ask_recent<Req, Resp, F, Fut>(
        &self,
        tenant: &TenantId,
        request: Req,
        timeout: Duration,
        call: F,
    ) -> Result<Answers<Resp>, JobError>
    where
        Req: Answering,
        F: Fn(RecentClient<Connection>, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let client = |channel| RecentClient::new(channel).max_decoding_message_size(self.max_answer_bytes);
        self.ask_by(tenant, request, timeout, |channel, request| call(client(channel), request)).await
    }

    async fn ask_by<Req, Resp, F, Fut>(
        &self,
        tenant: &TenantId,
        request: Req,
        timeout: Duration,
        call: F,
    ) -> Result<Answers<Resp>, JobError>
    where
        Req: Answering,
        F: Fn(Connection, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let snapshot = self.ring.snapshot();
        let mut missing = not_answering(&snapshot);
        let mut warnings = Vec::new();
        let answering = answering(&snapshot, &missing)?;
        let (answered, mut parts, failed) = self.round(&answering, tenant, &request, &answering, timeout, &call).await?;
        if !failed.is_empty() && !answered.is_empty() {
            let (_, more, failed_again) = self.round(&answered, tenant, &request, &answered, timeout, &call).await?;
            parts.extend(more);
            missing.extend(failed_again);
        }
        report(failed, &mut missing);
        if parts.is_empty() {
            return Err(JobError::Unavailable(format!("no ingester answers{}", listed(&missing))));
        }
        warnings.extend(self.warning(&missing));
        let parts = parts.into_iter().map(|part| {
            if let Some(warning) = warning::of(part.metadata()).filter(|warning| !warnings.contains(warning)) {
                warnings.push(warning);
            }
            part.into_inner()
        });
        Ok(Answers { parts: parts.collect(), warnings })
    }

    /// All live spans of some traces.
    pub(crate) async fn spans(&self, tenant: &TenantId, request: SpansRequest, timeout: Duration) -> Result<Answers<LiveSpans>, JobError> {
        self.ask_recent(tenant, request, timeout, |mut client, request| async move {
            let mut spans = LiveSpans::default();
            let (mut metadata, mut messages, extensions) = client.spans(request).await?.into_parts();
            while let Some(message) = messages.message().await? {
                spans.served.extend(message.served);
                spans.inspected_bytes += message.inspected_bytes;
                if !message.warning.is_empty() {
                    warning::insert(&mut metadata, &message.warning);
                }
                spans.messages.extend(Some(message.spans).filter(|spans| !spans.is_empty()));
            }
            Ok(Response::from_parts(metadata, spans, extensions))
        })
        .await
    }

    /// What to say of an answer without these: less than a quorum of them leave every acknowledged segment in some answering log.
    pub(crate) fn warning(&self, missing: &[Missing]) -> Option<String> {
        (missing.len() >= self.quorum).then(|| format!("recent spans may be missing{}", listed(missing)))
    }

    /// One call to each; gives those that answered, what they said, and those that failed.
    async fn round<'a, Req, Resp, F, Fut>(
        &self,
        instances: &[&'a Instance],
        tenant: &TenantId,
        request: &Req,
        answering: &[&Instance],
        timeout: Duration,
        call: &F,
    ) -> Result<(Vec<&'a Instance>, Vec<Response<Resp>>, Vec<Missing>), JobError>
    where
        Req: Answering,
        F: Fn(Connection, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let mut calls: FuturesUnordered<_> = instances
            .iter()
            .map(|instance| {
                let mut message = request.clone();
                *message.answering() = answering.iter().map(|i| i.id.clone()).collect();
                let mut request = Request::new(message);
                let lost = self.lost(instance);
                vivace_server::tenant::insert(request.metadata_mut(), tenant);
                request.set_timeout(timeout);
                async move {
                    let channel = self.pool.connection(&instance.addr).map_err(|e| Status::unavailable(e.to_string()));
                    let result = match channel {
                        Ok(channel) => {
                            let slow = |_| Status::deadline_exceeded(format!("no answer within {timeout:?}"));
                            tokio::select! {
                                answer = tokio::time::timeout(timeout, call(channel, request)) => answer.map_err(slow).flatten(),
                                () = lost => Err(Status::unavailable("died, or was replaced, before it answered")),
                            }
                        }
                        Err(status) => Err(status),
                    };
                    (*instance, result)
                }
            })
            .collect();
        let (mut answered, mut parts, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        while let Some((instance, result)) = calls.next().await {
            match result {
                Ok(response) => {
                    answered.push(instance);
                    parts.push(response);
                }
                Err(status) => failed.push(self.missing_for(instance, &status)?),
            }
        }
        Ok((answered, parts, failed))
    }

    /// Comes back when this run of the instance will not answer any more, so that nobody waits for an address that is gone.
    pub(crate) async fn lost(&self, instance: &Instance) {
        let is_lost = |now: &Instance| !now.alive || now.addr != instance.addr || is_replaying(now);
        // One that has left in order still answers what it was asked.
        if self.ring.watch().wait_for(|ring| ring.get(&instance.id).is_some_and(is_lost)).await.is_err() {
            // The ring is gone, as at the end of the process.
            std::future::pending::<()>().await;
        }
    }
}

/// The live instances but those that are missing.
///
/// # Errors
/// [`JobError::Unavailable`] when there are none.
pub(crate) fn answering<'a>(snapshot: &'a Snapshot, missing: &[Missing]) -> Result<Vec<&'a Instance>, JobError> {
    let answering: Vec<&Instance> = snapshot.live().filter(|instance| missing.iter().all(|m| m.id != instance.id)).collect();
    if answering.is_empty() {
        return Err(JobError::Unavailable(format!("no ingester answers{}", listed(missing))));
    }
    Ok(answering)
}

/// Instances whose own data cannot be had.
pub(crate) fn not_answering(snapshot: &Snapshot) -> Vec<Missing> {
    let dead = snapshot.dead().map(|i| Missing { id: i.id.clone(), why: "has not been heard of lately".to_owned() });
    let replaying = snapshot.live().filter(|i| is_replaying(i));
    dead.chain(replaying.map(|i| Missing { id: i.id.clone(), why: "is still replaying its log".to_owned() })).collect()
}

fn is_replaying(instance: &Instance) -> bool {
    matches!(instance.state, State::Pending | State::Joining)
}

pub(crate) fn report(failed: Vec<Missing>, missing: &mut Vec<Missing>) {
    for failure in failed {
        metrics::counter!(INGESTER_FAILURES.name).increment(1);
        tracing::warn!(ingester = failure.id, error = failure.why, "an ingester did not answer");
        if missing.iter().all(|m| m.id != failure.id) {
            missing.push(failure);
        }
    }
}

/// `: ingester-1 …, ingester-2 …`, or nothing.
fn listed(missing: &[Missing]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let each: Vec<String> = missing.iter().map(|m| format!("{} {}", m.id, m.why)).collect();
    format!(": {}", each.join(", "))
}
