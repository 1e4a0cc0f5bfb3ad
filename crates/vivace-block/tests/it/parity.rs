//! A span is the same wherever it lies: live, in a block, in a block that was merged, put together from parts, and in a block that
//! Tempo wrote of it. Every field at its ends, whatever a client may send.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, SpanRef, live, merge};
use vivace_core::combine::combine;
use vivace_core::otlp::walk_spans;
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, Resource, ResourceSpans, ScopeSpans, Span, Status, span,
};
use vivace_traceql::{Attribute, Batch, Scope, Value};

use crate::made;
use crate::read::{expected, has_shared_span_ids, open};
use crate::read_written::{Parts, parts, refs};

const START: u64 = 1_795_176_000_000_000_000;
/// In the year 2200.
const FAR: u64 = 7_258_118_400_000_000_000;

type Trace = Vec<ResourceSpans>;

fn attribute(key: &str, value: AnyKind) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, AnyKind::StringValue(value.to_owned()))
}

fn array(values: impl IntoIterator<Item = AnyKind>) -> AnyKind {
    AnyKind::ArrayValue(ArrayValue { values: values.into_iter().map(|value| AnyValue { value: Some(value) }).collect() })
}

/// Values of every kind.
fn values() -> Vec<AnyKind> {
    use AnyKind::{BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue};
    let mut values = vec![StringValue(String::new()), StringValue("x\0ü".to_owned()), BoolValue(false), BoolValue(true)];
    values.extend([0, -1, 1, i64::MIN, i64::MAX].map(IntValue));
    values.extend([0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE].map(DoubleValue));
    values.extend([BytesValue(Bytes::new()), BytesValue(vec![0, 0xff].into())]);
    values.push(KvlistValue(KeyValueList { values: Vec::new() }));
    values.push(KvlistValue(KeyValueList { values: vec![text("", ""), attribute("n", array([IntValue(1)]))] }));
    values.extend([array([]), array([IntValue(7)]), array([StringValue(String::new())]), array([BoolValue(true), BoolValue(false)])]);
    values.extend([
        array([DoubleValue(f64::NAN), DoubleValue(1.0)]),
        array([IntValue(1), StringValue("1".to_owned())]),
        array([array([])]),
    ]);
    values
}

type Change = Box<dyn Fn(&mut Resource, &mut InstrumentationScope, &mut Span)>;

