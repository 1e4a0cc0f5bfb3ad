//! The same span in each format, what becomes of each field, and bytes that are no list of spans.

use proptest::prelude::*;
use prost::Message as _;
use serde_json::json;
use vivace_core::budget::Budget;
use vivace_proto::otlp::any_value::Value as Any;
use vivace_proto::otlp::{KeyValue, ResourceSpans, TracesData};
use vivace_proto::zipkin::proto3 as v2;
use vivace_server::RequestBudget;

use super::{json, proto, thrift};
use crate::error::PushError;
use crate::receiver::spans::Spans;
use crate::receiver::tags::Dialect;

#[path = "../../../tests/it/zipkin_v1.rs"]
mod v1;

type Read = fn(&[u8], &mut Spans) -> Result<(), PushError>;

const PLAIN: Dialect = Dialect::Zipkin { parse_string_tags: false };
const PARSED: Dialect = Dialect::Zipkin { parse_string_tags: true };

/// Reads bytes with so much memory.
fn read_within(budget_bytes: u64, dialect: Dialect, read: Read, bytes: &[u8]) -> Result<TracesData, PushError> {
    let budget = Budget::new(budget_bytes * 4); // a quarter is for requests
    let mut spans = Spans::new(&RequestBudget::whole(&budget).open(), dialect, bytes.len())?;
    read(bytes, &mut spans)?;
    let (body, charge) = spans.finish()?;
    assert!(charge.bytes() >= body.len() as u64);
    drop(charge);
    assert_eq!(budget.used(), 0);
    Ok(TracesData::decode(body).expect("what is written is OTLP"))
}

fn read(read: Read, bytes: impl AsRef<[u8]>) -> TracesData {
    read_within(64 << 20, PLAIN, read, bytes.as_ref()).expect("valid")
}

fn only(traces: &TracesData) -> &ResourceSpans {
    let [resource] = &traces.resource_spans[..] else { panic!("{traces:?}") };
    resource
}

fn texts(attributes: &[KeyValue]) -> Vec<(&str, String)> {
    let text = |a: &KeyValue| match a.value.as_ref().and_then(|v| v.value.as_ref()).expect("a value") {
        Any::StringValue(text) => format!("{text:?}"),
        Any::BoolValue(value) => value.to_string(),
        Any::IntValue(value) => value.to_string(),
        Any::DoubleValue(value) => format!("{value:?}"),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|a| (a.key.as_str(), text(a))).collect()
}

fn quoted(key: &'static str, text: &str) -> (&'static str, String) {
    (key, format!("{text:?}"))
}

/// The same span in JSON and in protobuf.
fn call() -> (serde_json::Value, v2::ListOfSpans) {
    let json = json!([{
        "traceId": "0102030405060708090A0b0c0d0e0f10", "id": "1112131415161718", "parentId": "00000000000000ff", "kind": "CLIENT",
        "name": "get /cart", "timestamp": 1_700_000_000_123_456u64, "duration": 2500, "debug": true, "shared": false,
        "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1", "port": 8080},
        "remoteEndpoint": {"serviceName": "cart", "ipv6": "2001:db8::1", "port": 443},
        "annotations": [{"timestamp": 1_700_000_000_124_000u64, "value": "ws"}],
        "tags": {"a": "1", "otel.scope.name": "lib", "service.version": "7", "w3c.tracestate": "k=v"},
        "somethingNew": {"deep": [1, {}]}
    }]);
    let endpoint = |service: &str, ipv4: &[u8], ipv6: &[u8], port| {
        Some(v2::Endpoint { service_name: service.to_owned(), ipv4: ipv4.to_vec().into(), ipv6: ipv6.to_vec().into(), port })
    };
    let ipv6: std::net::Ipv6Addr = "2001:db8::1".parse().expect("an address");
    let tags = [("a", "1"), ("otel.scope.name", "lib"), ("service.version", "7"), ("w3c.tracestate", "k=v")];
    let span = v2::Span {
        trace_id: (1..=16).collect::<Vec<u8>>().into(),
        parent_id: vec![0, 0, 0, 0, 0, 0, 0, 0xff].into(),
        id: (0x11..=0x18).collect::<Vec<u8>>().into(),
        kind: v2::span::Kind::Client.into(),
        name: "get /cart".to_owned(),
        timestamp: 1_700_000_000_123_456,
        duration: 2500,
        local_endpoint: endpoint("shop", &[10, 0, 0, 1], &[], 8080),
        remote_endpoint: endpoint("cart", &[], &ipv6.octets(), 443),
        annotations: vec![v2::Annotation { timestamp: 1_700_000_000_124_000, value: "ws".to_owned() }],
        tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        debug: true,
        shared: false,
    };
    (json, v2::ListOfSpans { spans: vec![span] })
}

