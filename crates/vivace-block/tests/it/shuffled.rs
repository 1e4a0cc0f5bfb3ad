//! Blocks whose rows are out of the order of their trace ids, or have a trace in several rows, as Tempo leaves them behind when
//! it flushes while spans come in: all answers are those of the block in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng, SeedableRng};
use vivace_block::verify::{SmallObjects, Verdict, verify};
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, ReadAt, ReadError, merge, part_filter};
use vivace_core::combine::combine;
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_proto::otlp::{ResourceSpans, TracesData};
use vivace_traceql::{Batch, MetricsRange, Release, SearchPlan};

use crate::made::{self, Made};
use crate::read::{meta, testdata};
use crate::rewrite::{Rows, rewritten, rows_of};

type Trace = Vec<ResourceSpans>;

/// A block of the rows of another in this order, in row groups of so many rows; `with_bounds`: with statistics of its ids.
fn reordered(made: &Made, order: &[usize], ids: Option<&[TraceId]>, rows_per_group: usize, with_bounds: bool) -> BlockReader {
    let statistics = if with_bounds { EnabledStatistics::Chunk } else { EnabledStatistics::None };
    let properties = WriterProperties::builder().set_created_by("another".to_owned()).set_statistics_enabled(statistics);
    let (meta, data) = rewritten(made, order, ids, rows_per_group, properties);
    BlockReader::open(meta, Arc::new(data)).expect("opens")
}

fn open(made: Made) -> BlockReader {
    BlockReader::open(made.meta, Arc::new(made.data)).expect("opens")
}

fn encoded(trace: &Trace) -> Vec<u8> {
    TracesData { resource_spans: trace.clone() }.encode_to_vec()
}

/// Matching traces with what is said of them. Which spans of many are shown depends on their order.
fn found(plan: &SearchPlan, search: impl FnOnce(&mut dyn FnMut(Batch) -> ControlFlow<()>)) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    search(&mut |batch| {
        for trace in plan.evaluate(&batch, 1000) {
            let matched: BTreeSet<String> =
                trace.span_sets.iter().flat_map(|set| &set.spans).map(|span| format!("{} {}", span.span_id, span.name)).collect();
            let says = format!(
                "{} {} {} {:?} {matched:?}",
                trace.root_trace_name,
                trace.root_service_name,
                trace.duration_ms,
                trace.span_sets.iter().map(|set| set.matched).max()
            );
            assert!(found.insert(trace.trace_id, says).is_none(), "a trace is given once");
        }
        ControlFlow::Continue(())
    });
    found
}

const QUERIES: [&str; 9] = [
    "{ }",
    "{ status = error }",
    "{ nestedSetParent < 0 }",
    "{ kind = server } && { kind = client }",
    "{ } >> { }",
    "{ } | count() > 3",
    "{ traceDuration > 1ms && span.http.method = `GET` }",
    "{ resource.service.name =~ `.*a.*` }",
    "{ rootName != `` } && { kind = server }",
];

const METRICS: [&str; 4] = [
    "{ } | count_over_time()",
    "{ } | count_over_time() by (resource.service.name)",
    "{ status = error } | rate() by (rootName)",
    "{ } | compare({ status = error })",
];

/// The answer to a metrics query, of row group by row group.
fn counted(block: &BlockReader, query: &str) -> String {
    let range = MetricsRange::instant(1_700_000_000_000_000_000, 2_000_000_000_000_000_000, Release::V2).expect("a range");
    let plan = vivace_traceql::parse(query).expect("a query").metrics_plan(range, 0).expect("a plan");
    let mut partial = plan.partial();
    for group in 0..block.row_groups() {
        block.observe(&plan, &mut partial, group..group + 1, &|_| true, &|| false).expect("reads");
    }
    format!("{:?}", plan.finish(&partial, &|| false).expect("fits").series)
}

