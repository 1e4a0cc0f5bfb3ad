//! Sockets: binding them with an error that says what to change, and serving connections until told to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::path;

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
    pub(crate) max_concurrent_streams: u32,
    /// Until a quiet HTTP/2 connection is pinged.
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    /// Until the head of a request is complete.
    pub(crate) header_timeout: Option<Duration>,
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
    fn now(&self) -> Services {
        self.then.get().unwrap_or(&self.first).clone()
    }
}

impl Services {
    pub(crate) async fn call(self, request: Request<Body>) -> Result<Response, Infallible> {
        let is_grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
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

/// Accepts and serves connections until `stop`, then lets the requests in flight end.
/// Dropping the future drops the connections that are left.
pub(crate) async fn serve(listener: TcpListener, services: Staged, settings: Settings, stop: CancellationToken) {
    let permits = (settings.max_connections > 0).then(|| Arc::new(Semaphore::new(settings.max_connections)));
    metrics::gauge!("tempo_tcp_connections_limit", "protocol" => settings.protocol).set(settings.max_connections as f64);
    let mut connections = JoinSet::new();
    loop {
        let permit = match &permits {
            None => None,
            Some(permits) => tokio::select! {
                permit = permits.clone().acquire_owned() => permit.ok(),
                () = stop.cancelled() => break,
            },
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                drop(connections.spawn(connection(stream, peer, services.clone(), settings.clone(), stop.clone(), permit)))
            }
            Err(error) => {
                // Out of file descriptors, or the client has left already. Neither is helped by spinning.
                tracing::warn!(protocol = settings.protocol, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while connections.join_next().now_or_never().flatten().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    services: Staged,
    settings: Settings,
    stop: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let _open = Open::enter(settings.protocol);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot disable Nagle's algorithm");
    }
    let service = hyper::service::service_fn(move |request: Request<Incoming>| services.now().call(request.map(Body::new)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .keep_alive_interval((!settings.keepalive_time.is_zero()).then_some(settings.keepalive_time))
        .keep_alive_timeout(settings.keepalive_timeout)
        .adaptive_window(true);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, protocol = settings.protocol, error, "connection ended early");
    }
}

/// Counts a connection in `tempo_tcp_connections` while it lives.
struct Open(metrics::Gauge);

impl Open {
    fn enter(protocol: &'static str) -> Self {
        let gauge = metrics::gauge!("tempo_tcp_connections", "protocol" => protocol);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
