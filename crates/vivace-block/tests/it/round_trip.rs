//! Any trace that a client can send comes back from a block as it went in, after the losses that the format has.
//!
//! Source: docs/facts/blocks.md, "OTLP to row rules" and "Row → OTLP".

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message as _;
use vivace_block::verify::Verdict;
use vivace_block::{BlockOptions, BlockReader, DedicatedColumn, DedicatedScope, DedicatedType};
use vivace_core::TraceId;
use vivace_core::combine::identity;
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::span::{Event, Link};
use vivace_proto::otlp::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, Resource, ResourceSpans, ScopeSpans, Span, Status,
};

use crate::made::{Made, of_otlp};

type Trace = Vec<ResourceSpans>;

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{1,3}",
        1 => Just(String::new()),
        1 => Just("nul \0 and \u{1f980} and e\u{301} and \u{202e}".to_owned()),
        1 => any::<String>(),
        1 => (300usize..3000).prop_map(|len| "long ".repeat(len / 5)),
    ]
}

fn scalar() -> impl Strategy<Value = AnyKind> {
    prop_oneof![
        3 => any_text().prop_map(AnyKind::StringValue),
        1 => any::<i64>().prop_map(AnyKind::IntValue),
        1 => (-3i64..3).prop_map(AnyKind::IntValue),
        1 => prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::NEG_INFINITY), Just(-0.0)].prop_map(AnyKind::DoubleValue),
        1 => any::<bool>().prop_map(AnyKind::BoolValue),
    ]
}

fn value() -> impl Strategy<Value = AnyValue> {
    let wrap = |kind: AnyKind| AnyValue { value: Some(kind) };
    let array = |values: Vec<AnyValue>| AnyKind::ArrayValue(ArrayValue { values });
    let leaf = prop_oneof![
        6 => scalar().prop_map(wrap),
        1 => Just(AnyValue { value: None }),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| AnyValue { value: Some(AnyKind::BytesValue(bytes.into())) }),
        // All of one kind.
        1 => prop::collection::vec(any_text(), 0..4).prop_map(move |texts| wrap(array(texts.into_iter().map(|text| wrap(AnyKind::StringValue(text))).collect()))),
        1 => prop::collection::vec(any::<i64>(), 0..4).prop_map(move |numbers| wrap(array(numbers.into_iter().map(|number| wrap(AnyKind::IntValue(number))).collect()))),
        1 => prop::collection::vec(any::<f64>(), 1..4).prop_map(move |numbers| wrap(array(numbers.into_iter().map(|number| wrap(AnyKind::DoubleValue(number))).collect()))),
        1 => prop::collection::vec(any::<bool>(), 1..4).prop_map(move |flags| wrap(array(flags.into_iter().map(|flag| wrap(AnyKind::BoolValue(flag))).collect()))),
    ];
    leaf.prop_recursive(2, 8, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(move |values| wrap(array(values))),
            prop::collection::vec((any_text(), inner), 0..3).prop_map(move |pairs| {
                let values = pairs.into_iter().map(|(key, value)| KeyValue { key, value: Some(value) }).collect();
                wrap(AnyKind::KvlistValue(KeyValueList { values }))
            }),
        ]
    })
}

/// Keys that repeat, of the format's own columns and of configured ones among them.
fn attributes(own: &'static [&'static str]) -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof![
        3 => prop::sample::select(own).prop_map(str::to_owned),
        3 => "[a-d]",
        1 => any_text(),
    ];
    let pair = (key, value()).prop_map(|(key, value)| KeyValue { key, value: Some(value) });
    prop::collection::vec(pair, 0..5)
}

const RESOURCE_KEYS: &[&str] = &["service.name", "cluster", "k8s.pod.name", "host.name", "http.method"];
const SPAN_KEYS: &[&str] = &["http.method", "http.url", "http.status_code", "db.system", "service.name", "cluster"];