/// What clients may send beside the usual, one thing each.
fn changes() -> Vec<Change> {
    let mut changes: Vec<Change> = vec![Box::new(|_, _, _| {})];
    let mut others: Vec<Change> = Vec::new();
    let mut of_span = |change: Box<dyn Fn(&mut Span)>| changes.push(Box::new(move |_, _, span| change(span)));
    for len in [0, 1, 3, 7, 8, 9, 16, 20] {
        of_span(Box::new(move |span| span.parent_span_id = vec![0; len].into()));
        of_span(Box::new(move |span| span.parent_span_id = vec![5; len].into()));
        of_span(Box::new(move |span| span.span_id = vec![5; len].into()));
        of_span(Box::new(move |span| span.links = vec![span::Link { trace_id: vec![6; len].into(), ..Default::default() }]));
        of_span(Box::new(move |span| span.links = vec![span::Link { span_id: vec![0; len].into(), flags: 7, ..Default::default() }]));
    }
    for number in [0, 1, 5, 6, 7, 8, 9, 127, -1, i32::MIN, i32::MAX] {
        of_span(Box::new(move |span| span.kind = number));
        of_span(Box::new(move |span| span.status = Some(Status { code: number, message: "m".to_owned() })));
    }
    of_span(Box::new(|span| span.status = None));
    for time in [0, 1, START - 1, START, FAR, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        of_span(Box::new(move |span| span.start_time_unix_nano = time));
        of_span(Box::new(move |span| span.end_time_unix_nano = time));
        of_span(Box::new(move |span| (span.start_time_unix_nano, span.end_time_unix_nano) = (time, time)));
        of_span(Box::new(move |span| span.events = vec![span::Event { time_unix_nano: time, ..Default::default() }]));
    }
    for count in [1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        of_span(Box::new(move |span| span.dropped_attributes_count = count));
        of_span(Box::new(move |span| span.dropped_events_count = count));
        of_span(Box::new(move |span| span.dropped_links_count = count));
        of_span(Box::new(move |span| span.flags = count));
        of_span(Box::new(move |span| span.events = vec![span::Event { dropped_attributes_count: count, ..Default::default() }]));
        of_span(Box::new(move |span| span.links = vec![span::Link { dropped_attributes_count: count, ..Default::default() }]));
        others.push(Box::new(move |resource, _, _| resource.dropped_attributes_count = count));
        others.push(Box::new(move |_, scope, _| scope.dropped_attributes_count = count));
    }
    changes.append(&mut others);
    for name in ["", "\0", "ü", "a name"] {
        let texts: [for<'a> fn(&'a mut InstrumentationScope, &'a mut Span) -> &'a mut String; 4] =
            [|_, span| &mut span.name, |_, span| &mut span.trace_state, |scope, _| &mut scope.name, |scope, _| &mut scope.version];
        for of in texts {
            changes.push(Box::new(move |_, scope, span| name.clone_into(of(scope, span))));
        }
    }
    let keys = [
        "",
        "key",
        "service.name",
        "cluster",
        "namespace",
        "pod",
        "container",
        "k8s.cluster.name",
        "k8s.namespace.name",
        "k8s.pod.name",
        "k8s.container.name",
        "http.method",
        "http.url",
        "http.status_code",
        "http.route",
        "url.path",
    ];
    for key in keys {
        for value in values() {
            let all = attribute(key, value);
            changes.push(Box::new(move |resource, scope, span| {
                resource.attributes.push(all.clone());
                scope.attributes.push(all.clone());
                span.attributes.push(all.clone());
                span.events = vec![span::Event { name: "e".to_owned(), attributes: vec![all.clone()], ..Default::default() }];
                span.links = vec![span::Link { attributes: vec![all.clone()], ..Default::default() }];
            }));
        }
        changes.push(Box::new(move |resource, _, span| {
            resource.attributes.push(KeyValue { key: key.to_owned(), value: None });
            span.attributes.push(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: None }) });
        }));
        // Of a key that has a column one value stays, of others all. Which keys have one by configuration live spans do not know.
        if ["http.route", "url.path"].contains(&key) {
            continue;
        }
        let twice = [text(key, "one"), attribute(key, AnyKind::IntValue(2)), text(key, "two")];
        changes.push(Box::new(move |resource, _, span| {
            resource.attributes.extend(twice.clone());
            span.attributes.extend(twice.clone());
        }));
    }
    changes
}

/// Each change in a trace of its own, beside a usual span of the same resource and scope.
fn traces() -> Vec<(TraceId, Trace)> {
    let trace = |(number, change): (usize, Change)| {
        let id = TraceId((number as u128 + 1).to_be_bytes());
        let usual = |number: u8| Span {
            trace_id: id.0.to_vec().into(),
            span_id: vec![number; 8].into(),
            name: "usual".to_owned(),
            kind: 1,
            start_time_unix_nano: START + u64::from(number),
            end_time_unix_nano: START + 5_000_000,
            status: Some(Status::default()),
            ..Span::default()
        };
        let (mut resource, mut scope, mut span) = (Resource::default(), InstrumentationScope::default(), usual(2));
        change(&mut resource, &mut scope, &mut span);
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: vec![usual(1), span], ..ScopeSpans::default() }];
        (id, vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }])
    };
    changes().into_iter().enumerate().map(trace).collect()
}

