//! Pulls jobs from every query-frontend behind the configured name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use vivace_core::pieces::{PIECE_BYTES, Pieces};
use vivace_proto::tempopb::SearchResponse;
use vivace_proto::vivace::v1::job_queue_client::JobQueueClient;
use vivace_proto::vivace::v1::{FromQuerier, Hello, Job, JobResult, ToQuerier, from_querier, job_result, to_querier};

use crate::metrics::CONNECTED_FRONTENDS;
use crate::querier::JobOutput;
use crate::search::Matches;
use crate::{JobError, Querier};

/// Messages that wait for a stream to take them.
const RESULTS_WAITING: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A frontend that is silent for twice this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where jobs come from and how many are taken.
#[derive(Debug, Clone)]
pub(crate) struct WorkerOptions {
    /// `host:port` of the query-frontends.
    pub(crate) frontend_address: String,
    /// Pause between resolutions of that name.
    pub(crate) dns_lookup_duration: Duration,
    /// Jobs at once, over all query-frontends.
    pub(crate) max_concurrent_jobs: usize,
    /// The first pause between tries to connect.
    pub(crate) min_backoff: Duration,
    /// The longest.
    pub(crate) max_backoff: Duration,
    /// Largest result sent, bytes.
    pub(crate) max_result_bytes: usize,
    /// Largest job taken, bytes.
    pub(crate) max_job_bytes: usize,
    /// This querier's name, for the frontends' logs.
    pub(crate) name: String,
}

/// Keeps one stream open to each query-frontend, and runs what comes.
pub(crate) struct Worker {
    pub(crate) options: WorkerOptions,
    pub(crate) querier: Arc<Querier>,
    /// Streams that are open, for readiness.
    pub(crate) connected: Arc<AtomicUsize>,
    /// No further jobs; those that run are finished.
    pub(crate) leaving: CancellationToken,
}

impl Worker {
    /// Works until stopped, or until it has left.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let worker = Arc::new(self);
        let mut streams: JoinSet<()> = JoinSet::new();
        let mut known: FxHashMap<String, CancellationToken> = FxHashMap::default();
        let mut tick = tokio::time::interval(worker.options.dns_lookup_duration.max(Duration::from_millis(100)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                Some(ended) = streams.join_next() => {
                    ended?;
                    continue;
                }
                () = stop.cancelled() => break,
                () = worker.leaving.cancelled() => break,
            }
            let addresses = match resolve(&worker.options.frontend_address).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    let address = &worker.options.frontend_address;
                    tracing::warn!(address, %error, "could not resolve querier.frontend_worker.frontend_address");
                    continue;
                }
            };
            known.retain(|address, stopped| {
                let stays = addresses.contains(address);
                if !stays {
                    stopped.cancel();
                }
                stays
            });
            for address in &addresses {
                if known.contains_key(address) {
                    continue;
                }
                let stopped = stop.child_token();
                known.insert(address.clone(), stopped.clone());
                let (worker, address, frontends) = (worker.clone(), address.clone(), addresses.len());
                streams.spawn(async move {
                    worker.keep_stream(&address, frontends, &stopped).await;
                });
            }
        }
        while let Some(ended) = streams.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Opens the stream again whenever it ends.
    async fn keep_stream(&self, address: &str, frontends: usize, stopped: &CancellationToken) {
        let mut backoff = self.options.min_backoff;
        loop {
            let begun = tokio::time::Instant::now();
            let result = self.serve_stream(address, frontends, stopped).await;
            if stopped.is_cancelled() || self.leaving.is_cancelled() {
                return;
            }
            if let Err(error) = result {
                tracing::warn!(frontend = address, %error, "lost the query-frontend; its jobs are cancelled");
            }
            if begun.elapsed() > self.options.max_backoff {
                backoff = self.options.min_backoff;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = stopped.cancelled() => return,
                () = self.leaving.cancelled() => return,
            }
            backoff = (backoff * 2).min(self.options.max_backoff);
        }
    }

    async fn serve_stream(&self, address: &str, frontends: usize, stopped: &CancellationToken) -> anyhow::Result<()> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        let concurrency = self.options.max_concurrent_jobs.div_ceil(frontends.max(1)).max(1);
        // When the stream is slow results wait with their jobs, where they are charged.
        let (results, outgoing) = mpsc::channel::<FromQuerier>(RESULTS_WAITING);
        results.send(self.hello(u32::try_from(concurrency).unwrap_or(u32::MAX))).await?;
        let connect = async {
            let channel = endpoint.connect().await?;
            let mut client = JobQueueClient::new(channel)
                .max_decoding_message_size(self.options.max_job_bytes)
                .max_encoding_message_size(self.options.max_result_bytes);
            anyhow::Ok(client.pull(ReceiverStream::new(outgoing)).await?.into_inner())
        };
        let mut incoming = tokio::select! {
            incoming = connect => incoming?,
            () = stopped.cancelled() => return Ok(()),
        };
        tracing::info!(frontend = address, concurrency, "pulling jobs");
        let _connected = Connected::new(&self.connected);
        let mut jobs: JoinSet<u64> = JoinSet::new();
        let mut cancels: FxHashMap<u64, CancellationToken> = FxHashMap::default();
        // The last sender ends the stream, once what is sent has arrived.
        let mut results = Some(results);
        let mut is_leaving = false;
        // On every way out the set is dropped, which ends its jobs.
        loop {
            if is_leaving && jobs.is_empty() {
                results = None;
            }
            tokio::select! {
                () = self.leaving.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    if let Some(results) = &results {
                        results.send(self.hello(0)).await?;
                    }
                }
                message = incoming.message() => match message?.and_then(|m: ToQuerier| m.message) {
                    Some(to_querier::Message::Job(job)) => {
                        // One that comes after the last has ended goes to another querier when this stream ends.
                        let Some(results) = &results else { continue };
                        let cancel = stopped.child_token();
                        cancels.insert(job.id, cancel.clone());
                        let (querier, max_bytes) = (self.querier.clone(), max_result_bytes(&job, self.options.max_result_bytes));
                        let (id, results) = (job.id, results.clone());
                        jobs.spawn(async move {
                            tokio::select! {
                                () = run_job(&querier, job, max_bytes, &results) => {}
                                () = cancel.cancelled() => {}
                            }
                            id
                        });
                    }
                    Some(to_querier::Message::Cancel(id)) => {
                        if let Some(cancel) = cancels.remove(&id) {
                            cancel.cancel();
                        }
                    }
                    None => return Ok(()),
                },
                Some(id) = jobs.join_next() => {
                    cancels.remove(&id?);
                }
                () = stopped.cancelled() => return Ok(()),
            }
        }
    }

    fn hello(&self, concurrency: u32) -> FromQuerier {
        let hello = Hello { querier: self.options.name.clone(), concurrency };
        FromQuerier { message: Some(from_querier::Message::Hello(hello)) }
    }
}

