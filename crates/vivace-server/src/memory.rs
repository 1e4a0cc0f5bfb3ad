//! What the process uses: read from `/proc/self` and the allocator when `/metrics` is asked.

use std::fmt::Write as _;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use tikv_jemalloc_ctl::{Access, AsName, Name, arenas, background_thread, epoch, stats};
use tokio_util::sync::CancellationToken;
use vivace_core::budget::{Account, Budget};
use vivace_core::metric::Metric;

use crate::metrics::{
    ALLOCATED, ALLOCATOR_ACTIVE, ALLOCATOR_RESIDENT, GO_GC_COUNT, GO_GOROUTINES, GO_HEAP_INUSE, MEMORY, MEMORY_LIMIT, PROCESS_CPU,
    PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START, PROCESS_THREADS, PROCESS_VIRTUAL,
};

/// Ticks of `/proc/*/stat` per second: fixed at 100 in Linux's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Lets the allocator give unused pages back to the system without waiting for the next allocation.
pub(crate) fn return_unused_pages() {
    if let Err(error) = background_thread::write(true) {
        tracing::debug!(%error, "the allocator has no background thread");
    }
}

/// How often the books are held against the allocator's: seldom as long as there is much room, often when it gets close. Two
/// cores that only take new memory take some 50 MB in the shorter one.
const CALM_PERIOD: Duration = Duration::from_millis(200);
const CLOSE_PERIOD: Duration = Duration::from_millis(20);
/// Lets the budget know what is held that nobody was charged with, and keeps pages that nobody uses from taking its room.
pub(crate) async fn watch(budget: Budget, stop: CancellationToken) {
    let mut is_close = false;
    loop {
        let period = if is_close { CLOSE_PERIOD } else { CALM_PERIOD };
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = stop.cancelled() => return,
        }
        let Some(heap) = Heap::read() else { return };
        budget.reconcile(heap.active as u64);
        let limit = budget.limit() as f64;
        // Free pages of one arena are no use to threads of another.
        if heap.resident > limit && heap.resident - heap.active > limit / 16.0 {
            purge();
        }
        is_close = heap.resident > limit / 2.0;
    }
}

/// Gives what is free in all arenas back to the system. Source: jemalloc's manual, `arena.<i>.dirty_decay_ms`, which purges at
/// once when it becomes 0.
fn purge() {
    for arena in 0..arenas::narenas::read().unwrap_or(0) {
        let name = format!("arena.{arena}.dirty_decay_ms\0");
        // One that no thread has used yet has nothing to give and says so.
        let key: &Name = name.as_str().name();
        let usual: Result<isize, _> = key.read();
        if let Ok(usual) = usual {
            let _ = key.write(0_isize);
            let _ = key.write(usual);
        }
    }
}

/// The series that Prometheus clients of every language publish, in the text format.
pub(crate) fn render(budget: &Budget) -> String {
    let mut out = String::new();
    if let Some(stat) = Stat::read() {
        line(&mut out, &PROCESS_CPU, stat.cpu_seconds);
        line(&mut out, &PROCESS_RESIDENT, stat.resident_bytes);
        line(&mut out, &PROCESS_VIRTUAL, stat.virtual_bytes);
        line(&mut out, &PROCESS_START, stat.start_time);
        line(&mut out, &PROCESS_THREADS, stat.threads);
    }
    if let Ok(fds) = fs::read_dir("/proc/self/fd") {
        line(&mut out, &PROCESS_OPEN_FDS, fds.count() as f64);
    }
    if let Some(max) = max_fds() {
        line(&mut out, &PROCESS_MAX_FDS, max);
    }
    if let Some(heap) = Heap::read() {
        line(&mut out, &GO_HEAP_INUSE, heap.active);
        line(&mut out, &ALLOCATED, heap.allocated);
        line(&mut out, &ALLOCATOR_ACTIVE, heap.active);
        line(&mut out, &ALLOCATOR_RESIDENT, heap.resident);
    }
    let tasks = tokio::runtime::Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
    line(&mut out, &GO_GOROUTINES, tasks as f64);
    line(&mut out, &GO_GC_COUNT, 0.0);
    line(&mut out, &MEMORY_LIMIT, budget.limit() as f64);
    head(&mut out, &MEMORY);
    for account in Account::ALL {
        let (series, name, bytes) = (MEMORY.name, account.name(), budget.used_by(account));
        writeln!(out, "{series}{{account=\"{name}\"}} {bytes}").expect("writing to a string does not fail");
    }
    out
}

fn line(out: &mut String, metric: &Metric, value: f64) {
    head(out, metric);
    writeln!(out, "{} {value}\n", metric.name).expect("writing to a string does not fail");
}

fn head(out: &mut String, Metric { name, kind, help, .. }: &Metric) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str()).expect("writing to a string does not fail");
}

/// Bytes in the allocator's books.
struct Heap {
    allocated: f64,
    active: f64,
    resident: f64,
}

impl Heap {
    fn read() -> Option<Self> {
        epoch::advance().ok()?; // the statistics are a snapshot of the last epoch
        Some(Self {
            allocated: stats::allocated::read().ok()? as f64,
            active: stats::active::read().ok()? as f64,
            resident: stats::resident::read().ok()? as f64,
        })
    }
}

/// From `/proc/self/stat`, in seconds and bytes.
struct Stat {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    start_time: f64,
    threads: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses and may contain anything; fields are counted after it.
        let fields: Vec<f64> = text.rsplit_once(')')?.1.split_whitespace().skip(1).map(|f| f.parse().unwrap_or(0.0)).collect();
        let field = |number: usize| fields.get(number - 4).copied(); // numbered as in proc(5), of which the first three are gone
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            start_time: boot_time()? + field(22)? / TICKS_PER_SECOND,
            virtual_bytes: field(23)?,
            resident_bytes: resident_bytes()?,
        })
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kib.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? * 1024.0)
}

fn boot_time() -> Option<f64> {
    static BOOT_TIME: OnceLock<Option<f64>> = OnceLock::new();
    *BOOT_TIME.get_or_init(|| fs::read_to_string("/proc/stat").ok()?.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()))
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}
