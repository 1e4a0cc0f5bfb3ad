//! Which blocks are merged. Pure: blocks and the time in, jobs out.
//!
//! Source: docs/facts/components.md, "Selecting work".

use std::collections::BTreeMap;
use std::time::Duration;

use vivace_block::{BlockMeta, Format, dedicated};

use crate::retention::{self, is_credible};

/// Blocks of one job at least and at most.
const INPUTS_MIN: usize = 2;
const INPUTS_MAX: usize = 4;
/// Blocks that ended within this time are merged level by level; older ones of a window all together.
const ACTIVE: Duration = Duration::from_secs(24 * 3600);

/// What a merged block may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Blocks that end within the same window of this length are merged. At least a second.
    pub window: Duration,
    /// Traces of the inputs together.
    pub max_objects: u64,
    /// Bytes of the inputs together.
    pub max_bytes: u64,
    /// How long blocks are kept after their last span; zero: for ever.
    pub retention: Duration,
}

/// Blocks to be merged into one.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Who is responsible for it is decided by this text, which all jobs of one group share.
    pub owner_key: String,
    /// 2 to 4 blocks of one format, with the same dedicated columns and replication factor.
    pub inputs: Vec<BlockMeta>,
}

/// A place in the order of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    /// Young blocks first, and the lowest level of them; old ones are taken whatever their level.
    level: Option<u32>,
    old: bool,
    /// The newest first.
    window: std::cmp::Reverse<u64>,
    replication_factor: u32,
}

/// The jobs of a tenant, in the order in which they should be done. A block is in one job at most.
///
/// Blocks of formats that are not written here stay as they are. The window that is just turning old is left alone, as
/// the owner of its blocks changes. So are blocks whose retention is over or whose times cannot be: how long they stay
/// counts from when they were written (see [`crate::retention`]), and a merged block would be written anew.
#[must_use]
pub fn select<'b>(blocks: impl IntoIterator<Item = &'b BlockMeta>, limits: Limits, now_unix_nanos: u64) -> Vec<Job> {
    let window_nanos = retention::nanos(limits.window).max(1_000_000_000);
    let retention_nanos = retention::nanos(limits.retention);
    let is_settled = |end: u64| retention_nanos > 0 && retention::is_past(end, retention_nanos, now_unix_nanos);
    let active_nanos = u64::try_from(ACTIVE.as_nanos()).expect("a day");
    let turning_old = now_unix_nanos.saturating_sub(active_nanos) / window_nanos;
    let mut groups: BTreeMap<Group, Vec<&BlockMeta>> = BTreeMap::new();
    for block in blocks {
        let window = block.end_unix_nanos / window_nanos;
        let end = block.end_unix_nanos;
        if block.format != Format::VParquet4 || window == turning_old || !is_credible(end, now_unix_nanos) || is_settled(end) {
            continue;
        }
        let old = window < turning_old;
        let group = Group {
            level: (!old).then_some(block.compaction_level),
            old,
            window: std::cmp::Reverse(window),
            replication_factor: block.replication_factor,
        };
        groups.entry(group).or_default().push(block);
    }
    let mut ordered: Vec<(Group, Vec<&BlockMeta>)> = groups.into_iter().collect();
    // Young groups before old ones.
    ordered.sort_by_key(|(group, _)| (group.old, *group));

    let mut jobs = Vec::new();
    for (group, mut blocks) in ordered {
        let Some(tenant) = blocks.first().map(|b| b.tenant_id.clone()) else { continue };
        let window = group.window.0;
        let owner_key = match group.level {
            Some(level) => format!("{tenant}-{level}-{window}-{}", group.replication_factor),
            None => format!("{tenant}-{window}-{}", group.replication_factor),
        };
        // What can be merged stands together, the small first: so the least is written for each block saved.
        let key = |b: &&BlockMeta| (dedicated::hash(&b.dedicated_columns), if group.old { b.compaction_level } else { 0 }, b.total_objects);
        blocks.sort_by_key(key);
        jobs.extend(runs(&blocks, limits).into_iter().map(|inputs| Job { owner_key: owner_key.clone(), inputs }));
    }
    jobs
}

