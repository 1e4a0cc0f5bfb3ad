use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;
use vivace_block::BlockMeta;
use vivace_config::TraceStorage;
use vivace_core::{BlockId, TenantId};

use crate::blocklist::{Blocklist, TenantBlocks, nanos};
use crate::bucket::{Bucket, ListedBlock, Listing, report_bad_object};
use crate::tenant_index::{CompactedBlock, TenantIndex};
use crate::{BucketError, keys};

/// A tenant that is asked for and unknown is looked up in the bucket at most this often.
const UNKNOWN_TENANT_INTERVAL: Duration = Duration::from_secs(10);

/// How long before its date the listing of a tenant index is taken to have begun at most, where that only costs work.
const LISTING_MAX: Duration = Duration::from_secs(60);

/// How long the first look at the bucket, which makes a process ready, waits for listings that only refine what tenant
/// indexes say. The listings of very large tenants go on behind it.
const REFINING_WAIT: Duration = Duration::from_secs(5);

/// How the bucket is polled: `storage.trace.blocklist_poll*`.
#[derive(Debug, Clone, PartialEq)]
pub struct PollOptions {
    /// Pause between polls.
    pub interval: Duration,
    /// Metas read at once, per tenant.
    pub concurrency: usize,
    /// Tenants polled at once.
    pub tenant_concurrency: usize,
    /// Whether a reader lists blocks itself when it cannot use a tenant's index.
    pub fallback: bool,
    /// Age at which an index is not used; zero: never.
    pub stale_index_age: Duration,
    /// Longest random wait before a tenant is polled.
    pub jitter: Duration,
    /// Further tries for a tenant within one poll.
    pub retries: usize,
    /// Age at which what is left of a tenant without blocks is deleted; none: never.
    pub empty_tenant_deletion_age: Option<Duration>,
}

/// Keeps a [`Blocklist`] up to date.
#[derive(Clone)]
pub struct Poller {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: Bucket,
    list: Blocklist,
    options: PollOptions,
    builds: Box<dyn Fn(&TenantId) -> bool + Send + Sync>,
    /// One poll at a time.
    polling: tokio::sync::Mutex<()>,
    /// When unknown tenants were last looked up.
    asked: Mutex<FxHashMap<TenantId, u64>>,
    /// Tenants that this process has listed once. From there on their indexes are current enough.
    listed: Mutex<FxHashSet<TenantId>>,
}

/// Where a tenant's list came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Index,
    Listing,
}

/// What a poll came to.
#[derive(Debug, Default)]
pub struct PollReport {
    /// Tenants whose list is current.
    pub polled: Vec<TenantId>,
    /// Tenants that kept their old list, and why.
    pub failed: Vec<(TenantId, PollError)>,
}

/// Why a tenant's blocks could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The index is old, and falling back to a listing is switched off.
    #[error("the index of tenant {tenant} is {age_seconds} s old, more than the {limit_seconds} s of blocklist_poll_stale_tenant_index")]
    Stale {
        /// Whose index.
        tenant: TenantId,
        /// Its age.
        age_seconds: u64,
        /// The setting.
        limit_seconds: u64,
    },
}

impl From<&TraceStorage> for PollOptions {
    fn from(config: &TraceStorage) -> Self {
        let or = |value: Duration, default: Duration| if value.is_zero() { default } else { value };
        Self {
            interval: or(config.blocklist_poll, Duration::from_secs(300)),
            concurrency: if config.blocklist_poll_concurrency == 0 { 50 } else { config.blocklist_poll_concurrency },
            tenant_concurrency: config.blocklist_poll_tenant_concurrency.max(1),
            fallback: config.blocklist_poll_fallback,
            stale_index_age: config.blocklist_poll_stale_tenant_index,
            jitter: Duration::from_millis(config.blocklist_poll_jitter_ms),
            retries: config.blocklist_poll_tolerate_consecutive_errors,
            empty_tenant_deletion_age: config
                .empty_tenant_deletion_enabled
                .then(|| or(config.empty_tenant_deletion_age, Duration::from_secs(12 * 3600))),
        }
    }
}

impl Poller {
    /// For processes that only read: takes tenant indexes, and falls back to listing when that is allowed.
    #[must_use]
    pub fn reader(bucket: Bucket, options: PollOptions, clock: fn() -> u64) -> Self {
        Self::builder(bucket, options, clock, |_| false)
    }

