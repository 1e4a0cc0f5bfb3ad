//! Which blocks have had their time. Pure: blocks and the time in, actions out.
//!
//! A block's time begins with its last span. Where the meta cannot be right, or the block came in long after its spans, as
//! an import does, it begins when the block was written to the bucket: an import is kept for the retention, and spans of the
//! year 2200 are not kept until then.

use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use vivace_block::BlockMeta;
use vivace_core::BlockId;
use vivace_storage::TenantBlocks;

/// Spans may end so much later than their block was written, nanoseconds: clocks differ. And a fresh block is written so
/// soon after its spans unless it is an import: within it, a bucket may be away and come back.
pub(crate) const DAY: u64 = 24 * 3_600_000_000_000;

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

impl Action {
    /// The block.
    #[must_use]
    pub fn block(self) -> BlockId {
        let (Self::Expire(block) | Self::Delete(block)) = self;
        block
    }
}

/// What has become due. `written` says when the metas of [`undecided`] blocks were written to the bucket, unix nanoseconds;
/// where it does not, nothing is due.
///
/// Source: docs/facts/components.md, "Retention and deletion".
#[must_use]
pub fn plan(blocks: &TenantBlocks, retention: Retention, now_unix_nanos: u64, written: &FxHashMap<BlockId, u64>) -> Vec<Action> {
    let (live, compacted) = (nanos(retention.live), nanos(retention.compacted));
    let expired = blocks
        .live
        .iter()
        .filter(|meta| may_be_expired(meta, retention, now_unix_nanos))
        .filter(|meta| written.get(&meta.block_id).is_some_and(|at| is_past(begins(meta, *at, retention.live), live, now_unix_nanos)));
    let deleted = blocks.compacted.iter().filter(|block| {
        let marked = Some(&block.compacted_unix_nanos).filter(|marked| is_credible(**marked, now_unix_nanos));
        marked.or_else(|| written.get(&block.meta.block_id)).is_some_and(|marked| is_past(*marked, compacted, now_unix_nanos))
    });
    let expired = expired.map(|meta| Action::Expire(meta.block_id));
    expired.chain(deleted.map(|block| Action::Delete(block.meta.block_id))).collect()
}

/// Blocks that may be due, but of which the list alone does not say when their time began: [`plan`] must be told when their
/// `meta.json` was written, or `meta.compacted.json` of compacted ones.
#[must_use]
pub fn undecided(blocks: &TenantBlocks, retention: Retention, now_unix_nanos: u64) -> FxHashSet<BlockId> {
    let live = blocks.live.iter().filter(|meta| may_be_expired(meta, retention, now_unix_nanos)).map(|meta| meta.block_id);
    let compacted = blocks.compacted.iter().filter(|block| !is_credible(block.compacted_unix_nanos, now_unix_nanos));
    live.chain(compacted.map(|block| block.meta.block_id)).collect()
}

fn may_be_expired(meta: &BlockMeta, retention: Retention, now_unix_nanos: u64) -> bool {
    let (end, live) = (meta.end_unix_nanos, nanos(retention.live));
    live > 0 && (!is_credible(end, now_unix_nanos) || is_past(end, live, now_unix_nanos))
}

/// When a block's retention begins, unix nanoseconds; 0 is never. It was written to the bucket at `written_unix_nanos`.
///
/// Compaction writes blocks long after their spans too, but none whose retention is over; so a merged block that was
/// written after that is one that was brought here.
#[must_use]
pub fn begins(meta: &BlockMeta, written_unix_nanos: u64, retention: Duration) -> u64 {
    let end = meta.end_unix_nanos;
    if !is_credible(end, written_unix_nanos) {
        return written_unix_nanos;
    }
    let late = if meta.compaction_level == 0 { nanos(retention).min(DAY) } else { nanos(retention) };
    if written_unix_nanos.saturating_sub(end) > late { written_unix_nanos } else { end }
}

/// Whether a block may have ended at this time, as seen at another. 0 is the unknown time.
pub(crate) fn is_credible(end_unix_nanos: u64, seen_unix_nanos: u64) -> bool {
    end_unix_nanos > 0 && end_unix_nanos <= seen_unix_nanos.saturating_add(DAY)
}

