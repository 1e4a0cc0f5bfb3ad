//! Blocks and metas as objects, over whatever store was opened. The order in which objects are written and deleted is the point:
//! it decides what others see of a block while that goes on, and what a crash leaves behind.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use vivace_block::{BlockMeta, ReadAt, bloom, objects};
use vivace_core::budget::Budget;
use vivace_core::{BlockId, TenantId, TraceId};

use crate::bad_objects::report_bad_object;
use crate::cache::Cache;
use crate::error::BucketError;
use crate::keys;
use crate::listing::{Collector, Listing};
use crate::local;
use crate::metrics::WRITTEN_BYTES;
use crate::reader::{DataFile, Source};
use crate::upload::Upload;

/// Bloom filter shards kept in memory, bytes. A shard is at most 100 KiB with default settings.
const BLOOM_CACHE_BYTES: u64 = 64 << 20;
/// Parquet footers kept in memory, bytes. A footer is some tens of KiB.
const FOOTER_CACHE_BYTES: u64 = 64 << 20;
/// Size of an upload's part unless the file is so large that it would need more than S3's 10 000 parts.
const PART_BYTES: u64 = 8 << 20;
/// S3 refuses more; a few are left over for rounding.
const PARTS_MAX: u64 = 9_900;
/// The bucket, seen as tenants and blocks. Cheap to clone; clones share their caches.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    /// Takes what is made of other objects and can be made again.
    derived: Arc<dyn ObjectStore>,
    /// The folder of a local bucket: files there are read directly.
    local: Option<PathBuf>,
    /// For people: kind and place.
    name: String,
    part_bytes: u64,
    blooms: Arc<Cache>,
    footers: Arc<Cache>,
    runtime: Handle,
}

impl Bucket {
    pub(crate) fn over(store: Arc<dyn ObjectStore>, name: String, part_bytes: Option<u64>) -> Self {
        Self::new(store.clone(), store, None, name, part_bytes)
    }

    /// A bucket that is a folder, over one store whose objects survive a power cut and one whose need not.
    pub(crate) fn of_folder(store: Arc<dyn ObjectStore>, derived: Arc<dyn ObjectStore>, root: PathBuf, name: String) -> Self {
        Self::new(store, derived, Some(root), name, None)
    }

