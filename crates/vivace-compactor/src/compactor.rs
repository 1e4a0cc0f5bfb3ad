//! The loops of compaction and retention, and everything that they change in the bucket. What is to be done is decided by
//! `select` and `retention`, on a list of blocks that may be as old as the last poll: before blocks are merged, and before the
//! merged one is stored, the bucket is asked whether they are still live.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockMeta, BlockOptions, MergedBlock, objects};
use vivace_config::{Compaction, Config, set_or};
use vivace_core::{BlockId, TenantId};
use vivace_server::{Overrides, clock};
use vivace_storage::{Blocklist, Bucket, BucketError, Change, TenantBlocks};

use crate::Owner;
use crate::merge::{self, Input, MergeError};
use crate::metrics::{
    BYTES_WRITTEN, COMPACTED_BLOCKS, COMPACTION_ERRORS, OBJECTS_COMBINED, OBJECTS_WRITTEN, OUTSTANDING_BLOCKS, RETENTION_DELETED,
    RETENTION_DURATION, RETENTION_ERRORS, RETENTION_MARKED, SPANS_COMBINED,
};
use crate::retention::{self, Action, DAY, Retention};
use crate::select::{self, Job, Limits};

/// Merges and deletes blocks of all tenants, as far as they are this process' own.
pub struct Compactor {
    bucket: Bucket,
    blocklist: Blocklist,
    owner: Owner,
    overrides: Arc<Overrides>,
    settings: Compaction,
    block: vivace_config::Block,
    work_dir: PathBuf,
    /// Blocks that could not be read: other blocks of their group are merged without them. Forgotten at a restart.
    bad: Mutex<FxHashSet<BlockId>>,
    /// When blocks were written that may be due for retention, unix nanoseconds. Metas are written once, so it is asked once.
    written: Mutex<FxHashMap<TenantId, FxHashMap<BlockId, u64>>>,
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// The inputs are one block now.
    Merged(Box<BlockMeta>),
    /// An input is not live any more, or must not be compacted: somebody else deals with it.
    Abandoned,
}

/// Why a job failed. Its inputs stay live, unless noted.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// No merged block.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The bucket failed. When the merged block is stored already, its spans are there twice until the next merge.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A bug in merging.
    #[error("merging panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

impl Compactor {
    /// `work_dir` takes the merged block while it grows; its old content is deleted.
    ///
    /// # Errors
    /// The folder cannot be made or emptied.
    pub fn new(
        config: &Config,
        bucket: Bucket,
        blocklist: Blocklist,
        owner: Owner,
        overrides: Arc<Overrides>,
        work_dir: PathBuf,
    ) -> std::io::Result<Self> {
        match std::fs::remove_dir_all(&work_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&work_dir)?;
        let (settings, block) = (config.compactor.compaction.clone(), config.storage.trace.block.clone());
        Ok(Self { bucket, blocklist, owner, overrides, settings, block, work_dir, bad: Mutex::default(), written: Mutex::default() })
    }

