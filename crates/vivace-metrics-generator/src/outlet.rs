//! From a tenant's series to what waits for each receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vivace_core::TenantId;
use vivace_proto::prometheus::{MetricMetadata, TimeSeries};

use crate::metrics::SAMPLES_DROPPED;
use crate::remote_write::{Backlog, Target, encode};

/// One tenant's way to one receiver.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) target: Arc<Target>,
    /// What waits.
    pub(crate) backlog: Arc<Backlog>,
    /// When it was said last what metrics are.
    described_unix_nanos: AtomicU64,
}

impl Outlet {
    pub(crate) fn new(target: Arc<Target>, backlog: Arc<Backlog>) -> Self {
        Self { target, backlog, described_unix_nanos: AtomicU64::new(0) }
    }
}

/// Lets series wait for each receiver, as its rules make them.
pub(crate) fn hand_over(tenant: &TenantId, outlets: &[Arc<Outlet>], unix_millis: u64, series: Vec<TimeSeries>) {
    let (plain, ruled): (Vec<&Outlet>, Vec<&Outlet>) = outlets.iter().map(Arc::as_ref).partition(|outlet| outlet.target.rules.is_empty());
    for outlet in ruled {
        let relabelled = outlet.target.rules.apply(&series);
        if !relabelled.is_empty() {
            let count = relabelled.len() as u64;
            put(tenant, &outlet.backlog, unix_millis, count, &encode(relabelled, Vec::new()));
        }
    }
    if !plain.is_empty() {
        let count = series.len() as u64;
        let body = encode(series, Vec::new());
        plain.into_iter().for_each(|outlet| put(tenant, &outlet.backlog, unix_millis, count, &body));
    }
}

/// Says what the metrics are, to each receiver for which it is time.
pub(crate) fn describe(tenant: &TenantId, outlets: &[Arc<Outlet>], now_unix_nanos: u64, metadata: impl Fn() -> Vec<MetricMetadata>) {
    let mut body = None;
    for outlet in outlets {
        let Some(interval) = outlet.target.metadata_interval else { continue };
        let last = outlet.described_unix_nanos.load(Ordering::Relaxed);
        if now_unix_nanos.saturating_sub(last) < u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX) {
            continue;
        }
        outlet.described_unix_nanos.store(now_unix_nanos, Ordering::Relaxed);
        let body = body.get_or_insert_with(|| encode(Vec::new(), metadata()));
        put(tenant, &outlet.backlog, now_unix_nanos / 1_000_000, 0, body);
    }
}

fn put(tenant: &TenantId, backlog: &Backlog, unix_millis: u64, series: u64, body: &[u8]) {
    let dropped = match backlog.put(unix_millis, series, body) {
        Ok(0) => return,
        Ok(dropped) => {
            tracing::warn!(%tenant, series = dropped, "samples were dropped: the remote-write receiver does not keep up");
            dropped
        }
        Err(error) => {
            tracing::error!(%tenant, %error, series, "samples cannot be written and are lost");
            series
        }
    };
    metrics::counter!(SAMPLES_DROPPED.name, "tenant" => tenant.to_string()).increment(dropped);
}
