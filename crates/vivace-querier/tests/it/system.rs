//! Query-frontend, querier and ingester in one process: spans are sent, flushed and listed when the test says so, and asked for at
//! every moment in between.

use std::time::{Duration, Instant};

use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tonic::Request;
use vivace_config::{Config, Limits};
use vivace_core::TenantId;
use vivace_proto::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;
use vivace_proto::vivace::v1::{PushRequest, SegmentId};
use vivace_ring::{Membership, Role};
use vivace_server::{Overrides, Process, Shutdown, clock};
use vivace_storage::{Bucket, PollOptions, Poller};

use crate::PATIENCE;

pub(crate) struct System {
    http: std::net::SocketAddr,
    log: SegmentLogClient<tonic::transport::Channel>,
    pub(crate) bucket: Bucket,
    pub(crate) poller: Poller,
    shutdown: Shutdown,
    tasks: JoinSet<anyhow::Result<()>>,
    segments: u64,
    _folder: tempfile::TempDir,
}

impl System {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.storage.trace.wal.path = folder.path().join("wal").display().to_string();
        config.ingester.lifecycler.id = "ingester-0".to_owned();
        config.ingester.flush_check_period = Duration::from_millis(20);
        let bucket = Bucket::memory();
        let poller = Poller::reader(bucket.clone(), PollOptions::from(&config.storage.trace), clock::unix_nanos);
        poller.poll_once().await.expect("polled");
        let mut process = Box::pin(Process::test_with(&config, "vivace")).await.expect("starts");
        let membership = Membership::local(clock::unix_nanos);
        let overrides = Overrides::fixed(Limits::default());
        vivace_ingester::start(&config, &membership, bucket.clone(), overrides.clone(), &mut process).await.expect("starts");
        vivace_query_frontend::start(&config, poller.blocklist(), overrides, &mut process).await.expect("it starts");
        let ring = membership.ring(Role::Ingester);
        vivace_querier::start(&config, "querier", ring, bucket.clone(), poller.clone(), &mut process);
        let (http, grpc, shutdown) = (process.http_addr(), process.grpc_addr(), process.shutdown());
        let mut tasks = JoinSet::new();
        tasks.spawn(process.run());
        let channel = tonic::transport::Channel::from_shared(format!("http://{grpc}")).expect("an address").connect_lazy();
        let system = Self { http, log: SegmentLogClient::new(channel), bucket, poller, shutdown, tasks, segments: 0, _folder: folder };
        let deadline = Instant::now() + PATIENCE;
        while system.get("/ready").await.0 != 200 {
            assert!(Instant::now() < deadline, "{:?}", system.get("/ready").await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        system
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a head").1.to_owned())
    }

    async fn query(&self, path: &str, query: &str, more: &str) -> Value {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (status, text) = self.get(&format!("{path}?q={query}{more}")).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text[text.find('{').expect("JSON")..=text.rfind('}').expect("JSON")]).expect("JSON")
    }

    /// What all series of a query add up to.
    pub(crate) async fn count(&self, query: &str) -> u64 {
        let now = clock::unix_seconds();
        let answer = self.query("/api/metrics/query", query, &format!("&start={}&end={}", now - 3000, now + 60)).await;
        let series = answer["series"].as_array().cloned().unwrap_or_default();
        series.iter().map(|series| series["value"].as_f64().expect("a number") as u64).sum()
    }

    pub(crate) async fn search(&self, query: &str, more: &str) -> Vec<Value> {
        self.query("/api/search", query, more).await["traces"].as_array().cloned().unwrap_or_default()
    }

    async fn push(&mut self, spans: Vec<Span>) {
        self.segments += 1;
        let count = u32::try_from(spans.len()).expect("few");
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let payload = TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec();
        let request = PushRequest {
            id: Some(SegmentId { incarnation: vec![1; 16].into(), sequence: self.segments }),
            tenant: TenantId::single().to_string(),
            primary: "ingester-0".to_owned(),
            uncompressed_bytes: u32::try_from(payload.len()).expect("small"),
            payload: payload.into(),
            spans: count,
            ..PushRequest::default()
        };
        self.log.push(Request::new(request)).await.expect("taken");
    }

