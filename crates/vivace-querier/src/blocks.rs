//! Looks into blocks of the bucket.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use rustc_hash::FxHashSet;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockMeta, BlockReader, ReadAt};
use vivace_core::budget::{Budget, Charge};
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_proto::otlp::ResourceSpans;
use vivace_proto::tempopb::{Trace, TraceByIdMetrics, TraceByIdResponse};
use vivace_proto::vivace::v1::{BlockPart, FindInBlocks};
use vivace_storage::{Blocklist, Bucket, BucketError, Poller, overlaps};

use crate::JobError;
use crate::error::BlockFault;
use crate::trace_ids::TraceIds;

/// Blocks that one lookup by trace id looks into at the same time.
const BLOCKS_AT_ONCE: usize = 16;

/// For so few ids a block's bloom filter is read before its ids are.
const IDS_BY_BLOOM: usize = 32;

/// The bucket, as jobs see it.
pub(crate) struct Blocks {
    bucket: Bucket,
    poller: Poller,
    blocklist: Blocklist,
    ids: Arc<TraceIds>,
    pub(crate) budget: Budget,
    /// Bounds the threads that read and decode.
    cpu: Arc<Semaphore>,
}

/// A result, and what is missing in it.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) result: T,
    pub(crate) warnings: Vec<String>,
}

impl Blocks {
    pub(crate) fn new(bucket: Bucket, poller: Poller, threads: usize, budget: &Budget) -> Self {
        bucket.charge_caches(budget);
        let ids = Arc::new(TraceIds::within(budget));
        Self { bucket, blocklist: poller.blocklist(), poller, ids, budget: budget.clone(), cpu: Arc::new(Semaphore::new(threads.max(1))) }
    }

    /// The parts of a trace in the live and lately compacted blocks of a range of ids.
    pub(crate) async fn find(&self, tenant: &TenantId, job: &FindInBlocks) -> Result<(Found<TraceByIdResponse>, Vec<Charge>), JobError> {
        let id = trace_id(&job.trace_id)?;
        let (first, last) = (block_id("first_block", &job.first_block)?, block_id("last_block", &job.last_block)?);
        if let Err(error) = self.poller.ensure(tenant).await {
            return Err(JobError::Unavailable(format!("could not list the blocks of tenant {tenant}: {error}")));
        }
        let range = TimeRange::of_request(job.start, job.end);
        let live = self.blocklist.live(tenant);
        let compacted = self.blocklist.recently_compacted(tenant);
        let candidates = live.iter().chain(&compacted).filter(|m| first <= m.block_id && m.block_id <= last && overlaps(m, range));
        let mut looks = futures::stream::iter(candidates.cloned().collect::<Vec<_>>())
            .map(|meta| async move {
                let found = self.find_in_block(&meta, id).await;
                (meta, found)
            })
            .buffer_unordered(BLOCKS_AT_ONCE);
        let (mut parts, mut warnings, mut inspected_bytes, mut held) = (Vec::new(), Vec::new(), 0, Vec::new());
        while let Some((meta, found)) = looks.next().await {
            match found? {
                Ok((part, bytes)) => {
                    if let Some((part, charge)) = part {
                        parts.push(part);
                        held.push(charge);
                    }
                    inspected_bytes += bytes;
                }
                Err(fault) => warnings.push(skipped(&meta, fault)?),
            }
        }
        let trace = Trace { resource_spans: vivace_core::combine::combine(parts) };
        let metrics = Some(TraceByIdMetrics { inspected_bytes });
        let result = TraceByIdResponse { trace: Some(trace), metrics, ..Default::default() };
        Ok((Found { result, warnings }, held))
    }

