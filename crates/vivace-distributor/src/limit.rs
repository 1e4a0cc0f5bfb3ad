use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use vivace_core::TenantId;

/// Tenants whose bucket is kept. Beyond it full buckets are dropped, which changes nothing: a new one is full.
const TENANTS_MAX: usize = 10_000;

/// What a tenant may send. Source: component behaviour of the reference, "Rate limiting".
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
    buckets: Mutex<FxHashMap<TenantId, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
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
        (if self.burst_bytes == 0 { self.bytes_per_second } else { self.burst_bytes }) as f64
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
        if buckets.len() >= TENANTS_MAX && !buckets.contains_key(tenant) {
            buckets.retain(|_, bucket| bucket.filled(rate, now) < rate.capacity());
        }
        let full = Bucket { bytes: rate.capacity(), at: now };
        let bucket = buckets.entry(tenant.clone()).or_insert(full);
        let left = bucket.filled(rate, now) - bytes as f64;
        if left < 0.0 {
            return Err(OverLimit::Now);
        }
        *bucket = Bucket { bytes: left, at: now };
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
    fn zero_is_no_limit() {
        let (limiter, tenant) = (RateLimiter::default(), TenantId::single());
        let free = Rate { bytes_per_second: 0, burst_bytes: 0 };
        assert_eq!(limiter.admit(&tenant, u64::MAX, free, Instant::now()), Ok(()));
    }
}