    /// Everything that is live becomes a block that nobody has listed yet.
    async fn flush(&self) {
        let blocks = self.blocks().await;
        self.get("/flush").await;
        let deadline = Instant::now() + PATIENCE;
        while self.blocks().await == blocks {
            assert!(Instant::now() < deadline, "no block");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The block is there a moment before it takes the place of what was live.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    async fn blocks(&self) -> usize {
        self.bucket.blocks(&TenantId::single()).await.expect("listed").len()
    }

    async fn list(&self) {
        self.poller.poll_once().await.expect("polled");
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.begin();
        let ended = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.expect("it ends").expect("a task");
        ended.expect("no panic").expect("an orderly end");
    }
}

/// A span of a trace; the first is the root, whose child the others are.
fn span(trace: u8, number: u8, start: u64, millis: u64) -> Span {
    Span {
        trace_id: vec![trace; 16].into(),
        span_id: vec![number; 8].into(),
        parent_span_id: if number == 1 { Vec::new() } else { vec![1; 8] }.into(),
        name: format!("span {number}"),
        kind: 1,
        start_time_unix_nano: start,
        end_time_unix_nano: start + millis * 1_000_000,
        ..Span::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_count_once_at_every_moment() {
    let mut system = System::start().await;
    let start = clock::unix_nanos() - 600_000_000_000;
    let minutes = |minutes: u64| start - minutes * 60_000_000_000;
    let all = "{ } | count_over_time()";
    let rooted = r#"{ rootName = "span 1" } | count_over_time()"#;
    let by_name = r#"{ name = "span 2" } | count_over_time()"#;
    system.push(vec![span(1, 1, start, 100), span(2, 1, start, 100)]).await;
    assert_eq!(system.count(all).await, 2);
    system.flush().await;
    assert_eq!(system.count(all).await, 2, "served");
    // Of other minutes than the block: whoever compares only what overlaps does not see it.
    system.push(vec![span(1, 2, minutes(3), 100), span(3, 2, minutes(3), 100)]).await;
    assert_eq!(system.count(all).await, 4, "live and served");
    system.list().await;
    for (query, count) in [(all, 4), (rooted, 3), (by_name, 2)] {
        assert_eq!(system.count(query).await, count, "live and listed: {query}");
    }
    // A copy, and another late span.
    system.push(vec![span(1, 1, start, 100), span(2, 3, minutes(9), 50)]).await;
    assert_eq!((system.count(all).await, system.count(rooted).await), (5, 4), "copies of what is listed");
    system.flush().await;
    assert_eq!((system.count(all).await, system.count(rooted).await), (5, 4), "listed and served");
    system.push(vec![span(1, 4, start, 10), span(1, 2, minutes(3), 100)]).await;
    assert_eq!((system.count(all).await, system.count(rooted).await), (6, 5), "listed, served and live");
    system.list().await;
    assert_eq!((system.count(all).await, system.count(rooted).await), (6, 5), "listed, listed and live");
    system.flush().await;
    system.list().await;
    for (query, count) in [(all, 6), (rooted, 5), (by_name, 2), ("{ } | compare({ name = \"span 1\" })", 0)] {
        let counted = system.count(query).await;
        assert!(counted == count || count == 0, "three blocks: {query}: {counted}");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_searches_speak_of_the_whole_trace() {
    let mut system = System::start().await;
    let start = clock::unix_nanos() - 600_000_000_000;
    let asked = |traces: Vec<Value>| -> Vec<(String, String, u64, u64)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut found: Vec<_> = traces
            .iter()
            .map(|trace| {
                let spans =
                    trace["serviceStats"].as_object().into_iter().flatten().map(|(_, stat)| stat["spanCount"].as_u64().unwrap_or(0));
                (
                    text(&trace["traceID"])[..2].to_owned(),
                    text(&trace["rootTraceName"]),
                    trace["durationMs"].as_u64().unwrap_or(0),
                    spans.sum(),
                )
            })
            .collect();
        found.sort();
        found
    };
    let whole = |trace: &str| (trace.to_owned(), "span 1".to_owned(), 400, 2);
    // The root is in the one place, what is looked for in the other.
    system.push(vec![span(0x11, 1, start, 400), span(0x22, 2, start + 100_000_000, 50)]).await;
    system.flush().await;
    system.push(vec![span(0x11, 2, start + 100_000_000, 50), span(0x22, 1, start, 400), span(0x33, 1, start, 400)]).await;
    let id = format!(r#"{{ trace:id = "{}" }}"#, "22".repeat(16));
    for moment in ["served", "listed", "all listed"] {
        let found = asked(system.search(r#"{ name = "span 2" }"#, "").await);
        assert_eq!(found, [whole("11"), whole("22")], "{moment}");
        assert_eq!(asked(system.search(r#"{ name = "span 2" }"#, "&limit=1").await).len(), 1, "{moment}");
        assert_eq!(asked(system.search(&id, "").await), [whole("22")], "{moment}");
        let spans = system.search(&id, "").await[0]["spanSets"][0]["matched"].as_u64();
        assert_eq!(spans, Some(2), "{moment}");
        if moment == "listed" {
            system.flush().await;
        }
        system.list().await;
    }
    system.stop().await;
}

/// CPU seconds of this process, from the kernel's ticks of a hundredth.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    (fields[11].parse::<f64>().expect("ticks") + fields[12].parse::<f64>().expect("ticks")) / 100.0
}

/// `cargo test -p vivace-querier --test it -- --ignored --nocapture split_traces_cost`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn split_traces_cost_little_more_than_whole_ones() {
    let start = clock::unix_nanos() - 600_000_000_000;
    let traces: Vec<TracesData> = (1..=7500)
        .map(|number| {
            let trace = vivace_testkit::TraceBuilder::new(number, "shop", start + number * 1000);
            let trace = (0..5).fold(trace, |trace, n| trace.span(&format!("span {n}"), &[vivace_testkit::attribute("n", &n.to_string())]));
            if number % 3 == 0 { trace.failed("no") } else { trace }.build()
        })
        .collect();
    let mut first: Option<[f64; 2]> = None;
    for blocks in [1, 2, 10] {
        let system = System::start().await;
        for block in 1..=blocks {
            crate::store(&system.bucket, block, &traces).await;
        }
        system.list().await;
        let before = cpu_seconds();
        assert_eq!(system.count("{ } | count_over_time()").await, 37_500);
        let counted = cpu_seconds() - before;
        let before = cpu_seconds();
        assert_eq!(system.search("{ status = error } | count() > 2", "&limit=20").await.len(), 0);
        let searched = cpu_seconds() - before;
        let [count, search] = *first.get_or_insert([counted, searched]);
        println!("{blocks} blocks: count {counted:.2} s ({:.1}), search {searched:.2} s ({:.1})", counted / count, searched / search);
        system.stop().await;
    }
}
