use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Share of the memory that requests in flight may take.
const SHARE: u64 = 8;
/// When nothing is known about the memory.
const FALLBACK_BYTES: u64 = 512 << 20;

/// Bytes of requests in flight. What does not fit is refused, so that memory cannot run away.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    limit: u64,
    used: Arc<AtomicU64>,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: Arc::default() }
    }

    /// An eighth of what the control group or the machine has.
    pub(crate) fn from_memory() -> Self {
        let memory = [control_group_bytes(), machine_bytes()].into_iter().flatten().min();
        Self::new(memory.map_or(FALLBACK_BYTES, |bytes| bytes / SHARE))
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// None when it does not fit. A single request larger than the budget never does.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let before = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        gauge(before + bytes);
        Some(Reservation { budget: self.clone(), bytes })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        gauge(before - self.bytes);
    }
}

fn gauge(bytes: u64) {
    metrics::gauge!("vivace_memory_bytes", "account" => "requests").set(bytes as f64);
}

/// The limit of the control group (version 2) that this process runs in.
fn control_group_bytes() -> Option<u64> {
    fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()
}

fn machine_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().trim_end_matches("kB").trim();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_budget_is_refused_until_there_is_room() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).expect("fits");
        assert!(budget.reserve(41).is_none());
        let second = budget.reserve(40).expect("fits exactly");
        drop(first);
        assert!(budget.reserve(60).is_some());
        drop(second);
        assert!(budget.reserve(101).is_none(), "never fits");
        assert!(Budget::from_memory().limit() > 0);
    }
}
