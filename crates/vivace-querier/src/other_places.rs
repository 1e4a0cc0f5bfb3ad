//! The places beside the one that a job reads, and which of the job's traces are there too: those must be brought together before
//! they are judged as a whole.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_block::{BlockMeta, TracePart};
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_proto::vivace::v1::{BlockTraces, CountPlacesRequest, Places};
use vivace_storage::{BucketError, near_range};

use crate::JobError;
use crate::blocks::Blocks;
use crate::error::{BlockFault, add_new};
use crate::ingesters::Ingesters;
use crate::wire::packed;

/// Blocks whose ids are compared at the same time.
const BLOCKS_AT_ONCE: usize = 8;
/// Ids in one question to the ingesters: 1.6 MB.
const IDS_AT_ONCE: usize = 100_000;

/// The places beside the one that a job reads.
pub(crate) struct OtherPlaces<'a> {
    pub(crate) blocks: &'a Blocks,
    pub(crate) ingesters: &'a Ingesters,
    pub(crate) tenant: &'a TenantId,
    /// As the query sees them.
    pub(crate) places: &'a Places,
    /// How long an ingester may take.
    pub(crate) call: Duration,
}

/// Where the parts come from that are compared with other places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartsFrom {
    /// A block, which is not among [`Places::blocks`].
    Block,
    /// The ingesters themselves.
    Ingesters,
}

/// What [`OtherPlaces::also_have`] found.
#[derive(Debug, Default)]
pub(crate) struct InOtherPlaces {
    /// Traces that are split: other places have them too.
    pub(crate) traces: FxHashSet<TraceId>,
    /// Which of them each of the blocks has.
    pub(crate) in_blocks: Vec<BlockTraces>,
    pub(crate) warnings: Vec<String>,
    pub(crate) inspected_bytes: u64,
}

impl OtherPlaces<'_> {
    /// Those of `parts`, ascending by id, whose traces other places have too, exactly. Blocks are compared that are near the time of
    /// the parts.
    pub(crate) async fn also_have(&self, parts: &[TracePart], from: PartsFrom) -> Result<InOtherPlaces, JobError> {
        let mut also = InOtherPlaces::default();
        let (Some(start), Some(end)) = (parts.iter().map(|p| p.start_unix_nanos).min(), parts.iter().map(|p| p.end_unix_nanos).max())
        else {
            return Ok(also);
        };
        let ids: Vec<TraceId> = parts.iter().map(|part| part.trace_id).collect();
        let mut metas = self.blocks.metas(self.tenant, &self.places.blocks).await?;
        metas.retain(|meta| near_range(meta, TimeRange::between(start, end)));
        let in_blocks = self.blocks.all_holding(metas, &ids, &mut also.inspected_bytes);
        let (found, (in_ingesters, warnings)) = futures::try_join!(in_blocks, self.in_ingesters(&ids, from))?;
        for (meta, ids) in found {
            also.in_blocks.push(BlockTraces { block_id: meta.block_id.0.to_vec().into(), trace_ids: packed(&ids).into() });
            also.traces.extend(ids);
        }
        also.traces.extend(in_ingesters);
        also.warnings = warnings;
        Ok(also)
    }

    /// Traces that ingesters have too, with what may be missing.
    async fn in_ingesters(&self, ids: &[TraceId], from: PartsFrom) -> Result<(Vec<TraceId>, Vec<String>), JobError> {
        let mut found = Vec::new();
        let mut warnings = Vec::new();
        if !self.places.ingesters {
            return Ok((found, warnings));
        }
        // Where the parts come from is itself one of the places that ingesters count.
        let enough = if from == PartsFrom::Ingesters { 2 } else { 1 };
        for ids in ids.chunks(IDS_AT_ONCE) {
            let request =
                CountPlacesRequest { trace_ids: packed(ids).into(), known_blocks: self.places.known_blocks.clone(), answering: Vec::new() };
            let counted =
                self.ingesters.ask_recent(self.tenant, request, self.call, |mut c, r| async move { c.count_places(r).await }).await?;
            let mut sums = vec![0u32; ids.len()];
            for part in counted.parts {
                sums.iter_mut().zip(part.counts).for_each(|(sum, count)| *sum += u32::from(count));
            }
            found.extend(ids.iter().zip(sums).filter(|(_, sum)| *sum >= enough).map(|(id, _)| *id));
            add_new(&mut warnings, counted.warnings);
        }
        Ok((found, warnings))
    }
}

