//! An answer does not depend on where spans live: a block gives what live spans give.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use vivace_block::{BlockOptions, BlockReader, BlockWriter, SpanRef, live};
use vivace_core::otlp::walk_spans;
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_traceql::{
    Attribute, Batch, Comparison, Condition, Fetch, Intrinsic, MetricsRange, Partial, Release, RowParts, Scope, SpanFilter, TraceFilter,
    Value, parse,
};

const REQUESTS: &[u8] = include_bytes!("../../testdata/edge-a/requests.otlp.pb");

type Traces = Vec<(TraceId, Vec<SpanRef<'static>>)>;

fn traces() -> Traces {
    let mut requests = REQUESTS;
    let mut traces: BTreeMap<TraceId, Vec<SpanRef<'static>>> = BTreeMap::new();
    while !requests.is_empty() {
        let len = prost::decode_length_delimiter(&mut requests).expect("a length");
        walk_spans(&requests[..len], |at, head| {
            let span = SpanRef { resource: at.resource, scope: at.scope, span: head.bytes };
            traces.entry(head.trace()).or_default().push(span);
        })
        .expect("a request");
        requests = &requests[len..];
    }
    traces.into_iter().collect()
}

fn block(traces: &Traces, options: BlockOptions) -> BlockReader {
    let mut writer = BlockWriter::new(options, TenantId::single(), BlockId([7; 16]), Vec::new(), traces.len() as u64).expect("starts");
    for (id, spans) in traces {
        writer.push_trace(*id, spans).expect("takes the trace");
    }
    let block = writer.finish().expect("finishes");
    BlockReader::open(block.meta, Arc::new(Bytes::from(block.out))).expect("opens")
}

fn search(block: &BlockReader, fetch: &Fetch) -> Vec<Batch> {
    let mut batches = Vec::new();
    let each = &mut |batch| {
        batches.push(batch);
        ControlFlow::Continue(())
    };
    block.search(fetch, 0..block.row_groups(), each).expect("searches");
    batches
}

/// All keys of all spans.
fn keys(traces: &Traces) -> BTreeSet<(Scope, String)> {
    let mut keys = BTreeSet::new();
    for (_, spans) in traces {
        live::tag_names(spans, None, &SpanFilter::Maybe, &mut |scope, name| {
            keys.insert((scope, name.to_owned()));
            ControlFlow::Continue(())
        });
    }
    keys
}

fn fetch(filter: TraceFilter, keys: &BTreeSet<(Scope, String)>) -> Fetch {
    use Intrinsic::{
        EventName, EventTimeSinceStart, Kind, LinkSpanId, LinkTraceId, Name, ParentId, ScopeName, ScopeVersion, Status, StatusMessage,
    };
    let intrinsics = |list: &[Intrinsic]| list.iter().map(|i| Attribute::Intrinsic(*i)).collect::<Vec<_>>();
    let mut fetch = Fetch {
        range: TimeRange::ALL,
        filter,
        span_attributes: intrinsics(&[Name, Status, StatusMessage, Kind, ParentId, ScopeName, ScopeVersion]),
        event_attributes: intrinsics(&[EventName, EventTimeSinceStart]),
        link_attributes: intrinsics(&[LinkTraceId, LinkSpanId]),
        rows: RowParts::ALL,
    };
    for (scope, key) in keys {
        let key: Arc<str> = key.as_str().into();
        let attributes = match scope {
            Scope::Event => &mut fetch.event_attributes,
            Scope::Link => &mut fetch.link_attributes,
            _ => &mut fetch.span_attributes,
        };
        attributes.push(Attribute::Named { scope: *scope, key: Arc::clone(&key) });
        fetch.span_attributes.push(Attribute::Named { scope: Scope::Unscoped, key });
    }
    fetch
}

#[test]
fn a_block_answers_as_its_live_spans_did() {
    let traces = traces();
    let keys = keys(&traces);
    assert!(keys.len() > 100);
    let fetch = fetch(TraceFilter::All, &keys);
    for options in [BlockOptions::default(), BlockOptions { row_group_size_bytes: 12_000, ..BlockOptions::default() }] {
        let block = block(&traces, options);
        let stored = search(&block, &fetch);
        let mut at = 0;
        for batch in stored {
            let of_batch: Traces = traces[at..at + batch.traces.len()].to_vec();
            at += batch.traces.len();
            let live = live::batch(&fetch, &of_batch);
            assert_eq!(format!("{:?}", live.traces), format!("{:?}", batch.traces));
            for (live, stored) in live.spans.iter().zip(&batch.spans) {
                assert_eq!(live, stored);
            }
            assert_eq!(live.events.offsets, batch.events.offsets);
            assert_eq!(live.links.offsets, batch.links.offsets);
            // As text, since NaN is not equal to itself.
            let compare = |attributes: &[Attribute], live: &[Vec<Value>], stored: &[Vec<Value>]| {
                for ((attribute, live), stored) in attributes.iter().zip(live).zip(stored) {
                    assert_eq!(format!("{live:?}"), format!("{stored:?}"), "{attribute:?}");
                }
            };
            compare(&fetch.span_attributes, &live.columns, &batch.columns);
            compare(&fetch.event_attributes, &live.events.columns, &batch.events.columns);
            compare(&fetch.link_attributes, &live.links.columns, &batch.links.columns);
        }
        assert_eq!(at, traces.len());
    }
}

/// `compare` looks at the attributes that spans have: live, stored, and as columns of all names it counts the same.
#[test]
fn all_attributes_compare_the_same_live_stored_and_as_columns() {
    let traces = traces();
    let named = |(scope, key): (Scope, String)| Attribute::Named { scope, key: key.into() };
    let names = keys(&traces).into_iter().filter(|(scope, _)| matches!(scope, Scope::Span | Scope::Resource | Scope::Instrumentation));
    let names: Vec<Attribute> = names.map(named).collect();
    assert!(names.len() > 50);
    let go_on = || false;
    for query in ["{} | compare({ status = error }, 1000)", "{ kind = server } | compare({ duration > 10ms && span.missing = nil }, 3)"] {
        let range = MetricsRange::instant(1, u64::MAX / 2, Release::default()).expect("a range");
        let plan = parse(query).expect("a query").metrics_plan(range, 0).expect("a plan");
        let series = |partial: &Partial| -> Vec<String> {
            let answer = plan.finish(partial, &go_on).expect("it fits");
            answer.series.iter().map(|series| format!("{:?} {:?}", series.labels, series.samples)).collect()
        };
        let wide = plan.clone().with_attributes(names.iter().cloned());
        let mut columns = wide.partial();
        assert!(wide.observe(&mut columns, &live::batch(wide.fetch(), &traces), &go_on).is_continue());
        let mut from_live = plan.partial();
        assert!(live::observe(&plan, &mut from_live, &traces, &go_on).is_continue());
        assert!(!series(&from_live).is_empty());
        for options in [BlockOptions::default(), BlockOptions { row_group_size_bytes: 12_000, ..BlockOptions::default() }] {
            let block = block(&traces, options);
            let mut stored = plan.partial();
            block.observe(&plan, &mut stored, 0..block.row_groups(), &|_| true, &go_on).expect("counts");
            assert_eq!(series(&stored), series(&from_live), "{query}");
        }
        // The empty name of a service is no attribute that somebody has sent.
        let without_empty = |series: Vec<String>| series.into_iter().filter(|line| !line.contains("service.name")).collect::<Vec<_>>();
        assert_eq!(without_empty(series(&columns)), without_empty(series(&from_live)), "{query}");
    }
}

/// What may match according to the raw requests.
fn candidates(fetch: &Fetch) -> BTreeSet<TraceId> {
    let mut candidates = live::Candidates::new(fetch);
    let mut requests = REQUESTS;
    while !requests.is_empty() {
        let len = prost::decode_length_delimiter(&mut requests).expect("a length");
        candidates.add(&requests[..len]).expect("a request");
        requests = &requests[len..];
    }
    candidates.finish().into_iter().collect()
}

#[test]
fn filters_let_the_same_traces_pass() {
    let traces = traces();
    let block = block(&traces, BlockOptions::default());
    let none = BTreeSet::new();
    let mut compared = 0;
    let named = |(scope, key): (Scope, String)| Attribute::Named { scope, key: key.as_str().into() };
    let unscoped = ["http.method", "service.name", "nowhere"].map(|key| (Scope::Unscoped, key.to_owned()));
    let texts = [Intrinsic::Name, Intrinsic::StatusMessage, Intrinsic::EventName, Intrinsic::ScopeName];
    let attributes = keys(&traces).into_iter().chain(unscoped).map(named).chain(texts.map(Attribute::Intrinsic));
    for attribute in attributes {
        let text = |t: &str| Value::Str(t.into());
        let mut some = Value::Int(7);
        for (_, spans) in &traces {
            live::tag_values(spans, &attribute, &SpanFilter::Maybe, &mut |value| {
                some = value.clone();
                ControlFlow::Continue(())
            });
        }
        let comparisons = [
            Comparison::Equal(some),
            Comparison::Equal(text("")),
            Comparison::Exists,
            Comparison::NotExists,
            Comparison::Equal(text("text")),
            Comparison::NotEqual(text("GET")),
            Comparison::Greater(Value::Int(10)),
            Comparison::Less(Value::Float(1.0)),
            Comparison::Equal(Value::Bool(true)),
        ];
        for comparison in comparisons {
            let condition = Condition { attribute: attribute.clone(), comparison };
            let fetch = fetch(TraceFilter::AnySpan(SpanFilter::Leaf(condition)), &none);
            let live: BTreeSet<TraceId> = live::batch(&fetch, &traces).traces.iter().map(|t| t.trace_id).collect();
            let stored: BTreeSet<TraceId> = search(&block, &fetch).iter().flat_map(|b| &b.traces).map(|t| t.trace_id).collect();
            // Blocks may leave a condition undecided, live spans decide all.
            assert!(live.is_subset(&stored), "{:?} misses {:?}", fetch.filter, live.difference(&stored));
            let candidates = candidates(&fetch);
            assert!(live.is_subset(&candidates), "{:?} has no candidates {:?}", fetch.filter, live.difference(&candidates));
            compared += usize::from(!live.is_empty() && live.len() < traces.len());
        }
    }
    assert!(compared > 100);
}

#[test]
fn tags_are_the_same() {
    let traces = traces();
    let block = block(&traces, BlockOptions::default());
    let all = 0..block.row_groups();
    let mut stored = BTreeSet::new();
    let sink = &mut |scope, name: &str| {
        stored.insert((scope, name.to_owned()));
        ControlFlow::Continue(())
    };
    block.tag_names(None, None, all.clone(), sink).expect("names");
    let keys = keys(&traces);
    assert_eq!(stored, keys);
    for (scope, key) in keys {
        let attribute = Attribute::Named { scope, key: key.as_str().into() };
        let (mut live, mut stored) = (BTreeSet::new(), BTreeSet::new());
        for (_, spans) in &traces {
            live::tag_values(spans, &attribute, &SpanFilter::Maybe, &mut |value| {
                live.insert(format!("{value:?}"));
                ControlFlow::Continue(())
            });
        }
        let sink = &mut |value| {
            stored.insert(format!("{value:?}"));
            ControlFlow::Continue(())
        };
        block.tag_values(&attribute, None, all.clone(), sink).expect("values");
        assert_eq!(live, stored, "{attribute:?}");
    }
}
