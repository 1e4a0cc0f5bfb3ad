//! Random spans in random places, counted as the jobs of a query count them, against a model that just knows the set of spans.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vivace_block::{JoinedFetch, SpanRef, live, part_filter};
use vivace_core::{BlockId, SECOND, TimeRange};
use vivace_proto::otlp::{Resource, Span, Status};
use vivace_storage::overlaps;
use vivace_testkit::{attribute, block_meta};
use vivace_traceql::{Fetch, MetricsPlan, MetricsRange, Partial, Release, parse};

use super::*;

const HOUR: u64 = 3600 * SECOND;
/// When all this is, and when everything arrives.
const NOW: u64 = 1_800_000_000 * SECOND;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct OneSpan {
    trace: TraceId,
    number: u8,
    parent: u8,
    name: &'static str,
    service: &'static str,
    failed: bool,
    start: u64,
    duration: u64,
}

impl OneSpan {
    fn messages(&self) -> [Vec<u8>; 3] {
        let resource = Resource { attributes: vec![attribute("service.name", self.service)], ..Resource::default() };
        let id = |number: u8| if number == 0 { Vec::new() } else { vec![number; 8] };
        let span = Span {
            trace_id: self.trace.0.to_vec().into(),
            span_id: id(self.number).into(),
            parent_span_id: id(self.parent).into(),
            name: self.name.to_owned(),
            kind: 1,
            start_time_unix_nano: self.start,
            end_time_unix_nano: self.start + self.duration,
            status: Some(Status { code: if self.failed { 2 } else { 0 }, ..Status::default() }),
            ..Span::default()
        };
        [resource.encode_to_vec(), Vec::new(), span.encode_to_vec()]
    }
}

type Spans = BTreeSet<OneSpan>;

/// What a place has, as it answers a query.
fn batch(fetch: &Fetch, spans: &[&OneSpan]) -> vivace_traceql::Batch {
    let mut by_trace: BTreeMap<TraceId, Vec<[Vec<u8>; 3]>> = BTreeMap::new();
    spans.iter().for_each(|span| by_trace.entry(span.trace).or_default().push(span.messages()));
    fn refs(messages: &[[Vec<u8>; 3]]) -> Vec<SpanRef<'_>> {
        messages.iter().map(|[resource, scope, span]| SpanRef { resource, scope, span }).collect()
    }
    let traces: Vec<(TraceId, Vec<SpanRef<'_>>)> = by_trace.iter().map(|(id, messages)| (*id, refs(messages))).collect();
    live::batch(fetch, &traces)
}

struct Block {
    meta: BlockMeta,
    spans: Spans,
    /// Ingesters say that it is there; the query's list does not.
    is_served: bool,
}

#[derive(Default)]
struct OneIngester {
    own: Spans,
    /// Of one that does not answer, by segment.
    held: BTreeMap<u64, Spans>,
}

impl OneIngester {
    fn all(&self) -> impl Iterator<Item = &OneSpan> {
        self.own.iter().chain(self.held.values().flatten())
    }

    fn named(&self, range: TimeRange) -> Vec<NamedTraces> {
        let mut named = Vec::new();
        let ids = |spans: &mut dyn Iterator<Item = &OneSpan>| -> BTreeSet<TraceId> { spans.map(|span| span.trace).collect() };
        let mut add = |of: &[&OneSpan], id: TraceId, held: Option<u64>| {
            let of_trace = || of.iter().filter(|span| span.trace == id);
            let start = of_trace().map(|span| span.start).min().unwrap_or_default();
            let end = of_trace().map(|span| span.start + span.duration).max().unwrap_or_default();
            if range.overlaps(start, end) {
                named.push(NamedTraces {
                    traces: vec![id],
                    held_segments: held.into_iter().collect(),
                    start_unix_nanos: start,
                    end_unix_nanos: end,
                    oldest_arrival_unix_nanos: NOW,
                });
            }
        };
        let own: Vec<&OneSpan> = self.own.iter().collect();
        ids(&mut self.own.iter()).into_iter().for_each(|id| add(&own, id, None));
        let held: Vec<&OneSpan> = self.held.values().flatten().collect();
        for id in ids(&mut self.held.values().flatten()) {
            let segments = self.held.iter().filter(|(_, spans)| spans.iter().any(|span| span.trace == id));
            add(&held, id, Some(segments.map(|(segment, _)| 1 << segment).sum()));
        }
        named
    }
}

