//! What is not in the bucket yet, by tenant, and the blocks that are served in its place afterwards. A segment is in a growing head,
//! then in a sealed one, then in a served block, and a query finds it in exactly one of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use vivace_core::TenantId;
use vivace_core::budget::{Account, Budget, Charge};

use super::head::{Head, HeadSize, Summarized};
use super::served::ServedBlock;
use super::tracker::TraceTracker;
use crate::header::{Refused, SegmentHeader, SegmentId};
use crate::limits::TraceLimits;
use crate::segment::Segment;
use crate::segment_set::SegmentSet;
use crate::summary::TraceSummary;

/// Every tenant's live segments and the blocks that are still served.
#[derive(Debug)]
pub(super) struct Live {
    tenants: RwLock<BTreeMap<TenantId, Arc<Tenant>>>,
    /// The segments this instance is the primary of and that are in no block, to know repeated pushes.
    own: Mutex<FxHashMap<SegmentId, Arc<Segment>>>,
    /// What it takes of the process' memory. What is logged cannot be refused any more, so that happens before.
    memory: Mutex<Charge>,
    /// Cut heads that nobody has begun to flush, oldest first.
    to_flush: Mutex<VecDeque<Sealed>>,
    /// Cut heads that are not in the bucket.
    unflushed: AtomicUsize,
}

/// A head that was cut.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) head: Arc<Head>,
}

/// One tenant's part.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    state: Mutex<TenantState>,
}

#[derive(Debug, Default)]
struct TenantState {
    open: Arc<Head>,
    /// Cut, not yet in the bucket. Oldest first.
    sealed: Vec<Arc<Head>>,
    /// In the bucket, oldest first.
    served: Vec<Arc<ServedBlock>>,
    tracker: TraceTracker,
    /// Taken out of [`Live`] since there was nothing left; what comes goes to a new one.
    is_gone: bool,
}

impl TenantState {
    fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.served.is_empty() && self.open.size().segments == 0 && self.tracker.is_empty()
    }
}

