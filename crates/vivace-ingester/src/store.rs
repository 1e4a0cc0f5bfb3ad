//! The one owner of segments: it alone moves one from held to live to flushed.
//!
//! A segment is in the log from before it is acknowledged until a block in the bucket has its spans. Meanwhile it stands in exactly
//! one place: it is *held* for another primary, or *live*, in a head that grows and is sealed when it is cut. Once it is *covered* its
//! record is forgotten, and its block is *served* for a while in its place.
//!
//! Each act is one method, and keeps these rules:
//! - **Logged first.** What is not synced is neither live nor held ([`Store::take_own`], [`Store::hold`]).
//! - **Block first.** A head becomes a block only when that is in the bucket ([`Store::flushed`]).
//! - **Ledger before forget.** A record is forgotten after the ledger says that it is covered, so that a start in between does not
//!   bring the segment back ([`Store::flushed`], [`Store::release`]). Where the ledger cannot be written the record goes all the same:
//!   then the segment may be flushed twice, and readers drop the copies.
//! - **One place.** A query finds a segment in one place, whatever moves meanwhile ([`Store::view`], [`Store::adopt`]).

mod aside;
mod head;
mod held;
mod ledger;
mod live;
mod lock;
mod own_ids;
mod replay;
mod served;
mod tracker;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot};
use vivace_block::BlockMeta;
use vivace_core::TenantId;

use self::held::Held;
use self::ledger::Ledger;
use self::live::{Inserted, Live};
use self::lock::Lock;
use self::replay::Opened;
use crate::header::{Refused, SegmentHeader, SegmentId};
use crate::limits::TraceLimits;
use crate::log::{Log, LogError, LogPosition, Record};
use crate::metrics::{ADOPTED_SEGMENTS, BLOCKS_CLEARED, FLUSH_QUEUE_LENGTH, HELD_SEGMENTS, LOG_SIZE, UNDER_REPLICATED_SEGMENTS};
use crate::segment::Segment;
use crate::segment_set::SegmentSet;
use crate::settings::Settings;
use crate::summary::TraceSummary;

pub(crate) use self::head::{Contents, Head, HeadSize, TraceEntry};
pub(crate) use self::held::HeldFor;
pub(crate) use self::live::{Sealed, Tenant};
pub(crate) use self::replay::StartError;
pub(crate) use self::served::ServedBlock;

/// Where each segment stands, and the log behind it.
pub(crate) struct Store {
    /// This instance's id in the ring.
    id: Arc<str>,
    starts_empty: bool,
    slack_nanos: u64,
    block_bytes_max: u64,
    held: Held,
    live: Live,
    ledger: Ledger,
    log: Log,
    /// Locked for writing while segments turn from held to live, so that a view has each of them once.
    adopting: RwLock<()>,
    /// Wakes who flushes before its time.
    flush_wanted: Notify,
    /// Last, so that the log is closed when another process gets it.
    _lock: Lock,
}

/// What there is of a tenant at one moment, each segment in one place. Kept for as long as a query runs.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Live segments, oldest first; the last head may still grow.
    pub(crate) heads: Vec<Arc<Head>>,
    /// Segments held for instances that do not answer themselves.
    pub(crate) held: Vec<Arc<Segment>>,
    /// Oldest first.
    pub(crate) served: Vec<Arc<ServedBlock>>,
}

/// A head whose block is in the bucket.
pub(crate) struct FlushedHead {
    pub(crate) sealed: Sealed,
    /// None when there was nothing to store.
    pub(crate) block: Option<BlockMeta>,
    /// Those of its segments that the block could not take in.
    pub(crate) unreadable: Vec<Arc<Segment>>,
}

/// What is in the bucket now, for others to hear of.
#[derive(Default)]
pub(crate) struct Flushed {
    pub(crate) served: Vec<Arc<ServedBlock>>,
    /// Segments by primary.
    pub(crate) covered: BTreeMap<Arc<str>, SegmentSet>,
}