    fn new(
        store: Arc<dyn ObjectStore>,
        derived: Arc<dyn ObjectStore>,
        local: Option<PathBuf>,
        name: String,
        part_bytes: Option<u64>,
    ) -> Self {
        let inner = Inner {
            store,
            derived,
            local,
            name,
            part_bytes: part_bytes.unwrap_or(PART_BYTES).max(5 << 20),
            blooms: Arc::new(Cache::new("bloom", BLOOM_CACHE_BYTES)),
            footers: Arc::new(Cache::new("parquet-footer", FOOTER_CACHE_BYTES)),
            runtime: Handle::current(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Charges what is kept of small objects to the process' account for caches.
    pub fn charge_caches(&self, budget: &Budget) {
        self.inner.blooms.charge_to(budget);
        self.inner.footers.charge_to(budget);
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// The folder of a local bucket.
    pub(crate) fn local(&self) -> Option<&FilePath> {
        self.inner.local.as_deref()
    }

    pub(crate) fn runtime(&self) -> Handle {
        self.inner.runtime.clone()
    }

    /// An empty bucket in memory, for tests. Must be called within a runtime.
    #[must_use]
    pub fn memory() -> Self {
        Self::over(Arc::new(InMemory::new()), "memory".to_owned(), None)
    }

    /// A bucket over any store, for tests that inject faults. Must be called within a runtime.
    #[must_use]
    pub fn of_store(store: Arc<dyn ObjectStore>) -> Self {
        let name = store.to_string();
        Self::over(store, name, None)
    }

    /// Bytes of an upload's part.
    pub(crate) fn part_bytes(&self) -> u64 {
        self.inner.part_bytes
    }

    /// Names of the first level that are valid tenants, sorted. Others are counted and logged.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    pub async fn tenants(&self) -> Result<Vec<TenantId>, BucketError> {
        let names = match &self.inner.local {
            Some(root) => {
                let root = root.clone();
                let top = self.walk(self.inner.name.clone(), move || local::top(&root)).await?;
                top.odd.iter().for_each(|(name, why)| report_bad_object("", name, why));
                top.folders
            }
            None => {
                let listed = self.inner.store.list_with_delimiter(None).await;
                let listed = listed.map_err(|e| BucketError::of_store("list", &self.inner.name, e))?;
                listed.common_prefixes.iter().map(|folder| folder.filename().unwrap_or_default().to_owned()).collect()
            }
        };
        let mut tenants = Vec::new();
        for name in names.iter().filter(|name| keys::is_tenant(name)) {
            match TenantId::new(name) {
                Ok(tenant) => tenants.push(tenant),
                Err(error) => report_bad_object("", name, &error.to_string()),
            }
        }
        tenants.sort();
        Ok(tenants)
    }

    /// Lists everything below a tenant's folder: which blocks there are, and in which state, without reading one.
    ///
    /// A block with both metas, as a crash while marking leaves it, counts as compacted.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    pub async fn list(&self, tenant: &TenantId) -> Result<Listing, BucketError> {
        if let Some(root) = &self.inner.local {
            let folder = root.join(tenant.as_str());
            return self.walk(tenant.to_string(), move || local::tenant(&folder)).await;
        }
        let mut found = Collector::default();
        let mut objects = self.inner.store.list(Some(&keys::tenant(tenant)));
        while let Some(object) = objects.try_next().await.map_err(|e| BucketError::of_store("list", tenant.as_str(), e))? {
            let name = object.location.as_ref().split_once('/').map_or("", |(_, name)| name);
            found.object(name, unix_nanos(&object));
        }
        Ok(found.finish())
    }

    /// Reads folders of a local bucket on a thread that may block.
    async fn walk<T: Send + 'static>(
        &self,
        key: String,
        walk: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, BucketError> {
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "local", source };
        let walked = match tokio::task::spawn_blocking(walk).await {
            Ok(walked) => walked.map_err(|e| generic(e.into())),
            Err(error) => Err(generic(error.into())),
        };
        walked.map_err(|source| BucketError::Unavailable { action: "list", key, source })
    }

    /// The metas of a tenant's live blocks; what cannot be read is skipped, counted and logged.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    pub async fn blocks(&self, tenant: &TenantId) -> Result<Vec<BlockMeta>, BucketError> {
        let mut metas = Vec::new();
        for block in self.list(tenant).await?.blocks {
            if block.compacted_unix_nanos.is_some() {
                continue;
            }
            match self.meta(tenant, block.id).await {
                Ok(meta) => metas.push(meta),
                Err(BucketError::Gone { .. }) => {}
                Err(BucketError::Corrupt { key, reason }) => report_bad_object(tenant, &key, &reason),
                Err(error) => return Err(error),
            }
        }
        Ok(metas)
    }

    /// Reads a live block's `meta.json`.
    ///
    /// # Errors
    /// [`BucketError::Gone`] also when the block has been compacted.
    pub async fn meta(&self, tenant: &TenantId, block: BlockId) -> Result<BlockMeta, BucketError> {
        self.read_meta(tenant, block, objects::META).await
    }

