//! Empties a backlog: one tenant's requests for one receiver, tried again until it takes or refuses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vivace_core::{Chain, SINGLE_TENANT, TenantId};
use vivace_server::{Overrides, clock};

use super::backlog::{Backlog, Waiting};
use super::client::beginning;
use super::parts::{Parts, shown};
use super::{Target, encode, set_header};
use crate::metrics::{SAMPLES_DROPPED, SAMPLES_FAILED, SAMPLES_PENDING, SAMPLES_RETRIED, SAMPLES_SENT};

/// A receiver that says when to come back is believed up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why a receiver did not take a request.
#[derive(Debug, thiserror::Error)]
enum SendError {
    /// No answer, 429 or 5xx: a later try may succeed.
    #[error("{url} did not take the samples: {reason}")]
    Retry {
        /// The receiver.
        url: String,
        /// HTTP status; none where there was no answer.
        status: Option<u16>,
        /// Status or cause.
        reason: String,
        /// What the receiver asks for.
        after: Duration,
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

/// Owned by the task that runs [`Sender::run`].
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) target: Arc<Target>,
    pub(crate) tenant: TenantId,
    /// Has the tenant's own headers.
    pub(crate) overrides: Arc<Overrides>,
    /// The tenant is named in a header.
    pub(crate) names_tenant: bool,
    pub(crate) backlog: Arc<Backlog>,
    /// Counts the requests that were taken.
    pub(crate) taken: Arc<AtomicU64>,
    /// The receiver refused all parts of a request, and has taken nothing since: others are not sent in parts.
    pub(crate) takes_no_parts: Arc<AtomicBool>,
}

/// What came of a request that was sent in parts.
enum Sent {
    /// All of it was taken, or refused for good.
    Done,
    /// No part of it.
    Nothing,
    /// The receiver has other troubles now.
    Again,
}

impl Sender {
    /// Sends until the backlog is closed and empty, or `abandon` is cancelled: what is not sent then stays where it is.
    pub(crate) async fn run(self, abandon: CancellationToken) {
        loop {
            self.show_pending();
            let next = tokio::select! {
                next = self.backlog.take(|series| self.target.parallel(series)) => next,
                () = abandon.cancelled() => return,
            };
            let Some(requests) = next else { return };
            let mut sending = JoinSet::new();
            for request in requests {
                let sender = self.clone();
                sending.spawn(async move { sender.send_with_retries(&request).await });
            }
            tokio::select! {
                () = async { while sending.join_next().await.is_some() {} } => {}
                () = abandon.cancelled() => return,
            }
        }
    }

