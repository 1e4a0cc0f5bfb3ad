//! Finds out which blocks there are. Compactors list their tenants and write indexes; the others read these, and list for
//! themselves, if they may, once per tenant after their start and where an index cannot be used. A tenant that fails keeps its
//! old list and holds up no other.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use vivace_block::BlockMeta;
use vivace_config::TraceStorage;
use vivace_core::{BlockId, TenantId};

use crate::blocklist::{Blocklist, TenantBlocks, nanos};
use crate::indexes::Indexes;
use crate::listing::{ListedBlock, Listing};
use crate::metrics::{
    BACKEND_BYTES, BACKEND_OBJECTS, BLOCKLIST_LENGTH, INDEX_AGE, INDEX_BUILDER, INDEX_ERRORS, POLL_DURATION, POLL_ERRORS,
};
use crate::tenant_index::{CompactedBlock, TenantIndex};
use crate::times::believable;
use crate::{Bucket, BucketError, report_bad_object};

/// A tenant that is asked for and unknown is looked up in the bucket at most this often.
const UNKNOWN_TENANT_INTERVAL: Duration = Duration::from_secs(10);

/// How long before its date the listing of a tenant index is taken to have begun at most, where that only costs work.
const LISTING_MAX: Duration = Duration::from_secs(60);

/// How long the first look at the bucket, which makes a process ready, waits for listings that only refine what tenant
/// indexes say. The listings of very large tenants go on behind it.
const REFINING_WAIT: Duration = Duration::from_secs(5);

/// Tenants polled at once where that is not configured: thousands of small tenants then take seconds, not minutes, over a
/// bucket that answers within some ten milliseconds.
const TENANTS_AT_ONCE: usize = 32;

/// Tenants that fail are named in the log until there are so many in one poll: a bucket that is away fails all.
const NAMED_MAX: usize = 10;

/// Looks at unknown tenants are remembered until so many have gathered, and then the old ones forgotten.
const LOOKS_MAX: usize = 1024;

/// How the bucket is polled: `storage.trace.blocklist_poll*`.
#[derive(Debug, Clone, PartialEq)]
pub struct PollOptions {
    /// Pause between polls.
    pub interval: Duration,
    /// Metas read at once, of all tenants together.
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
    /// What bounds the metas that are read at once.
    reading: Semaphore,
    indexes: Indexes,
    /// One poll at a time.
    polling: tokio::sync::Mutex<()>,
    /// When unknown tenants were last looked up.
    looks: Mutex<FxHashMap<TenantId, Look>>,
    /// Tenants that this process has listed once, with the date of the index that was there then. From there on their
    /// indexes are current enough.
    listed: Mutex<FxHashMap<TenantId, u64>>,
}

/// A look at one tenant, which all who ask for it meanwhile wait for.
struct Look {
    begun_unix_nanos: u64,
    done: Arc<OnceCell<()>>,
}

/// What a look at a tenant came to.
struct Seen {
    origin: Origin,
    /// What an index written now would say, of tenants that this process builds the index of.
    index: Option<(TenantIndex, Listing)>,
}

