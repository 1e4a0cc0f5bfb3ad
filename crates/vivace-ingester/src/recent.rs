//! Everything that answers about recent data: what is live, what is held for instances that do not answer, and blocks that are served
//! until all queriers know them.
//!
//! All of it begins with the [`Sources`] of a tenant, which stay as they are however long the answer takes: [`Recent::look`] is the way
//! of those that answer at once, and streams keep their sources between their messages. Live spans are read through a
//! [`Reader`](reader::Reader), a view says which segments those are, and the evaluation is the same as for blocks in the bucket.

mod error;
mod left_out;
mod parts;
mod reader;
mod search;
mod series;
mod sources;
mod spans;
mod tags;
mod trace;
mod view;

use std::sync::Arc;

use rustc_hash::FxHashSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use vivace_core::budget::Budget;
use vivace_core::{BlockId, TenantId};
use vivace_storage::Bucket;

use self::sources::{Sources, blocking};
use crate::lifecycle::Lifecycle;
use crate::limits::TenantLimits;
use crate::store::Store;

pub(crate) use self::error::QueryError;

/// Answers queries from the store and from the blocks that are served.
pub(crate) struct Recent {
    store: Arc<Store>,
    lifecycle: Arc<Lifecycle>,
    bucket: Bucket,
    budget: Budget,
    limits: TenantLimits,
}

impl Recent {
    pub(crate) fn new(store: Arc<Store>, lifecycle: Arc<Lifecycle>, bucket: Bucket, budget: Budget, limits: TenantLimits) -> Self {
        Self { store, lifecycle, bucket, budget, limits }
    }

    /// Everything there is of a tenant now, and the guard that stops the query when it is dropped. `answering`: instances that answer
    /// for themselves; what is held for any other is a source too, and so are the blocks that it wrote. `known_blocks`: ids of blocks
    /// whose traces the asker finds in the bucket.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for ids that are none, [`QueryError::Joining`].
    fn sources(&self, tenant: &TenantId, answering: &[String], known_blocks: &[u8]) -> Result<(Sources, DropGuard), QueryError> {
        let known: FxHashSet<BlockId> = ids_of(known_blocks)?.map(BlockId).collect();
        if self.lifecycle.is_joining() {
            return Err(QueryError::Joining);
        }
        let mut view = self.store.view(tenant, answering);
        view.served.retain(|block| !known.contains(&block.meta.block_id));
        let stop = CancellationToken::new();
        let stops_when_dropped = stop.clone().drop_guard();
        Ok((Sources { view, bucket: self.bucket.clone(), budget: self.budget.clone(), stop }, stops_when_dropped))
    }

    /// Looks at everything there is of a tenant, off the async threads; see [`Recent::sources`]. Stops when the client has gone away.
    ///
    /// # Errors
    /// As for the sources, and those of `look`.
    async fn look<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        answering: &[String],
        known_blocks: &[u8],
        look: impl FnOnce(Sources) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let (sources, _stops_with_the_client) = self.sources(tenant, answering, known_blocks)?;
        blocking(move || look(sources)).await?
    }
}

/// Ids that stand one after another.
fn ids_of(bytes: &[u8]) -> Result<impl Iterator<Item = [u8; 16]>, QueryError> {
    let (ids, rest) = bytes.as_chunks::<16>();
    match rest.len() {
        0 => Ok(ids.iter().copied()),
        more => Err(QueryError::Invalid(format!("ids have 16 bytes each, {more} are left over"))),
    }
}
