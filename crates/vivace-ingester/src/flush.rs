//! The way of live segments into the bucket: heads are cut, built and stored, then the store and the followers learn of it. Where there
//! is a bucket to flush to, the log keeps a segment until its block is stored: every step may be cut short and done again. The same
//! loop looks after whatever else is due now and then.

mod attempt;
mod build;
mod upkeep;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use vivace_server::clock;
use vivace_storage::Bucket;

use self::attempt::Flush;
use self::upkeep::upkeep;
use crate::limits::TenantLimits;
use crate::settings::Settings;
use crate::store::{HeadSize, Store, Tenant};
use crate::succession::{Follower, Succession};

/// Blocks built at once; each takes its pass of memory, and a core that queries could have.
const BUILDS_AT_ONCE: usize = 1;
/// Small heads are flushed together, so that thousands of tenants cost what their data costs: up to so many bytes once decompressed,
/// which bounds what their blocks take of memory until they are stored.
const TOGETHER_BYTES_MAX: u64 = 16 << 20;
/// And up to so many heads.
const TOGETHER_HEADS_MAX: usize = 256;
/// Memory that runs short is looked after no more often than this.
const MEMORY_CHECK_PERIOD: Duration = Duration::from_millis(250);

/// Brings the store's heads into the bucket.
pub(crate) struct Flusher {
    settings: Arc<Settings>,
    limits: TenantLimits,
    bucket: Bucket,
    store: Arc<Store>,
    /// For those who hear of flushed blocks.
    succession: Arc<Succession>,
    /// Counts flushes that are done.
    done: watch::Sender<u64>,
    /// The loop has ended, in order or not.
    over: CancellationToken,
}

impl Flusher {
    pub(crate) fn new(
        settings: Arc<Settings>,
        limits: TenantLimits,
        bucket: Bucket,
        store: Arc<Store>,
        succession: Arc<Succession>,
    ) -> Self {
        Self { settings, limits, bucket, store, succession, done: watch::Sender::default(), over: CancellationToken::new() }
    }

    /// Flushes everything that is live; comes back when it is in the bucket, or when nothing flushes any more.
    pub(crate) async fn flush_everything(&self) {
        let mut done = self.done.subscribe();
        self.store.cut(None);
        while self.store.unflushed() > 0 {
            tokio::select! {
                changed = done.changed() => changed.expect("the sender is here"),
                () = self.over.cancelled() => return,
            }
        }
    }

    /// Cuts heads, builds and stores their blocks, clears old ones, and adopts what belongs to primaries that are gone.
    /// Ends when told to; flushes under way are given up then and done again by the next process.
    pub(crate) fn run(self: Arc<Self>, stop: CancellationToken) -> impl Future<Output = anyhow::Result<()>> {
        // Guarded from here on: a task may be dropped before its future begins.
        let over = self.over.clone().drop_guard();
        async move {
            let _over = over;
            self.flush_until(stop).await
        }
    }

    async fn flush_until(self: &Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut follower = Follower::default();
        let mut flushes: JoinSet<()> = JoinSet::new();
        let builds = Arc::new(Semaphore::new(BUILDS_AT_ONCE));
        let mut tick = tokio::time::interval(self.settings.flush_check_period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut memory_checked = Instant::now();
        loop {
            let mut is_tick = false;
            tokio::select! {
                _ = tick.tick() => is_tick = true,
                () = self.store.flush_wanted() => {}
                Some(flushed) = flushes.join_next() => flushed.context("a flush panicked")?,
                () = stop.cancelled() => return Ok(()),
            }
            if is_tick {
                self.cut_due();
            }
            // All that look at every tenant does not happen for each push or block.
            if is_tick || (self.is_short_of_memory() && memory_checked.elapsed() > MEMORY_CHECK_PERIOD) {
                self.cut_largest();
                memory_checked = Instant::now();
            }
            while flushes.len() < self.settings.concurrent_flushes {
                let heads = self.store.next_to_flush(TOGETHER_BYTES_MAX, TOGETHER_HEADS_MAX);
                if heads.is_empty() {
                    break;
                }
                flushes.spawn(Flush::new(self, &builds, &stop, heads).run());
            }
            if is_tick {
                let ticked = Arc::clone(self);
                let cared_for = spawn_blocking(move || upkeep(&ticked.store, &ticked.settings, &ticked.limits));
                cared_for.await.context("clearing blocks panicked")?;
                follower.look_after(&self.succession).await;
            }
        }
    }

    /// Closes the heads that are large or old enough.
    fn cut_due(&self) {
        let now = clock::unix_seconds();
        for tenant in self.store.tenants() {
            if is_due(tenant.open_size(), now, self.settings.max_block_bytes, self.settings.max_block_duration) {
                self.store.cut_head(&tenant);
            }
        }
    }

    fn is_short_of_memory(&self) -> bool {
        self.store.memory_bytes() > self.settings.live_memory_bytes_max / 2
    }

    /// Closes the largest heads when memory runs short.
    fn cut_largest(&self) {
        if !self.is_short_of_memory() {
            return;
        }
        let sizes = self.store.tenants().into_iter().map(|tenant| (tenant.open_size(), tenant));
        let mut open: Vec<(HeadSize, Arc<Tenant>)> = sizes.filter(|(size, _)| size.segments > 0).collect();
        // What is sealed is on its way out already; only what is open can be asked to go.
        let mut open_bytes: u64 = open.iter().map(|(size, _)| size.memory_bytes).sum();
        open.sort_by_key(|(size, _)| size.memory_bytes);
        while open_bytes > self.settings.live_memory_bytes_max / 4
            && let Some((size, tenant)) = open.pop()
        {
            tracing::warn!(tenant = %tenant.id, memory_bytes = size.memory_bytes, "block cut early, the index of live spans takes half of its memory");
            self.store.cut_head(&tenant);
            open_bytes -= size.memory_bytes;
        }
    }
}

fn is_due(size: HeadSize, now_unix_seconds: u64, bytes_max: u64, age_max: Duration) -> bool {
    let age = Duration::from_secs(now_unix_seconds.saturating_sub(size.oldest_unix_seconds));
    size.segments > 0 && (size.uncompressed_bytes >= bytes_max || age >= age_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_due_by_size_or_by_age_and_never_when_empty() {
        let size = |segments, uncompressed_bytes, oldest_unix_seconds| HeadSize {
            segments,
            uncompressed_bytes,
            oldest_unix_seconds,
            memory_bytes: 0,
        };
        let due = |size| is_due(size, 1000, 500, Duration::from_secs(60));
        assert!(!due(size(0, 0, 0)));
        assert!(!due(size(1, 499, 941)));
        assert!(due(size(1, 500, 1000)));
        assert!(due(size(1, 1, 940)));
        assert!(!due(size(1, 1, 2000)), "a clock that went back makes nothing due");
    }
}