impl Blocks {
    /// The metas of blocks, 16 bytes each. Those that this querier has not heard of are looked up; those that are gone are left out.
    pub(crate) async fn metas(&self, tenant: &TenantId, blocks: &[u8]) -> Result<Vec<BlockMeta>, JobError> {
        let mut wanted: FxHashSet<BlockId> = blocks.as_chunks::<16>().0.iter().map(|id| BlockId(*id)).collect();
        let mut metas = self.known_metas(tenant, &wanted);
        for meta in &metas {
            wanted.remove(&meta.block_id);
        }
        for block in wanted {
            match self.meta(tenant, block).await {
                Ok(meta) => metas.push(meta),
                Err(BucketError::Gone { .. } | BucketError::Corrupt { .. }) => {}
                Err(error @ (BucketError::Unavailable { .. } | BucketError::LocalFile { .. })) => {
                    return Err(JobError::Unavailable(error.to_string()));
                }
            }
        }
        Ok(metas)
    }

    /// Those of some traces, ascending, that a block has.
    pub(crate) async fn holding(&self, meta: BlockMeta, ids: Arc<[TraceId]>, bytes: &mut u64) -> Result<Vec<TraceId>, JobError> {
        match self.having(meta, ids).await? {
            Ok((found, read)) => {
                *bytes += read;
                Ok(found)
            }
            Err(BlockFault::Unavailable(reason)) => Err(JobError::Unavailable(reason)),
            // Its own job says so, and no other finds anything in it.
            Err(BlockFault::Broken(reason)) => {
                tracing::debug!(reason, "a block's trace ids could not be compared");
                Ok(Vec::new())
            }
        }
    }

    /// Those of the blocks that have any of some traces, ascending, each with those that it has.
    pub(crate) async fn all_holding(
        &self,
        metas: Vec<BlockMeta>,
        ids: &[TraceId],
        bytes: &mut u64,
    ) -> Result<Vec<(BlockMeta, Vec<TraceId>)>, JobError> {
        let ids: Arc<[TraceId]> = ids.into();
        let looks = metas.into_iter().map(|meta| {
            let ids = ids.clone();
            async move {
                let mut read = 0;
                let held = self.holding(meta.clone(), ids, &mut read).await;
                (meta, held, read)
            }
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(BLOCKS_AT_ONCE);
        let mut holding = Vec::new();
        while let Some((meta, held, read)) = looks.next().await {
            *bytes += read;
            holding.push((meta, held?));
        }
        holding.retain(|(_, held)| !held.is_empty());
        // In whatever order they were looked at.
        holding.sort_unstable_by_key(|(meta, _)| meta.block_id);
        Ok(holding)
    }
}

/// Parts of traces from several answers, each trace once, ascending by id.
pub(crate) fn united(parts: impl IntoIterator<Item = TracePart>) -> Vec<TracePart> {
    let mut traces: FxHashMap<TraceId, TracePart> = FxHashMap::default();
    for part in parts {
        let known = traces.entry(part.trace_id).or_insert(part);
        known.start_unix_nanos = known.start_unix_nanos.min(part.start_unix_nanos);
        known.end_unix_nanos = known.end_unix_nanos.max(part.end_unix_nanos);
    }
    let mut traces: Vec<TracePart> = traces.into_values().collect();
    traces.sort_unstable_by_key(|part| part.trace_id);
    traces
}