/// Every span with its resource and scope, attributes in any order.
fn told(trace: &Trace) -> Vec<Vec<u8>> {
    let mut told: Vec<Vec<u8>> = Vec::new();
    for mut resource in trace.clone() {
        let sort = |attributes: &mut Vec<KeyValue>| attributes.sort_by_key(|attribute| (attribute.key.clone(), attribute.encode_to_vec()));
        resource.resource.iter_mut().for_each(|resource| sort(&mut resource.attributes));
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let mut span = span.clone();
                sort(&mut span.attributes);
                span.events.iter_mut().for_each(|event| sort(&mut event.attributes));
                let mut scope = ScopeSpans { spans: vec![span], ..scope.clone() };
                scope.scope.iter_mut().for_each(|scope| sort(&mut scope.attributes));
                told.push(ResourceSpans { scope_spans: vec![scope], ..resource.clone() }.encode_to_vec());
            }
        }
    }
    told.sort();
    told
}

fn reader(made: made::Made) -> BlockReader {
    BlockReader::open(made.meta, Arc::new(made.data)).expect("opens")
}

fn merged(inputs: &[BlockReader]) -> BlockReader {
    let writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([9; 16]), Vec::new(), 100).expect("starts");
    let block = merge(inputs, writer, &|| true).expect("merges").block;
    BlockReader::open(block.meta, Arc::new(Bytes::from(block.out))).expect("opens")
}

fn by_id(block: &BlockReader) -> BTreeMap<TraceId, Trace> {
    block.traces().collect::<Result<_, _>>().expect("reads")
}

fn live_of(id: TraceId, trace: &Trace) -> Trace {
    let parts = parts(trace);
    let (live, invalid) = live::trace(id, &refs(&parts));
    assert_eq!(invalid, 0);
    live
}

#[test]
fn a_span_is_the_same_wherever_it_lies() {
    let sent = traces();
    assert!(sent.len() > 500);
    let stored = by_id(&reader(made::of_otlp(BlockOptions::default(), &sent)));
    // The usual spans in one block, the others in another.
    let half = |of: usize| -> Vec<(TraceId, Trace)> {
        let mut half = sent.clone();
        half.iter_mut().flat_map(|(_, trace)| trace).flat_map(|resource| &mut resource.scope_spans).for_each(|scope| {
            scope.spans = vec![scope.spans.swap_remove(of)];
        });
        half
    };
    let halves = [half(0), half(1)];
    let of_halves = merged(&halves.clone().map(|half| reader(made::of_otlp(BlockOptions::default(), &half))));
    let (whole, again): (Vec<_>, Vec<_>) = sent.iter().cloned().enumerate().partition(|(at, _)| at % 2 == 0);
    let interleaved = [whole, again].map(|half| half.into_iter().map(|(_, trace)| trace).collect::<Vec<_>>());
    let of_others = merged(&interleaved.map(|half| reader(made::of_otlp(BlockOptions::default(), &half))));
    let (of_halves, of_others) = (by_id(&of_halves), by_id(&of_others));
    let [first, second] = halves.map(|half| half.into_iter().collect::<BTreeMap<_, _>>());
    for (id, trace) in &sent {
        let live = live_of(*id, trace);
        let want = told(&live);
        assert_eq!(want, told(&stored[id]), "live and stored: {live:#?} {:#?}", stored[id]);
        assert_eq!(want, told(&of_others[id]), "copied by a merge: {live:#?} {:#?}", of_others[id]);
        assert_eq!(want, told(&of_halves[id]), "merged: {live:#?} {:#?}", of_halves[id]);
        let parts = combine([live_of(*id, &first[id]), live_of(*id, &second[id])]);
        assert_eq!(want, told(&parts), "combined: {live:#?} {parts:#?}");
        let ends = |trace: &Trace| {
            let mut ends: Vec<u64> =
                trace.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).map(|span| span.end_time_unix_nano).collect();
            ends.sort_unstable();
            ends
        };
        assert_eq!(ends(&live), ends(trace), "the end that was sent is kept");
    }
}