/// All that queries do with a block.
fn expect_answers(block: &BlockReader, in_order: &BlockReader, context: &str) {
    let want: BTreeMap<TraceId, Trace> = in_order.traces().collect::<Result<_, _>>().expect("reads");
    let got: Vec<(TraceId, Trace)> = block.traces().collect::<Result<_, _>>().expect("reads");
    assert!(got.is_sorted_by(|a, b| a.0 < b.0), "{context}: traces ascend");
    assert_eq!(got.len(), want.len(), "{context}");
    for (at, (id, trace)) in got.iter().enumerate() {
        assert_eq!(spans(trace), spans(&want[id]), "{context}: {id}");
        if at % 5 == 0 {
            let found = block.find(*id, None).expect("reads").expect("is there");
            assert_eq!(spans(&found), spans(&want[id]), "{context}: {id}");
        }
    }
    assert!(block.find(TraceId([0xfe; 16]), None).expect("reads").is_none());
    let ids: BTreeSet<TraceId> = (0..block.row_groups()).flat_map(|group| block.ids_of(group).expect("reads").to_vec()).collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), want.keys().copied().collect::<Vec<_>>());
    for query in METRICS {
        assert_eq!(counted(block, query), counted(in_order, query), "{context}: {query}");
    }
    for query in QUERIES {
        let plan = vivace_traceql::parse(query).expect("a query").search_plan(TimeRange::ALL).expect("a search");
        let want = found(&plan, |each| {
            in_order.search(plan.fetch(), 0..99, each).expect("reads");
        });
        let got = found(&plan, |each| {
            block.search(plan.fetch(), 0..9999, each).expect("reads");
        });
        assert_eq!(got, want, "{context}: {query}");
        // Row group by row group, in jobs of their own, as the query-frontend cuts them.
        let by_group = found(&plan, |each| {
            for group in 0..block.row_groups() {
                block.search(plan.fetch(), group..group + 1, each).expect("reads");
            }
        });
        assert_eq!(by_group, want, "{context}: {query}, by row group");
        let by_parts = found(&plan, |each| {
            let mut seen = BTreeSet::new();
            for group in 0..block.row_groups() {
                let parts = block.parts(plan.fetch(), &part_filter(&plan.fetch().filter), group..group + 1).expect("reads");
                assert!(parts.traces.is_sorted_by(|a, b| a.trace_id < b.trace_id));
                assert!(parts.traces.iter().all(|part| seen.insert(part.trace_id)), "a trace belongs to one row group");
                block.search_parts(plan.fetch(), &parts, &|_| true, each).expect("reads");
            }
        });
        assert_eq!(by_parts, want, "{context}: {query}, by parts");
    }
}

fn spans(trace: &Trace) -> BTreeSet<Vec<u8>> {
    let scopes = trace.iter().flat_map(|resource| resource.scope_spans.iter().map(move |scope| (resource, scope)));
    let spans = scopes.flat_map(|(resource, scope)| {
        scope.spans.iter().map(move |span| {
            let scope_spans = vec![vivace_proto::otlp::ScopeSpans { spans: vec![span.clone()], ..scope.clone() }];
            encoded(&vec![ResourceSpans { scope_spans, ..resource.clone() }])
        })
    });
    spans.collect()
}

/// The traces of the data set that has a case of everything, without what makes an answer depend on the order of spans.
fn all_traces() -> Vec<(TraceId, Trace)> {
    let made = open(made::of_every_case(BlockOptions::default()));
    let traces = made.traces().collect::<Result<Vec<_>, _>>().expect("reads");
    traces.into_iter().filter(|(_, trace)| roots(trace) < 2).collect()
}

fn roots(trace: &Trace) -> usize {
    let spans = trace.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
    spans.filter(|span| span.parent_span_id.is_empty()).count()
}

/// Two halves of a trace, some spans in both.
fn halves(trace: &Trace, random: &mut StdRng) -> [Trace; 2] {
    let mut halves = [trace.clone(), trace.clone()];
    let count: usize = trace.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum();
    let places: Vec<u8> = (0..count).map(|_| random.random_range(1..=3)).collect();
    for (half, bit) in halves.iter_mut().zip([1, 2]) {
        let mut places = places.iter();
        for scope in half.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
            scope.spans.retain(|_| places.next().is_some_and(|place| place & bit > 0));
        }
    }
    halves.map(|half| combine([half]))
}

