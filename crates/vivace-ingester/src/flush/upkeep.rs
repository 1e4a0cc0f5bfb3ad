//! What is to do at every tick beside flushing: quiet traces, old blocks, the ledger, and the gauges.

use std::time::Duration;

use vivace_core::TenantId;
use vivace_server::clock;

use crate::limits::TenantLimits;
use crate::metrics::{LIVE_TRACE_BYTES, LIVE_TRACES};
use crate::settings::Settings;
use crate::store::Store;

/// What a block covers is remembered at least this long, for followers that were away.
const COVERED_KEPT_MIN: Duration = Duration::from_secs(6 * 3600);

/// Does all of it once. Blocks the thread.
pub(super) fn upkeep(store: &Store, settings: &Settings, limits: &TenantLimits) {
    let now = clock::unix_seconds();
    for tenant in store.tenants() {
        let limits = limits.traces(&tenant.id);
        let live = tenant.sweep(now, settings.trace_idle_period, settings.trace_live_period, limits);
        report(&tenant.id, live, tenant.live_bytes());
    }
    store.report();
    let kept = COVERED_KEPT_MIN.max(settings.max_block_duration * 4);
    let blocks_before = now.saturating_sub(settings.complete_block_timeout.as_secs());
    for tenant in store.expire(now.saturating_sub(kept.as_secs()), blocks_before) {
        report(&tenant, 0, 0);
    }
}

fn report(tenant: &TenantId, live_traces: u64, live_bytes: u64) {
    let name = tenant.to_string();
    metrics::gauge!(LIVE_TRACES.name, "tenant" => name.clone()).set(live_traces as f64);
    metrics::gauge!(LIVE_TRACE_BYTES.name, "tenant" => name).set(live_bytes as f64);
}
