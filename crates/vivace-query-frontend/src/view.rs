//! A tenant's blocks as one query sees them, and where among them the parts of a trace may be.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use vivace_block::BlockMeta;
use vivace_core::{BlockId, TenantId, TimeRange};
use vivace_proto::vivace::v1::Places;
use vivace_storage::{Blocklist, near, near_range, overlaps};

use crate::params::SearchRange;

/// A tenant's blocks, fixed for one query: whatever its jobs decide, they decide it about these. A block's place is its index.
pub(crate) struct View {
    live: Arc<Vec<BlockMeta>>,
    places: HashMap<BlockId, usize>,
    /// Ids of blocks that an ingester may still serve.
    known: Bytes,
}

impl View {
    /// Of each tenant, in their order.
    pub(crate) fn of_tenants(blocklist: &Blocklist, tenants: &[TenantId]) -> BTreeMap<TenantId, Self> {
        tenants.iter().map(|tenant| (tenant.clone(), Self::of(blocklist, tenant))).collect()
    }

    fn of(blocklist: &Blocklist, tenant: &TenantId) -> Self {
        let live = blocklist.live(tenant);
        let compacted = blocklist.compacted_into_live(tenant);
        // Ingesters serve what they wrote themselves.
        let fresh = live.iter().chain(&compacted).filter(|meta| meta.compaction_level == 0);
        let known = fresh.flat_map(|meta| meta.block_id.0).collect();
        let places = live.iter().enumerate().map(|(place, meta)| (meta.block_id, place)).collect();
        Self { live, places, known }
    }

    /// Adds a block, unless it is known, and gives its place.
    pub(crate) fn add(&mut self, meta: &BlockMeta) -> usize {
        *self.places.entry(meta.block_id).or_insert_with(|| {
            Arc::make_mut(&mut self.live).push(meta.clone());
            self.live.len() - 1
        })
    }

    /// The place of a block that is known.
    pub(crate) fn place(&self, block: BlockId) -> Option<usize> {
        self.places.get(&block).copied()
    }

    /// Blocks that overlap the range with their places, newest end first. Those that do not know their times overlap everything.
    pub(crate) fn overlapping(&self, range: SearchRange) -> Vec<(usize, &BlockMeta)> {
        let mut blocks: Vec<_> = self.live.iter().enumerate().filter(|(_, meta)| overlaps(meta, range.into())).collect();
        blocks.sort_by_key(|(_, meta)| (Reverse(meta.end_unix_nanos), meta.block_id));
        blocks
    }

    /// The places of blocks near a range of time.
    pub(crate) fn near(&self, range: TimeRange) -> impl Iterator<Item = usize> {
        self.live.iter().enumerate().filter(move |(_, meta)| near_range(meta, range)).map(|(place, _)| place)
    }

    /// Where else the traces of a block may be.
    pub(crate) fn beside(&self, place: usize, ingesters: bool) -> Places {
        self.these(self.neighbours(place), ingesters)
    }

    /// Where else the traces may be that the ingesters have.
    pub(crate) fn beside_ingesters(&self, range: SearchRange) -> Places {
        self.these(self.near(range.into()), true)
    }

    /// Where traces may be that some of these blocks have.
    pub(crate) fn around(&self, places: &BTreeSet<usize>, ingesters: bool) -> Places {
        let neighbours = places.iter().flat_map(|place| self.neighbours(*place));
        self.these(neighbours.chain(places.iter().copied()).collect::<BTreeSet<usize>>(), ingesters)
    }

    /// The blocks that traces of this one are looked for in: the same for all parts of it, and mutual.
    fn neighbours(&self, place: usize) -> impl Iterator<Item = usize> {
        self.live.iter().enumerate().filter(move |(other, meta)| *other != place && near(meta, &self.live[place])).map(|(other, _)| other)
    }

    fn these(&self, blocks: impl IntoIterator<Item = usize>, ingesters: bool) -> Places {
        let blocks = blocks.into_iter().flat_map(|place| self.live[place].block_id.0).collect();
        Places { blocks, known_blocks: if ingesters { self.known.clone() } else { Bytes::new() }, ingesters }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use vivace_core::SECOND;
    use vivace_storage::Change;
    use vivace_testkit::block_meta;

    use super::*;

    /// A block of some seconds.
    pub(crate) fn block(id: u8, start: u64, end: u64) -> BlockMeta {
        BlockMeta { start_unix_nanos: start * SECOND, end_unix_nanos: end * SECOND, ..block_meta(id) }
    }

    /// The view of the single tenant over these blocks.
    pub(crate) fn view(blocks: Vec<BlockMeta>) -> BTreeMap<TenantId, View> {
        let blocklist = Blocklist::new(Duration::from_secs(300), || 0);
        blocklist.apply(&TenantId::single(), Change { added: blocks, ..Default::default() });
        View::of_tenants(&blocklist, &[TenantId::single()])
    }

    /// First bytes of ids of 16 bytes each, ascending.
    pub(crate) fn ids(bytes: &[u8]) -> Vec<u8> {
        let mut ids: Vec<u8> = bytes.chunks(16).map(|id| id[0]).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn places_are_the_live_blocks_near_in_time() {
        let blocklist = Blocklist::new(Duration::from_secs(300), || 0);
        let compacted = BlockMeta { compaction_level: 1, ..block(10, 0, 0) };
        let added = vec![block(1, 10_000, 11_000), block(2, 11_000, 12_000), block(3, 20_000, 21_000), compacted];
        blocklist.apply(&TenantId::single(), Change { added, ..Default::default() });
        // Its successor is in the list, so that an ingester that serves it need not answer for it.
        let successor = BlockMeta { compaction_level: 1, ..block(11, 10_000, 11_000) };
        let merged = Change { added: vec![successor], compacted: vec![BlockId([1; 16])], ..Default::default() };
        blocklist.apply(&TenantId::single(), merged);
        let mut view = View::of(&blocklist, &TenantId::single());
        let beside = |id: u8, ingesters| view.beside(view.place(BlockId([id; 16])).expect("known"), ingesters);
        let places = beside(2, true);
        assert_eq!((ids(&places.blocks), ids(&places.known_blocks), places.ingesters), (vec![10, 11], vec![1, 2, 3], true));
        assert_eq!(ids(&beside(3, false).blocks), [10]);
        assert_eq!(ids(&beside(10, false).blocks), [2, 3, 11]);
        assert_eq!(ids(&view.beside_ingesters(SearchRange { start: 15_000, end: 17_000 }).blocks), [2, 3, 10]);
        // One that an ingester names is near others as they are near it.
        let served = view.add(&block(4, 17_000, 18_000));
        assert_eq!(view.add(&block(4, 17_000, 18_000)), served);
        assert_eq!(ids(&view.beside(served, false).blocks), [3, 10]);
        assert_eq!(ids(&view.around(&BTreeSet::from([served]), false).blocks), [3, 4, 10]);
    }
}
