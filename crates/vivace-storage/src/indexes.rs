//! Tenants' indexes as objects: read in either form, written in both. What an index says seldom changes, so it is written when it
//! would say something new, and else only so often that readers can tell somebody looks after it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use vivace_core::TenantId;

use crate::blocklist::{TenantBlocks, nanos};
use crate::listing::Listing;
use crate::metrics::INDEX_ERRORS;
use crate::tenant_index::TenantIndex;
use crate::times::believable;
use crate::{Bucket, BucketError, keys, report_bad_object};

/// An index that would say the same is written again at this age, so that readers see that somebody looks after it: above
/// ten minutes the usual alert speaks up.
const PROTOBUF_AGE_MAX: Duration = Duration::from_secs(240);

/// The same for the second form, which is read where the first is missing.
const JSON_AGE_MAX: Duration = Duration::from_secs(3600);

/// The tenants' indexes in the bucket, and what is known of them.
pub(crate) struct Indexes {
    bucket: Bucket,
    /// Age at which what is left of a tenant without blocks is deleted; none: never.
    empty_tenant_deletion_age: Option<Duration>,
    written: Mutex<FxHashMap<TenantId, Written>>,
}

/// What lies in the bucket as far as this process knows.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// Of the blocks in the index, see [`content`].
    content: u64,
    protobuf_unix_nanos: u64,
    /// 0: not known.
    json_unix_nanos: u64,
}

impl Indexes {
    pub(crate) fn new(bucket: Bucket, empty_tenant_deletion_age: Option<Duration>) -> Self {
        Self { bucket, empty_tenant_deletion_age, written: Mutex::default() }
    }

    /// A tenant's index: the protobuf form, or JSON where there is no such.
    ///
    /// # Errors
    /// [`BucketError`]
    pub(crate) async fn read(&self, tenant: &TenantId) -> Result<TenantIndex, BucketError> {
        let protobuf = keys::of_tenant(tenant, keys::INDEX_PROTOBUF);
        let json = keys::of_tenant(tenant, keys::INDEX_JSON);
        let (location, bytes) = match self.bucket.get(&protobuf).await {
            Ok(bytes) => (&protobuf, bytes),
            Err(BucketError::Gone { .. }) => (&json, self.bucket.get(&json).await?),
            Err(error) => return Err(error),
        };
        let bad = |reason: &str| report_bad_object(tenant, location.as_ref(), reason);
        let read = if location == &protobuf { TenantIndex::from_protobuf(&bytes, bad) } else { TenantIndex::from_json(&bytes, bad) };
        let index = read.map_err(|reason| BucketError::Corrupt { key: location.to_string(), reason })?;
        Ok(with_believable_times(index))
    }

