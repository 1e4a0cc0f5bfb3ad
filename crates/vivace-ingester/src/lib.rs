//! The ingester: logs segments before they are acknowledged, holds them, builds blocks of them, answers queries on them.
//!
//! A segment whose primary this instance is becomes *live*: indexed, in memory, seen by every query at once, and built into a
//! block when its head is cut. One that belongs to another primary is only *held*, in the log, until its primary says that it
//! is in the bucket, or is gone.
//! Who owns a trace is the distributor's business, what is in older blocks the querier's. Start with [`start`].

mod build;
mod flush;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod grpc;
mod handover;
mod header;
mod http;
mod ingester;
mod lifecycle;
mod limits;
mod log;
mod metrics;
mod push;
mod recent;
mod segment;
mod segment_set;
mod settings;
mod store;
mod summary;
mod takeover;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use vivace_config::Config;
use vivace_proto::tempopb::querier_server::QuerierServer;
use vivace_proto::vivace::v1::handover_server::HandoverServer;
use vivace_proto::vivace::v1::recent_server::RecentServer;
use vivace_proto::vivace::v1::segment_log_server::SegmentLogServer;
use vivace_ring::{ClientPool, Membership, PoolOptions, Registration, Role, State};
use vivace_server::{Overrides, Process, host_name};
use vivace_storage::Bucket;

use crate::ingester::Ingester;
use crate::settings::Settings;

/// What the ingester counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

/// Starts an ingester in a process: replays its log, serves `vivace.v1.SegmentLog`, `vivace.v1.Handover`, `vivace.v1.Recent`, `tempopb.Querier`,
/// `/flush` and `/shutdown`, and joins the ring once it is ready.
///
/// # Errors
/// The log, the ledger or their folders cannot be read or written.
pub async fn start(
    config: &Config,
    membership: &Membership,
    bucket: Bucket,
    overrides: Arc<Overrides>,
    process: &mut Process,
) -> anyhow::Result<()> {
    let settings = Settings::of(config, process.budget());
    bucket.charge_caches(&settings.budget);
    let registration = Registration::of_ingester(&config.ingester.lifecycler, membership, &host_name(), process.grpc_addr());
    membership.register(Role::Ingester, registration.clone(), State::Joining).await;
    let ring = membership.ring(Role::Ingester);
    let pool = Arc::new(ClientPool::new(ring.clone(), PoolOptions::default()));
    let id: Arc<str> = registration.id.into();
    let min_ready = settings.min_ready_duration;
    let opened = {
        let limits = overrides;
        let limits = Arc::new(move |tenant: &vivace_core::TenantId| limits.limits(tenant));
        tokio::task::spawn_blocking(move || Ingester::open(id, settings, bucket, ring, limits)).await
    };
    let ingester = Arc::new(opened.context("the start of the ingester panicked")?.context("could not start the ingester")?);

    let service = grpc::Service { ingester: Arc::clone(&ingester), tenancy: process.tenancy() };
    vivace_server::add_grpc!(process, SegmentLogServer::new(service.clone()));
    vivace_server::add_grpc!(process, HandoverServer::new(service.clone()));
    vivace_server::add_grpc!(process, QuerierServer::new(service.clone()));
    vivace_server::add_grpc!(process, RecentServer::new(service));
    process.add_http(http::router(Arc::clone(&ingester), process.shutdown()));

    ingester.lifecycle.set_joining(true);
    let (checked, since) = (Arc::clone(&ingester), Instant::now());
    // The wait lets the others hear of this instance; alone there is nobody to wait for.
    let min_ready = if membership.dead_after().is_some() { min_ready } else { std::time::Duration::ZERO };
    process.ready_check("ingester", move || match min_ready.checked_sub(since.elapsed()) {
        _ if checked.lifecycle.is_joining() => Err("not in the ring yet".to_owned()),
        Some(left) if !left.is_zero() => Err(format!("waiting for {} s more (ingester.lifecycler.min_ready_duration)", left.as_secs() + 1)),
        _ => Ok(()),
    });

    let (joining, leaving) = (membership.clone(), membership.clone());
    let (flushed, drained, drained_pool) = (Arc::clone(&ingester), Arc::clone(&ingester), Arc::clone(&pool));
    let stop = process.stop_token();
    process.spawn("ingester flush loop", async move {
        if let Some(patience) = joining.dead_after() {
            flushed.others_known(patience).await;
            flushed.resume(&pool).await;
        }
        flushed.lifecycle.set_joining(false);
        joining.set_state(Role::Ingester, State::Active).await;
        flush::run(flushed, pool, stop).await
    });
    process.on_drain("ingester", move || {
        Box::pin(async move {
            leaving.set_state(Role::Ingester, State::Leaving).await;
            drained.drain().await;
            drained.hand_over(&drained_pool).await;
            if drained.store.is_flushed() {
                leaving.deregister(Role::Ingester).await;
            } else {
                leaving.end(Role::Ingester).await;
            }
            // Those who have not heard of it yet still get their answers from here.
            if let Some(wait) = leaving.news_after() {
                tokio::time::sleep(wait).await;
            }
            Ok(())
        })
    });
    Ok(())
}
