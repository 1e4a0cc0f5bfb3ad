use std::io::Write as _;

use prost::Message as _;
use serde_json::json;
use vivace_config::{Config, ZipkinHttp, ZipkinReceiver};
use vivace_proto::vivace::v1::RefusedTrace;
use vivace_proto::vivace::v1::refused_trace::Reason;
use vivace_proto::zipkin::proto3::{ListOfSpans, Span};

use crate::client::Answer;
use crate::cluster::{Behaviour, Cluster, payload};
use crate::zipkin_v1;

fn zipkin(config: &mut Config) {
    let http = ZipkinHttp { endpoint: "127.0.0.1:0".to_owned(), ..Default::default() };
    config.distributor.receivers.zipkin = vec![ZipkinReceiver { id: "zipkin".to_owned(), http }];
}

async fn post(cluster: &Cluster, path: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    cluster.request("POST", &format!("http://{}{path}", cluster.listening.zipkin[0]), headers, body).await
}

fn span(id: &str) -> String {
    json!([{"traceId": "1", "id": id, "name": "get", "timestamp": 1_700_000_000_000_000u64, "tags": {"n": "7"}}]).to_string()
}

#[tokio::test]
async fn spans_come_in_by_every_format() {
    let cluster = Cluster::start(1, 1, zipkin).await;
    let json = ("content-type", "application/json");
    let answer = post(&cluster, "/api/v2/spans", &[json], span("0101010101010101")).await;
    assert_eq!((answer.status, answer.body.len()), (202, 0), "{answer:?}");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(span("0202020202020202").as_bytes()).expect("written to memory");
    let packed = gzip.finish().expect("written to memory");
    assert_eq!(post(&cluster, "/", &[("content-encoding", "gzip")], packed).await.status, 202, "any path, no type");
    let list = ListOfSpans { spans: vec![Span { trace_id: vec![1; 16].into(), id: vec![3; 8].into(), ..Default::default() }] };
    let protobuf = ("content-type", "application/x-protobuf");
    assert_eq!(post(&cluster, "/api/v2/spans", &[protobuf], list.encode_to_vec()).await.status, 202);
    assert_eq!(post(&cluster, "/api/v1/spans", &[json], span("0404040404040404")).await.status, 202);
    assert_eq!(post(&cluster, "/api/v1/spans", &[("content-type", "application/x-thrift")], zipkin_v1::call()).await.status, 202);
    assert_eq!(cluster.held().primaries(), [0, 1, 2, 3, 4], "the one in thrift has a small id");
    assert_eq!(post(&cluster, "/api/v2/spans", &[json], "[]").await.status, 202, "no spans");
}

#[tokio::test]
async fn a_broken_request_is_told_what_is_wrong_with_it() {
    let cluster = Cluster::start(1, 1, |config| {
        zipkin(config);
        config.multitenancy_enabled = true;
        config.distributor.receivers.zipkin[0].http.max_request_body_size = 1000;
    })
    .await;
    let tenant = ("x-scope-orgid", "team-a");
    let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
    let broken = post(&cluster, "/api/v2/spans", &[tenant], "{\"a\":").await;
    assert!(broken.status == 400 && text(&broken).contains("no list of Zipkin's spans"), "{broken:?}");
    let thrift = post(&cluster, "/api/v1/spans", &[tenant, ("content-type", "application/x-thrift")], "GET / HTTP/1.1").await;
    assert!(thrift.status == 400 && text(&thrift).contains("no valid thrift"), "{thrift:?}");
    assert_eq!(post(&cluster, "/api/v2/spans", &[tenant], vec![b' '; 1001]).await.status, 413);
    assert_eq!(post(&cluster, "/api/v2/spans", &[("x-scope-orgid", "a/b")], span("1")).await.status, 400);
    assert_eq!(post(&cluster, "/api/v2/spans", &[], span("1")).await.status, 401);
    assert!(cluster.instances[0].segments().is_empty());
    assert_eq!(post(&cluster, "/api/v2/spans", &[tenant], span("1")).await.status, 202);
    assert_eq!(cluster.instances[0].segments()[0].tenant, "team-a");
}

#[tokio::test]
async fn spans_of_which_none_is_stored_are_refused() {
    let cluster = Cluster::start(1, 1, zipkin).await;
    let refused = RefusedTrace { trace_id: 1u128.to_be_bytes().to_vec().into(), reason: Reason::LiveTracesExceeded.into(), spans: 1 };
    cluster.instances[0].behave(Behaviour::Refuse(vec![refused]));
    let answer = post(&cluster, "/api/v2/spans", &[], span("1")).await;
    let text = String::from_utf8_lossy(&answer.body);
    assert!(answer.status == 400 && text.contains("1 spans rejected: LIVE_TRACES_EXCEEDED"), "{answer:?}");
    let two = json!([{"traceId": "1", "id": "1"}, {"traceId": "1", "id": "2"}]).to_string();
    assert_eq!(post(&cluster, "/api/v2/spans", &[], two).await.status, 202, "there is no place for what was refused of it");
}

#[tokio::test]
async fn texts_that_are_numbers_become_numbers_where_that_is_asked_for() {
    let cluster = Cluster::start(1, 1, |config| {
        zipkin(config);
        config.distributor.receivers.zipkin[0].http.parse_string_tags = true;
    })
    .await;
    assert_eq!(post(&cluster, "/api/v2/spans", &[], span("1")).await.status, 202);
    // Key "n", then a value of 2 bytes, field 3: the integer 7.
    let number = [0x0a, 1, b'n', 0x12, 2, 3 << 3, 7];
    assert!(payload(&cluster.instances[0].segments()[0]).windows(number.len()).any(|w| w == number));
}

#[tokio::test]
async fn bodies_are_taken_as_allowed_and_answers_have_the_headers_that_are_asked_for() {
    let cluster = Cluster::start(1, 1, |config| {
        zipkin(config);
        let http = &mut config.distributor.receivers.zipkin[0].http;
        http.compression_algorithms = vec!["zstd".to_owned()];
        http.response_headers = [("Strict-Transport-Security".to_owned(), "max-age=5".into())].into();
    })
    .await;
    let header = |answer: &Answer| answer.headers.get("strict-transport-security").map(|value| value.as_bytes().to_vec());
    let plain = post(&cluster, "/", &[], span("0101010101010101")).await;
    assert_eq!((plain.status, header(&plain).as_deref()), (202, Some(&b"max-age=5"[..])));
    let gzip = post(&cluster, "/", &[("content-encoding", "GZIP")], span("2")).await;
    assert_eq!((gzip.status, header(&gzip).as_deref()), (400, Some(&b"max-age=5"[..])));
    let text = String::from_utf8_lossy(&gzip.body);
    assert_eq!(text, "bodies in \"gzip\" are not taken here, only in [\"zstd\"]\n");
    let damaged = post(&cluster, "/", &[("content-encoding", "zstd")], span("3")).await;
    assert!(damaged.status == 400 && !String::from_utf8_lossy(&damaged.body).contains("not taken here"), "{damaged:?}");
    assert_eq!(cluster.held().primaries(), [1]);
}