#[test]
fn every_field_of_version_2_has_its_place() {
    let (json, list) = call();
    for traces in [read(json::spans_v2, json.to_string()), read(proto::spans, list.encode_to_vec())] {
        let resource = only(&traces);
        let of_resource = texts(&resource.resource.as_ref().expect("there").attributes);
        assert_eq!(of_resource, [quoted("service.version", "7"), quoted("service.name", "shop")]);
        assert_eq!(resource.scope_spans[0].scope.as_ref().expect("there").name, "lib");
        let span = &resource.scope_spans[0].spans[0];
        assert_eq!(hex::encode(&span.trace_id), "0102030405060708090a0b0c0d0e0f10");
        assert_eq!((hex::encode(&span.span_id), hex::encode(&span.parent_span_id)), ("1112131415161718".into(), "00000000000000ff".into()));
        assert_eq!((span.name.as_str(), span.kind, &span.status, span.trace_state.as_str()), ("get /cart", 3, &None, "k=v"));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_700_000_000_123_456_000, 1_700_000_000_125_956_000));
        let mut attributes = texts(&span.attributes);
        attributes.sort();
        let want = [
            quoted("a", "1"),
            quoted("net.host.ip", "10.0.0.1"),
            ("net.host.port", "8080".to_owned()),
            quoted("net.peer.ip", "2001:db8::1"),
            ("net.peer.port", "443".to_owned()),
            quoted("peer.service", "cart"),
        ];
        assert_eq!(attributes, want);
        assert_eq!((span.events[0].time_unix_nano, span.events[0].name.as_str()), (1_700_000_000_124_000_000, "ws"));
    }
}

fn span_with(dialect: Dialect, tags: serde_json::Value) -> vivace_proto::otlp::Span {
    let json = json!([{"traceId": "1", "id": "2", "timestamp": 5, "tags": tags}]).to_string();
    let traces = read_within(1 << 20, dialect, json::spans_v2, json.as_bytes()).expect("valid");
    traces.resource_spans[0].scope_spans[0].spans[0].clone()
}

#[test]
fn texts_stay_texts_unless_they_shall_be_looked_into() {
    let tags = json!({"b": "true", "i": "-7", "d": "1.5e3", "big": "99999999999999999999", "t": "1.2.3", "nan": "NaN", "inf": "-inf", "e": "", "m": "-"});
    let plain = span_with(PLAIN, tags.clone());
    assert!(texts(&plain.attributes).iter().all(|(_, text)| text.starts_with('"')), "{plain:?}");
    let parsed = span_with(PARSED, tags);
    let read = texts(&parsed.attributes);
    let want = [
        ("b", "true".to_owned()),
        ("i", "-7".to_owned()),
        ("d", "1500.0".to_owned()),
        ("big", "1e20".to_owned()),
        quoted("t", "1.2.3"),
        quoted("nan", "NaN"),
        quoted("inf", "-inf"),
        quoted("e", ""),
        quoted("m", "-"),
    ];
    assert_eq!(read, want);
}

#[test]
fn an_error_is_what_went_wrong() {
    let status = |tags: serde_json::Value| {
        let span = span_with(PLAIN, tags);
        (span.status.map(|status| (status.code, status.message)), span.attributes.len())
    };
    let error = |message: &str| Some((2, message.to_owned()));
    assert_eq!(status(json!({"error": "true"})), (error(""), 0));
    assert_eq!(status(json!({"error": ""})), (error(""), 0));
    assert_eq!(status(json!({"error": "timeout"})), (error("timeout"), 1));
    assert_eq!(status(json!({"error": "false"})), (None, 1));
    assert_eq!(
        status(json!({"otel.status_code": "ERROR", "error": "declined"})),
        (error("declined"), 0),
        "OpenTelemetry's exporters say it twice"
    );
    assert_eq!(status(json!({"otel.status_code": "UNSET"})), (None, 0));
    assert_eq!(status(json!({"otel.status_code": "OK"})), (Some((1, String::new())), 0));
    assert_eq!(status(json!({"http.status_code": "500"})), (None, 1));
    let older = json!({"otel.status_code": "STATUS_CODE_ERROR", "otel.status_description": "declined"});
    assert_eq!(status(older), (error("declined"), 0), "as older exporters write it");
    assert_eq!(status(json!({"otel.status_code": "STATUS_CODE_OK"})), (Some((1, String::new())), 0));
    assert_eq!(status(json!({"otel.status_code": "STATUS_CODE_UNSET"})), (None, 0));
    assert_eq!(span_with(PLAIN, json!({"span.kind": "internal"})).kind, 1);
}

