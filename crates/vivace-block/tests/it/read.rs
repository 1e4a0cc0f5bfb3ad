//! Real blocks of the original, and what its servers answered from them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vivace_block::index::RowGroupIndex;
use vivace_block::{BlockMeta, BlockReader, bloom, objects};
use vivace_core::TraceId;
use vivace_proto::otlp::{ResourceSpans, TracesData};

pub(crate) fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

pub(crate) fn meta(set: &str) -> BlockMeta {
    BlockMeta::from_json(&std::fs::read(testdata(set).join("meta.json")).expect("meta.json"), set).expect("a block meta")
}

pub(crate) fn data(set: &str) -> Bytes {
    std::fs::read(testdata(set).join("data.parquet")).expect("data.parquet").into()
}

pub(crate) fn open(set: &str) -> BlockReader {
    BlockReader::open(meta(set), Arc::new(data(set))).expect("opens")
}

type Trace = Vec<ResourceSpans>;

/// The servers' answers by trace id.
pub(crate) fn expected(set: &str) -> BTreeMap<TraceId, Trace> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(testdata(set).join("traces.pb.gz")).expect("traces");
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    let mut bytes = Bytes::from(bytes);
    let mut traces = BTreeMap::new();
    while !bytes.is_empty() {
        let trace = TracesData::decode_length_delimited(&mut bytes).expect("protobuf").resource_spans;
        traces.insert(TraceId::from_slice(&trace[0].scope_spans[0].spans[0].trace_id), trace);
    }
    traces
}

/// The query path of the original gives new ids to server spans that share theirs with a client span.
pub(crate) fn has_shared_span_ids(trace: &Trace) -> bool {
    let ids: Vec<_> = trace.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).map(|s| s.span_id.clone()).collect();
    ids.iter().collect::<std::collections::BTreeSet<_>>().len() < ids.len()
}

/// Bytes can be compared even where values are NaN.
fn encoded(trace: &Trace) -> Vec<u8> {
    TracesData { resource_spans: trace.clone() }.encode_to_vec()
}

#[test]
fn every_trace_decodes_to_what_the_original_answered() {
    for set in [
        "v4-edge-default",
        "v4-edge-dedicated",
        "v4-bulk-rowgroups",
        "v4-pages",
        "v4-compacted",
        "v5-edge-default",
        "v5-edge-dedicated",
        "v5-edge-by-2.10",
        "v5-bulk-rowgroups",
        "v5-compacted",
    ] {
        let expected = expected(set);
        let block = open(set);
        let index = std::fs::read(testdata(set).join("index")).ok();
        let index = index.map(|json| RowGroupIndex::from_json(&json).expect("an index"));
        let traces: Vec<(TraceId, Trace)> = block.traces().collect::<Result<_, _>>().expect("reads");
        assert_eq!(traces.len() as u64, block.meta().total_objects, "{set}");
        assert_eq!(traces.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>(), "{set}");
        let mut shared = 0;
        for (row, (id, trace)) in traces.into_iter().enumerate() {
            if has_shared_span_ids(&trace) {
                shared += 1;
            } else {
                assert_eq!(encoded(&trace), encoded(&expected[&id]), "{set} {id}: {trace:#?}\n{:#?}", expected[&id]);
            }
            // Looking for every one takes long in a build that is not optimised.
            if row % 11 < 2 {
                let index = index.as_ref().filter(|_| row % 11 == 0);
                let found = block.find(id, index).expect("reads").expect("is there");
                assert_eq!(encoded(&found), encoded(&trace), "{set} {id}");
            }
        }
        assert!(shared < 8, "{set}: {shared} traces could not be compared");
    }
}

#[test]
fn parts_of_a_trace_combine_to_what_the_original_answered() {
    let blocks = [open("v4-three-blocks-1"), open("v4-three-blocks-2"), open("v4-three-blocks-3")];
    for (id, want) in expected("v4-three-blocks-1") {
        let parts = blocks.iter().filter_map(|block| block.find(id, None).expect("reads"));
        let spans = |trace: &Trace| {
            let mut spans: Vec<_> = trace.iter().flat_map(|r| &r.scope_spans).flat_map(|s| s.spans.clone()).collect();
            spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
            spans
        };
        assert_eq!(spans(&vivace_core::combine::combine(parts)), spans(&want), "{id}");
    }
}

#[test]
fn every_real_filter_knows_its_ids_and_every_real_index_its_row_groups() {
    for set in ["v4-bulk-rowgroups", "v4-compacted", "v4-edge-default", "v4-three-blocks-1", "v5-bulk-rowgroups", "v5-compacted"] {
        let block = open(set);
        let meta = block.meta();
        let object = |name: &str| std::fs::read(testdata(set).join(name)).expect(name);
        let shards: Vec<bloom::Shard> =
            (0..meta.bloom_shards).map(|shard| bloom::Shard::from_bytes(&object(&objects::bloom(shard))).expect("a filter")).collect();
        let index = RowGroupIndex::from_json(&object(objects::INDEX)).expect("an index");
        // Real metas may count one row group too many, these do not.
        assert_eq!((index.last_ids.len(), block.row_groups()), (meta.row_groups as usize, meta.row_groups as usize), "{set}");
        for trace in block.traces() {
            let (id, _) = trace.expect("reads");
            assert!(shards[bloom::shard_of(id, meta.bloom_shards) as usize].may_contain(id), "{set} {id}");
            assert!(index.row_group_of(id).is_some(), "{set} {id}");
        }
    }
}
