//! The same batch in each format, what becomes of each field, and bytes that are no batch.

use proptest::prelude::*;
use prost::Message as _;
use vivace_core::budget::Budget;
use vivace_proto::jaeger::api_v2 as model;
use vivace_proto::otlp::any_value::Value as Any;
use vivace_proto::otlp::{KeyValue, ResourceSpans, TracesData, span::Link};
use vivace_server::RequestBudget;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::batch::{Batch, Reference, Span, Value, shop};

use super::{json, proto, thrift};
use crate::error::PushError;
use crate::receiver::spans::Spans;
use crate::receiver::tags::Dialect;
use crate::receiver::thrift::Encoding;

#[path = "../../../tests/it/jaeger_batch.rs"]
mod batch;

type Read = fn(&[u8], &mut Spans) -> Result<(), PushError>;

fn compact(bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    thrift::packet(Encoding::Compact, bytes, spans)
}

fn binary(bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    thrift::packet(Encoding::Binary, bytes, spans)
}

/// Reads bytes with so much memory.
fn read_within(budget_bytes: u64, read: Read, bytes: &[u8]) -> Result<TracesData, PushError> {
    let budget = Budget::new(budget_bytes * 4); // a quarter is for requests
    let mut spans = Spans::new(&RequestBudget::whole(&budget).open(), Dialect::Jaeger, bytes.len())?;
    read(bytes, &mut spans)?;
    let (body, charge) = spans.finish()?;
    assert!(charge.bytes() >= body.len() as u64);
    drop(charge);
    assert_eq!(budget.used(), 0);
    Ok(TracesData::decode(body).expect("what is written is OTLP"))
}

fn read(read: Read, bytes: &[u8]) -> Result<TracesData, PushError> {
    read_within(64 << 20, read, bytes)
}

/// What a batch becomes; the same in every format.
fn converted(batch: &Batch) -> TracesData {
    let traces = read(thrift::batch, &batch.http_body()).expect("valid");
    assert_eq!(read(thrift::batch, &batch.http_body_with_late_process()).expect("valid"), traces, "its process comes last");
    assert_eq!(read(compact, &batch.compact_packet()).expect("valid"), traces, "in compact thrift");
    assert_eq!(read(binary, &batch.binary_packet()).expect("valid"), traces, "in a packet of binary thrift");
    assert_eq!(read(proto::request, &batch.request_bytes()).expect("valid"), traces, "in protobuf");
    let whole = batch.request().batch.expect("there");
    if let [span] = &whole.spans[..] {
        let span = model::Span { process: whole.process.clone(), ..span.clone() };
        assert_eq!(read(proto::span, &span.encode_to_vec()).expect("valid"), traces, "as a message of its own");
        assert_eq!(read(json::span, json_of(&span).to_string().as_bytes()).expect("valid"), traces, "in JSON");
    }
    traces
}

/// A span in protobuf's JSON.
fn json_of(span: &model::Span) -> serde_json::Value {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    let time = |time: Option<&model::Timestamp>| {
        let time = time.copied().unwrap_or_default();
        let time = OffsetDateTime::from_unix_timestamp(time.seconds).expect("a time") + time::Duration::nanoseconds(time.nanos.into());
        time.format(&Rfc3339).expect("a time")
    };
    let tags = |tags: &[model::KeyValue]| -> serde_json::Value {
        let tag = |tag: &model::KeyValue| {
            json!({
                "key": tag.key, "vType": tag.v_type().as_str_name(), "vStr": tag.v_str, "vBool": tag.v_bool,
                "vInt64": tag.v_int64.to_string(), "vFloat64": tag.v_float64, "vBinary": base64(&tag.v_binary),
            })
        };
        tags.iter().map(tag).collect()
    };
    let log = |log: &model::Log| json!({ "fields": tags(&log.fields), "timestamp": time(log.timestamp.as_ref()) });
    let reference = |reference: &model::SpanRef| {
        json!({
            "traceId": base64(&reference.trace_id), "spanId": base64(&reference.span_id), "refType": reference.ref_type().as_str_name(),
        })
    };
    let duration = span.duration.unwrap_or_default();
    let process = span.process.as_ref().expect("there");
    json!({
        "traceId": base64(&span.trace_id), "spanId": base64(&span.span_id), "operationName": span.operation_name, "flags": 1,
        "references": span.references.iter().map(reference).collect::<serde_json::Value>(),
        "startTime": time(span.start_time.as_ref()), "duration": format!("{}.{:09}s", duration.seconds, duration.nanos),
        "tags": tags(&span.tags), "logs": span.logs.iter().map(log).collect::<serde_json::Value>(),
        "process": { "serviceName": process.service_name, "tags": tags(&process.tags) }, "warnings": null,
    })
}

