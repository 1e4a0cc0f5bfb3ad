//! The tenants that pushed spans: each with its series, and its way to the receivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vivace_config::{Limits, MetricsGenerator, set_or};
use vivace_core::TenantId;
use vivace_core::wire::WireError;
use vivace_server::{Overrides, clock, host_name};

use crate::collection::Collection;
use crate::metrics::{
    ACTIVE_ENTITIES, ACTIVE_PROCESSORS, ACTIVE_SERIES, BYTES_RECEIVED, COLLECTIONS, ENTITIES_ADDED, ENTITIES_LIMITED, ENTITIES_REMOVED,
    ENTITY_DEMAND, GRAPH_DROPPED, GRAPH_EDGES, GRAPH_EXPIRED, MAX_ACTIVE_ENTITIES, MAX_ACTIVE_SERIES, NAMES_PATTERNED, SERIES_ADDED,
    SERIES_DEMAND, SERIES_LIMITED, SERIES_REMOVED, SPANS_DISCARDED, SPANS_RECEIVED, VALUES_LIMITED,
};
use crate::outlet::{Outlet, describe, hand_over};
use crate::registry::Registry;
use crate::remote_write::{Backlog, Room, Sender, Target};
use crate::tenant::{Accounted, Tenant};

/// How often it is looked whether a tenant's collection is due, and whether calls have waited long enough.
const COLLECTION_CHECK_PERIOD: Duration = Duration::from_millis(250);

/// A process that stops waits so long for receivers of which none takes anything. What runs in Docker has 10 s in all.
const LAST_PATIENCE: Duration = Duration::from_secs(4);

/// What may wait for one receiver of one tenant, and for all together, bytes on disk. An hour of ten thousand series is some 50 MB.
const BACKLOG_BYTES_MAX: u64 = 256 << 20;
const BACKLOGS_BYTES_MAX: u64 = 2 << 30;

/// Below a tenant's folder: requests that wait, and when the last collection was.
const BACKLOG_FOLDER: &str = "remote-write";
const COLLECTED_FILE: &str = "collected";

pub(crate) struct Tenants {
    section: MetricsGenerator,
    targets: Vec<Arc<Target>>,
    overrides: Arc<Overrides>,
    instance: String,
    room: Arc<Room>,
    tenants: Mutex<FxHashMap<TenantId, Running>>,
    senders: Mutex<JoinSet<()>>,
    abandon: CancellationToken,
    /// Requests that receivers took.
    taken: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Running {
    /// Each tenant has a lock of its own, so that one's push does not wait for another's.
    tenant: Arc<Mutex<Tenant>>,
    /// One for each target.
    outlets: Vec<Arc<Outlet>>,
    folder: PathBuf,
    collected_unix_nanos: u64,
}

/// Why spans were not counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// Never try again.
    #[error("traces_data is no valid message")]
    Invalid(#[from] WireError),
    /// The tenant's folder cannot be used.
    #[error("cannot use the folder {folder}")]
    Folder {
        /// Which one.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Tenants {
    pub(crate) fn new(section: &MetricsGenerator, targets: Vec<Target>, overrides: Arc<Overrides>) -> Self {
        Self {
            section: section.clone(),
            targets: targets.into_iter().map(Arc::new).collect(),
            overrides,
            instance: set_or(section.ring.instance_id.clone(), host_name()),
            room: Room::new(BACKLOG_BYTES_MAX, BACKLOGS_BYTES_MAX),
            tenants: Mutex::default(),
            senders: Mutex::new(JoinSet::new()),
            abandon: CancellationToken::new(),
            taken: Arc::default(),
        }
    }

    /// Goes on sending what an earlier process left in the folder.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        let folder = PathBuf::from(&self.section.storage.path);
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let tenant = entry.file_name().to_str().and_then(|name| TenantId::new(name).ok());
            let Some(tenant) = tenant.filter(|_| entry.path().join(BACKLOG_FOLDER).is_dir()) else { continue };
            self.warn_of_strangers(&tenant, &entry.path().join(BACKLOG_FOLDER))?;
            let running = self.running(&tenant, clock::unix_nanos())?;
            let series: u64 = running.outlets.iter().map(|outlet| outlet.backlog.series()).sum();
            if series > 0 {
                tracing::info!(%tenant, series, "samples of an earlier process will be sent");
            }
        }
        Ok(())
    }