struct World {
    ingesters: Vec<OneIngester>,
    blocks: Vec<Block>,
}

fn random_time(random: &mut StdRng, spread: u64) -> u64 {
    match random.random_range(0..20) {
        // Odd times: blocks count them from their arrival.
        0 if spread > HOUR => NOW - 90 * HOUR + random.random_range(0..spread),
        _ => NOW - random.random_range(0..spread),
    }
}

impl World {
    /// `spread`: how far the times of a trace lie apart.
    fn random(random: &mut StdRng, spread: u64) -> Self {
        let mut world = Self { ingesters: (0..3).map(|_| OneIngester::default()).collect(), blocks: Vec::new() };
        let mut spans: Vec<Spans> = vec![Spans::new(); 6];
        for trace in 0..random.random_range(1..7u8) {
            for number in 1..=random.random_range(1..6u8) {
                let span = OneSpan {
                    trace: TraceId([trace + 1; 16]),
                    number,
                    parent: if number == 1 { 0 } else { random.random_range(1..number) },
                    name: ["a", "b", "c"][random.random_range(0..3)],
                    service: ["shop", "cart"][random.random_range(0..2)],
                    failed: random.random_range(0..3) == 0,
                    start: random_time(random, spread) / SECOND * SECOND,
                    duration: random.random_range(1..40) * SECOND / 4,
                };
                // In one place mostly, and copies in others.
                for _ in 0..[1, 1, 1, 2, 3][random.random_range(0..5)] {
                    match random.random_range(0..11) {
                        at @ 0..3 => drop(world.ingesters[at].own.insert(span.clone())),
                        3 | 4 => {
                            // A segment that one or two of them hold, of which the first may have more.
                            let segment = random.random_range(0..4);
                            for holder in 0..random.random_range(1..3) {
                                world.ingesters[holder].held.entry(segment).or_default().insert(span.clone());
                            }
                        }
                        at => drop(spans[at - 5].insert(span.clone())),
                    }
                }
            }
        }
        for (number, spans) in spans.into_iter().enumerate().filter(|(_, spans)| !spans.is_empty()) {
            let time = |time: u64| if time + HOUR < NOW - 4 * HOUR { NOW } else { time };
            let start = spans.iter().map(|span| time(span.start)).min().unwrap_or_default();
            let end = spans.iter().map(|span| time(span.start + span.duration).min(NOW)).max().unwrap_or_default();
            let is_unknown = random.random_range(0..10) == 0;
            let (start_unix_nanos, end_unix_nanos) = if is_unknown { (0, 0) } else { (start, end.max(start)) };
            let meta = BlockMeta { start_unix_nanos, end_unix_nanos, ..block_meta(number as u8 + 1) };
            world.blocks.push(Block { meta, spans, is_served: random.random_range(0..4) == 0 });
        }
        world
    }

    fn all(&self) -> Spans {
        let blocks = self.blocks.iter().flat_map(|block| &block.spans);
        self.ingesters.iter().flat_map(OneIngester::all).chain(blocks).cloned().collect()
    }