#[test]
fn what_exporters_make_texts_of_is_read_back() {
    let (trace, span) = ("0a".repeat(16), "0b".repeat(8));
    let body = json!([{
        "traceId": "1", "id": "2", "timestamp": 5, "localEndpoint": {"serviceName": "resize"},
        "tags": {
            "otlp.link.0": format!("{trace}|{span}|a=b|{{\"x\":\"y\",\"n\":1}}|2"), "otlp.link.1": "no link",
            "otlp.service.name.source": "faas.name",
        },
        "annotations": [{"timestamp": 6, "value": "retry|{\"after\":1.5,\"of\":\"c|d\"}|0"}, {"timestamp": 7, "value": "a|b"}],
    }]);
    let traces = read(json::spans_v2, body.to_string());
    let resource = only(&traces);
    assert_eq!(texts(&resource.resource.as_ref().expect("there").attributes), [quoted("faas.name", "resize")]);
    let read_back = &resource.scope_spans[0].spans[0];
    assert_eq!(texts(&read_back.attributes), [quoted("otlp.link.1", "no link")]);
    let [link] = &read_back.links[..] else { panic!("{read_back:?}") };
    assert_eq!((hex::encode(&link.trace_id), hex::encode(&link.span_id)), (trace, span));
    assert_eq!((link.trace_state.as_str(), link.dropped_attributes_count), ("a=b", 2));
    assert_eq!(texts(&link.attributes), [quoted("x", "y"), ("n", "1".to_owned())]);
    let events: Vec<_> = read_back.events.iter().map(|event| (event.name.as_str(), texts(&event.attributes))).collect();
    assert_eq!(events, [("retry", vec![("after", "1.5".to_owned()), quoted("of", "c|d")]), ("a|b", vec![])]);
}

#[test]
fn a_service_without_a_name_has_none() {
    let body = json!([{"traceId": "1", "id": "2", "timestamp": 5, "localEndpoint": {"serviceName": "OTLPResourceNoServiceName"}}]);
    let traces = read(json::spans_v2, body.to_string());
    assert_eq!(only(&traces).resource, Some(vivace_proto::otlp::Resource::default()));
}

#[test]
fn no_span_is_its_own_parent() {
    let body =
        json!([{"traceId": "1", "id": "2", "parentId": "2", "timestamp": 5}, {"traceId": "1", "id": "2", "parentId": "3", "timestamp": 5}]);
    let traces = read(json::spans_v2, body.to_string());
    let parents: Vec<_> = only(&traces).scope_spans[0].spans.iter().map(|span| hex::encode(&span.parent_span_id)).collect();
    assert_eq!(parents, ["", "0000000000000003"]);
}

#[test]
fn a_span_without_a_start_begins_when_it_comes() {
    let mark = ("otel.zipkin.absentField.startTime", "true".to_owned());
    let before = vivace_server::clock::unix_nanos();
    for (version, fields) in [(json::spans_v2 as Read, json!({})), (json::spans_v1, json!({})), (json::spans_v2, json!({"timestamp": 0}))] {
        let mut span = json!({"traceId": "1", "id": "2", "duration": 7, "tags": {"otel.zipkin.absentField.startTime": "true"}});
        span.as_object_mut().expect("a map").extend(fields.as_object().expect("a map").clone());
        let traces = read(version, json!([span]).to_string());
        let span = &only(&traces).scope_spans[0].spans[0];
        let after = vivace_server::clock::unix_nanos();
        assert!((before..=after).contains(&span.start_time_unix_nano), "{span:?}");
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 7_000);
        assert_eq!(texts(&span.attributes), std::slice::from_ref(&mark), "said once");
    }
    let noted = json!([{"traceId": "1", "id": "2", "annotations": [{"timestamp": 9, "value": "b"}, {"timestamp": 8, "value": "a"}]}]);
    let traces = read(json::spans_v2, noted.to_string());
    let span = &only(&traces).scope_spans[0].spans[0];
    assert_eq!((span.start_time_unix_nano, texts(&span.attributes)), (8_000, vec![mark]));
    let received = json!([{"traceId": "1", "id": "2", "annotations": [{"timestamp": 9, "value": "cr"}]}]);
    let traces = read(json::spans_v1, received.to_string());
    let span = &only(&traces).scope_spans[0].spans[0];
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (9_000, 9_000), "its end is all that is known");
}

