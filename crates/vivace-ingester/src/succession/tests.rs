//! Followers and primaries, with waits that no configuration can shorten.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use vivace_config::{Config, Limits};
use vivace_core::{TenantId, TraceId};
use vivace_proto::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};
use vivace_proto::vivace::v1::handover_server::HandoverServer;
use vivace_proto::vivace::v1::segment_log_server::SegmentLogServer;
use vivace_proto::vivace::v1::{PushRequest, SegmentId};
use vivace_ring::{Instance, Ring, Role, State};
use vivace_server::Tenancy;
use vivace_storage::Bucket;

use crate::grpc;
use crate::ingester::Ingester;
use crate::settings::Settings;

/// Two ingesters in one ring, of which the second may be dead.
struct Pair {
    ring: Ring,
    listeners: [Option<TcpListener>; 2],
    folder: tempfile::TempDir,
    bucket: Bucket,
    tasks: JoinSet<()>,
}

impl Pair {
    async fn new(second_is_alive: bool) -> Self {
        let listeners = [listener().await, listener().await];
        let instance = |index: usize, alive| Instance {
            id: format!("ingester-{index}"),
            role: Role::Ingester,
            addr: listeners[index].local_addr().expect("bound").to_string(),
            zone: String::new(),
            state: State::Active,
            alive,
            registered_unix_seconds: 0,
            last_heartbeat_unix_nanos: 0,
        };
        let ring = Ring::fixed(Role::Ingester, [instance(0, true), instance(1, second_is_alive)]);
        let folder = tempfile::tempdir().expect("a folder");
        Self { ring, listeners: listeners.map(Some), folder, bucket: Bucket::memory(), tasks: JoinSet::new() }
    }