    async fn find_in_block(
        &self,
        meta: &BlockMeta,
        id: TraceId,
    ) -> Result<Result<(Option<(Vec<ResourceSpans>, Charge)>, u64), BlockFault>, JobError> {
        match self.bucket.bloom_may_contain(meta, id).await {
            Ok(true) => {}
            Ok(false) => return Ok(Ok((None, 0))),
            // A filter only saves work: without it the block is looked into.
            Err(error) => match BlockFault::from(error) {
                BlockFault::Broken(reason) => {
                    vivace_storage::report_bad_object(&meta.tenant_id, &meta.block_id.to_string(), &reason);
                }
                unavailable @ BlockFault::Unavailable(_) => return Ok(Err(unavailable)),
            },
        }
        let mut charge = vivace_server::room_for_lookup(&self.budget, 0, true).await?;
        let found = self.with_block(meta.clone(), move |block, _| Ok(block.find(id, None)?)).await?;
        let Ok((Some(part), bytes)) = found else { return Ok(found.map(|(_, bytes)| (None, bytes))) };
        charge.resize(vivace_server::lookup_bytes(part.iter().map(prost::Message::encoded_len)))?;
        Ok(Ok((Some((part, charge)), bytes)))
    }

    /// Opens the block on a thread that may block, and works there. Gives the bytes that were read too.
    ///
    /// When the caller is dropped the work is told by its token, and ends at its next look.
    pub(crate) async fn with_block<T: Send + 'static>(
        &self,
        meta: BlockMeta,
        work: impl FnOnce(&Arc<BlockReader>, &CancellationToken) -> Result<T, BlockFault> + Send + 'static,
    ) -> Result<Result<(T, u64), BlockFault>, JobError> {
        let permit = self.cpu.clone().acquire_owned().await.map_err(|e| JobError::Internal(e.to_string()))?;
        let cancelled = CancellationToken::new();
        let _cancel_on_drop = cancelled.clone().drop_guard();
        let block = meta.block_id;
        let source = Arc::new(MeteredSource { source: self.bucket.reader(&meta), bytes: AtomicU64::new(0) });
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let reader = Arc::new(BlockReader::open(meta, source.clone())?);
            let result = work(&reader, &cancelled)?;
            Ok((result, source.bytes.load(Ordering::Relaxed)))
        });
        done.await.map_err(|e| JobError::Internal(format!("block {block}: {e}")))
    }

    /// Works in a block that is open already, as [`Blocks::with_block`] does.
    pub(crate) async fn with_reader<T: Send + 'static>(
        &self,
        reader: &Arc<BlockReader>,
        work: impl FnOnce(&BlockReader, &CancellationToken) -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let reader = reader.clone();
        self.work(move |cancelled| work(&reader, cancelled)).await
    }

    /// Works on a thread that may block, as [`Blocks::with_block`] does.
    pub(crate) async fn work<T: Send + 'static>(&self, work: impl FnOnce(&CancellationToken) -> T + Send + 'static) -> Result<T, JobError> {
        let permit = self.cpu.clone().acquire_owned().await.map_err(|e| JobError::Internal(e.to_string()))?;
        let cancelled = CancellationToken::new();
        let _cancel_on_drop = cancelled.clone().drop_guard();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&cancelled)
        });
        done.await.map_err(|e| JobError::Internal(e.to_string()))
    }

    /// Those of `ids`, ascending, that a block has, and the bytes that were read to know.
    pub(crate) async fn having(&self, meta: BlockMeta, ids: Arc<[TraceId]>) -> Result<Result<(Vec<TraceId>, u64), BlockFault>, JobError> {
        let mut ids = ids;
        if ids.len() <= IDS_BY_BLOOM && !self.ids.knows(&meta.tenant_id, meta.block_id) {
            let mut may_be_there = Vec::new();
            for id in &*ids {
                // Without a filter the ids themselves are read.
                if self.bucket.bloom_may_contain(&meta, *id).await.unwrap_or(true) {
                    may_be_there.push(*id);
                }
            }
            if may_be_there.is_empty() {
                return Ok(Ok((Vec::new(), 0)));
            }
            ids = may_be_there.into();
        }
        let permit = self.cpu.clone().acquire_owned().await.map_err(|e| JobError::Internal(e.to_string()))?;
        let source = Arc::new(MeteredSource { source: self.bucket.reader(&meta), bytes: AtomicU64::new(0) });
        let (cache, block) = (self.ids.clone(), meta.block_id);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let found = cache.find(&ids, &meta.tenant_id, meta.block_id, || BlockReader::open(meta.clone(), source.clone()))?;
            Ok((found, source.bytes.load(Ordering::Relaxed)))
        });
        done.await.map_err(|e| JobError::Internal(format!("block {block}: {e}")))
    }

    /// Those metas that this querier's blocklist has, live or compacted.
    pub(crate) fn known_metas(&self, tenant: &TenantId, blocks: &FxHashSet<BlockId>) -> Vec<BlockMeta> {
        let (live, compacted) = (self.blocklist.live(tenant), self.blocklist.compacted(tenant));
        let metas = live.iter().chain(compacted.iter().map(|block| &block.meta));
        metas.filter(|meta| blocks.contains(&meta.block_id)).cloned().collect()
    }

    /// A block's meta, live or compacted, as the bucket has it.
    pub(crate) async fn meta(&self, tenant: &TenantId, block: BlockId) -> Result<BlockMeta, BucketError> {
        match self.bucket.meta(tenant, block).await {
            Err(BucketError::Gone { .. }) => self.bucket.compacted_meta(tenant, block).await,
            meta => meta,
        }
    }
}

