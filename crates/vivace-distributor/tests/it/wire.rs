use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use vivace_config::CollectorTls;
use vivace_proto::otlp::{AnyValue, KeyValue, KeyValueList, TracesData, any_value};

use crate::client::{Answer, ExportResponse, traces};
use crate::cluster::{Cluster, payload};

const PROTOBUF: &str = "application/x-protobuf";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn success_is_an_empty_partial_success() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let answer = cluster.post(PROTOBUF, traces(&[(1, 1)]).encode_to_vec()).await;
    assert_eq!(
        (answer.status, answer.body.as_ref(), answer.headers["content-type"].as_bytes()),
        (200, &[0x0a, 0][..], PROTOBUF.as_bytes())
    );

    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": "0AF7651916CD43DD8448EB211C80319C", "spanId": "0000000000000007", "name": "json", "kind": "SPAN_KIND_CLIENT"}
    ]}]}]});
    let answer = cluster.post("application/json; charset=utf-8", body.to_string()).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"partialSuccess": {}})));
    let segments = cluster.instances[0].segments();
    assert_eq!(segments.len(), 2);
    assert!(payload(&segments[1]).windows(4).any(|w| w == b"json"));

    let answer = cluster.post("application/json", "{}").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"partialSuccess": {}})), "no spans");
    assert_eq!(cluster.instances[0].segments().len(), 2);
}

#[tokio::test]
async fn only_spans_with_bad_ids_are_rejected() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let mut mixed = traces(&[(1, 1), (1, 2), (1, 3), (1, 4), (2, 5)]);
    let spans = &mut mixed.resource_spans[0].scope_spans[0].spans;
    spans[0].trace_id = vec![1; 8].into();
    spans[1].span_id = vec![0; 8].into();
    spans[3].trace_id = vec![0; 16].into();
    let answer = cluster.export(&mixed, &[]).await.expect("the good spans are stored");
    let partial = answer.partial_success.expect("present");
    assert_eq!(partial.rejected_spans, 3);
    assert!(partial.error_message.contains("2 spans rejected: trace ids must be 128 bit"), "{}", partial.error_message);
    assert!(partial.error_message.contains("64 bits"), "{}", partial.error_message);
    assert!(partial.error_message.contains("1 spans rejected: span ids must be 64 bit"), "{}", partial.error_message);
    assert_eq!(cluster.held().primaries(), [3, 5]);

    for span in &mut mixed.resource_spans[0].scope_spans[0].spans {
        span.trace_id = vec![0; 16].into();
    }
    let error = cluster.export(&mixed, &[]).await.expect_err("nothing is left");
    assert_eq!(error.code(), Code::InvalidArgument);
    let answer = cluster.post(PROTOBUF, mixed.encode_to_vec()).await;
    assert_eq!((answer.status, rpc_code(&answer)), (400, 3));
}

#[tokio::test]
async fn spans_that_nobody_could_read_later_are_refused() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let value = |value| Some(AnyValue { value: Some(value) });
    let deep = |levels: usize| {
        let map =
            |inner| any_value::Value::KvlistValue(KeyValueList { values: vec![KeyValue { key: "k".to_owned(), value: value(inner) }] });
        let value = value((1..levels).fold(any_value::Value::IntValue(1), |inner, _| map(inner)));
        vec![KeyValue { key: "deep".to_owned(), value }]
    };
    let mut mixed = traces(&[(1, 1), (1, 2), (2, 3)]);
    let spans = &mut mixed.resource_spans[0].scope_spans[0].spans;
    spans[0].attributes = deep(24);
    spans[1].attributes = deep(25);
    let answer = cluster.export(&mixed, &[]).await.expect("the others are stored");
    let partial = answer.partial_success.expect("present");
    assert_eq!(partial.rejected_spans, 1);
    assert_eq!(partial.error_message, "1 spans rejected: values of attributes may be 24 deep, with those that lists and maps have");
    assert_eq!(cluster.held().primaries(), [1, 3]);

    mixed.resource_spans[0].resource.get_or_insert_default().attributes = deep(25);
    let error = cluster.export(&mixed, &[]).await.expect_err("no span of this resource is taken");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("3 spans rejected: values of attributes"), "{}", error.message());

    // The length of the value in the second span's attribute goes beyond the attribute.
    let mut broken = traces(&[(7, 1), (7, 2)]).encode_to_vec();
    let at = broken.windows(4).rposition(|bytes| bytes == [0x12, 0x06, 0x0a, 0x04]).expect("an attribute");
    broken[at + 1] = 0x7f;
    let answer = cluster.post(PROTOBUF, broken).await;
    assert_eq!((answer.status, rpc_code(&answer)), (400, 3));
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let want = format!("the message of span 2 is broken: message ends inside a field that starts at byte {at}");
    assert!(text.contains(&want), "{text}");
    assert_eq!(cluster.held().primaries(), [1, 3], "nothing of the broken request");
}

