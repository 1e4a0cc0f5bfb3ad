use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use vivace_core::{BlockId, TenantId};

/// Small objects and file tails that queries read again and again, kept up to a number of bytes; the least recently
/// used go first.
pub(crate) struct Cache {
    role: &'static str,
    max_bytes: usize,
    entries: Mutex<Entries>,
}

/// Tenant, block, and which part of it.
pub(crate) type CacheKey = (TenantId, BlockId, u32);

struct Entries {
    map: LruCache<CacheKey, Bytes>,
    bytes: usize,
}

/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;

impl Cache {
    pub(crate) fn new(role: &'static str, max_bytes: usize) -> Self {
        Self { role, max_bytes, entries: Mutex::new(Entries { map: LruCache::unbounded(), bytes: 0 }) }
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Bytes> {
        let found = self.entries.lock().map.get(key).cloned();
        let status = if found.is_some() { "hit" } else { "miss" };
        metrics::counter!("vivace_storage_cache_requests_total", "role" => self.role, "status" => status).increment(1);
        found
    }

    /// Takes nothing that is larger than an eighth of the cache: one huge footer must not empty it.
    pub(crate) fn put(&self, key: CacheKey, value: Bytes) {
        let cost = |value: &Bytes| value.len() + ENTRY_OVERHEAD_BYTES;
        if cost(&value) > self.max_bytes / 8 {
            return;
        }
        let mut entries = self.entries.lock();
        entries.bytes += cost(&value);
        if let Some(old) = entries.map.put(key, value) {
            entries.bytes -= cost(&old);
        }
        while entries.bytes > self.max_bytes {
            let Some((_, oldest)) = entries.map.pop_lru() else { break };
            entries.bytes -= cost(&oldest);
        }
        metrics::gauge!("vivace_storage_cache_bytes", "role" => self.role).set(entries.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_under_the_bound() {
        let cache = Cache::new("bloom", 80_000);
        let key = |part| (TenantId::single(), BlockId::default(), part);
        for part in 0..100 {
            cache.put(key(part), Bytes::from(vec![0; 5000]));
            cache.get(&key(0));
        }
        assert!(cache.entries.lock().bytes <= 80_000);
        assert!(cache.get(&key(0)).is_some(), "what is used stays");
        assert!(cache.get(&key(1)).is_none());
        assert!(cache.get(&key(99)).is_some());
        cache.put(key(200), Bytes::from(vec![0; 50_000]));
        assert!(cache.get(&key(200)).is_none(), "too large a share");
    }
}