#[test]
fn a_block_out_of_order_answers_as_one_in_order() {
    let traces = all_traces();
    let in_order = made::of_otlp(BlockOptions::default(), &traces);
    let mut random = StdRng::seed_from_u64(5);
    let plain = open(made::of_otlp(BlockOptions::default(), &traces));
    assert!(plain.is_in_order().expect("reads"));
    let rows = traces.len();
    for (rows_per_group, with_bounds) in [(rows, true), (20, true), (20, false), (1, true)] {
        let ascending: Vec<usize> = (0..rows).collect();
        let block = reordered(&in_order, &ascending, None, rows_per_group, with_bounds);
        assert!(block.is_in_order().expect("reads"));
        expect_answers(&block, &plain, "in order");
        let mut order = ascending;
        order.shuffle(&mut random);
        let block = reordered(&in_order, &order, None, rows_per_group, with_bounds);
        assert!(!block.is_in_order().expect("reads"));
        expect_answers(&block, &plain, &format!("shuffled, {rows_per_group} rows, {with_bounds}"));
    }
}

#[test]
fn rows_of_one_trace_are_one_trace() {
    let traces = all_traces();
    let mut random = StdRng::seed_from_u64(6);
    let plain = open(made::of_otlp(BlockOptions::default(), &traces));
    let mut with_parts: Vec<(TraceId, Trace)> = Vec::new();
    for (id, trace) in &traces {
        let [first, second] = halves(trace, &mut random);
        with_parts.extend([(*id, first), (*id, second)].into_iter().filter(|(_, half)| !half.is_empty()));
    }
    // Our writer takes an id once, so the rows get their own ids afterwards.
    let numbered: Vec<(TraceId, Trace)> =
        with_parts.iter().enumerate().map(|(row, (_, trace))| (TraceId((row as u128).to_be_bytes()), trace.clone())).collect();
    let made = made::of_otlp(BlockOptions::default(), &numbered);
    let ids: Vec<TraceId> = with_parts.iter().map(|(id, _)| *id).collect();
    let rows = with_parts.len();
    assert!(rows > traces.len() + 20);
    for (rows_per_group, with_bounds) in [(rows, true), (16, true), (16, false)] {
        for round in 0..2 {
            let mut order: Vec<usize> = (0..rows).collect();
            if round > 0 {
                order.shuffle(&mut random);
            }
            let block = reordered(&made, &order, Some(&ids), rows_per_group, with_bounds);
            assert!(!block.is_in_order().expect("reads"));
            expect_answers(&block, &plain, &format!("{rows_per_group} rows, {with_bounds}, round {round}"));
            let merged = merged(&[block]);
            assert!(merged.is_in_order().expect("reads"));
            expect_answers(&merged, &plain, "merged");
        }
    }
}

fn merged(inputs: &[BlockReader]) -> BlockReader {
    let options = BlockOptions { dedicated_columns: inputs[0].meta().dedicated_columns.clone(), ..BlockOptions::default() };
    let writer = BlockWriter::new(options, TenantId::single(), BlockId([9; 16]), Vec::new(), 100).expect("starts");
    let block = merge(inputs, writer, &|| true).expect("merges").block;
    let small = SmallObjects {
        blooms: block.blooms.iter().map(|bloom| Some(bloom.clone().into())).collect(),
        index: Some(block.index.clone().into()),
    };
    let source: Arc<dyn ReadAt> = Arc::new(Bytes::from(block.out));
    let report = verify(&block.meta, &source, &small, &mut |_| {});
    assert!(!report.is_bad(), "{report:#?}");
    BlockReader::open(block.meta, source).expect("opens")
}

/// A block as Tempo 2.10.8 left it after a flush under load.
fn real() -> (BlockMeta, Bytes) {
    let packed = std::fs::File::open(testdata("v4-unsorted").join("data.parquet.zst")).expect("the block");
    let mut bytes = Vec::new();
    zstd::Decoder::new(packed).expect("zstd").read_to_end(&mut bytes).expect("zstd");
    (meta("v4-unsorted"), bytes.into())
}

