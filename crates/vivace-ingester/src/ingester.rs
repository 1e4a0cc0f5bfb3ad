//! An ingester is its parts, each of which alone changes what it holds. How segments come in is in `push`.

use std::sync::Arc;

use vivace_ring::Ring;
use vivace_storage::Bucket;

use crate::flush::Flusher;
use crate::lifecycle::Lifecycle;
use crate::limits::{LimitsOf, TenantLimits};
use crate::recent::Recent;
use crate::settings::Settings;
use crate::store::{StartError, Store};
use crate::succession::Succession;

/// One instance in the ring.
pub(crate) struct Ingester {
    pub(crate) settings: Arc<Settings>,
    pub(crate) limits: TenantLimits,
    /// Whether it takes segments and answers queries.
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Its segments: the one place in which they move.
    pub(crate) store: Arc<Store>,
    /// Answers queries, and changes nothing.
    pub(crate) recent: Arc<Recent>,
    /// What it does for other ingesters, and they for it.
    pub(crate) succession: Arc<Succession>,
    /// Brings what is live into the bucket.
    pub(crate) flusher: Arc<Flusher>,
}

impl Ingester {
    /// Opens the store; see [`Store::open`]. Blocks the thread.
    ///
    /// # Errors
    /// A folder or a file cannot be read or written.
    pub(crate) fn open(id: Arc<str>, settings: Settings, bucket: Bucket, ring: Ring, limits: LimitsOf) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let limits = TenantLimits::new(limits, ring.clone(), settings.block.clone());
        let lifecycle = Arc::new(Lifecycle::new(settings.flush_all_on_shutdown));
        let store = Arc::new(Store::open(id, &settings)?);
        let recent = Recent::new(Arc::clone(&store), Arc::clone(&lifecycle), bucket.clone(), settings.budget.clone(), limits.clone());
        let succession = Arc::new(Succession::new(Arc::clone(&store), ring, Arc::clone(&settings)));
        let flusher = Flusher::new(Arc::clone(&settings), limits.clone(), bucket, Arc::clone(&store), Arc::clone(&succession));
        Ok(Self { settings, limits, lifecycle, store, recent: Arc::new(recent), succession, flusher: Arc::new(flusher) })
    }

    /// Refuses pushes, finishes those under way, and flushes everything where that is wanted. Otherwise the log keeps it.
    pub(crate) async fn drain(&self) {
        self.lifecycle.close().await;
        if self.lifecycle.flushes_on_drain() && self.settings.flush_object_storage {
            self.flusher.flush_everything().await;
        }
    }
}