    /// Counts as the jobs do: what is live first, then each block, then what they have left alone.
    fn count(&self, plan: &MetricsPlan) -> Partial {
        let fetch = plan.fetch();
        let mut partial = plan.partial();
        let spread = if plan.needs_whole_traces() { TRACE_SPREAD_NANOS } else { 0 };
        let filter = if plan.needs_whole_traces() { part_filter(&fetch.filter) } else { fetch.filter.clone() };
        let of_parts = Fetch { filter, range: fetch.range.widened(spread), ..fetch.clone() };
        let may_count = |spans: &[&OneSpan]| -> BTreeSet<TraceId> { batch(&of_parts, spans).traces.iter().map(|t| t.trace_id).collect() };
        let has = |block: &Block, id: TraceId| block.spans.iter().any(|span| span.trace == id);

        let named: Vec<Vec<NamedTraces>> = self.ingesters.iter().map(|ingester| ingester.named(of_parts.range)).collect();
        let mut told: BTreeSet<(BlockId, TraceId)> = BTreeSet::new();
        let considered = || self.blocks.iter().filter(|block| near_range(&block.meta, fetch.range));
        for block in considered() {
            let groups = named.iter().flatten().filter(|group| group.may_be_in(&block.meta));
            let ids = groups.flat_map(|group| &group.traces).filter(|id| has(block, **id));
            told.extend(ids.map(|id| (block.meta.block_id, *id)));
        }
        let in_blocks: FxHashSet<TraceId> = told.iter().map(|(_, id)| *id).collect();
        let shares = share(&named, &in_blocks);
        let mut split: BTreeSet<TraceId> = BTreeSet::new();
        for (ingester, of_others) in self.ingesters.iter().zip(&shares.of_others) {
            let spans: Vec<&OneSpan> = ingester.all().collect();
            split.extend(may_count(&spans).iter().filter(|id| shares.split.contains(id)));
            let own: Vec<&OneSpan> =
                spans.into_iter().filter(|span| !shares.split.contains(&span.trace) && !of_others.contains(&span.trace)).collect();
            let _ = plan.observe(&mut partial, &batch(fetch, &own), &|| false);
        }
        let live: BTreeSet<TraceId> = split.iter().copied().chain(in_blocks.iter().copied()).collect();

        let mut around: BTreeSet<BlockId> = told.iter().map(|(block, _)| *block).collect();
        for block in self.blocks.iter().filter(|block| overlaps(&block.meta, fetch.range)) {
            let neighbours =
                || self.blocks.iter().filter(|other| other.meta.block_id != block.meta.block_id && near(&other.meta, &block.meta));
            let left = |id: TraceId| told.contains(&(block.meta.block_id, id)) || neighbours().any(|other| has(other, id));
            let spans: Vec<&OneSpan> = block.spans.iter().collect();
            let named: Vec<TraceId> = may_count(&spans).into_iter().filter(|id| left(*id)).collect();
            if !named.is_empty() {
                around.insert(block.meta.block_id);
            }
            split.extend(named);
            let own: Vec<&OneSpan> = spans.into_iter().filter(|span| !left(span.trace)).collect();
            let _ = plan.observe(&mut partial, &batch(fetch, &own), &|| false);
        }

        let around: Vec<&Block> = {
            let is_around = |block: &Block| {
                around.contains(&block.meta.block_id)
                    || self.blocks.iter().any(|other| around.contains(&other.meta.block_id) && near(&other.meta, &block.meta))
            };
            self.blocks.iter().filter(|block| is_around(block)).collect()
        };
        let joining = JoinedFetch::new(fetch);
        for id in split {
            let holders: Vec<&BlockMeta> = around.iter().filter(|block| has(block, id)).map(|block| &block.meta).collect();
            let left = left_by(&holders, live.contains(&id), |block| told.contains(&(block.block_id, id)));
            let mut parts = Vec::new();
            let mut part = |spans: &mut dyn Iterator<Item = &OneSpan>| {
                let spans: Vec<&OneSpan> = spans.filter(|span| span.trace == id).collect();
                parts.push(batch(joining.of_parts(), &spans));
            };
            around.iter().filter(|block| left.iter().any(|l| l.block_id == block.meta.block_id)).for_each(|b| part(&mut b.spans.iter()));
            if live.contains(&id) {
                self.ingesters.iter().for_each(|ingester| part(&mut ingester.all()));
            }
            let _ = plan.observe(&mut partial, &joining.join(parts), &|| false);
        }
        partial
    }
}

