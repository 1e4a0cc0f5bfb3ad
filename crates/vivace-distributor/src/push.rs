//! What every receiver does with a request. Source: docs/facts/components.md, "Request sequence".

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use vivace_config::{IngestionLimits, Limits, RateStrategy};
use vivace_core::{TenantError, TenantId};
use vivace_proto::vivace::v1::RefusedTrace;
use vivace_proto::vivace::v1::refused_trace::Reason;
use vivace_ring::Ring;
use vivace_server::{Overrides, RequestBudget, RequestCharge};

use crate::error::PushError;
use crate::forward::generator::{Copy, GeneratorForwarder};
use crate::forward::otlp::Forwarders;
use crate::limit::{OverLimit, Rate, RateLimiter};
use crate::message::VALUE_DEPTH_MAX;
use crate::metrics as count;
use crate::metrics::{ADDED_LATENCY, PUSH_DURATION};
use crate::normal::normal;
use crate::plan::{BadReference, PlanError, Survey, count_spans, has_ids};
use crate::replicate::{Prepared, Replicator, StoreError};
use crate::span_log::SpanLog;
use crate::too_large::{LargeSpan, TooLarge};
use crate::usage::Usage;

/// Share by which an artificial delay differs from what is asked for. Source: docs/facts/components.md, "Artificial delay".
const DELAY_JITTER: f64 = 0.1;

/// The writing side of a distributor, behind all receivers.
pub(crate) struct Distributor {
    pub(crate) overrides: Arc<Overrides>,
    pub(crate) distributors: Ring,
    pub(crate) limiter: RateLimiter,
    /// What requests may take, of memory that is shared with everything else.
    pub(crate) requests: RequestBudget,
    /// What may be taken to store them, once they are here.
    pub(crate) work: RequestBudget,
    pub(crate) replicator: Arc<Replicator>,
    pub(crate) generators: Arc<GeneratorForwarder>,
    pub(crate) forwarders: Forwarders,
    pub(crate) span_log: SpanLog,
    /// Where cost attribution is on.
    pub(crate) usage: Option<Usage>,
    /// `distributor.retry_after_on_resource_exhausted`; zero gives no hint.
    pub(crate) retry_after: Duration,
    /// `distributor.max_attribute_bytes`
    pub(crate) max_attribute_bytes: usize,
    /// `distributor.artificial_delay`; zero is none.
    pub(crate) artificial_delay: Duration,
}

/// A request as a receiver has read it.
pub(crate) struct Incoming {
    pub(crate) receiver: count::Receiver,
    pub(crate) tenant: Result<TenantId, TenantError>,
    /// A serialised `ExportTraceServiceRequest`.
    pub(crate) body: Bytes,
    /// What is charged for it, beside what its listener charges until it is answered.
    pub(crate) charge: RequestCharge,
    /// The client asks for no metrics of these spans.
    pub(crate) skip_metrics: bool,
}

/// A request of a known tenant.
struct Request<'r> {
    receiver: count::Receiver,
    tenant: &'r TenantId,
    limits: &'r Limits,
    body: Bytes,
    skip_metrics: bool,
    charge: RequestCharge,
}

/// A request that was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Spans that were stored.
    pub(crate) stored_spans: u64,
    /// Spans that were not stored and never will be.
    pub(crate) rejected_spans: i64,
    /// Why; empty when there are none.
    pub(crate) message: String,
}

impl Accepted {
    /// What is answered where there is no place for a part that was rejected.
    ///
    /// # Errors
    /// There were spans, and not one was stored.
    pub(crate) fn or_refused(self) -> Result<(), PushError> {
        match self.rejected_spans > 0 && self.stored_spans == 0 {
            true => Err(PushError::NoValidSpans(self.message)),
            false => Ok(()),
        }
    }
}

impl Distributor {
    /// Stores a request, or says why not.
    pub(crate) async fn push(&self, incoming: Incoming) -> Result<Accepted, PushError> {
        let Incoming { receiver, tenant, body, skip_metrics, charge } = incoming;
        let start = Instant::now();
        let took = || metrics::histogram!(PUSH_DURATION.name).record(start.elapsed().as_secs_f64());
        let result = match &tenant {
            Ok(tenant) => {
                let limits = self.overrides.limits(tenant);
                let request = Request { receiver, tenant, limits: &limits, body: body.clone(), skip_metrics, charge };
                let result = self.store(request).await;
                took();
                self.delay(tenant, limits.ingestion.artificial_delay, start).await;
                result
            }
            Err(error) => {
                let result = if count_spans(&body) == Ok(0) { Ok(Accepted::default()) } else { Err(error.clone().into()) };
                took();
                result
            }
        };
        if result.is_err() {
            receiver.refused(count_spans(&body).unwrap_or(0));
        }
        result
    }