    async fn send_with_retries(&self, request: &Waiting) {
        let body = match tokio::fs::read(&request.path).await {
            Ok(body) => bytes::Bytes::from(body),
            Err(error) => {
                tracing::error!(path = %request.path.display(), %error, "samples that waited cannot be read; they are lost");
                self.count(SAMPLES_FAILED.name, request.series);
                return self.backlog.done(request);
            }
        };
        let (mut pause, longest) = self.target.backoff;
        let mut is_renewed = false;
        let mut failing: Option<Instant> = None;
        loop {
            if self.target.age_max.is_some_and(|most| request.age(clock::unix_nanos() / 1_000_000) > most) {
                tracing::warn!(tenant = %self.tenant, url = self.target.url, "samples waited longer than sample_age_limit and are lost");
                metrics::counter!(SAMPLES_DROPPED.name, "tenant" => self.tenant.to_string()).increment(request.series);
                break;
            }
            let began = Instant::now();
            match self.send(body.clone()).await {
                Ok(()) => {
                    self.progress();
                    self.count(SAMPLES_SENT.name, request.series);
                    break;
                }
                // A token may be taken back before its time.
                Err(SendError::Refused { status: 401, .. }) if !is_renewed && self.target.auth.renew(began).await => is_renewed = true,
                Err(error @ SendError::Refused { .. }) => match self.send_in_parts(&body, &error).await {
                    Sent::Done => break,
                    Sent::Nothing => {
                        tracing::error!(tenant = %self.tenant, %error, "samples are lost");
                        self.count(SAMPLES_FAILED.name, request.series);
                        break;
                    }
                    Sent::Again => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(longest);
                    }
                },
                Err(ref error @ SendError::Retry { ref url, status, ref reason, after }) => {
                    failing = failing.filter(|_| status == Some(500)).or_else(|| (status == Some(500)).then(Instant::now));
                    if failing.is_some_and(|since| since.elapsed() >= self.target.patience) {
                        if matches!(self.send_in_parts(&body, error).await, Sent::Done) {
                            break;
                        }
                        failing = None;
                    }
                    tracing::warn!(tenant = %self.tenant, url, reason, "the receiver did not take samples; will try again");
                    self.count(SAMPLES_RETRIED.name, request.series);
                    self.show_pending();
                    tokio::time::sleep(pause.max(after)).await;
                    pause = (pause * 2).min(longest);
                }
            }
        }
        self.backlog.done(request);
    }

    /// Sends the parts of a request that failed with the error, so that only single series that are refused are lost.
    async fn send_in_parts(&self, body: &[u8], error: &SendError) -> Sent {
        let is_about_content = match error {
            SendError::Refused { status, .. } => matches!(status, 400 | 413 | 422) && !self.takes_no_parts.load(Ordering::Relaxed),
            SendError::Retry { .. } => true,
        };
        let Some(mut parts) = Parts::of(body).filter(|_| is_about_content) else { return Sent::Nothing };
        while let Some((part, body)) = parts.next() {
            match self.send_part(body, error).await {
                Some(is_taken) => parts.done(part, is_taken),
                None => return Sent::Again,
            }
        }
        if parts.taken == 0 {
            self.takes_no_parts.store(true, Ordering::Relaxed);
            return Sent::Nothing;
        }
        if matches!(error, SendError::Retry { .. }) {
            // It may have been about to recover: what failed by itself is asked for once more.
            tokio::time::sleep(self.target.backoff.1).await;
            let is_found = parts.is_whole();
            for one in std::mem::take(&mut parts.refused) {
                match self.send_part(encode(vec![one.clone()], Vec::new()), error).await {
                    Some(is_taken) => parts.done(vec![one], is_taken),
                    None => return Sent::Again,
                }
            }
            if !is_found {
                return Sent::Again;
            }
        }
        self.count(SAMPLES_SENT.name, parts.taken);
        if parts.lost() > 0 {
            let first = parts.refused.first().map(shown).unwrap_or_default();
            tracing::error!(tenant = %self.tenant, %error, series = parts.lost(), first, "samples are lost; those that were sent with them are not");
            self.count(SAMPLES_FAILED.name, parts.lost());
        }
        Sent::Done
    }

    /// Whether a part was taken, or failed as the whole did. None where it failed in another way.
    async fn send_part(&self, body: Vec<u8>, whole: &SendError) -> Option<bool> {
        match (self.send(body.into()).await, whole) {
            (Ok(()), _) => {
                self.progress();
                Some(true)
            }
            (Err(SendError::Refused { .. }), _) => Some(false),
            (Err(SendError::Retry { status: Some(500), .. }), SendError::Retry { .. }) => Some(false),
            (Err(SendError::Retry { .. }), _) => None,
        }
    }

    /// The receiver took something.
    fn progress(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.takes_no_parts.store(false, Ordering::Relaxed);
    }

    async fn send(&self, body: bytes::Bytes) -> Result<(), SendError> {
        let url = &self.target.url;
        let failed = |status: Option<u16>, reason: String, after: Duration| SendError::Retry { url: url.clone(), status, reason, after };
        let retry = |reason: String| failed(None, reason, Duration::ZERO);
        let mut headers = self.target.headers.clone();
        let authorized = self.target.auth.authorize(&self.target.client, &body, &mut headers).await;
        authorized.map_err(|error| retry(format!("{error:#}")))?;
        // The tenant's own go before what is common to all.
        let limits = self.overrides.limits(&self.tenant);
        for (name, value) in &limits.metrics_generator.remote_write_headers {
            if let Err(error) = set_header(&mut headers, name, value.expose()) {
                tracing::error!(tenant = %self.tenant, name, error = format!("{error:#}"), "a header of remote_write_headers is left out");
            }
        }
        if self.names_tenant && self.tenant.as_str() != SINGLE_TENANT && !headers.contains_key("x-scope-orgid") {
            let _ = set_header(&mut headers, "x-scope-orgid", self.tenant.as_str());
        }
        let request = self
            .target
            .client
            .post()
            .timeout(self.target.timeout)
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .headers(headers)
            .body(body);
        let answer = request.send().await.map_err(|error| retry(Chain(&error.without_url()).to_string()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map_or(Duration::ZERO, Duration::from_secs).min(RETRY_AFTER_MAX);
        let body = beginning(answer, 1200).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body).trim().chars().take(300).collect::<String>();
        if status.as_u16() == 429 && self.target.retries_429 || status.is_server_error() {
            return Err(failed(Some(status.as_u16()), format!("status {status}: {body}"), after));
        }
        Err(SendError::Refused { url: url.clone(), status: status.as_u16(), body })
    }

    fn show_pending(&self) {
        let labels = [("tenant", self.tenant.to_string()), ("url", self.target.url.clone())];
        metrics::gauge!(SAMPLES_PENDING.name, &labels).set(self.backlog.series() as f64);
    }

    fn count(&self, name: &'static str, series: u64) {
        let labels = [("tenant", self.tenant.to_string()), ("url", self.target.url.clone())];
        metrics::counter!(name, &labels).increment(series);
    }
}

#[cfg(test)]
mod tests;
