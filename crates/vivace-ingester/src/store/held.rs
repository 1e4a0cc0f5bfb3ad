//! What this instance keeps for the day on which another is gone. Only headers are in memory, and nothing says which traces are
//! in a segment: whoever looks for one reads them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use vivace_core::TenantId;

use crate::header::SegmentId;
use crate::segment::Segment;
use crate::segment_set::SegmentSet;

/// Segments that this instance holds for other primaries. Their payloads are in the log only.
#[derive(Debug, Default)]
pub(super) struct Held {
    by_primary: Mutex<BTreeMap<Arc<str>, Segments>>,
}

type Segments = BTreeMap<SegmentId, Arc<Segment>>;

/// What is held for one primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldFor {
    pub(crate) primary: Arc<str>,
    pub(crate) segments: usize,
    /// When the oldest one arrived.
    pub(crate) oldest_unix_seconds: u64,
}

impl Held {
    pub(super) fn contains(&self, primary: &str, id: &SegmentId) -> bool {
        self.by_primary.lock().get(primary).is_some_and(|segments| segments.contains_key(id))
    }

    /// Keeps a logged segment. False when it is held already: then its record is not needed.
    pub(super) fn insert(&self, segment: Segment) -> bool {
        let mut by_primary = self.by_primary.lock();
        let segments = by_primary.entry(Arc::clone(&segment.header.primary)).or_default();
        let id = segment.header.id;
        if segments.contains_key(&id) {
            return false;
        }
        segments.insert(id, Arc::new(segment));
        true
    }

    /// A summary per primary.
    pub(super) fn summary(&self) -> Vec<HeldFor> {
        let by_primary = self.by_primary.lock();
        let summary = |(primary, segments): (&Arc<str>, &Segments)| HeldFor {
            primary: Arc::clone(primary),
            segments: segments.len(),
            oldest_unix_seconds: segments.values().map(|s| s.header.received_unix_seconds).min().unwrap_or(u64::MAX),
        };
        by_primary.iter().map(summary).collect()
    }

    /// A tenant's segments held for primaries other than these.
    pub(super) fn of_others(&self, primaries: &[String], tenant: &TenantId) -> Vec<Arc<Segment>> {
        let by_primary = self.by_primary.lock();
        let others = by_primary.iter().filter(|(primary, _)| primaries.iter().all(|p| **p != ***primary));
        let segments = others.flat_map(|(_, segments)| segments.values());
        segments.filter(|s| s.header.tenant == *tenant).cloned().collect()
    }

    /// The ids held for a primary that arrived at this time or earlier.
    pub(super) fn received_until(&self, primary: &str, unix_seconds: u64) -> SegmentSet {
        let by_primary = self.by_primary.lock();
        let segments = by_primary.get(primary).into_iter().flat_map(BTreeMap::values);
        segments.filter(|s| s.header.received_unix_seconds <= unix_seconds).map(|s| s.header.id).collect()
    }

    /// The segments of a primary that pass, oldest first. They stay held.
    pub(super) fn select(&self, primary: &str, pass: impl Fn(&SegmentId) -> bool) -> Vec<Arc<Segment>> {
        let by_primary = self.by_primary.lock();
        let segments = by_primary.get(primary).into_iter().flat_map(BTreeMap::values);
        let mut chosen: Vec<Arc<Segment>> = segments.filter(|s| pass(&s.header.id)).cloned().collect();
        chosen.sort_by_key(|s| (s.at.file.number, s.at.offset));
        chosen
    }

    /// Takes segments of a primary out, those of them that are held. Costs what is taken out, not what is held.
    pub(super) fn remove(&self, primary: &str, wanted: &SegmentSet) -> Vec<Arc<Segment>> {
        let mut by_primary = self.by_primary.lock();
        let Some(segments) = by_primary.get_mut(primary) else { return Vec::new() };
        let ids: Vec<SegmentId> = wanted.ranges().flat_map(|range| segments.range(range)).map(|(id, _)| *id).collect();
        let removed = ids.iter().filter_map(|id| segments.remove(id)).collect();
        if segments.is_empty() {
            by_primary.remove(primary);
        }
        removed
    }
}
