//! How many requests a process makes to a remote bucket at once. Here because the store library's own bound does not see that a
//! read of several ranges is several requests.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::limit::LimitStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

/// A remote store that does so many requests at once, and lets others wait their turn: each is a connection, and a process
/// has so many descriptors.
///
/// Beside [`LimitStore`] it counts each range of `get_ranges`, which are requests of their own.
#[derive(Debug)]
pub(crate) struct Bounded(LimitStore<Arc<dyn ObjectStore>>);

impl Bounded {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, requests_max: usize) -> Self {
        Self(LimitStore::new(store, requests_max.max(1)))
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[async_trait]
impl ObjectStore for Bounded {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;

    /// How long six reads of 10 ms take, two at once; time is paused and passes while all wait.
    #[tokio::test(start_paused = true)]
    async fn so_many_requests_are_in_flight_and_the_others_wait() {
        let memory = InMemory::new();
        let key = Path::from("a");
        memory.put(&key, vec![0; 4 << 20].into()).await.expect("stored");
        let config = ThrottleConfig { wait_get_per_call: Duration::from_millis(10), ..Default::default() };
        let store = Bounded::new(Arc::new(ThrottledStore::new(memory, config)), 2);
        let begun = tokio::time::Instant::now();
        let reads = (0..6).map(|_| async { store.get(&key).await?.bytes().await });
        futures::future::try_join_all(reads).await.expect("read");
        let took = begun.elapsed();
        assert!((Duration::from_millis(30)..Duration::from_millis(40)).contains(&took), "{took:?}");
        // Ranges far apart are requests too.
        let begun = tokio::time::Instant::now();
        let ranges = [0..10, 2 << 20..(2 << 20) + 10, 4_000_000..4_000_010];
        assert_eq!(store.get_ranges(&key, &ranges).await.expect("read").len(), 3);
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
    }
}
