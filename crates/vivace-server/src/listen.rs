//! Sockets: binding them with an error that says what to change, and serving connections until told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::{Request, StatusCode, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SetOnce};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use vivace_core::budget::Budget;

use crate::activity::{Activity, Timeouts};
use crate::connection::{self, Context};
use crate::metrics::{CONNECTIONS, CONNECTIONS_LIMIT, CONNECTIONS_REFUSED};
use crate::path;
use crate::places::Places;
use crate::request_budget::RequestBudget;
use crate::socket::Stream;
use crate::tls::Tls;

/// How long nothing is accepted after the system refused to.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is said that nothing can be accepted.
const ACCEPT_WARNING_PERIOD: Duration = Duration::from_secs(10);
/// What the system says when this process, or all together, have no descriptors left: EMFILE, ENFILE.
const NO_DESCRIPTORS: [i32; 2] = [24, 23];

/// Binds one listener of the configuration.
///
/// # Errors
/// Names the address, the keys it comes from, and the system's reason.
pub(crate) async fn bind(settings: &Settings) -> anyhow::Result<TcpListener> {
    let Settings { protocol, section, address, port, .. } = settings;
    let port = *port;
    let host = if address.is_empty() { "0.0.0.0" } else { address.trim_start_matches('[').trim_end_matches(']') };
    TcpListener::bind((host, port)).await.map_err(|error| {
        anyhow::anyhow!("cannot listen on {host}:{port} ({section}.{protocol}_listen_address, {section}.{protocol}_listen_port): {error}")
    })
}

/// One listener of the configuration, and how its connections are treated.
#[derive(Clone)]
pub(crate) struct Settings {
    /// `http` or `grpc`: the label of `tempo_tcp_connections`.
    pub(crate) protocol: &'static str,
    /// Of the configuration; names the keys in errors.
    pub(crate) section: &'static str,
    /// Empty: all interfaces.
    pub(crate) address: String,
    /// 0: a free one.
    pub(crate) port: u16,
    /// 0: no limit. Connections beyond it wait in the system's queue.
    pub(crate) max_connections: usize,
    /// How its connections are treated.
    pub(crate) connections: ConnectionOptions,
    /// None is plain text.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Whether it is there for members of the cluster, who may use memory that others leave them.
    pub(crate) is_for_members: bool,
    /// Whether HTTP/2 clients are told to move when a shutdown begins. Those that follow the ring move by it, when their work
    /// here is over.
    pub(crate) sends_away_early: bool,
}

/// How the connections of a listener are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// How long they may do what.
    pub timeouts: Timeouts,
    /// Requests at once on an HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Until a quiet HTTP/2 connection is pinged; zero is never.
    pub ping_after: Duration,
    /// For the answer to a ping.
    pub ping_timeout: Duration,
    /// Whether an HTTP/1 connection may carry a second request.
    pub keep_alive: bool,
    /// The largest gRPC message that is taken, bytes: as it comes, and decompressed.
    pub message_bytes_max: usize,
}

/// What all listeners of a process share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) budget: Budget,
    pub(crate) places: Places,
}

/// How a listener ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// A shutdown has begun: clients are told to move, and everything is still served.
    pub(crate) draining: CancellationToken,
    /// Nothing is accepted any more, and requests in flight end.
    pub(crate) stop: CancellationToken,
}

/// What a listener serves: HTTP routes, and gRPC by content type.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) http: Option<Router>,
    pub(crate) grpc: Option<Router>,
}

/// What a listener serves while the process is built, and then.
#[derive(Clone)]
pub(crate) struct Staged {
    /// Until the others are there.
    pub(crate) first: Services,
    /// Set when the process runs.
    pub(crate) then: Arc<SetOnce<Services>>,
}

impl From<Services> for Staged {
    fn from(services: Services) -> Self {
        Self { first: services, then: Arc::default() }
    }
}

impl Staged {
    pub(crate) fn now(&self) -> Services {
        self.then.get().unwrap_or(&self.first).clone()
    }
}