impl Flushed {
    fn cover(&mut self, head: &Head, unreadable: &[Arc<Segment>]) {
        let segments = head.segments();
        for segment in segments.iter().filter(|segment| !unreadable.iter().any(|other| Arc::ptr_eq(other, segment))) {
            self.covered.entry(Arc::clone(&segment.header.primary)).or_default().insert(segment.header.id);
        }
    }
}

impl Store {
    /// Opens log and ledger of the instance `id`, and brings back what an earlier process had. Blocks the thread until all is read.
    /// Needs no room to write: without any, what is here is served and flushed, and pushes are refused until there is some.
    ///
    /// # Errors
    /// A folder or a file cannot be read or written. Damaged data is no error: it is logged, counted and kept; what can be made anew
    /// is set aside.
    pub(crate) fn open(id: Arc<str>, settings: &Settings) -> Result<Self, StartError> {
        let Opened { live, held, ledger, log, starts_empty, lock } = replay::open(&id, settings)?;
        Ok(Self {
            id,
            starts_empty,
            slack_nanos: settings.slack_nanos(),
            block_bytes_max: settings.max_block_bytes,
            held,
            live,
            ledger,
            log,
            adopting: RwLock::default(),
            flush_wanted: Notify::new(),
            _lock: lock,
        })
    }

    /// Of this instance in the ring.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Its disk is new: what this instance had before it was started, if anything, is lost here.
    pub(crate) fn starts_empty(&self) -> bool {
        self.starts_empty
    }
}

/// Segments arrive.
impl Store {
    /// The segment of which this instance is the primary, if it is live.
    pub(crate) fn own(&self, id: &SegmentId) -> Option<Arc<Segment>> {
        self.live.own(id)
    }

    pub(crate) fn is_held(&self, primary: &str, id: &SegmentId) -> bool {
        self.held.contains(primary, id)
    }

    /// Decides which traces of a segment are refused, and counts those that are not. Also tells how many became live.
    pub(crate) fn admit(
        &self,
        tenant: &TenantId,
        traces: &[TraceSummary],
        now_unix_seconds: u64,
        limits: TraceLimits,
    ) -> (Vec<Refused>, u64) {
        self.live.tenant(tenant).admit(traces, now_unix_seconds, limits)
    }

    /// Logs a segment of which this instance is the primary and makes it live: when this returns every view has it.
    ///
    /// May be dropped midway: then the segment is logged and live, or neither.
    ///
    /// # Errors
    /// It is not logged.
    pub(crate) async fn take_own(
        self: &Arc<Self>,
        header: SegmentHeader,
        payload: Bytes,
        traces: Vec<TraceSummary>,
    ) -> Result<(), LogError> {
        let record = Record::segment(&header, &payload);
        drop(payload);
        self.append(record, move |store, at| {
            let file = at.file.number;
            match store.live.insert(Arc::new(Segment { header, at }), &traces, store.block_bytes_max) {
                Inserted::Known => store.log.forget(file, 1),
                Inserted::Cut => store.flush_soon(),
                Inserted::Taken => {}
            }
        })
        .await
    }

    /// Logs a segment and holds it for its primary. May be dropped midway, as [`Store::take_own`].
    ///
    /// # Errors
    /// It is not logged.
    pub(crate) async fn hold(self: &Arc<Self>, header: SegmentHeader, payload: Bytes) -> Result<(), LogError> {
        let record = Record::segment(&header, &payload);
        drop(payload);
        self.append(record, move |store, at| {
            let file = at.file.number;
            if !store.held.insert(Segment { header, at }) {
                store.log.forget(file, 1);
            }
        })
        .await
    }