fn options() -> BlockOptions {
    let dedicated = |scope, name| DedicatedColumn::new(scope, name, DedicatedType::String);
    let dedicated_columns = vec![dedicated(DedicatedScope::Resource, "host.name"), dedicated(DedicatedScope::Span, "db.system")];
    BlockOptions { dedicated_columns, row_group_traces: 2, row_group_otlp_bytes: 64, ..BlockOptions::default() }
}

fn dropped() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => any::<u32>()]
}

fn id(len: usize) -> impl Strategy<Value = prost::bytes::Bytes> {
    prop::collection::vec(any::<u8>(), len).prop_map(Into::into)
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), any_text(), attributes(SPAN_KEYS), dropped()).prop_map(|(time_unix_nano, name, attributes, dropped_attributes_count)| {
        Event { time_unix_nano, name, attributes, dropped_attributes_count }
    })
}

fn link() -> impl Strategy<Value = Link> {
    let ids = (prop_oneof![id(16), id(0), id(5)], prop_oneof![id(8), id(0), id(3)]);
    (ids, any_text(), attributes(SPAN_KEYS), dropped()).prop_map(
        |((trace_id, span_id), trace_state, attributes, dropped_attributes_count)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags: 0,
        },
    )
}

fn span() -> impl Strategy<Value = Span> {
    let small = (0u8..9).prop_map(|id| prost::bytes::Bytes::from(vec![0, 0, 0, 0, 0, 0, 0, id]));
    let ids = (small.clone(), prop_oneof![2 => Just(prost::bytes::Bytes::new()), 1 => Just(vec![0; 8].into()), 3 => small]);
    let times = (
        prop_oneof![1 => Just(0), 5 => 1_795_176_000_000_000_000u64..1_795_176_100_000_000_000],
        prop_oneof![5 => 0..1u64 << 40, 1 => Just(u64::MAX)],
    );
    let status = prop::option::of((0i32..3, any_text()).prop_map(|(code, message)| Status { code, message }));
    let lists = (attributes(SPAN_KEYS), prop::collection::vec(event(), 0..3), prop::collection::vec(link(), 0..2));
    let counts = (dropped(), dropped(), dropped());
    (ids, any_text(), any_text(), -1i32..9, times, status, lists, counts).prop_map(
        |((span_id, parent_span_id), name, trace_state, kind, (start, length), status, (attributes, events, links), counts)| Span {
            span_id,
            parent_span_id,
            name,
            trace_state,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: start.wrapping_add(length),
            status,
            attributes,
            events,
            links,
            dropped_attributes_count: counts.0,
            dropped_events_count: counts.1,
            dropped_links_count: counts.2,
            // Not stored.
            flags: 0x101,
            ..Span::default()
        },
    )
}

fn trace() -> impl Strategy<Value = Trace> {
    let scope =
        (any_text(), "[12]?", attributes(SPAN_KEYS), dropped()).prop_map(|(name, version, attributes, dropped_attributes_count)| {
            InstrumentationScope { name, version, attributes, dropped_attributes_count }
        });
    let of_scope = (prop::option::weighted(0.8, scope), prop::collection::vec(span(), 1..4)).prop_map(|(scope, spans)| ScopeSpans {
        scope,
        spans,
        schema_url: "https://not.stored".to_owned(),
    });
    let resource = (attributes(RESOURCE_KEYS), dropped())
        .prop_map(|(attributes, dropped_attributes_count)| Resource { attributes, dropped_attributes_count });
    let of_resource = (prop::option::weighted(0.9, resource), prop::collection::vec(of_scope, 1..3))
        .prop_map(|(resource, scope_spans)| ResourceSpans { resource, scope_spans, schema_url: "https://not.stored".to_owned() });
    prop::collection::vec(of_resource, 1..4)
}

/// A column that takes attributes of this key and kind.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Text,
    Int,
}

fn column_of(scope: DedicatedScope, key: &str) -> Option<Takes> {
    match (scope, key) {
        (DedicatedScope::Resource, "service.name" | "cluster" | "k8s.pod.name" | "host.name") => Some(Takes::Text),
        (DedicatedScope::Span, "http.method" | "http.url" | "db.system") => Some(Takes::Text),
        (DedicatedScope::Span, "http.status_code") => Some(Takes::Int),
        _ => None,
    }
}