#[tokio::test]
async fn otlp_over_http_at_the_port_of_grpc_is_told_where_to_go() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let body = traces(&[(1, 1)]).encode_to_vec();
    for content_type in [PROTOBUF, "application/json", "text/plain"] {
        let answer = cluster.http_at(cluster.grpc, "POST", &[("content-type", content_type)], body.clone()).await;
        assert_eq!(answer.status, 415, "{content_type}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.starts_with("this port takes OTLP over gRPC; OTLP over HTTP is taken on port "), "{text}");
    }
    assert!(cluster.instances[0].segments().is_empty());
}

/// `code` of a `google.rpc.Status` in protobuf.
fn rpc_code(answer: &Answer) -> i32 {
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
    }
    Status::decode(answer.body.clone()).expect("a status").code
}

#[tokio::test]
async fn broken_requests_are_refused_in_their_own_format() {
    let cluster = Cluster::start(1, 1, |c| {
        let http = c.distributor.receivers.otlp[0].protocols.http.as_mut().unwrap();
        http.max_request_body_size = 4096;
    })
    .await;
    let body = traces(&[(1, 1), (1, 2)]).encode_to_vec();
    let packed = gzip(&body);
    let gzipped = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    assert_eq!(cluster.http("POST", &gzipped, packed.clone()).await.status, 200);

    let cut = cluster.http("POST", &gzipped, packed[..packed.len() - 9].to_vec()).await;
    assert_eq!((cut.status, rpc_code(&cut)), (400, 3), "{cut:?}");
    let cut = cluster.post(PROTOBUF, body[..body.len() - 1].to_vec()).await;
    assert_eq!((cut.status, rpc_code(&cut)), (400, 3), "{cut:?}");
    let no_json = cluster.post("application/json", "{\"resourceSpans\":").await;
    assert_eq!((no_json.status, &no_json.json()["code"]), (400, &3.into()));
    let encoding = cluster.http("POST", &[("content-type", PROTOBUF), ("content-encoding", "br")], body.clone()).await;
    assert_eq!((encoding.status, rpc_code(&encoding)), (400, 3));

    let large = cluster.post(PROTOBUF, vec![0; 5000]).await;
    assert_eq!(large.status, 413, "{large:?}");
    let unpacks_large = cluster.http("POST", &gzipped, gzip(&vec![0; 5000])).await;
    assert_eq!(unpacks_large.status, 413, "{unpacks_large:?}");

    assert_eq!(cluster.post("text/plain", body.clone()).await.status, 415);
    assert_eq!(cluster.http("POST", &[], body.clone()).await.status, 415);
    assert_eq!(cluster.http("GET", &[], "").await.status, 405);
    assert_eq!(cluster.instances[0].segments().len(), 1);
}

#[tokio::test]
async fn messages_over_the_limit_are_refused() {
    let cluster = Cluster::start(1, 1, |c| {
        c.distributor.receivers.otlp[0].protocols.grpc.as_mut().unwrap().max_recv_msg_size_mib = 1;
    })
    .await;
    let mut large = traces(&[(1, 1)]);
    large.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(2 << 20);
    let error = cluster.export(&large, &[]).await.expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.details().is_empty(), "no hint to try again");
}