    /// What the last builder knew of a tenant, which this process has not looked at before. Nothing where that cannot be read.
    pub(crate) async fn last(&self, tenant: &TenantId) -> TenantBlocks {
        let index = match self.read(tenant).await {
            Ok(index) => index,
            Err(BucketError::Gone { .. }) => return TenantBlocks::default(),
            Err(error) => {
                tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "reading the metas of the tenant's blocks, as its index cannot be used");
                return TenantBlocks::default();
            }
        };
        let created = index.created_unix_nanos;
        let written = Written { content: content(&index), protobuf_unix_nanos: created, json_unix_nanos: created };
        self.written.lock().insert(tenant.clone(), written);
        TenantBlocks { live: index.live, compacted: index.compacted, listed_unix_nanos: 0 }
    }

    /// Brings a tenant's index up to date, and deletes it with the last block. What would say the same as what is there is
    /// written now and then only.
    ///
    /// Failing here costs readers a listing; it is logged and counted.
    pub(crate) async fn update(&self, tenant: &TenantId, index: &TenantIndex, listing: &Listing, now_unix_nanos: u64) {
        let result = if index.live.is_empty() && index.compacted.is_empty() {
            self.delete(tenant, listing, now_unix_nanos).await
        } else {
            self.write(tenant, index, listing, now_unix_nanos).await
        };
        if let Err(error) = result {
            metrics::counter!(INDEX_ERRORS.name, "tenant" => tenant.to_string()).increment(1);
            tracing::error!(%tenant, error = &error as &dyn std::error::Error, "could not write the tenant's index");
        }
    }

    async fn write(&self, tenant: &TenantId, index: &TenantIndex, listing: &Listing, now: u64) -> Result<(), BucketError> {
        let content = content(index);
        let last = self.written.lock().get(tenant).copied().filter(|last| last.content == content);
        // By the clock that dated them; one from the future is written again.
        let is_young = |written: u64, age_max: Duration| written <= now && now - written < nanos(age_max);
        let has_protobuf = listing.has_protobuf_index && last.is_some_and(|last| is_young(last.protobuf_unix_nanos, PROTOBUF_AGE_MAX));
        let has_json = listing.has_json_index && last.is_some_and(|last| is_young(last.json_unix_nanos, JSON_AGE_MAX));
        let mut written = last.unwrap_or(Written { content, protobuf_unix_nanos: 0, json_unix_nanos: 0 });
        if !has_protobuf {
            self.bucket.put_derived(&keys::of_tenant(tenant, keys::INDEX_PROTOBUF), index.to_protobuf().into()).await?;
            written.protobuf_unix_nanos = index.created_unix_nanos;
            self.written.lock().insert(tenant.clone(), written);
        }
        if !has_json {
            self.bucket.put_derived(&keys::of_tenant(tenant, keys::INDEX_JSON), index.to_json().into()).await?;
            written.json_unix_nanos = index.created_unix_nanos;
            self.written.lock().insert(tenant.clone(), written);
        }
        Ok(())
    }

    async fn delete(&self, tenant: &TenantId, listing: &Listing, now: u64) -> Result<(), BucketError> {
        self.written.lock().remove(tenant);
        if listing.has_protobuf_index {
            self.bucket.delete(&keys::of_tenant(tenant, keys::INDEX_PROTOBUF)).await?;
        }
        if listing.has_json_index {
            self.bucket.delete(&keys::of_tenant(tenant, keys::INDEX_JSON)).await?;
        }
        let Some(age) = self.empty_tenant_deletion_age else { return Ok(()) };
        let is_young = now.saturating_sub(listing.newest_unix_nanos) < nanos(age);
        // A block that cannot be read is a block.
        if !listing.blocks.is_empty() || !listing.unreadable.is_empty() || is_young {
            return Ok(());
        }
        tracing::info!(%tenant, "deleting what is left of a tenant without blocks");
        self.bucket.delete_tenant(tenant).await
    }

    /// Forgets other tenants than these.
    pub(crate) fn retain(&self, tenants: &FxHashSet<TenantId>) {
        self.written.lock().retain(|tenant, _| tenants.contains(tenant));
    }
}

/// A number that is the same for the same blocks in the same states, in any order. A block's meta never changes.
fn content(index: &TenantIndex) -> u64 {
    let of = |entry: &dyn Fn(&mut FxHasher)| {
        let mut hasher = FxHasher::default();
        entry(&mut hasher);
        hasher.finish()
    };
    let live = index.live.iter().map(|meta| of(&|hasher| meta.block_id.0.hash(hasher)));
    let compacted = index.compacted.iter().map(|b| of(&|hasher| (b.meta.block_id.0, b.compacted_unix_nanos).hash(hasher)));
    live.chain(compacted).fold(index.live.len() as u64, u64::wrapping_add)
}

fn with_believable_times(mut index: TenantIndex) -> TenantIndex {
    Arc::make_mut(&mut index.live).iter_mut().for_each(believable);
    Arc::make_mut(&mut index.compacted).iter_mut().for_each(|block| believable(&mut block.meta));
    index
}
