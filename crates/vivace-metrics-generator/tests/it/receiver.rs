use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use prost::Message;
use tokio::task::JoinSet;
use vivace_proto::prometheus::{TimeSeries, WriteRequest};

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
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let shared: Arc<Shared> = Arc::default();
        let router = axum::Router::new().route("/api/v1/write", axum::routing::post(write)).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { addr, shared, _task: task }
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
