//! A process through its listeners.
#![expect(clippy::unwrap_used, reason = "in a test the panic is the report")]
#![expect(clippy::field_reassign_with_default, reason = "one key of a large configuration is changed")]

mod bounds;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use vivace_proto::tempopb::querier_server::{Querier, QuerierServer};
use vivace_proto::tempopb::{self, querier_client::QuerierClient};
use vivace_server::{Process, Shutdown};

/// A running process; its end is awaited by [`Running::end`].
struct Running {
    http: String,
    grpc: String,
    shutdown: Shutdown,
    run: JoinSet<anyhow::Result<()>>,
}

impl Running {
    async fn start(process: Process) -> Self {
        let http = format!("http://{}", process.http_addr());
        let grpc = format!("http://{}", process.grpc_addr());
        let shutdown = process.shutdown();
        let mut run = JoinSet::new();
        run.spawn(process.run());
        Self { http, grpc, shutdown, run }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        get(&format!("{}{path}", self.http)).await
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.shutdown.begin();
        tokio::time::timeout(Duration::from_secs(20), self.run.join_next()).await.expect("the process ends").unwrap().unwrap()
    }
}

/// The status, and the body or where it leads.
async fn get(url: &str) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(url.parse().unwrap()).await.unwrap();
    let status = response.status().as_u16();
    if let Some(location) = response.headers().get("location") {
        return (status, location.to_str().unwrap().to_owned());
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn ready_follows_its_checks_and_names_the_reason() {
    let mut process = Process::test("ready").await.unwrap();
    let connected = Arc::new(AtomicBool::new(false));
    let seen = connected.clone();
    process.ready_check(
        "query-frontend",
        move || if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("no querier is connected".to_owned()) },
    );
    let running = Running::start(process).await;
    assert_eq!(running.get("/ready").await, (503, "query-frontend not ready: no querier is connected\n".to_owned()));
    connected.store(true, Ordering::Relaxed);
    assert_eq!(running.get("/ready").await, (200, "ready\n".to_owned()));
    running.end().await.unwrap();
}

#[tokio::test]
async fn probes_are_answered_while_the_process_is_built() {
    let mut config = vivace_config::Config::default();
    config.server.http_path_prefix = "/vivace".to_owned();
    let mut process = Process::test_with(&config, "early").await.unwrap();
    let base = format!("http://{}", process.http_addr());
    let probe = async |path: &str| get(&format!("{base}{path}")).await;
    assert_eq!(probe("/vivace/ready").await, (503, "starting\n".to_owned()));
    let (opened, opening) = tokio::sync::oneshot::channel::<()>();
    let probing = async {
        assert_eq!(probe("/vivace/ready").await, (503, "starting: the bucket is not open yet\n".to_owned()));
        assert_eq!(probe("/vivace/status/version").await.0, 200);
        assert!(probe("/vivace/metrics").await.1.contains("tempo_build_info{"));
        opened.send(()).unwrap();
    };
    let (come, ()) = tokio::join!(process.wait_for("the bucket is not open yet", opening), probing);
    come.unwrap();
    assert_eq!(probe("/vivace/ready").await, (503, "starting\n".to_owned()));

    // What comes too early for the API is answered once the process runs.
    process.add_http(axum::Router::new().route("/echo", axum::routing::any(|| async { "echo\n" })));
    let early = format!("{base}/vivace/echo");
    let (answer, running) = tokio::join!(get(&early), async {
        assert_eq!(probe("/vivace/ready").await.0, 503);
        Running::start(process).await
    });
    assert_eq!(answer, (200, "echo\n".to_owned()));
    assert_eq!(running.get("/vivace/ready").await, (200, "ready\n".to_owned()));
    assert_eq!(running.get("/nothing").await.0, 404);
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_drains_in_reverse_order_then_stops_tasks() {
    let mut process = Process::test("drain").await.unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let http = format!("http://{}/ready", process.http_addr());
    for name in ["first", "second"] {
        let (steps, http) = (steps.clone(), http.clone());
        process.on_drain(name, move || {
            Box::pin(async move {
                // Everything still answers, and says that it goes away.
                let status = get(&http).await.0;
                steps.lock().push(format!("{name} drained, ready {status}"));
                Ok(())
            })
        });
    }
    let (stop, steps_of_task) = (process.stop_token(), steps.clone());
    process.spawn("task", async move {
        stop.cancelled().await;
        steps_of_task.lock().push("task stopped".to_owned());
        Ok(())
    });
    Running::start(process).await.end().await.unwrap();
    assert_eq!(*steps.lock(), ["second drained, ready 503", "first drained, ready 503", "task stopped"]);
}

/// A connection that stays open, and what it ends with.
struct Kept<S> {
    sender: S,
    connection: JoinSet<hyper::Result<()>>,
}

impl<S> Kept<S> {
    fn new(sender: S, open: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        let mut connection = JoinSet::new();
        connection.spawn(open);
        Self { sender, connection }
    }

    /// Waits until the other side has ended the connection in order.
    async fn closed(mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.connection.join_next()).await;
        ended.expect("the connection ends").unwrap().unwrap().unwrap();
    }
}