impl Live {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            tenants: RwLock::default(),
            own: Mutex::default(),
            memory: Mutex::new(budget.open(Account::Live)),
            to_flush: Mutex::default(),
            unflushed: AtomicUsize::new(0),
        }
    }

    /// The tenant, if it ever had data here.
    pub(super) fn get(&self, tenant: &TenantId) -> Option<Arc<Tenant>> {
        self.tenants.read().get(tenant).cloned()
    }

    /// The tenant, made on first use.
    pub(super) fn tenant(&self, tenant: &TenantId) -> Arc<Tenant> {
        if let Some(tenant) = self.get(tenant) {
            return tenant;
        }
        let new = || Arc::new(Tenant { id: tenant.clone(), state: Mutex::default() });
        Arc::clone(self.tenants.write().entry(tenant.clone()).or_insert_with(new))
    }

    /// Changes a tenant that is made on first use.
    fn change<T>(&self, tenant: &TenantId, change: impl FnOnce(&mut TenantState) -> T) -> T {
        loop {
            let tenant = self.tenant(tenant);
            let mut state = tenant.state.lock();
            if !state.is_gone {
                return change(&mut state);
            }
        }
    }

    /// Forgets tenants of which nothing is left, so that what is done for each tenant is done for those with data.
    pub(super) fn forget_empty(&self) -> Vec<TenantId> {
        let empty: Vec<Arc<Tenant>> = self.tenants().into_iter().filter(|tenant| tenant.state.lock().is_empty()).collect();
        if empty.is_empty() {
            return Vec::new();
        }
        let mut forgotten = Vec::new();
        let mut tenants = self.tenants.write();
        for tenant in empty {
            let mut state = tenant.state.lock();
            if state.is_empty() {
                state.is_gone = true;
                tenants.remove(&tenant.id);
                forgotten.push(tenant.id.clone());
            }
        }
        forgotten
    }

    /// Closes a tenant's head so that it is flushed; later segments go to a new one. False when it is empty.
    pub(super) fn cut(&self, tenant: &Arc<Tenant>) -> bool {
        let Some(head) = tenant.seal() else { return false };
        self.unflushed.fetch_add(1, Ordering::Relaxed);
        self.to_flush.lock().push_back(Sealed { tenant: Arc::clone(tenant), head });
        true
    }

    /// Takes the next heads to flush, oldest first: those that are small together up to `bytes_max` once decompressed and `heads_max`,
    /// a large one alone.
    pub(super) fn next_to_flush(&self, bytes_max: u64, heads_max: usize) -> Vec<Sealed> {
        let mut to_flush = self.to_flush.lock();
        let (mut bytes, mut taken) = (0, 0);
        for sealed in to_flush.iter().take(heads_max) {
            bytes += sealed.head.size().uncompressed_bytes;
            if taken > 0 && bytes > bytes_max {
                break;
            }
            taken += 1;
        }
        to_flush.drain(..taken).collect()
    }

    /// Cut heads that are not in the bucket yet.
    pub(super) fn unflushed(&self) -> usize {
        self.unflushed.load(Ordering::Relaxed)
    }

    /// All tenants.
    pub(super) fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.read().values().cloned().collect()
    }

    /// Memory that live segments take, bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.lock().bytes()
    }

    fn take_memory(&self, bytes: u64) {
        let mut memory = self.memory.lock();
        let held = memory.bytes() + bytes;
        memory.set_held(held);
    }

    fn give_memory_back(&self, bytes: u64) {
        let mut memory = self.memory.lock();
        let held = memory.bytes().saturating_sub(bytes);
        memory.set_held(held);
    }

    /// The segment of which this instance is the primary, if it is here and in no block yet.
    pub(super) fn own(&self, id: &SegmentId) -> Option<Arc<Segment>> {
        self.own.lock().get(id).cloned()
    }

    /// Segments that have lost a copy and are in no block yet.
    pub(super) fn under_replicated(&self) -> usize {
        let heads = self.tenants().into_iter().flat_map(|tenant| tenant.sealed());
        heads.filter(|head| head.is_under_replicated()).map(|head| head.size().segments).sum()
    }

    /// Another copy of everything that is live is gone: has it flushed. Tells how many segments there are.
    pub(super) fn lose_copies(&self) -> usize {
        for tenant in self.tenants() {
            self.cut(&tenant);
            tenant.sealed().iter().for_each(|head| head.lose_copies());
        }
        self.under_replicated()
    }

    /// All segments of which this instance is the primary and that are in no block yet.
    pub(super) fn own_ids(&self) -> SegmentSet {
        self.own.lock().keys().copied().collect()
    }

    /// Makes a logged segment of which this instance is the primary visible, and cuts its head where that is as large as a block
    /// may be, in bytes once decompressed.
    pub(super) fn insert(&self, segment: Arc<Segment>, traces: &[TraceSummary], block_bytes_max: u64) -> Inserted {
        match self.own.lock().entry(segment.header.id) {
            Entry::Occupied(_) => return Inserted::Known,
            Entry::Vacant(place) => place.insert(Arc::clone(&segment)),
        };
        let id = segment.header.tenant.clone();
        // Under the lock, so that no head is cut in between and its block built without this segment.
        let (memory, head_bytes) = self.change(&id, |tenant| tenant.open.insert(segment, traces));
        self.take_memory(memory);
        if head_bytes >= block_bytes_max && self.get(&id).is_some_and(|tenant| self.cut(&tenant)) { Inserted::Cut } else { Inserted::Taken }
    }

    /// Makes segments visible that were held for another primary, as a head of their own that waits to be flushed.
    pub(super) fn adopt(&self, tenant: &TenantId, segments: Vec<Summarized>) {
        let head = Arc::new(Head::of(segments));
        head.lose_copies();
        self.take_memory(head.size().memory_bytes);
        self.unflushed.fetch_add(1, Ordering::Relaxed);
        self.change(tenant, |tenant| tenant.sealed.push(Arc::clone(&head)));
        self.to_flush.lock().push_back(Sealed { tenant: self.tenant(tenant), head });
    }

    /// A sealed head is in the bucket: its block takes its place.
    pub(super) fn replace(&self, Sealed { tenant, head }: &Sealed, block: Option<Arc<ServedBlock>>) {
        {
            let mut state = tenant.state.lock();
            state.served.extend(block);
            state.sealed.retain(|sealed| !Arc::ptr_eq(sealed, head));
        }
        let mut own = self.own.lock();
        head.read(|contents| {
            for SegmentHeader { id, primary, .. } in contents.segments.iter().map(|segment| &segment.header) {
                // Another segment of that id may be of another primary.
                if own.get(id).is_some_and(|own| own.header.primary == *primary) {
                    own.remove(id);
                }
            }
        });
        drop(own);
        self.give_memory_back(head.size().memory_bytes);
        self.unflushed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether everything is in the bucket.
    pub(super) fn is_flushed(&self) -> bool {
        self.tenants().iter().all(|tenant| tenant.sealed().is_empty() && tenant.open_size().segments == 0)
    }

    /// All blocks that are served.
    pub(super) fn served(&self) -> Vec<Arc<ServedBlock>> {
        self.tenants().iter().flat_map(|tenant| tenant.state.lock().served.clone()).collect()
    }

    /// Serves a block that an earlier process or another instance flushed. What is said of its writer by the latest word is true.
    pub(super) fn serve(&self, block: Arc<ServedBlock>) {
        let id = block.meta.tenant_id.clone();
        self.change(&id, |tenant| {
            tenant.served.retain(|known| known.meta.block_id != block.meta.block_id);
            let place = tenant.served.partition_point(|known| known.flushed_unix_seconds <= block.flushed_unix_seconds);
            tenant.served.insert(place, block);
        });
    }
}