#[test]
fn spans_of_different_services_have_different_resources() {
    let span = |id: &str, service: &str| json!({"traceId": "1", "id": id, "localEndpoint": {"serviceName": service}});
    let body = json!([span("1", "a"), span("2", "a"), span("3", "b"), json!({"traceId": "1", "id": "4", "tags": {"service.name": "c"}})]);
    let traces = read(json::spans_v2, body.to_string());
    let services: Vec<_> = traces
        .resource_spans
        .iter()
        .map(|r| (texts(&r.resource.as_ref().expect("there").attributes)[0].1.clone(), r.scope_spans[0].spans.len()))
        .collect();
    assert_eq!(services, [("\"a\"".to_owned(), 2), ("\"b\"".to_owned(), 1), ("\"c\"".to_owned(), 1)]);
}

#[test]
fn version_1_is_read_in_json_and_thrift() {
    let endpoint = json!({"serviceName": "shop", "ipv4": "10.0.0.1", "port": 8080});
    let body = json!([{
        "traceId": "000000000000000a000000000000000b", "id": "c", "parentId": "d", "name": "get",
        "annotations": [
            {"timestamp": 1_700_000_000_000_000u64, "value": "cs", "endpoint": endpoint},
            {"timestamp": 1_700_000_000_000_300u64, "value": "retry", "endpoint": endpoint},
            {"timestamp": 1_700_000_000_000_900u64, "value": "cr", "endpoint": endpoint},
        ],
        "binaryAnnotations": [
            {"key": "http.path", "value": "/cart", "endpoint": endpoint},
            {"key": "tries", "value": 2},
            {"key": "ratio", "value": 0.5},
            {"key": "hit", "value": true},
            {"key": "raw", "value": "/wA="},
            {"key": "short", "value": -2},
            {"key": "long", "value": -4},
            {"key": "sa", "value": true, "endpoint": {"serviceName": "cart", "ipv4": "10.0.0.2"}},
            {"key": "lc", "value": ""},
        ]
    }]);
    for traces in [read(json::spans_v1, body.to_string()), read(thrift::spans, v1::call())] {
        let resource = only(&traces);
        assert_eq!(texts(&resource.resource.as_ref().expect("there").attributes), [quoted("service.name", "shop")]);
        let span = &resource.scope_spans[0].spans[0];
        assert_eq!(hex::encode(&span.trace_id), "000000000000000a000000000000000b");
        assert_eq!((span.span_id.last(), span.parent_span_id.last()), (Some(&0xc), Some(&0xd)));
        assert_eq!((span.name.as_str(), span.kind), ("get", 3));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_700_000_000_000_000_000, 1_700_000_000_000_900_000));
        let events: Vec<_> = span.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, ["retry"]);
        let want = [
            quoted("http.path", "/cart"),
            ("tries", "2".to_owned()),
            ("ratio", "0.5".to_owned()),
            ("hit", "true".to_owned()),
            quoted("raw", "/wA="),
            ("short", "-2".to_owned()),
            ("long", "-4".to_owned()),
            quoted("peer.service", "cart"),
            quoted("net.peer.ip", "10.0.0.2"),
            quoted("net.host.ip", "10.0.0.1"),
            ("net.host.port", "8080".to_owned()),
        ];
        assert_eq!(texts(&span.attributes), want);
    }
}

#[test]
fn a_span_of_version_1_runs_where_anything_was_noted() {
    let body = json!([{"traceId": "1", "id": "2", "timestamp": 5, "duration": 6, "binaryAnnotations":
        [{"key": "lc", "value": "worker", "endpoint": {"serviceName": "job"}}, {"key": "x", "value": "y", "endpoint": {"serviceName": "other"}}]}]);
    let traces = read(json::spans_v1, body.to_string());
    let resource = only(&traces);
    assert_eq!(texts(&resource.resource.as_ref().expect("there").attributes), [quoted("service.name", "job")]);
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano, span.kind), (5_000, 11_000, 0));
    assert_eq!(texts(&span.attributes), [quoted("lc", "worker"), quoted("x", "y")]);
}