    /// Waits until a request has taken about as long as is asked for, be it stored or not.
    async fn delay(&self, tenant: &TenantId, of_tenant: Option<Duration>, start: Instant) {
        let target = of_tenant.unwrap_or(self.artificial_delay);
        if target.is_zero() {
            return;
        }
        let missing = target.saturating_sub(start.elapsed()).mul_f64(rand::random_range(1.0 - DELAY_JITTER..=1.0 + DELAY_JITTER));
        metrics::histogram!(ADDED_LATENCY.name, "tenant" => tenant.to_string()).record(missing.as_secs_f64());
        tokio::time::sleep(missing).await;
    }

    async fn store(&self, request: Request<'_>) -> Result<Accepted, PushError> {
        let Request { receiver, tenant, limits, mut body, skip_metrics, charge } = request;
        let bytes = body.len() as u64;
        count::ingress(tenant, bytes);
        if body.is_empty() {
            return Ok(Accepted::default());
        }
        self.check_rate(tenant, &body, &limits.ingestion)?;
        // What has arrived may use what is kept from those that are still sending.
        let mut hold = self.work.open();
        hold.absorb(charge);
        // The body outlives the answer where metrics are made of it.
        let wants_metrics = !limits.metrics_generator.processors.is_empty();
        let kept = hold.bytes() + if wants_metrics { bytes } else { 0 };
        // Its parts, and the same compressed.
        hold.grow(kept - hold.bytes() + bytes * 2)?;

        let max_attribute_bytes = match limits.ingestion.max_attribute_bytes {
            0 => self.max_attribute_bytes,
            bytes => bytes,
        };
        let before = hold.bytes();
        let mut prepared = self.prepare(&mut body, tenant, max_attribute_bytes, &mut hold).await?;
        let kept = kept + hold.bytes() - before;
        // What is sent, and the same as messages.
        hold.grow((kept + prepared.payload_bytes() * 2).saturating_sub(hold.bytes()))?;
        hold.give_back(hold.bytes().saturating_sub(kept + prepared.payload_bytes() * 2));
        let hold = Arc::new(hold);
        self.span_log.received(tenant, &body);
        if let Some(usage) = &self.usage {
            usage.count(tenant, &limits.cost_attribution, &body, Instant::now());
        }
        let survey = prepared.survey;
        count::surveyed(tenant, bytes, &survey);
        if survey.spans == 0 && survey.rejected() == 0 {
            return Ok(Accepted::default());
        }
        let mut rejections = Rejections::of(&survey);
        rejections.add_too_large(tenant, &prepared.too_large);
        if rejections.spans > 0 {
            let (refused, too_large) = (std::mem::take(&mut prepared.refused), &prepared.too_large);
            self.span_log.discarded(tenant, &body, |ordinal, span| {
                !has_ids(span) || refused.contains(&ordinal) || too_large.contains(span.trace(), span.span())
            });
        }
        if rejections.spans == u64::from(survey.spans) + u64::from(survey.rejected()) {
            return Err(PushError::NoValidSpans(rejections.message));
        }
        let refused = self.replicator.store(tenant, prepared, hold.clone()).await?;
        if !refused.is_empty() {
            self.span_log.discarded(tenant, &body, |_, span| refused.iter().any(|refused| refused.trace_id == span.trace_id));
        }
        rejections.add_refused(tenant, &refused);
        self.forwarders.enqueue(&limits.forwarders, tenant, &body, &self.requests);
        if wants_metrics {
            let shard_size = limits.metrics_generator.ring_size;
            let copy = Copy { tenant: tenant.clone(), body, skip_metrics, max_attribute_bytes, shard_size, hold };
            self.generators.enqueue(copy, &limits.metrics_generator.forwarder);
        }
        let stored_spans = u64::from(survey.spans + survey.rejected()).saturating_sub(rejections.spans);
        receiver.accepted(stored_spans);
        receiver.refused(rejections.spans);
        let rejected_spans = i64::try_from(rejections.spans).unwrap_or(i64::MAX);
        Ok(Accepted { stored_spans, rejected_spans, message: rejections.message })
    }

    /// Takes a request apart. One that is not in its usual form is written anew first, and that is the request from then on.
    async fn prepare(
        &self,
        body: &mut Bytes,
        tenant: &TenantId,
        max_attribute_bytes: usize,
        hold: &mut RequestCharge,
    ) -> Result<Prepared, PushError> {
        match self.replicator.prepare(body.clone(), tenant, max_attribute_bytes).await {
            Err(StoreError::Plan(PlanError::Unusual)) => {}
            prepared => return Ok(prepared?),
        }
        let (mut charge, before) = (hold.another(), body.clone());
        let work = tokio::task::spawn_blocking(move || normal(&before, &mut charge).map(|bytes| (bytes, charge)));
        let (bytes, charge) = work.await.unwrap_or_else(|error| {
            tracing::error!(%error, "writing a request anew panicked");
            Err(PushError::Fault(format!("could not write the request anew: {error}")))
        })?;
        hold.absorb(charge);
        *body = bytes.into();
        Ok(self.replicator.prepare(body.clone(), tenant, max_attribute_bytes).await?)
    }

