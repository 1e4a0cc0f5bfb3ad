//! The tenants that pushed spans: each with its registry, its options, and its way to the receivers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vivace_config::{Limits, MetricsGenerator, set_or};
use vivace_core::wire::WireError;
use vivace_core::{SINGLE_TENANT, TenantId};
use vivace_proto::prometheus::TimeSeries;
use vivace_server::{Overrides, clock, host_name};

use crate::SpanMetricsOptions;
use crate::metrics::{ACTIVE_SERIES, BYTES_RECEIVED, COLLECTIONS, SAMPLES_DROPPED, SERIES_LIMITED, SPANS_DISCARDED, SPANS_RECEIVED};
use crate::registry::Registry;
use crate::remote_write::{Sender, Target};
use crate::span_metrics::observe;

/// How often it is looked whether a tenant's collection is due.
const COLLECTION_CHECK_PERIOD: Duration = Duration::from_millis(250);

/// A process that stops waits so long for receivers of which none takes anything. What runs in Docker has 10 s in all.
const LAST_PATIENCE: Duration = Duration::from_secs(4);

pub(crate) struct Tenants {
    section: MetricsGenerator,
    targets: Vec<Target>,
    overrides: Arc<Overrides>,
    client: reqwest::Client,
    instance: String,
    tenants: Mutex<FxHashMap<TenantId, Tenant>>,
    senders: Mutex<JoinSet<()>>,
    abandon: CancellationToken,
    /// Requests that receivers took.
    taken: Arc<AtomicU64>,
}

/// A tenant whose collection is due.
struct Due {
    tenant: TenantId,
    limits: Arc<Limits>,
    registry: Arc<Mutex<Registry>>,
    queues: Vec<tokio::sync::mpsc::Sender<Vec<TimeSeries>>>,
}

struct Tenant {
    /// Each tenant has a lock of its own, so that one's push does not wait for another's.
    registry: Arc<Mutex<Registry>>,
    /// Feeds the senders, one per target.
    queues: Vec<tokio::sync::mpsc::Sender<Vec<TimeSeries>>>,
    collected_unix_nanos: u64,
}

