//! Which blocks have had their time. Pure: blocks and the time in, actions out.

use std::time::Duration;

use vivace_core::BlockId;
use vivace_storage::TenantBlocks;

/// How long blocks stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// After a block's last span; zero: for ever.
    pub live: Duration,
    /// After a block was marked compacted.
    pub compacted: Duration,
}

/// What to do with one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Mark it compacted: queries stop using it once they have noticed.
    Expire(BlockId),
    /// Delete its objects.
    Delete(BlockId),
}

/// What has become due. A block whose times are unknown is never due.
///
/// Source: component behaviour of the reference, "Retention and deletion".
#[must_use]
pub fn plan(blocks: &TenantBlocks, retention: Retention, now_unix_nanos: u64) -> Vec<Action> {
    let older = |then: u64, age: Duration| {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        then > 0 && then < now_unix_nanos.saturating_sub(age)
    };
    let mut actions = Vec::new();
    if !retention.live.is_zero() {
        let expired = blocks.live.iter().filter(|b| older(b.end_unix_nanos, retention.live));
        actions.extend(expired.map(|b| Action::Expire(b.block_id)));
    }
    let deleted = blocks.compacted.iter().filter(|b| older(b.compacted_unix_nanos, retention.compacted));
    actions.extend(deleted.map(|b| Action::Delete(b.meta.block_id)));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vivace_block::{BlockMeta, Format};
    use vivace_core::TenantId;
    use vivace_storage::CompactedBlock;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_000_000 * SECOND;

    fn block(n: u8, end_unix_nanos: u64) -> BlockMeta {
        BlockMeta {
            format: Format::VParquet4,
            block_id: BlockId([n; 16]),
            tenant_id: TenantId::single(),
            start_unix_nanos: 1,
            end_unix_nanos,
            total_objects: 1,
            size_bytes: 1,
            compaction_level: 0,
            row_groups: 1,
            bloom_shards: 1,
            footer_bytes: 1,
            dedicated_columns: Vec::new(),
            replication_factor: 0,
        }
    }

    #[test]
    fn blocks_live_as_long_as_they_should() {
        let id = |n: u8| BlockId([n; 16]);
        let hour = Duration::from_secs(3600);
        let ends = [0, NOW - 3601 * SECOND, NOW - 3600 * SECOND, NOW, NOW + SECOND];
        let live: Vec<BlockMeta> = (0..).zip(ends).map(|(n, end)| block(n, end)).collect();
        let marked = [(5, 0), (6, NOW - 61 * SECOND), (7, NOW - 60 * SECOND), (8, NOW)];
        let compacted = marked.map(|(n, compacted_unix_nanos)| CompactedBlock { meta: block(n, NOW), compacted_unix_nanos }).to_vec();
        let blocks = TenantBlocks { live: Arc::new(live), compacted: Arc::new(compacted), ..TenantBlocks::default() };
        let plan = |live, compacted| plan(&blocks, Retention { live, compacted }, NOW);
        let minute = Duration::from_secs(60);
        assert_eq!(plan(hour, minute), [Action::Expire(id(1)), Action::Delete(id(6))]);
        assert_eq!(plan(hour * 24, hour), []);
        assert_eq!(plan(Duration::ZERO, minute), [Action::Delete(id(6))], "zero keeps live blocks for ever");
        assert_eq!(plan(minute, Duration::ZERO).len(), 4);
    }
}
