//! Who flushes a segment and who answers from a block when an ingester dies, leaves or comes back.
//!
//! Each act has one verb, here and in the store:
//!
//! | verb | what it is | message |
//! |---|---|---|
//! | hold | a follower keeps a segment in its log, for the day on which the primary is gone | `SegmentLog.Push` |
//! | cover | a block in the bucket covers the segments whose spans it has | |
//! | release | whoever flushed segments tells the primary's followers that they are covered; those drop what they hold of them | `SegmentLog.Release` |
//! | ask | a follower asks a primary that lives about segments that should be covered by now | `SegmentLog.Covered` |
//! | adopt | a follower makes live what it holds for a primary that cannot flush it; logs and messages say that it is taken over | |
//! | serve | an ingester answers from a block that is in the bucket, until all queriers know that block | |
//! | hand over | an ingester gives blocks to its followers to be served: new ones at each flush, all when it ends | `Handover.Serve` |
//! | resume | an ingester that starts asks each of the others for what it had: they adopt what it lost, and name blocks for it to serve | `Handover.Resume` |
//!
//! Every rule errs to the same side: what is flushed twice is dropped by readers, and what is lost is lost.

mod follow;
mod hand_over;
mod release;
mod resume;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::task::spawn_blocking;
use vivace_ring::{ClientPool, PoolOptions, Ring};
use vivace_server::clock;

use crate::header::SegmentId;
use crate::segment_set::SegmentSet;
use crate::settings::Settings;
use crate::store::Store;

pub(crate) use self::follow::Follower;
pub(crate) use self::hand_over::serve;
pub(crate) use self::resume::Started;

/// What this ingester does for the others, and they for it.
pub(crate) struct Succession {
    store: Arc<Store>,
    ring: Ring,
    pool: ClientPool,
    settings: Arc<Settings>,
}

impl Succession {
    pub(crate) fn new(store: Arc<Store>, ring: Ring, settings: Arc<Settings>) -> Self {
        let pool = ClientPool::new(ring.clone(), PoolOptions::default());
        Self { store, ring, pool, settings }
    }

    /// Makes segments live here that are held for a primary, those that pass. Tells which they were.
    async fn adopt(&self, primary: &Arc<str>, pass: impl Fn(&SegmentId) -> bool) -> SegmentSet {
        let segments = self.store.held_for(primary, pass);
        let ids: SegmentSet = segments.iter().map(|segment| segment.header.id).collect();
        if segments.is_empty() {
            return ids;
        }
        let (store, primary) = (Arc::clone(&self.store), Arc::clone(primary));
        let adopted = spawn_blocking(move || store.adopt(&primary, &segments, clock::unix_seconds()));
        if let Err(error) = adopted.await {
            tracing::error!(%error, "taking over segments failed");
        }
        ids
    }
}
