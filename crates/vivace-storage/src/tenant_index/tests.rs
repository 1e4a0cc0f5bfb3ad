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
            let json = unpack(flate2::read::GzDecoder::new(bytes)).expect("gzip");
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