    /// For compactors: lists the tenants that `builds` names and writes their indexes.
    #[must_use]
    pub fn builder(
        bucket: Bucket,
        options: PollOptions,
        clock: fn() -> u64,
        builds: impl Fn(&TenantId) -> bool + Send + Sync + 'static,
    ) -> Self {
        let list = Blocklist::new(options.interval, clock);
        let builds = Box::new(builds);
        let inner =
            Inner { bucket, list, options, builds, polling: Default::default(), asked: Default::default(), listed: Default::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The list that is kept up to date.
    #[must_use]
    pub fn blocklist(&self) -> Blocklist {
        self.inner.list.clone()
    }

    /// Polls now and then once per interval, until stopped. Failures are logged and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.inner.options.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                result = self.poll_once() => if let Err(error) = result {
                    tracing::error!(bucket = %self.inner.bucket, error = &error as &dyn std::error::Error, "could not list the tenants; the old block lists stay");
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks at the whole bucket. A tenant that fails keeps its old list; it is logged and counted.
    ///
    /// Tenants that this process has not listed yet are listed after their indexes were taken: an index may be as old as a
    /// poll interval, and whoever answered for newer blocks may be gone. The list counts as polled once that is done too, or
    /// after [`REFINING_WAIT`].
    ///
    /// # Errors
    /// [`BucketError`] when the tenants cannot be listed.
    pub async fn poll_once(&self) -> Result<PollReport, BucketError> {
        let _one = self.inner.polling.lock().await;
        let begun = Instant::now();
        let tenants = self.inner.bucket.tenants().await?;
        let results: Vec<(TenantId, Result<Origin, PollError>)> = futures::stream::iter(tenants.clone())
            .map(|tenant| async move {
                let result = self.poll_with_retries(&tenant).await;
                (tenant, result)
            })
            .buffer_unordered(self.inner.options.tenant_concurrency)
            .collect()
            .await;
        let mut report = PollReport::default();
        let mut by_index = Vec::new();
        for (tenant, result) in results {
            match result {
                Ok(origin) => {
                    if origin == Origin::Index {
                        by_index.push(tenant.clone());
                    }
                    report.polled.push(tenant);
                }
                Err(error) => {
                    tracing::error!(%tenant, error = &error as &dyn std::error::Error, "could not poll the tenant's blocks; its old list stays");
                    report.failed.push((tenant, error));
                }
            }
        }
        self.inner.listed.lock().retain(|tenant| tenants.contains(tenant));
        let mut refining = pin!(self.refine(by_index));
        let refined = tokio::time::timeout(REFINING_WAIT, refining.as_mut()).await;
        self.inner.list.poll_ended(&tenants);
        if refined.is_err() {
            refining.await;
        }
        metrics::histogram!("tempodb_blocklist_poll_duration_seconds").record(begun.elapsed().as_secs_f64());
        Ok(report)
    }

    /// Looks a tenant up at once if no poll has seen it yet, so that its first query finds what is stored.
    ///
    /// # Errors
    /// [`PollError`].
    pub async fn ensure(&self, tenant: &TenantId) -> Result<(), PollError> {
        if self.inner.list.snapshot().tenants.contains_key(tenant) {
            return Ok(());
        }
        let _one = self.inner.polling.lock().await;
        let now = self.inner.list.now();
        {
            let mut asked = self.inner.asked.lock();
            let interval = nanos(UNKNOWN_TENANT_INTERVAL);
            asked.retain(|_, at| now.saturating_sub(*at) < interval);
            if asked.insert(tenant.clone(), now).is_some() {
                return Ok(());
            }
        }
        if self.inner.list.snapshot().tenants.contains_key(tenant) {
            return Ok(());
        }
        if self.poll_tenant(tenant).await? == Origin::Index {
            self.refine(vec![tenant.clone()]).await;
        }
        Ok(())
    }

    /// Lists those of the tenants that this process has not listed yet. One that cannot be listed keeps the list of its
    /// index until the next poll tries again.
    async fn refine(&self, mut tenants: Vec<TenantId>) {
        if !self.inner.options.fallback {
            return;
        }
        tenants.retain(|tenant| !self.inner.listed.lock().contains(tenant));
        let list = async |tenant: TenantId| {
            if let Err(error) = self.list_tenant(&tenant, false).await {
                metrics::counter!("tempodb_blocklist_poll_errors_total", "tenant" => tenant.to_string()).increment(1);
                tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "could not list the tenant's blocks; those newer than its index are missing");
            }
        };
        futures::stream::iter(tenants).for_each_concurrent(self.inner.options.tenant_concurrency, list).await;
    }

    async fn poll_with_retries(&self, tenant: &TenantId) -> Result<Origin, PollError> {
        let jitter = self.inner.options.jitter;
        if !jitter.is_zero() {
            tokio::time::sleep(jitter.mul_f64(rand::random())).await;
        }
        let mut tries = 0;
        loop {
            match self.poll_tenant(tenant).await {
                Ok(origin) => return Ok(origin),
                Err(error) => {
                    metrics::counter!("tempodb_blocklist_poll_errors_total", "tenant" => tenant.to_string()).increment(1);
                    tries += 1;
                    if tries > self.inner.options.retries {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn poll_tenant(&self, tenant: &TenantId) -> Result<Origin, PollError> {
        let builds = (self.inner.builds)(tenant);
        metrics::gauge!("tempodb_blocklist_tenant_index_builder", "tenant" => tenant.to_string()).set(f64::from(u8::from(builds)));
        if !builds {
            match self.read_index(tenant).await {
                Ok(index) => {
                    self.take_index(tenant, index);
                    return Ok(Origin::Index);
                }
                Err(error) if !self.inner.options.fallback => return Err(error),
                Err(PollError::Bucket(BucketError::Gone { .. })) => {}
                Err(error) => {
                    tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "listing the tenant's blocks, as its index cannot be used");
                }
            }
        }
        self.list_tenant(tenant, builds).await?;
        Ok(Origin::Listing)
    }

    async fn list_tenant(&self, tenant: &TenantId, builds: bool) -> Result<(), PollError> {
        let as_of = self.inner.list.now();
        let listing = self.inner.bucket.list(tenant).await?;
        let index = self.read_metas(tenant, &listing, as_of).await?;
        if builds {
            self.write_index(tenant, &index, &listing).await;
        }
        self.take(tenant, index.live, index.compacted, as_of, as_of);
        self.inner.listed.lock().insert(tenant.clone());
        Ok(())
    }

    fn take_index(&self, tenant: &TenantId, index: TenantIndex) {
        let created = index.created_unix_nanos;
        let known = self.inner.list.snapshot().tenants.get(tenant).map_or(0, |blocks| blocks.listed_unix_nanos);
        if created < known {
            tracing::debug!(%tenant, "the tenant's index is older than what is known of its blocks");
            return;
        }
        // The index may have been written by a poll that began one interval before its date.
        let as_of = created.saturating_sub(nanos(self.inner.list.poll_interval()));
        self.take(tenant, index.live, index.compacted, as_of, created.saturating_sub(nanos(LISTING_MAX)));
    }

    fn take(&self, tenant: &TenantId, live: Vec<BlockMeta>, compacted: Vec<CompactedBlock>, as_of_unix_nanos: u64, listed_unix_nanos: u64) {
        let name = tenant.to_string();
        metrics::gauge!("tempodb_blocklist_length", "tenant" => name.clone()).set(live.len() as f64);
        let sums = |metas: &mut dyn Iterator<Item = &BlockMeta>| metas.fold((0, 0), |(n, b), m| (n + m.total_objects, b + m.size_bytes));
        let states = [("live", sums(&mut live.iter())), ("compacted", sums(&mut compacted.iter().map(|b| &b.meta)))];
        for (status, (objects, bytes)) in states {
            metrics::gauge!("tempodb_backend_objects_total", "tenant" => name.clone(), "status" => status).set(objects as f64);
            metrics::gauge!("tempodb_backend_bytes_total", "tenant" => name.clone(), "status" => status).set(bytes as f64);
        }
        let blocks = TenantBlocks { live: Arc::new(live), compacted: Arc::new(compacted), listed_unix_nanos };
        self.inner.list.polled(tenant, blocks, as_of_unix_nanos);
    }

    async fn read_index(&self, tenant: &TenantId) -> Result<TenantIndex, PollError> {
        let result = self.read_either_index(tenant).await;
        let index = match result {
            Ok(index) => index,
            Err(error) => {
                if !matches!(error, BucketError::Gone { .. }) {
                    metrics::counter!("tempodb_blocklist_tenant_index_errors_total", "tenant" => tenant.to_string()).increment(1);
                }
                return Err(error.into());
            }
        };
        let age = self.inner.list.now().saturating_sub(index.created_unix_nanos);
        metrics::gauge!("tempodb_blocklist_tenant_index_age_seconds", "tenant" => tenant.to_string()).set(age as f64 / 1e9);
        let limit = self.inner.options.stale_index_age;
        if !limit.is_zero() && age > nanos(limit) {
            metrics::counter!("tempodb_blocklist_tenant_index_errors_total", "tenant" => tenant.to_string()).increment(1);
            let (age_seconds, limit_seconds) = (age / 1_000_000_000, limit.as_secs());
            return Err(PollError::Stale { tenant: tenant.clone(), age_seconds, limit_seconds });
        }
        Ok(index)
    }

    async fn read_either_index(&self, tenant: &TenantId) -> Result<TenantIndex, BucketError> {
        let protobuf = keys::of_tenant(tenant, keys::INDEX_PROTOBUF);
        let json = keys::of_tenant(tenant, keys::INDEX_JSON);
        let (location, bytes) = match self.inner.bucket.get(&protobuf).await {
            Ok(bytes) => (&protobuf, bytes),
            Err(BucketError::Gone { .. }) => (&json, self.inner.bucket.get(&json).await?),
            Err(error) => return Err(error),
        };
        let bad = |reason: &str| report_bad_object(tenant, location.as_ref(), reason);
        let read = if location == &protobuf { TenantIndex::from_protobuf(&bytes, bad) } else { TenantIndex::from_json(&bytes, bad) };
        read.map_err(|reason| BucketError::Corrupt { key: location.to_string(), reason })
    }

    /// The metas of the listed blocks: known ones from memory, others from the bucket. What cannot be used is skipped,
    /// counted and named.
    async fn read_metas(&self, tenant: &TenantId, listing: &Listing, now: u64) -> Result<TenantIndex, BucketError> {
        if let Some(example) = &listing.foreign_example {
            let reason = format!("it belongs to no block, like {} objects of this tenant", listing.foreign_objects);
            report_bad_object(tenant, example, &reason);
        }
        let known = self.inner.list.snapshot().tenants.get(tenant).cloned().unwrap_or_default();
        let mut metas: FxHashMap<BlockId, &BlockMeta> = known.live.iter().map(|m| (m.block_id, m)).collect();
        metas.extend(known.compacted.iter().map(|b| (b.meta.block_id, &b.meta)));
        let mut index = TenantIndex { created_unix_nanos: now, ..TenantIndex::default() };
        // By index: with references as items, the compiler cannot see that a poll is Send.
        let mut read = futures::stream::iter(0..listing.blocks.len())
            .map(|index| {
                let block = &listing.blocks[index];
                let known = metas.get(&block.id).map(|meta| (*meta).clone());
                async move {
                    match known {
                        Some(meta) => Ok(Some((meta, block.compacted_unix_nanos))),
                        None => self.read_meta(tenant, block).await,
                    }
                }
            })
            .buffered(self.inner.options.concurrency);
        while let Some(block) = read.try_next().await? {
            match block {
                Some((meta, None)) => index.live.push(meta),
                Some((meta, Some(compacted_unix_nanos))) => index.compacted.push(CompactedBlock { meta, compacted_unix_nanos }),
                None => {}
            }
        }
        Ok(index)
    }

    async fn read_meta(&self, tenant: &TenantId, block: &ListedBlock) -> Result<Option<(BlockMeta, Option<u64>)>, BucketError> {
        let bucket = &self.inner.bucket;
        let read = match block.compacted_unix_nanos {
            None => match bucket.meta(tenant, block.id).await {
                // Compacted since the listing.
                Err(BucketError::Gone { .. }) => bucket.compacted_meta(tenant, block.id).await.map(|m| (m, Some(self.inner.list.now()))),
                meta => meta.map(|m| (m, None)),
            },
            time => bucket.compacted_meta(tenant, block.id).await.map(|m| (m, time)),
        };
        match read {
            Ok(block) => Ok(Some(block)),
            Err(BucketError::Gone { .. }) => Ok(None),
            Err(BucketError::Corrupt { key, reason }) => {
                metrics::counter!("tempodb_blocklist_poll_errors_total", "tenant" => tenant.to_string()).increment(1);
                report_bad_object(tenant, &key, &reason);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Failing here costs readers a listing; it does not fail the poll.
    async fn write_index(&self, tenant: &TenantId, index: &TenantIndex, listing: &Listing) {
        let bucket = &self.inner.bucket;
        let (protobuf, json) = (keys::of_tenant(tenant, keys::INDEX_PROTOBUF), keys::of_tenant(tenant, keys::INDEX_JSON));
        let result = async {
            if index.live.is_empty() && index.compacted.is_empty() {
                if listing.has_index {
                    bucket.delete(&protobuf).await?;
                    bucket.delete(&json).await?;
                }
                return self.delete_leftovers(tenant, listing).await;
            }
            bucket.put(&protobuf, index.to_protobuf().into()).await?;
            bucket.put(&json, index.to_json().into()).await
        };
        if let Err(error) = result.await {
            metrics::counter!("tempodb_blocklist_tenant_index_errors_total", "tenant" => tenant.to_string()).increment(1);
            tracing::error!(%tenant, error = &error as &dyn std::error::Error, "could not write the tenant's index");
        }
    }

    /// Deletes what remains of a tenant without blocks once nothing in it is young.
    async fn delete_leftovers(&self, tenant: &TenantId, listing: &Listing) -> Result<(), BucketError> {
        let Some(age) = self.inner.options.empty_tenant_deletion_age else { return Ok(()) };
        if !listing.blocks.is_empty() || self.inner.list.now().saturating_sub(listing.newest_unix_nanos) < nanos(age) {
            return Ok(());
        }
        tracing::info!(%tenant, "deleting what is left of a tenant without blocks");
        self.inner.bucket.delete_tenant(tenant).await
    }
}
