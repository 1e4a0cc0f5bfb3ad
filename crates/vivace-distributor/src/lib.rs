//! Receives spans, enforces limits, regroups by trace and writes to the replication set.
//!
//! Requests stay the client's own bytes: only ids and sizes are read. What ingesters do with segments, and what metrics
//! are made, is theirs. Start with [`start`].

mod error;
mod forward;
mod limit;
mod message;
mod metrics;
mod plan;
mod push;
mod raw_codec;
mod receiver;
mod replicate;
mod span_log;
mod status;
mod truncate;
mod usage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use vivace_config::{Config, GrpcReceiver, OtlpHttpReceiver, set_or};
use vivace_ring::{ClientPool, Membership, PoolOptions, Registration, Role, State};
use vivace_server::{ConnectionOptions, Overrides, Process, RequestBudget, Timeouts, grpc_only, host_name};

use crate::forward::generator::GeneratorForwarder;
use crate::forward::otlp::Forwarders;
use crate::limit::RateLimiter;
use crate::push::Distributor;
use crate::receiver::grpc::TraceService;
use crate::receiver::http::OtlpHttp;
use crate::replicate::{ReplicationOptions, Replicator};
use crate::span_log::SpanLog;
use crate::usage::Usage;

/// What the distributor counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

/// Longest time for a connection to an ingester: a write goes around one that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time that shutdown waits for clients that are in the middle of a request.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Where the configuration of a gRPC receiver leaves them out: requests at once on a connection; how long a connection may take
/// until it speaks HTTP/2, and may take nothing of an answer; pings. The latter are the defaults of gRPC's servers.
const STREAMS_MAX: u32 = 200;
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const PING_AFTER: Duration = Duration::from_secs(2 * 60 * 60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the receivers listen, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// OTLP over gRPC.
    pub otlp_grpc: Vec<SocketAddr>,
    /// OTLP over HTTP.
    pub otlp_http: Vec<SocketAddr>,
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
    let registration = registration(config, membership, process);
    membership.register(Role::Distributor, registration, State::Active).await;

    let receivers = Receivers { distributor: distributor.clone(), stop: CancellationToken::new(), running: TaskTracker::new() };
    let mut listening = Listening::default();
    for receiver in &config.distributor.receivers.otlp {
        if let Some(grpc) = &receiver.protocols.grpc {
            listening.otlp_grpc.push(receivers.serve_grpc(&receiver.id, grpc, config, process).await?);
        }
        if let Some(http) = &receiver.protocols.http {
            listening.otlp_http.push(receivers.serve_http(&receiver.id, http, process).await?);
        }
    }
    let configured = &config.distributor.receivers;
    for id in configured.jaeger.iter().map(|r| &r.id).chain(configured.zipkin.iter().map(|r| &r.id)) {
        tracing::warn!(receiver = %id, "this receiver is configured and not supported yet: nothing listens there");
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
    // single span that is larger is for the ingester to refuse, which says so for good.
    let taken_max = |client: &vivace_config::RingClient| bytes_max(client).min(bytes(config.server.grpc_server_max_recv_msg_size));
    let (ingesters, generators) = (&config.ingester_client, &config.metrics_generator_client);
    let options = ReplicationOptions {
        replication_factor: config.ingester.lifecycler.ring.replication_factor.max(1),
        timeout: ingesters.remote_timeout,
        message_bytes_max: bytes_max(ingesters),
        taken_bytes_max: taken_max(ingesters),
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

fn registration(config: &Config, membership: &Membership, process: &Process) -> Registration {
    let ring = &config.distributor.ring;
    let id = if ring.instance_id.is_empty() { host_name() } else { ring.instance_id.clone() };
    let host = if ring.instance_addr.is_empty() { membership.advertise_ip().to_string() } else { ring.instance_addr.clone() };
    let port = set_or(ring.instance_port, process.grpc_addr().port());
    Registration { id, addr: format!("{host}:{port}"), zone: String::new() }
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

/// The listeners.
struct Receivers {
    distributor: Arc<Distributor>,
    stop: CancellationToken,
    /// One task per listener.
    running: TaskTracker,
}

impl Receivers {
    async fn serve_grpc(&self, id: &str, config: &GrpcReceiver, whole: &Config, process: &mut Process) -> anyhow::Result<SocketAddr> {
        let (listener, addr) = bind(id, "grpc", &config.endpoint).await?;
        let bytes_max = match config.max_recv_msg_size_mib {
            0 => whole.server.grpc_server_max_recv_msg_size,
            mib => mib.saturating_mul(1 << 20),
        };
        let message_bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let service = TraceService { distributor: self.distributor.clone(), tenancy: process.tenancy(), message_bytes_max };
        let routes = grpc_only(Routes::new(service).prepare().into_axum_router(), &otlp_http_elsewhere(whole));
        self.serve(
            &format!("{id} receiver, gRPC"),
            process.serve_on(listener, "otlp_grpc", routes, grpc_connections(config, message_bytes_max), None, self.stop.clone()),
            process,
        );
        Ok(addr)
    }

    async fn serve_http(&self, id: &str, config: &OtlpHttpReceiver, process: &mut Process) -> anyhow::Result<SocketAddr> {
        let (listener, addr) = bind(id, "http", &config.endpoint).await?;
        let handler =
            OtlpHttp { distributor: self.distributor.clone(), tenancy: process.tenancy(), body_bytes_max: config.max_request_body_size };
        let router = receiver::http::router(&config.traces_url_path, handler, &config.cors);
        self.serve(
            &format!("{id} receiver, HTTP"),
            process.serve_on(listener, "otlp_http", router, http_connections(config), None, self.stop.clone()),
            process,
        );
        Ok(addr)
    }

    fn serve(&self, name: &str, server: impl Future<Output = ()> + Send + 'static, process: &mut Process) {
        let server = self.running.track_future(server);
        process.spawn(name, async move {
            server.await;
            Ok(())
        });
    }

    /// Takes no more requests and lets those under way end, for a while.
    async fn stop(&self) {
        self.stop.cancel();
        self.running.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.running.wait()).await.is_err() {
            tracing::warn!("some clients are still sending; their requests are cut off");
        }
    }
}

/// What those are told who send OTLP over HTTP to a port for gRPC.
fn otlp_http_elsewhere(config: &Config) -> String {
    let http = config.distributor.receivers.otlp.iter().find_map(|receiver| receiver.protocols.http.as_ref());
    match http.and_then(|http| http.endpoint.rsplit_once(':')) {
        Some((_, port)) => format!("this port takes OTLP over gRPC; OTLP over HTTP is taken on port {port}"),
        None => "this port takes OTLP over gRPC; no receiver for OTLP over HTTP is configured".to_owned(),
    }
}

fn grpc_connections(config: &GrpcReceiver, message_bytes_max: usize) -> ConnectionOptions {
    let server = &config.keepalive.server_parameters;
    ConnectionOptions {
        timeouts: Timeouts {
            header: HEADER_TIMEOUT,
            body: Duration::ZERO,
            write: WRITE_TIMEOUT,
            idle: server.max_connection_idle,
            age: server.max_connection_age,
            age_grace: server.max_connection_age_grace,
        },
        max_concurrent_streams: set_or(config.max_concurrent_streams, STREAMS_MAX),
        ping_after: set_or(server.time, PING_AFTER),
        ping_timeout: set_or(server.timeout, PING_TIMEOUT),
        keep_alive: true,
        message_bytes_max,
    }
}

fn http_connections(config: &OtlpHttpReceiver) -> ConnectionOptions {
    ConnectionOptions {
        timeouts: Timeouts {
            // As Go's server: the read timeout counts where there is none for the head.
            header: set_or(config.read_header_timeout, config.read_timeout),
            body: config.read_timeout,
            write: config.write_timeout,
            idle: set_or(config.idle_timeout, config.read_timeout),
            ..Timeouts::NONE
        },
        max_concurrent_streams: STREAMS_MAX,
        ping_after: PING_AFTER,
        ping_timeout: PING_TIMEOUT,
        keep_alive: config.keep_alives_enabled,
        message_bytes_max: usize::try_from(config.max_request_body_size).unwrap_or(usize::MAX),
    }
}

async fn bind(id: &str, protocol: &str, endpoint: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(endpoint)
        .await
        .with_context(|| format!("cannot listen on {endpoint} (distributor.receivers.{id}.protocols.{protocol}.endpoint)"))?;
    let addr = listener.local_addr().context("a bound listener has an address")?;
    tracing::info!(receiver = id, protocol, %addr, "receives spans");
    Ok((listener, addr))
}