fn only(traces: &TracesData) -> &ResourceSpans {
    let [resource] = &traces.resource_spans[..] else { panic!("{traces:?}") };
    resource
}

/// The one span that a span with these tags becomes.
fn span_with(tags: Vec<(&'static str, Value)>) -> vivace_proto::otlp::Span {
    let mut batch = shop(&[1]);
    batch.spans[0].tags = tags;
    only(&converted(&batch)).scope_spans[0].spans[0].clone()
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

#[test]
fn every_field_has_its_place() {
    let span = Span {
        trace_id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        id: 0x1112_1314_1516_1718,
        parent_id: -2,
        name: "GET /cart",
        start_micros: 1_700_000_000_123_456,
        duration_micros: 2_500,
        tags: vec![
            ("text", Value::Text("ä")),
            ("double", Value::Double(0.5)),
            ("bool", Value::Bool(true)),
            ("long", Value::Long(i64::MIN)),
            ("binary", Value::Binary(&[0, 0, 0, 0, 0x64, 0x7d, 0x98])),
        ],
        logs: vec![(1_700_000_000_123_999, vec![("event", Value::Text("miss")), ("key", Value::Text("cart/1"))])],
        ..Span::default()
    };
    let process_tags =
        vec![("hostname", Value::Text("box-1")), ("jaeger.version", Value::Text("Python-4.8.0")), ("ip", Value::Text("10.0.0.1"))];
    let traces = converted(&Batch { service: "shop", process_tags, spans: vec![span] });
    let resource = only(&traces);
    assert_eq!(
        texts(&resource.resource.as_ref().expect("there").attributes),
        [
            ("opencensus.exporterversion", "\"Jaeger-Python-4.8.0\"".to_owned()),
            ("ip", "\"10.0.0.1\"".to_owned()),
            ("host.name", "\"box-1\"".to_owned()),
            ("service.name", "\"shop\"".to_owned()),
        ]
    );
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!(hex::encode(&span.trace_id), "0102030405060708090a0b0c0d0e0f10");
    assert_eq!(hex::encode(&span.span_id), "1112131415161718");
    assert_eq!(hex::encode(&span.parent_span_id), "fffffffffffffffe");
    assert_eq!((span.name.as_str(), span.kind, &span.status), ("GET /cart", 0, &None));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_700_000_000_123_456_000, 1_700_000_000_125_956_000));
    assert_eq!(
        texts(&span.attributes),
        [
            ("text", "\"ä\"".to_owned()),
            ("double", "0.5".to_owned()),
            ("bool", "true".to_owned()),
            ("long", i64::MIN.to_string()),
            ("binary", "\"AAAAAGR9mA==\"".to_owned()),
        ]
    );
    let event = &span.events[0];
    assert_eq!((event.time_unix_nano, event.name.as_str()), (1_700_000_000_123_999_000, "miss"));
    assert_eq!(texts(&event.attributes), [("key", "\"cart/1\"".to_owned())]);
}

#[test]
fn tags_that_have_fields_are_no_attributes() {
    let span = span_with(vec![
        ("span.kind", Value::Text("server")),
        ("w3c.tracestate", Value::Text("a=b")),
        ("otel.scope.name", Value::Text("lib")),
        ("otel.scope.version", Value::Text("1.2")),
        ("otel.status_code", Value::Text("OK")),
        ("otel.status_description", Value::Text("fine")),
    ]);
    assert_eq!((span.kind, span.trace_state.as_str(), span.attributes.len()), (2, "a=b", 0));
    let status = span.status.expect("there");
    assert_eq!((status.code, status.message.as_str()), (1, "fine"));
    assert_eq!(span_with(vec![("span.kind", Value::Text("other"))]).attributes.len(), 1, "no kind that there is");
}

