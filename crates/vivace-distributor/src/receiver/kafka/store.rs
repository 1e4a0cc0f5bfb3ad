//! Puts messages through what every receiver's requests go through.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue};
use krafka::{ConsumerRecord, Headers};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;
use vivace_config::KafkaReceiver;
use vivace_core::{TenantError, TenantId};
use vivace_server::{RequestCharge, Tenancy, tenant};

use super::convert::Converter;
use crate::error::PushError;
use crate::metrics::{self as count, Receiver};
use crate::push::{Distributor, Incoming};
use crate::receiver::NO_METRICS;

/// Requests that are stored at once.
const PUSHES_MAX: usize = 32;
/// Messages of one request, and about their bytes: a message may be a single span, and a request costs the same whatever is in it.
const TOGETHER_MAX: usize = 64;
const TOGETHER_BYTES_MAX: usize = 256 << 10;

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

/// Messages that can go as one request.
struct Group {
    tenant: Result<TenantId, TenantError>,
    skip_metrics: bool,
    messages: Vec<ConsumerRecord>,
    bytes: usize,
}

/// A message as OTLP, and what is charged for it.
struct Converted {
    message: ConsumerRecord,
    body: Bytes,
    charge: RequestCharge,
}

/// Tenants that are over their rate just now: that none of their other messages is tried keeps them from being counted as refused
/// again and again.
type Limited = Mutex<FxHashSet<Option<TenantId>>>;

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
        let limited = Limited::default();
        let (groups, empty) = self.grouped(messages);
        let mut fates = futures::stream::iter(groups).map(|group| self.group(group, &limited, stop)).buffer_unordered(PUSHES_MAX);
        let mut done: Vec<(ConsumerRecord, Fate)> = empty.into_iter().map(|message| (message, Fate::Empty)).collect();
        while let Some(of_group) = fates.next().await {
            done.extend(of_group);
        }
        let (mut outcome, mut skipped, mut is_told) = (Outcome::default(), 0u64, false);
        for (message, fate) in done {
            let (reason, error) = match fate {
                Fate::Stored => {
                    count::kafka_message(&self.id, None);
                    continue;
                }
                Fate::Refused(error) if !self.skips_refused || stop.is_cancelled() => {
                    outcome.refused.push(message);
                    outcome.error = outcome.error.or(error);
                    continue;
                }
                Fate::Empty => ("empty", None),
                Fate::Refused(error) => ("refused", error),
                Fate::Never(error) => (reason(&error), Some(error)),
            };
            count::kafka_message(&self.id, Some(reason));
            if let Some(error) = error.filter(|_| !is_told) {
                let (partition, offset) = (message.partition, message.offset);
                tracing::warn!(receiver = self.id, partition, offset, reason, %error, "the spans of a message are lost");
                is_told = true;
            }
            skipped += 1;
        }
        if is_told && skipped > 1 {
            tracing::warn!(receiver = self.id, messages = skipped, "the spans of several messages are lost");
        }
        count::kafka_retries(&self.id, outcome.refused.len() as u64);
        outcome
    }

    /// Messages in groups of those that can go together, and those that have nothing in them. One without a tenant stays alone.
    fn grouped(&self, messages: Vec<ConsumerRecord>) -> (Vec<Group>, Vec<ConsumerRecord>) {
        let (mut groups, mut empty): (Vec<Group>, _) = (Vec::new(), Vec::new());
        let mut open: FxHashMap<(TenantId, bool), usize> = FxHashMap::default();
        for message in messages {
            let bytes = message.value.as_ref().map_or(0, Bytes::len);
            if bytes == 0 {
                empty.push(message);
                continue;
            }
            let tenant = self.tenancy.one(&tenants(&message.headers));
            let skip_metrics = message.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(NO_METRICS));
            let key = tenant.as_ref().ok().map(|tenant| (tenant.clone(), skip_metrics));
            let known = key.as_ref().and_then(|key| open.get(key)).and_then(|index| groups.get_mut(*index));
            let bytes_max = tenant.as_ref().map_or(0, |tenant| self.together_bytes_max(tenant));
            match known.filter(|group| group.messages.len() < TOGETHER_MAX && group.bytes + bytes <= bytes_max) {
                Some(group) => {
                    group.bytes += bytes;
                    group.messages.push(message);
                }
                None => {
                    open.extend(key.map(|key| (key, groups.len())));
                    groups.push(Group { tenant, skip_metrics, messages: vec![message], bytes });
                }
            }
        }
        (groups, empty)
    }

    /// Far below the tenant's burst: a request that is larger would be counted as refused.
    fn together_bytes_max(&self, tenant: &TenantId) -> usize {
        match self.distributor.overrides.limits(tenant).ingestion.burst_size_bytes {
            0 => TOGETHER_BYTES_MAX,
            burst => usize::try_from(burst / 4).unwrap_or(usize::MAX).min(TOGETHER_BYTES_MAX),
        }
    }

    /// Stores messages as one request, or one by one where that is refused for good: most of them may be sound.
    async fn group(&self, group: Group, limited: &Limited, stop: &CancellationToken) -> Vec<(ConsumerRecord, Fate)> {
        let mut fates = Vec::with_capacity(group.messages.len());
        let key = group.tenant.as_ref().ok().cloned();
        if stop.is_cancelled() || limited.lock().contains(&key) {
            fates.extend(group.messages.into_iter().map(|message| (message, Fate::Refused(None))));
            return fates;
        }
        let mut all = Vec::with_capacity(group.messages.len());
        for message in group.messages {
            let value = message.value.clone().unwrap_or_default();
            match self.converter.convert(&value, &message.headers).await {
                Ok((body, charge)) => all.push(Converted { message, body, charge }),
                Err(error) => fates.push((message, fate(error))),
            }
        }
        if all.len() > 1 {
            match self.push(&group.tenant, group.skip_metrics, self.together(&all)).await {
                Err(error) if !error.may_pass_later() => {}
                result => {
                    let mut first = result.err().inspect(|error| note_limit(error, &key, limited)).map(|error| Fate::Refused(Some(error)));
                    let is_refused = first.is_some();
                    let rest = || if is_refused { Fate::Refused(None) } else { Fate::Stored };
                    fates.extend(all.into_iter().map(|one| (one.message, first.take().unwrap_or_else(rest))));
                    return fates;
                }
            }
        }
        let mut is_refused = false;
        for Converted { message, body, charge } in all {
            let fate = if is_refused {
                Fate::Refused(None)
            } else {
                match self.push(&group.tenant, group.skip_metrics, Ok((body, charge))).await {
                    Ok(()) => Fate::Stored,
                    Err(error) => {
                        note_limit(&error, &key, limited);
                        fate(error)
                    }
                }
            };
            is_refused |= matches!(fate, Fate::Refused(_));
            fates.push((message, fate));
        }
        fates
    }

    /// Requests one after the other are one request.
    fn together(&self, all: &[Converted]) -> Result<(Bytes, RequestCharge), PushError> {
        let bytes = all.iter().map(|one| one.body.len()).sum::<usize>();
        let charge = self.distributor.requests.charge(bytes as u64)?;
        let mut body = Vec::with_capacity(bytes);
        for one in all {
            body.extend_from_slice(&one.body);
        }
        Ok((body.into(), charge))
    }

    async fn push(
        &self,
        tenant: &Result<TenantId, TenantError>,
        skip_metrics: bool,
        request: Result<(Bytes, RequestCharge), PushError>,
    ) -> Result<(), PushError> {
        let (body, charge) = request?;
        let incoming = Incoming { receiver: Receiver::Kafka, tenant: tenant.clone(), body, charge, skip_metrics };
        self.distributor.push(incoming).await?.or_refused()
    }
}

fn fate(error: PushError) -> Fate {
    if error.may_pass_later() { Fate::Refused(Some(error)) } else { Fate::Never(error) }
}

fn note_limit(error: &PushError, tenant: &Option<TenantId>, limited: &Limited) {
    if matches!(error, PushError::RateLimited { .. }) {
        limited.lock().insert(tenant.clone());
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
        PushError::LargerThanBurst { .. } | PushError::TooLarge { .. } | PushError::Grows(_) | PushError::Overloaded(_) => "too_large",
        PushError::Malformed(_) | PushError::NoValidSpans(_) => "malformed",
        PushError::Fault(_) => "fault",
        PushError::RateLimited { .. } | PushError::TooSlow(_) | PushError::Store(_) => "refused",
    }
}