    /// Reads a compacted block's `meta.compacted.json`.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn compacted_meta(&self, tenant: &TenantId, block: BlockId) -> Result<BlockMeta, BucketError> {
        self.read_meta(tenant, block, objects::META_COMPACTED).await
    }

    /// Whether the block carries `nocompact.flg`.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    pub async fn must_not_compact(&self, tenant: &TenantId, block: BlockId) -> Result<bool, BucketError> {
        let location = keys::object(tenant, block, objects::NO_COMPACT);
        match self.inner.store.head(&location).await.map_err(|e| BucketError::of_store("read", location.as_ref(), e)) {
            Ok(_) => Ok(true),
            Err(BucketError::Gone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn read_meta(&self, tenant: &TenantId, block: BlockId, name: &str) -> Result<BlockMeta, BucketError> {
        let location = keys::object(tenant, block, name);
        let meta = BlockMeta::from_json(&self.get(&location).await?, location.as_ref())?;
        if meta.block_id != block || meta.tenant_id != *tenant {
            let reason = format!("it describes block {} of tenant {}", meta.block_id, meta.tenant_id);
            return Err(BucketError::Corrupt { key: location.to_string(), reason });
        }
        Ok(meta)
    }

    /// Stores a finished block; `meta.json` is written last and makes it visible.
    ///
    /// `data` is uploaded in parts, a few at a time. When this fails the block is not visible, and storing it again
    /// under the same id is right.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn put_block(&self, meta: &BlockMeta, data: &FilePath, blooms: Vec<Vec<u8>>, index: Vec<u8>) -> Result<(), BucketError> {
        self.upload(data, &keys::object(&meta.tenant_id, meta.block_id, objects::DATA)).await?;
        self.finish_block(meta, &blooms, &index).await
    }

    async fn upload(&self, file_path: &FilePath, location: &Path) -> Result<(), BucketError> {
        let unreadable = |source| BucketError::LocalFile { path: file_path.display().to_string(), source };
        let mut file = tokio::fs::File::open(file_path).await.map_err(unreadable)?;
        let len = file.metadata().await.map_err(unreadable)?.len();
        let part = self.inner.part_bytes.max(len.div_ceil(PARTS_MAX));
        if len <= part {
            let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
            file.read_to_end(&mut bytes).await.map_err(unreadable)?;
            self.put(location, bytes.into()).await?;
        } else {
            let upload = self.begin_upload(location).await?;
            upload.of_file(file, usize::try_from(part).unwrap_or(usize::MAX), unreadable).await?;
        }
        metrics::counter!(WRITTEN_BYTES.name).increment(len);
        Ok(())
    }

    /// Begins an upload in parts.
    pub(crate) async fn begin_upload(&self, location: &Path) -> Result<Upload, BucketError> {
        let unwritten = |source| BucketError::of_store("write", location.as_ref(), source);
        let parts = self.inner.store.put_multipart(location).await.map_err(unwritten)?;
        Ok(Upload::new(parts, location.clone(), self.inner.runtime.clone()))
    }

    /// Marks a block as replaced: `meta.json` becomes `meta.compacted.json`, whose time is the time of compaction.
    ///
    /// Written anew on every backend, local disk too: a renamed file would keep the block's own age.
    ///
    /// # Errors
    /// [`BucketError::Gone`] when the block is not live.
    pub async fn mark_compacted(&self, tenant: &TenantId, block: BlockId) -> Result<(), BucketError> {
        let meta = keys::object(tenant, block, objects::META);
        let bytes = self.get(&meta).await?;
        self.put(&keys::object(tenant, block, objects::META_COMPACTED), bytes).await?;
        self.delete(&meta).await
    }

    /// Deletes all objects of a block. Its meta goes first when it is live, and last when it is compacted: so a deletion
    /// that was cut short is found again, and no listing shows a live block without data.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`]; call it again.
    pub async fn delete_block(&self, tenant: &TenantId, block: BlockId) -> Result<(), BucketError> {
        let locations = self.locations(&keys::block(tenant, block)).await?;
        let named = |l: &Path, name| l.filename() == Some(name);
        let (live, others): (Vec<Path>, Vec<Path>) = locations.into_iter().partition(|l| named(l, objects::META));
        let (compacted, parts): (Vec<Path>, Vec<Path>) = others.into_iter().partition(|l| named(l, objects::META_COMPACTED));
        for group in [live, parts, compacted] {
            self.delete_all(group).await?;
        }
        Ok(())
    }

    /// Deletes everything below a tenant's folder.
    pub(crate) async fn delete_tenant(&self, tenant: &TenantId) -> Result<(), BucketError> {
        self.delete_all(self.locations(&keys::tenant(tenant)).await?).await
    }

    async fn locations(&self, folder: &Path) -> Result<Vec<Path>, BucketError> {
        let listed = self.inner.store.list(Some(folder)).map_ok(|o| o.location).try_collect().await;
        listed.map_err(|e| BucketError::of_store("list", folder.as_ref(), e))
    }

    async fn delete_all(&self, locations: Vec<Path>) -> Result<(), BucketError> {
        let Some(first) = locations.first().map(Path::to_string) else { return Ok(()) };
        let mut deleted = self.inner.store.delete_stream(futures::stream::iter(locations.into_iter().map(Ok)).boxed());
        while let Some(result) = deleted.next().await {
            match result.map_err(|e| BucketError::of_store("delete", &first, e)) {
                Ok(_) | Err(BucketError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The block's `data.parquet`. Its reads block the calling thread: use it within `spawn_blocking` only.
    #[must_use]
    pub fn reader(&self, meta: &BlockMeta) -> Arc<dyn ReadAt> {
        let location = keys::object(&meta.tenant_id, meta.block_id, objects::DATA);
        let source = match &self.inner.local {
            Some(root) => Source::File { path: root.join(location.as_ref()), file: OnceLock::new() },
            None => Source::Object { store: self.inner.store.clone(), location, runtime: self.inner.runtime.clone() },
        };
        // A meta whose footer is larger than its file is wrong; the reader of the footer will say so.
        let tail_len = if meta.footer_bytes == 0 { 0 } else { u64::from(meta.footer_bytes) + 8 };
        Arc::new(DataFile {
            source,
            len: meta.size_bytes,
            tail_len: if tail_len > meta.size_bytes { 0 } else { tail_len },
            tails: self.inner.footers.clone(),
            cache_key: (meta.tenant_id.clone(), meta.block_id, meta.footer_bytes),
        })
    }

    /// Whether a trace may be in the block; false is certain. Reads one filter shard, or finds it in the cache.
    ///
    /// # Errors
    /// [`BucketError`]; without the filter nothing is known of the block.
    pub async fn bloom_may_contain(&self, meta: &BlockMeta, trace: TraceId) -> Result<bool, BucketError> {
        let shard = bloom::shard_of(trace, meta.bloom_shards);
        let cache_key = (meta.tenant_id.clone(), meta.block_id, shard);
        let location = keys::object(&meta.tenant_id, meta.block_id, &objects::bloom(shard));
        let bytes = match self.inner.blooms.get(&cache_key) {
            Some(bytes) => bytes,
            None => {
                let bytes = self.get(&location).await?;
                self.inner.blooms.put(cache_key, bytes.clone());
                bytes
            }
        };
        let filter =
            bloom::Shard::from_bytes(&bytes).map_err(|e| BucketError::Corrupt { key: location.to_string(), reason: e.to_string() })?;
        Ok(filter.may_contain(trace))
    }

    /// When one of a block's objects was written, by the bucket's clock, nanoseconds since the epoch; 0 where it does not say.
    ///
    /// # Errors
    /// [`BucketError::Gone`] when there is no such object.
    pub async fn written_unix_nanos(&self, tenant: &TenantId, block: BlockId, name: &str) -> Result<u64, BucketError> {
        let location = keys::object(tenant, block, name);
        let head = self.inner.store.head(&location).await.map_err(|e| BucketError::of_store("read", location.as_ref(), e))?;
        Ok(unix_nanos(&head))
    }

    /// The length of the block's `data.parquet` in the bucket, bytes, whatever its meta says.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn data_bytes(&self, tenant: &TenantId, block: BlockId) -> Result<u64, BucketError> {
        let location = keys::object(tenant, block, objects::DATA);
        let head = self.inner.store.head(&location).await.map_err(|e| BucketError::of_store("read", location.as_ref(), e))?;
        Ok(head.size)
    }

    /// One of a block's small objects, by its name from [`vivace_block::objects`]; none where there is no such object.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    pub async fn object(&self, tenant: &TenantId, block: BlockId, name: &str) -> Result<Option<Bytes>, BucketError> {
        match self.get(&keys::object(tenant, block, name)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BucketError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn get(&self, location: &Path) -> Result<Bytes, BucketError> {
        let unread = |e| BucketError::of_store("read", location.as_ref(), e);
        self.inner.store.get(location).await.map_err(unread)?.bytes().await.map_err(unread)
    }

    pub(crate) async fn put(&self, location: &Path, bytes: Bytes) -> Result<(), BucketError> {
        put(&self.inner.store, location, bytes).await
    }

    /// Writes what is made of other objects: after a power cut it may be gone or the old one.
    pub(crate) async fn put_derived(&self, location: &Path, bytes: Bytes) -> Result<(), BucketError> {
        put(&self.inner.derived, location, bytes).await
    }

    /// Deleting what is not there is no error.
    pub(crate) async fn delete(&self, location: &Path) -> Result<(), BucketError> {
        match self.inner.store.delete(location).await.map_err(|e| BucketError::of_store("delete", location.as_ref(), e)) {
            Ok(()) | Err(BucketError::Gone { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

async fn put(store: &Arc<dyn ObjectStore>, location: &Path, bytes: Bytes) -> Result<(), BucketError> {
    match store.put(location, bytes.into()).await {
        Ok(_) => Ok(()),
        Err(source) => Err(BucketError::of_store("write", location.as_ref(), source)),
    }
}

/// When an object was written, nanoseconds since the epoch; 0 is unknown.
fn unix_nanos(object: &ObjectMeta) -> u64 {
    object.last_modified.timestamp_nanos_opt().and_then(|t| u64::try_from(t).ok()).unwrap_or_default()
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.name)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.inner.name)
    }
}