    /// Nobody sends what waits for a receiver that is not configured any more, and nobody else should remove it.
    fn warn_of_strangers(&self, tenant: &TenantId, folder: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let is_known = self.targets.iter().any(|target| path.file_name().is_some_and(|name| name == target.name.as_str()));
            if !is_known && std::fs::read_dir(&path).is_ok_and(|mut files| files.next().is_some()) {
                tracing::warn!(%tenant, folder = %path.display(), "samples wait for a receiver that remote_write does not name any more; remove them, or name it again");
            }
        }
        Ok(())
    }

    /// Counts the spans of one push.
    pub(crate) fn push(&self, tenant: &TenantId, traces_data: &[u8], now_unix_nanos: u64) -> Result<(), PushError> {
        let limits = self.overrides.limits(tenant);
        if limits.metrics_generator.processors.is_empty() {
            return Ok(());
        }
        let running = self.running(tenant, now_unix_nanos)?;
        let slack = set_or(limits.metrics_generator.ingestion_time_range_slack, self.section.metrics_ingestion_time_range_slack);
        let slack_nanos = u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX);
        let mut state = running.tenant.lock();
        state.follow(&self.section, &limits);
        let accounted = state.push(traces_data, now_unix_nanos, slack_nanos)?;
        drop(state);
        count_spans(tenant, accounted, traces_data.len());
        Ok(())
    }

    /// The tenant's state, made if it is new.
    fn running(&self, tenant: &TenantId, now_unix_nanos: u64) -> Result<Running, PushError> {
        let mut tenants = self.tenants.lock();
        if let Some(known) = tenants.get(tenant) {
            return Ok(known.clone());
        }
        let mut constant: Vec<(String, String)> =
            self.section.registry.external_labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        constant.push(("__metrics_gen_instance".to_owned(), self.instance.clone()));
        if !self.section.registry.inject_tenant_id_as.is_empty() {
            constant.push((self.section.registry.inject_tenant_id_as.clone(), tenant.to_string()));
        }
        let folder = PathBuf::from(&self.section.storage.path).join(tenant.as_str());
        let mut state = Tenant::new(&self.section, constant);
        // An earlier process may have sent series of the same names, up to now if it had another folder.
        let collected: Option<i64> = std::fs::read_to_string(folder.join(COLLECTED_FILE)).ok().and_then(|text| text.trim().parse().ok());
        let now_unix_millis = i64::try_from(now_unix_nanos / 1_000_000).unwrap_or(i64::MAX);
        state.registry.floor_unix_millis = collected.map_or(now_unix_millis, |collected| collected.max(now_unix_millis));
        let mut outlets = Vec::new();
        for target in &self.targets {
            let folder = folder.join(BACKLOG_FOLDER).join(&target.name);
            let opened = Backlog::open(folder.clone(), self.room.clone());
            let backlog = Arc::new(opened.map_err(|source| PushError::Folder { folder, source })?);
            let sender = Sender {
                target: target.clone(),
                tenant: tenant.clone(),
                overrides: self.overrides.clone(),
                names_tenant: self.section.storage.remote_write_add_org_id_header,
                backlog: backlog.clone(),
                taken: self.taken.clone(),
                takes_no_parts: Arc::default(),
            };
            self.senders.lock().spawn(sender.run(self.abandon.clone()));
            outlets.push(Arc::new(Outlet::new(target.clone(), backlog)));
        }
        let running = Running { tenant: Arc::new(Mutex::new(state)), outlets, folder, collected_unix_nanos: now_unix_nanos };
        tenants.insert(tenant.clone(), running.clone());
        Ok(running)
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

    /// Collects everything a last time and waits until it was sent, or the deadline has passed; what is left waits in the folder.
    pub(crate) async fn collect_last(self: &Arc<Self>, deadline: Duration) {
        self.collect(clock::unix_nanos(), true).await;
        for (_, running) in self.tenants.lock().drain() {
            running.outlets.iter().for_each(|outlet| outlet.backlog.close());
        }
        let mut senders = std::mem::take(&mut *self.senders.lock());
        let sent = async { while senders.join_next().await.is_some() {} };
        let reason = tokio::select! {
            () = sent => return,
            () = self.nothing_is_taken() => "no receiver takes the last metrics",
            () = tokio::time::sleep(deadline) => "the last metrics were not taken in time",
        };
        tracing::error!(deadline_seconds = deadline.as_secs_f64(), "{reason}; they stay in the folder for the next start");
        self.abandon.cancel();
        while senders.join_next().await.is_some() {}
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
        let this = self.clone();
        let collected = tokio::task::spawn_blocking(move || {
            for (tenant, running, is_due) in this.due(now_unix_nanos, all) {
                let limits = this.overrides.limits(&tenant);
                this.look_after(&running, &limits, now_unix_nanos);
                if is_due {
                    this.collect_one(&tenant, &running, &limits, now_unix_nanos);
                }
            }
        });
        if let Err(error) = collected.await {
            tracing::error!(%error, "a collection panicked");
        }
    }

    /// All tenants, and whether their interval has passed. The lock that pushes need too is held no longer than it takes to look.
    fn due(&self, now_unix_nanos: u64, all: bool) -> Vec<(TenantId, Running, bool)> {
        let mut found = Vec::new();
        for (tenant, running) in self.tenants.lock().iter_mut() {
            let limits = self.overrides.limits(tenant);
            let interval = set_or(limits.metrics_generator.collection_interval, self.section.registry.collection_interval);
            let due = running.collected_unix_nanos.saturating_add(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX));
            let is_due = all || now_unix_nanos >= due;
            if is_due {
                running.collected_unix_nanos = now_unix_nanos;
            }
            found.push((tenant.clone(), running.clone(), is_due));
        }
        found
    }

    /// What has to be done without a push, too.
    fn look_after(&self, running: &Running, limits: &Arc<Limits>, now_unix_nanos: u64) {
        let mut state = running.tenant.lock();
        state.follow(&self.section, limits);
        state.expire(now_unix_nanos);
    }

    fn collect_one(&self, tenant: &TenantId, running: &Running, limits: &Limits, now_unix_nanos: u64) {
        let stale_nanos = u64::try_from(self.section.registry.stale_duration.as_nanos()).unwrap_or(u64::MAX);
        let stale_before = now_unix_nanos.saturating_sub(stale_nanos);
        let unix_millis = now_unix_nanos / 1_000_000;
        let request_series = self.targets.iter().map(|target| target.request_series_max).min().unwrap_or(usize::MAX);
        let label = &limits.metrics_generator.trace_id_label_name;
        let mut collection = Collection::new(&mut running.tenant.lock().registry, now_unix_nanos, stale_before, label, request_series);
        let mut has_any = false;
        // The lock is let go between parts.
        while let Some(mut series) = { collection.part(&mut running.tenant.lock().registry) } {
            if limits.metrics_generator.disable_collection {
                continue;
            }
            if !has_any && !series.is_empty() {
                has_any = true;
                // Before anything can be sent, so that a series of the next process never begins before the end of this one's.
                if let Err(error) = std::fs::write(running.folder.join(COLLECTED_FILE), unix_millis.to_string()) {
                    tracing::warn!(%tenant, %error, "the time of the collection cannot be written");
                }
            }
            while !series.is_empty() {
                let rest = series.split_off(series.len().min(request_series));
                hand_over(tenant, &running.outlets, unix_millis, std::mem::replace(&mut series, rest));
            }
        }
        if has_any {
            describe(tenant, &running.outlets, now_unix_nanos, || running.tenant.lock().metadata());
        }
        metrics::counter!(COLLECTIONS.name, "tenant" => tenant.to_string()).increment(1);
        show(tenant, &mut running.tenant.lock(), limits);
    }
}

