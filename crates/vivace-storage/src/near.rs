//! Which blocks may hold parts of the same trace, by their times.

use vivace_block::{BlockMeta, TRACE_SPREAD_NANOS};
use vivace_core::{SECOND, TimeRange};

/// Whether parts of one trace are looked for in both blocks: their times, widened by [`TRACE_SPREAD_NANOS`], overlap. A block
/// that does not know its times is near every other. Holds both ways round, so that any two that look from either side agree.
#[must_use]
pub fn near(a: &BlockMeta, b: &BlockMeta) -> bool {
    b.times().is_none_or(|(start, end)| near_range(a, TimeRange::between(start, end)))
}

/// The same for a range of time. One whose ends contradict each other is near every block.
#[must_use]
pub fn near_range(block: &BlockMeta, range: TimeRange) -> bool {
    // Metas of the original have whole seconds, cut off: their last span may end within the second that follows.
    let reach = range.widened(TRACE_SPREAD_NANOS + SECOND);
    range.is_contradictory() || block.times().is_none_or(|(start, end)| reach.overlaps(start, end))
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
        let near_hours = |block, from: u64, to: u64| near_range(block, TimeRange::between(from * hour, to * hour));
        assert!(
            near_hours(&first, 12, 12) && !near_hours(&first, 13, 14) && near_range(&third, TimeRange::ALL) && near_hours(&third, 2, 1)
        );
    }
}
