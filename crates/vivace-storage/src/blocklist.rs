use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::watch;
use vivace_block::BlockMeta;
use vivace_core::{BlockId, TenantId};

use crate::CompactedBlock;

/// The blocks of every tenant, as known to this process: the last poll with this process' own changes on top.
///
/// Clones share one list. It is filled by a [`crate::Poller`].
#[derive(Clone, Debug)]
pub struct Blocklist {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lists: watch::Sender<Arc<Snapshot>>,
    changes: Mutex<Vec<Timed>>,
    poll_interval: Duration,
    clock: fn() -> u64,
}

/// All lists at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By tenant; tenants without blocks are absent.
    pub tenants: BTreeMap<TenantId, TenantBlocks>,
    /// Successful looks at the whole bucket so far.
    pub polls: u64,
}

/// One tenant's blocks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TenantBlocks {
    /// Live blocks.
    pub live: Arc<Vec<BlockMeta>>,
    /// Blocks marked compacted that are still there.
    pub compacted: Arc<Vec<CompactedBlock>>,
    /// When the listing began that these come from, Unix nanoseconds: successors of blocks marked before are among the live.
    pub listed_unix_nanos: u64,
}

/// What this process did to a tenant's blocks.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Blocks that now exist.
    pub added: Vec<BlockMeta>,
    /// Blocks now marked compacted.
    pub compacted: Vec<BlockId>,
    /// Blocks now gone.
    pub deleted: Vec<BlockId>,
}

#[derive(Debug)]
struct Timed {
    tenant: TenantId,
    unix_nanos: u64,
    change: Change,
}

impl Blocklist {
    /// An empty list. `poll_interval` is how long other processes may take to see a change.
    #[must_use]
    pub fn new(poll_interval: Duration, clock: fn() -> u64) -> Self {
        let shared = Shared { lists: watch::Sender::new(Arc::default()), changes: Mutex::default(), poll_interval, clock };
        Self { shared: Arc::new(shared) }
    }

    /// The lists as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.lists.borrow().clone()
    }

    /// Sees every new snapshot.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.lists.subscribe()
    }

    /// Whether the whole bucket has been looked at once.
    #[must_use]
    pub fn is_polled(&self) -> bool {
        self.shared.lists.borrow().polls > 0
    }

    /// A tenant's live blocks.
    #[must_use]
    pub fn live(&self, tenant: &TenantId) -> Arc<Vec<BlockMeta>> {
        self.shared.lists.borrow().tenants.get(tenant).map(|blocks| blocks.live.clone()).unwrap_or_default()
    }

    /// A tenant's compacted blocks that are still there.
    #[must_use]
    pub fn compacted(&self, tenant: &TenantId) -> Arc<Vec<CompactedBlock>> {
        self.shared.lists.borrow().tenants.get(tenant).map(|blocks| blocks.compacted.clone()).unwrap_or_default()
    }

    /// Blocks that were compacted so lately that their successor may be missing from the live list: less than two poll
    /// intervals ago. A lookup by trace id reads them too.
    ///
    /// Source: block format description, "Which blocks are asked".
    #[must_use]
    pub fn recently_compacted(&self, tenant: &TenantId) -> Vec<BlockMeta> {
        let now = (self.shared.clock)();
        let window = nanos(self.shared.poll_interval).saturating_mul(2);
        let recent = |block: &&CompactedBlock| now.saturating_sub(block.compacted_unix_nanos) < window;
        self.compacted(tenant).iter().filter(recent).map(|block| block.meta.clone()).collect()
    }

    /// Blocks that were compacted into blocks of the live list: those marked before the tenant was last listed, since
    /// their successors were written before, and those that this process marked itself.
    ///
    /// A reader of the live list finds everything of them there.
    #[must_use]
    pub fn compacted_into_live(&self, tenant: &TenantId) -> Vec<BlockMeta> {
        let changes = self.shared.changes.lock();
        let own: FxHashSet<BlockId> =
            changes.iter().filter(|timed| timed.tenant == *tenant).flat_map(|timed| timed.change.compacted.iter().copied()).collect();
        let lists = self.snapshot();
        drop(changes);
        let Some(blocks) = lists.tenants.get(tenant) else { return Vec::new() };
        let is_certain =
            |block: &&CompactedBlock| block.compacted_unix_nanos < blocks.listed_unix_nanos || own.contains(&block.meta.block_id);
        blocks.compacted.iter().filter(is_certain).map(|block| block.meta.clone()).collect()
    }

    /// Puts this process' own change on top of what was polled, until a poll shows it.
    pub fn apply(&self, tenant: &TenantId, change: Change) {
        let unix_nanos = (self.shared.clock)();
        // Held throughout: a poll that ends meanwhile must not lose the change.
        let mut changes = self.shared.changes.lock();
        self.shared.lists.send_modify(|lists| {
            let lists = Arc::make_mut(lists);
            let mut blocks = lists.tenants.remove(tenant).unwrap_or_default();
            change.apply(&mut blocks, unix_nanos);
            if !blocks.is_empty() {
                lists.tenants.insert(tenant.clone(), blocks);
            }
        });
        changes.push(Timed { tenant: tenant.clone(), unix_nanos, change });
    }

    /// Takes a tenant's polled list, which shows all that was done before `as_of`.
    pub(crate) fn polled(&self, tenant: &TenantId, mut blocks: TenantBlocks, as_of_unix_nanos: u64) {
        let mut changes = self.shared.changes.lock();
        changes.retain(|timed| timed.tenant != *tenant || timed.unix_nanos >= as_of_unix_nanos);
        for timed in changes.iter().filter(|timed| timed.tenant == *tenant) {
            timed.change.apply(&mut blocks, timed.unix_nanos);
        }
        self.shared.lists.send_modify(|lists| {
            let lists = Arc::make_mut(lists);
            if blocks.is_empty() {
                lists.tenants.remove(tenant);
            } else {
                lists.tenants.insert(tenant.clone(), blocks);
            }
        });
    }

    /// Ends a look at the whole bucket: other tenants than these are gone.
    pub(crate) fn poll_ended(&self, tenants: &[TenantId]) {
        let mut changes = self.shared.changes.lock();
        changes.retain(|timed| tenants.contains(&timed.tenant));
        self.shared.lists.send_modify(|lists| {
            let lists = Arc::make_mut(lists);
            lists.tenants.retain(|tenant, _| tenants.contains(tenant));
            lists.polls += 1;
        });
    }

    pub(crate) fn now(&self) -> u64 {
        (self.shared.clock)()
    }

    pub(crate) fn poll_interval(&self) -> Duration {
        self.shared.poll_interval
    }
}

