//! What an ingester has. What is done with it is in `push`, `flush`, `query`, `takeover` and `handover`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;
use vivace_ring::Ring;
use vivace_storage::Bucket;

use crate::limits::{LimitsOf, TenantLimits};
use crate::settings::Settings;
use crate::store::{StartError, Store};

/// One instance in the ring.
pub(crate) struct Ingester {
    pub(crate) settings: Settings,
    /// Its segments: the one place in which they move.
    pub(crate) store: Arc<Store>,
    pub(crate) bucket: Bucket,
    pub(crate) ring: Ring,
    pub(crate) limits: TenantLimits,
    /// Pushes hold it for reading while they run, so that whoever closes it waits for them.
    pub(crate) gate: RwLock<Gate>,
    /// Counts heads that are done.
    pub(crate) flushed: watch::Sender<u64>,
    /// The flush loop has ended, in order or not.
    pub(crate) flushing_over: CancellationToken,
    /// Everything is to be flushed before the process ends.
    flush_on_drain: AtomicBool,
    /// Not yet a member: what this instance had before it was started may still be elsewhere, so it neither takes nor answers.
    joining: AtomicBool,
}

/// Whether pushes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The process is going away.
    Closed,
}

impl Ingester {
    /// Opens the store; see [`Store::open`]. Blocks the thread.
    ///
    /// # Errors
    /// A folder or a file cannot be read or written.
    pub(crate) fn open(id: Arc<str>, settings: Settings, bucket: Bucket, ring: Ring, limits: LimitsOf) -> Result<Self, StartError> {
        let store = Arc::new(Store::open(id, &settings)?);
        let limits = TenantLimits::new(limits, ring.clone(), settings.block.clone());
        let flush_on_drain = AtomicBool::new(settings.flush_all_on_shutdown);
        Ok(Self {
            settings,
            store,
            bucket,
            ring,
            limits,
            gate: RwLock::new(Gate::Open),
            flushed: watch::Sender::new(0),
            flushing_over: CancellationToken::new(),
            flush_on_drain,
            joining: AtomicBool::new(false),
        })
    }

    /// Neither pushes are taken nor queries answered while it is so.
    pub(crate) fn set_joining(&self, joining: bool) {
        self.joining.store(joining, Ordering::Release);
    }

    pub(crate) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Acquire)
    }

    /// Everything is flushed when the process ends, whatever the configuration says.
    pub(crate) fn flush_on_drain(&self) {
        self.flush_on_drain.store(true, Ordering::Relaxed);
    }

    /// Refuses pushes, finishes those under way, and flushes everything where that is wanted. Otherwise the log keeps it.
    pub(crate) async fn drain(&self) {
        *self.gate.write().await = Gate::Closed;
        if self.flush_on_drain.load(Ordering::Relaxed) && self.settings.flush_object_storage {
            self.flush_everything().await;
        }
    }
}
