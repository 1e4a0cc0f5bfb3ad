//! What messages become: by encoding, with headers, and where they are broken or too large.

use bytes::Bytes;
use krafka::Headers;
use proptest::prelude::*;
use prost::Message as _;
use vivace_config::KafkaEncoding;
use vivace_core::budget::Budget;
use vivace_proto::otlp::any_value::Value as Any;
use vivace_proto::otlp::{AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, TracesData};
use vivace_server::RequestBudget;

use super::convert::Converter;
use super::headers::with_attributes;
use crate::error::PushError;

const BUDGET_BYTES: u64 = 64 << 20;

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) }) }
}

/// Spans of a resource each; none is one whose resource is left out.
fn request(resources: &[Option<&str>]) -> TracesData {
    let of_resource = |service: &Option<&str>| ResourceSpans {
        resource: service.map(|service| Resource { attributes: vec![text("service.name", service)], ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans: vec![Span { name: "s".to_owned(), ..Span::default() }], ..ScopeSpans::default() }],
        schema_url: "https://example.com/1".to_owned(),
    };
    TracesData { resource_spans: resources.iter().map(of_resource).collect() }
}

fn header(name: &str, value: &'static str) -> (String, Option<Bytes>) {
    (name.to_owned(), Some(Bytes::from_static(value.as_bytes())))
}

async fn convert(encoding: KafkaEncoding, named: &[&str], message: &[u8], headers: Headers) -> Result<TracesData, PushError> {
    let budget = Budget::new(BUDGET_BYTES);
    let headers_of = named.iter().map(|name| (*name).to_owned()).collect();
    let converter = Converter { encoding, headers: headers_of, requests: RequestBudget::whole(&budget) };
    let (body, charge) = converter.convert(&Bytes::copy_from_slice(message), &headers).await?;
    assert!(charge.bytes() >= body.len() as u64, "all of it is paid for");
    drop(charge);
    assert_eq!(budget.used(), 0, "all is given back");
    Ok(TracesData::decode(body).expect("OTLP"))
}

#[tokio::test]
async fn headers_become_attributes_of_every_resource() {
    let headers = vec![header("zone", "b"), header("ZONE", "c"), ("none".to_owned(), None), header("zone", "d"), header("none", "e")];
    let sent = request(&[Some("shop"), None, Some("cart")]);
    let found =
        convert(KafkaEncoding::OtlpProto, &["zone", "none", "absent"], &sent.encode_to_vec(), headers.clone()).await.expect("valid");
    let mut wanted = sent.clone();
    for group in &mut wanted.resource_spans {
        let attributes = &mut group.resource.get_or_insert_default().attributes;
        attributes.extend([text("kafka.header.zone", "b"), text("kafka.header.none", "e")]);
    }
    assert_eq!(found, wanted);
    let untouched = convert(KafkaEncoding::OtlpProto, &["absent"], &sent.encode_to_vec(), headers).await.expect("valid");
    assert_eq!(untouched, sent);
}

#[tokio::test]
async fn a_resource_in_parts_stays_whole() {
    let sent = request(&[Some("shop")]);
    let mut group = sent.resource_spans[0].encode_to_vec();
    let later =
        ResourceSpans { resource: Some(Resource { dropped_attributes_count: 7, ..Resource::default() }), ..ResourceSpans::default() };
    group.extend_from_slice(&later.encode_to_vec());
    let mut message = Vec::new();
    vivace_core::wire::put_bytes(&mut message, 1, &group);
    let found = convert(KafkaEncoding::OtlpProto, &["a"], &message, vec![header("a", "b")]).await.expect("valid");
    let resource = found.resource_spans[0].resource.as_ref().expect("there");
    assert_eq!(resource.dropped_attributes_count, 7);
    assert_eq!(resource.attributes, [text("service.name", "shop"), text("kafka.header.a", "b")]);
}

#[tokio::test]
async fn broken_messages_are_refused_for_good() {
    let claims = [&[0x0a][..], &[0xff, 0xff, 0xff, 0xff, 0x07], b"short"].concat();
    let headers = || vec![header("a", "b")];
    for (encoding, message) in [
        (KafkaEncoding::OtlpProto, &claims[..]),
        (KafkaEncoding::OtlpJson, b"{"),
        (KafkaEncoding::JaegerProto, &claims),
        (KafkaEncoding::JaegerJson, b"[]"),
        (KafkaEncoding::ZipkinProto, &claims),
        (KafkaEncoding::ZipkinJson, b"{}"),
        (KafkaEncoding::ZipkinThrift, &[0x0c, 0x7f, 0xff, 0xff, 0xff]),
    ] {
        let error = convert(encoding, &["a"], message, headers()).await.expect_err("broken");
        assert!(matches!(error, PushError::Malformed(_)) && !error.may_pass_later(), "{encoding}: {error}");
    }
}

#[tokio::test]
async fn what_has_no_room_now_may_pass_later() {
    let budget = Budget::new(64 << 10);
    let requests = RequestBudget::whole(&budget);
    let converter = Converter { encoding: KafkaEncoding::OtlpProto, headers: vec![], requests: requests.clone() };
    let of_bytes = |len| {
        let mut message = Vec::new();
        vivace_core::wire::put_bytes(&mut message, 1, &vec![0; len]);
        Bytes::from(message)
    };
    let (small, large) = (of_bytes(1000), of_bytes(1 << 20));
    let others = requests.charge(requests_limit(&budget) - 500).expect("fits");
    let error = converter.convert(&small, &vec![]).await.expect_err("no room");
    assert!(error.may_pass_later(), "{error}");
    drop(others);
    converter.convert(&small, &vec![]).await.expect("room again");
    let error = converter.convert(&large, &vec![]).await.expect_err("never");
    assert!(!error.may_pass_later(), "{error}");
}

fn requests_limit(budget: &Budget) -> u64 {
    budget.limit_of(vivace_core::budget::Account::Requests)
}

proptest! {
    #[test]
    fn attributes_are_put_into_whatever_comes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let charge = RequestBudget::whole(&Budget::new(BUDGET_BYTES)).open();
        // What is read at all is read as before, but for the attribute.
        if let (Ok((out, _)), Ok(before)) = (with_attributes(&bytes, &[("a", b"b")], &charge), TracesData::decode(&bytes[..])) {
            let after = TracesData::decode(&out[..]).expect("still a request");
            prop_assert_eq!(after.resource_spans.len(), before.resource_spans.len());
        }
    }
}
