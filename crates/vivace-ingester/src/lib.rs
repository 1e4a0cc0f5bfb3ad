//! The ingester: logs segments before they are acknowledged, holds them, builds blocks of them, answers queries on them.
//!
//! A segment whose primary this instance is becomes *live*: indexed, in memory, seen by every query at once, and built into a
//! block when its head is cut. One that belongs to another primary is only *held*, in the log, until its primary says that it
//! is in the bucket, or is gone.
//! Who owns a trace is the distributor's business, what is in older blocks the querier's. Start with [`start`].
//!
//! - `store`: where each segment stands. It alone moves them, and whatever can be lost is in there.
//! - `push`, `flush`: how segments come into the store, and how they leave it as blocks.
//! - `recent`: the answers to queries, from the store and from blocks that are still served.
//! - `succession`: what ingesters do for each other when one dies, leaves or comes back.
//! - `log`: the files; `header`, `segment`, `summary`, `gather`: what is in them.

mod flush;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod grpc;
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
mod succession;
mod summary;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::spawn_blocking;
use vivace_config::Config;
use vivace_core::TenantId;
use vivace_proto::tempopb::querier_server::QuerierServer;
use vivace_proto::vivace::v1::handover_server::HandoverServer;
use vivace_proto::vivace::v1::recent_server::RecentServer;
use vivace_proto::vivace::v1::segment_log_server::SegmentLogServer;
use vivace_ring::{Membership, Registration, Role, State};
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
    let min_ready = settings.min_ready_duration;
    let limits = Arc::new(move |tenant: &TenantId| overrides.limits(tenant));
    let opened = spawn_blocking(move || Ingester::open(registration.id.into(), settings, bucket, ring, limits)).await;
    let ingester = Arc::new(opened.context("the start of the ingester panicked")?.context("could not start the ingester")?);
    ingester.lifecycle.set_joining(true);

    let service = grpc::Service { ingester: Arc::clone(&ingester), tenancy: process.tenancy() };
    vivace_server::add_grpc!(process, SegmentLogServer::new(service.clone()));
    vivace_server::add_grpc!(process, HandoverServer::new(service.clone()));
    vivace_server::add_grpc!(process, QuerierServer::new(service.clone()));
    vivace_server::add_grpc!(process, RecentServer::new(service));
    process.add_http(http::router(Arc::clone(&ingester), process.shutdown()));
    // The wait lets the others hear of this instance; alone there is nobody to wait for.
    let min_ready = if membership.dead_after().is_some() { min_ready } else { Duration::ZERO };
    let (checked, since) = (Arc::clone(&ingester), Instant::now());
    process.ready_check("ingester", move || is_ready(&checked, since, min_ready));

    let (flushing, joining, stop) = (Arc::clone(&ingester), membership.clone(), process.stop_token());
    process.spawn("ingester flush loop", async move {
        join(&flushing, &joining).await;
        Arc::clone(&flushing.flusher).run(stop).await
    });
    let leaving = membership.clone();
    process.on_drain("ingester", move || {
        Box::pin(async move {
            leave(&ingester, &leaving).await;
            Ok(())
        })
    });
    Ok(())
}

fn is_ready(ingester: &Ingester, since: Instant, min_ready: Duration) -> Result<(), String> {
    match min_ready.checked_sub(since.elapsed()) {
        _ if ingester.lifecycle.is_joining() => Err("not in the ring yet".to_owned()),
        Some(left) if !left.is_zero() => Err(format!("waiting for {} s more (ingester.lifecycler.min_ready_duration)", left.as_secs() + 1)),
        _ => Ok(()),
    }
}

/// Becomes a member of the ring, once the others have said what this instance had before it was started.
async fn join(ingester: &Ingester, membership: &Membership) {
    if let Some(patience) = membership.dead_after() {
        ingester.succession.wait_for_others(patience).await;
        ingester.succession.resume().await;
    }
    ingester.lifecycle.set_joining(false);
    membership.set_state(Role::Ingester, State::Active).await;
}

/// Stops taking segments, leaves blocks and what is not flushed to the others, and goes once they know.
async fn leave(ingester: &Ingester, membership: &Membership) {
    membership.set_state(Role::Ingester, State::Leaving).await;
    ingester.drain().await;
    ingester.succession.hand_over_all().await;
    if ingester.store.is_flushed() {
        membership.deregister(Role::Ingester).await;
    } else {
        membership.end(Role::Ingester).await;
    }
    // Those who have not heard of it yet still get their answers from here.
    if let Some(wait) = membership.news_after() {
        tokio::time::sleep(wait).await;
    }
}
