//! One connection: its requests, and how long it may stay.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use vivace_core::budget::Budget;

use crate::activity::{Activity, Verdict};
use crate::grpc_messages::Messages;
use crate::incoming::PlainBody;
use crate::listen::{ConnectionOptions, Ending, Staged};
use crate::metrics::CONNECTIONS_CUT;
use crate::outgoing::Answer;
use crate::places::Place;
use crate::request_budget::{RequestBudget, RequestCharge};
use crate::socket::{Socket, Stream};

/// What an HTTP/2 client may send before it is read, bytes: what is not read is held by the connection, so a large window is
/// paid for while it is open. Without payment there is the smallest that does not stop every large request after each frame.
const WINDOW_BYTES: u32 = 1 << 20;
const UNPAID_WINDOW_BYTES: u32 = 64 << 10;
/// Share of what requests may take that goes to windows, percent.
const WINDOWS_PERCENT: u64 = 25;
/// What of an answer waits in an HTTP/2 stream, where it cannot be given up any more, bytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// The largest head of an HTTP/2 request, bytes.
const HEAD_BYTES: u32 = 128 << 10;
/// The largest head of an HTTP/1 request, and what is read ahead of a body, bytes. The library has one number for both, and as much again
/// waits for whoever reads the body.
const READ_BUFFER_BYTES: usize = 80 << 10;
/// What a connection takes of memory, about, while its client sends, bytes: there are so many places as the process has room for.
pub(crate) const MEMORY_BYTES: u64 = 192 << 10;
/// Headers of an HTTP/1 request. Proxies and meshes add theirs to those of each client; more is 431.
const MAX_HEADERS: usize = 256;

/// What the connections of a listener share.
pub(crate) struct Context {
    pub(crate) services: Staged,
    pub(crate) options: ConnectionOptions,
    pub(crate) requests: RequestBudget,
    pub(crate) budget: Budget,
    pub(crate) protocol: &'static str,
}

/// A connection's own.
struct Connection {
    context: Arc<Context>,
    activity: Arc<Activity>,
    draining: CancellationToken,
    /// Pays for the window; given back when the client turns out to speak HTTP/1.
    window: Mutex<Option<RequestCharge>>,
}

/// Serves a connection until its client ends it, its place is given to another one, or it does for too long what it may not.
pub(crate) async fn serve(
    stream: Stream,
    peer: SocketAddr,
    context: Arc<Context>,
    activity: Arc<Activity>,
    place: Place,
    ending: Ending,
    sends_away_early: bool,
) {
    let (protocol, timeouts) = (context.protocol, context.options.timeouts);
    let window = context.requests.spare(WINDOW_BYTES.into(), WINDOWS_PERCENT);
    let builder = builder(&context.options, if window.is_some() { WINDOW_BYTES } else { UNPAID_WINDOW_BYTES });
    let own = Arc::new(Connection { context, activity: activity.clone(), draining: ending.draining.clone(), window: Mutex::new(window) });
    let service = hyper::service::service_fn(|request: Request<Incoming>| own.clone().answer(request));
    let socket = Socket { stream, activity: activity.clone() };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut tick = tokio::time::interval(timeouts.period());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A client that comes after the beginning of a shutdown is served till the end: it may know no other place.
    let (mut is_draining, mut is_stopping) = (ending.draining.is_cancelled(), false);
    let served = loop {
        tokio::select! {
            served = connection.as_mut() => break served,
            () = place.leave.cancelled() => {
                metrics::counter!(CONNECTIONS_CUT.name, "protocol" => protocol, "reason" => "place").increment(1);
                return tracing::debug!(%peer, protocol, "a connection gives its place to another one");
            }
            _ = tick.tick() => match activity.judge(&timeouts, tokio::time::Instant::now()) {
                Verdict::Keep => {}
                Verdict::Move => connection.as_mut().graceful_shutdown(),
                Verdict::Cut(reason) => {
                    metrics::counter!(CONNECTIONS_CUT.name, "protocol" => protocol, "reason" => "timeout").increment(1);
                    return tracing::debug!(%peer, protocol, reason, "a connection is cut");
                }
            },
            () = ending.draining.cancelled(), if !is_draining => {
                is_draining = true;
                if sends_away_early && activity.serves_http2() {
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = ending.stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, protocol, error, "connection ended early");
    }
}

impl Connection {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        let Context { services, options, requests, budget, .. } = &*self.context;
        let in_flight = self.activity.enter();
        let (is_http1, is_grpc) = (request.version() < Version::HTTP_2, is_grpc(request.headers()));
        if is_http1 {
            *self.window.lock() = None;
        }
        let held = Arc::new(Mutex::new(requests.open()));
        let (mut head, body) = request.into_parts();
        let body = if is_grpc {
            Body::new(Messages::new(body, &mut head, options.message_bytes_max, requests.clone(), held.clone()))
        } else {
            // Of HTTP/2 the window is paid for.
            let read_ahead_bytes = if is_http1 { 2 * READ_BUFFER_BYTES as u64 } else { 0 };
            Body::new(PlainBody::new(body, requests, held.clone(), options.timeouts.body, &self.activity, read_ahead_bytes))
        };
        let mut response = services.now().call(Request::from_parts(head, body)).await?;
        drop(held);
        if is_http1 && (self.draining.is_cancelled() || !options.keep_alive) {
            // The client's next request goes elsewhere. To close an idle connection would meet requests on their way.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let response = Answer::of(response, is_grpc, budget, in_flight);
        if !is_http1 && !options.timeouts.write.is_zero() {
            self.activity.watch(response.body().watched());
        }
        Ok(response)
    }
}

/// By its content type, as gRPC is told apart from HTTP.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn builder(options: &ConnectionOptions, window_bytes: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Its own timeout for heads would end connections that idle between two requests too.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(READ_BUFFER_BYTES).max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .keep_alive_interval((!options.ping_after.is_zero()).then_some(options.ping_after))
        .keep_alive_timeout(options.ping_timeout)
        .initial_stream_window_size(window_bytes)
        .initial_connection_window_size(window_bytes)
        .max_header_list_size(HEAD_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}
