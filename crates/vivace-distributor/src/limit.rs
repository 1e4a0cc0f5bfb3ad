//! How fast a tenant may send: a token bucket of bytes for each, in this process alone. A limit on all distributors together
//! comes here as this process' share of it.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use vivace_config::set_or;
use vivace_core::TenantId;

/// Buckets up to which none is looked for that is full. Then those that are full are dropped, which changes nothing: a new one
/// is full.
const BUCKETS_BEFORE_CLEANING: usize = 10_000;

/// What a tenant may send. Source: docs/facts/components.md, "Rate limiting".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Bytes per second that this process takes; 0 is no limit.
    pub(crate) bytes_per_second: u64,
    /// Bytes at once; 0 is no limit.
    pub(crate) burst_bytes: u64,
}

/// A request that is over its tenant's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverLimit {
    /// May pass later, once there is room in the bucket.
    Now,
    /// Larger than the burst: never passes.
    Always,
}

/// A token bucket per tenant, in bytes.
#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    by_tenant: FxHashMap<TenantId, Bucket>,
    /// How many there may be before it is worth looking again.
    clean_at: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { by_tenant: FxHashMap::default(), clean_at: BUCKETS_BEFORE_CLEANING }
    }
}

impl Buckets {
    /// Drops those that are full by their own tenant's rate. Each is looked at once for every one that is added, on average.
    fn clean(&mut self, now: Instant) {
        self.by_tenant.retain(|_, bucket| bucket.filled(bucket.rate, now) < bucket.rate.capacity());
        self.clean_at = (self.by_tenant.len() * 2).max(BUCKETS_BEFORE_CLEANING);
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Of its tenant, when it last sent.
    rate: Rate,
    /// Bytes that may be sent at `at`.
    bytes: f64,
    at: Instant,
}

impl Bucket {
    fn filled(self, rate: Rate, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * rate.bytes_per_second as f64;
        (self.bytes + gained).min(rate.capacity())
    }
}

impl Rate {
    fn capacity(self) -> f64 {
        // Without a burst limit the bucket holds a second's worth, as much as the rate itself promises.
        set_or(self.burst_bytes, self.bytes_per_second) as f64
    }
}

impl RateLimiter {
    /// Takes a request's bytes from its tenant's bucket, all or none.
    pub(crate) fn admit(&self, tenant: &TenantId, bytes: u64, rate: Rate, now: Instant) -> Result<(), OverLimit> {
        if rate.burst_bytes > 0 && bytes > rate.burst_bytes {
            return Err(OverLimit::Always);
        }
        if rate.bytes_per_second == 0 {
            return Ok(());
        }
        if bytes as f64 > rate.capacity() {
            return Err(OverLimit::Always);
        }
        let mut buckets = self.buckets.lock();
        if buckets.by_tenant.len() >= buckets.clean_at && !buckets.by_tenant.contains_key(tenant) {
            buckets.clean(now);
        }
        let full = Bucket { rate, bytes: rate.capacity(), at: now };
        let bucket = buckets.by_tenant.entry(tenant.clone()).or_insert(full);
        let left = bucket.filled(rate, now) - bytes as f64;
        if left < 0.0 {
            return Err(OverLimit::Now);
        }
        *bucket = Bucket { rate, bytes: left, at: now };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_bucket_empties_and_fills_again() {
        let (limiter, start) = (RateLimiter::default(), Instant::now());
        let (a, b) = (TenantId::new("a").expect("valid"), TenantId::new("b").expect("valid"));
        let rate = Rate { bytes_per_second: 100, burst_bytes: 200 };
        assert_eq!(limiter.admit(&a, 200, rate, start), Ok(()));
        assert_eq!(limiter.admit(&a, 50, rate, start), Err(OverLimit::Now));
        assert_eq!(limiter.admit(&b, 200, rate, start), Ok(()), "tenants are apart");
        assert_eq!(limiter.admit(&a, 50, rate, start + Duration::from_millis(500)), Ok(()));
        assert_eq!(limiter.admit(&a, 201, rate, start + Duration::from_secs(60)), Err(OverLimit::Always));
        assert_eq!(limiter.admit(&a, 200, rate, start + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn thousands_of_tenants_do_not_fill_each_others_buckets() {
        let (limiter, start) = (RateLimiter::default(), Instant::now());
        let tenant = |number: usize| TenantId::new(&format!("tenant-{number}")).expect("valid");
        let (slow, quick) = (Rate { bytes_per_second: 1, burst_bytes: 1000 }, Rate { bytes_per_second: 1_000_000, burst_bytes: 10 });
        let large = TenantId::new("large").expect("valid");
        assert_eq!(limiter.admit(&large, 1000, slow, start), Ok(()), "empty now, and full in a quarter of an hour");
        let later = start + Duration::from_secs(60);
        for number in 0..3 * BUCKETS_BEFORE_CLEANING {
            assert_eq!(limiter.admit(&tenant(number), 10, quick, later + Duration::from_millis(number as u64)), Ok(()));
        }
        assert_eq!(limiter.admit(&large, 500, slow, later), Err(OverLimit::Now), "it has gained 60 bytes");
        assert!(limiter.buckets.lock().by_tenant.len() <= 2 * BUCKETS_BEFORE_CLEANING, "those that are full again are dropped");
    }

    #[test]
    fn zero_is_no_limit() {
        let (limiter, tenant) = (RateLimiter::default(), TenantId::single());
        let free = Rate { bytes_per_second: 0, burst_bytes: 0 };
        assert_eq!(limiter.admit(&tenant, u64::MAX, free, Instant::now()), Ok(()));
    }
}