impl Services {
    /// These routes for every request, with its path as it came.
    pub(crate) fn plain(routes: Router) -> Self {
        Self { http: None, grpc: Some(routes) }
    }

    pub(crate) async fn call(self, request: Request<Body>) -> Result<Response, Infallible> {
        let is_grpc = connection::is_grpc(request.headers());
        let router = match (self.http, self.grpc) {
            (_, Some(grpc)) if is_grpc => grpc,
            (None, Some(grpc)) => grpc,
            (Some(http), _) => {
                if let Some(clean) = path::redirect(request.uri()) {
                    return Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, clean)]).into_response());
                }
                http
            }
            (None, None) => return Ok(StatusCode::NOT_FOUND.into_response()),
        };
        router.oneshot(request).await
    }
}

/// Accepts and serves connections until told to stop, then lets the requests in flight end.
/// Dropping the future drops the connections that are left.
pub(crate) async fn serve(listener: TcpListener, services: Staged, settings: Settings, shared: Shared, ending: Ending) {
    let protocol = settings.protocol;
    let permits = (settings.max_connections > 0).then(|| Arc::new(Semaphore::new(settings.max_connections)));
    metrics::gauge!(CONNECTIONS_LIMIT.name, "protocol" => protocol).set(settings.max_connections as f64);
    let number = shared.places.listener();
    let requests = if settings.is_for_members { RequestBudget::whole(&shared.budget) } else { RequestBudget::of_senders(&shared.budget) };
    let context = Arc::new(Context { services, options: settings.connections, requests, budget: shared.budget, protocol });
    let (mut connections, mut warned_at) = (JoinSet::new(), None);
    loop {
        let permit = match &permits {
            None => None,
            Some(permits) => tokio::select! {
                permit = permits.clone().acquire_owned() => permit.ok(),
                () = ending.stop.cancelled() => break,
            },
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let activity = Activity::new(Instant::now());
                let Some(place) = shared.places.take(number, &activity) else {
                    metrics::counter!(CONNECTIONS_REFUSED.name, "protocol" => protocol).increment(1);
                    continue;
                };
                let (context, ending, sends_away_early) = (context.clone(), ending.clone(), settings.sends_away_early);
                let tls = settings.tls.clone();
                connections.spawn(async move {
                    let _open = Open::enter(protocol);
                    without_delay(&stream, peer);
                    if let Some(stream) = secured(stream, peer, tls.as_deref(), &ending).await {
                        connection::serve(stream, peer, context, activity, place, ending, sends_away_early).await;
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Neither is helped by trying again at once.
                if is_out_of_descriptors(&error) {
                    shared.places.free_one(number);
                }
                if warned_at.is_none_or(|at: Instant| at.elapsed() > ACCEPT_WARNING_PERIOD) {
                    tracing::warn!(protocol, %error, "cannot accept a connection");
                    warned_at = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.join_next().now_or_never().flatten().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The stream as the listener speaks on it; none when the client cannot do so.
async fn secured(stream: TcpStream, peer: SocketAddr, tls: Option<&Tls>, ending: &Ending) -> Option<Stream> {
    let Some(tls) = tls else { return Some(Stream::Plain(stream)) };
    tokio::select! {
        accepted = tls.accept(stream) => match accepted {
            Ok(stream) => Some(Stream::Tls(Box::new(stream))),
            Err(error) => {
                tracing::debug!(%peer, %error, "a client does not speak TLS as it is asked for here");
                None
            }
        },
        () = ending.stop.cancelled() => None,
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| NO_DESCRIPTORS.contains(&code))
}

fn without_delay(stream: &TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot disable Nagle's algorithm");
    }
}

/// Counts a connection in `tempo_tcp_connections` while it lives.
struct Open(metrics::Gauge);

impl Open {
    fn enter(protocol: &'static str) -> Self {
        let gauge = metrics::gauge!(CONNECTIONS.name, "protocol" => protocol);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
