use std::io::Write as _;
use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};
use vivace_config::{Config, GrpcReceiver, HttpReceiver, JaegerProtocols, JaegerReceiver, UdpReceiver};
use vivace_proto::jaeger::api_v2::PostSpansRequest;
use vivace_proto::jaeger::api_v2::collector_service_client::CollectorServiceClient;
use vivace_proto::vivace::v1::RefusedTrace;
use vivace_proto::vivace::v1::refused_trace::Reason;

use crate::client::Answer;
use crate::cluster::{Behaviour, Cluster, eventually, payload};
use crate::jaeger_batch::shop;

const THRIFT: (&str, &str) = ("content-type", "application/x-thrift");

/// Every protocol of Jaeger's on a free port.
fn jaeger(config: &mut Config) {
    let endpoint = || "127.0.0.1:0".to_owned();
    let protocols = JaegerProtocols {
        grpc: Some(GrpcReceiver { endpoint: endpoint(), ..Default::default() }),
        thrift_http: Some(HttpReceiver { endpoint: endpoint(), ..Default::default() }),
        thrift_compact: Some(UdpReceiver { endpoint: endpoint(), ..Default::default() }),
        thrift_binary: Some(UdpReceiver { endpoint: endpoint(), ..Default::default() }),
    };
    config.distributor.receivers.jaeger = vec![JaegerReceiver { id: "jaeger".to_owned(), protocols }];
}

async fn cluster() -> Cluster {
    Cluster::start(1, 1, jaeger).await
}

async fn post(cluster: &Cluster, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    cluster.request("POST", &format!("http://{}/api/traces", cluster.listening.jaeger_http[0]), headers, body).await
}

async fn send(to: SocketAddr, packet: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.send_to(packet, to).await.expect("sent");
}

async fn post_spans(cluster: &Cluster, request: PostSpansRequest, tenant: Option<&str>) -> Result<(), tonic::Status> {
    let url = format!("http://{}", cluster.listening.jaeger_grpc[0]);
    let mut client = CollectorServiceClient::connect(url).await.expect("listens").send_compressed(CompressionEncoding::Gzip);
    let mut request = Request::new(request);
    if let Some(tenant) = tenant {
        request.metadata_mut().insert("x-scope-orgid", tenant.parse().expect("a value"));
    }
    client.post_spans(request).await.map(drop)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("written to memory");
    encoder.finish().expect("written to memory")
}

#[tokio::test]
async fn spans_come_in_by_every_protocol() {
    let cluster = cluster().await;
    send(cluster.listening.jaeger_compact[0], &shop(&[1, 2]).compact_packet()).await;
    send(cluster.listening.jaeger_binary[0], &shop(&[3]).binary_packet()).await;
    eventually("packets are stored", || cluster.held().primaries() == [1, 2, 3]).await;
    let answer = post(&cluster, &[THRIFT], shop(&[4]).http_body()).await;
    assert_eq!((answer.status, answer.body.len()), (202, 0), "{answer:?}");
    let binary = [("content-type", "application/vnd.apache.thrift.binary; charset=utf-8"), ("content-encoding", "gzip")];
    assert_eq!(post(&cluster, &binary, gzip(&shop(&[5]).http_body())).await.status, 202);
    post_spans(&cluster, shop(&[6]).request(), None).await.expect("stored");
    assert_eq!(cluster.held().primaries(), [1, 2, 3, 4, 5, 6]);
    let segments = cluster.instances[0].segments();
    assert!(segments.iter().all(|segment| payload(segment).windows(12).any(|w| w == b"service.name")));
}