    fn check_rate(&self, tenant: &TenantId, body: &Bytes, limits: &IngestionLimits) -> Result<(), PushError> {
        let (rate_limit_bytes, burst_bytes) = (limits.rate_limit_bytes, limits.burst_size_bytes);
        let global = limits.rate_strategy == RateStrategy::Global;
        let sharers = if global { self.distributors.snapshot().live().count().max(1) as u64 } else { 1 };
        // A share never becomes zero, which would mean that there is no limit.
        let local_bytes = if rate_limit_bytes == 0 { 0 } else { (rate_limit_bytes / sharers).max(1) };
        let request_bytes = body.len() as u64;
        let rate = Rate { bytes_per_second: local_bytes, burst_bytes };
        let Err(over) = self.limiter.admit(tenant, request_bytes, rate, Instant::now()) else { return Ok(()) };
        let spans = count_spans(body).map_err(|error| PushError::Malformed(error.to_string()))?;
        count::discarded(tenant, "rate_limited", spans);
        self.span_log.discarded(tenant, body, |_, _| true);
        let tenant = tenant.clone();
        Err(match over {
            OverLimit::Always => PushError::LargerThanBurst { tenant, request_bytes, local_bytes, burst_bytes },
            OverLimit::Now => {
                let hint = !self.retry_after.is_zero() && limits.retry_info_enabled;
                let global_bytes = if global { rate_limit_bytes } else { 0 };
                let retry_after = hint.then_some(self.retry_after);
                PushError::RateLimited { tenant, request_bytes, local_bytes, global_bytes, burst_bytes, retry_after }
            }
        })
    }
}

/// Spans of a request that are not stored, and why.
struct Rejections {
    spans: u64,
    message: String,
}

impl Rejections {
    fn of(survey: &Survey) -> Self {
        let mut this = Self { spans: 0, message: String::new() };
        if survey.bad_trace_ids > 0 {
            let first = match survey.bad_bits {
                0 => "is empty".to_owned(),
                128 => "is all zeros".to_owned(),
                bits => format!("has {bits} bits"),
            };
            let rule = format!("trace ids must be 128 bit and not all zero, the first such id {first}");
            this.add(u64::from(survey.bad_trace_ids), &rule);
        }
        if survey.bad_span_ids > 0 {
            this.add(u64::from(survey.bad_span_ids), "span ids must be 64 bit and not all zero");
        }
        if let Some(BadReference { field, bits, trace, span }) = survey.bad_reference {
            let rule = "ids of parents and linked spans must be 64 bit, those of linked traces 128 bit, or empty";
            let first = format!("the first other one has {bits} bits: {field} of span {span} of trace {trace}");
            this.add(u64::from(survey.bad_references), &format!("{rule}; {first}"));
        }
        if survey.too_deep > 0 {
            this.add(
                u64::from(survey.too_deep),
                &format!("values of attributes may be {VALUE_DEPTH_MAX} deep, with those that lists and maps have"),
            );
        }
        this
    }

    fn add_too_large(&mut self, tenant: &TenantId, too_large: &TooLarge) {
        let Some(LargeSpan { trace, span, bytes }) = too_large.spans.first() else { return };
        let spans = too_large.spans.len() as u64;
        count::discarded(tenant, "span_too_large", spans);
        let (limit, key) = (too_large.limit, too_large.key);
        self.add(spans, &format!("span {span} of trace {trace} is a message of {bytes} bytes, more than the {limit} of {key}"));
    }

    fn add_refused(&mut self, tenant: &TenantId, refused: &[RefusedTrace]) {
        let reasons = [
            (Reason::LiveTracesExceeded, "live_traces_exceeded", "LIVE_TRACES_EXCEEDED: the tenant has too many live traces"),
            (Reason::TraceTooLarge, "trace_too_large", "TRACE_TOO_LARGE: a trace is over the tenant's limit of bytes per trace"),
            (Reason::Unspecified, "unknown_error", "refused by an ingester"),
        ];
        for (reason, name, text) in reasons {
            let of_reason: Vec<&RefusedTrace> = refused.iter().filter(|t| t.reason() == reason).collect();
            let spans = of_reason.iter().map(|t| u64::from(t.spans)).sum();
            if spans > 0 {
                count::discarded(tenant, name, spans);
                let example = of_reason.first().map(|t| vivace_core::TraceId::from_slice(&t.trace_id)).unwrap_or_default();
                self.add(spans, &format!("{text} ({} traces, such as {example})", of_reason.len()));
            }
        }
    }

    fn add(&mut self, spans: u64, why: &str) {
        self.spans += spans;
        let separator = if self.message.is_empty() { "" } else { "; " };
        // Writing to a string does not fail.
        let _ = write!(self.message, "{separator}{spans} spans rejected: {why}");
    }
}
