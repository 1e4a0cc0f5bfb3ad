//! Requests that hardly a client sends, and that protobuf and the OpenTelemetry Collector take: what is acknowledged is stored as they
//! understand it, and all else is refused by name.

use prost::Message;
use vivace_core::wire::put_bytes;
use vivace_proto::otlp::any_value::Value;
use vivace_proto::otlp::{AnyValue, InstrumentationScope, KeyValue, Resource, ScopeSpans, Span, TracesData, span};

use crate::client::{ExportResponse, PartialSuccess, traces};
use crate::cluster::{Cluster, payload};

const PROTOBUF: &str = "application/x-protobuf";

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, content);
    out
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// Group 20, with a number and group 21 in it.
fn group() -> Vec<u8> {
    vec![0xa3, 1, 0x08, 1, 0xab, 1, 0xac, 1, 0xa4, 1]
}

fn scope_spans(spans: &[(u8, u8)]) -> Vec<u8> {
    traces(spans).resource_spans[0].scope_spans[0].encode_to_vec()
}

impl Cluster {
    /// What the only ingester has of a request of these `ResourceSpans`, all of which is taken.
    async fn taken(&self, resource_spans: &[u8]) -> TracesData {
        let answer = self.post(PROTOBUF, field(1, resource_spans)).await;
        assert_eq!((answer.status, answer.body.as_ref()), (200, &[0x0a, 0][..]), "{answer:?}");
        let segment = self.instances[0].segments().pop().expect("is stored");
        TracesData::decode(payload(&segment)).expect("is a message")
    }

    /// Why some of its spans are refused.
    async fn rejected(&self, body: Vec<u8>) -> PartialSuccess {
        let answer = self.post(PROTOBUF, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        ExportResponse::decode(answer.body).unwrap().partial_success.unwrap()
    }

    /// Why all of it is refused.
    async fn refused(&self, body: Vec<u8>) -> String {
        let answer = self.post(PROTOBUF, body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        String::from_utf8_lossy(&answer.body).into_owned()
    }
}

#[tokio::test]
async fn spans_of_instrumentation_libraries_are_stored() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let old = cluster.taken(&field(1000, &scope_spans(&[(1, 1)]))).await;
    assert_eq!(old.resource_spans[0].scope_spans, traces(&[(1, 1)]).resource_spans[0].scope_spans);
    let both = [field(2, &scope_spans(&[(1, 2)])), field(1000, &scope_spans(&[(1, 3)]))].concat();
    assert_eq!(cluster.taken(&both).await.resource_spans[0].scope_spans.len(), 2);
    let json = r#"{"resourceSpans":[{"instrumentationLibrarySpans":[{"instrumentationLibrary":{"name":"lib"},"spans":[
        {"traceId":"01010101010101010101010101010101","spanId":"0404040404040404"}]}]}]}"#;
    assert_eq!(cluster.post("application/json", json).await.status, 200);
    assert_eq!(cluster.held().primaries(), [1, 2, 3, 4]);
    assert!(cluster.refused(field(1, &field(1000, &[0x12, 5]))).await.contains("byte"), "broken ones are not stored");
    assert!(cluster.refused(field(1, &[0xc0, 0x3e, 1])).await.contains("field 1000 at byte 2 has the wrong type"));
}

#[tokio::test]
async fn messages_in_pieces_are_joined() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let resource = |key: &str| Resource { attributes: vec![attribute(key, Value::BoolValue(true))], ..Resource::default() }.encode_to_vec();
    let [name, version] = [("lib", ""), ("", "1")]
        .map(|(name, version)| InstrumentationScope { name: name.into(), version: version.into(), ..Default::default() }.encode_to_vec());
    let value = |value| AnyValue { value: Some(value) }.encode_to_vec();
    let twice = [field(1, b"k"), field(2, &value(Value::IntValue(1))), field(2, &value(Value::StringValue("last".into())))].concat();
    let span = [traces(&[(1, 1)]).resource_spans[0].scope_spans[0].spans[0].encode_to_vec(), field(9, &twice)].concat();
    let scope = [field(1, &name), field(2, &span), field(1, &version)].concat();
    let stored = cluster.taken(&[field(1, &resource("a")), field(2, &scope), field(1, &resource("b"))].concat()).await;
    let stored = &stored.resource_spans[0];
    let keys: Vec<&str> = stored.resource.as_ref().unwrap().attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, ["a", "b"]);
    let scope = stored.scope_spans[0].scope.as_ref().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("lib", "1"));
    assert_eq!(stored.scope_spans[0].spans[0].attributes.last(), Some(&attribute("k", Value::StringValue("last".into()))));
}