/// What became of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It is here already: its record is not needed.
    Known,
    Taken,
    /// Its head is full and waits to be flushed.
    Cut,
}

impl Tenant {
    /// The head that grows.
    pub(crate) fn open_size(&self) -> HeadSize {
        self.state.lock().open.size()
    }

    /// Bytes of its live segments once decompressed.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.heads_and_served().0.iter().map(|head| head.size().uncompressed_bytes).sum()
    }

    /// Its heads, the growing one last, and the blocks that were made of others, both oldest first.
    pub(super) fn heads_and_served(&self) -> (Vec<Arc<Head>>, Vec<Arc<ServedBlock>>) {
        let state = self.state.lock();
        (state.sealed.iter().chain([&state.open]).cloned().collect(), state.served.clone())
    }

    /// Decides which traces of a segment are refused, and counts those that are not. Also tells how many became live.
    pub(super) fn admit(&self, traces: &[TraceSummary], now_unix_seconds: u64, limits: TraceLimits) -> (Vec<Refused>, u64) {
        let mut refused = Vec::new();
        let mut created = 0;
        let mut state = self.state.lock();
        for trace in traces {
            match state.tracker.admit(trace.trace, trace.bytes, now_unix_seconds, limits) {
                Ok(is_new) => created += u64::from(is_new),
                Err(reason) => refused.push(Refused { trace: trace.trace, reason, spans: trace.spans }),
            }
        }
        (refused, created)
    }

    /// Ends the life of quiet traces; tells how many are live.
    pub(crate) fn sweep(&self, now_unix_seconds: u64, idle: Duration, live: Duration, limits: TraceLimits) -> u64 {
        let mut state = self.state.lock();
        state.tracker.sweep(now_unix_seconds, idle, live, limits);
        state.tracker.live()
    }

    /// Heads that wait to be built, oldest first.
    pub(super) fn sealed(&self) -> Vec<Arc<Head>> {
        self.state.lock().sealed.clone()
    }

    fn seal(&self) -> Option<Arc<Head>> {
        let mut state = self.state.lock();
        if state.open.size().segments == 0 {
            return None;
        }
        let head = std::mem::take(&mut state.open);
        state.sealed.push(Arc::clone(&head));
        state.tracker.cut();
        Some(head)
    }

    /// Stops serving blocks flushed before this; tells how many.
    pub(super) fn clear(&self, flushed_before_unix_seconds: u64) -> usize {
        let mut state = self.state.lock();
        let before = state.served.len();
        state.served.retain(|block| block.flushed_unix_seconds >= flushed_before_unix_seconds);
        before - state.served.len()
    }
}
