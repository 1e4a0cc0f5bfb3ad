//! The configuration in the form that the ingester uses, and the names of what lies in its folder. Limits of tenants are not
//! among it, since they change while the process runs.

use std::path::PathBuf;
use std::time::Duration;

use vivace_config::Config;
use vivace_core::budget::{Account, Budget};

/// A primary that has not been heard of for this long is not waited for. A restart that takes less costs nothing.
const GONE_GRACE: Duration = Duration::from_secs(30);

/// What the ingester takes from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `storage.trace.wal.path`
    pub(crate) wal: PathBuf,
    /// `storage.trace.wal.ingestion_time_range_slack`
    pub(crate) slack: Duration,
    /// `ingester.lifecycler.ring.replication_factor`
    pub(crate) replication_factor: usize,
    /// `ingester.lifecycler.min_ready_duration`
    pub(crate) min_ready_duration: Duration,
    /// `ingester.concurrent_flushes`
    pub(crate) concurrent_flushes: usize,
    /// `ingester.flush_check_period`
    pub(crate) flush_check_period: Duration,
    /// `ingester.flush_op_timeout`
    pub(crate) flush_op_timeout: Duration,
    /// `ingester.trace_idle_period`
    pub(crate) trace_idle_period: Duration,
    /// `ingester.trace_live_period`
    pub(crate) trace_live_period: Duration,
    /// `ingester.max_block_duration`
    pub(crate) max_block_duration: Duration,
    /// `ingester.max_block_bytes`
    pub(crate) max_block_bytes: u64,
    /// `ingester.complete_block_timeout`
    pub(crate) complete_block_timeout: Duration,
    /// `ingester.flush_all_on_shutdown`
    pub(crate) flush_all_on_shutdown: bool,
    /// `ingester.flush_object_storage`
    pub(crate) flush_object_storage: bool,
    /// `storage.trace.block`
    pub(crate) block: vivace_config::Block,
    /// How long a primary may be gone before its followers act.
    pub(crate) gone_grace: Duration,
    /// The process' memory.
    pub(crate) budget: Budget,
    /// The index of live segments may take this much memory, bytes.
    pub(crate) live_memory_bytes_max: u64,
}

impl Settings {
    pub(crate) fn of(config: &Config, budget: Budget) -> Self {
        let ingester = &config.ingester;
        let trace = &config.storage.trace;
        Self {
            wal: PathBuf::from(&trace.wal.path),
            slack: trace.wal.ingestion_time_range_slack,
            replication_factor: ingester.lifecycler.ring.replication_factor.max(1),
            min_ready_duration: ingester.lifecycler.min_ready_duration,
            concurrent_flushes: ingester.concurrent_flushes.max(1),
            flush_check_period: ingester.flush_check_period.max(Duration::from_millis(10)),
            flush_op_timeout: ingester.flush_op_timeout,
            trace_idle_period: ingester.trace_idle_period,
            trace_live_period: ingester.trace_live_period,
            max_block_duration: ingester.max_block_duration,
            max_block_bytes: ingester.max_block_bytes,
            complete_block_timeout: ingester.complete_block_timeout,
            flush_all_on_shutdown: ingester.flush_all_on_shutdown,
            flush_object_storage: ingester.flush_object_storage,
            block: trace.block.clone(),
            gone_grace: GONE_GRACE,
            live_memory_bytes_max: budget.limit_of(Account::Live),
            budget,
        }
    }

    pub(crate) fn log_folder(&self) -> PathBuf {
        self.wal.join("log")
    }

    pub(crate) fn ledger_file(&self) -> PathBuf {
        self.wal.join("ledger.journal")
    }

    /// `storage.trace.wal.ingestion_time_range_slack`, nanoseconds.
    pub(crate) fn slack_nanos(&self) -> u64 {
        u64::try_from(self.slack.as_nanos()).unwrap_or(u64::MAX)
    }

    /// What earlier versions kept beside the log. Nothing in there is needed.
    pub(crate) fn former_folders(&self) -> [PathBuf; 2] {
        ["building", "ledger"].map(|name| self.wal.join(name))
    }
}