/// The trace of `edge-a` that has a resource with two names and a span with two methods.
const EQUAL_KEYS: &str = "3f7a7f7ab94619c2e3e80354aa519575";

#[test]
fn live_spans_are_what_the_original_makes_of_them() {
    let mut requests: &[u8] = include_bytes!("../../testdata/edge-a/requests.otlp.pb");
    let mut sent: BTreeMap<TraceId, Vec<SpanRef<'_>>> = BTreeMap::new();
    while !requests.is_empty() {
        let len = prost::decode_length_delimiter(&mut requests).expect("a length");
        walk_spans(&requests[..len], |at, head| {
            let span = SpanRef { resource: at.resource, scope: at.scope, span: head.bytes };
            sent.entry(head.trace()).or_default().push(span);
        })
        .expect("a request");
        requests = &requests[len..];
    }
    let mut compared = 0;
    for (id, want) in expected("v4-edge-default") {
        let (live, invalid) = live::trace(id, &sent[&id]);
        // The original keeps the last of equal keys that have a column, and forgets the others.
        if !has_shared_span_ids(&want) && !has_shared_span_ids(&live) && id.to_string() != EQUAL_KEYS {
            assert_eq!((told(&live), invalid), (told(&want), 0), "{id}: {live:#?} {want:#?}");
            compared += 1;
        }
    }
    assert!(compared > 75, "{compared}");
}

/// Traces, live and in a block.
struct Both {
    messages: Vec<(TraceId, Vec<Parts>)>,
    block: BlockReader,
}

impl Both {
    fn of(sent: &[(TraceId, Trace)]) -> Self {
        let messages = sent.iter().map(|(id, trace)| (*id, parts(trace))).collect();
        Self { messages, block: reader(made::of_otlp(BlockOptions::default(), sent)) }
    }

    /// The traces that a query finds, which are the same in both.
    fn found(&self, query: &str) -> usize {
        let plan = vivace_traceql::parse(query).expect("a query").search_plan(TimeRange::ALL).expect("a search");
        let evaluated = |batch: &Batch| {
            let found = plan.evaluate(batch, 100).into_iter();
            found.map(|trace| (trace.trace_id.clone(), format!("{:?}", trace.span_sets))).collect::<BTreeMap<_, _>>()
        };
        let spans: Vec<_> = self.messages.iter().map(|(id, parts)| (*id, refs(parts))).collect();
        let live = evaluated(&live::batch(plan.fetch(), &spans));
        let mut stored = BTreeMap::new();
        let searched = self.block.search(plan.fetch(), 0..9, &mut |batch| {
            stored.extend(evaluated(&batch));
            ControlFlow::Continue(())
        });
        searched.expect("reads");
        assert_eq!(live, stored, "{query}");
        live.len()
    }
}

#[test]
fn attributes_with_a_column_are_found_whatever_their_type() {
    let both = Both::of(&traces());
    let mut found = BTreeMap::new();
    for key in ["service.name", "cluster", "k8s.pod.name", "http.method", "http.status_code", "http.route", "key"] {
        for scope in ["resource.", "span.", "."] {
            for condition in
                ["= 1", "= -1", "> 0", "= true", "!= true", "= `x\0ü`", "= ``", "!= ``", "= nil", "!= nil", "=~ `.*`", "!~ `x.*`", "< 0.5"]
            {
                let query = format!("{{ {scope}{key} {condition} }}");
                // Every resource has a service's name.
                if key == "service.name" && condition.ends_with("nil") {
                    continue;
                }
                found.insert(query.clone(), both.found(&query));
            }
        }
    }
    for query in ["{ resource.service.name = 1 }", "{ .service.name = true }", "{ resource.cluster = 1 }", "{ span.http.method = -1 }"] {
        assert!(found[query] > 0, "{query}");
    }
    for query in
        ["{ duration > 100h }", "{ duration < 1s }", "{ traceDuration > 1s }", "{ traceDuration < 1s }", "{ event:timeSinceStart > 1s }"]
    {
        assert!(both.found(query) > 0, "{query}");
    }
}

