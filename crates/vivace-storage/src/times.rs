//! What the times in a meta are worth. Whoever wrote a block may have had a clock that was wrong, or believed its spans.

use vivace_block::BlockMeta;
use vivace_core::{SECOND, TimeRange};

/// Whether a block may hold something in a range of time, compared in whole seconds. Ends are used only when both are given.
/// A block whose times are unknown or contradict each other may hold anything.
///
/// Source: docs/facts/blocks.md, "Which blocks are asked".
#[must_use]
pub fn overlaps(meta: &BlockMeta, range: TimeRange) -> bool {
    let (Some(start), Some(end), Some((first, last))) = (range.start, range.end, meta.times()) else { return true };
    TimeRange::between(start / SECOND, end / SECOND).overlaps(first / SECOND, last / SECOND)
}

/// Makes a meta what the block lists have: times that contradict each other are unknown.
pub(crate) fn believable(meta: &mut BlockMeta) {
    if meta.times().is_none() {
        (meta.start_unix_nanos, meta.end_unix_nanos) = (0, 0);
    }
}