/// Runs a job and sends what it comes to, in as many pieces as it takes.
async fn run_job(querier: &Querier, job: Job, max_bytes: usize, results: &mpsc::Sender<FromQuerier>) {
    let id = job.id;
    let send = async |result: JobResult| {
        let bytes = result.encoded_len();
        let is_sent = bytes <= max_bytes;
        let result = if is_sent { result } else { failed(id, &JobError::TooLarge { bytes, max_bytes }) };
        let message = result.encode_to_vec().into();
        drop(result);
        // The stream has ended: then the job is not wanted either.
        results.send(FromQuerier { message: Some(from_querier::Message::Result(message)) }).await.is_ok() && is_sent
    };
    match querier.run(job).await {
        Ok(JobOutput { mut result, matches, held: _held_until_it_is_sent }) => {
            result.id = id;
            if let Some(Matches { traces, metrics, held: _held_until_the_last }) = matches {
                for (traces, is_last) in Pieces::of(traces, PIECE_BYTES).with_last() {
                    let outcome = Some(job_result::Outcome::Search(SearchResponse { traces, metrics: is_last.then_some(metrics) }));
                    if is_last {
                        result.outcome = outcome;
                    } else if !send(JobResult { id, more: true, outcome, ..JobResult::default() }).await {
                        return;
                    }
                }
            }
            send(result).await;
        }
        Err(error) => {
            tracing::debug!(job = id, %error, "a job failed");
            send(failed(id, &error)).await;
        }
    }
}

fn failed(id: u64, error: &JobError) -> JobResult {
    JobResult { id, outcome: Some(job_result::Outcome::Failure(error.failure())), ..JobResult::default() }
}

/// What this querier may send and the query-frontend takes, without what the wire adds.
fn max_result_bytes(job: &Job, sent: usize) -> usize {
    const FRAME_BYTES: usize = 1024;
    let taken = usize::try_from(job.max_result_bytes).ok().filter(|taken| *taken > 0).unwrap_or(usize::MAX);
    sent.saturating_sub(FRAME_BYTES).min(taken)
}

async fn resolve(address: &str) -> std::io::Result<BTreeSet<String>> {
    Ok(tokio::net::lookup_host(address).await?.map(|a| a.to_string()).collect())
}

/// Counts an open stream as long as it lives.
struct Connected<'a>(&'a AtomicUsize);

impl<'a> Connected<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        let now = count.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::gauge!(CONNECTED_FRONTENDS.name).set(now as f64);
        Self(count)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        let now = self.0.fetch_sub(1, Ordering::Relaxed) - 1;
        metrics::gauge!(CONNECTED_FRONTENDS.name).set(now as f64);
    }
}
