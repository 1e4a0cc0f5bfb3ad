//! What an ingester has. What is done with it is in `push`, `flush`, `takeover` and `handover`.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vivace_ring::Ring;
use vivace_storage::Bucket;

use crate::lifecycle::Lifecycle;
use crate::limits::{LimitsOf, TenantLimits};
use crate::recent::Recent;
use crate::settings::Settings;
use crate::store::{StartError, Store};

/// One instance in the ring.
pub(crate) struct Ingester {
    pub(crate) settings: Settings,
    /// Whether it takes segments and answers queries.
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Its segments: the one place in which they move.
    pub(crate) store: Arc<Store>,
    /// Answers queries, and changes nothing.
    pub(crate) recent: Arc<Recent>,
    pub(crate) bucket: Bucket,
    pub(crate) ring: Ring,
    pub(crate) limits: TenantLimits,
    /// Counts heads that are done.
    pub(crate) flushed: watch::Sender<u64>,
    /// The flush loop has ended, in order or not.
    pub(crate) flushing_over: CancellationToken,
}

impl Ingester {
    /// Opens the store; see [`Store::open`]. Blocks the thread.
    ///
    /// # Errors
    /// A folder or a file cannot be read or written.
    pub(crate) fn open(id: Arc<str>, settings: Settings, bucket: Bucket, ring: Ring, limits: LimitsOf) -> Result<Self, StartError> {
        let store = Arc::new(Store::open(id, &settings)?);
        let lifecycle = Arc::new(Lifecycle::new(settings.flush_all_on_shutdown));
        let limits = TenantLimits::new(limits, ring.clone(), settings.block.clone());
        let recent = Recent::new(Arc::clone(&store), Arc::clone(&lifecycle), bucket.clone(), settings.budget.clone(), limits.clone());
        Ok(Self {
            settings,
            lifecycle,
            store,
            recent: Arc::new(recent),
            bucket,
            ring,
            limits,
            flushed: watch::Sender::new(0),
            flushing_over: CancellationToken::new(),
        })
    }

    /// Refuses pushes, finishes those under way, and flushes everything where that is wanted. Otherwise the log keeps it.
    pub(crate) async fn drain(&self) {
        self.lifecycle.close().await;
        if self.lifecycle.flushes_on_drain() && self.settings.flush_object_storage {
            self.flush_everything().await;
        }
    }
}
