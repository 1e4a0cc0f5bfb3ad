//! The way of some heads into the bucket: built, stored, noted and told. A step that fails is tried again, and one that was done is not
//! done again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use vivace_core::BlockId;
use vivace_server::clock;

use super::build::{Block, BuildJob, Built, build};
use super::{Flusher, TOGETHER_BYTES_MAX};
use crate::metrics::{BLOCKS_FLUSHED, FAILED_FLUSH_RETRIES, FAILED_FLUSHES, FLUSH_DURATION, FLUSH_RETRIES, FLUSH_SIZE};
use crate::store::{Flushed, FlushedHead, Sealed};

/// First wait after a failed flush; doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failed flush.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(120);
/// A part of the log that cannot be read still after so many failures does not keep the rest of its block from the bucket.
const READ_FAILURES_MAX: u32 = 5;
/// Small blocks that one flush stores at once.
const STORED_AT_ONCE: usize = 16;

/// The way of some heads into the bucket.
pub(super) struct Flush {
    flusher: Arc<Flusher>,
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
    /// `builds` bounds how many blocks are built at once.
    pub(super) fn new(flusher: &Arc<Flusher>, builds: &Arc<Semaphore>, stop: &CancellationToken, heads: Vec<Sealed>) -> Self {
        Self {
            flusher: Arc::clone(flusher),
            builds: Arc::clone(builds),
            stop: stop.clone(),
            heads: heads.into_iter().map(Flushing::new).collect(),
        }
    }

    /// Tries until all are done or the process stops. A stopped flush leaves everything as it was.
    pub(super) async fn run(mut self) {
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
        if !self.flusher.settings.flush_object_storage {
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
        let (flusher, stop) = (Arc::clone(&self.flusher), self.stop.clone());
        let built = spawn_blocking(move || {
            let _permit = permit;
            let each = |mut head: Flushing| {
                let built = match head.built.take() {
                    Some(built) => Ok(built),
                    None => build_one(&flusher, &head, &stop, Vec::new()).map(|built| with_data(built, |data| Data::Memory(data.into()))),
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
        let (writer, upload) = self.flusher.bucket.stream_data(&head.sealed.tenant.id, head.block);
        let (flusher, stop) = (Arc::clone(&self.flusher), self.stop.clone());
        let job = Flushing { sealed: head.sealed.clone(), block: head.block, failures: head.failures, built: None };
        let building = spawn_blocking(move || {
            // Held until the memory is free, whoever still waits for the block.
            let _permit = permit;
            let Built { block, unreadable } = build_one(&flusher, &job, &stop, writer)?;
            let block = match block {
                Some(Block { meta, blooms, index, data }) => {
                    data.finish()?;
                    Some(Block { meta, blooms, index, data: Data::Bucket })
                }
                None => None,
            };
            anyhow::Ok(Built { block, unreadable })
        });
        let max = self.flusher.settings.flush_op_timeout;
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
        let bucket = &self.flusher.bucket;
        let storing = async {
            match data {
                Data::Memory(data) => bucket.put_block_from_memory(meta, data.clone(), blooms, index).await,
                Data::Bucket => bucket.finish_block(meta, blooms, index).await,
            }
        };
        let max = self.flusher.settings.flush_op_timeout;
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

    /// The blocks are in the bucket: notes that, forgets the segments, tells the followers.
    async fn stored(&self, heads: Vec<Flushing>) {
        let flusher = Arc::clone(&self.flusher);
        let noted = spawn_blocking(move || {
            let heads = heads.into_iter().map(Flushing::into_flushed).collect();
            flusher.store.flushed(heads, clock::unix_seconds())
        });
        match noted.await {
            Ok(Flushed { served, covered }) => {
                // The blocks first: a follower that has dropped its segments can then answer from them.
                self.flusher.succession.hand_over(&served).await;
                self.flusher.succession.release(&covered).await;
            }
            Err(error) => tracing::error!(%error, "recording flushed blocks failed: after a restart their segments are flushed again"),
        }
        self.flusher.done.send_modify(|count| *count += 1);
    }

    /// Without a bucket to flush to, heads are served as long as their blocks would be, and then dropped.
    async fn age_out(&self, heads: Vec<Flushing>) -> Vec<(Flushing, anyhow::Error)> {
        tokio::select! {
            () = tokio::time::sleep(self.flusher.settings.complete_block_timeout) => {}
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
fn build_one<W: std::io::Write + Send>(flusher: &Flusher, head: &Flushing, stop: &CancellationToken, data: W) -> anyhow::Result<Built<W>> {
    let Sealed { tenant, head: contents } = &head.sealed;
    let job = BuildJob {
        tenant: &tenant.id,
        block: head.block,
        head: contents,
        options: flusher.limits.block_options(&tenant.id),
        now_unix_nanos: clock::unix_nanos(),
        slack_nanos: flusher.settings.slack_nanos(),
        leave_out_unread: head.failures >= READ_FAILURES_MAX,
        is_stopped: &|| stop.is_cancelled(),
    };
    match catch_unwind(AssertUnwindSafe(|| build(&job, data))) {
        Ok(built) => Ok(built?),
        Err(_) => anyhow::bail!("the build panicked"),
    }
}
