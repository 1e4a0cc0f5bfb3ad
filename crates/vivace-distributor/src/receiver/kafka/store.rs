//! Puts messages through what every receiver's requests go through.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue};
use krafka::{ConsumerRecord, Headers};
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio_util::sync::CancellationToken;
use vivace_config::KafkaReceiver;
use vivace_core::{TenantError, TenantId};
use vivace_server::{Tenancy, tenant};

use super::convert::Converter;
use crate::error::PushError;
use crate::metrics::{self as count, Receiver};
use crate::push::{Distributor, Incoming};
use crate::receiver::NO_METRICS;

/// Messages that are stored at once.
const PUSHES_MAX: usize = 32;

/// Where the messages of a receiver go.
pub(super) struct Store {
    id: String,
    converter: Converter,
    distributor: Arc<Distributor>,
    tenancy: Tenancy,
    /// What is refused for now is left behind too.
    skips_refused: bool,
}

/// What became of messages.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// To be tried again.
    pub(super) refused: Vec<ConsumerRecord>,
    /// Why, of one of them.
    pub(super) error: Option<PushError>,
}

/// What became of one message.
enum Fate {
    Stored,
    /// Nothing in it.
    Empty,
    /// Can pass later. None: it was not tried, since another one of its tenant was over the rate just now, or the process stops.
    Refused(Option<PushError>),
    Never(PushError),
}

impl Store {
    pub(super) fn new(config: &KafkaReceiver, distributor: Arc<Distributor>, tenancy: Tenancy) -> Self {
        let extraction = &config.consumer.header_extraction;
        let headers = if extraction.extract_headers { extraction.headers.clone() } else { Vec::new() };
        let converter = Converter { encoding: config.consumer.encoding(), headers, requests: distributor.requests.clone() };
        let skips_refused = config.consumer.message_marking.on_error;
        Self { id: config.id.clone(), converter, distributor, tenancy, skips_refused }
    }

    /// Stores messages, until `stop`: what is not begun by then is refused. Those that never can be stored are counted, and told once
    /// for all of them.
    pub(super) async fn all(&self, messages: Vec<ConsumerRecord>, stop: &CancellationToken) -> Outcome {
        let limited = Mutex::new(FxHashSet::default());
        let limited = &limited;
        let mut fates = futures::stream::iter(messages)
            .map(|message| async move {
                let fate = if stop.is_cancelled() { Fate::Refused(None) } else { self.one(&message, limited).await };
                (message, fate)
            })
            .buffer_unordered(PUSHES_MAX);
        let (mut outcome, mut skipped) = (Outcome::default(), 0u64);
        while let Some((message, fate)) = fates.next().await {
            let reason = match fate {
                Fate::Stored => {
                    count::kafka_message(&self.id, None);
                    continue;
                }
                Fate::Refused(error) if !self.skips_refused || stop.is_cancelled() => {
                    outcome.refused.push(message);
                    outcome.error = outcome.error.or(error);
                    continue;
                }
                Fate::Empty => "empty",
                Fate::Refused(_) => "refused",
                Fate::Never(ref error) => reason(error),
            };
            count::kafka_message(&self.id, Some(reason));
            if let (0, Fate::Never(error)) = (skipped, &fate) {
                let (partition, offset) = (message.partition, message.offset);
                tracing::warn!(receiver = self.id, partition, offset, reason, %error, "the spans of a message are lost");
            }
            skipped += 1;
        }
        drop(fates);
        if skipped > 1 {
            tracing::warn!(receiver = self.id, messages = skipped, "the spans of several messages are lost");
        }
        count::kafka_retries(&self.id, outcome.refused.len() as u64);
        outcome
    }

    async fn one(&self, message: &ConsumerRecord, limited: &Mutex<FxHashSet<Option<TenantId>>>) -> Fate {
        let Some(value) = message.value.as_ref().filter(|value| !value.is_empty()) else { return Fate::Empty };
        let tenant = self.tenancy.one(&tenants(&message.headers));
        // As long as one is over its rate, the others need not be counted as refused again and again.
        let key = tenant.clone().ok();
        if limited.lock().contains(&key) {
            return Fate::Refused(None);
        }
        let error = match self.push(value, &message.headers, tenant).await {
            Ok(()) => return Fate::Stored,
            Err(error) => error,
        };
        if !error.may_pass_later() {
            return Fate::Never(error);
        }
        if matches!(error, PushError::RateLimited { .. }) {
            limited.lock().insert(key);
        }
        Fate::Refused(Some(error))
    }

    async fn push(&self, value: &Bytes, headers: &Headers, tenant: Result<TenantId, TenantError>) -> Result<(), PushError> {
        let (body, charge) = self.converter.convert(value, headers).await?;
        let skip_metrics = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(NO_METRICS));
        self.distributor.push(Incoming { receiver: Receiver::Kafka, tenant, body, charge, skip_metrics }).await.map(drop)
    }
}

/// What the headers of a message say of its tenant.
fn tenants(headers: &Headers) -> HeaderMap {
    let named = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(tenant::HEADER));
    let values = named.filter_map(|(_, value)| HeaderValue::from_bytes(value.as_deref()?).ok());
    values.map(|value| (http::HeaderName::from_static(tenant::HEADER), value)).collect()
}

/// Why a message can never be stored, in a word.
fn reason(error: &PushError) -> &'static str {
    match error {
        PushError::Tenant(_) => "tenant",
        PushError::LargerThanBurst { .. } | PushError::TooLarge { .. } | PushError::Overloaded(_) => "too_large",
        PushError::Malformed(_) | PushError::NoValidSpans(_) => "malformed",
        PushError::Fault(_) => "fault",
        PushError::RateLimited { .. } | PushError::TooSlow(_) | PushError::Store(_) => "refused",
    }
}