#[tokio::test]
async fn groups_are_skipped_if_they_have_an_end() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let span = [traces(&[(1, 1)]).resource_spans[0].scope_spans[0].spans[0].encode_to_vec(), group()].concat();
    let scope = [group(), field(2, &span), group()].concat();
    let body = [group(), field(1, &[field(1, &group()), group(), field(2, &scope)].concat()), group()].concat();
    let answer = cluster.post(PROTOBUF, body).await;
    assert_eq!((answer.status, answer.body.as_ref()), (200, &[0x0a, 0][..]), "{answer:?}");
    let stored = payload(&cluster.instances[0].segments()[0]);
    assert!(!stored.windows(3).any(|bytes| bytes == &group()[..3]), "none is stored");
    assert_eq!(cluster.held().primaries(), [1]);

    let whole = traces(&[(1, 2)]).encode_to_vec();
    let after = whole.len();
    let without_end = cluster.refused([&whole[..], &[9 << 3 | 3, 8, 1]].concat()).await;
    assert!(without_end.contains(&format!("group 9 that starts at byte {after} has no end")), "{without_end}");
    let end = cluster.refused([&whole[..], &[9 << 3 | 4]].concat()).await;
    assert!(end.contains(&format!("end of group 9 at byte {after}, where no such group is open")), "{end}");
    let deep = cluster.refused([&whole[..], &[9 << 3 | 3; 33], &[9 << 3 | 4; 33]].concat()).await;
    assert!(deep.contains(&format!("group at byte {} lies more than 32 groups deep", after + 32)), "{deep}");
    let known = cluster.refused([&whole[..], &[1 << 3 | 3, 1 << 3 | 4]].concat()).await;
    assert!(known.contains(&format!("field 1 at byte {after} has the wrong type")), "{known}");
    assert_eq!(cluster.held().primaries(), [1], "nothing of what is refused");
}

#[tokio::test]
async fn ids_of_other_spans_reject_those_that_have_them() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let mut mixed = traces(&[(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
    let spans = &mut mixed.resource_spans[0].scope_spans[0].spans;
    let link = |trace: usize, span: usize| {
        vec![span::Link { trace_id: vec![7; trace].into(), span_id: vec![7; span].into(), ..Default::default() }]
    };
    spans[0].parent_span_id = vec![0; 8].into();
    spans[0].links = link(16, 8);
    spans[1].parent_span_id = vec![7; 3].into();
    spans[2].links = link(15, 8);
    spans[3].links = link(0, 9);
    spans[4].links = link(0, 0);
    let partial = cluster.rejected(mixed.encode_to_vec()).await;
    assert_eq!(partial.rejected_spans, 3);
    let first = format!("the first other one has 24 bits: parent_span_id of span {} of trace {}", "02".repeat(8), "01".repeat(16));
    assert!(partial.error_message.contains(&first), "{}", partial.error_message);
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"01010101010101010101010101010101","spanId":"0606060606060606","links":[{"traceId":"01"}]}]}]}]}"#;
    let answer = cluster.post("application/json", json).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["message"].as_str().unwrap().contains("has 8 bits: an id of a link of span 0606060606060606"), "{answer:?}");
    assert_eq!(cluster.held().primaries(), [1, 5]);
}