fn check(queries: &[&str], seed: u64, spread: u64, range: (u64, u64)) {
    let world = World::random(&mut StdRng::seed_from_u64(seed), spread);
    let spans = world.all();
    for query in queries {
        let range = MetricsRange::range(range.0, range.1, Some((range.1 - range.0) / 12), Release::V2).expect("a range");
        let plan = parse(query).expect("parses").metrics_plan(range, 0).expect("plans");
        let mut want = plan.partial();
        let _ = plan.observe(&mut want, &batch(plan.fetch(), &spans.iter().collect::<Vec<_>>()), &|| false);
        let shown = |partial: Partial| {
            let mut series: Vec<String> = Vec::new();
            for one in plan.finish(&partial, &|| false).expect("fits").series {
                let samples =
                    one.samples.iter().filter(|sample| sample.value != 0.0).map(|sample| (sample.timestamp_ms / 1000, sample.value));
                series.push(format!("{:?}: {:?}", one.labels, samples.collect::<Vec<_>>()));
            }
            series.sort();
            series
        };
        let places: Vec<_> = world
            .blocks
            .iter()
            .map(|b| (b.meta.block_id.0[0], b.is_served, b.meta.start_unix_nanos, b.meta.end_unix_nanos, &b.spans))
            .collect();
        let of_ingesters: Vec<_> = world.ingesters.iter().map(|i| (&i.own, &i.held)).collect();
        assert_eq!(shown(world.count(&plan)), shown(want), "seed {seed}, {query}\n{places:?}\n{of_ingesters:?}");
    }
}

/// Each span decides for itself.
const BY_SPAN: [&str; 8] = [
    "{ } | count_over_time()",
    "{ } | rate() by (resource.service.name)",
    r#"{ name = "a" } | count_over_time() by (name)"#,
    "{ status = error } | min_over_time(duration)",
    "{ } | max_over_time(duration) by (name)",
    "{ } | sum_over_time(duration)",
    r#"{ name != "b" } | quantile_over_time(duration, .5, .9)"#,
    "{ } | histogram_over_time(duration)",
];

/// The whole trace decides.
const BY_TRACE: [&str; 7] = [
    "{ } | count_over_time() by (rootName)",
    "{ rootServiceName = `shop` } | rate()",
    "{ traceDuration > 5m } | count_over_time()",
    r#"{ name = "a" } >> { name = "b" } | count_over_time()"#,
    r#"{ name = "a" } && { name = "b" } | rate()"#,
    "{ } | count() > 2 | count_over_time()",
    "{ } | avg_over_time(duration) by (resource.service.name)",
];

#[test]
fn each_span_counts_once_wherever_it_lies() {
    for seed in 0..40 {
        check(&BY_SPAN, seed, 6 * HOUR, (NOW - 100 * HOUR, NOW + HOUR));
        check(&BY_SPAN, seed, HOUR / 4, (NOW - HOUR / 8, NOW));
    }
}

#[test]
fn traces_count_as_whole_ones() {
    for seed in 0..40 {
        check(&BY_TRACE, seed, HOUR / 4, (NOW - 2 * HOUR, NOW + HOUR));
        check(&BY_TRACE, seed, HOUR / 4, (NOW - HOUR / 8, NOW));
    }
}

#[test]
fn what_several_hold_alike_one_of_them_counts() {
    let id = |n: u8| TraceId([n; 16]);
    let named = |traces: &[u8], held: &[u64]| NamedTraces {
        traces: traces.iter().map(|n| id(*n)).collect(),
        held_segments: held.to_vec(),
        start_unix_nanos: NOW,
        end_unix_nanos: NOW,
        oldest_arrival_unix_nanos: NOW,
    };
    let ingesters = [
        vec![named(&[1, 2], &[]), named(&[3, 4], &[30, 40])],
        vec![named(&[2, 5], &[]), named(&[3, 4, 5], &[30, 41, 50])],
        vec![named(&[6, 7], &[]), named(&[3], &[30])],
    ];
    let shares = share(&ingesters, &FxHashSet::from_iter([id(7)]));
    assert_eq!(shares.split, [2, 4, 5, 7].map(id));
    assert_eq!(shares.of_others, [vec![], vec![id(3)], vec![id(3)]]);
}