#[tokio::test]
async fn tenants_are_required_where_there_are_many() {
    let cluster = Cluster::start(1, 1, |c| c.multitenancy_enabled = true).await;
    let one = traces(&[(1, 1)]);
    cluster.export(&one, &[("x-scope-orgid", "team-a")]).await.expect("stored");
    assert_eq!(cluster.instances[0].segments()[0].tenant, "team-a");

    assert_eq!(cluster.export(&one, &[]).await.expect_err("no tenant").code(), Code::Unauthenticated);
    let many = cluster.export(&one, &[("x-scope-orgid", "a|b")]).await.expect_err("two tenants");
    assert_eq!(many.code(), Code::InvalidArgument);
    let missing = cluster.post(PROTOBUF, one.encode_to_vec()).await;
    assert_eq!((missing.status, rpc_code(&missing)), (401, 16));
    let invalid = cluster.http("POST", &[("content-type", PROTOBUF), ("x-scope-orgid", "a/b")], one.encode_to_vec()).await;
    assert_eq!((invalid.status, rpc_code(&invalid)), (400, 3));
    let empty = cluster.post(PROTOBUF, "").await;
    assert_eq!(ExportResponse::decode(empty.body).expect("an answer").partial_success, Some(Default::default()));
}

#[tokio::test]
async fn long_attributes_are_cut() {
    let cluster = Cluster::start(1, 1, |c| c.distributor.max_attribute_bytes = 100).await;
    let mut long = traces(&[(1, 1), (2, 2)]);
    let text = |s: &str| Some(any_value::Value::StringValue(s.to_owned()));
    let value = |traces: &mut vivace_proto::otlp::TracesData, s: &str| {
        traces.resource_spans[0].resource.as_mut().unwrap().attributes[0].value.as_mut().unwrap().value = text(s);
        traces.resource_spans[0].scope_spans[0].spans[1].attributes[0].value.as_mut().unwrap().value = text(s);
    };
    value(&mut long, &"ä".repeat(60));
    cluster.export(&long, &[]).await.expect("stored");
    value(&mut long, &"ä".repeat(50));
    assert_eq!(payload(&cluster.instances[0].segments()[0]), long.encode_to_vec());
}

