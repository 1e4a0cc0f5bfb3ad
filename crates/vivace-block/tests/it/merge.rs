//! Blocks become one block: nothing is lost, copies go, and what needs no change is not changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vivace_block::index::RowGroupIndex;
use vivace_block::verify::{SmallObjects, verify};
use vivace_block::{BlockOptions, BlockReader, BlockWriter, FinishedBlock, MergeError, MergedBlock, ReadAt, merge};
use vivace_core::combine::combine;
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::otlp::{ResourceSpans, TracesData};

use crate::read::open;
use crate::read_written::{Parts, parts, refs};

type Trace = Vec<ResourceSpans>;

fn options(of: &BlockReader) -> BlockOptions {
    let dedicated_columns = of.meta().dedicated_columns.clone();
    BlockOptions { dedicated_columns, row_group_traces: 24, row_group_otlp_bytes: 64 << 10, ..BlockOptions::default() }
}

fn writer(options: BlockOptions) -> BlockWriter<Vec<u8>> {
    BlockWriter::new(options, TenantId::new("a").expect("valid"), BlockId([9; 16]), Vec::new(), 100).expect("starts")
}

fn written<'a>(options: BlockOptions, traces: impl IntoIterator<Item = (&'a TraceId, &'a Trace)>) -> BlockReader {
    read(finished(options, traces))
}

fn finished<'a>(options: BlockOptions, traces: impl IntoIterator<Item = (&'a TraceId, &'a Trace)>) -> FinishedBlock<Vec<u8>> {
    let mut writer = writer(options);
    for (id, trace) in traces {
        writer.push_trace(*id, &refs(&parts(trace))).expect("is written");
    }
    writer.finish().expect("is written")
}

fn read(block: FinishedBlock<Vec<u8>>) -> BlockReader {
    BlockReader::open(block.meta, Arc::new(Bytes::from(block.out))).expect("opens")
}

/// The merged block, which is sound; traces and spans that were combined.
fn merged(inputs: &[BlockReader]) -> (BlockReader, u64, u64) {
    let merged = merge(inputs, writer(options(&inputs[0])), &|| true).expect("merges");
    (sound(merged.block), merged.traces_combined, merged.spans_combined)
}

fn sound(block: FinishedBlock<Vec<u8>>) -> BlockReader {
    let small = SmallObjects {
        blooms: block.blooms.iter().map(|bloom| Some(bloom.clone().into())).collect(),
        index: Some(block.index.clone().into()),
    };
    let source: Arc<dyn ReadAt> = Arc::new(Bytes::from(block.out.clone()));
    let report = verify(&block.meta, &source, &small, &mut |_| {});
    assert!(!report.is_bad(), "{report:#?}");
    read(block)
}

fn traces(block: &BlockReader) -> BTreeMap<TraceId, Trace> {
    block.traces().collect::<Result<_, _>>().expect("reads")
}

/// Bytes can be compared even where values are NaN.
fn encoded(trace: &Trace) -> Vec<u8> {
    TracesData { resource_spans: trace.clone() }.encode_to_vec()
}

fn count(trace: &Trace) -> u64 {
    trace.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len() as u64).sum()
}

/// What inputs hold together, trace by trace.
fn combined(inputs: &[BlockReader]) -> BTreeMap<TraceId, Trace> {
    let mut parts: BTreeMap<TraceId, Vec<Trace>> = BTreeMap::new();
    inputs.iter().flat_map(traces).for_each(|(id, trace)| parts.entry(id).or_default().push(trace));
    parts.into_iter().map(|(id, parts)| (id, combine(parts))).collect()
}

fn expect_equal(got: &BTreeMap<TraceId, Trace>, want: &BTreeMap<TraceId, Trace>) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (id, trace) in got {
        assert_eq!(encoded(trace), encoded(&want[id]), "{id}: {trace:#?}\n{:#?}", want[id]);
    }
}

/// Every span with its resource and scope; how they are grouped does not matter.
fn flat(traces: &BTreeMap<TraceId, Trace>) -> BTreeMap<TraceId, Vec<Parts>> {
    let spans = |trace: &Trace| {
        let mut spans = parts(trace);
        spans.sort();
        spans
    };
    traces.iter().map(|(id, trace)| (*id, spans(trace))).collect()
}

#[test]
fn blocks_of_the_original_merge_as_its_own_compactor_merges_them() {
    let mut inputs = ["v4-three-blocks-1", "v4-three-blocks-2", "v4-three-blocks-3"].map(open);
    inputs.sort_by_key(|block| block.meta().total_objects);
    let want = combined(&inputs);
    let (block, traces_combined, spans_combined) = merged(&inputs);
    assert!(traces_combined > 40 && spans_combined > 50, "{traces_combined} {spans_combined}");
    let got = traces(&block);
    assert!(flat(&got) == flat(&want));
    assert!(flat(&got) == flat(&traces(&open("v4-compacted"))));
    let spans_in: u64 = inputs.iter().flat_map(traces).map(|(_, trace)| count(&trace)).sum();
    assert_eq!(got.values().map(count).sum::<u64>() + spans_combined, spans_in);
}