impl Tenants {
    pub(crate) fn new(section: &MetricsGenerator, targets: Vec<Target>, overrides: Arc<Overrides>) -> anyhow::Result<Self> {
        // The client is built without a provider of its own. A second installation in one process is refused, which is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(Self {
            section: section.clone(),
            targets,
            overrides,
            client: reqwest::Client::builder().build()?,
            instance: set_or(section.ring.instance_id.clone(), host_name()),
            tenants: Mutex::default(),
            senders: Mutex::new(JoinSet::new()),
            abandon: CancellationToken::new(),
            taken: Arc::default(),
        })
    }

    /// Counts the spans of one push.
    pub(crate) fn push(&self, tenant: &TenantId, traces_data: &[u8], now_unix_nanos: u64) -> Result<(), WireError> {
        let limits = self.overrides.limits(tenant);
        let Some(options) = options(&self.section, &limits) else { return Ok(()) };
        let registry = self.registry(tenant, &limits, now_unix_nanos);
        let slack = set_or(limits.metrics_generator.ingestion_time_range_slack, self.section.metrics_ingestion_time_range_slack);
        let slack_nanos = u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX);
        let mut registry = registry.lock();
        registry.set_active_max(limits.metrics_generator.max_active_series);
        let accounted = observe(&options, &mut registry, traces_data, now_unix_nanos, slack_nanos)?;
        let limited = registry.take_limited();
        drop(registry);
        let label = tenant.to_string();
        metrics::counter!(SPANS_RECEIVED.name, "tenant" => label.clone()).increment(accounted.spans);
        metrics::counter!(BYTES_RECEIVED.name, "tenant" => label.clone()).increment(traces_data.len() as u64);
        let discarded = [("outside_metrics_ingestion_slack", accounted.outside_slack), ("unreadable", accounted.unreadable)];
        for (reason, spans) in discarded.into_iter().filter(|(_, spans)| *spans > 0) {
            metrics::counter!(SPANS_DISCARDED.name, "tenant" => label.clone(), "reason" => reason, "processor" => "all").increment(spans);
        }
        if limited > 0 {
            metrics::counter!(SERIES_LIMITED.name, "tenant" => label).increment(limited);
        }
        Ok(())
    }

    fn registry(&self, tenant: &TenantId, limits: &Limits, now_unix_nanos: u64) -> Arc<Mutex<Registry>> {
        let mut tenants = self.tenants.lock();
        if let Some(known) = tenants.get(tenant) {
            return known.registry.clone();
        }
        let mut constant: Vec<(String, String)> =
            self.section.registry.external_labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        constant.push(("__metrics_gen_instance".to_owned(), self.instance.clone()));
        if !self.section.registry.inject_tenant_id_as.is_empty() {
            constant.push((self.section.registry.inject_tenant_id_as.clone(), tenant.to_string()));
        }
        let registry = Arc::new(Mutex::new(Registry::new(limits.metrics_generator.max_active_series, constant)));
        let org_id = if self.section.storage.remote_write_add_org_id_header && tenant.as_str() != SINGLE_TENANT {
            tenant.to_string()
        } else {
            String::new()
        };
        let mut queues = Vec::new();
        for target in &self.targets {
            let mut target = target.clone();
            let own = &limits.metrics_generator.remote_write_headers;
            target.headers.extend(own.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
            let (sender, queue) = Sender::new(self.client.clone(), target, org_id.clone(), self.taken.clone());
            self.senders.lock().spawn(sender.run(self.abandon.clone()));
            queues.push(queue);
        }
        tenants.insert(tenant.clone(), Tenant { registry: registry.clone(), queues, collected_unix_nanos: now_unix_nanos });
        registry
    }

    /// Collects each tenant at its interval until stopped.
    pub(crate) async fn collect_until(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(COLLECTION_CHECK_PERIOD);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            self.collect(clock::unix_nanos(), false).await;
        }
    }

    /// Collects everything a last time and waits until it was sent, or the deadline has passed.
    pub(crate) async fn collect_last(self: &Arc<Self>, deadline: Duration) {
        self.collect(clock::unix_nanos(), true).await;
        // Dropping the queues lets the senders end when they are empty.
        self.tenants.lock().clear();
        let mut senders = std::mem::take(&mut *self.senders.lock());
        let sent = async { while senders.join_next().await.is_some() {} };
        let lost = tokio::select! {
            () = sent => return,
            () = self.nothing_is_taken() => "no receiver takes the last metrics",
            () = tokio::time::sleep(deadline) => "the last metrics were not taken in time",
        };
        tracing::error!(deadline_seconds = deadline.as_secs_f64(), "{lost}; they are lost");
        self.abandon.cancel();
    }

    /// Ends when no receiver took anything for a while.
    async fn nothing_is_taken(&self) {
        loop {
            let before = self.taken.load(Ordering::Relaxed);
            tokio::time::sleep(LAST_PATIENCE).await;
            if self.taken.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Collects those that are due, off the async threads: a tenant may have a million series.
    async fn collect(self: &Arc<Self>, now_unix_nanos: u64, all: bool) {
        let due = self.due(now_unix_nanos, all);
        if due.is_empty() {
            return;
        }
        let this = self.clone();
        let collected = tokio::task::spawn_blocking(move || due.into_iter().for_each(|due| this.collect_one(due, now_unix_nanos)));
        if let Err(error) = collected.await {
            tracing::error!(%error, "a collection panicked");
        }
    }

    /// Those whose interval has passed. The lock that pushes need too is held no longer than it takes to look.
    fn due(&self, now_unix_nanos: u64, all: bool) -> Vec<Due> {
        let mut found = Vec::new();
        for (tenant, state) in self.tenants.lock().iter_mut() {
            let limits = self.overrides.limits(tenant);
            let interval = set_or(limits.metrics_generator.collection_interval, self.section.registry.collection_interval);
            let due = state.collected_unix_nanos + u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
            if !all && now_unix_nanos < due {
                continue;
            }
            state.collected_unix_nanos = now_unix_nanos;
            found.push(Due { tenant: tenant.clone(), limits, registry: state.registry.clone(), queues: state.queues.clone() });
        }
        found
    }

    fn collect_one(&self, due: Due, now_unix_nanos: u64) {
        let Due { tenant, limits, registry, queues } = due;
        let label = tenant.to_string();
        let series = {
            let mut registry = registry.lock();
            let stale = u64::try_from(self.section.registry.stale_duration.as_nanos()).unwrap_or(u64::MAX);
            registry.drop_stale(now_unix_nanos.saturating_sub(stale));
            metrics::gauge!(ACTIVE_SERIES.name, "tenant" => label.clone()).set(registry.active() as f64);
            registry.collect(now_unix_nanos / 1_000_000)
        };
        metrics::counter!(COLLECTIONS.name, "tenant" => label.clone()).increment(1);
        if limits.metrics_generator.disable_collection || series.is_empty() {
            return;
        }
        for queue in &queues {
            if queue.try_send(series.clone()).is_err() {
                // The receiver lags by the whole queue. Series are cumulative, so the next collection carries this one's sums.
                metrics::counter!(SAMPLES_DROPPED.name, "tenant" => label.clone()).increment(series.len() as u64);
                tracing::warn!(%tenant, "a collection was dropped: the remote-write receiver does not keep up");
            }
        }
    }
}

/// The span-metrics processor of a tenant, unless it has none.
fn options(section: &MetricsGenerator, limits: &Limits) -> Option<SpanMetricsOptions> {
    let processors = &limits.metrics_generator.processors;
    let has = |name: &str| processors.iter().any(|p| p == name);
    let all = has("span-metrics");
    let (count, latency, size) = (all || has("span-metrics-count"), all || has("span-metrics-latency"), all || has("span-metrics-size"));
    if !(count || latency || size) {
        return None;
    }
    let (own, general) = (&limits.metrics_generator.processor.span_metrics, &section.processor.span_metrics);
    let intrinsic = own.intrinsic_dimensions.as_ref().unwrap_or(&general.intrinsic_dimensions);
    Some(SpanMetricsOptions {
        service: intrinsic.service,
        span_name: intrinsic.span_name,
        span_kind: intrinsic.span_kind,
        status_code: intrinsic.status_code,
        status_message: intrinsic.status_message,
        dimensions: own.dimensions.as_ref().unwrap_or(&general.dimensions).clone(),
        buckets_seconds: own.histogram_buckets.as_ref().unwrap_or(&general.histogram_buckets).clone(),
        count,
        latency,
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_s_series_carry_its_name() {
        let tenants = |section: &MetricsGenerator| Tenants::new(section, vec![], Overrides::fixed(Limits::default())).expect("a client");
        let mut section = MetricsGenerator::default();
        assert_eq!(tenants(&section).instance, host_name());
        assert!(!host_name().is_empty());
        "generator-1".clone_into(&mut section.ring.instance_id);
        assert_eq!(tenants(&section).instance, "generator-1");
    }
}