#[tokio::test]
async fn clients_of_a_draining_distributor_are_told_to_move() {
    let cluster = Cluster::start(1, 1, |c| c.shutdown_delay = Duration::from_secs(3600)).await;
    let body = Bytes::from(traces(&[(1, 1)]).encode_to_vec());
    let io = TokioIo::new(TcpStream::connect(cluster.http).await.expect("listens"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(io).await.expect("HTTP/1");
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let mut post = async || {
        let request = http::Request::post("/v1/traces").header("host", "test").header("content-type", PROTOBUF);
        let answer = sender.send_request(request.body(Full::new(body.clone())).expect("a request")).await.expect("an answer");
        let (head, rest) = answer.into_parts();
        rest.collect().await.expect("a body");
        (head.status.as_u16(), head.headers.get("connection").is_some_and(|value| value == "close"))
    };
    assert_eq!(post().await, (200, false));

    let io = TokioIo::new(TcpStream::connect(cluster.grpc).await.expect("listens"));
    let (mut grpc, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.expect("HTTP/2");
    connections.spawn(connection);
    let export = http::Request::post(format!("http://{}/opentelemetry.proto.collector.trace.v1.TraceService/Export", cluster.grpc))
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(&[0; 5])));
    assert_eq!(grpc.send_request(export.expect("a request")).await.expect("an answer").status(), 200);

    cluster.begin_stop();
    let ended = tokio::time::timeout(Duration::from_secs(20), connections.join_next()).await.expect("gRPC is sent away");
    ended.expect("a connection").expect("no panic").expect("ended in order");
    assert_eq!(post().await, (200, true));
    let ended = tokio::time::timeout(Duration::from_secs(20), connections.join_next()).await.expect("HTTP is sent away");
    ended.expect("a connection").expect("no panic").expect("ended in order");
    assert_eq!(cluster.post(PROTOBUF, body.clone()).await.status, 200, "new clients are served");
}

/// A browser asks with OPTIONS before it sends JSON or protobuf to another origin.
#[tokio::test]
async fn pages_of_allowed_origins_may_send() {
    let cluster = Cluster::start(1, 1, |config| {
        let http = config.distributor.receivers.otlp[0].protocols.http.as_mut().expect("on");
        http.cors.allowed_origins = vec!["https://*.shop.example".to_owned(), "http://localhost:3000".to_owned()];
        http.cors.allowed_headers = vec!["X-Tenant".to_owned()];
        http.cors.max_age = 7200;
    })
    .await;
    let preflight = |origin: &'static str| {
        let cluster = &cluster;
        async move {
            let method = ("access-control-request-method", "POST");
            let asks = [("origin", origin), method, ("access-control-request-headers", "content-type,x-tenant")];
            cluster.http("OPTIONS", &asks, "").await
        }
    };
    let answer = preflight("https://EU.shop.example").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["access-control-allow-origin"], "https://EU.shop.example");
    assert_eq!(answer.headers["access-control-allow-headers"], "accept,content-type,x-requested-with,x-tenant");
    assert_eq!(answer.headers["access-control-max-age"], "7200");
    assert_eq!(answer.headers["access-control-allow-credentials"], "true");
    assert!(answer.headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    assert!(!preflight("https://shop.example.org").await.headers.contains_key("access-control-allow-origin"));

    let sent = [("origin", "http://localhost:3000"), ("content-type", "application/json")];
    let answer = cluster.http("POST", &sent, "{}").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], "http://localhost:3000");
    let answer = cluster.http("POST", &[("content-type", "application/json")], "{}").await;
    assert_eq!((answer.status, answer.headers.get("access-control-allow-origin")), (200, None), "no browser");

    let plain = Cluster::start(1, 1, |_| {}).await;
    assert_eq!(plain.http("OPTIONS", &[("origin", "http://localhost:3000")], "").await.status, 405);
}

/// Proxies pass on tokens and baggage of many kilobytes as metadata.
#[tokio::test]
async fn large_metadata_is_taken() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let long = "b".repeat(20_000);
    cluster.export(&traces(&[(1, 1)]), &[("baggage", &long)]).await.expect("taken");
    assert_eq!(cluster.held().primaries(), [1]);
}

/// By the collector's keys.
#[tokio::test]
async fn receivers_speak_tls_where_they_are_told_to() {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert_pem, key_pem) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls = CollectorTls { cert_pem: cert_pem.clone(), key_pem: key_pem.into(), ..CollectorTls::default() };
    let cluster = Cluster::start(1, 1, move |config| {
        let protocols = &mut config.distributor.receivers.otlp[0].protocols;
        protocols.grpc.as_mut().expect("on").tls = Some(tls.clone());
        protocols.http.as_mut().expect("on").tls = Some(tls);
    })
    .await;
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&cert_pem)).domain_name("localhost");
    for address in [cluster.grpc, cluster.http] {
        let endpoint = |scheme: &str| Endpoint::from_shared(format!("{scheme}://{address}")).unwrap();
        let channel = endpoint("https").tls_config(trusting.clone()).unwrap().connect().await.expect("speaks TLS");
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.expect("connected");
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<TracesData, ExportResponse>::default();
        let sent = grpc.unary(tonic::Request::new(traces(&[(1, 1)])), path, codec).await;
        if address == cluster.http {
            let error = sent.expect_err("the wrong port");
            assert_eq!(error.code(), Code::Unimplemented);
            assert!(error.message().starts_with("this port takes OTLP over HTTP; OTLP over gRPC is taken on port "), "{error}");
        } else {
            sent.expect("is taken");
        }
        let stranger = endpoint("https").tls_config(ClientTlsConfig::new().domain_name("localhost")).unwrap().connect().await;
        assert!(stranger.is_err(), "a certificate that nobody vouches for");
    }
    assert_eq!(cluster.held().primaries(), [1]);
}