#[test]
fn what_is_no_list_of_spans_is_refused_by_name() {
    let error = |read: Read, bytes: &[u8]| read_within(1 << 20, PLAIN, read, bytes).expect_err("broken").to_string();
    let json = |text: &str| error(json::spans_v2, text.as_bytes());
    assert!(json("{}").contains("no list of Zipkin's spans in JSON (V2)"), "{}", json("{}"));
    assert!(json(r#"[{"traceId":"xyz","id":"1"}]"#).contains(r#"traceId "xyz": expected 1 to 32 hex digits"#));
    assert!(json(r#"[{"traceId":"1","id":"11112222333344445"}]"#).contains("id \"11112222333344445\": expected 1 to 16 hex digits"));
    assert!(json(r#"[{"traceId":"1"}]"#).contains("a span without traceId or id at line 1 column"));
    assert!(json(r#"[{"traceId":"1","id":"1","tags":{"a":[1]}}]"#).contains("expected a text"));
    assert!(json("").contains("EOF"));
    assert!(json("[] x").contains("trailing"));
    let deep = format!("[{{\"traceId\":\"1\",\"id\":\"1\",\"x\":{}{}}}]", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(json::spans_v2, deep).resource_spans.len(), 1, "an unknown field that is deep costs no stack");
    let deep = format!("[{{\"traceId\":\"1\",\"id\":\"1\",\"annotations\":{}{}}}]", "[".repeat(100_000), "]".repeat(100_000));
    assert!(json(&deep).contains("invalid type"), "{}", json(&deep));
    let mut list = call().1;
    list.spans[0].trace_id = vec![1; 5].into();
    assert_eq!(error(proto::spans, &list.encode_to_vec()), "the trace id of a span has 5 bytes, expected 8 or 16");
    assert!(error(proto::spans, &[0x0a, 9]).contains("no list of Zipkin's spans in protobuf: message ends"));
    assert!(error(thrift::spans, &[0x0c, 0x7f, 0xff, 0xff, 0xff]).contains("Container would require"));
    assert!(error(thrift::spans, &[0x0c, 0, 0, 0, 1]).contains("it ends too early"));
    assert!(read_within(1 << 20, PLAIN, json::spans_v2, b"[]").expect("nothing").resource_spans.is_empty());
}

#[test]
fn half_a_character_spoils_nothing() {
    let body = r#"[{"traceId":"1","id":"2","name":"cut \ud83d","tags":{"a":"\ud83d"}}]"#;
    let budget = Budget::unlimited();
    let mut spans = Spans::new(&RequestBudget::whole(&budget).open(), PLAIN, body.len()).expect("fits");
    json::spans_v2(body.as_bytes(), &mut spans).expect("taken");
}

#[test]
fn empty_items_take_no_more_than_they_are() {
    let items = 200_000;
    for list in ["annotations", "tags"] {
        let (start, item, end) = if list == "tags" { ("{", "\"\":\"\",", "\"\":\"\"}") } else { ("[", "{},", "{}]") };
        let body = format!("[{{\"traceId\":\"1\",\"id\":\"1\",\"{list}\":{start}{}{end}}}]", item.repeat(items));
        // Annotations have a time, which is longer than an empty object.
        read_within(32 * body.len() as u64, PLAIN, json::spans_v2, body.as_bytes()).expect("fits");
        let error = read_within(body.len() as u64 + (300 << 10), PLAIN, json::spans_v2, body.as_bytes());
        assert!(matches!(error, Err(PushError::Overloaded(_))), "{list}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "[\\[\\]{}\":,a-z0-9]{0,80}") {
        for read in [json::spans_v2 as Read, json::spans_v1, proto::spans, thrift::spans] {
            let _ = read_within(4 << 20, PARSED, read, &bytes);
            let _ = read_within(4 << 20, PARSED, read, text.as_bytes());
        }
    }

    #[test]
    fn what_is_nearly_a_list_is_harmless(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in 0..40usize,
    ) {
        let (json, list) = call();
        let formats: [(Read, Vec<u8>); 3] =
            [(json::spans_v2, json.to_string().into_bytes()), (proto::spans, list.encode_to_vec()), (thrift::spans, v1::call())];
        for (read, mut bytes) in formats {
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(bytes.len() - cut);
            let budget = Budget::new(64 << 20);
            let mut spans = Spans::new(&RequestBudget::whole(&budget).open(), PARSED, bytes.len()).expect("fits");
            prop_assert!(!matches!(read(&bytes, &mut spans), Err(PushError::Overloaded(_))), "a few hundred bytes");
        }
    }
}