async fn tcp(address: SocketAddr) -> TokioIo<tokio::net::TcpStream> {
    TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap())
}

async fn http1(address: SocketAddr) -> Kept<hyper::client::conn::http1::SendRequest<Empty<Bytes>>> {
    let (sender, open) = hyper::client::conn::http1::handshake(tcp(address).await).await.unwrap();
    Kept::new(sender, open)
}

async fn http2(address: SocketAddr) -> Kept<hyper::client::conn::http2::SendRequest<Empty<Bytes>>> {
    let (sender, open) = hyper::client::conn::http2::handshake(TokioExecutor::new(), tcp(address).await).await.unwrap();
    Kept::new(sender, open)
}

fn request(path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(path).header("host", "test").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn clients_of_a_draining_process_are_told_to_move_and_still_served() {
    let mut process = Process::test("moving").await.unwrap();
    let address = process.http_addr();
    let ((drains, draining), (end, ended)) = (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel::<()>());
    process.on_drain("the test", move || {
        Box::pin(async move {
            drains.send(()).unwrap();
            Ok(ended.await?)
        })
    });
    let running = Running::start(process).await;
    let mut kept1 = http1(address).await;
    let answer = kept1.sender.send_request(request("/ready")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("connection")), (200, None));
    drop(answer);
    let mut kept2 = http2(address).await;
    let uri = format!("http://{address}/ready");
    assert_eq!(kept2.sender.send_request(request(&uri)).await.unwrap().status().as_u16(), 200);

    running.shutdown.begin();
    draining.await.unwrap();
    kept2.closed().await;
    let answer = kept1.sender.send_request(request("/ready")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["connection"].to_str().unwrap()), (503, "close"));
    drop(answer);
    kept1.closed().await;

    // Who does not know better yet is served.
    let mut late = http2(address).await;
    for _ in 0..2 {
        assert_eq!(late.sender.send_request(request(&uri)).await.unwrap().status().as_u16(), 503);
    }
    end.send(()).unwrap();
    running.end().await.unwrap();
    late.closed().await;
}

#[tokio::test]
async fn a_failing_task_ends_the_process_with_its_error() {
    let mut process = Process::test("failing").await.unwrap();
    process.spawn("poller", async { anyhow::bail!("the bucket is gone") });
    let result = tokio::time::timeout(Duration::from_secs(20), process.run()).await.expect("the process ends");
    assert_eq!(format!("{:#}", result.unwrap_err()), "poller failed: the bucket is gone");
}

#[tokio::test]
async fn what_does_not_drain_in_time_is_named() {
    let mut config = vivace_config::Config::default();
    config.server.graceful_shutdown_timeout = Duration::from_millis(50);
    let mut process = Process::test_with(&config, "stuck").await.unwrap();
    process.on_drain("ingester", || Box::pin(std::future::pending()));
    let error = Running::start(process).await.end().await.unwrap_err();
    assert!(error.to_string().starts_with("ingester did not end within server.graceful_shutdown_timeout"), "{error:#}");
}

#[tokio::test]
async fn pages_answer_for_programs_and_people() {
    let mut config = vivace_config::Config::default();
    config.http_api_prefix = "/tempo".to_owned();
    let mut process = Process::test_with(&config, "pages").await.unwrap();
    process.add_api(axum::Router::new().route("/api/echo", axum::routing::any(|| async { "echo\n" })));
    let running = Running::start(process).await;
    assert_eq!(running.get("/tempo/api/echo").await.0, 200);
    assert_eq!(running.get("/tempo//api/../api/echo?a=%2F").await, (301, "/tempo/api/echo?a=%2F".to_owned()));
    let (status, body) = running.get("/tempo/api/status/buildinfo").await;
    let buildinfo: serde_json::Value = serde_json::from_str(&body).unwrap();
    let members: Vec<&String> = buildinfo.as_object().unwrap().keys().collect();
    assert_eq!((status, buildinfo["version"].as_str().unwrap()), (200, "2.10.0"));
    assert_eq!(members, ["version", "revision", "branch", "buildUser", "buildDate", "goVersion"]);
    for page in ["", "/version", "/services", "/endpoints", "/config", "/config?mode=diff", "/config?mode=defaults"] {
        assert_eq!(running.get(&format!("/status{page}")).await.0, 200, "/status{page}");
    }
    for page in ["/status/nothing", "/nothing", "/api/echo", "/ready/"] {
        assert_eq!(running.get(page).await, (404, "404 page not found\n".to_owned()), "{page}");
    }
    assert_eq!(running.get("/status/config?mode=all").await.0, 400);

    let (_, metrics) = running.get("/metrics").await;
    for series in [
        "tempo_build_info{",
        "process_resident_memory_bytes ",
        "go_memstats_heap_inuse_bytes ",
        r#"tempo_request_duration_seconds_bucket{method="GET",route="tempo_api_echo",status_code="200",ws="false",le="1.5"} 1"#,
        r#"route="other",status_code="404""#,
    ] {
        assert!(metrics.contains(series), "{series} is missing in\n{metrics}");
    }
    let kinds: Vec<&str> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &kinds {
        let help = metrics.lines().filter(|line| line.starts_with(&format!("# HELP {name} ")));
        assert_eq!((help.count(), kinds.iter().filter(|other| *other == name).count()), (1, 1), "{name} is explained once in\n{metrics}");
    }
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line:?} has no value");
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_names_the_keys_to_change() {
    let first = Process::test("first").await.unwrap();
    let mut config = vivace_config::Config::default();
    config.server.http_listen_address = "127.0.0.1".to_owned();
    config.server.http_listen_port = first.http_addr().port();
    let error = Process::start(&config, "second", &[]).await.err().expect("the port is taken").to_string();
    assert!(error.starts_with(&format!("cannot listen on {}", first.http_addr())), "{error}");
    assert!(error.contains("server.http_listen_port"), "{error}");
}

