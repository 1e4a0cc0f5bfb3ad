//! `vivace.v1.JobQueue`: queriers connect and take jobs by their free slots.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use vivace_core::budget::{Account, Budget, Charge};
use vivace_core::wire::{Reader, Value};
use vivace_proto::vivace::v1::job_queue_server::JobQueue;
use vivace_proto::vivace::v1::{FromQuerier, Job, JobResult, ToQuerier, from_querier, job_result, to_querier};

use crate::error::QueryError;
use crate::metrics::RETRIES;
use crate::queue::{Done, Pending, Queue};

/// How often a job may lose its querier. It need not be to blame: all jobs of a stream end with it.
const LOST_MAX: usize = 5;
/// Bytes that a result takes in memory for each on the wire, about.
const RESULT_FACTOR: u64 = 2;
/// What the wire adds to a result, at most.
const RESULT_FRAME_BYTES: usize = 1024;

/// How long a querier may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// The service.
pub(crate) struct Pull {
    pub(crate) queue: Queue,
    /// Tries of a job, the first included.
    pub(crate) max_attempts: usize,
    /// Largest message that is taken from a querier, bytes.
    pub(crate) max_message_bytes: usize,
    /// Results are charged to it until their queries have taken them in.
    pub(crate) budget: Budget,
    /// Ends all streams.
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl JobQueue for Pull {
    type PullStream = Pin<Box<dyn Stream<Item = Result<ToQuerier, Status>> + Send>>;

    async fn pull(&self, request: Request<Streaming<FromQuerier>>) -> Result<Response<Self::PullStream>, Status> {
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello within 10 s"))??
            .and_then(|first| first.message);
        let Some(from_querier::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message must be hello"));
        };
        let name = if hello.querier.is_empty() { "unnamed".to_owned() } else { hello.querier };
        let slots = usize::try_from(hello.concurrency).unwrap_or(1).max(1);
        self.queue.connected(&name, slots);
        tracing::info!(querier = name, slots, "querier connected");
        let stream = QuerierStream {
            name,
            slots,
            inbound,
            queue: self.queue.clone(),
            max_attempts: self.max_attempts.max(1),
            budget: self.budget.clone(),
            max_result_bytes: self.max_message_bytes.saturating_sub(RESULT_FRAME_BYTES).max(1) as u64,
            stop: self.stop.clone(),
            running: HashMap::new(),
            cancels: FuturesUnordered::new(),
        };
        let outbound =
            futures::stream::unfold(stream, |mut stream| async move { stream.next().await.map(|message| (Ok(message), stream)) });
        Ok(Response::new(Box::pin(outbound)))
    }
}

/// One querier's stream. Whatever it has not answered when it ends goes back into the queue.
struct QuerierStream {
    name: String,
    slots: usize,
    inbound: Streaming<FromQuerier>,
    queue: Queue,
    max_attempts: usize,
    max_result_bytes: u64,
    budget: Budget,
    stop: CancellationToken,
    running: HashMap<u64, Pending>,
    /// Ids of running jobs whose result nobody wants any more.
    cancels: FuturesUnordered<BoxFuture<'static, u64>>,
}

impl QuerierStream {
    /// The next message for the querier; none ends the stream.
    async fn next(&mut self) -> Option<ToQuerier> {
        loop {
            tokio::select! {
                message = self.inbound.message() => match message {
                    Ok(Some(FromQuerier { message: Some(from_querier::Message::Result(result)) })) => self.take(&result),
                    Ok(Some(FromQuerier { message: Some(from_querier::Message::Hello(hello)) })) => {
                        self.set_slots(usize::try_from(hello.concurrency).unwrap_or(1));
                    }
                    Ok(Some(FromQuerier { message: None })) => {}
                    Ok(None) => return None,
                    Err(error) => {
                        tracing::debug!(querier = self.name, %error, "a querier's stream broke");
                        return None;
                    }
                },
                Some(id) = self.cancels.next() => {
                    if self.running.remove(&id).is_some() {
                        self.queue.ended();
                        return Some(ToQuerier { message: Some(to_querier::Message::Cancel(id)) });
                    }
                }
                pending = self.queue.next(&self.name), if self.running.len() < self.slots => {
                    return Some(ToQuerier { message: Some(to_querier::Message::Job(self.begin(pending))) });
                }
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// None: it finishes what it has, and leaves.
    fn set_slots(&mut self, slots: usize) {
        if self.slots > 0 {
            self.queue.disconnected(&self.name, self.slots);
        }
        self.slots = slots;
        if slots > 0 {
            self.queue.connected(&self.name, slots);
        }
    }

    fn begin(&mut self, pending: Pending) -> Job {
        let id = self.queue.next_id();
        let (tenant, max_result_bytes) = (pending.tenant.to_string(), self.max_result_bytes);
        let job = Job { id, tenant, max_result_bytes, work: Some(pending.work.clone()) };
        let cancelled = pending.cancel.clone().cancelled_owned();
        self.cancels.push(Box::pin(async move {
            cancelled.await;
            id
        }));
        self.running.insert(id, pending);
        job
    }

    fn take(&mut self, message: &Bytes) {
        match JobResult::decode(message.clone()) {
            Ok(result) => self.take_result(result, message.len() as u64),
            Err(error) => self.take_unreadable(message, &error),
        }
    }

    /// What cannot be read here could not be if another querier sent it.
    fn take_unreadable(&mut self, message: &[u8], error: &prost::DecodeError) {
        tracing::warn!(querier = self.name, %error, "the result of a job cannot be read");
        if let Ok(Some((1, Value::Varint(id)))) = Reader::new(message).next_field()
            && let Some(pending) = self.running.remove(&id)
        {
            self.end(pending, Err(QueryError::Job(format!("the result of a job of the query cannot be read: {error}"))));
        }
    }

    fn take_result(&mut self, result: JobResult, bytes: u64) {
        let held = self.budget.charge(Account::Queries, RESULT_FACTOR * bytes);
        if result.more {
            // Where it does not fit the query ends, and with it the job, which is cancelled then.
            if let Some(pending) = self.running.get(&result.id) {
                let (result, held) = match held {
                    Ok(held) => (Ok(result), Some(held)),
                    Err(over) => (Err(over.into()), None),
                };
                let _ = pending.reply.send(Done { index: pending.index, result, held });
            }
            return;
        }
        let Some(pending) = self.running.remove(&result.id) else { return }; // cancelled meanwhile
        match &result.outcome {
            Some(job_result::Outcome::Failure(failure)) => {
                let error = QueryError::of_failure(failure);
                self.failed(pending, error, failure.retryable);
            }
            Some(_) => match held {
                Ok(held) => self.end(pending, Ok((result, held))),
                Err(over) => self.end(pending, Err(over.into())),
            },
            None => self.failed(pending, QueryError::Job("the querier sent an empty result".to_owned()), true),
        }
    }

    fn failed(&mut self, mut pending: Pending, error: QueryError, retryable: bool) {
        pending.tried.push(self.name.clone());
        // What took too long here takes too long here again.
        let is_hopeless = matches!(error, QueryError::JobTimeout(_)) && !self.queue.has_another(&pending);
        if retryable && !is_hopeless && pending.tried.len() < self.max_attempts && !pending.cancel.is_cancelled() {
            tracing::debug!(querier = self.name, tenant = %pending.tenant, %error, "a job failed and is tried again");
            self.queue.retry(pending);
        } else {
            self.end(pending, Err(error));
        }
    }

    fn lost(&mut self, mut pending: Pending) {
        pending.lost += 1;
        if pending.lost < LOST_MAX && !pending.cancel.is_cancelled() {
            self.queue.retry(pending);
        } else {
            let times = pending.lost;
            self.end(
                pending,
                Err(QueryError::Unavailable(format!("{times} queriers went away with a job of the query, the last one was {}", self.name))),
            );
        }
    }

    fn end(&mut self, pending: Pending, result: Result<(JobResult, Charge), QueryError>) {
        let tries = pending.tried.len() + usize::from(result.is_ok());
        metrics::histogram!(RETRIES.name).record(tries.saturating_sub(1) as f64);
        self.queue.ended();
        // The query may have ended meanwhile; then nobody wants the result.
        let (result, held) = match result {
            Ok((result, held)) => (Ok(result), Some(held)),
            Err(error) => (Err(error), None),
        };
        let _ = pending.reply.send(Done { index: pending.index, result, held });
    }
}

impl Drop for QuerierStream {
    fn drop(&mut self) {
        self.set_slots(0);
        tracing::info!(querier = self.name, unanswered = self.running.len(), "querier disconnected");
        for (_, pending) in std::mem::take(&mut self.running) {
            self.lost(pending);
        }
    }
}