impl TenantBlocks {
    /// No block at all, in any state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.compacted.is_empty()
    }
}

impl Change {
    fn apply(&self, blocks: &mut TenantBlocks, unix_nanos: u64) {
        let compacted: FxHashSet<BlockId> = self.compacted.iter().copied().collect();
        let deleted: FxHashSet<BlockId> = self.deleted.iter().copied().collect();
        let mut live = std::mem::take(&mut blocks.live);
        let live_list = Arc::make_mut(&mut live);
        let mut gone = std::mem::take(&mut blocks.compacted);
        let gone_list = Arc::make_mut(&mut gone);
        for meta in &self.added {
            let known = live_list.iter().any(|m| m.block_id == meta.block_id) || gone_list.iter().any(|b| b.meta.block_id == meta.block_id);
            if !known {
                live_list.push(meta.clone());
            }
        }
        let (marked, kept) = std::mem::take(live_list).into_iter().partition::<Vec<_>, _>(|m| compacted.contains(&m.block_id));
        *live_list = kept;
        gone_list.extend(marked.into_iter().map(|meta| CompactedBlock { meta, compacted_unix_nanos: unix_nanos }));
        live_list.retain(|m| !deleted.contains(&m.block_id));
        gone_list.retain(|b| !deleted.contains(&b.meta.block_id));
        (blocks.live, blocks.compacted) = (live, gone);
    }
}

/// Whether a block may hold something between two times, unix nanoseconds. Bounds are used only when both are given.
///
/// Source: block format description, "Which blocks are asked".
#[must_use]
pub fn overlaps(meta: &BlockMeta, start_unix_nanos: u64, end_unix_nanos: u64) -> bool {
    if start_unix_nanos == 0 || end_unix_nanos == 0 {
        return true;
    }
    // Metas of the original have whole seconds, cut off: their last span may end within the second that follows.
    meta.start_unix_nanos < end_unix_nanos && meta.end_unix_nanos.saturating_add(1_000_000_000) > start_unix_nanos
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
