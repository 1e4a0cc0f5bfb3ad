//! Runs query jobs: a trace by id, a search, tags or their values, in the ingesters or in a part of the bucket.
//!
//! Jobs are pulled from query-frontends over one stream each. How a query is planned as jobs, queued and limited is theirs; the
//! results of several jobs are combined there. Start with [`start`].

mod blocks;
mod counting;
mod counting_round;
mod error;
mod ingesters;
mod join;
mod metrics;
mod other_places;
mod querier;
mod search;
mod series;
mod trace_ids;
mod whole_traces;
mod wire;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vivace_config::Config;
use vivace_ring::{ClientPool, PoolOptions, Ring, quorum};
use vivace_server::Process;
use vivace_storage::{Bucket, Poller};

use crate::blocks::Blocks;
use crate::ingesters::Ingesters;
use crate::querier::{Querier, Timeouts};
use crate::worker::{Worker, WorkerOptions};

pub use crate::error::JobError;

/// What the querier counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

/// Adds a querier to a process: it pulls jobs until the process stops, and finishes those that it has.
///
/// `poller` keeps the block list that lookups by trace id use. It is the caller who runs it, so that services in one
/// process share one. `name` tells this querier from others.
pub fn start(config: &Config, name: &str, ingesters: Ring, bucket: Bucket, poller: Poller, process: &mut Process) {
    let settings = &config.querier;
    let client = &config.ingester_client;
    let pool = ClientPool::new(ingesters.clone(), PoolOptions::default());
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let replication_factor = config.ingester.lifecycler.ring.replication_factor;
    let blocklist = poller.blocklist();
    let known = enough_ingesters(ingesters.clone(), quorum(replication_factor));
    let querier = Querier {
        ingesters: Ingesters::new(ingesters, pool, replication_factor, bytes(client.grpc_client_config.max_recv_msg_size)),
        blocks: Blocks::new(bucket, poller, settings.max_concurrent_queries, &process.budget()),
        timeouts: Timeouts {
            trace_by_id: settings.trace_by_id.query_timeout,
            search: settings.search.query_timeout,
            ingester: client.remote_timeout,
        },
        budget: process.budget(),
    };
    let frontend = &settings.frontend_worker;
    let grpc = &frontend.grpc_client_config;
    let frontend_address = match frontend.frontend_address.as_str() {
        "" => process.grpc_loopback().to_string(),
        address => address.to_owned(),
    };
    let options = WorkerOptions {
        frontend_address,
        dns_lookup_duration: frontend.dns_lookup_duration,
        max_concurrent_jobs: settings.max_concurrent_queries.max(1),
        min_backoff: grpc.backoff_config.min_period,
        max_backoff: grpc.backoff_config.max_period,
        max_result_bytes: bytes(grpc.max_send_msg_size),
        max_job_bytes: bytes(grpc.max_recv_msg_size),
        name: if frontend.id.is_empty() { name.to_owned() } else { frontend.id.clone() },
    };
    let connected = Arc::new(AtomicUsize::new(0));
    let (leaving, left) = (CancellationToken::new(), CancellationToken::new());
    let worker = Worker { options: options.clone(), querier: Arc::new(querier), connected: connected.clone(), leaving: leaving.clone() };
    let stop = process.stop_token();
    let has_left = left.clone().drop_guard();
    process.spawn("querier", async move {
        let _has_left = has_left;
        // Who has just joined the ring knows too little to answer for what is not in the bucket.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = tokio::time::timeout(RING_WAIT, known) => {}
        }
        worker.run(stop).await
    });
    process.on_drain("querier", move || {
        Box::pin(async move {
            leaving.cancel();
            left.cancelled().await;
            Ok(())
        })
    });
    process.ready_check("querier", move || {
        if connected.load(Ordering::Relaxed) == 0 {
            return Err(format!("not connected to a query-frontend at {}", options.frontend_address));
        }
        if !blocklist.is_polled() {
            return Err("the bucket has not been listed yet".to_owned());
        }
        Ok(())
    });
}

/// How long jobs are left to other queriers while this one does not see enough ingesters. After that queries are answered
/// as well as they can be: ingesters may be down.
const RING_WAIT: Duration = Duration::from_secs(10);

/// Waits until `quorum` ingesters are live.
async fn enough_ingesters(ring: Ring, quorum: usize) {
    // An error says that the ring is gone, as at the end of the process.
    let _ = ring.watch().wait_for(|snapshot| snapshot.live().count() >= quorum).await;
}
