//! The trace ids, and what the block's other objects say of them.

use bytes::Bytes;
use vivace_core::TraceId;

use super::{Check, Tally, plural};
use crate::index::RowGroupIndex;
use crate::{BlockMeta, bloom};

/// Ids that are surely in no block, to measure how many a filter lets pass.
const ABSENT_IDS: u64 = 10_000;

/// A filter that lets more than this share pass is hardly one.
const PASSING_MAX: f64 = 0.1;

/// Order and number of the traces. Blocks of Tempo are known to be out of order, and are read and mended; `is_ours`: ours must not be.
pub(super) fn traces(meta: &BlockMeta, ids: &[TraceId], is_ours: bool, stopped: Option<&str>) -> Check {
    let mut tally = Tally::new("trace ids");
    let mut add = |case: String| if is_ours { tally.fail(case) } else { tally.note(case) };
    for pair in ids.windows(2).filter(|pair| pair[0] > pair[1]) {
        add(format!("trace {} comes after trace {}", pair[1], pair[0]));
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    for rows in sorted.chunk_by(|a, b| a == b).filter(|rows| rows.len() > 1) {
        add(format!("trace {} has {} rows", rows[0], rows.len()));
    }
    let in_order = ids.is_sorted_by(|a, b| a < b);
    sorted.dedup();
    if let Some(why) = stopped {
        tally.fail(why);
        return tally.finish("");
    }
    let found = ids.len() as u64;
    if meta.total_objects != found {
        tally.fail(format!("meta.json says {}, there are {found}", plural(meta.total_objects, "trace")));
    }
    match in_order {
        true => tally.finish(format!("{found}, ascending, each once, as many as meta.json says")),
        false => tally.finish(format!(
            "out of order: {found} rows of {}, as Tempo leaves them when it flushes while spans come in; found all the same, and put in order when compacted",
            plural(sorted.len() as u64, "trace")
        )),
    }
}

/// Every id must be in its shard.
pub(super) fn blooms(meta: &BlockMeta, blooms: &[Option<Bytes>], ids: &[TraceId], stopped: bool) -> Check {
    let mut tally = Tally::new("bloom filter");
    let said = meta.bloom_shards as usize;
    if blooms.len() != said {
        tally.fail(format!("{} given, meta.json says {said}", plural(blooms.len() as u64, "shard")));
    }
    let mut shards = Vec::with_capacity(blooms.len());
    for (number, bytes) in blooms.iter().enumerate() {
        let shard = match bytes {
            None => Err("is missing; its traces are not found by id".to_owned()),
            Some(bytes) => bloom::Shard::from_bytes(bytes).map_err(|error| error.to_string()),
        };
        match shard {
            Ok(shard) => shards.push(Some(shard)),
            Err(why) => {
                tally.fail(format!("bloom-{number}: {why}"));
                shards.push(None);
            }
        }
    }
    // Says yes where it cannot know: what is missing has been counted.
    let may_contain = |id: TraceId| {
        let number = bloom::shard_of(id, meta.bloom_shards);
        (number, shards.get(number as usize).and_then(Option::as_ref).is_none_or(|shard| shard.may_contain(id)))
    };
    for id in ids {
        if let (number, false) = may_contain(*id) {
            tally.fail(format!("trace {id} is not in bloom-{number}; it is not found by id"));
        }
    }
    if stopped {
        return tally.finish_early();
    }
    let passing = (0..ABSENT_IDS).filter(|number| may_contain(absent(*number)).1).count() as f64 / ABSENT_IDS as f64;
    if passing > PASSING_MAX && shards.iter().all(Option::is_some) {
        tally.note(format!("{:.0}% of absent ids pass; lookups open the block in vain", passing * 100.0));
    }
    tally.finish(format!("{} with all ids, {:.1}% of absent ids pass", plural(said as u64, "shard"), passing * 100.0))
}

/// A number spread over 16 bytes. Odds that a trace has this id are nil.
fn absent(number: u64) -> TraceId {
    let spread =
        |seed: u64| (number.wrapping_add(seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&spread(1).to_be_bytes());
    id[8..].copy_from_slice(&spread(0x5bd1_e995).to_be_bytes());
    TraceId(id)
}

/// The last id of every row group.
pub(super) fn index(json: Option<&Bytes>, last_ids: &[TraceId], stopped: bool) -> Check {
    let mut tally = Tally::new("index");
    let Some(json) = json else {
        tally.note("the object is missing; readers do without it");
        return tally.finish("none");
    };
    match RowGroupIndex::from_json(json) {
        Err(error) => tally.fail(error.to_string()),
        Ok(_) if stopped => {}
        Ok(index) => {
            if index.last_ids.len() != last_ids.len() {
                tally.fail(format!("{} entries for {} row groups", index.last_ids.len(), last_ids.len()));
            }
            for (group, (said, found)) in index.last_ids.iter().zip(last_ids).enumerate() {
                if said != found {
                    tally.fail(format!("row group {group} ends with trace {found}, the index says {said}"));
                }
            }
        }
    }
    match stopped {
        true => tally.finish_early(),
        false => tally.finish(format!("the last id of {}", plural(last_ids.len() as u64, "row group"))),
    }
}
