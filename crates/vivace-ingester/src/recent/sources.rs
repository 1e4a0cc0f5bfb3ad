//! What a query works on, fixed when it begins, and a place among the few that may work at once.

use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockReader, ReadError};
use vivace_core::budget::Budget;
use vivace_storage::Bucket;
use vivace_traceql::TooLarge;

use super::error::QueryError;
use super::reader::Reader;
use crate::store::{ServedBlock, View};

/// Queries that work at the same time: more would only hold more memory. The others wait in the order in which they came.
static AT_ONCE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    Arc::new(Semaphore::new(cores * 2))
});

/// What there is of a tenant for one query.
pub(super) struct Sources {
    pub(super) view: View,
    pub(super) bucket: Bucket,
    pub(super) budget: Budget,
    /// Cancelled when the client has gone away.
    pub(super) stop: CancellationToken,
}

impl Sources {
    /// Brings what is held among the live segments, and gives the reader that did: it may have read what is asked for next.
    ///
    /// # Errors
    /// There is no room to read.
    pub(super) fn index_held(&mut self) -> Result<Reader, TooLarge> {
        let mut reader = Reader::within(&self.budget)?;
        self.view.index_held(&mut reader, &self.stop);
        Ok(reader)
    }

    /// Opens a block that is served.
    pub(super) fn open(&self, block: &ServedBlock) -> Result<BlockReader, ReadError> {
        BlockReader::open(block.meta.clone(), self.bucket.reader(&block.meta))
    }
}

/// Runs what burns CPU or reads files off the async threads. One that has been dropped meanwhile ends at its next look at its
/// token, and keeps its place until then.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, QueryError> {
    let permit = Arc::clone(&AT_ONCE).acquire_owned().await.map_err(|e| QueryError::Internal(e.to_string()))?;
    let done = spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|e| QueryError::Internal(e.to_string()))
}
