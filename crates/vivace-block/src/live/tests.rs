//! Live spans asked what blocks are asked, with answers that were looked up by hand.

use std::ops::ControlFlow;
use std::sync::Arc;

use vivace_core::TimeRange;
use vivace_core::wire::put_bytes;
use vivace_traceql::{Attribute, Comparison, Condition, Intrinsic, RowParts, Scope, SpanFilter, Status, TraceFilter};

use super::*;
use crate::testdata::{EDGE_A, traces};

/// `service.name`-like text attribute message.
fn attr(key: &str, value: &str) -> Vec<u8> {
    let (mut any, mut out) = (Vec::new(), Vec::new());
    put_bytes(&mut any, 1, value.as_bytes());
    put_bytes(&mut out, 1, key.as_bytes());
    put_bytes(&mut out, 2, &any);
    out
}

fn named(scope: Scope, key: &str) -> Attribute {
    Attribute::Named { scope, key: key.into() }
}

fn fetch(filter: TraceFilter, span_attributes: Vec<Attribute>) -> Fetch {
    Fetch { range: TimeRange::ALL, filter, span_attributes, event_attributes: Vec::new(), link_attributes: Vec::new(), rows: RowParts::ALL }
}

fn is(attribute: Attribute, value: &str) -> TraceFilter {
    TraceFilter::AnySpan(SpanFilter::Leaf(Condition { attribute, comparison: Comparison::Equal(Value::Str(value.into())) }))
}

fn edge_a() -> Vec<(TraceId, Vec<SpanRef<'static>>)> {
    traces(EDGE_A).into_iter().collect()
}

fn of_trace(trace: &str, mut fetch: Fetch) -> Batch {
    let id = trace.parse().expect("an id");
    fetch.filter = TraceFilter::All;
    let traces: Vec<_> = edge_a().into_iter().filter(|(i, _)| *i == id).collect();
    batch(&fetch, &traces)
}

/// `edge-a`: "three services, errors, two events, scope attributes, http columns".
const SHOP: &str = "edb7f1d5cbf15150c2b9546e0f0220f3";

#[test]
fn a_batch_has_what_was_asked_for() {
    let mut fetch = fetch(
        TraceFilter::All,
        vec![
            Attribute::Intrinsic(Intrinsic::Name),
            Attribute::Intrinsic(Intrinsic::Status),
            named(Scope::Unscoped, "service.name"),
            named(Scope::Span, "http.method"),
            named(Scope::Span, "http.status_code"),
            named(Scope::Instrumentation, "scope.tier"),
            named(Scope::Resource, "cluster"),
        ],
    );
    fetch.event_attributes = vec![Attribute::Intrinsic(Intrinsic::EventName), named(Scope::Event, "attempt")];
    let batch = of_trace(SHOP, fetch);
    let trace = &batch.traces[0];
    assert_eq!((&*trace.root_name, &*trace.root_service), ("GET /checkout", "frontend"));
    let services: Vec<_> = trace.services.iter().map(|s| (&*s.service, s.spans, s.errors)).collect();
    assert_eq!(services, [("cart", 2, 1), ("frontend", 2, 1)]);
    assert_eq!(trace.spans, 0..4);
    let text = |t: &str| Value::Str(t.into());
    assert_eq!(batch.columns[0], [text("GET /checkout"), text("POST cart"), text("cart.Get"), text("SELECT")]);
    assert_eq!(batch.columns[1][1], Value::Status(Status::Error));
    assert_eq!(batch.columns[2], [text("frontend"), text("frontend"), text("cart"), text("cart")]);
    assert_eq!(batch.columns[3], [text("GET"), text("POST"), Value::Nil, Value::Nil]);
    assert_eq!(batch.columns[4][..2], [Value::Int(200), Value::Int(500)]);
    assert_eq!(batch.columns[5][..2], [text("edge"), Value::Nil]);
    assert_eq!(batch.columns[6][0], text("prod-eu-1"));
    assert_eq!(batch.events.offsets, [0, 0, 2, 2, 2]);
    assert_eq!(batch.events.columns[0], [text("exception"), text("retry")]);
    assert_eq!(batch.events.columns[1], [Value::Int(2), Value::Nil]);
    assert!(batch.links.offsets.is_empty());
    let places: Vec<_> = batch.spans.iter().map(|s| (s.nested_set_left, s.nested_set_parent, s.child_count, s.resource)).collect();
    assert_eq!(places, [(1, -1, 1, 0), (2, 1, 1, 0), (3, 2, 1, 1), (4, 3, 0, 1)]);
}

#[test]
fn values_follow_the_language() {
    let keys = ["span.s", "span.i", "span.arr.s", "span.arr.s1", "span.arr.i", "span.arr.empty", "span.arr.mixed", "span.bytes", "none"];
    let batch = of_trace("4e7e1fa916da4b9d2a8868fa593cf519", fetch(TraceFilter::All, keys.map(|k| named(Scope::Span, k)).to_vec()));
    let text = |t: &str| Value::Str(t.into());
    let values: Vec<&Value> = batch.columns.iter().map(|column| &column[0]).collect();
    let strings: Arc<[Arc<str>]> = ["a", "b", ""].map(Arc::from).into();
    let expected = [
        text("text"),
        Value::Int(42),
        Value::StrArray(strings),
        text("only"),
        Value::IntArray([1, -2, 3].into()),
        Value::Opaque,
        Value::Opaque,
        Value::Opaque,
        Value::Nil,
    ];
    assert_eq!(values, expected.iter().collect::<Vec<_>>());
}

