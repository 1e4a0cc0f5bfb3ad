//! Bloom filters and footers that were read before. Nothing in here can be out of date: those objects never change.

use bytes::Bytes;
use vivace_core::budget::Budget;
use vivace_core::cache::ByteCache;
use vivace_core::{BlockId, TenantId};

use crate::metrics::{CACHE_BYTES, CACHE_REQUESTS};

/// Tenant, block, and which part of it.
pub(crate) type CacheKey = (TenantId, BlockId, u32);

/// Small objects, or tails of files, that queries read again and again.
pub(crate) struct Cache {
    role: &'static str,
    kept: ByteCache<CacheKey, Bytes>,
}

impl Cache {
    pub(crate) fn new(role: &'static str, max_bytes: u64) -> Self {
        Self { role, kept: ByteCache::new(max_bytes) }
    }

    pub(crate) fn charge_to(&self, budget: &Budget) {
        self.kept.charge_to(budget);
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Bytes> {
        let found = self.kept.get(key);
        let status = if found.is_some() { "hit" } else { "miss" };
        metrics::counter!(CACHE_REQUESTS.name, "role" => self.role, "status" => status).increment(1);
        found
    }

    pub(crate) fn put(&self, key: CacheKey, value: Bytes) {
        let bytes = value.len();
        let kept = self.kept.put(key, value, bytes);
        metrics::gauge!(CACHE_BYTES.name, "role" => self.role).set(kept as f64);
    }
}