fn count_spans(tenant: &TenantId, accounted: Accounted, bytes: usize) {
    let label = tenant.to_string();
    metrics::counter!(SPANS_RECEIVED.name, "tenant" => label.clone()).increment(accounted.spans);
    metrics::counter!(BYTES_RECEIVED.name, "tenant" => label.clone()).increment(bytes as u64);
    let discarded = [
        ("outside_metrics_ingestion_slack", "all", accounted.outside_slack),
        ("unreadable", "all", accounted.unreadable),
        ("span_metrics_filtered", "span-metrics", accounted.filtered),
    ];
    for (reason, processor, spans) in discarded.into_iter().filter(|(.., spans)| *spans > 0) {
        metrics::counter!(SPANS_DISCARDED.name, "tenant" => label.clone(), "reason" => reason, "processor" => processor).increment(spans);
    }
}

/// Brings the process' own metrics of a tenant up to date.
fn show(tenant: &TenantId, state: &mut Tenant, limits: &Limits) {
    let label = tenant.to_string();
    let estimate = |name: &'static str, value: f64| metrics::gauge!(name, "tenant" => label.clone()).set(value);
    let gauge = |name: &'static str, value: usize| estimate(name, value as f64);
    let registry: &mut Registry = &mut state.registry;
    gauge(ACTIVE_SERIES.name, registry.active_series());
    gauge(ACTIVE_ENTITIES.name, registry.active_entities());
    gauge(MAX_ACTIVE_SERIES.name, limits.metrics_generator.max_active_series);
    gauge(MAX_ACTIVE_ENTITIES.name, limits.metrics_generator.max_active_entities);
    estimate(SERIES_DEMAND.name, registry.series_demand().round());
    estimate(ENTITY_DEMAND.name, registry.entity_demand().round());
    let changes = registry.take_changes();
    let patterned = state.span_metrics.as_mut().map_or(0, |spans| std::mem::take(&mut spans.patterned));
    let edges = state.service_graphs.as_mut().map(|graphs| graphs.take_account()).unwrap_or_default();
    for (name, count) in [
        (SERIES_ADDED.name, changes.series_added),
        (SERIES_REMOVED.name, changes.series_removed),
        (SERIES_LIMITED.name, changes.series_limited),
        (ENTITIES_ADDED.name, changes.entities_added),
        (ENTITIES_REMOVED.name, changes.entities_removed),
        (ENTITIES_LIMITED.name, changes.entities_limited),
        (VALUES_LIMITED.name, changes.values_limited),
        (NAMES_PATTERNED.name, patterned),
        (GRAPH_EDGES.name, edges.edges),
        (GRAPH_EXPIRED.name, edges.expired_edges),
        (GRAPH_DROPPED.name, edges.dropped_spans),
    ] {
        if count > 0 {
            metrics::counter!(name, "tenant" => label.clone()).increment(count);
        }
    }
    for (processor, is_active) in state.processors() {
        let value = if is_active { 1.0 } else { 0.0 };
        metrics::gauge!(ACTIVE_PROCESSORS.name, "tenant" => label.clone(), "processor" => processor).set(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_s_series_carry_its_name() {
        let tenants = |section: &MetricsGenerator| Tenants::new(section, vec![], Overrides::fixed(Limits::default()));
        let mut section = MetricsGenerator::default();
        assert_eq!(tenants(&section).instance, host_name());
        assert!(!host_name().is_empty());
        "generator-1".clone_into(&mut section.ring.instance_id);
        assert_eq!(tenants(&section).instance, "generator-1");
    }
}
