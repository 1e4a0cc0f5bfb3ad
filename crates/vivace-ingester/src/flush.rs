//! The way of live spans into the bucket: heads are cut, built and stored, then ledger and followers learn of it. Where there is
//! a bucket to flush to, the log keeps a segment until its block is stored: every step may be cut short and done again. The same
//! loop looks after whatever else is due now and then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use vivace_core::{BlockId, TenantId};
use vivace_proto::vivace::v1::ReleaseRequest;
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;
use vivace_ring::ClientPool;
use vivace_server::clock;

use crate::build::{Block, BuildJob, Built, build};
use crate::ingester::Ingester;
use crate::metrics::{
    BLOCKS_FLUSHED, FAILED_FLUSH_RETRIES, FAILED_FLUSHES, FLUSH_DURATION, FLUSH_RETRIES, FLUSH_SIZE, LIVE_TRACE_BYTES, LIVE_TRACES,
};
use crate::segment_set::SegmentSet;
use crate::store::{Flushed, FlushedHead, HeadSize, Sealed, Tenant};
use crate::takeover::Takeover;

/// First wait after a failed flush; doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failed flush.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(120);
/// A part of the log that cannot be read still after so many failures does not keep the rest of its block from the bucket.
const READ_FAILURES_MAX: u32 = 5;
/// What a block covers is remembered at least this long, for followers that were away.
const COVERED_KEPT_MIN: Duration = Duration::from_secs(6 * 3600);
/// A follower that does not answer a release in this time asks by itself later.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocks built at once; each takes its pass of memory, and a core that queries could have.
const BUILDS_AT_ONCE: usize = 1;
/// Small heads are flushed together, so that thousands of tenants cost what their data costs: up to so many bytes once decompressed,
/// which bounds what their blocks take of memory until they are stored.
const TOGETHER_BYTES_MAX: u64 = 16 << 20;
/// And up to so many heads.
const TOGETHER_HEADS_MAX: usize = 256;
/// Small blocks that one flush stores at once.
const STORED_AT_ONCE: usize = 16;
/// Memory that runs short is looked after no more often than this.
const MEMORY_CHECK_PERIOD: Duration = Duration::from_millis(250);