    async fn start(&mut self, index: usize, change: impl FnOnce(&mut Settings)) -> Arc<Ingester> {
        let mut config = Config::default();
        config.storage.trace.wal.path = self.folder.path().join(index.to_string()).display().to_string();
        config.ingester.flush_check_period = Duration::from_millis(10);
        config.ingester.lifecycler.ring.replication_factor = 2;
        let mut settings = Settings::of(&config, vivace_core::budget::Budget::unlimited());
        settings.gone_grace = Duration::ZERO;
        change(&mut settings);
        let (bucket, ring, id) = (self.bucket.clone(), self.ring.clone(), format!("ingester-{index}").into());
        let limits = Arc::new(Limits::default());
        let open = move || Ingester::open(id, settings, bucket, ring, Arc::new(move |_| Arc::clone(&limits)));
        let ingester = Arc::new(tokio::task::spawn_blocking(open).await.expect("no panic").expect("opens"));
        let service = grpc::Service { ingester: Arc::clone(&ingester), tenancy: Tenancy { multitenancy: false } };
        // A second run is heard of by nobody.
        if let Some(listener) = self.listeners[index].take() {
            let server = tonic::transport::Server::builder().add_service(SegmentLogServer::new(service.clone()));
            let server = server.add_service(HandoverServer::new(service));
            self.tasks.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("served") });
        }
        let flushes = Arc::clone(&ingester.flusher).run(CancellationToken::new());
        self.tasks.spawn(async move { flushes.await.expect("flushed") });
        ingester
    }

    /// The second instance once more, with an empty disk.
    async fn replace_second(&mut self) -> Arc<Ingester> {
        let disk = self.folder.path().join("another disk");
        let ingester = self.start(1, |s| s.wal = disk).await;
        ingester.succession.resume().await;
        ingester
    }

    async fn blocks(&self) -> usize {
        self.bucket.blocks(&TenantId::single()).await.expect("listed").len()
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// A segment with one span of trace 1, whose primary is the second instance.
fn segment(sequence: u64) -> PushRequest {
    let span = Span { trace_id: vec![1; 16].into(), span_id: sequence.to_be_bytes().to_vec().into(), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let payload = TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec();
    PushRequest {
        id: Some(SegmentId { incarnation: vec![1; 16].into(), sequence }),
        tenant: "single-tenant".to_owned(),
        primary: "ingester-1".to_owned(),
        uncompressed_bytes: payload.len() as u32,
        payload: payload.into(),
        spans: 1,
        ..PushRequest::default()
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Spans that the instance does not merely hold.
async fn found(ingester: &Arc<Ingester>) -> Vec<u64> {
    found_when(ingester, &["ingester-1"]).await
}

/// Spans that the instance finds when these answer for themselves.
async fn found_when(ingester: &Arc<Ingester>, answering: &[&str]) -> Vec<u64> {
    let answering: Vec<String> = answering.iter().map(|id| (*id).to_owned()).collect();
    let found = ingester.recent.find_trace(&TenantId::single(), TraceId([1; 16]), &answering).await.expect("answered");
    let spans = found.0.trace.into_iter().flat_map(|t| t.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
    let mut ids: Vec<u64> = spans.map(|s| u64::from_be_bytes(s.span_id[..].try_into().expect("8 bytes"))).collect();
    ids.sort_unstable();
    ids
}

fn held(ingester: &Ingester) -> usize {
    ingester.store.held().iter().map(|h| h.segments).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_flushes_what_a_dead_primary_cannot() {
    let mut pair = Pair::new(false).await;
    let follower = pair.start(0, |s| s.gone_grace = Duration::from_secs(1)).await;
    for sequence in 1..=3 {
        follower.push(segment(sequence)).await.expect("held");
    }
    assert!(found(&follower).await.is_empty(), "not before the grace is over");
    until("the segments are live here", || async { found(&follower).await == [1, 2, 3] }).await;
    assert_eq!(held(&follower), 0);
    follower.store.cut(None);
    until("the block is in the bucket", || async { pair.blocks().await == 1 }).await;
    until("the log is empty", || async { follower.store.log_bytes() < 20 }).await;
    assert_eq!(found(&follower).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_has_flushed_tells_its_followers() {
    let mut pair = Pair::new(true).await;
    let (follower, primary) = (pair.start(0, |_| {}).await, pair.start(1, |_| {}).await);
    for sequence in 1..=3 {
        for ingester in [&follower, &primary] {
            ingester.push(segment(sequence)).await.expect("taken");
        }
    }
    assert_eq!(held(&follower), 3);
    primary.store.cut(None);
    until("the follower has dropped them", || async { held(&follower) == 0 }).await;
    until("the follower's log is empty", || async { follower.store.log_bytes() < 20 }).await;
    assert_eq!(pair.blocks().await, 1, "stored once");
    assert_eq!(found(&primary).await, [1, 2, 3]);
    assert!(found(&follower).await.is_empty(), "the primary answers from its block");
    assert_eq!(found_when(&follower, &["ingester-0"]).await, [1, 2, 3], "else its follower does");

    let kept = follower.store.served_in_ledger();
    assert_eq!(kept.iter().map(|block| &*block.writer).collect::<Vec<_>>(), ["ingester-1"], "also after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lost_its_disk_serves_its_blocks_again() {
    let mut pair = Pair::new(true).await;
    let (follower, primary) = (pair.start(0, |_| {}).await, pair.start(1, |_| {}).await);
    primary.push(segment(1)).await.expect("taken");
    primary.store.cut(None);
    until("the follower knows the block", || async { found_when(&follower, &[]).await == [1] }).await;
    let primary = pair.replace_second().await;
    assert_eq!(found(&primary).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_primary_lost_with_its_disk_is_live_elsewhere_before_it_answers_again() {
    let mut pair = Pair::new(true).await;
    let (follower, primary) = (pair.start(0, |_| {}).await, pair.start(1, |_| {}).await);
    for sequence in 1..=3 {
        for ingester in [&follower, &primary] {
            ingester.push(segment(sequence)).await.expect("taken");
        }
    }
    assert!(found(&follower).await.is_empty());
    pair.replace_second().await;
    assert_eq!(found(&follower).await, [1, 2, 3]);
    assert_eq!(held(&follower), 0);
    follower.store.cut(None);
    until("the block is in the bucket", || async { pair.blocks().await == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_follower_lost_with_its_disk_is_flushed() {
    let mut pair = Pair::new(true).await;
    let (primary, _) = (pair.start(0, |_| {}).await, pair.start(1, |_| {}).await);
    primary.push(PushRequest { primary: "ingester-0".to_owned(), ..segment(1) }).await.expect("taken");
    pair.replace_second().await;
    until("the block is in the bucket", || async { pair.blocks().await == 1 }).await;
    // The block is there a moment before it takes the place of what was live.
    until("all copies are there again", async || primary.store.under_replicated() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_flushes_that_are_over() {
    let mut pair = Pair::new(true).await;
    let primary = pair.start(1, |_| {}).await;
    primary.push(segment(1)).await.expect("taken");
    pair.tasks.shutdown().await;
    tokio::time::timeout(Duration::from_secs(30), primary.flusher.flush_everything()).await.expect("comes back");
    assert!(!primary.store.is_flushed(), "and the log keeps it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_primary_still_has_is_not_taken_over() {
    let mut pair = Pair::new(true).await;
    let (follower, primary) = (pair.start(0, |_| {}).await, pair.start(1, |_| {}).await);
    for ingester in [&follower, &primary] {
        ingester.push(segment(1)).await.expect("taken");
    }
    primary.succession.resume().await;
    assert_eq!((held(&follower), found(&follower).await), (1, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_flushes_what_its_primary_never_had_and_nothing_else() {
    let mut pair = Pair::new(true).await;
    let follower = pair.start(0, |s| s.max_block_duration = Duration::ZERO).await;
    let primary = pair.start(1, |_| {}).await;
    // The primary is to know its one before the follower asks.
    primary.push(segment(1)).await.expect("taken");
    follower.push(segment(2)).await.expect("held");
    follower.push(segment(1)).await.expect("held");
    until("the follower's block is in the bucket", || async { pair.blocks().await == 1 }).await;
    assert!(found(&follower).await.contains(&2));
    assert_eq!(found_when(&primary, &["ingester-0", "ingester-1"]).await, [1], "the primary's own is pending there");
}
