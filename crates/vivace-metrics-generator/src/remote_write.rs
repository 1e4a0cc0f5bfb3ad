//! Sends series to Prometheus by remote write, version 1: protobuf in snappy's block format over HTTP.
//!
//! Source: Prometheus remote write specification.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message;
use tokio_util::sync::CancellationToken;
use vivace_core::Chain;
use vivace_proto::prometheus::{TimeSeries, WriteRequest};

use crate::metrics::{SAMPLES_FAILED, SAMPLES_RETRIED, SAMPLES_SENT};

/// One receiver.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to post.
    pub url: String,
    /// Headers of every request; values may be secrets.
    pub headers: Vec<(String, String)>,
    /// User and password.
    pub basic_auth: Option<(String, String)>,
    /// Bound on one attempt.
    pub timeout: Duration,
    /// Exemplars are sent along.
    pub send_exemplars: bool,
}

/// Collections that may wait for a receiver that does not answer; beyond it the oldest is dropped and counted.
const WAITING_MAX: usize = 64;
/// Series per request. Source: Prometheus' own default, `max_samples_per_send`.
const SERIES_PER_REQUEST: usize = 2000;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Why a receiver did not take a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No answer, 429 or 5xx: a later try may succeed.
    #[error("{url} did not take the samples: {reason}")]
    Retry {
        /// The receiver.
        url: String,
        /// Status or cause.
        reason: String,
    },
    /// The receiver refuses these samples for good.
    #[error("{url} refused the samples with status {status}: {body}")]
    Refused {
        /// The receiver.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        body: String,
    },
}

/// One tenant's collections on their way to one receiver. Owned by the task that runs [`Sender::run`].
pub(crate) struct Sender {
    client: reqwest::Client,
    target: Target,
    tenant: String,
    collections: tokio::sync::mpsc::Receiver<Vec<TimeSeries>>,
    /// Counts the requests that were taken.
    taken: Arc<AtomicU64>,
}

impl Sender {
    /// A sender and the queue that feeds it. `tenant` is sent as `X-Scope-OrgID` unless empty.
    pub(crate) fn new(
        client: reqwest::Client,
        target: Target,
        tenant: String,
        taken: Arc<AtomicU64>,
    ) -> (Self, tokio::sync::mpsc::Sender<Vec<TimeSeries>>) {
        let (queue, collections) = tokio::sync::mpsc::channel(WAITING_MAX);
        (Self { client, target, tenant, collections, taken }, queue)
    }

    /// Sends until the queue is closed and empty, or `abandon` is cancelled.
    pub(crate) async fn run(mut self, abandon: CancellationToken) {
        let mut waiting = VecDeque::new();
        while let Some(series) = self.collections.recv().await {
            waiting.push_back(series);
            while let Some(series) = waiting.pop_front() {
                for part in series.chunks(SERIES_PER_REQUEST) {
                    tokio::select! {
                        () = self.send_with_retries(part) => {}
                        () = abandon.cancelled() => return,
                    }
                }
            }
        }
    }

    async fn send_with_retries(&mut self, series: &[TimeSeries]) {
        let body = self.encode(series);
        let mut pause = BACKOFF_MIN;
        loop {
            match self.send(body.clone()).await {
                Ok(()) => {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    metrics::counter!(SAMPLES_SENT.name, "tenant" => self.tenant.clone(), "url" => self.target.url.clone())
                        .increment(series.len() as u64);
                    return;
                }
                Err(error @ SendError::Refused { .. }) => {
                    tracing::error!(tenant = %self.tenant, %error, "samples are lost");
                    metrics::counter!(SAMPLES_FAILED.name, "tenant" => self.tenant.clone(), "url" => self.target.url.clone())
                        .increment(series.len() as u64);
                    return;
                }
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant, %error, "will try again");
                    metrics::counter!(SAMPLES_RETRIED.name, "tenant" => self.tenant.clone(), "url" => self.target.url.clone())
                        .increment(series.len() as u64);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn encode(&self, series: &[TimeSeries]) -> Vec<u8> {
        let mut timeseries = series.to_vec();
        if !self.target.send_exemplars {
            timeseries.iter_mut().for_each(|s| s.exemplars.clear());
        }
        let message = WriteRequest { timeseries }.encode_to_vec();
        snap::raw::Encoder::new().compress_vec(&message).expect("a write request is far below snappy's limit of 4 GiB")
    }

    async fn send(&self, body: Vec<u8>) -> Result<(), SendError> {
        let url = &self.target.url;
        let retry = |reason: String| SendError::Retry { url: url.clone(), reason };
        let mut request = self
            .client
            .post(url)
            .timeout(self.target.timeout)
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(body);
        if !self.tenant.is_empty() && !self.target.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-scope-orgid")) {
            request = request.header("x-scope-orgid", &self.tenant);
        }
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        if let Some((user, password)) = &self.target.basic_auth {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.send().await.map_err(|error| retry(Chain(&error).to_string()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body = answer.text().await.unwrap_or_default();
        let body = body.trim().chars().take(300).collect::<String>();
        if status.as_u16() == 429 || status.is_server_error() {
            return Err(retry(format!("status {status}: {body}")));
        }
        Err(SendError::Refused { url: url.clone(), status: status.as_u16(), body })
    }
}
