//! Indexes that Tempo wrote, in both forms.

use super::*;
use vivace_block::{DedicatedScope, Format};

fn object(set: &str, name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/{set}/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

fn both(set: &str) -> TenantIndex {
    let never = |problem: &str| panic!("{set}: {problem}");
    let protobuf = TenantIndex::from_protobuf(&object(set, "index.pb.zst"), never).expect("protobuf");
    let json = TenantIndex::from_json(&object(set, "index.json.gz"), never).expect("JSON");
    assert_eq!(protobuf.live, json.live, "{set}");
    assert_eq!(protobuf.compacted, json.compacted, "{set}");
    // Tempo takes the time anew for the second object.
    assert!(protobuf.created_unix_nanos.abs_diff(json.created_unix_nanos) < 1_000_000_000, "{set}");
    protobuf
}

#[test]
fn both_forms_of_a_real_index_say_the_same() {
    let index = both("v4-compacted");
    let [live] = index.live.as_slice() else { panic!("{index:?}") };
    assert_eq!((live.block_id.to_string().as_str(), &live.format), ("6faef693-1cbe-4918-bdc2-262db418795e", &Format::VParquet4));
    assert_eq!((live.total_objects, live.size_bytes, live.compaction_level), (60, 77_328, 1));
    assert_eq!((live.row_groups, live.bloom_shards, live.footer_bytes), (1, 3, 20_013));
    assert_eq!(rfc3339(live.end_unix_nanos), "2026-11-20T12:00:08Z");
    let compacted: Vec<String> = index.compacted.iter().map(|block| rfc3339(block.compacted_unix_nanos)).collect();
    assert_eq!(compacted, ["2026-11-21T02:38:31.206588639Z", "2026-11-21T02:38:31.206588529Z", "2026-11-21T02:38:31.206588059Z"]);

    let index = both("v5-edge-dedicated");
    let columns = &index.live[0].dedicated_columns;
    assert_eq!(index.live[0].format, Format::VParquet5);
    assert!(columns.iter().any(|column| column.scope == DedicatedScope::Event));
    assert!(columns.iter().any(|column| !column.options.is_empty()));
    assert_eq!(both("v5-compacted").compacted.len(), 3);
    assert_eq!(both("v5-edge-by-2.10").live[0].dedicated_columns.len(), 14);
}

#[test]
fn what_is_written_again_is_what_was_read() {
    for set in ["v4-compacted", "v5-compacted", "v5-edge-dedicated", "v5-edge-by-2.10"] {
        let never = |problem: &str| panic!("{set}: {problem}");
        let index = both(set);
        assert_eq!(TenantIndex::from_protobuf(&index.to_protobuf(), never).as_ref(), Ok(&index), "{set}");
        assert_eq!(TenantIndex::from_json(&index.to_json(), never).as_ref(), Ok(&index), "{set}");
        // Text for text, but for the fields that 3.0 leaves out and 2.10 wants.
        let text = |bytes: &[u8]| {
            let json = unpack(flate2::read::GzDecoder::new(bytes), bytes.len()).expect("gzip");
            let mut json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            json["created_at"].take();
            for list in ["meta", "compacted"] {
                for meta in json[list].as_array_mut().expect("a list") {
                    let meta = meta.as_object_mut().expect("an object");
                    meta.retain(|key, _| !matches!(key.as_str(), "encoding" | "dataEncoding"));
                }
            }
            json.to_string()
        };
        assert_eq!(text(&index.to_json()), text(&object(set, "index.json.gz")), "{set}");
    }
}

#[test]
fn compressed_zeros_are_refused_before_they_fill_memory() {
    let zeros = vec![0; 8 << 20];
    let packed = zstd::bulk::compress(&zeros, 1).expect("compresses");
    let error = TenantIndex::from_protobuf(&packed, |_| {}).expect_err("is no index");
    assert!(error.contains(&format!("{} bytes unpack to more than", packed.len())), "{error}");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&zeros).expect("compresses");
    let error = TenantIndex::from_json(&packed.finish().expect("compresses"), |_| {}).expect_err("is no index");
    assert!(error.contains("bytes unpack to more than"), "{error}");
}

#[test]
fn entries_that_are_no_blocks_are_named_and_left_out() {
    let json = br#"{"new":[{}],"created_at":"2026-11-20T12:00:00Z","meta":[0,{"blockID":"x"},null],"compacted":null}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(json).expect("compresses");
    let packed = encoder.finish().expect("compresses");
    let mut bad = Vec::new();
    let index = TenantIndex::from_json(&packed, |reason| bad.push(reason.to_owned())).expect("is an index");
    assert_eq!((index.created_unix_nanos, index.live.len(), bad.len()), (1_795_176_000_000_000_000, 0, 3), "{bad:?}");
    // Fields 1 (a time), 2 (nothing), 9 (of a later version).
    let packed = zstd::bulk::compress(&[0x0a, 2, 0x08, 5, 0x12, 0, 0x48, 1], 1).expect("compresses");
    let index = TenantIndex::from_protobuf(&packed, |reason| bad.push(reason.to_owned())).expect("is an index");
    assert_eq!((index.created_unix_nanos, index.live.len(), bad.len()), (5_000_000_000, 0, 4), "{bad:?}");
    for cut in [&[0x0a, 9][..], &[0x08, 1], &[0x12]] {
        let packed = zstd::bulk::compress(cut, 1).expect("compresses");
        assert!(TenantIndex::from_protobuf(&packed, |_| {}).is_err(), "{cut:?}");
    }
}