#[test]
fn spans_of_one_library_after_the_other_share_a_scope() {
    let mut batch = shop(&[1, 2, 3, 4]);
    for (span, scope) in batch.spans.iter_mut().zip(["a", "a", "b", "a"]) {
        span.tags.push(("otel.library.name", Value::Text(scope)));
    }
    let traces = converted(&batch);
    let scopes: Vec<_> =
        only(&traces).scope_spans.iter().map(|s| (s.scope.as_ref().expect("there").name.as_str(), s.spans.len())).collect();
    assert_eq!(scopes, [("a", 2), ("b", 1), ("a", 1)]);
}

#[test]
fn a_status_is_what_tags_say_of_errors() {
    let status = |tags: Vec<(&'static str, Value)>| span_with(tags).status.map(|status| (status.code, status.message));
    let error = |message: &str| Some((2, message.to_owned()));
    assert_eq!(status(vec![("error", Value::Bool(true))]), error(""));
    assert_eq!(status(vec![("error", Value::Text("true")), ("otel.status_description", Value::Text("why"))]), error("why"));
    assert_eq!(status(vec![("error", Value::Bool(true)), ("http.status_message", Value::Text("gone"))]), error("gone"));
    assert_eq!(status(vec![("error", Value::Bool(true)), ("otel.status_code", Value::Text("OK"))]), error(""), "the former is the truth");
    assert_eq!(status(vec![("error", Value::Bool(false))]), None);
    assert_eq!(status(vec![("error", Value::Bool(false)), ("otel.status_code", Value::Text("error"))]), error(""));
    assert_eq!(status(vec![("http.status_code", Value::Long(503))]), error(""));
    assert_eq!(status(vec![("http.status_code", Value::Text("404")), ("span.kind", Value::Text("client"))]), error(""));
    assert_eq!(status(vec![("http.status_code", Value::Long(404)), ("span.kind", Value::Text("server"))]), None);
    for (code, of_server, of_client) in [
        (-1, error(""), error("")),
        (99, error(""), error("")),
        (100, None, None),
        (200, None, None),
        (399, None, None),
        (400, None, error("")),
        (499, None, error("")),
        (500, error(""), error("")),
        (600, error(""), error("")),
    ] {
        let of = |kind| status(vec![("http.status_code", Value::Long(code)), ("span.kind", Value::Text(kind))]);
        assert_eq!((of("server"), of("client")), (of_server, of_client), "{code}");
    }
    assert_eq!(status(vec![("otel.status_code", Value::Text("STATUS_CODE_ERROR"))]), error(""));
    let left = span_with(vec![("otel.status_description", Value::Text("of nothing")), ("error", Value::Text("odd"))]);
    assert_eq!((left.status, left.attributes.len()), (None, 2), "what says nothing stays an attribute");
}

#[test]
fn a_log_is_named_by_its_event_or_else_its_message() {
    let mut batch = shop(&[1]);
    let text = |key, text| (key, Value::Text(text));
    batch.spans[0].logs = vec![
        (1, vec![text("message", "m")]),
        (2, vec![text("message", "m"), text("event", "e")]),
        (3, vec![text("level", "info")]),
        (4, vec![("event", Value::Long(5))]),
    ];
    let traces = converted(&batch);
    let events = &only(&traces).scope_spans[0].spans[0].events;
    let read: Vec<_> = events.iter().map(|e| (e.name.as_str(), texts(&e.attributes))).collect();
    assert_eq!(
        read,
        [
            ("m", vec![]),
            ("e", vec![("message", "\"m\"".to_owned())]),
            ("", vec![("level", "\"info\"".to_owned())]),
            ("", vec![("event", "5".to_owned())]),
        ]
    );
}

#[test]
fn references_are_the_parent_and_links() {
    let mut batch = shop(&[1]);
    let own = batch.spans[0].trace_id;
    let reference = |follows_from, trace_id, id| Reference { follows_from, trace_id, id };
    batch.spans[0].parent_id = 5;
    batch.spans[0].references = vec![reference(true, 9, 6), reference(false, own, 5), reference(true, own, 7), reference(false, own, 0)];
    let traces = {
        // Protobuf has ids of zeros as they are.
        batch.spans[0].references.pop();
        converted(&batch)
    };
    let span = &only(&traces).scope_spans[0].spans[0];
    assert_eq!(hex::encode(&span.parent_span_id), "0000000000000005");
    let links: Vec<_> = span.links.iter().map(|l: &Link| (hex::encode(&l.span_id), texts(&l.attributes)[0].1.clone())).collect();
    let follows = "\"follows_from\"".to_owned();
    assert_eq!(links, [("0000000000000006".to_owned(), follows.clone()), ("0000000000000007".to_owned(), follows)]);
    assert_eq!(hex::encode(&span.links[0].trace_id), format!("{:032x}", 9));

    // Where nothing but a reference names it.
    batch.spans[0].parent_id = 0;
    let span = |read_: Read, bytes: Vec<u8>| only(&read(read_, &bytes).expect("valid")).scope_spans[0].spans[0].clone();
    assert_eq!(span(thrift::batch, batch.http_body()).parent_span_id.last(), Some(&5));
    batch.spans[0].references = vec![reference(true, own, 7)];
    assert_eq!(span(proto::request, batch.request_bytes()).parent_span_id.last(), Some(&7));
    assert!(span(thrift::batch, batch.http_body()).parent_span_id.is_empty(), "thrift has a field for the parent");
}

#[test]
fn times_and_ids_of_any_kind_are_taken() {
    let mut batch = shop(&[1]);
    (batch.spans[0].start_micros, batch.spans[0].duration_micros) = (i64::MAX, i64::MAX);
    let long = read(thrift::batch, &batch.http_body()).expect("valid");
    assert_eq!(only(&long).scope_spans[0].spans[0].end_time_unix_nano, u64::MAX);
    (batch.spans[0].start_micros, batch.spans[0].duration_micros) = (-5, -5);
    let before = read(thrift::batch, &batch.http_body()).expect("valid");
    assert_eq!(only(&before).scope_spans[0].spans[0].end_time_unix_nano, 0);
    let mut request = batch.request();
    request.batch.as_mut().expect("there").spans[0].trace_id = vec![7; 8].into();
    let short = read(proto::request, &request.encode_to_vec()).expect("valid");
    assert_eq!(hex::encode(&only(&short).scope_spans[0].spans[0].trace_id), "00000000000000000707070707070707");
}

#[test]
fn a_span_of_protobuf_may_have_a_process_of_its_own() {
    let mut request = shop(&[1, 2, 3]).request();
    let spans = &mut request.batch.as_mut().expect("there").spans;
    spans[1].process = Some(vivace_proto::jaeger::api_v2::Process { service_name: "cart".to_owned(), tags: vec![] });
    let traces = read(proto::request, &request.encode_to_vec()).expect("valid");
    let services: Vec<_> =
        traces.resource_spans.iter().map(|r| texts(&r.resource.as_ref().expect("there").attributes)[0].1.clone()).collect();
    assert_eq!(services, ["\"shop\"", "\"cart\"", "\"shop\""]);
}

#[test]
fn what_is_no_batch_is_refused_by_name() {
    let error = |read_: Read, bytes: &[u8]| read(read_, bytes).expect_err("broken").to_string();
    let packet = shop(&[1]).compact_packet();
    let cut = error(compact, &packet[..packet.len() - 20]);
    assert!(cut.starts_with("the packet is no valid thrift at byte ") && cut.ends_with(": it ends too early"), "{cut}");
    assert_eq!(error(compact, b"GET / HTTP/1.1"), "the packet is no valid thrift at byte 1: invalid compact protocol header 71");
    assert!(error(binary, &packet).contains("received bad version"));
    let other = [&[0x82, 0x81, 0x01, 15][..], b"emitZipkinBatch", &[0]].concat();
    assert_eq!(error(compact, &other), "the packet calls \"emitZipkinBatch\" (OneWay), only emitBatch is taken");
    assert_eq!(error(thrift::batch, &[0, 1, 2]), "a batch without its process or its spans");
    let empty = [&[0x82, 0x81, 0x01, 9][..], b"emitBatch", &[0]].concat();
    assert_eq!(error(compact, &empty), "the packet calls emitBatch without a batch");
    assert!(error(proto::span, &[0x0a, 0x05, 1]).starts_with("the message is no Span of Jaeger's: "));
    for (text, why) in [
        ("[]", "expected a span"),
        (r#"{"traceId": "*"}"#, "Invalid symbol"),
        (r#"{"duration": "1.5"}"#, "a duration such as 1.5s was expected"),
        (r#"{"duration": "1.x5s"}"#, "a duration such as 1.5s was expected"),
        (r#"{"startTime": "yesterday"}"#, "a time such as 2026-01-02T03:04:05.678Z"),
        (r#"{"tags": 5}"#, "expected a list of tags"),
    ] {
        let text = error(json::span, text.as_bytes());
        assert!(text.starts_with("the message is no span of Jaeger's in JSON: ") && text.contains(why), "{text}");
    }
    let text = error(proto::request, &[0x0a, 0x05, 1]);
    assert!(text.contains("the request is no PostSpansRequest: message ends inside a field"), "{text}");
}

#[test]
fn what_is_only_claimed_takes_nothing() {
    // A list of 2^31 - 1 spans, and one within the other.
    let claims = [0x7f, 0xff, 0xff, 0xff];
    let spans = [&[0x0f, 0, 2, 0x0c][..], &claims].concat();
    let error = |bytes: &[u8]| read_within(1 << 20, thrift::batch, bytes).expect_err("a claim").to_string();
    assert!(error(&[&[0x0c, 0, 1, 0][..], &spans].concat()).contains("Container would require"), "{}", error(&spans));
    let nested = [&[0x0f, 0, 9][..], &[0x0f, 0, 0, 0, 1].repeat(1000)].concat();
    assert!(error(&nested).contains("cannot parse past"), "{}", error(&nested));
    let long = [&[0x0c, 0, 1, 0x0b, 0, 1][..], &claims].concat();
    assert!(error(&long).contains("exceeds maximum allowed size"), "{}", error(&long));
}

/// A batch with a list of so many empty structs of a byte each, as dense as it gets: of a span's field, or spans.
fn of_empty_items(field: Option<u8>, items: u32) -> Vec<u8> {
    let list = |field| [&[0x0f, 0, field, 0x0c][..], &items.to_be_bytes(), &vec![0; items as usize]].concat();
    let spans = match field {
        None => list(2),
        Some(field) => [&[0x0f, 0, 2, 0x0c, 0, 0, 0, 1][..], &list(field), &[0]].concat(),
    };
    [&[0x0c, 0, 1, 0][..], &spans, &[0]].concat()
}

#[test]
fn empty_items_take_no_more_than_they_are() {
    for field in [10, 11] {
        let batch = of_empty_items(Some(field), 14_000);
        read_within(1 << 20, thrift::batch, &batch).expect("fits");
        let error = read_within(150 << 10, thrift::batch, &batch);
        assert!(matches!(error, Err(PushError::Overloaded(_))), "{field}");
    }
    read_within(1 << 20, thrift::batch, &of_empty_items(Some(6), 200_000)).expect("a reference without an id is none");
}

#[test]
fn nothing_becomes_many_times_of_what_it_is() {
    for field in [None, Some(11)] {
        let batch = of_empty_items(field, 200_000);
        let error = read_within(64 << 20, thrift::batch, &batch).expect_err("eleven bytes or more of each");
        assert!(matches!(error, PushError::Grows(_)) && error.is_too_large() && error.retry_after().is_none(), "{error}");
        assert!(error.to_string().contains("would become more than 1665"), "{error}");
    }
    // A process of 10 KB that every other span has again.
    let mut request = shop(&[1]).request();
    let batch = request.batch.as_mut().expect("there");
    batch.process.as_mut().expect("there").service_name = "s".repeat(10_000);
    let other = model::Span { process: Some(model::Process::default()), ..batch.spans[0].clone() };
    batch.spans = std::iter::repeat_n([batch.spans[0].clone(), other], 200).flatten().collect();
    assert!(matches!(read(proto::request, &request.encode_to_vec()), Err(PushError::Grows(_))));
}

#[test]
fn what_a_request_holds_altogether_says_whether_it_ever_fits() {
    let budget = Budget::new(4 << 20);
    let senders = RequestBudget::whole(&budget);
    let body = senders.charge(700 << 10).expect("fits");
    let mut spans = Spans::new(&body, Dialect::Jaeger, 100 << 10).expect("fits");
    spans.begin_span();
    // 800 KB are held, and of 1 MiB are left for it: less than it needs while it grows, however little else there is.
    let error = spans.name(&[b'n'; 300 << 10]).expect_err("no room");
    assert!(PushError::from(error).is_too_large());
    drop((spans, body));
    let _other = senders.charge(900 << 10).expect("fits");
    let mut spans = Spans::new(&senders.open(), Dialect::Jaeger, 10 << 10).expect("fits");
    spans.begin_span();
    let error = PushError::from(spans.name(&[b'n'; 120 << 10]).expect_err("no room"));
    assert!(!error.is_too_large() && error.retry_after().is_some(), "{error}");
}

#[test]
fn names_of_either_kind_and_nulls_are_read_in_json() {
    let text = r#"{
        "trace_id": "AAAAAAAAAAE=", "span_id": "AAAAAAAAAAI=", "operation_name": null, "start_time": null, "duration": "-1s",
        "references": [{"trace_id": "AAAAAAAAAAE=", "span_id": "AAAAAAAAAAM="}], "logs": null, "process": null,
        "tags": [{"key": "n", "v_type": 2, "v_int64": 5}, {"key": "f", "v_type": "FLOAT64", "v_float64": "NaN"}]
    }"#;
    let traces = read(json::span, text.as_bytes()).expect("valid");
    let span = &only(&traces).scope_spans[0].spans[0];
    assert_eq!(hex::encode(&span.trace_id), format!("{:032x}", 1), "old clients have half of it");
    assert_eq!(hex::encode(&span.parent_span_id), format!("{:016x}", 3));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (0, 0));
    assert_eq!(texts(&span.attributes), [("n", "5".to_owned()), ("f", "NaN".to_owned())]);
}

proptest! {
    #[test]
    fn whatever_comes_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for read_ in [compact as Read, binary, thrift::batch, proto::request, proto::span, json::span] {
            let _ = read_within(4 << 20, read_, &bytes);
        }
    }

    #[test]
    fn what_is_nearly_a_batch_is_harmless(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in 0..40usize,
    ) {
        let mut batch = shop(&[1, 2, 3]);
        batch.spans[1].logs = vec![(5, vec![("event", Value::Text("e"))])];
        batch.spans[2].references = vec![Reference { follows_from: true, trace_id: 7, id: 8 }];
        batch.process_tags = vec![("hostname", Value::Text("h")), ("d", Value::Double(1.5)), ("b", Value::Bool(true))];
        let whole = batch.request().batch.expect("there");
        let span = model::Span { process: whole.process.clone(), ..whole.spans[1].clone() };
        let formats: [(Read, Vec<u8>); 6] = [
            (proto::span, span.encode_to_vec()),
            (json::span, json_of(&span).to_string().into_bytes()),
            (compact, batch.compact_packet()),
            (binary, batch.binary_packet()),
            (thrift::batch, batch.http_body()),
            (proto::request, batch.request_bytes()),
        ];
        for (read_, mut bytes) in formats {
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(bytes.len() - cut);
            let budget = Budget::new(64 << 20);
            let mut spans = Spans::new(&RequestBudget::whole(&budget).open(), Dialect::Jaeger, bytes.len()).expect("fits");
            let result = read_(&bytes, &mut spans);
            prop_assert!(!matches!(result, Err(PushError::Overloaded(_))), "a few hundred bytes");
        }
    }
}
