//! Which blocks may hold parts of the same trace, by their times.

use vivace_block::{BlockMeta, TRACE_SPREAD_NANOS};

/// Metas of the original have whole seconds, cut off: their last span may end within the second that follows.
const SECOND: u64 = 1_000_000_000;

/// Whether parts of one trace are looked for in both blocks: their times, widened by [`TRACE_SPREAD_NANOS`], overlap. A block
/// that does not know its times is near every other. Holds both ways round, so that any two that look from either side agree.
#[must_use]
pub fn near(a: &BlockMeta, b: &BlockMeta) -> bool {
    near_range(a, b.start_unix_nanos, b.end_unix_nanos)
}

/// The same for a range of time, Unix nanoseconds. An end of 0: at any time.
#[must_use]
pub fn near_range(block: &BlockMeta, start_unix_nanos: u64, end_unix_nanos: u64) -> bool {
    // Times that contradict each other are none.
    let is_unknown = |start: u64, end: u64| end == 0 || start > end;
    if is_unknown(block.start_unix_nanos, block.end_unix_nanos) || is_unknown(start_unix_nanos, end_unix_nanos) {
        return true;
    }
    let reach = TRACE_SPREAD_NANOS + SECOND;
    block.start_unix_nanos.saturating_sub(reach) <= end_unix_nanos && start_unix_nanos.saturating_sub(reach) <= block.end_unix_nanos
}

#[cfg(test)]
mod tests {
    use vivace_block::Format;
    use vivace_core::{BlockId, TenantId};

    use super::*;

    fn block(start_unix_nanos: u64, end_unix_nanos: u64) -> BlockMeta {
        BlockMeta {
            format: Format::VParquet4,
            block_id: BlockId([1; 16]),
            tenant_id: TenantId::single(),
            start_unix_nanos,
            end_unix_nanos,
            total_objects: 1,
            size_bytes: 1,
            compaction_level: 0,
            row_groups: 1,
            bloom_shards: 1,
            footer_bytes: 0,
            dedicated_columns: Vec::new(),
            replication_factor: 0,
        }
    }

    #[test]
    fn blocks_are_near_each_other_or_not() {
        let hour = TRACE_SPREAD_NANOS;
        let times = [(7, 3), (10 * hour, 11 * hour), (11 * hour + hour / 2, 12 * hour), (12 * hour + hour / 2, 20 * hour), (1, u64::MAX)];
        for (a, b) in times.iter().flat_map(|a| times.iter().map(move |b| (a, b))) {
            let (first, second) = (block(a.0, a.1), block(b.0, b.1));
            assert_eq!(near(&first, &second), near(&second, &first), "{a:?} {b:?}");
        }
        let [unknown, first, second, third, wide] = times.map(|(start, end)| block(start, end));
        assert!(near(&first, &second) && near(&second, &third) && !near(&first, &third));
        assert!([&first, &second, &third].iter().all(|other| near(&unknown, other) && near(&wide, other)));
        assert!(near_range(&first, 12 * hour, 12 * hour) && !near_range(&first, 13 * hour, 14 * hour) && near_range(&third, 0, 0));
    }
}