/// Where a tenant's list came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// With its date.
    Index(u64),
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
            concurrency: config.blocklist_poll_concurrency,
            tenant_concurrency: if config.blocklist_poll_tenant_concurrency == 0 {
                TENANTS_AT_ONCE
            } else {
                config.blocklist_poll_tenant_concurrency
            },
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
        let inner = Inner {
            reading: Semaphore::new(options.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            indexes: Indexes::new(bucket.clone(), options.empty_tenant_deletion_age),
            bucket,
            list,
            options,
            builds,
            polling: Default::default(),
            looks: Default::default(),
            listed: Default::default(),
        };
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
    /// after [`REFINING_WAIT`]. Only then are indexes written: they are for others.
    ///
    /// # Errors
    /// [`BucketError`] when the tenants cannot be listed.
    pub async fn poll_once(&self) -> Result<PollReport, BucketError> {
        let _one = self.inner.polling.lock().await;
        let (begun, begun_unix_nanos) = (Instant::now(), self.inner.list.now());
        let tenants = self.inner.bucket.tenants().await?;
        let mut there: FxHashSet<TenantId> = tenants.iter().cloned().collect();
        let at_once = self.inner.options.tenant_concurrency;
        let mut results = futures::stream::iter(tenants)
            .map(|tenant| async move {
                let result = self.poll_with_retries(&tenant).await;
                (tenant, result)
            })
            .buffer_unordered(at_once);
        let mut report = PollReport::default();
        let (mut by_index, mut indexes) = (Vec::new(), Vec::new());
        while let Some((tenant, result)) = results.next().await {
            match result {
                Ok(seen) => {
                    if let Origin::Index(date) = seen.origin {
                        by_index.push((tenant.clone(), date));
                    }
                    indexes.extend(seen.index.map(|(index, listing)| (tenant.clone(), index, listing)));
                    report.polled.push(tenant);
                }
                Err(error) => {
                    if report.failed.len() < NAMED_MAX {
                        tracing::error!(%tenant, error = &error as &dyn std::error::Error, "could not poll the tenant's blocks; its old list stays");
                    }
                    self.inner.list.failed(&tenant, error.to_string());
                    report.failed.push((tenant, error));
                }
            }
        }
        if report.failed.len() > NAMED_MAX {
            let (failed, polled) = (report.failed.len(), report.polled.len());
            tracing::error!(failed, polled, "could not poll the blocks of many tenants; the first of them are named above");
        }
        let mut refining = pin!(self.refine(by_index));
        let refined = tokio::time::timeout(REFINING_WAIT, refining.as_mut()).await;
        // Those that came while this poll went on, and were asked for.
        there.extend(self.inner.looks.lock().iter().filter(|(_, l)| l.begun_unix_nanos >= begun_unix_nanos).map(|(t, _)| t.clone()));
        self.inner.listed.lock().retain(|tenant, _| there.contains(tenant));
        self.inner.list.poll_ended(&there);
        if refined.is_err() {
            refining.await;
        }
        self.inner.indexes.retain(&there);
        let now = self.inner.list.now();
        let write = async |(tenant, index, listing): (TenantId, TenantIndex, Listing)| {
            self.inner.indexes.update(&tenant, &index, &listing, now).await;
        };
        futures::stream::iter(indexes).for_each_concurrent(at_once, write).await;
        metrics::histogram!(POLL_DURATION.name).record(begun.elapsed().as_secs_f64());
        Ok(report)
    }

    /// Looks a tenant up at once if no poll has seen it yet, so that its first query finds what is stored. It waits for no
    /// other tenant; all who ask for the same one wait for one look.
    ///
    /// # Errors
    /// [`PollError`]; the next to ask tries again.
    pub async fn ensure(&self, tenant: &TenantId) -> Result<(), PollError> {
        if self.inner.list.blocks(tenant).is_some() {
            return Ok(());
        }
        let done = self.look(tenant);
        done.get_or_try_init(|| async {
            let seen = self.poll_tenant(tenant).await?;
            if let Origin::Index(date) = seen.origin {
                self.refine(vec![(tenant.clone(), date)]).await;
            }
            Ok(())
        })
        .await
        .copied()
    }

    /// The look at a tenant that is going on or was finished lately, else a new one.
    fn look(&self, tenant: &TenantId) -> Arc<OnceCell<()>> {
        let begun_unix_nanos = self.inner.list.now();
        let interval = nanos(UNKNOWN_TENANT_INTERVAL);
        let is_recent = |look: &Look| begun_unix_nanos.abs_diff(look.begun_unix_nanos) < interval;
        let mut looks = self.inner.looks.lock();
        if looks.len() > LOOKS_MAX {
            looks.retain(|_, look| is_recent(look));
        }
        if let Some(look) = looks.get(tenant).filter(|look| is_recent(look)) {
            return look.done.clone();
        }
        let done = Arc::default();
        looks.insert(tenant.clone(), Look { begun_unix_nanos, done: Arc::clone(&done) });
        done
    }

    /// Lists those of the tenants that this process has not listed yet. One that cannot be listed keeps the list of its
    /// index until the next poll tries again.
    async fn refine(&self, mut tenants: Vec<(TenantId, u64)>) {
        if !self.inner.options.fallback {
            return;
        }
        tenants.retain(|(tenant, _)| !self.inner.listed.lock().contains_key(tenant));
        let failed = AtomicUsize::new(0);
        let list = async |(tenant, index_date): (TenantId, u64)| {
            if let Err(error) = self.list_tenant(&tenant, false, index_date).await {
                metrics::counter!(POLL_ERRORS.name, "tenant" => tenant.to_string()).increment(1);
                if failed.fetch_add(1, Ordering::Relaxed) >= NAMED_MAX {
                    return;
                }
                tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "could not list the tenant's blocks; those newer than its index are missing");
            }
        };
        futures::stream::iter(tenants).for_each_concurrent(self.inner.options.tenant_concurrency, list).await;
    }

    async fn poll_with_retries(&self, tenant: &TenantId) -> Result<Seen, PollError> {
        let jitter = self.inner.options.jitter;
        if !jitter.is_zero() {
            tokio::time::sleep(jitter.mul_f64(rand::random())).await;
        }
        let mut tries = 0;
        loop {
            match self.poll_tenant(tenant).await {
                Ok(seen) => return Ok(seen),
                Err(error) => {
                    metrics::counter!(POLL_ERRORS.name, "tenant" => tenant.to_string()).increment(1);
                    tries += 1;
                    if tries > self.inner.options.retries {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn poll_tenant(&self, tenant: &TenantId) -> Result<Seen, PollError> {
        let builds = (self.inner.builds)(tenant);
        metrics::gauge!(INDEX_BUILDER.name, "tenant" => tenant.to_string()).set(f64::from(u8::from(builds)));
        if !builds {
            match self.read_index(tenant).await {
                Ok(index) => {
                    let origin = Origin::Index(index.created_unix_nanos);
                    self.take_index(tenant, index);
                    return Ok(Seen { origin, index: None });
                }
                Err(error) if !self.inner.options.fallback => return Err(error),
                Err(PollError::Bucket(BucketError::Gone { .. })) => {}
                Err(error) => {
                    tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "listing the tenant's blocks, as its index cannot be used");
                }
            }
        }
        let index = self.list_tenant(tenant, builds, 0).await?;
        Ok(Seen { origin: Origin::Listing, index: builds.then_some(index) })
    }

    /// `index_date` is the date of the index that was read before; 0: none was.
    async fn list_tenant(&self, tenant: &TenantId, builds: bool, index_date: u64) -> Result<(TenantIndex, Listing), PollError> {
        let as_of = self.inner.list.now();
        let known = match self.inner.list.blocks(tenant) {
            Some(blocks) => blocks,
            // At the first look: metas never change, so what an index says of a block need not be read from the block.
            None if builds => self.inner.indexes.last(tenant).await,
            None => TenantBlocks::default(),
        };
        let listing = self.inner.bucket.list(tenant).await?;
        let index = self.read_metas(tenant, &listing, known, as_of).await?;
        // Who asked for the tenant meanwhile may have seen it later than this.
        let since = self.inner.list.blocks(tenant).map_or(0, |blocks| blocks.listed_unix_nanos.saturating_sub(as_of));
        if since == 0 || since > nanos(LISTING_MAX) {
            self.take(tenant, &index, as_of, as_of);
        }
        self.inner.listed.lock().entry(tenant.clone()).or_insert(index_date);
        Ok((index, listing))
    }

    fn take_index(&self, tenant: &TenantId, index: TenantIndex) {
        let created = index.created_unix_nanos;
        let interval = nanos(self.inner.list.poll_interval());
        let known = self.inner.list.blocks(tenant).map_or(0, |blocks| blocks.listed_unix_nanos);
        let mut listed = self.inner.listed.lock();
        let is_last = listed.get(tenant) == Some(&created);
        // The index is dated by its builder's clock. Where that is far from this process' it says nothing of what is older.
        let is_before = created < known && known - created < interval.saturating_mul(2);
        if is_last || is_before {
            tracing::debug!(%tenant, "the tenant's index is older than what is known of its blocks");
            return;
        }
        if let Some(last) = listed.get_mut(tenant) {
            *last = created;
        }
        drop(listed);
        // The index may have been written by a poll that began one interval before its date.
        let as_of = created.saturating_sub(interval);
        self.take(tenant, &index, as_of, created.saturating_sub(nanos(LISTING_MAX)));
    }

    fn take(&self, tenant: &TenantId, index: &TenantIndex, as_of_unix_nanos: u64, listed_unix_nanos: u64) {
        let name = tenant.to_string();
        metrics::gauge!(BLOCKLIST_LENGTH.name, "tenant" => name.clone()).set(index.live.len() as f64);
        let sums = |metas: &mut dyn Iterator<Item = &BlockMeta>| {
            metas.fold((0u64, 0u64), |(n, b), m| (n.saturating_add(m.total_objects), b.saturating_add(m.size_bytes)))
        };
        let states = [("live", sums(&mut index.live.iter())), ("compacted", sums(&mut index.compacted.iter().map(|b| &b.meta)))];
        for (status, (objects, bytes)) in states {
            metrics::gauge!(BACKEND_OBJECTS.name, "tenant" => name.clone(), "status" => status).set(objects as f64);
            metrics::gauge!(BACKEND_BYTES.name, "tenant" => name.clone(), "status" => status).set(bytes as f64);
        }
        let blocks = TenantBlocks { live: index.live.clone(), compacted: index.compacted.clone(), listed_unix_nanos };
        self.inner.list.polled(tenant, blocks, as_of_unix_nanos);
    }

    async fn read_index(&self, tenant: &TenantId) -> Result<TenantIndex, PollError> {
        let index = match self.inner.indexes.read(tenant).await {
            Ok(index) => index,
            Err(error) => {
                if !matches!(error, BucketError::Gone { .. }) {
                    metrics::counter!(INDEX_ERRORS.name, "tenant" => tenant.to_string()).increment(1);
                }
                return Err(error.into());
            }
        };
        let age = self.inner.list.now().saturating_sub(index.created_unix_nanos);
        metrics::gauge!(INDEX_AGE.name, "tenant" => tenant.to_string()).set(age as f64 / 1e9);
        let limit = self.inner.options.stale_index_age;
        if !limit.is_zero() && age > nanos(limit) {
            metrics::counter!(INDEX_ERRORS.name, "tenant" => tenant.to_string()).increment(1);
            let (age_seconds, limit_seconds) = (age / 1_000_000_000, limit.as_secs());
            return Err(PollError::Stale { tenant: tenant.clone(), age_seconds, limit_seconds });
        }
        Ok(index)
    }

    /// The metas of the listed blocks: known ones from memory, others from the bucket. What cannot be used is skipped,
    /// counted and named.
    async fn read_metas(&self, tenant: &TenantId, listing: &Listing, known: TenantBlocks, now: u64) -> Result<TenantIndex, BucketError> {
        if let Some(example) = &listing.foreign_example {
            let reason = format!("it belongs to no block, like {} objects of this tenant", listing.foreign_objects);
            report_bad_object(tenant, example, &reason);
        }
        listing.unreadable.iter().for_each(|(name, why)| report_bad_object(tenant, name, why));
        let mut metas: FxHashMap<BlockId, &BlockMeta> = known.live.iter().map(|m| (m.block_id, m)).collect();
        metas.extend(known.compacted.iter().map(|b| (b.meta.block_id, &b.meta)));
        let (mut live, mut compacted) = (Vec::new(), Vec::new());
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
            .buffered(self.inner.options.concurrency.max(1));
        while let Some(block) = read.try_next().await? {
            let block = block.map(|(mut meta, time)| {
                believable(&mut meta);
                (meta, time)
            });
            match block {
                Some((meta, None)) => live.push(meta),
                Some((meta, Some(compacted_unix_nanos))) => compacted.push(CompactedBlock { meta, compacted_unix_nanos }),
                None => {}
            }
        }
        Ok(TenantIndex { created_unix_nanos: now, live: Arc::new(live), compacted: Arc::new(compacted) })
    }

    async fn read_meta(&self, tenant: &TenantId, block: &ListedBlock) -> Result<Option<(BlockMeta, Option<u64>)>, BucketError> {
        let bucket = &self.inner.bucket;
        // Never closed.
        let _permit = self.inner.reading.acquire().await.ok();
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
                metrics::counter!(POLL_ERRORS.name, "tenant" => tenant.to_string()).increment(1);
                report_bad_object(tenant, &key, &reason);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