/// Attributes as they are after storage, sorted: of several values for a column of their own the last one stays, an empty
/// service name is none, and a value that is not there is one that is not set.
fn stored(scope: DedicatedScope, attributes: &[KeyValue]) -> Vec<(String, Vec<u8>)> {
    let fits = |attribute: &KeyValue| {
        let kind = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        match column_of(scope, &attribute.key) {
            Some(Takes::Text) => matches!(kind, Some(AnyKind::StringValue(_))),
            Some(Takes::Int) => matches!(kind, Some(AnyKind::IntValue(_))),
            None => false,
        }
    };
    let mut out = Vec::new();
    for (i, attribute) in attributes.iter().enumerate() {
        let is_overwritten = fits(attribute) && attributes[i + 1..].iter().any(|later| later.key == attribute.key && fits(later));
        let value = attribute.value.clone().unwrap_or_default();
        let is_no_name = scope == DedicatedScope::Resource
            && attribute.key == "service.name"
            && value.value == Some(AnyKind::StringValue(String::new()));
        if !is_overwritten && !is_no_name {
            // Encoded, since NaN is not equal to itself.
            out.push((attribute.key.clone(), value.encode_to_vec()));
        }
    }
    out.sort();
    out
}

/// Everything about one span that must come back.
fn shown(id: TraceId, resource: &ResourceSpans, scope: &ScopeSpans, span: &Span) -> String {
    let nothing = Resource::default();
    let of_resource = stored(DedicatedScope::Resource, &resource.resource.as_ref().unwrap_or(&nothing).attributes);
    let of_scope = scope.scope.clone().unwrap_or_default();
    let generic = |attributes: &[KeyValue]| stored(DedicatedScope::Event, attributes);
    let events: Vec<_> = span
        .events
        .iter()
        .map(|event| (event.time_unix_nano, &event.name, generic(&event.attributes), event.dropped_attributes_count))
        .collect();
    let links: Vec<_> = span
        .links
        .iter()
        .map(|link| (&link.trace_id, &link.span_id, &link.trace_state, generic(&link.attributes), link.dropped_attributes_count))
        .collect();
    let status = span.status.clone().unwrap_or_default();
    let parent = if span.parent_span_id.iter().all(|byte| *byte == 0) { &[][..] } else { &span.parent_span_id[..] };
    format!(
        "{id} {:?} {parent:?} {:?} {:?} {} {}..{} {} {:?} {:?} events {events:?} links {links:?} dropped {} {} {} scope {:?} {:?} {:?} resource {of_resource:?}",
        &span.span_id[..],
        span.name,
        span.trace_state,
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        status.code,
        status.message,
        stored(DedicatedScope::Span, &span.attributes),
        span.dropped_attributes_count,
        span.dropped_events_count,
        span.dropped_links_count,
        of_scope.name,
        of_scope.version,
        generic(&of_scope.attributes),
    )
}

/// Of copies of a span the first one stays.
fn spans(id: TraceId, trace: &Trace) -> Vec<String> {
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for resource in trace {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                if !seen.contains(&identity(span)) {
                    seen.push(identity(span));
                    out.push(shown(id, resource, scope, span));
                }
            }
        }
    }
    out.sort();
    out
}

