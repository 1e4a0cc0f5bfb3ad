//! The list that queries and compaction go by. It is as old as the last poll: a block in it may have been compacted or deleted
//! since, and whoever reads one must live with that. What this process did itself is in it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::watch;
use vivace_block::BlockMeta;
use vivace_core::{BlockId, TenantId};

use crate::CompactedBlock;

/// The blocks of every tenant, as known to this process: the last poll with this process' own changes on top.
///
/// Clones share one list. It is filled by a [`crate::Poller`]. What one tenant costs does not depend on how many others
/// there are.
#[derive(Clone, Debug)]
pub struct Blocklist {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Tenants without blocks are absent.
    tenants: RwLock<BTreeMap<TenantId, TenantBlocks>>,
    /// Tenants of the bucket whose blocks nobody knows, since they could not be found out, and why.
    unknown: RwLock<FxHashMap<TenantId, String>>,
    /// What the next polls may not show yet. Locked before `tenants`.
    changes: Mutex<FxHashMap<TenantId, Vec<Timed>>>,
    /// Looks at the whole bucket so far.
    polls: watch::Sender<u64>,
    poll_interval: Duration,
    clock: fn() -> u64,
}

/// One tenant's blocks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TenantBlocks {
    /// Live blocks. Where a meta's times contradict each other they are 0, unknown.
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
    unix_nanos: u64,
    change: Change,
}

impl Blocklist {
    /// An empty list. `poll_interval` is how long other processes may take to see a change.
    #[must_use]
    pub fn new(poll_interval: Duration, clock: fn() -> u64) -> Self {
        let shared = Shared {
            tenants: RwLock::default(),
            unknown: RwLock::default(),
            changes: Mutex::default(),
            polls: watch::Sender::new(0),
            poll_interval,
            clock,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The tenants that have blocks, sorted.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantId> {
        self.shared.tenants.read().keys().cloned().collect()
    }

    /// A tenant's blocks as they are now; none where it has no block.
    #[must_use]
    pub fn blocks(&self, tenant: &TenantId) -> Option<TenantBlocks> {
        self.shared.tenants.read().get(tenant).cloned()
    }

    /// Whether the whole bucket has been looked at once.
    #[must_use]
    pub fn is_polled(&self) -> bool {
        *self.shared.polls.borrow() > 0
    }

    /// Waits until the whole bucket has been looked at once.
    pub async fn polled_once(&self) {
        // The sender lives as long as this list.
        let _ = self.shared.polls.subscribe().wait_for(|polls| *polls > 0).await;
    }

    /// Why nothing is known of a tenant that is in the bucket: no poll could find out its blocks so far. An answer made of
    /// [`Self::live`] then lacks everything that is stored.
    #[must_use]
    pub fn why_unknown(&self, tenant: &TenantId) -> Option<String> {
        self.shared.unknown.read().get(tenant).cloned()
    }

    /// A tenant's live blocks.
    #[must_use]
    pub fn live(&self, tenant: &TenantId) -> Arc<Vec<BlockMeta>> {
        self.shared.tenants.read().get(tenant).map(|blocks| blocks.live.clone()).unwrap_or_default()
    }

    /// A tenant's compacted blocks that are still there.
    #[must_use]
    pub fn compacted(&self, tenant: &TenantId) -> Arc<Vec<CompactedBlock>> {
        self.shared.tenants.read().get(tenant).map(|blocks| blocks.compacted.clone()).unwrap_or_default()
    }

    /// Blocks that were compacted so lately that their successor may be missing from the live list: less than two poll
    /// intervals ago. A lookup by trace id reads them too.
    ///
    /// Source: docs/facts/blocks.md, "Which blocks are asked".
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
            changes.get(tenant).into_iter().flatten().flat_map(|timed| timed.change.compacted.iter().copied()).collect();
        let blocks = self.blocks(tenant);
        drop(changes);
        let Some(blocks) = blocks else { return Vec::new() };
        let is_certain =
            |block: &&CompactedBlock| block.compacted_unix_nanos < blocks.listed_unix_nanos || own.contains(&block.meta.block_id);
        blocks.compacted.iter().filter(is_certain).map(|block| block.meta.clone()).collect()
    }

    /// Puts this process' own change on top of what was polled, until a poll shows it.
    pub fn apply(&self, tenant: &TenantId, change: Change) {
        let unix_nanos = (self.shared.clock)();
        // Held throughout: a poll that ends meanwhile must not lose the change.
        let mut changes = self.shared.changes.lock();
        let mut tenants = self.shared.tenants.write();
        let mut blocks = tenants.remove(tenant).unwrap_or_default();
        change.apply(&mut blocks, unix_nanos);
        if !blocks.is_empty() {
            tenants.insert(tenant.clone(), blocks);
        }
        changes.entry(tenant.clone()).or_default().push(Timed { unix_nanos, change });
    }

    /// Takes a tenant's polled list, which shows all that was done before `as_of`.
    pub(crate) fn polled(&self, tenant: &TenantId, mut blocks: TenantBlocks, as_of_unix_nanos: u64) {
        let mut changes = self.shared.changes.lock();
        if let Some(own) = changes.get_mut(tenant) {
            own.retain(|timed| timed.unix_nanos >= as_of_unix_nanos);
            own.iter().for_each(|timed| timed.change.apply(&mut blocks, timed.unix_nanos));
            if own.is_empty() {
                changes.remove(tenant);
            }
        }
        self.shared.unknown.write().remove(tenant);
        let mut tenants = self.shared.tenants.write();
        if blocks.is_empty() {
            tenants.remove(tenant);
        } else {
            tenants.insert(tenant.clone(), blocks);
        }
    }

    /// Takes note that a tenant's blocks could not be found out. What was known of them before stays.
    pub(crate) fn failed(&self, tenant: &TenantId, why: String) {
        if !self.shared.tenants.read().contains_key(tenant) {
            self.shared.unknown.write().insert(tenant.clone(), why);
        }
    }

    /// Ends a look at the whole bucket: other tenants than these are gone.
    pub(crate) fn poll_ended(&self, tenants: &FxHashSet<TenantId>) {
        let mut changes = self.shared.changes.lock();
        changes.retain(|tenant, _| tenants.contains(tenant));
        self.shared.unknown.write().retain(|tenant, _| tenants.contains(tenant));
        self.shared.tenants.write().retain(|tenant, _| tenants.contains(tenant));
        drop(changes);
        self.shared.polls.send_modify(|polls| *polls += 1);
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

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