    /// Appends to the log, and then has the segment placed, on the log's thread: a client that goes away leaves nothing half done.
    async fn append(self: &Arc<Self>, record: Record, place: impl FnOnce(&Self, LogPosition) + Send + 'static) -> Result<(), LogError> {
        let (sender, logged) = oneshot::channel();
        let store = Arc::clone(self);
        let done = move |result: Result<LogPosition, LogError>| {
            // Nobody waits when the client has gone away.
            let _ = sender.send(result.map(|at| place(&store, at)));
        };
        self.log.append(record, Box::new(done)).await;
        logged.await.unwrap_or(Err(LogError::Closed))
    }
}

/// Live segments become blocks.
impl Store {
    /// Those with data here, and those that had some lately.
    pub(crate) fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.live.tenants()
    }

    /// Closes a tenant's head so that it is flushed; later segments go to a new one.
    pub(crate) fn cut_head(&self, tenant: &Arc<Tenant>) {
        self.live.cut(tenant);
    }

    /// Closes the head of one tenant, or of all, and has them flushed. False when the tenant is not known here.
    pub(crate) fn cut(&self, tenant: Option<&TenantId>) -> bool {
        let tenants = match tenant {
            Some(tenant) => self.live.get(tenant).into_iter().collect(),
            None => self.live.tenants(),
        };
        tenants.iter().for_each(|tenant| self.cut_head(tenant));
        self.flush_soon();
        tenant.is_none() || !tenants.is_empty()
    }

    /// Wakes who flushes.
    pub(crate) fn flush_soon(&self) {
        self.flush_wanted.notify_one();
    }

    /// Comes back when somebody has asked for a flush.
    pub(crate) async fn flush_wanted(&self) {
        self.flush_wanted.notified().await;
    }

    /// Takes the next heads to flush, oldest first: those that are small together up to `bytes_max` once decompressed and `heads_max`,
    /// a large one alone.
    pub(crate) fn next_to_flush(&self, bytes_max: u64, heads_max: usize) -> Vec<Sealed> {
        self.live.next_to_flush(bytes_max, heads_max)
    }

    /// Cut heads that are not in the bucket yet.
    pub(crate) fn unflushed(&self) -> usize {
        self.live.unflushed()
    }

    /// Whether every segment that is live here is in the bucket.
    pub(crate) fn is_flushed(&self) -> bool {
        self.live.is_flushed()
    }

    /// The blocks of these heads are in the bucket: notes that, serves them in the heads' place and forgets the records. Blocks the
    /// thread.
    pub(crate) fn flushed(&self, heads: Vec<FlushedHead>, now_unix_seconds: u64) -> Flushed {
        let mut flushed = Flushed::default();
        let mut replaced = Vec::with_capacity(heads.len());
        for FlushedHead { sealed, block, unreadable } in heads {
            flushed.cover(&sealed.head, &unreadable);
            unreadable.iter().for_each(|segment| self.log.damaged(segment.at.file.number));
            let served = |meta| Arc::new(ServedBlock { meta, flushed_unix_seconds: now_unix_seconds, writer: Arc::clone(&self.id) });
            let block = block.map(served);
            flushed.served.extend(block.clone());
            replaced.push((sealed, block));
        }
        let is_recorded = self.ledger.cover(&flushed.served, &flushed.covered, now_unix_seconds).is_ok();
        for (sealed, block) in &replaced {
            self.live.replace(sealed, block.clone());
            self.forget_records(&sealed.head.segments());
        }
        // On a full volume what the log has just given up is room for it.
        if !is_recorded && let Err(error) = self.ledger.expire(0, 0) {
            tracing::error!(%error, "flushed blocks not in the ledger yet: after a restart their segments may be flushed again");
        }
        if replaced.iter().any(|(sealed, _)| sealed.head.is_under_replicated()) {
            self.report_under_replicated();
        }
        flushed
    }

    /// These segments' records are not needed any more.
    fn forget_records(&self, segments: &[Arc<Segment>]) {
        let mut files: BTreeMap<u64, u64> = BTreeMap::new();
        for segment in segments {
            *files.entry(segment.at.file.number).or_default() += 1;
        }
        for (file, records) in files {
            self.log.forget(file, records);
        }
    }
}

