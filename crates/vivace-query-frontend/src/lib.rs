//! The query API: parse, plan jobs, queue them fairly per tenant, let queriers pull, retry, combine.
//!
//! Data is read by queriers only; this crate knows the list of blocks and what a request means.
//! Start with [`start`]; a request's way is `http` or `streaming`, `frontend`, `view`, `job_plan`, `running`,
//! `admission`, `run`, `queue`, `pull`, `combine`, `render`, `body`. The query APIs of other systems, `jaeger` and `zipkin`, are
//! translated to the same: `conditions`, `finding`, `dependencies`.

mod admission;
mod asked;
mod attribute_json;
mod body;
mod coding;
mod combine;
mod conditions;
mod counting;
mod dependencies;
mod error;
mod finding;
mod frontend;
mod http;
mod jaeger;
mod job_plan;
mod listeners;
mod lookup;
mod metrics;
mod metrics_query;
mod params;
mod pull;
mod queue;
mod refusal;
mod render;
mod run;
mod running;
mod split_traces;
mod streaming;
mod view;
mod zipkin;

use std::sync::Arc;

use vivace_config::Config;
use vivace_core::budget::Account;
use vivace_proto::tempopb::streaming_querier_server::StreamingQuerierServer;
use vivace_proto::vivace::v1::job_queue_server::JobQueueServer;
use vivace_server::{Overrides, Process, add_grpc};
use vivace_storage::Blocklist;

pub use listeners::Listening;

/// What the query-frontend counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

/// Adds the query-frontend to a process: the HTTP query API, `tempopb.StreamingQuerier`, and `vivace.v1.JobQueue` for queriers.
///
/// `blocklist` is kept up to date by the caller. The process is ready once a querier is connected; at shutdown it takes no
/// further queries and waits for those it has. Other systems' query APIs have ports of their own, which are returned.
///
/// # Errors
/// A port that the configuration asks for cannot be opened.
pub async fn start(config: &Config, blocklist: Blocklist, overrides: Arc<Overrides>, process: &mut Process) -> anyhow::Result<Listening> {
    metrics::register();
    let settings = &config.query_frontend;
    let limits = process.grpc_limits();
    let queue = queue::Queue::new(settings.max_outstanding_per_tenant);
    let frontend = frontend::Frontend {
        config: settings.clone(),
        queue: queue.clone(),
        admission: admission::Admission::new(queue.clone(), settings.max_outstanding_per_tenant, settings.max_wait),
        budget: process.budget(),
        blocklist,
        overrides,
        clock: vivace_server::clock::unix_nanos,
    };
    let api = http::QueryApi { frontend: Arc::new(frontend), tenancy: process.tenancy(), max_message_bytes: limits.max_send_bytes };
    process.add_api(http::routes(api.clone()));
    let listening = listeners::listen(config, &api, process).await?;
    add_grpc!(process, StreamingQuerierServer::new(api));
    let of_memory = process.budget().limit_of(Account::Requests) / 4;
    let pull = pull::Pull {
        queue: queue.clone(),
        max_attempts: settings.max_retries,
        // One that took all the memory for requests would end the stream, and every job of it.
        max_message_bytes: limits.max_receive_bytes.min(usize::try_from(of_memory).unwrap_or(usize::MAX)),
        budget: process.budget(),
        stop: process.stop_token(),
    };
    add_grpc!(process, JobQueueServer::new(pull));
    let connected = queue.clone();
    process.ready_check(
        "query-frontend",
        move || {
            if connected.has_queriers() { Ok(()) } else { Err("no querier is connected".to_owned()) }
        },
    );
    process.on_drain("query-frontend", move || {
        Box::pin(async move {
            queue.drain().await;
            Ok(())
        })
    });
    Ok(listening)
}