#[test]
fn candidates_are_joined_over_segments() {
    let service = |name: &str| is(named(Scope::Resource, "service.name"), name);
    let data = edge_a();
    let both = fetch(TraceFilter::And(vec![service("frontend"), service("cart")]), vec![]);
    let root = fetch(is(Attribute::Intrinsic(Intrinsic::RootName), "GET /checkout"), vec![]);
    // One segment per request: spans of a trace are spread over several.
    let ids = |fetch: &Fetch| {
        let mut candidates = Candidates::new(fetch);
        let mut requests = EDGE_A;
        while !requests.is_empty() {
            let len = prost::decode_length_delimiter(&mut requests).expect("a length");
            candidates.add(&requests[..len]).expect("a request");
            requests = &requests[len..];
        }
        candidates.finish()
    };
    let matching = |fetch: &Fetch| batch(fetch, &data).traces.iter().map(|t| t.trace_id).collect::<Vec<_>>();
    assert!(matching(&both).len() > 1 && matching(&both).len() < 80);
    assert_eq!(ids(&both), matching(&both));
    assert_eq!(ids(&fetch(TraceFilter::All, vec![])).len(), 86);
    assert_eq!(ids(&fetch(TraceFilter::Nothing, vec![])).len(), 0);
    // Roots are known only when a trace is whole.
    assert_eq!(ids(&root).len(), 86);
    assert!(matching(&root).contains(&SHOP.parse().expect("an id")) && matching(&root).len() < 86);
}

#[test]
fn the_time_range_is_about_whole_traces() {
    let data = edge_a();
    let shop = of_trace(SHOP, fetch(TraceFilter::All, vec![])).traces[0].clone();
    let in_range = |start: Option<u64>, end: Option<u64>| {
        let fetch = Fetch { range: TimeRange { start, end }, ..fetch(TraceFilter::All, vec![]) };
        batch(&fetch, &data).traces.iter().any(|t| t.trace_id == shop.trace_id)
    };
    assert!(in_range(Some(shop.end_unix_nanos), None) && !in_range(Some(shop.end_unix_nanos + 1), None));
    assert!(in_range(None, Some(shop.start_unix_nanos)) && !in_range(None, Some(shop.start_unix_nanos - 1)));
}

#[test]
fn tags_of_live_spans() {
    let (resource, mut scope, mut span) = (
        {
            let mut r = Vec::new();
            put_bytes(&mut r, 1, &attr("service.name", "shop"));
            r
        },
        Vec::new(),
        Vec::new(),
    );
    put_bytes(&mut scope, 1, b"lib");
    put_bytes(&mut scope, 3, &attr("tier", "edge"));
    put_bytes(&mut span, 2, &[1; 8]);
    put_bytes(&mut span, 9, &attr("http.method", "GET"));
    put_bytes(&mut span, 9, &attr("tier", "gold"));
    let mut event = Vec::new();
    put_bytes(&mut event, 3, &attr("exception.type", "Oops"));
    put_bytes(&mut span, 11, &event);
    let spans = [SpanRef { resource: &resource, scope: &scope, span: &span }];
    let names = |scope, filter: &SpanFilter| {
        let mut names = Vec::new();
        tag_names(&spans, scope, filter, &mut |scope, name| {
            names.push((scope, name.to_owned()));
            ControlFlow::Continue(())
        });
        names
    };
    let values = |attribute: &Attribute| {
        let mut values = Vec::new();
        tag_values(&spans, attribute, &SpanFilter::Maybe, &mut |value| {
            values.push(value.clone());
            ControlFlow::Continue(())
        });
        values
    };
    let texts = |texts: &[&str]| texts.iter().map(|t| Value::Str((*t).into())).collect::<Vec<_>>();
    let event_names = names(Some(Scope::Event), &SpanFilter::Maybe);
    assert_eq!(event_names, [(Scope::Event, "exception.type".to_owned())]);
    assert_eq!(names(None, &SpanFilter::Maybe).len(), 5);
    let condition = |value: &str| {
        let comparison = Comparison::Equal(Value::Str(value.into()));
        SpanFilter::Leaf(Condition { attribute: named(Scope::Span, "http.method"), comparison })
    };
    assert_eq!(names(None, &condition("GET")).len(), 5);
    assert_eq!(names(None, &condition("POST")).len(), 0);
    assert_eq!(values(&named(Scope::Unscoped, "tier")), texts(&["gold", "edge"]));
    assert_eq!(values(&named(Scope::Resource, "service.name")), texts(&["shop"]));
    assert_eq!(values(&Attribute::Intrinsic(Intrinsic::ScopeName)), texts(&["lib"]));
    assert_eq!(values(&Attribute::Intrinsic(Intrinsic::EventTimeSinceStart)), [Value::Int(0)]);
    assert_eq!(values(&Attribute::Intrinsic(Intrinsic::Kind)), []);
}