#[tokio::test]
async fn what_has_no_span_is_looked_at_too() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let good = traces(&[(1, 1)]).encode_to_vec();
    let at = good.len();
    let broken = [
        // The second resource, of attributes that end too early; then a scope, schema URLs that are numbers, an entity.
        (
            field(1, &[0x0a, 2, 0x0a, 5]),
            format!("the resource of ResourceSpans 2 is broken: message ends inside a field that starts at byte {}", at + 6),
        ),
        (
            field(2, &[0x0a, 2, 0x0a, 5]),
            format!("the scope of ScopeSpans 2 is broken: message ends inside a field that starts at byte {}", at + 6),
        ),
        (vec![3 << 3, 1], format!("field 3 at byte {} has the wrong type", at + 2)),
        (field(2, &[3 << 3, 1]), format!("field 3 at byte {} has the wrong type", at + 4)),
        ([field(1, &[0x0a, 5]), field(1, b"")].concat(), format!("message ends inside a field that starts at byte {}", at + 4)),
        (
            field(1, &[0x1a, 2, 0x0a, 5]),
            format!("the resource of ResourceSpans 2 is broken: message ends inside a field that starts at byte {}", at + 6),
        ),
    ];
    for (resource_spans, want) in broken {
        let text = cluster.refused([good.clone(), field(1, &resource_spans)].concat()).await;
        assert!(text.contains(&want), "{text} instead of {want}");
    }
    assert_eq!(cluster.held().primaries(), [0; 0]);
}

#[tokio::test]
async fn a_value_that_lies_too_deep_rejects_its_span_in_json_too() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let spans: Vec<String> = [23, 24, 5_000]
        .iter()
        .enumerate()
        .map(|(id, levels)| {
            let value = format!("{}{{\"intValue\":1}}{}", r#"{"arrayValue":{"values":["#.repeat(*levels), "]}}".repeat(*levels));
            let id = format!("0{}", id + 1).repeat(8);
            let span = format!(r#""traceId":"01010101010101010101010101010101","spanId":"{id}""#);
            format!(r#"{{{span},"attributes":[{{"key":"deep","value":{value}}}]}}"#)
        })
        .collect();
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, spans.join(","));
    let answer = cluster.post("application/json", body).await;
    assert_eq!((answer.status, &answer.json()["partialSuccess"]["rejectedSpans"]), (200, &"2".into()), "{answer:?}");
    assert_eq!(cluster.held().primaries(), [1]);

    // In protobuf, one whose place another value takes is no matter.
    let deep = (0..50).fold(vec![0x18, 1], |inner, _| field(5, &field(1, &inner)));
    let [replaced, counts] =
        [[deep.clone(), vec![0x18, 1]].concat(), [vec![0x18, 1], deep].concat()].map(|value| field(9, &field(2, &value)));
    let mut span = Span { trace_id: vec![1; 16].into(), span_id: vec![4; 8].into(), ..Span::default() };
    let first = [span.encode_to_vec(), replaced].concat();
    span.span_id = vec![5; 8].into();
    let second = [span.encode_to_vec(), counts].concat();
    let partial = cluster.rejected(field(1, &field(2, &[field(2, &first), field(2, &second)].concat()))).await;
    assert_eq!(partial.rejected_spans, 1);
    assert_eq!(cluster.held().primaries(), [1, 4]);
}

#[tokio::test]
async fn a_span_that_no_ingester_takes_is_rejected_by_name() {
    const TAKEN_MAX: u64 = 300 << 10;
    let cluster = Cluster::start(3, 3, |config| config.server.grpc_server_max_recv_msg_size = TAKEN_MAX).await;
    let mut large = traces(&[(1, 1), (1, 2), (2, 3)]);
    let mut random = 1u32;
    let noise = (0..500_000).map(|_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 24) as u8
    });
    let spans: &mut ScopeSpans = &mut large.resource_spans[0].scope_spans[0];
    spans.spans[1].attributes.push(attribute("noise", Value::BytesValue(noise.collect::<Vec<u8>>().into())));
    // As large, but it compresses.
    spans.spans[2].attributes.push(attribute("blank", Value::StringValue(" ".repeat(500_000))));
    let partial = cluster.rejected(large.encode_to_vec()).await;
    assert_eq!(partial.rejected_spans, 1);
    let (span, trace) = ("02".repeat(8), "01".repeat(16));
    let text = &partial.error_message;
    assert!(text.contains(&format!("1 spans rejected: span {span} of trace {trace} is a message of 50")), "{text}");
    assert!(text.ends_with("more than the 307200 of server.grpc_server_max_recv_msg_size"), "{text}");
    assert_eq!(cluster.held().primaries(), [1, 3]);

    large.resource_spans[0].scope_spans[0].spans.retain(|span| span.span_id[0] == 2);
    assert!(cluster.refused(large.encode_to_vec()).await.contains("more than the 307200 of server.grpc_server_max_recv_msg_size"));
}