/// Cuts heads, builds and stores their blocks, clears old ones, and takes over from primaries that are gone.
/// Ends when told to; flushes under way are given up then and done again by the next process.
pub(crate) async fn run(ingester: Arc<Ingester>, pool: Arc<ClientPool>, stop: CancellationToken) -> anyhow::Result<()> {
    let _over = ingester.flushing_over.clone().drop_guard();
    let mut takeover = Takeover::default();
    let mut flushes: JoinSet<()> = JoinSet::new();
    let builds = Arc::new(Semaphore::new(BUILDS_AT_ONCE));
    let mut tick = tokio::time::interval(ingester.settings.flush_check_period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut memory_checked = Instant::now();
    loop {
        let mut is_tick = false;
        tokio::select! {
            _ = tick.tick() => is_tick = true,
            () = ingester.store.flush_wanted() => {}
            Some(flushed) = flushes.join_next() => flushed.context("a flush panicked")?,
            () = stop.cancelled() => return Ok(()),
        }
        if is_tick {
            cut_due(&ingester);
        }
        // All that look at every tenant does not happen for each push or block.
        if is_tick
            || (ingester.store.memory_bytes() > ingester.settings.live_memory_bytes_max / 2
                && memory_checked.elapsed() > MEMORY_CHECK_PERIOD)
        {
            cut_largest(&ingester);
            memory_checked = Instant::now();
        }
        while flushes.len() < ingester.settings.concurrent_flushes {
            let heads = ingester.store.next_to_flush(TOGETHER_BYTES_MAX, TOGETHER_HEADS_MAX);
            if heads.is_empty() {
                break;
            }
            let flush = Flush {
                ingester: Arc::clone(&ingester),
                pool: Arc::clone(&pool),
                builds: Arc::clone(&builds),
                stop: stop.clone(),
                heads: heads.into_iter().map(Flushing::new).collect(),
            };
            flushes.spawn(flush.run());
        }
        if is_tick {
            let ticked = Arc::clone(&ingester);
            spawn_blocking(move || look_after(&ticked)).await.context("clearing blocks panicked")?;
            takeover.look(&ingester, &pool).await;
        }
    }
}

/// Closes the heads that are large or old enough.
fn cut_due(ingester: &Ingester) {
    let now = clock::unix_seconds();
    let settings = &ingester.settings;
    for tenant in ingester.store.tenants() {
        if is_due(tenant.open_size(), now, settings.max_block_bytes, settings.max_block_duration) {
            ingester.store.cut_head(&tenant);
        }
    }
}

/// Closes the largest heads when memory runs short.
fn cut_largest(ingester: &Ingester) {
    let max = ingester.settings.live_memory_bytes_max;
    if ingester.store.memory_bytes() <= max / 2 {
        return;
    }
    let sizes = ingester.store.tenants().into_iter().map(|tenant| (tenant.open_size(), tenant));
    let mut open: Vec<(HeadSize, Arc<Tenant>)> = sizes.filter(|(size, _)| size.segments > 0).collect();
    // What is sealed is on its way out already; only what is open can be asked to go.
    let mut open_bytes: u64 = open.iter().map(|(size, _)| size.memory_bytes).sum();
    open.sort_by_key(|(size, _)| size.memory_bytes);
    while open_bytes > max / 4
        && let Some((size, tenant)) = open.pop()
    {
        tracing::warn!(tenant = %tenant.id, memory_bytes = size.memory_bytes, "block cut early, the index of live spans takes half of its memory");
        ingester.store.cut_head(&tenant);
        open_bytes -= size.memory_bytes;
    }
}

fn is_due(size: HeadSize, now_unix_seconds: u64, bytes_max: u64, age_max: Duration) -> bool {
    let age = Duration::from_secs(now_unix_seconds.saturating_sub(size.oldest_unix_seconds));
    size.segments > 0 && (size.uncompressed_bytes >= bytes_max || age >= age_max)
}

/// What is to do at every tick beside flushing. Blocks the thread.
fn look_after(ingester: &Ingester) {
    let now = clock::unix_seconds();
    let settings = &ingester.settings;
    let gauges = |tenant: &TenantId, live: u64, bytes: u64| {
        let name = tenant.to_string();
        metrics::gauge!(LIVE_TRACES.name, "tenant" => name.clone()).set(live as f64);
        metrics::gauge!(LIVE_TRACE_BYTES.name, "tenant" => name).set(bytes as f64);
    };
    for tenant in ingester.store.tenants() {
        let limits = ingester.limits.traces(&tenant.id);
        let live = tenant.sweep(now, settings.trace_idle_period, settings.trace_live_period, limits);
        gauges(&tenant.id, live, tenant.live_bytes());
    }
    ingester.store.report();
    let kept = COVERED_KEPT_MIN.max(settings.max_block_duration * 4);
    let blocks_before = now.saturating_sub(settings.complete_block_timeout.as_secs());
    for tenant in ingester.store.expire(now.saturating_sub(kept.as_secs()), blocks_before) {
        gauges(&tenant, 0, 0);
    }
}

/// The way of some heads into the bucket.
struct Flush {
    ingester: Arc<Ingester>,
    pool: Arc<ClientPool>,
    builds: Arc<Semaphore>,
    stop: CancellationToken,
    /// Those that are not there yet.
    heads: Vec<Flushing>,
}

/// A head on its way.
struct Flushing {
    sealed: Sealed,
    block: BlockId,
    failures: u32,
    /// What there is of it already, for another try.
    built: Option<Built<Data>>,
}

/// Where a built block's `data.parquet` is.
#[derive(Debug)]
enum Data {
    Memory(Bytes),
    Bucket,
}

impl Flushing {
    fn new(sealed: Sealed) -> Self {
        Self { sealed, block: BlockId(uuid::Uuid::new_v4().into_bytes()), failures: 0, built: None }
    }

    /// Its block is in the bucket.
    fn into_flushed(self) -> FlushedHead {
        let Self { sealed, built, .. } = self;
        let Built { block, unreadable } = built.unwrap_or(Built { block: None, unreadable: Vec::new() });
        let block = block.map(|block| block.meta);
        if let Some(meta) = &block {
            tracing::info!(tenant = %sealed.tenant.id, block_id = %meta.block_id, traces = meta.total_objects, size_bytes = meta.size_bytes,
                segments = sealed.head.size().segments, "block flushed");
            metrics::counter!(BLOCKS_FLUSHED.name).increment(1);
            metrics::histogram!(FLUSH_SIZE.name).record(meta.size_bytes as f64);
        }
        FlushedHead { sealed, block, unreadable }
    }
}

/// What a try to flush came to.
type Tried = (Flushing, anyhow::Result<()>);

impl Flush {
    /// Tries until all are done or the process stops. A stopped flush leaves everything as it was.
    async fn run(mut self) {
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let started = Instant::now();
            let mut failed = self.attempt().await;
            if self.stop.is_cancelled() {
                return;
            }
            let Some((Flushing { sealed, block, .. }, error)) = failed.first() else {
                metrics::histogram!(FLUSH_DURATION.name).record(started.elapsed().as_secs_f64());
                return;
            };
            metrics::counter!(FAILED_FLUSHES.name).increment(failed.len() as u64);
            if wait > RETRY_WAIT_MIN {
                metrics::counter!(FAILED_FLUSH_RETRIES.name).increment(failed.len() as u64);
            }
            tracing::error!(
                tenant = %sealed.tenant.id, block_id = %block, blocks = failed.len(), error = format!("{error:#}"), retry_seconds = wait.as_secs(),
                "blocks not flushed, this one among them"
            );
            self.heads = failed.drain(..).map(|(head, _)| Flushing { failures: head.failures + 1, ..head }).collect();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
            metrics::counter!(FLUSH_RETRIES.name).increment(self.heads.len() as u64);
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
    }

    /// Brings the heads into the bucket, and returns those with which that failed.
    async fn attempt(&mut self) -> Vec<(Flushing, anyhow::Error)> {
        let heads = std::mem::take(&mut self.heads);
        if !self.ingester.settings.flush_object_storage {
            return self.age_out(heads).await;
        }
        let is_large = heads.iter().any(|flushing| flushing.sealed.head.size().uncompressed_bytes > TOGETHER_BYTES_MAX);
        let built = if is_large { self.build_into_bucket(heads).await } else { self.build_in_memory(heads).await };
        let (ready, mut failed) = split(built);
        let (stored, not_stored) =
            split(futures::stream::iter(ready).map(|head| self.store(head)).buffer_unordered(STORED_AT_ONCE).collect().await);
        failed.extend(not_stored);
        if !stored.is_empty() {
            self.stored(stored).await;
        }
        failed
    }

    /// Builds what is not built yet, one after the other.
    async fn build_in_memory(&self, heads: Vec<Flushing>) -> Vec<Tried> {
        let Ok(permit) = Arc::clone(&self.builds).acquire_owned().await else { return Vec::new() };
        let (ingester, stop) = (Arc::clone(&self.ingester), self.stop.clone());
        let built = spawn_blocking(move || {
            let _permit = permit;
            let each = |mut head: Flushing| {
                let built = match head.built.take() {
                    Some(built) => Ok(built),
                    None => build_one(&ingester, &head, &stop, Vec::new()).map(|built| with_data(built, |data| Data::Memory(data.into()))),
                };
                match built {
                    Ok(built) => (Flushing { built: Some(built), ..head }, Ok(())),
                    Err(error) => (head, Err(error)),
                }
            };
            heads.into_iter().map(each).collect()
        });
        built.await.unwrap_or_else(|error| {
            tracing::error!(%error, "building blocks ended early: they are built after a restart");
            Vec::new()
        })
    }

    /// Builds a large block and stores its data meanwhile: it is never on a disk here, and never in memory as a whole.
    async fn build_into_bucket(&self, heads: Vec<Flushing>) -> Vec<Tried> {
        let mut tried = Vec::with_capacity(heads.len());
        for mut head in heads {
            if head.built.is_some() {
                tried.push((head, Ok(())));
                continue;
            }
            let result = match self.stream(&head).await {
                Ok(built) => {
                    head.built = Some(built);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            tried.push((head, result));
        }
        tried
    }

    async fn stream(&self, head: &Flushing) -> anyhow::Result<Built<Data>> {
        let permit = Arc::clone(&self.builds).acquire_owned().await.context("builds are over")?;
        let (writer, upload) = self.ingester.bucket.stream_data(&head.sealed.tenant.id, head.block);
        let (ingester, stop) = (Arc::clone(&self.ingester), self.stop.clone());
        let job = Flushing { sealed: head.sealed.clone(), block: head.block, failures: head.failures, built: None };
        let building = spawn_blocking(move || {
            // Held until the memory is free, whoever still waits for the block.
            let _permit = permit;
            let Built { block, unreadable } = build_one(&ingester, &job, &stop, writer)?;
            let block = match block {
                Some(Block { meta, blooms, index, data }) => {
                    data.finish()?;
                    Some(Block { meta, blooms, index, data: Data::Bucket })
                }
                None => None,
            };
            anyhow::Ok(Built { block, unreadable })
        });
        let max = self.ingester.settings.flush_op_timeout;
        let (uploaded, built) = tokio::select! {
            both = tokio::time::timeout(max, async { tokio::join!(upload.run(), building) }) => both.with_context(|| format!("building and storing the block took longer than {max:?}"))?,
            () = self.stop.cancelled() => anyhow::bail!("the process is stopping"),
        };
        // An upload that failed makes the build fail, and says why.
        uploaded?;
        built.context("the build panicked")?
    }

    /// Stores what has been built.
    async fn store(&self, head: Flushing) -> Tried {
        let Some(Built { block: Some(Block { meta, blooms, index, data }), .. }) = &head.built else { return (head, Ok(())) };
        let bucket = &self.ingester.bucket;
        let storing = async {
            match data {
                Data::Memory(data) => bucket.put_block_from_memory(meta, data.clone(), blooms, index).await,
                Data::Bucket => bucket.finish_block(meta, blooms, index).await,
            }
        };
        let max = self.ingester.settings.flush_op_timeout;
        // A fault of ours must not keep what else is live from the bucket, nor end the process, which would meet it again.
        let storing = AssertUnwindSafe(tokio::time::timeout(max, storing)).catch_unwind();
        let result = tokio::select! {
            stored = storing => match stored {
                Ok(Ok(stored)) => stored.map_err(anyhow::Error::from),
                Ok(Err(_)) => Err(anyhow::anyhow!("bucket took longer than {max:?}")),
                Err(_) => Err(anyhow::anyhow!("it panicked")),
            },
            () = self.stop.cancelled() => Err(anyhow::anyhow!("the process is stopping")),
        };
        (head, result)
    }

    /// The blocks are in the bucket: records them, forgets the segments, tells the followers.
    async fn stored(&self, heads: Vec<Flushing>) {
        let ingester = Arc::clone(&self.ingester);
        let noted = spawn_blocking(move || {
            let heads = heads.into_iter().map(Flushing::into_flushed).collect();
            ingester.store.flushed(heads, clock::unix_seconds())
        });
        match noted.await {
            Ok(Flushed { served, covered }) => {
                // The blocks first: a follower that has dropped its segments can then answer from them.
                self.ingester.share(&self.pool, &served).await;
                futures::future::join_all(covered.iter().map(|(primary, set)| self.tell_followers(primary, set))).await;
            }
            Err(error) => tracing::error!(%error, "recording flushed blocks failed: after a restart their segments are flushed again"),
        }
        self.ingester.flushed.send_modify(|count| *count += 1);
    }

    /// Tries once: a follower that does not hear of it asks later.
    async fn tell_followers(&self, primary: &str, covered: &SegmentSet) {
        let snapshot = self.ingester.ring.snapshot();
        let followers = snapshot.followers(primary, self.ingester.settings.replication_factor);
        let told = followers.into_iter().filter(|follower| *follower.id != **self.ingester.store.id()).map(|follower| async move {
            let told = async {
                let channel = self.pool.channel(&follower.addr)?;
                let mut client = SegmentLogClient::new(channel);
                let request = ReleaseRequest { primary: primary.to_owned(), covered: covered.to_proto() };
                tokio::time::timeout(RELEASE_TIMEOUT, client.release(request)).await??;
                anyhow::Ok(())
            };
            if let Err(error) = told.await {
                tracing::warn!(follower = follower.id, primary, error = format!("{error:#}"), "follower not told of a flushed block");
            }
        });
        futures::future::join_all(told).await;
    }

    /// Without a bucket to flush to, heads are served as long as their blocks would be, and then dropped.
    async fn age_out(&self, heads: Vec<Flushing>) -> Vec<(Flushing, anyhow::Error)> {
        tokio::select! {
            () = tokio::time::sleep(self.ingester.settings.complete_block_timeout) => {}
            () = self.stop.cancelled() => return Vec::new(),
        }
        self.stored(heads).await;
        Vec::new()
    }
}

fn split(tried: Vec<Tried>) -> (Vec<Flushing>, Vec<(Flushing, anyhow::Error)>) {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (head, result) in tried {
        match result {
            Ok(()) => done.push(head),
            Err(error) => failed.push((head, error)),
        }
    }
    (done, failed)
}

fn with_data<A, B>(Built { block, unreadable }: Built<A>, change: impl FnOnce(A) -> B) -> Built<B> {
    let block = block.map(|Block { meta, blooms, index, data }| Block { meta, blooms, index, data: change(data) });
    Built { block, unreadable }
}

/// Builds one block. A fault of ours in it is an error of this block alone.
fn build_one<W: std::io::Write + Send>(
    ingester: &Ingester,
    head: &Flushing,
    stop: &CancellationToken,
    data: W,
) -> anyhow::Result<Built<W>> {
    let Sealed { tenant, head: contents } = &head.sealed;
    let job = BuildJob {
        tenant: &tenant.id,
        block: head.block,
        head: contents,
        options: ingester.limits.block_options(&tenant.id),
        now_unix_nanos: clock::unix_nanos(),
        slack_nanos: ingester.settings.slack_nanos(),
        leave_out_unread: head.failures >= READ_FAILURES_MAX,
        is_stopped: &|| stop.is_cancelled(),
    };
    match catch_unwind(AssertUnwindSafe(|| build(&job, data))) {
        Ok(built) => Ok(built?),
        Err(_) => anyhow::bail!("the build panicked"),
    }
}

impl Ingester {
    /// Flushes everything that is live; comes back when it is in the bucket, or when nothing flushes any more.
    pub(crate) async fn flush_everything(&self) {
        let mut flushed = self.flushed.subscribe();
        self.store.cut(None);
        while self.store.unflushed() > 0 {
            tokio::select! {
                changed = flushed.changed() => changed.expect("the sender is here"),
                () = self.flushing_over.cancelled() => return,
            }
        }
    }
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
