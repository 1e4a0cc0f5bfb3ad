//! The trace ids of blocks: which of some traces a block has too.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use vivace_block::{BlockReader, ReadError};
use vivace_core::budget::Budget;
use vivace_core::cache::ByteCache;
use vivace_core::{BlockId, TenantId, TraceId};

use crate::metrics::TRACE_IDS_CACHE;

/// Ids kept in memory, bytes: those of four million traces.
const CACHE_BYTES: u64 = 64 << 20;
/// Blocks of which first and last id of each row group are kept.
const CACHE_BLOCKS: usize = 4096;

type GroupKey = (TenantId, BlockId, u32);
/// First and last id; none where the file does not say.
type Bounds = Arc<[Option<(TraceId, TraceId)>]>;

/// Trace ids by row group, the least recently used forgotten first.
pub(crate) struct TraceIds {
    groups: ByteCache<GroupKey, Arc<[TraceId]>>,
    bounds: Mutex<LruCache<(TenantId, BlockId), Bounds>>,
}

impl TraceIds {
    /// None yet; what is kept is charged to the budget.
    pub(crate) fn within(budget: &Budget) -> Self {
        let blocks = std::num::NonZeroUsize::new(CACHE_BLOCKS).expect("some");
        let groups = ByteCache::new(CACHE_BYTES);
        groups.charge_to(budget);
        Self { groups, bounds: Mutex::new(LruCache::new(blocks)) }
    }

    /// Those of `ids`, which ascend, that a block has, ascending. Reads the ids of the row groups where they could be, unless they are
    /// kept. Blocks the thread.
    pub(crate) fn find(
        &self,
        ids: &[TraceId],
        tenant: &TenantId,
        block: BlockId,
        open: impl Fn() -> Result<BlockReader, ReadError>,
    ) -> Result<Vec<TraceId>, ReadError> {
        let mut reader = None;
        let kept = self.bounds.lock().get(&(tenant.clone(), block)).cloned();
        let bounds = match kept {
            Some(bounds) => bounds,
            None => {
                let bounds: Bounds = reader.insert(open()?).id_bounds().into();
                self.bounds.lock().put((tenant.clone(), block), bounds.clone());
                bounds
            }
        };
        let mut found = Vec::new();
        for (group, bounds) in bounds.iter().enumerate() {
            let wanted = match bounds {
                Some((first, last)) => &ids[ids.partition_point(|id| id < first)..ids.partition_point(|id| id <= last)],
                None => ids,
            };
            if wanted.is_empty() {
                continue;
            }
            let key = (tenant.clone(), block, u32::try_from(group).unwrap_or(u32::MAX));
            let kept = self.groups.get(&key);
            let held = match kept {
                Some(held) => held,
                None => {
                    let reader = match &reader {
                        Some(reader) => reader,
                        None => reader.insert(open()?),
                    };
                    let held: Arc<[TraceId]> = reader.ids_of(group)?.into();
                    let bytes = self.groups.put(key, held.clone(), size_of_val(&*held));
                    metrics::gauge!(TRACE_IDS_CACHE.name).set(bytes as f64);
                    held
                }
            };
            intersect(wanted, &held, &mut found);
        }
        // Row groups of blocks that are out of order overlap.
        if !found.is_sorted_by(|a, b| a < b) {
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    }

    /// Whether all that [`TraceIds::find`] needs is kept already, so that a filter saves nothing.
    pub(crate) fn knows(&self, tenant: &TenantId, block: BlockId) -> bool {
        let kept = self.bounds.lock().get(&(tenant.clone(), block)).cloned();
        let Some(bounds) = kept else { return false };
        (0..bounds.len()).all(|group| self.groups.contains(&(tenant.clone(), block, u32::try_from(group).unwrap_or(u32::MAX))))
    }
}

/// Adds what is in both; all ascend.
fn intersect(wanted: &[TraceId], held: &[TraceId], found: &mut Vec<TraceId>) {
    let mut held = held;
    for id in wanted {
        // Doubling steps: few ids among many and many among many are both quick.
        let mut step = 1;
        while step < held.len() && held[step] < *id {
            step *= 2;
        }
        let at = step / 2 + held[step / 2..held.len().min(step + 1)].partition_point(|other| other < id);
        held = &held[at..];
        match held.first() {
            Some(first) if first == id => found.push(*id),
            Some(_) => {}
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use vivace_block::{BlockOptions, BlockWriter, ReadAt, SpanRef};

    use super::*;

    fn id(number: u32) -> TraceId {
        TraceId(u128::from(number).to_be_bytes())
    }

    #[test]
    fn what_is_in_both_is_found() {
        let sets: Vec<Vec<TraceId>> = [(1, 100), (3, 90), (7, 40), (50, 5), (1, 0), (2, 1)]
            .into_iter()
            .map(|(step, count)| (0..count).map(|n| id(n * step)).collect())
            .collect();
        for a in &sets {
            for b in &sets {
                let mut found = Vec::new();
                intersect(a, b, &mut found);
                let want: Vec<TraceId> =
                    a.iter().copied().collect::<BTreeSet<_>>().intersection(&b.iter().copied().collect()).copied().collect();
                assert_eq!(found, want);
            }
        }
    }

    #[test]
    fn ids_are_read_once_and_only_where_they_may_be() {
        let options = BlockOptions { row_group_otlp_bytes: 30, ..BlockOptions::default() };
        let tenant = TenantId::single();
        let mut writer = BlockWriter::new(options, tenant.clone(), BlockId([1; 16]), Vec::new(), 100).expect("starts");
        for number in (0..200).step_by(2) {
            writer.push_trace(id(number), &[SpanRef { resource: &[], scope: &[], span: &[10, 1, 1] }]).expect("taken");
        }
        let block = writer.finish().expect("finished");
        let data: Arc<dyn ReadAt> = Arc::new(Bytes::from(block.out));
        let opened = std::cell::Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            BlockReader::open(block.meta.clone(), data.clone())
        };
        let ids = TraceIds::within(&Budget::unlimited());
        let find = |wanted: &[u32]| {
            let wanted: Vec<TraceId> = wanted.iter().map(|n| id(*n)).collect();
            ids.find(&wanted, &tenant, block.meta.block_id, open).expect("reads")
        };
        assert!(block.meta.row_groups > 4);
        assert_eq!(find(&[3, 4, 5]), [id(4)]);
        assert!(!ids.knows(&tenant, block.meta.block_id));
        assert_eq!((find(&[2, 4]), opened.get()), (vec![id(2), id(4)], 1));
        assert_eq!(find(&(0..500).collect::<Vec<_>>()).len(), 100);
        assert!(ids.knows(&tenant, block.meta.block_id));
        assert_eq!((find(&(0..500).collect::<Vec<_>>()).len(), opened.get()), (100, 2));
    }
}
