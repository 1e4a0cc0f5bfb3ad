use std::io::Write as _;
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use vivace_proto::vivace::v1::RefusedTrace;
use vivace_proto::vivace::v1::refused_trace::Reason;

use crate::client::traces;
use crate::cluster::{Behaviour, Cluster, Instance, eventually, span_ids};

#[tokio::test]
async fn over_the_rate_clients_are_told_when_to_come_back() {
    let cluster = Cluster::start(1, 1, |c| {
        c.distributor.retry_after_on_resource_exhausted = Duration::from_secs(5);
        c.overrides.defaults.ingestion.rate_limit_bytes = 1;
        c.overrides.defaults.ingestion.burst_size_bytes = 300;
    })
    .await;
    let one = traces(&[(1, 1)]);
    cluster.export(&one, &[]).await.expect("within the burst");
    let error = cluster.export(&one, &[]).await.expect_err("over the rate");
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().starts_with("RATE_LIMITED: "), "{error}");
    let hint = b"google.rpc.RetryInfo";
    assert!(error.details().windows(hint.len()).any(|w| w == hint), "{error:?}");

    let answer = cluster.post("application/json", r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01010101010101010101010101010101","spanId":"0101010101010101","name":"a name that is quite long for one so small, but the bucket is small as well; a name that is quite long for one so small, but the bucket is small as well"}]}]}]}"#).await;
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (429, "5"), "{answer:?}");
    let status = answer.json();
    assert_eq!(status["code"], 8);
    assert_eq!(status["details"][0]["@type"], "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(status["details"][0]["retryDelay"], "5s");

    let larger = traces(&(1..=9).map(|n| (n, n)).collect::<Vec<_>>());
    let error = cluster.export(&larger, &[]).await.expect_err("larger than the burst");
    assert!(error.message().contains("can never be accepted") && error.details().is_empty(), "{error:?}");
}

#[tokio::test]
async fn without_a_hint_configured_none_is_given() {
    let cluster = Cluster::start(1, 1, |c| {
        c.overrides.defaults.ingestion.rate_limit_bytes = 1;
        c.overrides.defaults.ingestion.burst_size_bytes = 300;
    })
    .await;
    let body = traces(&[(1, 1)]).encode_to_vec();
    assert_eq!(cluster.post("application/x-protobuf", body.clone()).await.status, 200);
    let answer = cluster.post("application/x-protobuf", body).await;
    assert_eq!((answer.status, answer.headers.get("retry-after")), (429, None));
}

#[tokio::test]
async fn what_an_ingester_refuses_is_a_partial_success() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let refused = |trace: u8, reason: Reason, spans| RefusedTrace { trace_id: vec![trace; 16].into(), reason: reason.into(), spans };
    cluster.instances[0].behave(Behaviour::Refuse(vec![refused(1, Reason::TraceTooLarge, 2), refused(2, Reason::LiveTracesExceeded, 1)]));
    let answer = cluster.export(&traces(&[(1, 1), (1, 2), (2, 3), (3, 4)]), &[]).await.expect("the rest is stored");
    let partial = answer.partial_success.expect("present");
    assert_eq!(partial.rejected_spans, 3);
    assert!(partial.error_message.contains("2 spans rejected: TRACE_TOO_LARGE"), "{}", partial.error_message);
    assert!(partial.error_message.contains("1 spans rejected: LIVE_TRACES_EXCEEDED"), "{}", partial.error_message);
    assert!(partial.error_message.contains(&"01".repeat(16)), "{}", partial.error_message);
}

#[tokio::test]
async fn tenants_that_want_metrics_have_their_spans_copied_to_generators() {
    let cluster = Cluster::start(2, 1, |c| c.overrides.defaults.metrics_generator.processors = vec!["span-metrics".to_owned()]).await;
    let spans: Vec<(u8, u8)> = (1..=20).map(|n| (n, n)).collect();
    cluster.export(&traces(&spans), &[("no-generate-metrics", "1")]).await.expect("stored");
    let copied = || {
        let copies = cluster.instances.iter().flat_map(|i| i.copies());
        let mut ids: Vec<u8> = copies.flat_map(|c| span_ids(&c.traces_data)).collect();
        ids.sort_unstable();
        ids
    };
    eventually("all spans are copied", || copied() == (1..=20).collect::<Vec<u8>>()).await;
    assert!(cluster.instances.iter().all(|i| i.copies().iter().all(|c| c.skip_metrics_generation)));
    assert!(cluster.instances.iter().all(|i| i.copies().len() <= 1), "one request per generator");
}

#[tokio::test]
async fn a_tenant_s_spans_go_to_so_many_generators_as_its_ring_size_says() {
    let cluster = Cluster::start(4, 1, |c| {
        c.overrides.defaults.metrics_generator.processors = vec!["span-metrics".to_owned()];
        c.overrides.defaults.metrics_generator.ring_size = 2;
    })
    .await;
    let spans: Vec<(u8, u8)> = (1..=100).map(|n| (n, n)).collect();
    for _ in 0..2 {
        cluster.export(&traces(&spans), &[]).await.expect("stored");
    }
    let copied = |instance: &Instance| instance.copies().iter().map(|copy| span_ids(&copy.traces_data).len()).sum::<usize>();
    eventually("all spans are copied", || cluster.instances.iter().map(copied).sum::<usize>() == 200).await;
    let used: Vec<usize> = cluster.instances.iter().map(copied).filter(|spans| *spans > 0).collect();
    assert_eq!(used.len(), 2, "{used:?}");
}

/// A distributor whose senders may hold 2.1 MiB of requests together.
async fn small() -> Cluster {
    Cluster::start(1, 1, |c| c.memory.limit = vivace_config::ByteString(16 << 20)).await
}

#[tokio::test]
async fn what_never_fits_into_memory_is_no_use_to_send_again() {
    let cluster = small().await;
    let plain = cluster.post("application/x-protobuf", vec![0; 3 << 20]).await;
    assert_eq!((plain.status, plain.headers.get("retry-after")), (413, None), "{plain:?}");
    let mut chunked = tokio::net::TcpStream::connect(cluster.http).await.expect("listens");
    let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\n";
    chunked.write_all(head.as_bytes()).await.expect("open");
    for _ in 0..48 {
        let chunk = [&b"10000\r\n"[..], &[0; 65_536], b"\r\n"].concat();
        chunked.write_all(&chunk).await.expect("what does not fit is read to its end, so that the client hears of it");
    }
    chunked.write_all(b"0\r\n\r\n").await.expect("open");
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), chunked.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413", "{}", String::from_utf8_lossy(&answer));
    let mut large = traces(&[(1, 1)]);
    large.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(3 << 20);
    // Compressed, it is told by its size while it is decompressed.
    let error = cluster.export(&large, &[]).await.expect_err("no memory");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    let objects = format!("{{\"unknown\":[{}{{}}]}}", "{},".repeat(3 << 20));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(objects.as_bytes()).expect("writes to memory");
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let bomb = cluster.http("POST", &headers, packed.finish().expect("ends")).await;
    assert!(matches!(bomb.status, 413 | 429), "{bomb:?}");
    assert!(bomb.json()["message"].as_str().is_some_and(|text| text.contains("out of memory for requests")), "{bomb:?}");
    assert_eq!(cluster.post("application/x-protobuf", traces(&[(1, 1)]).encode_to_vec()).await.status, 200);
}
