//! Traces read by their ids, many at once: parts that lie in several places, block beside block, answer as those in one place do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vivace_block::{BlockOptions, BlockReader, JoinedFetch, SpanRef, live};
use vivace_core::otlp::walk_spans;
use vivace_core::{TimeRange, TraceId};
use vivace_proto::otlp::{
    AnyValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status, TracesData, any_value, span,
};
use vivace_traceql::{Attribute, Batch, Fetch, Intrinsic, RowParts, Scope, TraceFilter, Value};

use crate::made;

const START: u64 = 1_700_000_000_000_000_000;

fn text(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(any_value::Value::StringValue(value)) }) }
}

/// Requests with one span each, of traces whose spans stand below each other, of four services.
fn requests(traces: u64) -> Vec<(TraceId, Vec<u8>)> {
    let mut requests = Vec::new();
    for trace in 0..traces {
        let trace_id = TraceId(u128::from((trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
        for number in 0..2 + trace % 7 {
            let id = |number: u64| (trace * 100 + number / 2 + 1).to_be_bytes().to_vec();
            let event = |name: String| span::Event { time_unix_nano: START + trace, name, ..span::Event::default() };
            // Neighbours share an id: a client and its server.
            let span = Span {
                trace_id: trace_id.0.to_vec().into(),
                span_id: id(number).into(),
                parent_span_id: if number == 0 { Vec::new() } else { id(number - 1) }.into(),
                kind: if number % 2 == 0 { 3 } else { 2 },
                name: format!("{}", (trace / 3 + number) % 4),
                start_time_unix_nano: START + trace * 1_000_000_000 + number * 1_000_000,
                end_time_unix_nano: START + trace * 1_000_000_000 + 20_000_000 * (1 + trace % 3),
                attributes: vec![text("tag", format!("{}", number % 3))],
                events: (0..number % 3).map(|at| event(format!("{at}"))).collect(),
                links: (0..trace % 2).map(|_| span::Link { span_id: id(1).into(), ..span::Link::default() }).collect(),
                status: Some(Status { code: (number % 3) as i32, ..Status::default() }),
                ..Span::default()
            };
            let resource = Resource { attributes: vec![text("service.name", format!("{}", number % 4))], ..Resource::default() };
            let scope_spans = vec![ScopeSpans { scope: Some(InstrumentationScope::default()), spans: vec![span], ..ScopeSpans::default() }];
            let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
            requests.push((trace_id, TracesData { resource_spans }.encode_to_vec()));
        }
    }
    requests
}

fn traces<'a>(requests: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<(TraceId, Vec<SpanRef<'a>>)> {
    let mut traces: BTreeMap<TraceId, Vec<SpanRef<'a>>> = BTreeMap::new();
    for request in requests {
        walk_spans(request, |at, head| {
            traces.entry(head.trace()).or_default().push(SpanRef { resource: at.resource, scope: at.scope, span: head.bytes });
        })
        .expect("a request");
    }
    traces.into_iter().collect()
}

fn fetch(rows: RowParts) -> Fetch {
    let intrinsic = |intrinsic| Attribute::Intrinsic(intrinsic);
    let named = |scope, key: &str| Attribute::Named { scope, key: key.into() };
    Fetch {
        range: TimeRange::ALL,
        filter: TraceFilter::All,
        span_attributes: vec![intrinsic(Intrinsic::Name), named(Scope::Resource, "service.name"), named(Scope::Span, "tag")],
        event_attributes: vec![intrinsic(Intrinsic::EventName)],
        link_attributes: vec![intrinsic(Intrinsic::LinkSpanId)],
        rows,
    }
}

/// What does not depend on the order of spans: each with its values, its children's, its parent and how many it has below.
type Facts = BTreeSet<(TraceId, String)>;

fn facts(batch: &Batch, rows: RowParts) -> Facts {
    let mut facts = Facts::new();
    for trace in &batch.traces {
        let services: BTreeMap<_, _> = trace.services.iter().map(|s| (s.service.clone(), (s.spans, s.errors))).collect();
        let times = (trace.start_unix_nanos, trace.end_unix_nanos);
        // Live spans say what was not asked for where it costs nothing.
        let summary = if rows.summary { format!("{:?} {:?} {services:?}", trace.root_name, trace.root_service) } else { String::new() };
        facts.insert((trace.trace_id, format!("{summary} {times:?}")));
        let spans = &batch.spans[trace.spans.clone()];
        for (row, span) in trace.spans.clone().zip(spans) {
            let parent = spans.iter().find(|other| span.nested_set_parent > 0 && other.nested_set_left == span.nested_set_parent);
            let of = |columns: &[Vec<Value>], rows: std::ops::Range<usize>| -> Vec<Value> {
                rows.flat_map(|row| columns.iter().map(move |column| column[row].clone())).collect()
            };
            let values = of(&batch.columns, row..row + 1);
            let events = of(&batch.events.columns, batch.events.of_span(row));
            let links = of(&batch.links.columns, batch.links.of_span(row));
            let times = (span.start_unix_nanos, span.duration_nanos);
            let tree = (span.nested_set_parent.min(1), parent.map(|p| (p.id, p.start_unix_nanos)), span.child_count);
            let below = (span.nested_set_right - span.nested_set_left) / 2;
            let fact = format!("{} {times:?} {values:?} {events:?} {links:?} {tree:?} {below}", span.id);
            assert!(facts.insert((trace.trace_id, fact)), "a span is there once");
        }
    }
    facts
}

#[test]
fn traces_in_several_places_are_whole() {
    let requests = requests(90);
    let all = traces(requests.iter().map(|(_, bytes)| bytes));
    let mut random = StdRng::seed_from_u64(11);
    for places in [1, 2, 3, 6] {
        // Each span in some of the places, the last of which is live.
        let mut spans: Vec<Vec<&Vec<u8>>> = vec![Vec::new(); places + 1];
        for (_, bytes) in &requests {
            let first = random.random_range(0..=places);
            spans[first].push(bytes);
            for (place, spans) in spans.iter_mut().enumerate() {
                if place != first && random.random_range(0..4) == 0 {
                    spans.push(bytes);
                }
            }
        }
        let live_traces = traces(spans.pop().expect("the live ones"));
        let options = || BlockOptions { row_group_otlp_bytes: 3000, ..BlockOptions::default() };
        let blocks: Vec<BlockReader> = spans
            .iter()
            .map(|spans| made::of_traces(options(), traces(spans.iter().copied())))
            .map(|made| BlockReader::open(made.meta, Arc::new(made.data)).expect("opens"))
            .collect();
        assert!(blocks[0].row_groups() > 2);
        for rows in [RowParts::ALL, RowParts::LEAST, RowParts { summary: true, ..RowParts::LEAST }] {
            let fetch = fetch(rows);
            let joining = JoinedFetch::new(&fetch);
            let ids: Vec<TraceId> = all.iter().map(|(id, _)| *id).filter(|_| random.random_range(0..5) > 0).collect();
            for step in [7, 1000] {
                let mut got = Facts::new();
                for some in ids.chunks(step) {
                    let mut parts: Vec<Batch> = blocks.iter().flat_map(|block| parts(block, some, joining.of_parts()).0).collect();
                    let here: Vec<_> = live_traces.iter().filter(|(id, _)| some.contains(id)).cloned().collect();
                    parts.push(live::batch(joining.of_parts(), &here));
                    let batch = joining.join(parts);
                    assert_eq!(batch.traces.iter().map(|trace| trace.trace_id).collect::<Vec<_>>(), some);
                    got.extend(facts(&batch, rows));
                }
                let wanted: Vec<_> = all.iter().filter(|(id, _)| ids.contains(id)).cloned().collect();
                assert_eq!(got, facts(&live::batch(&fetch, &wanted), rows), "{places} places, {rows:?}");
            }
        }
    }
}

/// What a block has of these traces, and the bytes that were read.
fn parts(block: &BlockReader, ids: &[TraceId], fetch: &Fetch) -> (Vec<Batch>, u64) {
    let mut parts: Vec<Batch> = Vec::new();
    let stats = block.batches_of(ids, fetch, &mut |batch| {
        parts.push(batch);
        ControlFlow::Continue(())
    });
    let stats = stats.expect("reads");
    let given: Vec<TraceId> = parts.iter().flat_map(|part| part.traces.iter().map(|trace| trace.trace_id)).collect();
    assert!(given.is_sorted_by(|a, b| a < b) && given.iter().all(|id| ids.contains(id)));
    assert_eq!((stats.traces, stats.spans), (given.len() as u64, parts.iter().map(|part| part.spans.len() as u64).sum()));
    (parts, stats.bytes)
}

#[test]
fn traces_of_a_block_are_read_by_their_ids_and_little_else() {
    let requests = requests(300);
    let all = traces(requests.iter().map(|(_, bytes)| bytes));
    let options = BlockOptions { row_group_otlp_bytes: 60_000, ..BlockOptions::default() };
    let made = made::of_traces(options, all.clone());
    let block = BlockReader::open(made.meta, Arc::new(made.data)).expect("opens");
    assert!(block.row_groups() > 2);
    let fetch = fetch(RowParts::ALL);
    let ids: Vec<TraceId> = all.iter().map(|(id, _)| *id).collect();
    let (_, whole_bytes) = parts(&block, &ids, &fetch);
    let (some, bytes) = parts(&block, &ids[5..7], &fetch);
    assert_eq!(some.len(), 1);
    assert!(bytes * 2 < whole_bytes, "{bytes} of {whole_bytes}");
    let absent: Vec<TraceId> = (0..9).map(|n| TraceId([n; 16])).filter(|id| !ids.contains(id)).collect();
    assert_eq!(parts(&block, &absent, &fetch), (Vec::new(), 0));
    let mut given = 0;
    let stop = block.batches_of(&ids, &fetch, &mut |_| {
        given += 1;
        ControlFlow::Break(())
    });
    assert_eq!((stop.is_ok(), given), (true, 1));
}