struct Echo;

#[tonic::async_trait]
impl Querier for Echo {
    async fn find_trace_by_id(
        &self,
        request: tonic::Request<tempopb::TraceByIdRequest>,
    ) -> Result<tonic::Response<tempopb::TraceByIdResponse>, tonic::Status> {
        let message = format!("{:?}", request.get_ref().trace_id);
        Ok(tonic::Response::new(tempopb::TraceByIdResponse { message, ..Default::default() }))
    }

    async fn search_recent(
        &self,
        _: tonic::Request<tempopb::SearchRequest>,
    ) -> Result<tonic::Response<tempopb::SearchResponse>, tonic::Status> {
        Err(tonic::Status::internal("broken"))
    }

    async fn search_tags_v2(
        &self,
        _: tonic::Request<tempopb::SearchTagsRequest>,
    ) -> Result<tonic::Response<tempopb::SearchTagsV2Response>, tonic::Status> {
        Ok(tonic::Response::new(Default::default()))
    }

    async fn search_tag_values_v2(
        &self,
        _: tonic::Request<tempopb::SearchTagValuesRequest>,
    ) -> Result<tonic::Response<tempopb::SearchTagValuesV2Response>, tonic::Status> {
        Ok(tonic::Response::new(Default::default()))
    }
}

#[tokio::test]
async fn grpc_is_served_on_both_ports_and_measured() {
    let mut process = Process::test("grpc").await.unwrap();
    vivace_server::add_grpc!(process, QuerierServer::new(Echo));
    let running = Running::start(process).await;
    for address in [&running.http, &running.grpc] {
        let mut client = QuerierClient::connect(address.clone()).await.unwrap();
        let request = tempopb::TraceByIdRequest { trace_id: vec![7].into(), ..Default::default() };
        let answer = client.find_trace_by_id(request).await.unwrap().into_inner();
        assert!(answer.message.contains('7') || answer.message.contains("x07"), "{}", answer.message);
        assert!(client.search_recent(tempopb::SearchRequest::default()).await.is_err());
    }
    let (_, metrics) = running.get("/metrics").await;
    for series in [
        r#"method="gRPC",route="/tempopb.Querier/FindTraceByID",status_code="success",ws="false"} 2"#,
        r#"method="gRPC",route="/tempopb.Querier/SearchRecent",status_code="error",ws="false"} 2"#,
    ] {
        assert!(metrics.contains(series), "{series} is missing in\n{metrics}");
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn per_tenant_limits_follow_their_file_and_survive_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overrides.yaml");
    let write = |bytes: u64| std::fs::write(&file, format!("overrides:\n  a:\n    global:\n      max_bytes_per_trace: {bytes}\n")).unwrap();
    write(111);
    let mut config = vivace_config::Config::default();
    config.overrides.per_tenant_override_config = file.display().to_string();
    config.overrides.per_tenant_override_period = Duration::from_millis(10);
    let mut process = Process::test_with(&config, "overrides").await.unwrap();
    let overrides = process.overrides(&config).unwrap();
    let running = Running::start(process).await;
    let tenant = vivace_core::TenantId::new("a").unwrap();
    assert_eq!(overrides.limits(&tenant).global.max_bytes_per_trace, 111);
    assert!(running.get("/status/runtime_config").await.1.contains("max_bytes_per_trace: 111"));

    std::fs::write(&file, "overrides: [").unwrap();
    eventually("the broken file is noticed", async || {
        running.get("/metrics").await.1.contains(r#"tempo_runtime_config_last_reload_successful{config="overrides"} 0"#)
    })
    .await;
    assert_eq!(overrides.limits(&tenant).global.max_bytes_per_trace, 111);

    write(222);
    eventually("the new limit holds", async || overrides.limits(&tenant).global.max_bytes_per_trace == 222).await;
    running.end().await.unwrap();
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(std::time::Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