/// Primaries and followers.
impl Store {
    /// Segments held, a summary per primary.
    pub(crate) fn held(&self) -> Vec<HeldFor> {
        self.held.summary()
    }

    /// The ids held for a primary that arrived at this time or earlier.
    pub(crate) fn held_until(&self, primary: &str, unix_seconds: u64) -> SegmentSet {
        self.held.received_until(primary, unix_seconds)
    }

    /// The segments held for a primary that pass, oldest first.
    pub(crate) fn held_for(&self, primary: &str, pass: impl Fn(&SegmentId) -> bool) -> Vec<Arc<Segment>> {
        self.held.select(primary, pass)
    }

    /// A primary, or who flushed in its place, says what is in the bucket: drops what is held of it. Blocks the thread.
    pub(crate) fn release(&self, primary: &str, covered: &SegmentSet, now_unix_seconds: u64) {
        let released = self.held.remove(primary, covered);
        if released.is_empty() {
            return;
        }
        let set: SegmentSet = released.iter().map(|s| s.header.id).collect();
        let recorded = self.ledger.cover(&[], &BTreeMap::from([(Arc::from(primary), set)]), now_unix_seconds);
        self.forget_records(&released);
        if let Err(error) = recorded {
            tracing::warn!(%error, "released segments not in the ledger: after a restart their primary is asked again");
        }
    }

    /// Makes segments that are held for a primary live here and has them flushed, as there are fewer copies of them now. Blocks the
    /// thread.
    pub(crate) fn adopt(&self, primary: &Arc<str>, segments: &[Arc<Segment>], now_unix_seconds: u64) {
        let ids: SegmentSet = segments.iter().map(|segment| segment.header.id).collect();
        if let Err(error) = self.ledger.adopt(primary, &ids, now_unix_seconds) {
            tracing::warn!(%primary, %error, "what is taken over is not in the ledger: after a restart it is merely held again");
        }
        let readable = self.readable(primary, segments);
        let adopted = self.move_to_live(primary, &ids, readable);
        metrics::counter!(ADOPTED_SEGMENTS.name).increment(adopted);
        self.report_under_replicated();
        self.flush_soon();
    }

    /// The traces of held segments, of those that can be read.
    fn readable(&self, primary: &str, segments: &[Arc<Segment>]) -> BTreeMap<SegmentId, Vec<TraceSummary>> {
        let mut readable = BTreeMap::new();
        for segment in segments {
            match segment.traces(self.slack_nanos) {
                Ok(traces) => {
                    readable.insert(segment.header.id, traces);
                }
                // Not asked for again until the next start.
                Err(error) => {
                    tracing::error!(%primary, segment = ?segment.header.id, file = segment.at.file.number, offset = segment.at.offset, %error,
                        "held segment cannot be read; its file is kept");
                }
            }
        }
        readable
    }

    /// Held segments of a primary become live at once, those of them that can be read; tells how many.
    fn move_to_live(&self, primary: &str, ids: &SegmentSet, mut readable: BTreeMap<SegmentId, Vec<TraceSummary>>) -> u64 {
        let _seen_in_one_place = self.adopting.write();
        let mut adopted = 0;
        let mut by_tenant: BTreeMap<TenantId, Vec<_>> = BTreeMap::new();
        // What is not held any more has been flushed by another meanwhile.
        for segment in self.held.remove(primary, ids) {
            if let Some(traces) = readable.remove(&segment.header.id) {
                by_tenant.entry(segment.header.tenant.clone()).or_default().push((segment, traces));
                adopted += 1;
            }
        }
        for (tenant, segments) in by_tenant {
            self.live.adopt(&tenant, segments);
        }
        adopted
    }

    /// Another copy of everything that is live is gone: has it flushed. Tells how many segments there are.
    pub(crate) fn lose_copies(&self) -> usize {
        let segments = self.live.lose_copies();
        self.report_under_replicated();
        self.flush_soon();
        segments
    }