#[test]
fn values_of_attributes_with_a_column_are_listed_whatever_their_type() {
    let sent = traces();
    let block = reader(made::of_otlp(BlockOptions::default(), &sent));
    let messages: Vec<_> = sent.iter().map(|(_, trace)| parts(trace)).collect();
    for key in ["service.name", "cluster", "http.method", "http.status_code", "http.route"] {
        for scope in [Scope::Resource, Scope::Span, Scope::Unscoped] {
            let attribute = Attribute::Named { scope, key: key.into() };
            let (mut live_values, mut stored) = (BTreeMap::new(), BTreeMap::new());
            for parts in &messages {
                live::tag_values(&refs(parts), &attribute, &vivace_traceql::SpanFilter::Maybe, &mut |value| {
                    live_values.insert(format!("{value:?}"), value.clone());
                    ControlFlow::Continue(())
                });
            }
            let sink = &mut |value: Value| {
                stored.insert(format!("{value:?}"), value);
                ControlFlow::Continue(())
            };
            block.tag_values(&attribute, None, 0..9, sink).expect("reads");
            assert_eq!(live_values.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "{attribute:?}");
            for value in ["Int(1)", "Bool(true)", "Str(\"x\\0ü\")"] {
                assert!(stored.contains_key(value), "{attribute:?}: {value} in {:?}", stored.keys());
            }
        }
    }
}

#[test]
fn times_at_their_ends_overflow_nowhere() {
    for (start, end) in [(0, 0), (0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX), (FAR, FAR + 1), (START, START - 1), (1, 0)] {
        let mut sent = traces()[..3].to_vec();
        for scope in sent.iter_mut().flat_map(|(_, trace)| trace).flat_map(|resource| &mut resource.scope_spans) {
            scope.spans.iter_mut().for_each(|span| (span.start_time_unix_nano, span.end_time_unix_nano) = (start, end));
        }
        let made = made::of_otlp(BlockOptions::default(), &sent);
        assert_eq!(BlockMeta::from_json(&made.meta.to_json(), "meta.json").expect("a meta").start_unix_nanos, made.meta.start_unix_nanos);
        assert!(made.meta.start_unix_nanos <= start && made.meta.end_unix_nanos >= end, "{:?}", made.meta);
        assert!(!made.verify().is_bad(), "{start}..{end}: {:#?}", made.verify());
        let inputs = [reader(made::of_otlp(BlockOptions::default(), &sent)), reader(made)];
        let merged = merged(&inputs);
        for (id, trace) in by_id(&merged) {
            let spans = trace.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
            assert!(spans.clone().count() > 0, "{id}");
            spans.for_each(|span| assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (start, end)));
        }
        let both = Both::of(&sent);
        for query in ["{ }", "{ duration > 1s }", "{ traceDuration > 1s } | avg(duration) > 1s", "{ } >> { }"] {
            both.found(query);
        }
    }
}

#[test]
fn a_block_of_the_original_with_an_end_before_the_start_agrees() {
    let id = "2f1e471880d9c8b2c4be8c8812ba5785".parse().expect("an id");
    let foreign = open("v4-edge-default").find(id, None).expect("reads").expect("is there");
    let written = reader(made::of_otlp(BlockOptions::default(), &[(id, foreign.clone())]));
    assert_eq!(told(&foreign), told(&written.find(id, None).expect("reads").expect("is there")));
    let ends_early = |trace: &Trace| {
        let spans = trace.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        spans.filter(|span| span.end_time_unix_nano < span.start_time_unix_nano).count()
    };
    assert!(ends_early(&foreign) > 0);
}
