use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Request, Status};
use vivace_config::{Config, Limits};
use vivace_proto::otlp::{KeyValue, Resource, ResourceSpans, ScopeSpans, Span, TracesData, any_value};
use vivace_proto::tempopb::TraceByIdRequest;
use vivace_proto::tempopb::querier_client::QuerierClient;
use vivace_proto::vivace::v1::push_request::Compression;
use vivace_proto::vivace::v1::recent_client::RecentClient;
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;
use vivace_proto::vivace::v1::{PushRequest, PushResponse, SegmentId};
use vivace_ring::Membership;
use vivace_server::{Overrides, Process, Shutdown, clock};
use vivace_storage::Bucket;

/// Nothing in these tests takes longer unless it is broken.
const DEADLINE: Duration = Duration::from_secs(30);

/// A folder and a bucket that outlive the ingesters started on them.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) bucket: Bucket,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
}

/// A running ingester.
pub(crate) struct Running {
    pub(crate) http: SocketAddr,
    channel: Channel,
    task: JoinSet<anyhow::Result<()>>,
    shutdown: Shutdown,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.storage.trace.wal.path = folder.path().join("wal").display().to_string();
        config.ingester.lifecycler.id = "ingester-0".to_owned();
        config.ingester.flush_check_period = Duration::from_millis(20);
        Self { folder, bucket: Bucket::memory(), config, limits: Limits::default() }
    }

    pub(crate) fn log_folder(&self) -> PathBuf {
        self.folder.path().join("wal/log")
    }

    pub(crate) fn log_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.log_folder()).expect("readable").map(|f| f.expect("readable").path()).collect();
        files.sort();
        files
    }

    /// Of all files in the log's folder.
    pub(crate) fn log_bytes(&self) -> u64 {
        // A file may go while this looks.
        self.log_files().iter().filter_map(|file| Some(std::fs::metadata(file).ok()?.len())).sum()
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.folder.path().join("wal")
    }

    /// Starts an ingester that is alone in its ring. Waits for one that was killed to let go of the folder.
    pub(crate) async fn start(&self) -> Running {
        self.start_in(&Membership::local(clock::unix_nanos)).await
    }

    pub(crate) async fn start_in(&self, membership: &Membership) -> Running {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut process = Process::test_with(&self.config, "vivace-ingester").await.expect("free ports");
            let overrides = Overrides::fixed(self.limits.clone());
            match vivace_ingester::start(&self.config, membership, self.bucket.clone(), Arc::clone(&overrides), &mut process).await {
                Ok(()) => return Running::ready(process).await,
                Err(error) if Instant::now() > deadline => panic!("{error:#}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Running {
    /// Once it is a member of the ring.
    async fn ready(process: Process) -> Self {
        let (grpc, http, shutdown) = (process.grpc_addr(), process.http_addr(), process.shutdown());
        let mut task = JoinSet::new();
        task.spawn(process.run());
        let channel = Channel::from_shared(format!("http://{grpc}")).expect("an address").connect_lazy();
        let running = Self { http, channel, task, shutdown };
        until("it is ready", || async { running.get("/ready").await.0 == 200 }).await;
        running
    }

    /// Ends it without a word, as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.task.shutdown().await;
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.shutdown.begin();
        self.task.join_next().await.expect("it runs").expect("no panic").expect("an orderly end");
    }

    pub(crate) async fn ended(mut self) {
        let ended = tokio::time::timeout(DEADLINE, self.task.join_next()).await.expect("it ends in time");
        ended.expect("it runs").expect("no panic").expect("an orderly end");
    }

    pub(crate) fn log(&self) -> SegmentLogClient<Channel> {
        SegmentLogClient::new(self.channel.clone())
    }

    pub(crate) fn querier(&self) -> QuerierClient<Channel> {
        QuerierClient::new(self.channel.clone())
    }

    pub(crate) fn recent(&self) -> RecentClient<Channel> {
        RecentClient::new(self.channel.clone())
    }

    pub(crate) async fn push(&self, request: PushRequest) -> Result<PushResponse, Status> {
        self.log().push(request).await.map(tonic::Response::into_inner)
    }

    /// Ids of the spans that are found of a trace, sorted.
    pub(crate) async fn find(&self, trace: u8) -> Vec<u64> {
        self.find_unless(trace, &[]).await
    }

    /// Without what is held for those who answer for themselves.
    pub(crate) async fn find_unless(&self, trace: u8, answering: &[&str]) -> Vec<u64> {
        let answering = answering.iter().map(|id| (*id).to_owned()).collect();
        let request = TraceByIdRequest { trace_id: vec![trace; 16].into(), answering, ..TraceByIdRequest::default() };
        let found = self.querier().find_trace_by_id(Request::new(request)).await.expect("an answer").into_inner();
        let spans = found.trace.into_iter().flat_map(|t| t.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        let mut ids: Vec<u64> = spans.map(|s| u64::from_be_bytes(s.span_id[..].try_into().expect("8 bytes"))).collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a head").1.to_owned())
    }
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Spans of service `shop`, as trace and span id; the id is also in the name and an attribute.
pub(crate) fn spans(ids: &[(u8, u64)]) -> TracesData {
    let text = |text: String| Some(any_value::Value::StringValue(text)).map(|value| vivace_proto::otlp::AnyValue { value: Some(value) });
    let now = clock::unix_nanos();
    let span = |(trace, id): &(u8, u64)| Span {
        trace_id: vec![*trace; 16].into(),
        span_id: id.to_be_bytes().to_vec().into(),
        name: format!("op-{id}"),
        kind: 2,
        start_time_unix_nano: now - 1_000_000_000,
        end_time_unix_nano: now,
        attributes: vec![KeyValue { key: "item".to_owned(), value: text(id.to_string()) }],
        ..Span::default()
    };
    let resource =
        Resource { attributes: vec![KeyValue { key: "service.name".to_owned(), value: text("shop".to_owned()) }], ..Resource::default() };
    let scope = ScopeSpans { spans: ids.iter().map(span).collect(), ..ScopeSpans::default() };
    TracesData { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans: vec![scope], ..ResourceSpans::default() }] }
}

/// A segment of the tenant `single-tenant` for the primary `ingester-0`.
pub(crate) fn segment(sequence: u64, data: &TracesData) -> PushRequest {
    let bytes = data.encode_to_vec();
    PushRequest {
        id: Some(SegmentId { incarnation: vec![1; 16].into(), sequence }),
        tenant: "single-tenant".to_owned(),
        primary: "ingester-0".to_owned(),
        compression: Compression::Lz4.into(),
        uncompressed_bytes: bytes.len() as u32,
        payload: lz4_flex::block::compress(&bytes).into(),
        spans: data.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len() as u32).sum(),
        traces: vec![],
    }
}

pub(crate) fn file_names(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().filter_map(|p: &PathBuf| Path::new(p).file_name()?.to_str()).collect()
}
