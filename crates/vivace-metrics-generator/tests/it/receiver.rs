use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::post;
use axum::serve::Listener;
use parking_lot::Mutex;
use prost::Message;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use vivace_proto::prometheus::{MetricMetadata, TimeSeries, WriteRequest};

/// A receiver of remote writes that remembers what it got.
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<(HeaderMap, WriteRequest)>>,
    /// What is answered; what is not 2xx is not remembered. 0 is 200.
    status: AtomicU16,
    refused: AtomicU16,
    /// Counts the tokens that were given; 0 is that none is wanted.
    tokens: AtomicU16,
    asked: Mutex<Vec<String>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        Self::serve(listener, addr)
    }

    /// One that speaks TLS.
    pub(crate) async fn start_tls(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        Self::serve(TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }, addr)
    }

    fn serve<L: Listener<Addr = SocketAddr> + Send>(listener: L, addr: SocketAddr) -> Self {
        let shared: Arc<Shared> = Arc::default();
        let router = axum::Router::new()
            .route("/api/v1/write", post(write))
            .route("/moved", post(async || Redirect::temporary("/api/v1/write")))
            .route("/token", post(token))
            .route(
                "/endless",
                post(async || (StatusCode::BAD_REQUEST, Body::from_stream(futures::stream::repeat(Ok::<_, Infallible>("no "))))),
            )
            .with_state(shared.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { addr, shared, _task: task }
    }

    /// From now on takes but the newest of its tokens.
    pub(crate) fn wants_token(&self) {
        self.shared.tokens.store(1, Ordering::Relaxed);
    }

    /// What was asked for when a token was.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().clone()
    }

    pub(crate) fn metadata(&self) -> Vec<MetricMetadata> {
        self.shared.requests.lock().iter().flat_map(|(_, request)| request.metadata.clone()).collect()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.addr)
    }

    pub(crate) fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// Requests that were answered with another status than 200.
    pub(crate) fn refused(&self) -> u16 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.shared.requests.lock().iter().map(|(headers, _)| headers.clone()).collect()
    }

    pub(crate) fn series(&self) -> Vec<TimeSeries> {
        self.shared.requests.lock().iter().flat_map(|(_, request)| request.timeseries.clone()).collect()
    }

    /// Samples of one series, in the order they came: time and value.
    pub(crate) fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(i64, f64)> {
        let has = |series: &TimeSeries, name: &str, value: &str| series.labels.iter().any(|l| l.name == name && l.value == value);
        let all = self.series();
        let found = all.iter().filter(|s| has(s, "__name__", name) && labels.iter().all(|(name, value)| has(s, name, value)));
        found.flat_map(|series| series.samples.iter().map(|sample| (sample.timestamp, sample.value))).collect()
    }
}

async fn write(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let newest = shared.tokens.load(Ordering::Relaxed);
    if newest > 0 && headers.get("authorization").is_none_or(|given| given != &format!("Bearer token-{newest}")) {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        return StatusCode::UNAUTHORIZED;
    }
    let status = shared.status.load(Ordering::Relaxed);
    if status != 0 {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        return StatusCode::from_u16(status).expect("a status");
    }
    let message = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
    let request = WriteRequest::decode(message.as_slice()).expect("a write request");
    shared.requests.lock().push((headers, request));
    StatusCode::OK
}

/// Gives a token to one who names itself in the form.
async fn token(State(shared): State<Arc<Shared>>, body: String) -> Result<String, StatusCode> {
    if !body.contains("client_secret") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    shared.asked.lock().push(body);
    let number = shared.tokens.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(format!("{{\"access_token\": \"token-{number}\", \"token_type\": \"bearer\", \"expires_in\": \"3600\"}}"))
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, addr) = self.listener.accept().await.expect("accepts");
            // Who shows no certificate that is trusted is not spoken to.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, addr);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