pub(crate) fn is_past(begun_unix_nanos: u64, age_nanos: u64, now_unix_nanos: u64) -> bool {
    begun_unix_nanos > 0 && begun_unix_nanos < now_unix_nanos.saturating_sub(age_nanos)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
        let written = (0..9).map(|n| (id(n), NOW - 5000 * SECOND)).collect();
        let plan = |live, compacted| plan(&blocks, Retention { live, compacted }, NOW, &written);
        let minute = Duration::from_secs(60);
        assert_eq!(plan(hour, minute), [Action::Expire(id(0)), Action::Expire(id(1)), Action::Delete(id(5)), Action::Delete(id(6))]);
        assert_eq!(plan(hour * 24, hour * 2), []);
        assert_eq!(plan(Duration::ZERO, minute), [Action::Delete(id(5)), Action::Delete(id(6))], "zero keeps live blocks for ever");
        assert_eq!(plan(minute, Duration::ZERO).len(), 6);
    }

    #[test]
    fn the_bucket_is_asked_only_where_the_list_does_not_decide() {
        let live = vec![block(1, NOW - SECOND), block(2, NOW + DAY / 2)];
        let compacted = vec![CompactedBlock { meta: block(3, 0), compacted_unix_nanos: NOW - SECOND }];
        let blocks = TenantBlocks { live: Arc::new(live), compacted: Arc::new(compacted), ..TenantBlocks::default() };
        let retention = Retention { live: Duration::from_secs(3600), compacted: Duration::from_secs(3600) };
        assert!(undecided(&blocks, retention, NOW).is_empty());
        assert_eq!(plan(&blocks, retention, NOW, &FxHashMap::default()), []);
    }

    #[test]
    fn what_nobody_knows_the_age_of_stays() {
        let blocks = TenantBlocks { live: Arc::new(vec![block(1, 0), block(2, 1), block(3, u64::MAX)]), ..TenantBlocks::default() };
        let retention = Retention { live: Duration::from_secs(1), compacted: Duration::ZERO };
        assert_eq!(undecided(&blocks, retention, NOW).len(), 3);
        assert_eq!(plan(&blocks, retention, NOW, &FxHashMap::default()), []);
        let unsaid = (1..4).map(|n| (BlockId([n; 16]), 0)).collect();
        assert_eq!(plan(&blocks, retention, NOW, &unsaid), [Action::Expire(BlockId([2; 16]))], "its end is known");
    }

    #[track_caller]
    fn begins_at(end: u64, level: u32, written: u64, want: u64) {
        let meta = BlockMeta { compaction_level: level, ..block(1, end) };
        assert_eq!(begins(&meta, written, Duration::from_nanos(14 * DAY)), want, "ends at {end}, level {level}, written at {written}");
    }

    #[test]
    fn an_import_has_its_retention_from_its_arrival() {
        let now = 1000 * DAY;
        // As usual: written soon after the last span, and merged days later.
        begins_at(now - DAY / 2, 0, now, now - DAY / 2);
        begins_at(now - 2 * DAY, 1, now, now - 2 * DAY);
        begins_at(now - 13 * DAY, 7, now, now - 13 * DAY);
        // Brought here.
        begins_at(now - 2 * DAY, 0, now, now);
        begins_at(now - 400 * DAY, 0, now, now);
        begins_at(now - 15 * DAY, 7, now, now);
        // Spans that started the epoch.
        begins_at(1, 0, now, now);
        begins_at(1, 3, now, now);
    }

    #[test]
    fn times_that_cannot_be_are_not_believed() {
        let now = 1000 * DAY;
        for level in [0, 5] {
            begins_at(0, level, now, now);
            begins_at(u64::MAX, level, now, now);
            begins_at(now + 80_000 * DAY, level, now, now);
            begins_at(now + DAY / 2, level, now, now + DAY / 2);
        }
        // A bucket that does not say when: what the meta says of the past holds.
        begins_at(now, 0, 0, 0);
    }
}
