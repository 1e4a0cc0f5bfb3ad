//! How much memory this process may take.

use std::fs;

use vivace_core::budget::Budget;

/// Share of the limit that the budget gives out, percent. The rest is for code, threads, the allocator's slack, and what is
/// too small to be charged.
const BUDGET_PERCENT: u64 = 75;
/// Taken as the limit where none can be read, bytes.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// The budget of this process.
pub(crate) fn budget() -> Budget {
    Budget::new(memory_limit() / 100 * BUDGET_PERCENT)
}

/// The container's memory limit, else the machine's memory, bytes.
fn memory_limit() -> u64 {
    let read = |path: &str| fs::read_to_string(path).ok();
    let control_groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = control_groups.iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok());
    let machine = read("/proc/meminfo").and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        kib.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    limits.chain(machine).min().unwrap_or(UNKNOWN_BYTES)
}
