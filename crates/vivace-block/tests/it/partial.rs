//! Traces in several places: whoever matches as a whole is found by some part, in blocks and in live spans alike.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message as _;
use vivace_block::{BlockOptions, BlockReader, SpanRef, live, part_filter};
use vivace_core::otlp::walk_spans;
use vivace_core::{SECOND, TimeRange, TraceId};
use vivace_proto::otlp::{AnyValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, TracesData, any_value};
use vivace_traceql::{Batch, SearchPlan};

use crate::made;

const START: u64 = 1_700_000_000_000_000_000;

/// Requests with one span each: traces of a root and three spans below each other, named and timed by their numbers.
fn requests() -> Vec<(usize, Vec<u8>)> {
    let mut requests = Vec::new();
    for trace in 0..40u64 {
        for number in 0..4u64 {
            let id = |number: u64| (trace * 10 + number + 1).to_be_bytes().to_vec();
            let kind = any_value::Value::IntValue(((trace + number) % 5) as i64);
            let span = Span {
                trace_id: u128::from(trace + 1).to_be_bytes().to_vec().into(),
                span_id: id(number).into(),
                parent_span_id: if number == 0 { Vec::new() } else { id(number - 1) }.into(),
                name: format!("{}", (trace / 3 + number) % 4),
                start_time_unix_nano: START + trace * SECOND + number * 1_000_000,
                end_time_unix_nano: START + trace * SECOND + 20_000_000 * (1 + trace % 3),
                attributes: vec![KeyValue { key: "kind".to_owned(), value: Some(AnyValue { value: Some(kind) }) }],
                ..Span::default()
            };
            let scope_spans = vec![ScopeSpans { scope: Some(InstrumentationScope::default()), spans: vec![span], ..ScopeSpans::default() }];
            let resource_spans = vec![ResourceSpans { resource: Some(Resource::default()), scope_spans, ..ResourceSpans::default() }];
            requests.push(((trace + number) as usize, TracesData { resource_spans }.encode_to_vec()));
        }
    }
    requests
}

fn traces<'a>(requests: impl Iterator<Item = &'a Vec<u8>>) -> Vec<(TraceId, Vec<SpanRef<'a>>)> {
    let mut traces: BTreeMap<TraceId, Vec<SpanRef<'a>>> = BTreeMap::new();
    for request in requests {
        walk_spans(request, |at, head| {
            traces.entry(head.trace()).or_default().push(SpanRef { resource: at.resource, scope: at.scope, span: head.bytes });
        })
        .expect("a request");
    }
    traces.into_iter().collect()
}

fn matching(plan: &SearchPlan, batch: &Batch) -> BTreeSet<String> {
    plan.evaluate(batch, 0).into_iter().map(|trace| trace.trace_id).collect()
}

#[test]
fn a_trace_that_matches_as_a_whole_is_found_by_a_part() {
    let requests = requests();
    let all = traces(requests.iter().map(|(_, bytes)| bytes));
    let half = |odd: usize| requests.iter().filter(move |(place, _)| place % 2 == odd).map(|(_, bytes)| bytes);
    let stored = made::of_traces(BlockOptions { row_group_otlp_bytes: 600, ..BlockOptions::default() }, traces(half(0)));
    let block = BlockReader::open(stored.meta, Arc::new(stored.data)).expect("opens");
    assert!(block.row_groups() > 2);
    let mut found_by_one_alone = 0;
    for query in [
        "{ name = `1` } >> { name = `2` }",
        "{ name = `1` } > { name = `2` && span.kind = 3 }",
        "{ name = `1` } !>> { name = `3` }",
        "{ name = `0` } && { name = `3` } && { span.kind = 4 }",
        "({ name = `0` } && { name = `3` }) || { span.kind = 4 } | count() > 1",
        "{ } | count() > 3",
        "{ span.kind > 0 } | count() > 2",
        "{ traceDuration >= 60ms }",
        "{ rootName = `1` }",
        "{ rootName = `1` && name = `2` }",
        "{ name = `1` } << { name = `0` }",
        "{ name = `0` } && { name = `missing` }",
    ] {
        let plan = vivace_traceql::parse(query)
            .and_then(|q| q.search_plan(TimeRange::between(START + 5 * SECOND, START + 30 * SECOND)))
            .expect(query);
        let whole = matching(&plan, &live::batch(plan.fetch(), &all));
        let weaker = part_filter(&plan.fetch().filter);
        let parts = block.parts(plan.fetch(), &weaker, 0..usize::MAX).expect("reads");
        assert!(parts.traces.is_sorted_by_key(|part| part.trace_id), "{query}");
        assert!(parts.traces.iter().all(|part| part.start_unix_nanos >= START && part.start_unix_nanos <= part.end_unix_nanos));
        let mut candidates = live::Candidates::new(plan.fetch());
        half(1).for_each(|request| candidates.add(request).expect("a request"));
        let live_parts = candidates.finish_parts();
        let stored_ids = parts.traces.iter().map(|part| part.trace_id);
        let found: BTreeSet<String> = stored_ids.chain(live_parts.iter().map(|(id, _)| *id)).map(|id| id.trimmed_hex()).collect();
        assert!(whole.is_subset(&found), "{query}: {whole:?} {found:?}");
        assert_eq!(query.contains("missing"), whole.is_empty(), "{query} matches something");

        // By themselves the block's parts give what its search gives.
        let mut searched = BTreeSet::new();
        let mut again = BTreeSet::new();
        let take = |found: &mut BTreeSet<String>, batch: Batch| {
            found.extend(matching(&plan, &batch));
            ControlFlow::Continue(())
        };
        block.search(plan.fetch(), 0..usize::MAX, &mut |batch| take(&mut searched, batch)).expect("reads");
        block.search_parts(plan.fetch(), &parts, &|_| true, &mut |batch| take(&mut again, batch)).expect("reads");
        assert_eq!(again, searched, "{query}");
        found_by_one_alone += whole.intersection(&searched).count();
        let mut without = BTreeSet::new();
        let wanted = |id: &TraceId| id.0[15].is_multiple_of(2);
        block.search_parts(plan.fetch(), &parts, &wanted, &mut |batch| take(&mut without, batch)).expect("reads");
        assert!(without.is_subset(&searched) && (searched.len() < 4 || without.len() < searched.len()), "{query}");
    }
    assert!(found_by_one_alone > 0);
}

#[test]
fn ids_come_by_row_group() {
    let requests = requests();
    let stored =
        made::of_traces(BlockOptions { row_group_otlp_bytes: 600, ..BlockOptions::default() }, traces(requests.iter().map(|(_, r)| r)));
    let block = BlockReader::open(stored.meta, Arc::new(stored.data)).expect("opens");
    let ids: Vec<TraceId> = (0..block.row_groups()).flat_map(|group| block.ids_of(group).expect("reads").to_vec()).collect();
    assert_eq!(ids, (1..=40u128).map(|id| TraceId(id.to_be_bytes())).collect::<Vec<_>>());
    let bounds = block.id_bounds();
    assert_eq!(bounds.len(), block.row_groups());
    for (group, bounds) in bounds.into_iter().enumerate() {
        let ids = block.ids_of(group).expect("reads");
        assert_eq!(bounds, Some((ids[0], ids[ids.len() - 1])));
    }
    assert!(block.ids_of(1000).expect("there is none").is_empty());
}