#[tokio::test]
async fn a_broken_request_is_told_what_is_wrong_with_it() {
    let cluster = cluster().await;
    let body = shop(&[1]).http_body();
    let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
    let cut = post(&cluster, &[THRIFT], body[..body.len() - 5].to_vec()).await;
    assert!(cut.status == 400 && text(&cut).starts_with("the body is no valid thrift at byte "), "{cut:?}");
    let other = post(&cluster, &[("content-type", "application/json")], body.clone()).await;
    assert!(other.status == 400 && text(&other).contains("unsupported Content-Type \"application/json\""), "{other:?}");
    let large = post(&cluster, &[THRIFT], vec![0; (20 << 20) + 1]).await;
    assert_eq!(large.status, 413, "{large:?}");
    let bomb = post(&cluster, &[THRIFT, ("content-encoding", "gzip")], gzip(&vec![0; 100 << 20])).await;
    assert!(bomb.status == 413 && text(&bomb).contains("larger than 20971520 bytes"), "{bomb:?}");
    let url = format!("http://{}/api/traces", cluster.listening.jaeger_http[0]);
    assert_eq!(cluster.request("GET", &url, &[], "").await.status, 405);
    let mut request = shop(&[1]).request();
    request.batch.as_mut().expect("there").spans[0].trace_id = vec![1; 5].into();
    let error = post_spans(&cluster, request, None).await.expect_err("no trace id");
    assert!(error.code() == Code::InvalidArgument && error.message().contains("the first such id has 40 bits"), "{error}");
    assert!(cluster.instances[0].segments().is_empty());
}

#[tokio::test]
async fn refusals_say_whether_to_come_back() {
    let cluster = Cluster::start(1, 1, |config| {
        jaeger(config);
        config.overrides.defaults.ingestion.rate_limit_bytes = 1;
        config.overrides.defaults.ingestion.burst_size_bytes = 200;
        config.distributor.retry_after_on_resource_exhausted = std::time::Duration::from_secs(5);
    })
    .await;
    assert_eq!(post(&cluster, &[THRIFT], shop(&[1]).http_body()).await.status, 202);
    let over = post(&cluster, &[THRIFT], shop(&[2]).http_body()).await;
    assert_eq!((over.status, over.headers["retry-after"].to_str().expect("text")), (429, "5"), "{over:?}");
    let error = post_spans(&cluster, shop(&[3]).request(), None).await.expect_err("over the rate");
    assert!(error.code() == Code::ResourceExhausted && error.message().starts_with("RATE_LIMITED: "), "{error}");
    assert!(!error.details().is_empty());
}

#[tokio::test]
async fn spans_of_which_none_is_stored_are_refused() {
    let cluster = cluster().await;
    let refused = |spans| RefusedTrace {
        trace_id: 0xabcd_0000_0000_0000_0001u128.to_be_bytes().to_vec().into(),
        reason: Reason::TraceTooLarge.into(),
        spans,
    };
    cluster.instances[0].behave(Behaviour::Refuse(vec![refused(2)]));
    let answer = post(&cluster, &[THRIFT], shop(&[1, 2]).http_body()).await;
    let text = String::from_utf8_lossy(&answer.body);
    assert!(answer.status == 400 && text.contains("2 spans rejected: TRACE_TOO_LARGE"), "{answer:?}");
    assert_eq!(answer.headers.get("retry-after"), None, "it is no use to send it again");
    let error = post_spans(&cluster, shop(&[3, 4]).request(), None).await.expect_err("none is stored");
    assert!(error.code() == Code::InvalidArgument && error.message().contains("TRACE_TOO_LARGE"), "{error}");
    send(cluster.listening.jaeger_compact[0], &shop(&[5, 6]).compact_packet()).await;
    let pages = format!("http://{}/metrics", cluster.pages);
    let series = "reason=\"refused\"";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let page = cluster.request("GET", &pages, &[], "").await;
        let text = String::from_utf8_lossy(&page.body).into_owned();
        if text.lines().any(|line| line.starts_with("vivace_receiver_packets_dropped_total") && line.contains(series)) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    cluster.instances[0].behave(Behaviour::Refuse(vec![refused(1)]));
    assert_eq!(post(&cluster, &[THRIFT], shop(&[7, 8]).http_body()).await.status, 202, "there is no place for what was refused of it");
    post_spans(&cluster, shop(&[9, 10]).request(), None).await.expect("one is stored");
    let mut zeros = shop(&[1]).request();
    zeros.batch.as_mut().expect("there").spans[0].trace_id = vec![0; 16].into();
    let error = post_spans(&cluster, zeros, None).await.expect_err("no trace id");
    assert!(error.message().contains("the first such id is all zeros"), "{error}");
}

