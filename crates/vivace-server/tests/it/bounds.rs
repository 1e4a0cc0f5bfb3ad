//! What clients may take of a process: memory, and time on a connection.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use vivace_config::{ByteString, Config};
use vivace_proto::tempopb;
use vivace_proto::tempopb::querier_client::QuerierClient;
use vivace_proto::tempopb::querier_server::QuerierServer;
use vivace_server::Process;

use crate::{Echo, Running, eventually};

/// A process with 48 MiB to give out, of which requests may take 12 and answers 9.6.
async fn small(change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config::default();
    config.memory.limit = ByteString(64 << 20);
    change(&mut config);
    let mut process = Process::test_with(&config, "small").await.unwrap();
    vivace_server::add_grpc!(process, QuerierServer::new(Echo));
    let large = |bytes: usize| axum::routing::any(move || async move { vec![b'x'; bytes] });
    process.add_http(axum::Router::new().route("/small", large(10)).route("/large", large(6 << 20)).route("/huge", large(10 << 20)));
    Running::start(process).await
}

impl Running {
    fn address(url: &str) -> SocketAddr {
        url.trim_start_matches("http://").parse().unwrap()
    }

    async fn held(&self, account: &str) -> f64 {
        let (_, metrics) = self.get("/metrics").await;
        let series = format!("vivace_memory_bytes{{account=\"{account}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn messages_are_paid_before_they_are_held() {
    let running = small(|_| {}).await;
    for address in [&running.grpc, &running.http] {
        let channel = tonic::transport::Endpoint::from_shared(address.clone()).unwrap().connect().await.unwrap();
        for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
            let mut client = QuerierClient::new(channel.clone()).max_encoding_message_size(usize::MAX);
            if let Some(encoding) = encoding {
                client = client.send_compressed(encoding);
            }
            let mut ask = async |bytes: usize| {
                let request = tempopb::SearchTagsRequest { query: "i".repeat(bytes), ..Default::default() };
                client.search_tags_v2(request).await
            };
            ask(300_000).await.unwrap();
            let refused = ask(13 << 20).await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted, "{encoding:?} {refused}");
            assert!(refused.message().starts_with("out of memory for requests: "), "{refused}");
            if encoding.is_none() {
                assert!(refused.details().is_empty(), "it never fits: {refused:?}");
                let too_large = ask(17 << 20).await.unwrap_err();
                assert_eq!(too_large.code(), Code::OutOfRange, "{too_large}");
                assert!(too_large.message().contains("limit is: 16777216 bytes"), "{too_large}");
            }
            assert!(ask(0).await.is_ok(), "{encoding:?}: the connection goes on");
        }
    }
    // A window for each connection that is still open.
    eventually("memory is given back", async || running.held("requests").await <= f64::from(4 << 20)).await;
    running.end().await.unwrap();
}

#[tokio::test]
async fn answers_that_do_not_fit_are_refused_by_name() {
    let running = small(|_| {}).await;
    assert_eq!(running.get("/large").await.0, 200);
    let (status, text) = running.get("/huge").await;
    assert_eq!(status, 429);
    assert!(text.starts_with("out of memory for answers: 10485760 bytes more than the 0 "), "{text}");
    eventually("memory is given back", async || running.held("answers").await < 10_000.0).await;
    assert!(running.get("/metrics").await.1.contains("vivace_memory_limit_bytes 50331648"));
    running.end().await.unwrap();
}

/// Reads until the other side ends the connection; returns how long that took.
async fn until_closed(stream: &mut TcpStream, drip: &[u8]) -> Duration {
    let start = Instant::now();
    let mut buffer = [0; 1000];
    while start.elapsed() < Duration::from_secs(20) {
        match tokio::time::timeout(Duration::from_millis(20), stream.read(&mut buffer)).await {
            Err(_) => drop(stream.write_all(drip).await),
            Ok(Ok(1..)) => {}
            Ok(_) => return start.elapsed(),
        }
    }
    panic!("still open");
}

#[tokio::test]
async fn who_idles_or_drips_is_cut() {
    let running = small(|config| {
        config.server.http_server_read_header_timeout = Duration::from_millis(300);
        config.server.http_server_read_timeout = Duration::from_millis(600);
        config.server.http_server_idle_timeout = Duration::from_millis(900);
    })
    .await;
    let address = Running::address(&running.http);
    let cases: [(&str, &[u8], &[u8], u64); 4] = [
        ("nothing", b"", b"", 300),
        ("a head", b"GET /sm", b"x", 300),
        ("the beginning of HTTP/2", b"PRI * HTTP", b"", 300),
        ("no second request", b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n", b"", 900),
    ];
    for (what, first, drip, millis) in cases {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let took = until_closed(&mut stream, drip).await;
        assert!((millis - 50..millis + 2000).contains(&(took.as_millis() as u64)), "{what}: {took:?}");
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn idle_clients_of_http2_are_told_to_move() {
    let running = small(|config| {
        config.server.http_server_idle_timeout = Duration::from_millis(300);
        config.server.grpc_server_max_connection_age = Duration::from_millis(300);
    })
    .await;
    for url in [&running.http, &running.grpc] {
        let io = TokioIo::new(TcpStream::connect(Running::address(url)).await.unwrap());
        let (_sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), io).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), connection).await.expect("the connection ends").expect("in order");
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn answers_that_nobody_reads_are_given_up() {
    let running = small(|config| config.server.http_server_write_timeout = Duration::from_millis(500)).await;
    let address = Running::address(&running.http);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually("the answer is held", async || running.held("answers").await > 1e6).await;
    eventually("it is given up", async || running.held("answers").await < 1e5).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 6 << 20, "{}", rest.len());

    let (mut connections, io) = (JoinSet::new(), TokioIo::new(TcpStream::connect(address).await.unwrap()));
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1000)
        .handshake::<_, Empty<bytes::Bytes>>(io)
        .await
        .unwrap();
    connections.spawn(connection);
    let uri = |path: &str| http::Request::get(format!("{}{path}", running.http)).body(Empty::new()).unwrap();
    let unread = sender.send_request(uri("/large")).await.unwrap();
    eventually("the answer is held", async || running.held("answers").await > 1e6).await;
    eventually("it is given up", async || running.held("answers").await < 1e5).await;
    let other = sender.send_request(uri("/small")).await.expect("the connection goes on");
    assert_eq!(other.into_body().collect().await.expect("whole").to_bytes().len(), 10);
    unread.into_body().collect().await.expect_err("cut");
    running.end().await.unwrap();
}