/// Cuts a group into runs of blocks that fit together.
fn runs(blocks: &[&BlockMeta], limits: Limits) -> Vec<Vec<BlockMeta>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < blocks.len() {
        let first = blocks[at];
        let (mut objects, mut bytes, mut end) = (first.total_objects, first.size_bytes, at + 1);
        while let Some(next) = blocks.get(end).filter(|_| end - at < INPUTS_MAX) {
            objects = objects.saturating_add(next.total_objects);
            bytes = bytes.saturating_add(next.size_bytes);
            if next.dedicated_columns != first.dedicated_columns || objects > limits.max_objects || bytes > limits.max_bytes {
                break;
            }
            end += 1;
        }
        if end - at >= INPUTS_MIN {
            runs.push(blocks[at..end].iter().map(|b| (*b).clone()).collect());
            at = end;
        } else {
            at += 1;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_block::DedicatedColumn;
    use vivace_core::{BlockId, TenantId};

    const HOUR: u64 = 3_600_000_000_000;
    /// Ten minutes into an hour.
    const NOW: u64 = 500_000 * HOUR + HOUR / 6;
    const LIMITS: Limits = Limits { window: Duration::from_secs(3600), max_objects: 1000, max_bytes: 1_000_000, retention: Duration::ZERO };

    fn block(n: u8, hours_ago: u64, level: u32, objects: u64) -> BlockMeta {
        BlockMeta {
            format: Format::VParquet4,
            block_id: BlockId([n; 16]),
            tenant_id: TenantId::single(),
            start_unix_nanos: NOW - hours_ago * HOUR - HOUR,
            end_unix_nanos: NOW - hours_ago * HOUR,
            total_objects: objects,
            size_bytes: objects * 100,
            compaction_level: level,
            row_groups: 1,
            bloom_shards: 1,
            footer_bytes: 100,
            dedicated_columns: Vec::new(),
            replication_factor: 0,
        }
    }

    #[track_caller]
    fn selects(blocks: &[BlockMeta], want: &[&[u8]]) {
        let got: Vec<Vec<u8>> =
            select(blocks, LIMITS, NOW).iter().map(|job| job.inputs.iter().map(|b| b.block_id.0[0]).collect()).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn young_blocks_merge_level_by_level_the_newest_window_first() {
        selects(&[block(1, 0, 0, 10)], &[]);
        selects(&[block(1, 0, 0, 20), block(2, 0, 0, 10)], &[&[2, 1]]);
        selects(&[block(1, 0, 0, 10), block(2, 0, 1, 10), block(3, 1, 0, 10)], &[]);
        selects(
            &[block(1, 1, 0, 1), block(2, 1, 0, 2), block(3, 0, 0, 3), block(4, 0, 0, 4), block(5, 0, 1, 1), block(6, 0, 1, 1)],
            &[&[3, 4], &[1, 2], &[5, 6]],
        );
        selects(&[1, 2, 3, 4, 5, 6, 7].map(|n| block(n, 0, 0, u64::from(n))), &[&[1, 2, 3, 4], &[5, 6, 7]]);
    }

    #[test]
    fn old_blocks_merge_whatever_their_level() {
        selects(&[block(1, 30, 0, 10), block(2, 30, 3, 10)], &[&[1, 2]]);
        selects(&[block(1, 24, 0, 10), block(2, 24, 0, 10)], &[]);
        selects(&[block(1, 30, 0, 1), block(2, 30, 0, 1), block(3, 2, 5, 1), block(4, 2, 5, 1)], &[&[3, 4], &[1, 2]]);
    }

    #[test]
    fn limits_hold_for_the_inputs_together() {
        selects(&[block(1, 0, 0, 400), block(2, 0, 0, 500), block(3, 0, 0, 600)], &[&[1, 2]]);
        selects(&[block(1, 0, 0, 600), block(2, 0, 0, 700)], &[]);
        let mut large = block(3, 0, 0, 5);
        large.size_bytes = 999_900;
        selects(&[block(1, 0, 0, 1), block(2, 0, 0, 2), large], &[&[1, 2]]);
    }

    #[test]
    fn only_blocks_of_a_kind_are_merged() {
        let mut other_columns = block(2, 0, 0, 2);
        other_columns.dedicated_columns = vec![DedicatedColumn::new(Default::default(), "a", Default::default())];
        let mut other_replication = block(4, 0, 0, 2);
        other_replication.replication_factor = 1;
        let mut other_format = block(5, 0, 0, 2);
        other_format.format = Format::VParquet5;
        selects(&[block(1, 0, 0, 1), other_columns.clone(), other_replication, other_format], &[]);
        // They do not keep those apart that fit together either.
        selects(&[block(1, 0, 0, 1), other_columns, block(3, 0, 0, 3)], &[&[1, 3]]);
    }

    #[test]
    fn blocks_whose_retention_counts_from_their_writing_are_left_alone() {
        let ending = |n: u8, end_unix_nanos: u64| BlockMeta { end_unix_nanos, ..block(n, 0, 0, u64::from(n)) };
        // Unknown, 1970, just too old, the year 2200 and the end of time: two of each.
        for end in [0, 1, NOW - 49 * HOUR, 7_258_118_400_000_000_000, u64::MAX, NOW + 25 * HOUR] {
            let limits = Limits { retention: Duration::from_secs(48 * 3600), ..LIMITS };
            assert_eq!(select(&[ending(1, end), ending(2, end)], limits, NOW), [], "ends at {end}");
        }
        // Without a retention old blocks are merged as ever.
        selects(&[ending(1, 1), ending(2, 1)], &[&[1, 2]]);
        // Windows of any length are windows.
        for window in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let jobs = select(&[ending(1, 0), ending(2, u64::MAX), block(3, 1, 0, 1)], Limits { window, ..LIMITS }, NOW);
            assert_eq!(jobs, [], "a window of {window:?}");
        }
    }

    #[test]
    fn jobs_of_a_group_have_one_owner() {
        let keys = |blocks: &[BlockMeta]| select(blocks, LIMITS, NOW).into_iter().map(|j| j.owner_key).collect::<Vec<_>>();
        assert_eq!(keys(&[block(1, 0, 2, 10), block(2, 0, 2, 10)]), ["single-tenant-2-500000-0"]);
        assert_eq!(keys(&[block(1, 30, 0, 10), block(2, 30, 1, 10)]), ["single-tenant-499970-0"]);
    }
}