    /// What this primary knows of segments that a follower holds for it: those that are in the bucket, and those that are live.
    pub(crate) fn covered(&self, held: &SegmentSet) -> (SegmentSet, SegmentSet) {
        // The live ones first: what is flushed in between is then in both, and live wins until the next question.
        let pending = held.intersection(&self.live.own_ids());
        let covered = self.ledger.covered_of(&self.id);
        (held.intersection(&covered), pending)
    }

    /// The segments of this primary that are in its log or in the bucket.
    pub(crate) fn known(&self) -> SegmentSet {
        let mut known = self.live.own_ids();
        known.merge(&self.ledger.covered_of(&self.id));
        known
    }

    /// Serves blocks that another instance flushed. Blocks the thread.
    pub(crate) fn serve(&self, blocks: &[Arc<ServedBlock>]) {
        for block in blocks {
            self.live.serve(Arc::clone(block));
        }
        if let Err(error) = self.ledger.serve(blocks) {
            tracing::warn!(%error, "blocks of others not in the ledger: after a restart they are not served from here");
        }
    }

    /// All blocks that are served from here.
    pub(crate) fn served(&self) -> Vec<Arc<ServedBlock>> {
        self.live.served()
    }
}

/// Queries.
impl Store {
    /// Everything there is of a tenant now. `answering`: instances that answer for themselves; what is held for any other is in the view
    /// too, and so are the blocks that it wrote.
    pub(crate) fn view(&self, tenant: &TenantId, answering: &[String]) -> View {
        let _nothing_is_adopted = self.adopting.read();
        let held = self.held.of_others(answering, tenant);
        let (heads, mut served) = self.live.get(tenant).map(|tenant| tenant.heads_and_served()).unwrap_or_default();
        served.retain(|block| block.is_answered_by(&self.id, answering));
        View { heads, held, served }
    }
}

/// Upkeep.
impl Store {
    /// Memory that the index of live segments takes, bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.live.memory_bytes()
    }

    /// Forgets what is old: blocks that queriers know by now are not served any more, nor is remembered which segments were covered or
    /// adopted before a time. Gives the tenants of which nothing is left.
    pub(crate) fn expire(&self, segments_before_unix_seconds: u64, blocks_before_unix_seconds: u64) -> Vec<TenantId> {
        let cleared: usize = self.live.tenants().iter().map(|tenant| tenant.clear(blocks_before_unix_seconds)).sum();
        if cleared > 0 {
            metrics::counter!(BLOCKS_CLEARED.name).increment(cleared as u64);
        }
        let gone = self.live.forget_empty();
        if let Err(error) = self.ledger.expire(segments_before_unix_seconds, blocks_before_unix_seconds) {
            tracing::warn!(%error, "ledger is kept in memory only: after a restart segments may be flushed again");
        }
        gone
    }

    /// Publishes how much there is.
    pub(crate) fn report(&self) {
        let held: usize = self.held.summary().iter().map(|held| held.segments).sum();
        metrics::gauge!(HELD_SEGMENTS.name).set(held as f64);
        self.report_under_replicated();
        metrics::gauge!(LOG_SIZE.name).set(self.log.bytes() as f64);
        metrics::gauge!(FLUSH_QUEUE_LENGTH.name).set(self.live.unflushed() as f64);
    }

    /// Publishes how many segments have lost a copy and are not in the bucket yet.
    fn report_under_replicated(&self) {
        metrics::gauge!(UNDER_REPLICATED_SEGMENTS.name).set(self.live.under_replicated() as f64);
    }
}

#[cfg(test)]
impl Store {
    /// Blocks that are served again after a restart.
    pub(crate) fn served_in_ledger(&self) -> Vec<Arc<ServedBlock>> {
        self.ledger.served()
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    pub(crate) fn under_replicated(&self) -> usize {
        self.live.under_replicated()
    }
}
