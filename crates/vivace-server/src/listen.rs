//! Sockets: binding them with an error that says what to change, and serving connections until told to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::{HeaderValue, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::path;

/// Requests at once on an HTTP/2 connection where nothing is configured: hyper's default.
const STREAMS_MAX: u32 = 200;

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
    /// HTTP/2 flow control. None: as the connection's delay asks for.
    pub(crate) windows: Option<Windows>,
    /// Whether HTTP/2 clients are told to move when a shutdown begins. Those that follow the ring move by it, when their work
    /// here is over.
    pub(crate) sends_away_early: bool,
}

impl Settings {
    /// Without bounds but for the streams of a connection.
    pub(crate) fn unlimited(protocol: &'static str) -> Self {
        Self {
            protocol,
            section: "",
            address: String::new(),
            port: 0,
            max_connections: 0,
            max_concurrent_streams: STREAMS_MAX,
            keepalive_time: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
            header_timeout: None,
            windows: None,
            sends_away_early: true,
        }
    }
}

/// How much an HTTP/2 client may send before it is read, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Of one request.
    pub stream_bytes: u32,
    /// Of all requests of a connection.
    pub connection_bytes: u32,
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
    fn now(&self) -> Services {
        self.then.get().unwrap_or(&self.first).clone()
    }
}

impl Services {
    /// These routes for every request, with its path as it came.
    pub(crate) fn plain(routes: Router) -> Self {
        Self { http: None, grpc: Some(routes) }
    }

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

/// Accepts and serves connections until told to stop, then lets the requests in flight end.
/// Dropping the future drops the connections that are left.
pub(crate) async fn serve(listener: TcpListener, services: Staged, settings: Settings, ending: Ending) {
    let permits = (settings.max_connections > 0).then(|| Arc::new(Semaphore::new(settings.max_connections)));
    metrics::gauge!("tempo_tcp_connections_limit", "protocol" => settings.protocol).set(settings.max_connections as f64);
    let mut connections = JoinSet::new();
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
                drop(connections.spawn(connection(stream, peer, services.clone(), settings.clone(), ending.clone(), permit)))
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
    ending: Ending,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let _open = Open::enter(settings.protocol);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot disable Nagle's algorithm");
    }
    let is_http2 = AtomicBool::new(false);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (services, draining) = (services.now(), ending.draining.clone());
        let is_http1 = request.version() < Version::HTTP_2;
        is_http2.store(!is_http1, Ordering::Relaxed);
        async move {
            let mut response = services.call(request.map(Body::new)).await?;
            if is_http1 && draining.is_cancelled() {
                // The client's next request goes elsewhere. To close an idle connection would meet requests on their way.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder(&settings);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => Some(served),
        () = ending.draining.cancelled() => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            // A client that comes after this is served till the end: it may know no other place.
            if settings.sends_away_early && is_http2.load(Ordering::Relaxed) {
                connection.as_mut().graceful_shutdown();
            }
            tokio::select! {
                served = connection.as_mut() => served,
                () = ending.stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, protocol = settings.protocol, error, "connection ended early");
    }
}

fn builder(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_timeout);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .keep_alive_interval((!settings.keepalive_time.is_zero()).then_some(settings.keepalive_time))
        .keep_alive_timeout(settings.keepalive_timeout);
    match settings.windows {
        None => http2.adaptive_window(true),
        Some(Windows { stream_bytes, connection_bytes }) => {
            http2.initial_stream_window_size(stream_bytes).initial_connection_window_size(connection_bytes)
        }
    };
    builder
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
