//! The small objects beside `data.parquet`: `meta.json`, `index`, and the shards of the bloom filter.

use vivace_block::BlockMeta;
use vivace_block::bloom::Shard;
use vivace_block::index::RowGroupIndex;
use vivace_core::TraceId;

use crate::input::Input;

/// The first byte says which; the rest is the object. What can be read must be the same after it is written and read.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let kind = input.u8();
    let bytes = input.rest();
    match kind % 3 {
        0 => {
            if let Ok(meta) = BlockMeta::from_json(bytes, "meta.json") {
                assert_eq!(BlockMeta::from_json(&meta.to_json(), "meta.json"), Ok(meta));
            }
        }
        1 => {
            if let Ok(index) = RowGroupIndex::from_json(bytes) {
                for (group, id) in index.last_ids.iter().enumerate() {
                    assert_eq!(index.row_group_of(*id), Some(group));
                }
                assert_eq!(RowGroupIndex::from_json(&index.to_json()), Ok(index));
            }
        }
        _ => {
            if let Ok(shard) = Shard::from_bytes(bytes) {
                let found = [0, 1, 0x80, 0xff].map(|byte| shard.may_contain(TraceId([byte; 16])));
                assert_eq!(found, [0, 1, 0x80, 0xff].map(|byte| shard.may_contain(TraceId([byte; 16]))));
            }
        }
    }
}
