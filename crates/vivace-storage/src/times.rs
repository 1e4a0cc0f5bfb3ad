//! What the times in a meta are worth. Whoever wrote a block may have had a clock that was wrong, or believed its spans.

use vivace_block::BlockMeta;

const SECOND: u64 = 1_000_000_000;

/// Whether a block may hold something between two times, unix nanoseconds. Bounds are used only when both are given.
/// A block whose times are unknown or contradict each other may hold anything.
///
/// Source: docs/facts/blocks.md, "Which blocks are asked".
#[must_use]
pub fn overlaps(meta: &BlockMeta, start_unix_nanos: u64, end_unix_nanos: u64) -> bool {
    if start_unix_nanos == 0 || end_unix_nanos == 0 || !are_times_known(meta) {
        return true;
    }
    // Metas of the original have whole seconds, cut off: their last span may end within the second that follows.
    meta.start_unix_nanos < end_unix_nanos && meta.end_unix_nanos.saturating_add(SECOND) > start_unix_nanos
}

/// Makes a meta what the block lists have: times that contradict each other are unknown.
pub(crate) fn believable(meta: &mut BlockMeta) {
    if !are_times_known(meta) {
        (meta.start_unix_nanos, meta.end_unix_nanos) = (0, 0);
    }
}

fn are_times_known(meta: &BlockMeta) -> bool {
    meta.end_unix_nanos > 0 && meta.start_unix_nanos <= meta.end_unix_nanos
}