/// The warning for a block that could not be read, which is also counted and logged; an error where another try may help.
pub(crate) fn skipped(meta: &BlockMeta, fault: BlockFault) -> Result<String, JobError> {
    match fault {
        BlockFault::Unavailable(reason) => Err(JobError::Unavailable(reason)),
        BlockFault::Broken(reason) => {
            let key = format!("{}/{}/{}", meta.tenant_id, meta.block_id, vivace_block::objects::DATA);
            vivace_storage::report_bad_object(&meta.tenant_id, &key, &reason);
            Ok(format!("skipped {key}: {reason}"))
        }
    }
}

/// The meta that travelled with a job, and the row groups it names.
pub(crate) fn part(tenant: &TenantId, part: Option<&BlockPart>) -> Result<(BlockMeta, Range<usize>), JobError> {
    let part = part.ok_or_else(|| JobError::Invalid("the job names no block".to_owned()))?;
    let meta = BlockMeta::from_json(&part.meta_json, "the job").map_err(|e| JobError::Invalid(e.to_string()))?;
    if meta.tenant_id != *tenant {
        return Err(JobError::Invalid(format!("a job of tenant {tenant} names a block of tenant {}", meta.tenant_id)));
    }
    let first = part.first_row_group as usize;
    let end = if part.row_groups == 0 { usize::MAX } else { first.saturating_add(part.row_groups as usize) };
    Ok((meta, first..end))
}

pub(crate) fn trace_id(bytes: &[u8]) -> Result<TraceId, JobError> {
    if bytes.is_empty() || bytes.len() > 16 {
        return Err(JobError::Invalid(format!("a trace id has 1 to 16 bytes, this one has {}", bytes.len())));
    }
    Ok(TraceId::from_slice(bytes))
}

fn block_id(field: &str, bytes: &[u8]) -> Result<BlockId, JobError> {
    let id = bytes.try_into().map_err(|_| JobError::Invalid(format!("{field} has {} bytes, expected 16", bytes.len())))?;
    Ok(BlockId(id))
}

/// Counts what is read.
struct MeteredSource {
    source: Arc<dyn ReadAt>,
    bytes: AtomicU64,
}

impl MeteredSource {
    fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl ReadAt for MeteredSource {
    fn read(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        self.count(range.end.saturating_sub(range.start));
        self.source.read(range)
    }

    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> std::io::Result<Vec<Bytes>> {
        self.count(ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum());
        self.source.read_many(ranges)
    }
}