#[tokio::test]
async fn a_few_bytes_do_not_become_a_thousand_times_as_many() {
    let cluster = cluster().await;
    let spans = 1_000_000u32;
    let body = [&[0x0c, 0, 1, 0, 0x0f, 0, 2, 0x0c][..], &spans.to_be_bytes(), &vec![0; spans as usize], &[0]].concat();
    let answer = post(&cluster, &[THRIFT, ("content-encoding", "gzip")], gzip(&body)).await;
    assert_eq!((answer.status, answer.headers.get("retry-after")), (413, None), "{answer:?}");
    let packet = [&b"\x80\x01\0\x04\0\0\0\x09emitBatch\0\0\0\0\x0c\0\x01"[..], &body[..8], &[0, 0, 0xea, 0x60], &[0; 60_002]].concat();
    send(cluster.listening.jaeger_binary[0], &packet).await;
    send(cluster.listening.jaeger_binary[0], &shop(&[1]).binary_packet()).await;
    eventually("the packet after it is stored", || cluster.held().primaries() == [1]).await;
}

#[tokio::test]
async fn tenants_are_named_by_headers_which_packets_do_not_have() {
    let cluster = Cluster::start(1, 1, |config| {
        jaeger(config);
        config.multitenancy_enabled = true;
    })
    .await;
    send(cluster.listening.jaeger_compact[0], &shop(&[1]).compact_packet()).await;
    assert_eq!(post(&cluster, &[THRIFT], shop(&[2]).http_body()).await.status, 401);
    assert_eq!(post(&cluster, &[THRIFT, ("x-scope-orgid", "team-a")], shop(&[3]).http_body()).await.status, 202);
    assert_eq!(post_spans(&cluster, shop(&[4]).request(), None).await.expect_err("no tenant").code(), Code::Unauthenticated);
    post_spans(&cluster, shop(&[5]).request(), Some("team-a")).await.expect("stored");
    assert_eq!(cluster.held().primaries(), [3, 5]);
}

#[tokio::test]
async fn packets_that_are_no_good_do_not_hold_up_others() {
    let mut cluster = cluster().await;
    let to = cluster.listening.jaeger_compact[0];
    let packet = shop(&[1]).compact_packet();
    send(to, &packet[..packet.len() - 3]).await;
    send(to, b"").await;
    send(to, &[0xff; 65_001]).await;
    send(to, &shop(&[2]).binary_packet()).await;
    send(to, &packet).await;
    eventually("the good one is stored", || cluster.held().primaries() == [1]).await;
    // What was taken before the end is stored.
    for id in 10..40 {
        send(to, &shop(&[id]).compact_packet()).await;
    }
    eventually("packets arrive", || cluster.held().primaries().len() > 1).await;
    cluster.stop().await;
    let held = cluster.held().primaries();
    assert!(held.windows(2).all(|pair| pair[0] < pair[1]), "each once: {held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_packets_is_stored_but_for_what_the_kernel_drops() {
    let mut cluster = cluster().await;
    let to = cluster.listening.jaeger_compact[0];
    let (packet, packets) = (shop(&[7]).compact_packet(), 8_000usize);
    let sent = tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        // As fast as twenty thousand in a second: a hundred every 5 ms.
        let start = std::time::Instant::now();
        for number in 0..packets {
            socket.send_to(&packet, to).expect("sent");
            let due = std::time::Duration::from_micros(50 * number as u64);
            if number % 100 == 0 {
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
    });
    sent.await.expect("no panic");
    let inode_drops = || {
        let table = std::fs::read_to_string("/proc/self/net/udp").expect("Linux");
        let port = format!(":{:04X}", to.port());
        let line = table.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port)));
        line.and_then(|line| line.split_whitespace().last()?.parse::<usize>().ok()).expect("the socket")
    };
    eventually("every packet is stored or was dropped by the kernel", || cluster.held().primaries().len() + inode_drops() == packets).await;
    let stored = cluster.held().primaries().len();
    assert!(stored > 0, "the kernel drops what a busy machine does not fetch in time, but not all");
    cluster.stop().await;
}