#[test]
fn a_real_block_out_of_order_is_read_and_merged() {
    let (meta, bytes) = real();
    let file = SerializedFileReader::new(bytes.clone()).expect("a file");
    // What is in it, as another library reads it: ids of traces and their spans.
    let Rows::Bytes(ids) = rows_of(&file, 0) else { panic!("ids") };
    let Rows::Bytes(span_ids) = rows_of(&file, 47) else { panic!("ids") };
    let mut want: BTreeMap<TraceId, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut rows: BTreeMap<TraceId, u32> = BTreeMap::new();
    for (id, spans) in ids.iter().zip(&span_ids) {
        let id = TraceId::from_slice(id.values[0].data());
        *rows.entry(id).or_default() += 1;
        want.entry(id).or_default().extend(spans.values.iter().map(|span| span.data().to_vec()));
    }
    let repeated: Vec<TraceId> = rows.iter().filter(|(_, rows)| **rows > 1).map(|(id, _)| *id).collect();
    assert!(!repeated.is_empty() && rows.len() < ids.len());
    let block = BlockReader::open(meta.clone(), Arc::new(bytes.clone())).expect("opens");
    assert!(!block.is_in_order().expect("reads"));
    let spans = |trace: &Trace| -> BTreeSet<Vec<u8>> {
        let scopes = trace.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).map(|span| span.span_id.to_vec()).collect()
    };
    for id in repeated.iter().take(12).chain(rows.keys().step_by(300)) {
        assert_eq!(spans(&block.find(*id, None).expect("reads").expect("is there")), want[id], "{id}");
    }
    let merged = merged(&[block]);
    let traces: BTreeMap<TraceId, Trace> = merged.traces().collect::<Result<_, ReadError>>().expect("reads");
    assert_eq!(traces.iter().map(|(id, trace)| (*id, spans(trace))).collect::<BTreeMap<_, _>>(), want);
    let block = BlockReader::open(meta.clone(), Arc::new(bytes.clone())).expect("opens");
    let plan = vivace_traceql::parse("{ }").expect("a query").search_plan(TimeRange::ALL).expect("a search");
    let mut given = found(&plan, |each| {
        block.search(plan.fetch(), 0..9, each).expect("reads");
    });
    assert_eq!(given.len(), want.len());
    let mut of_merged = found(&plan, |each| {
        merged.search(plan.fetch(), 0..9, each).expect("reads");
    });
    // Of several roots another is the last when the parts come in another order.
    let mut several: BTreeSet<String> = traces.iter().filter(|(_, trace)| roots(trace) > 1).map(|(id, _)| id.trimmed_hex()).collect();
    // Its root has two names of its service, of which a block keeps one beside the name of the root's.
    several.insert("6e1ddd004eee5d81b7f0cf2df8e1ed4a".to_owned());
    assert!(several.len() < 200);
    given.retain(|id, _| !several.contains(id));
    of_merged.retain(|id, _| !several.contains(id));
    assert_eq!(given, of_merged);
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    let report = verify(&meta, &source, &SmallObjects::default(), &mut |_| {});
    let order = report.check("trace ids").expect("is checked");
    assert_eq!(order.verdict, Verdict::Note, "{order:?}");
    assert!(order.summary.contains("out of order"), "{order:?}");
}

/// Blocks of earlier versions have a dictionary where Tempo misreads it: what merges writes it anew.
#[test]
fn dictionaries_that_tempo_misreads_are_not_taken_over() {
    let made = made::of_otlp(BlockOptions::default(), &all_traces());
    let rows: Vec<usize> = (0..made.meta.total_objects as usize).collect();
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_created_by("vivace version 0".to_owned()).set_compression(zstd);
    let (meta, data) = rewritten(&made, &rows, None, 30, properties);
    let has_dictionary = |data: &Bytes| {
        let file = SerializedFileReader::new(data.clone()).expect("a file");
        let groups = file.metadata().row_groups().iter();
        groups.map(|group| group.column(49).dictionary_page_offset().is_some()).collect::<BTreeSet<_>>()
    };
    assert_eq!(has_dictionary(&data), [true].into());
    let source: Arc<dyn ReadAt> = Arc::new(data.clone());
    let report = verify(&meta, &source, &SmallObjects::default(), &mut |_| {});
    let check = report.check("dictionaries").expect("is checked");
    assert!(check.examples.iter().any(|example| example.contains("ParentID")), "{check:?}");
    let old = BlockReader::open(meta, Arc::new(data)).expect("opens");
    let mut out = Vec::new();
    let writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([9; 16]), &mut out, 100).expect("starts");
    merge(&[old], writer, &|| true).expect("merges");
    assert_eq!(has_dictionary(&out.into()), [false].into());
}