    /// Merges what can be merged, tenant after tenant, again and again until stopped.
    pub async fn run_compaction(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.settings.compaction_cycle);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            if !self.blocklist.is_polled() {
                continue;
            }
            for tenant in self.blocklist.tenants() {
                self.compact_tenant(&tenant, &stop).await;
                if stop.is_cancelled() {
                    return;
                }
            }
        }
    }

    /// Does the jobs of one tenant until none is left or its time is up.
    pub async fn compact_tenant(&self, tenant: &TenantId, stop: &CancellationToken) {
        let of_tenant = self.overrides.limits(tenant);
        if of_tenant.compaction.compaction_disabled {
            return;
        }
        let window = of_tenant.compaction.compaction_window;
        let limits = Limits {
            window: set_or(window, self.settings.compaction_window),
            max_objects: self.settings.max_compaction_objects,
            max_bytes: self.settings.max_block_bytes,
            retention: self.retention(&of_tenant).live,
        };
        let begun = Instant::now();
        let live = self.blocklist.live(tenant);
        let mut jobs = {
            let bad = self.bad.lock();
            select::select(live.iter().filter(|b| !bad.contains(&b.block_id)), limits, clock::unix_nanos())
        };
        jobs.retain(|job| self.owner.owns(&job.owner_key));
        let mut outstanding: usize = jobs.iter().map(|job| job.inputs.len()).sum();
        for job in jobs {
            if begun.elapsed() >= self.settings.max_time_per_tenant || stop.is_cancelled() {
                break;
            }
            outstanding -= job.inputs.len();
            if let Err(error) = self.compact(&job, stop).await {
                if matches!(&error, CompactError::Merge(merge) if merge.is_stop()) {
                    break;
                }
                metrics::counter!(COMPACTION_ERRORS.name).increment(1);
                tracing::error!(%tenant, error = &error as &dyn std::error::Error, "could not merge blocks; they stay as they are");
                if let CompactError::Merge(merge) = &error
                    && let Some(block) = merge.bad_input()
                {
                    self.bad.lock().insert(block);
                    vivace_storage::report_bad_object(tenant, &format!("{tenant}/{block}"), &merge.to_string());
                }
            }
        }
        metrics::gauge!(OUTSTANDING_BLOCKS.name, "tenant" => tenant.to_string()).set(outstanding as f64);
    }

    /// Merges the inputs of one job: stores the merged block first, and marks its inputs only then.
    ///
    /// # Errors
    /// [`CompactError`]
    pub async fn compact(&self, job: &Job, stop: &CancellationToken) -> Result<Outcome, CompactError> {
        let Some(first) = job.inputs.first() else { return Ok(Outcome::Abandoned) };
        let tenant = &first.tenant_id;
        if !self.still_live(job).await? {
            return Ok(Outcome::Abandoned);
        }
        let imported_unix_nanos = self.imported_unix_nanos(job).await?;
        let block_id = BlockId(uuid::Uuid::new_v4().into_bytes());
        let file = Scratch(self.work_dir.join(format!("{block_id}.parquet")));
        let options = BlockOptions {
            dedicated_columns: first.dedicated_columns.clone(),
            bloom_false_positive: self.block.bloom_filter_false_positive,
            bloom_shard_size_bytes: self.block.bloom_filter_shard_size_bytes,
            row_group_size_bytes: self.block.parquet_row_group_size_bytes,
            compaction_level: job.inputs.iter().map(|b| b.compaction_level).max().unwrap_or_default().saturating_add(1),
            replication_factor: first.replication_factor,
            ..BlockOptions::default()
        };
        let inputs = job.inputs.iter().map(|meta| Input { meta: meta.clone(), source: self.bucket.reader(meta) }).collect();
        let (path, stopped) = (file.0.clone(), stop.clone());
        let MergedBlock { block, traces_combined, spans_combined } =
            tokio::task::spawn_blocking(move || merge::merge(inputs, options, block_id, &path, &stopped))
                .await
                .map_err(CompactError::Panicked)??;
        // A merge can take long; what another has done meanwhile is not done again.
        if stop.is_cancelled() || !self.owner.owns(&job.owner_key) || !self.still_live(job).await? {
            return Ok(Outcome::Abandoned);
        }
        let mut meta = block.meta;
        meta.end_unix_nanos = meta.end_unix_nanos.max(imported_unix_nanos);
        self.bucket.put_block(&meta, &file.0, block.blooms, block.index).await?;
        let mut change = Change { added: vec![meta.clone()], ..Change::default() };
        let mut failed = None;
        for input in &job.inputs {
            match self.bucket.mark_compacted(tenant, input.block_id).await {
                Ok(()) | Err(BucketError::Gone { .. }) => change.compacted.push(input.block_id),
                Err(error) => failed = Some(error),
            }
        }
        self.blocklist.apply(tenant, change);
        count(&meta, job, traces_combined, spans_combined);
        tracing::info!(
            %tenant,
            block_id = %meta.block_id,
            level = meta.compaction_level,
            inputs = job.inputs.len(),
            traces = meta.total_objects,
            bytes = meta.size_bytes,
            spans_combined,
            "merged blocks"
        );
        failed.map_or(Ok(Outcome::Merged(Box::new(meta))), |error| Err(error.into()))
    }

    /// When the last import among the inputs came in, unix nanoseconds; 0: there is none. Their retention counts from then,
    /// and what is merged of them is written later, so it is kept in the times of the merged block.
    async fn imported_unix_nanos(&self, job: &Job) -> Result<u64, BucketError> {
        let now = clock::unix_nanos();
        let mut imported = 0;
        for input in job.inputs.iter().filter(|input| input.compaction_level == 0 && input.end_unix_nanos < now.saturating_sub(DAY)) {
            let retention = self.retention(&self.overrides.limits(&input.tenant_id)).live;
            let written = match self.bucket.written_unix_nanos(&input.tenant_id, input.block_id, objects::META).await {
                Ok(written) => written,
                Err(BucketError::Gone { .. }) => continue,
                Err(error) => return Err(error),
            };
            let begins = retention::begins(input, written, retention);
            if begins > input.end_unix_nanos {
                imported = imported.max(begins.min(now));
            }
        }
        Ok(imported)
    }

    async fn still_live(&self, job: &Job) -> Result<bool, BucketError> {
        for input in &job.inputs {
            let (tenant, block) = (&input.tenant_id, input.block_id);
            match self.bucket.meta(tenant, block).await {
                Ok(_) if self.bucket.must_not_compact(tenant, block).await? => return Ok(false),
                Ok(_) => {}
                Err(BucketError::Gone { .. }) => {
                    // The list is old: do not select it again before the next poll.
                    self.blocklist.apply(tenant, Change { compacted: vec![block], ..Change::default() });
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Applies retention once per poll interval until stopped.
    pub async fn run_retention(&self, interval: Duration, stop: CancellationToken) {
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Nothing is old before the first look.
        tokio::select! {
            () = self.blocklist.polled_once() => {}
            () = stop.cancelled() => return,
        }
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            let begun = Instant::now();
            let tenants = self.blocklist.tenants();
            self.written.lock().retain(|tenant, _| tenants.binary_search(tenant).is_ok());
            let work = futures::stream::iter(tenants)
                .map(|tenant| async move { self.retain_tenant(&tenant).await })
                .buffer_unordered(self.settings.retention_concurrency.max(1))
                .collect::<()>();
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => return,
            }
            metrics::histogram!(RETENTION_DURATION.name).record(begun.elapsed().as_secs_f64());
        }
    }

    /// A tenant's own retention, where it has one.
    fn retention(&self, limits: &vivace_config::Limits) -> Retention {
        let own = limits.compaction.block_retention;
        Retention { live: set_or(own, self.settings.block_retention), compacted: self.settings.compacted_block_retention }
    }

    /// When the metas of some blocks were written: from memory, else from the bucket. What is missing could not be found out,
    /// or is for another to decide.
    async fn written(&self, tenant: &TenantId, blocks: &TenantBlocks, mut of: FxHashSet<BlockId>) -> FxHashMap<BlockId, u64> {
        of.retain(|block| self.owner.owns(&block.to_string()));
        if of.is_empty() {
            self.written.lock().remove(tenant);
            return FxHashMap::default();
        }
        let compacted: FxHashSet<BlockId> = blocks.compacted.iter().map(|block| block.meta.block_id).collect();
        let mut known = self.written.lock().get(tenant).cloned().unwrap_or_default();
        // What is known of a block was perhaps found out when it was live.
        known.retain(|block, _| !compacted.contains(block) && of.remove(block));
        for block in of {
            let name = if compacted.contains(&block) { objects::META_COMPACTED } else { objects::META };
            match self.bucket.written_unix_nanos(tenant, block, name).await {
                Ok(written) => drop(known.insert(block, written)),
                // Marked or deleted by another; the next poll will show it.
                Err(BucketError::Gone { .. }) => {}
                Err(error) => {
                    metrics::counter!(RETENTION_ERRORS.name).increment(1);
                    tracing::error!(%tenant, block_id = %block, error = &error as &dyn std::error::Error, "could not find out how old a block is; it stays");
                }
            }
        }
        self.written.lock().insert(tenant.clone(), known.clone());
        known
    }

    /// Marks a tenant's expired blocks, and deletes those that were marked long enough ago.
    pub async fn retain_tenant(&self, tenant: &TenantId) {
        let limits = self.overrides.limits(tenant);
        if limits.compaction.compaction_disabled {
            return;
        }
        let retention = self.retention(&limits);
        let Some(blocks) = self.blocklist.blocks(tenant) else { return };
        let now = clock::unix_nanos();
        let written = self.written(tenant, &blocks, retention::undecided(&blocks, retention, now)).await;
        for action in retention::plan(&blocks, retention, now, &written) {
            let block = action.block();
            if !self.owner.owns(&block.to_string()) {
                continue;
            }
            let result = match action {
                Action::Expire(_) => match self.bucket.mark_compacted(tenant, block).await {
                    Ok(()) | Err(BucketError::Gone { .. }) => Ok(Change { compacted: vec![block], ..Change::default() }),
                    Err(error) => Err(error),
                },
                Action::Delete(_) => {
                    self.bucket.delete_block(tenant, block).await.map(|()| Change { deleted: vec![block], ..Change::default() })
                }
            };
            match (result, action) {
                (Ok(change), Action::Expire(_)) => {
                    self.blocklist.apply(tenant, change);
                    metrics::counter!(RETENTION_MARKED.name).increment(1);
                    tracing::info!(%tenant, block_id = %block, "block is older than its retention");
                }
                (Ok(change), Action::Delete(_)) => {
                    self.blocklist.apply(tenant, change);
                    metrics::counter!(RETENTION_DELETED.name).increment(1);
                    tracing::info!(%tenant, block_id = %block, "deleted block");
                }
                (Err(error), _) => {
                    metrics::counter!(RETENTION_ERRORS.name).increment(1);
                    tracing::error!(%tenant, block_id = %block, error = &error as &dyn std::error::Error, "retention failed for a block");
                }
            }
        }
    }
}

fn count(meta: &BlockMeta, job: &Job, traces_combined: u64, spans_combined: u64) {
    let level = (meta.compaction_level - 1).to_string();
    metrics::counter!(COMPACTED_BLOCKS.name, "level" => level.clone()).increment(job.inputs.len() as u64);
    metrics::counter!(OBJECTS_WRITTEN.name, "level" => level.clone()).increment(meta.total_objects);
    metrics::counter!(BYTES_WRITTEN.name, "level" => level.clone()).increment(meta.size_bytes);
    metrics::counter!(OBJECTS_COMBINED.name, "level" => level).increment(traces_combined);
    let replication_factor = meta.replication_factor.to_string();
    metrics::counter!(SPANS_COMBINED.name, "replication_factor" => replication_factor).increment(spans_combined);
}

/// A file that is deleted with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "could not delete a merged block's file");
        }
    }
}
