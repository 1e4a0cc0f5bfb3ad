use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use vivace_core::{BlockId, TenantId};
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;
use vivace_ring::ClientPool;
use vivace_server::clock;

use crate::build::{Block, BuildJob, Built, build};
use crate::ingester::{Ingester, release_request};
use crate::live::{Head, HeadSize, ServedBlock, Tenant};
use crate::ranges::SegmentSet;
use crate::segment::Segment;
use crate::takeover::Takeover;

/// First wait after a failed flush; doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failed flush.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(120);
/// What a block covers is remembered at least this long, for followers that were away.
const COVERED_KEPT_MIN: Duration = Duration::from_secs(6 * 3600);
/// A follower that does not answer a release in this time asks by itself later.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocks built at once; each takes its pass of memory.
const BUILDS_AT_ONCE: usize = 1;

/// Cuts heads, builds and stores their blocks, clears old ones, and takes over from primaries that are gone.
/// Ends when told to; flushes under way are given up then and done again by the next process.
pub(crate) async fn run(ingester: Arc<Ingester>, pool: Arc<ClientPool>, stop: CancellationToken) -> anyhow::Result<()> {
    let _over = ingester.flushing_over.clone().drop_guard();
    let mut takeover = Takeover::default();
    let mut flushes: JoinSet<Arc<Head>> = JoinSet::new();
    let mut under_way: Vec<Arc<Head>> = Vec::new();
    let builds = Arc::new(Semaphore::new(BUILDS_AT_ONCE));
    let mut tick = tokio::time::interval(ingester.settings.flush_check_period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut is_tick = false;
        tokio::select! {
            _ = tick.tick() => is_tick = true,
            () = ingester.flush_wanted.notified() => {}
            Some(flushed) = flushes.join_next() => {
                let head = flushed.context("a flush panicked")?;
                under_way.retain(|h| !Arc::ptr_eq(h, &head));
            }
            () = stop.cancelled() => return Ok(()),
        }
        cut_due(&ingester);
        for (tenant, head) in sealed(&ingester) {
            if flushes.len() >= ingester.settings.concurrent_flushes {
                break;
            }
            if under_way.iter().any(|h| Arc::ptr_eq(h, &head)) {
                continue;
            }
            under_way.push(Arc::clone(&head));
            let flush = Flush {
                ingester: Arc::clone(&ingester),
                pool: Arc::clone(&pool),
                builds: Arc::clone(&builds),
                stop: stop.clone(),
                tenant,
                head,
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

/// Heads that wait to be flushed, oldest first within a tenant.
fn sealed(ingester: &Ingester) -> Vec<(Arc<Tenant>, Arc<Head>)> {
    let tenants = ingester.live.tenants().into_iter();
    tenants.flat_map(|tenant| tenant.sealed().into_iter().map(move |head| (Arc::clone(&tenant), head))).collect()
}

/// Closes the heads that are large or old enough, and the largest ones when memory runs short.
fn cut_due(ingester: &Ingester) {
    let now = clock::unix_seconds();
    let settings = &ingester.settings;
    let mut open: Vec<(Arc<Tenant>, HeadSize)> = Vec::new();
    for tenant in ingester.live.tenants() {
        let size = tenant.open_size();
        if is_due(size, now, settings.max_block_bytes, settings.max_block_duration) {
            tenant.cut();
        } else if size.segments > 0 {
            open.push((tenant, size));
        }
    }
    // What is sealed is on its way out already; only what is open can be asked to go.
    let share = settings.live_memory_bytes_max / 4;
    let mut open_bytes: u64 = open.iter().map(|(_, size)| size.memory_bytes).sum();
    open.sort_by_key(|(_, size)| size.memory_bytes);
    while open_bytes > share
        && ingester.live.memory_bytes() > settings.live_memory_bytes_max / 2
        && let Some((tenant, size)) = open.pop()
    {
        tracing::warn!(tenant = %tenant.id, memory_bytes = size.memory_bytes, "block cut early, the index of live spans takes half of its memory");
        tenant.cut();
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
    for tenant in ingester.live.tenants() {
        let limits = ingester.trace_limits(&tenant.id);
        let live = tenant.sweep(now, settings.trace_idle_period, settings.trace_live_period, limits);
        let name = tenant.id.to_string();
        metrics::gauge!("tempo_ingester_live_traces", "tenant" => name.clone()).set(live as f64);
        let bytes: u64 = tenant.view().heads.iter().map(|h| h.size().uncompressed_bytes).sum();
        metrics::gauge!("tempo_ingester_live_trace_bytes", "tenant" => name).set(bytes as f64);
    }
    let held: usize = ingester.held.summary().iter().map(|h| h.segments).sum();
    metrics::gauge!("vivace_ingester_held_segments").set(held as f64);
    ingester.report_under_replicated();
    metrics::gauge!("vivace_ingester_log_size_bytes").set(ingester.log.bytes() as f64);
    metrics::gauge!("vivace_memory_bytes", "account" => "live_spans").set(ingester.live.memory_bytes() as f64);
    metrics::gauge!("tempo_ingester_flush_queue_length").set(sealed(ingester).len() as f64);
    ingester.clear(now);
    let kept = COVERED_KEPT_MIN.max(settings.max_block_duration * 4);
    if let Err(error) = ingester.ledger.forget(now.saturating_sub(kept.as_secs())) {
        tracing::warn!(%error, "ledger keeps what it could forget");
    }
}

/// One head's way into the bucket.
struct Flush {
    ingester: Arc<Ingester>,
    pool: Arc<ClientPool>,
    builds: Arc<Semaphore>,
    stop: CancellationToken,
    tenant: Arc<Tenant>,
    head: Arc<Head>,
}

impl Flush {
    /// Tries until it is done or the process stops. A stopped flush leaves everything as it was.
    async fn run(self) -> Arc<Head> {
        let block = BlockId(uuid::Uuid::new_v4().into_bytes());
        let tenant = self.tenant.id.clone();
        let mut wait = RETRY_WAIT_MIN;
        let mut built: Option<Built> = None;
        loop {
            let started = std::time::Instant::now();
            // A fault of ours must not keep what else is live from the bucket, nor end the process, which would meet it again.
            let attempt = AssertUnwindSafe(self.attempt(block, &mut built)).catch_unwind().await;
            match attempt.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))) {
                Ok(()) => {
                    metrics::histogram!("tempo_ingester_flush_duration_seconds").record(started.elapsed().as_secs_f64());
                    return self.head;
                }
                Err(_) if self.stop.is_cancelled() => return self.head,
                Err(error) => {
                    metrics::counter!("tempo_ingester_failed_flushes_total").increment(1);
                    if wait > RETRY_WAIT_MIN {
                        metrics::counter!("tempo_ingester_flush_failed_retries_total").increment(1);
                    }
                    tracing::error!(%tenant, block_id = %block, error = format!("{error:#}"), retry_seconds = wait.as_secs(), "block not flushed");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return self.head,
            }
            metrics::counter!("tempo_ingester_flush_retries_total").increment(1);
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
    }

    async fn attempt(&self, block: BlockId, built: &mut Option<Built>) -> anyhow::Result<()> {
        if !self.ingester.settings.flush_object_storage {
            return self.age_out().await;
        }
        if built.is_none() {
            *built = Some(self.build(block).await?);
        }
        if let Some(Built { block: Some(Block { meta, data, blooms, index }), .. }) = built.as_ref() {
            let upload = self.ingester.bucket.put_block(meta, data, blooms.clone(), index.clone());
            let max = self.ingester.settings.flush_op_timeout;
            tokio::select! {
                stored = tokio::time::timeout(max, upload) => stored.with_context(|| format!("bucket took longer than {max:?}"))??,
                () = self.stop.cancelled() => anyhow::bail!("the process is stopping"),
            }
        }
        let Some(ready) = built.take() else { return Ok(()) };
        self.stored(ready).await
    }

    async fn build(&self, block: BlockId) -> anyhow::Result<Built> {
        let _permit = self.builds.acquire().await.context("builds are over")?;
        let (ingester, tenant, head, stop) =
            (Arc::clone(&self.ingester), self.tenant.id.clone(), Arc::clone(&self.head), self.stop.clone());
        let built = spawn_blocking(move || {
            let slack = u64::try_from(ingester.settings.slack.as_nanos()).unwrap_or(u64::MAX);
            build(&BuildJob {
                tenant: &tenant,
                block,
                head: &head,
                blocks: &ingester.settings.building_folder(),
                options: ingester.block_options(&tenant),
                latest_end_unix_nanos: clock::unix_nanos().saturating_add(slack),
                is_stopped: &|| stop.is_cancelled(),
            })
        });
        Ok(built.await.context("the build panicked")??)
    }

    /// The block is in the bucket: records it, forgets the segments, tells the followers.
    async fn stored(&self, built: Built) -> anyhow::Result<()> {
        let Built { block, folder, unreadable } = built;
        let (ingester, tenant, head) = (Arc::clone(&self.ingester), Arc::clone(&self.tenant), Arc::clone(&self.head));
        let (served, covers) = spawn_blocking(move || {
            let now = clock::unix_seconds();
            let segments: Vec<_> = head.segments().into_iter().filter(|s| !unreadable.iter().any(|u| Arc::ptr_eq(u, s))).collect();
            let covers = covers(&segments);
            let served = block.map(|block| {
                let meta = block.meta;
                tracing::info!(tenant = %tenant.id, block_id = %meta.block_id, traces = meta.total_objects, size_bytes = meta.size_bytes,
                    segments = segments.len(), "block flushed");
                metrics::counter!("tempo_ingester_blocks_flushed_total").increment(1);
                metrics::histogram!("tempo_ingester_flush_size_bytes").record(meta.size_bytes as f64);
                Arc::new(ServedBlock { meta, flushed_unix_seconds: now, writer: Arc::clone(&ingester.id) })
            });
            if let Err(error) = ingester.ledger.flushed(served.as_deref(), &covers, now) {
                tracing::error!(%error, "flushed block not in the ledger: after a restart its segments may be flushed again");
            }
            ingester.live.replace(&tenant, &head, served.clone());
            ingester.forget_records(&segments);
            ingester.report_under_replicated();
            // What is left is removed at the next start.
            let _ = std::fs::remove_dir_all(folder);
            (served, covers)
        })
        .await
        .context("recording a block panicked")?;
        // The block first: a follower that has dropped its segments can then answer from it.
        self.ingester.share(&self.pool, served.as_slice()).await;
        for (primary, set) in covers {
            self.tell_followers(&primary, &set).await;
        }
        self.ingester.flushed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Tries once: a follower that does not hear of it asks later.
    async fn tell_followers(&self, primary: &str, covered: &SegmentSet) {
        let snapshot = self.ingester.ring.snapshot();
        for follower in snapshot.followers(primary, self.ingester.settings.replication_factor) {
            if *follower.id == *self.ingester.id {
                continue;
            }
            let told = async {
                let channel = self.pool.channel(&follower.addr)?;
                let mut client = SegmentLogClient::new(channel);
                tokio::time::timeout(RELEASE_TIMEOUT, client.release(release_request(primary, covered))).await??;
                anyhow::Ok(())
            };
            if let Err(error) = told.await {
                tracing::warn!(follower = follower.id, primary, error = format!("{error:#}"), "follower not told of a flushed block");
            }
        }
    }

    /// Without a bucket to flush to, a head is served as long as its block would be, and then dropped.
    async fn age_out(&self) -> anyhow::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(self.ingester.settings.complete_block_timeout) => {}
            () = self.stop.cancelled() => anyhow::bail!("the process is stopping"),
        }
        let (ingester, tenant, head) = (Arc::clone(&self.ingester), Arc::clone(&self.tenant), Arc::clone(&self.head));
        let dropped = move || {
            let segments = head.segments();
            if let Err(error) = ingester.ledger.flushed(None, &covers(&segments), clock::unix_seconds()) {
                tracing::warn!(%error, "dropped segments not in the ledger: after a restart they are served again");
            }
            ingester.live.replace(&tenant, &head, None);
            ingester.forget_records(&segments);
        };
        spawn_blocking(dropped).await.context("dropping a block panicked")?;
        self.ingester.flushed.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// Segments by primary.
fn covers(segments: &[Arc<Segment>]) -> BTreeMap<Arc<str>, SegmentSet> {
    let mut covers: BTreeMap<Arc<str>, SegmentSet> = BTreeMap::new();
    for segment in segments {
        covers.entry(Arc::clone(&segment.header.primary)).or_default().insert(segment.header.id);
    }
    covers
}

impl Ingester {
    /// Closes the head of one tenant, or of all, so that it is flushed. False when the tenant is not known here.
    pub(crate) fn cut(&self, tenant: Option<&TenantId>) -> bool {
        let tenants = match tenant {
            Some(tenant) => self.live.get(tenant).into_iter().collect(),
            None => self.live.tenants(),
        };
        for tenant in &tenants {
            tenant.cut();
        }
        self.flush_wanted.notify_one();
        tenant.is_none() || !tenants.is_empty()
    }

    /// Publishes how many segments have lost a copy and are not in the bucket yet.
    pub(crate) fn report_under_replicated(&self) {
        metrics::gauge!("vivace_ingester_under_replicated_segments").set(self.live.under_replicated() as f64);
    }

    /// Flushes everything that is live; comes back when it is in the bucket, or when nothing flushes any more.
    pub(crate) async fn flush_everything(&self) {
        let mut flushed = self.flushed.subscribe();
        self.cut(None);
        while self.live.tenants().iter().any(|t| !t.sealed().is_empty()) {
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
