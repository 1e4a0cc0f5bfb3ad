//! Who counts a trace for a metrics query, so that each of its spans counts once wherever copies of it are. Pure.
//!
//! A trace that only one place has is counted there. Of the others each place that has a part leaves it alone, and a job of its
//! own counts it from just the places that have left it. Every question has one decider: whether ingesters share a trace among
//! themselves or with blocks is decided once, here, from what ingesters have named; blocks are told. Whether blocks share it among
//! themselves follows from their metas and ids alone, so that all who ask come to the same.

use rustc_hash::FxHashSet;
use vivace_block::{BlockMeta, TRACE_SPREAD_NANOS};
use vivace_core::{TimeRange, TraceId};
use vivace_storage::{near, near_range};

/// Traces that an ingester has named together, since they start at about the same time.
#[derive(Debug, Clone)]
pub(crate) struct NamedTraces {
    pub(crate) traces: Vec<TraceId>,
    /// Of each, in which segments it is held for others. Empty: they are the ingester's own.
    pub(crate) held_segments: Vec<u64>,
    /// Unix nanoseconds of their first start and last end.
    pub(crate) start_unix_nanos: u64,
    pub(crate) end_unix_nanos: u64,
    /// When the first of their spans can have come, Unix nanoseconds.
    pub(crate) oldest_arrival_unix_nanos: u64,
}

impl NamedTraces {
    /// Whether a block may have copies of their spans, or other spans of theirs.
    ///
    /// A block's time is that of its spans, or, of spans with odd times, that of their arrival. Whoever sends a span again sends it
    /// later: if its time was odd then, it is so now.
    pub(crate) fn may_be_in(&self, block: &BlockMeta) -> bool {
        let is_odd = self.start_unix_nanos.saturating_add(TRACE_SPREAD_NANOS) < self.oldest_arrival_unix_nanos;
        is_odd || near_range(block, TimeRange::between(self.start_unix_nanos, self.end_unix_nanos))
    }
}

/// How ingesters share the traces that they have named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    /// None of them counts these, ascending.
    pub(crate) split: Vec<TraceId>,
    /// For each ingester, those that another one counts.
    pub(crate) of_others: Vec<Vec<TraceId>>,
}

/// Shares out what each ingester has named. `in_blocks` are those that blocks of the query have too.
///
/// What several hold of a trace for one that does not answer is one place if it is in the same segments; then one of them counts it.
pub(crate) fn share(named: &[Vec<NamedTraces>], in_blocks: &FxHashSet<TraceId>) -> Shares {
    let mut places: Vec<(TraceId, Option<u64>, usize)> = Vec::new();
    for (ingester, groups) in named.iter().enumerate() {
        for group in groups {
            let held = |at: usize| group.held_segments.get(at).copied();
            places.extend(group.traces.iter().enumerate().map(|(at, id)| (*id, held(at), ingester)));
        }
    }
    places.sort_unstable();
    let mut shares = Shares { split: Vec::new(), of_others: vec![Vec::new(); named.len()] };
    for places in places.chunk_by(|a, b| a.0 == b.0) {
        let (id, held, _) = places[0];
        let is_one_place = places.len() == 1 || held.is_some() && places.iter().all(|(_, other, _)| *other == held);
        if !is_one_place || in_blocks.contains(&id) {
            shares.split.push(id);
        } else {
            places[1..].iter().for_each(|(_, _, ingester)| shares.of_others[*ingester].push(id));
        }
    }
    shares
}

/// Of the blocks that have a trace, those that have left it alone: they have found it in another one that is near, or were told
/// that it is live too (`is_told`). If there are none, one of them is gone that had it when the others looked.
pub(crate) fn left_by<'b>(holders: &[&'b BlockMeta], is_live: bool, is_told: impl Fn(&BlockMeta) -> bool) -> Vec<&'b BlockMeta> {
    let has_neighbour = |block: &BlockMeta| holders.iter().any(|other| other.block_id != block.block_id && near(block, other));
    let left: Vec<&BlockMeta> = holders.iter().copied().filter(|block| has_neighbour(block) || is_told(block)).collect();
    if left.is_empty() && !is_live { holders.to_vec() } else { left }
}

#[cfg(test)]
mod tests;
