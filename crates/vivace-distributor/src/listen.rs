//! The listeners: a socket, what answers there, and when it ends; and what reads by itself. What is said there is [`crate::receiver`]'s business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use vivace_config::{
    CollectorTls, Config, Endpoint, GrpcReceiver, HttpReceiver, JaegerReceiver, KafkaReceiver, OtlpHttpReceiver, UdpReceiver,
    ZipkinReceiver, set_or,
};
use vivace_server::{ConnectionOptions, Process, Timeouts, Tls, cors, grpc_only, http_only};

use crate::Listening;
use crate::push::Distributor;
use crate::receiver;
use crate::receiver::grpc::TraceService;
use crate::receiver::http::OtlpHttp;
use crate::receiver::jaeger::grpc::CollectorService;
use crate::receiver::jaeger::udp::UdpListener;
use crate::receiver::kafka::Consume;
use crate::receiver::post::Post;
use crate::receiver::thrift::Encoding;

/// Longest time that shutdown waits for clients that are in the middle of a request.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Where the configuration of a gRPC receiver leaves them out: requests at once on a connection; how long a connection may take
/// until it speaks HTTP/2, and may take nothing of an answer; pings. The latter are the defaults of gRPC's servers.
const STREAMS_MAX: u32 = 200;
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const PING_AFTER: Duration = Duration::from_secs(2 * 60 * 60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The listeners.
pub(crate) struct Receivers {
    distributor: Arc<Distributor>,
    stop: CancellationToken,
    /// One task per listener.
    running: TaskTracker,
}

impl Receivers {
    pub(crate) fn new(distributor: Arc<Distributor>) -> Self {
        Self { distributor, stop: CancellationToken::new(), running: TaskTracker::new() }
    }

    pub(crate) async fn serve_grpc(
        &self,
        id: &str,
        config: &GrpcReceiver,
        whole: &Config,
        process: &mut Process,
    ) -> anyhow::Result<SocketAddr> {
        let tls = tls(id, "grpc", config.tls.as_ref())?;
        let (listener, addr) = bind(id, "grpc", &config.endpoint).await?;
        let message_bytes_max = message_bytes_max(config, whole);
        let service = TraceService { distributor: self.distributor.clone(), tenancy: process.tenancy(), message_bytes_max };
        let routes = grpc_only(Routes::new(service).prepare().into_axum_router(), &otlp_http_elsewhere(whole));
        self.serve(
            &format!("{id} receiver, gRPC"),
            process.serve_on(listener, "otlp_grpc", routes, grpc_connections(config, message_bytes_max), tls, self.stop.clone()),
            process,
        );
        Ok(addr)
    }

    pub(crate) async fn serve_http(
        &self,
        id: &str,
        config: &OtlpHttpReceiver,
        whole: &Config,
        process: &mut Process,
    ) -> anyhow::Result<SocketAddr> {
        let tls = tls(id, "http", config.tls.as_ref())?;
        let (listener, addr) = bind(id, "http", &config.endpoint).await?;
        let handler =
            OtlpHttp { distributor: self.distributor.clone(), tenancy: process.tenancy(), body_bytes_max: config.max_request_body_size };
        let http = config.listener();
        let router = receiver::http::router(&config.traces_url_path, handler, &config.cors);
        let router = http_only(as_configured(router, &http, &section(id, "http"))?, &otlp_grpc_elsewhere(whole));
        self.serve(
            &format!("{id} receiver, HTTP"),
            process.serve_on(listener, "otlp_http", router, http_connections(&http), tls, self.stop.clone()),
            process,
        );
        Ok(addr)
    }

    /// Starts every protocol of a receiver of Jaeger's.
    pub(crate) async fn serve_jaeger(
        &self,
        receiver: &JaegerReceiver,
        whole: &Config,
        process: &mut Process,
        listening: &mut Listening,
    ) -> anyhow::Result<()> {
        let JaegerReceiver { id, protocols } = receiver;
        if let Some(grpc) = &protocols.grpc {
            listening.jaeger_grpc.push(self.serve_jaeger_grpc(id, grpc, whole, process).await?);
        }
        if let Some(http) = &protocols.thrift_http {
            let tls = tls(id, "thrift_http", http.tls.as_ref())?;
            let (listener, addr) = bind(id, "thrift_http", &http.endpoint).await?;
            let router = cors(receiver::jaeger::http::router(self.post(http, process)), &http.cors, &[Method::POST]);
            let router = as_configured(router, http, &section(id, "thrift_http"))?;
            let server = process.serve_on(listener, "jaeger_http", router, http_connections(http), tls, self.stop.clone());
            self.serve(&format!("{id} receiver, HTTP"), server, process);
            listening.jaeger_http.push(addr);
        }
        if let Some(udp) = &protocols.thrift_compact {
            listening.jaeger_compact.push(self.serve_udp(id, "thrift_compact", udp, Encoding::Compact, process)?);
        }
        if let Some(udp) = &protocols.thrift_binary {
            listening.jaeger_binary.push(self.serve_udp(id, "thrift_binary", udp, Encoding::Binary, process)?);
        }
        Ok(())
    }

    async fn serve_jaeger_grpc(
        &self,
        id: &str,
        config: &GrpcReceiver,
        whole: &Config,
        process: &mut Process,
    ) -> anyhow::Result<SocketAddr> {
        let tls = tls(id, "grpc", config.tls.as_ref())?;
        let (listener, addr) = bind(id, "grpc", &config.endpoint).await?;
        let message_bytes_max = message_bytes_max(config, whole);
        let service = CollectorService { distributor: self.distributor.clone(), tenancy: process.tenancy(), message_bytes_max };
        let routes = grpc_only(Routes::new(service).prepare().into_axum_router(), "this port takes Jaeger's spans over gRPC");
        let connections = grpc_connections(config, message_bytes_max);
        self.serve(
            &format!("{id} receiver, gRPC"),
            process.serve_on(listener, "jaeger_grpc", routes, connections, tls, self.stop.clone()),
            process,
        );
        Ok(addr)
    }

    fn serve_udp(
        &self,
        id: &str,
        protocol: &'static str,
        config: &UdpReceiver,
        encoding: Encoding,
        process: &mut Process,
    ) -> anyhow::Result<SocketAddr> {
        let listener = UdpListener::bind(config, encoding, self.distributor.clone(), process.request_budget(), process.tenancy())
            .with_context(|| format!("distributor.receivers.{id}.protocols.{protocol}"))?;
        let addr = listener.local_addr().context("a bound socket has an address")?;
        tracing::info!(receiver = id, protocol, %addr, "receives spans");
        let server = self.running.track_future(listener.run(self.stop.clone()));
        process.spawn(&format!("{id} receiver, {protocol}"), server);
        Ok(addr)
    }

    /// Starts a receiver of Zipkin's.
    pub(crate) async fn serve_zipkin(&self, receiver: &ZipkinReceiver, process: &mut Process) -> anyhow::Result<SocketAddr> {
        let http = receiver.http.listener();
        let tls = tls(&receiver.id, "", http.tls.as_ref())?;
        let (listener, addr) = bind(&receiver.id, "", &http.endpoint).await?;
        let router = receiver::zipkin::router(self.post(&http, process), receiver.http.parse_string_tags);
        let router = as_configured(cors(router, &http.cors, &[Method::POST]), &http, &section(&receiver.id, ""))?;
        let server = process.serve_on(listener, "zipkin", router, http_connections(&http), tls, self.stop.clone());
        self.serve(&format!("{} receiver, HTTP", receiver.id), server, process);
        Ok(addr)
    }

    /// Starts a receiver that reads from Kafka. Its brokers may come later.
    pub(crate) fn read_kafka(&self, receiver: &KafkaReceiver, process: &mut Process) {
        let consume = Consume::new(receiver, self.distributor.clone(), process.tenancy());
        let reading = self.running.track_future(consume.run(self.stop.clone()));
        process.spawn(&format!("{} receiver", receiver.id), reading);
    }

    fn post(&self, config: &HttpReceiver, process: &Process) -> Post {
        Post { distributor: self.distributor.clone(), tenancy: process.tenancy(), body_bytes_max: config.max_request_body_size }
    }

    fn serve(&self, name: &str, server: impl Future<Output = ()> + Send + 'static, process: &mut Process) {
        let server = self.running.track_future(server);
        process.spawn(name, async move {
            server.await;
            Ok(())
        });
    }

    /// Takes no more requests and lets those under way end, for a while.
    pub(crate) async fn stop(&self) {
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

/// What those are told who send OTLP over gRPC to a port for HTTP.
fn otlp_grpc_elsewhere(config: &Config) -> String {
    let grpc = config.distributor.receivers.otlp.iter().find_map(|receiver| receiver.protocols.grpc.as_ref());
    match grpc.and_then(|grpc| grpc.endpoint.rsplit_once(':')) {
        Some((_, port)) => format!("this port takes OTLP over HTTP; OTLP over gRPC is taken on port {port}"),
        None => "this port takes OTLP over HTTP; no receiver for OTLP over gRPC is configured".to_owned(),
    }
}

fn message_bytes_max(config: &GrpcReceiver, whole: &Config) -> usize {
    let bytes_max = match config.max_recv_msg_size_mib {
        0 => whole.server.grpc_server_max_recv_msg_size,
        mib => mib.saturating_mul(1 << 20),
    };
    usize::try_from(bytes_max).unwrap_or(usize::MAX)
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

fn http_connections(config: &HttpReceiver) -> ConnectionOptions {
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

/// Takes bodies in the encodings that are allowed alone, and gives each answer the headers that are asked for.
fn as_configured(router: Router, config: &HttpReceiver, section: &str) -> anyhow::Result<Router> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.response_headers {
        let of = || format!("{section}.response_headers.{name}");
        headers.insert(HeaderName::try_from(name).with_context(of)?, HeaderValue::try_from(value.expose()).with_context(of)?);
    }
    let mut router = router;
    if !config.compression_algorithms.is_empty() {
        let allowed = Arc::new(config.compression_algorithms.clone());
        router = router.layer(from_fn(move |request, next| encoded_as_allowed(allowed.clone(), request, next)));
    }
    if headers.is_empty() {
        return Ok(router);
    }
    Ok(router.layer(map_response(move |mut response: Response| {
        response.headers_mut().extend(headers.clone());
        async { response }
    })))
}

async fn encoded_as_allowed(allowed: Arc<Vec<String>>, request: Request, next: Next) -> Response {
    let encoding = request.headers().get(CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    match encoding.as_deref() {
        None | Some("" | "identity") => next.run(request).await,
        Some(encoding) if allowed.iter().any(|one| one == encoding) => next.run(request).await,
        Some(encoding) => {
            (StatusCode::BAD_REQUEST, format!("bodies in {encoding:?} are not taken here, only in {allowed:?}\n")).into_response()
        }
    }
}

fn tls(id: &str, protocol: &'static str, tls: Option<&CollectorTls>) -> anyhow::Result<Option<Arc<Tls>>> {
    tls.map(|tls| Ok(Arc::new(Tls::of_receiver(tls, &format!("{}.tls", section(id, protocol)))?))).transpose()
}

/// The keys of a listener.
fn section(id: &str, protocol: &'static str) -> String {
    Endpoint { id, protocol, address: "", is_udp: false, tls: None }.path()
}

async fn bind(id: &str, protocol: &'static str, endpoint: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener =
        TcpListener::bind(endpoint).await.with_context(|| format!("cannot listen on {endpoint} ({}.endpoint)", section(id, protocol)))?;
    let addr = listener.local_addr().context("a bound listener has an address")?;
    let protocol = if protocol.is_empty() { "http" } else { protocol };
    tracing::info!(receiver = id, protocol, %addr, "receives spans");
    Ok((listener, addr))
}