#[test]
fn a_block_merged_alone_or_with_itself_is_the_same_again() {
    for set in ["v4-edge-default", "v4-edge-dedicated", "v4-bulk-rowgroups", "v4-pages"] {
        let want = traces(&open(set));
        let (alone, traces_combined, spans_combined) = merged(&[open(set)]);
        assert_eq!((traces_combined, spans_combined), (0, 0), "{set}");
        expect_equal(&traces(&alone), &want);
        let twice = [open(set), open(set)];
        let (twice, traces_combined, _) = merged(&twice);
        assert_eq!(traces_combined, want.len() as u64, "{set}");
        expect_equal(&traces(&twice), &combined(&[open(set)]));
    }
}

#[test]
fn spans_dealt_to_several_blocks_come_together() {
    for set in ["v4-edge-default", "v4-bulk-rowgroups"] {
        let whole = traces(&open(set));
        let options = options(&open(set));
        let deal = |block: usize| -> BTreeMap<TraceId, Trace> {
            let mut number = 0;
            let mut dealt = whole.clone();
            for trace in dealt.values_mut() {
                for scope in trace.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
                    scope.spans.retain(|_| {
                        number += 1;
                        // Every seventh span is in two of the blocks.
                        number % 3 == block || number % 7 == block
                    });
                }
                trace.iter_mut().for_each(|resource| resource.scope_spans.retain(|scope| !scope.spans.is_empty()));
                trace.retain(|resource| !resource.scope_spans.is_empty());
            }
            dealt.retain(|_, trace| !trace.is_empty());
            dealt
        };
        let inputs = [0, 1, 2].map(|block| written(options.clone(), &deal(block)));
        let want = combined(&inputs);
        let (block, traces_combined, _) = merged(&inputs);
        assert!(traces_combined > 20, "{set}");
        assert!(flat(&traces(&block)) == flat(&want), "{set}");
    }
}

#[test]
fn row_groups_that_overlap_nothing_are_taken_over_as_they_are() {
    let whole = traces(&open("v4-bulk-rowgroups"));
    let options = options(&open("v4-bulk-rowgroups"));
    let ids: Vec<&TraceId> = whole.keys().collect();
    let mut files: Vec<Vec<u8>> = Vec::new();
    let inputs: Vec<BlockReader> = ids
        .chunks(70)
        .map(|ids| {
            let block = finished(options.clone(), ids.iter().map(|id| (*id, &whole[*id])));
            files.push(block.out.clone());
            read(block)
        })
        .collect();
    let row_groups: u32 = inputs.iter().map(|block| block.meta().row_groups).sum();
    let MergedBlock { block, .. } = merge(&inputs, writer(options), &|| true).expect("merges");
    assert_eq!(block.meta.row_groups, row_groups);
    for file in files {
        // The first row group begins after the magic bytes and is longer than this.
        assert!(memchr::memmem::find(&block.out, &file[4..8000]).is_some());
    }
    let block = sound(block);
    expect_equal(&traces(&block), &combined(&inputs));
    for id in ids.iter().step_by(17) {
        assert!(block.find(**id, None).expect("reads").is_some(), "{id}");
    }
}

/// Whether a row is copied, combined or made of spans, it counts the same.
#[test]
fn a_merged_block_cuts_its_row_groups_where_a_fresh_one_does() {
    let whole = traces(&open("v4-edge-default"));
    let options = BlockOptions {
        row_group_size_bytes: 1500,
        row_group_traces: u32::MAX,
        row_group_otlp_bytes: 1 << 40,
        ..options(&open("v4-edge-default"))
    };
    let in_one = BlockOptions { row_group_size_bytes: u64::MAX, ..options.clone() };
    // By turns in one input and in the other; of every third trace, each has some spans.
    let deal = |input: usize| -> BTreeMap<TraceId, Trace> {
        let mut dealt = whole.clone();
        for (number, trace) in dealt.values_mut().enumerate() {
            let mut span = 0;
            for scope in trace.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
                scope.spans.retain(|_| {
                    span += 1;
                    (if number % 3 == 0 { span } else { number }) % 2 == input
                });
            }
            trace.iter_mut().for_each(|resource| resource.scope_spans.retain(|scope| !scope.spans.is_empty()));
            trace.retain(|resource| !resource.scope_spans.is_empty());
        }
        dealt.retain(|_, trace| !trace.is_empty());
        dealt
    };
    let inputs = [0, 1].map(|input| written(in_one.clone(), &deal(input)));
    let ends = |block: &FinishedBlock<Vec<u8>>| RowGroupIndex::from_json(&block.index).expect("an index").last_ids;
    let merged = merge(&inputs, writer(options.clone()), &|| true).expect("merges");
    assert!(merged.traces_combined > 10, "{} traces combined", merged.traces_combined);
    let fresh = finished(options, &combined(&inputs));
    assert!(fresh.meta.row_groups > 10, "{} row groups", fresh.meta.row_groups);
    assert_eq!(ends(&merged.block), ends(&fresh));
}

#[test]
fn blocks_of_other_layouts_are_merged_as_spans() {
    let inputs = [open("v5-edge-default"), open("v4-bulk-rowgroups"), open("v4-edge-dedicated")];
    let (block, ..) = merged(&inputs);
    let (got, want) = (traces(&block), combined(&inputs));
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (id, trace) in &got {
        assert_eq!(count(trace), count(&want[id]), "{id}");
    }
}

#[test]
fn a_merge_that_is_not_wanted_any_more_ends() {
    let stopped = merge(&[open("v4-pages")], writer(BlockOptions::default()), &|| false);
    assert!(matches!(stopped, Err(MergeError::Stopped)));
}
