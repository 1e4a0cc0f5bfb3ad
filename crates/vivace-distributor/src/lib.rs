//! Receives spans, enforces limits, regroups by trace and writes to the replication set.
//!
//! Requests stay the client's own bytes: only ids and sizes are read. What ingesters do with segments, and what metrics
//! are made, is theirs. Start with [`start`].

mod error;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod limit;
mod listen;
mod message;
mod metrics;
mod normal;
mod plan;
mod push;
mod raw_codec;
mod receiver;
mod replicate;
mod span_log;
mod status;
mod too_large;
mod truncate;
mod usage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;
use vivace_config::Config;
use vivace_ring::{ClientPool, Membership, PoolOptions, Registration, Role, State};
use vivace_server::{Overrides, Process, RequestBudget, host_name};

use crate::forward::generator::GeneratorForwarder;
use crate::forward::otlp::Forwarders;
use crate::limit::RateLimiter;
use crate::listen::Receivers;
use crate::push::Distributor;
use crate::replicate::{ReplicationOptions, Replicator};
use crate::span_log::SpanLog;
use crate::usage::Usage;

/// What the distributor counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

/// Longest time for a connection to an ingester: a write goes around one that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the receivers listen, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// OTLP over gRPC.
    pub otlp_grpc: Vec<SocketAddr>,
    /// OTLP over HTTP.
    pub otlp_http: Vec<SocketAddr>,
    /// Jaeger over gRPC.
    pub jaeger_grpc: Vec<SocketAddr>,
    /// Jaeger's thrift over HTTP.
    pub jaeger_http: Vec<SocketAddr>,
    /// Jaeger's compact thrift over UDP.
    pub jaeger_compact: Vec<SocketAddr>,
    /// Jaeger's binary thrift over UDP.
    pub jaeger_binary: Vec<SocketAddr>,
    /// Zipkin.
    pub zipkin: Vec<SocketAddr>,
}

/// Starts the receivers and all behind them, in a process that is a member of the ingesters' and generators' cluster.
///
/// At shutdown the receivers stop first, then sends that are under way are waited for.
///
/// # Errors
/// A receiver's address cannot be bound, or its TLS is asked for, or a forwarder's certificate cannot be read.
pub async fn start(
    config: &Config,
    membership: &Membership,
    overrides: Arc<Overrides>,
    process: &mut Process,
) -> anyhow::Result<Listening> {
    let distributor = Arc::new(distributor(config, membership, overrides, process)?);
    ready_once_ingesters_are_known(&distributor, process);
    if distributor.usage.is_some() {
        process.add_http(usage_page(distributor.clone()));
    }

    // Distributors know each other, to share a tenant's rate under the `global` strategy.
    let registration = Registration::of_service(&config.distributor.ring, membership, &host_name(), process.grpc_addr());
    membership.register(Role::Distributor, registration, State::Active).await;

    let receivers = Receivers::new(distributor.clone());
    let mut listening = Listening::default();
    for receiver in &config.distributor.receivers.otlp {
        if let Some(grpc) = &receiver.protocols.grpc {
            listening.otlp_grpc.push(receivers.serve_grpc(&receiver.id, grpc, config, process).await?);
        }
        if let Some(http) = &receiver.protocols.http {
            listening.otlp_http.push(receivers.serve_http(&receiver.id, http, config, process).await?);
        }
    }
    for receiver in &config.distributor.receivers.jaeger {
        receivers.serve_jaeger(receiver, config, process, &mut listening).await?;
    }
    for receiver in &config.distributor.receivers.zipkin {
        listening.zipkin.push(receivers.serve_zipkin(receiver, process).await?);
    }
    for receiver in &config.distributor.receivers.kafka {
        receivers.read_kafka(receiver, process);
    }
    let membership = membership.clone();
    process.on_drain("distributor", move || {
        Box::pin(async move {
            membership.set_state(Role::Distributor, State::Leaving).await;
            receivers.stop().await;
            distributor.replicator.drain().await;
            tokio::join!(distributor.generators.drain(), distributor.forwarders.drain());
            Ok(())
        })
    });
    Ok(listening)
}

fn distributor(config: &Config, membership: &Membership, overrides: Arc<Overrides>, process: &Process) -> anyhow::Result<Distributor> {
    let pool = |role, client: &vivace_config::RingClient| {
        let connect_timeout = CONNECT_TIMEOUT.min(client.remote_timeout);
        ClientPool::new(membership.ring(role), PoolOptions { connect_timeout, ..PoolOptions::default() })
    };
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let bytes_max = |client: &vivace_config::RingClient| bytes(client.grpc_client_config.max_send_msg_size);
    // Whoever is sent to has the same configuration, and takes what this process would. What the door has let in goes on in parts; a
    // single span that is larger is refused.
    let taken_max = |client: &vivace_config::RingClient| bytes_max(client).min(bytes(config.server.grpc_server_max_recv_msg_size));
    let (ingesters, generators) = (&config.ingester_client, &config.metrics_generator_client);
    let options = ReplicationOptions {
        replication_factor: config.ingester.lifecycler.ring.replication_factor.max(1),
        timeout: ingesters.remote_timeout,
        message_bytes_max: bytes_max(ingesters),
        taken_bytes_max: taken_max(ingesters),
        taken_bytes_key: match taken_max(ingesters) < bytes_max(ingesters) {
            true => "server.grpc_server_max_recv_msg_size",
            false => "ingester_client.grpc_client_config.max_send_msg_size",
        },
    };
    let replicator = Replicator::new(membership.ring(Role::Ingester), pool(Role::Ingester, ingesters), options);
    let forwarder = GeneratorForwarder::new(
        membership.ring(Role::MetricsGenerator),
        pool(Role::MetricsGenerator, generators),
        generators.remote_timeout,
        bytes_max(generators),
        taken_max(generators),
    );
    Ok(Distributor {
        overrides,
        distributors: membership.ring(Role::Distributor),
        limiter: RateLimiter::default(),
        requests: process.request_budget(),
        work: RequestBudget::whole(&process.budget()),
        replicator: Arc::new(replicator),
        generators: Arc::new(forwarder),
        forwarders: Forwarders::new(&config.distributor.forwarders)?,
        span_log: SpanLog::new(&config.distributor),
        usage: config.distributor.usage.cost_attribution.enabled.then(|| Usage::new(&config.distributor.usage.cost_attribution)),
        retry_after: config.distributor.retry_after_on_resource_exhausted,
        max_attribute_bytes: config.distributor.max_attribute_bytes,
        artificial_delay: config.distributor.artificial_delay,
    })
}

/// `GET /usage_metrics`.
fn usage_page(distributor: Arc<Distributor>) -> Router {
    let page = move || {
        let text = distributor.usage.as_ref().map(|usage| usage.render(Instant::now())).unwrap_or_default();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Router::new().route("/usage_metrics", get(page))
}

/// Unready until a quorum of ingesters has been seen once. Losing them later is no reason to send clients away: they get an
/// answer that says so, and no other distributor could do better.
fn ready_once_ingesters_are_known(distributor: &Arc<Distributor>, process: &mut Process) {
    let (replicator, seen) = (distributor.replicator.clone(), AtomicBool::new(false));
    process.ready_check("distributor", move || {
        if !seen.load(Ordering::Relaxed) {
            replicator.check_ready().map_err(|error| error.to_string())?;
            seen.store(true, Ordering::Relaxed);
        }
        Ok(())
    });
}