fn read(made: &Made) -> Vec<(TraceId, Trace)> {
    let block = BlockReader::open(made.meta.clone(), Arc::new(made.data.clone())).expect("the block opens");
    block.traces().collect::<Result<_, _>>().expect("the traces are read")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_goes_in_comes_out_but_for_the_known_losses(traces in prop::collection::vec(trace(), 1..4)) {
        let traces: Vec<(TraceId, Trace)> = (1u8..).map(|id| TraceId([id; 16])).zip(traces).collect();
        let made = of_otlp(options(), &traces);
        let back = read(&made);
        prop_assert_eq!(back.len(), traces.len());
        for ((id, trace), (back_id, back)) in traces.iter().zip(&back) {
            prop_assert_eq!(id, back_id);
            let (want, got) = (spans(*id, trace), spans(*id, back));
            for (want, got) in want.iter().zip(&got) {
                prop_assert_eq!(got, want);
            }
            prop_assert_eq!(got.len(), want.len());
            // What was lost is lost once: what came back comes back again.
            for span in back.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans) {
                prop_assert_eq!(&span.trace_id[..], id.0);
                prop_assert_eq!(span.flags, 0);
                prop_assert!(span.status.is_some());
            }
            prop_assert!(back.iter().all(|resource| resource.schema_url.is_empty() && resource.resource.is_some()));
        }
        let again = read(&of_otlp(options(), &back));
        for ((id, once), (_, twice)) in back.iter().zip(&again) {
            prop_assert_eq!(spans(*id, once), spans(*id, twice));
        }
        // And Parquet's own reader agrees on what is derived.
        let report = made.verify();
        prop_assert!(report.checks.iter().all(|check| check.verdict <= Verdict::Note), "{:#?}", report);
    }

    /// The dropped counts of the first of equal resources and scopes stay.
    #[test]
    fn a_lone_resource_and_scope_keep_their_dropped_counts(resource in dropped(), scope in dropped(), span in span()) {
        let trace = vec![ResourceSpans {
            resource: Some(Resource { dropped_attributes_count: resource, ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { dropped_attributes_count: scope, ..InstrumentationScope::default() }),
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }];
        let back = read(&of_otlp(options(), &[(TraceId([1; 16]), trace)]));
        let of_resource = &back[0].1[0];
        prop_assert_eq!(of_resource.resource.as_ref().map(|r| r.dropped_attributes_count), Some(resource));
        prop_assert_eq!(of_resource.scope_spans[0].scope.as_ref().map(|s| s.dropped_attributes_count), Some(scope));
    }
}

/// Attributes come back in the order that the original answers them in: generic ones as sent, then dedicated columns, then
/// those of the format; of resources the generic ones by key, and the service before the format's others.
#[test]
fn the_order_of_attributes_is_the_originals() {
    let texts = |keys: &[&str]| -> Vec<KeyValue> {
        let one =
            |key: &&str| KeyValue { key: (*key).to_owned(), value: Some(AnyValue { value: Some(AnyKind::StringValue("x".to_owned())) }) };
        keys.iter().map(one).collect()
    };
    let resource = Resource { attributes: texts(&["z", "cluster", "host.name", "a", "service.name"]), ..Resource::default() };
    let span =
        Span { span_id: vec![1; 8].into(), attributes: texts(&["z", "http.url", "db.system", "a", "http.method"]), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let trace = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    let back = read(&of_otlp(options(), &[(TraceId([1; 16]), trace)]));
    let keys = |attributes: &[KeyValue]| attributes.iter().map(|attribute| attribute.key.clone()).collect::<Vec<_>>();
    let of_resource = &back[0].1[0];
    assert_eq!(keys(&of_resource.resource.as_ref().expect("a resource").attributes), ["a", "z", "host.name", "service.name", "cluster"]);
    assert_eq!(keys(&of_resource.scope_spans[0].spans[0].attributes), ["z", "a", "db.system", "http.method", "http.url"]);
}

/// Ids of any length come back as sent, and spans are told apart by their first eight bytes.
#[test]
fn odd_span_ids_stay_as_they_are() {
    let span = |id: &[u8], name: &str| Span { span_id: id.to_vec().into(), name: name.to_owned(), ..Span::default() };
    let spans =
        vec![span(&[], "none"), span(&[1], "short"), span(&[2; 12], "long"), span(&[1, 0], "the same as short"), span(&[3; 8], "right")];
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let back = read(&of_otlp(options(), &[(TraceId([1; 16]), vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }])]));
    let names: BTreeMap<Vec<u8>, &str> =
        back[0].1[0].scope_spans[0].spans.iter().map(|span| (span.span_id.to_vec(), span.name.as_str())).collect();
    let want: BTreeMap<Vec<u8>, &str> = [(vec![], "none"), (vec![1], "short"), (vec![2; 12], "long"), (vec![3; 8], "right")].into();
    assert_eq!(names, want);
}
