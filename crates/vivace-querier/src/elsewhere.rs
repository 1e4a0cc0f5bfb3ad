//! Which traces of a job are in other places too. Those must be brought together before they are judged as a whole, or
//! before their spans are counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_block::{BlockMeta, TracePart};
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::vivace::v1::{self as proto, CountPlacesRequest, Places};
use vivace_storage::BucketError;

use crate::JobError;
use crate::blocks::Blocks;
use crate::error::BlockFault;
use crate::recent::Ingesters;

/// Blocks whose ids are compared at the same time.
const BLOCKS_AT_ONCE: usize = 8;
/// Ids in one question to the ingesters: 1.6 MB.
const IDS_AT_ONCE: usize = 100_000;

/// The places beside the one that a job reads.
pub(crate) struct Elsewhere<'a> {
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
pub(crate) enum Here {
    /// A block, which is not among [`Places::blocks`].
    Block,
    /// The ingesters themselves.
    Ingesters,
}

/// What [`Elsewhere::also_has`] found.
#[derive(Debug, Default)]
pub(crate) struct Split {
    /// Traces that are in other places too.
    pub(crate) traces: FxHashSet<TraceId>,
    pub(crate) warnings: Vec<String>,
    pub(crate) inspected_bytes: u64,
}

impl Elsewhere<'_> {
    /// Those of `parts`, ascending by id, whose traces other places have too, exactly. Blocks are compared that overlap the
    /// time of the parts, widened by `spread_nanos` on both sides: 0 finds copies of spans, more finds other spans too.
    pub(crate) async fn also_has(&self, parts: &[TracePart], here: Here, spread_nanos: u64) -> Result<Split, JobError> {
        let mut split = Split::default();
        let (Some(start), Some(end)) = (parts.iter().map(|p| p.start_unix_nanos).min(), parts.iter().map(|p| p.end_unix_nanos).max())
        else {
            return Ok(split);
        };
        let ids: Arc<[TraceId]> = parts.iter().map(|part| part.trace_id).collect();
        let range = (start.saturating_sub(spread_nanos), end.saturating_add(spread_nanos));
        let metas = self.metas().await?.into_iter().filter(|meta| overlaps(meta, range));
        let in_blocks = async {
            let mut looks = futures::stream::iter(metas).map(|meta| self.blocks.having(meta, ids.clone())).buffer_unordered(BLOCKS_AT_ONCE);
            let (mut found, mut bytes) = (Vec::new(), 0);
            while let Some(look) = looks.next().await {
                match look? {
                    Ok((some, read)) => {
                        found.extend(some);
                        bytes += read;
                    }
                    Err(BlockFault::Unavailable(reason)) => return Err(JobError::Unavailable(reason)),
                    // Its own job says so, and no other finds anything in it.
                    Err(BlockFault::Broken(reason)) => tracing::debug!(reason, "a block's trace ids could not be compared"),
                }
            }
            Ok((found, bytes))
        };
        let ((found, bytes), (in_ingesters, warnings)) = futures::try_join!(in_blocks, self.in_ingesters(&ids, here))?;
        split.traces.extend(found);
        split.traces.extend(in_ingesters);
        split.inspected_bytes = bytes;
        split.warnings = warnings;
        Ok(split)
    }

    /// The blocks to compare with. Those that this querier has not heard of are looked up; those that are gone are left out.
    async fn metas(&self) -> Result<Vec<BlockMeta>, JobError> {
        let mut wanted: FxHashSet<BlockId> = self.places.blocks.as_chunks::<16>().0.iter().map(|id| BlockId(*id)).collect();
        let mut metas = self.blocks.known_metas(self.tenant, &wanted);
        for meta in &metas {
            wanted.remove(&meta.block_id);
        }
        for block in wanted {
            match self.blocks.meta(self.tenant, block).await {
                Ok(meta) => metas.push(meta),
                Err(BucketError::Gone { .. } | BucketError::Corrupt { .. }) => {}
                Err(error @ (BucketError::Unavailable { .. } | BucketError::LocalFile { .. })) => {
                    return Err(JobError::Unavailable(error.to_string()));
                }
            }
        }
        Ok(metas)
    }

    /// Traces that ingesters have too, with what may be missing.
    async fn in_ingesters(&self, ids: &[TraceId], here: Here) -> Result<(Vec<TraceId>, Vec<String>), JobError> {
        let mut found = Vec::new();
        let mut warnings = Vec::new();
        if !self.places.ingesters {
            return Ok((found, warnings));
        }
        // What is here is itself one of the places that ingesters count.
        let enough = if here == Here::Ingesters { 2 } else { 1 };
        for ids in ids.chunks(IDS_AT_ONCE) {
            let request = CountPlacesRequest {
                trace_ids: ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>().into(),
                known_blocks: self.places.known_blocks.clone(),
                answering: Vec::new(),
            };
            let counted =
                self.ingesters.ask_recent(self.tenant, request, self.call, |mut c, r| async move { c.count_places(r).await }).await?;
            let mut sums = vec![0u32; ids.len()];
            for part in counted.parts {
                sums.iter_mut().zip(part.counts).for_each(|(sum, count)| *sum += u32::from(count));
            }
            found.extend(ids.iter().zip(sums).filter(|(_, sum)| *sum >= enough).map(|(id, _)| *id));
            warnings.extend(counted.warning.filter(|warning| !warnings.contains(warning)));
        }
        Ok((found, warnings))
    }
}

/// Whether a block may hold something of this range, both ends included. One that does not know its times may.
fn overlaps(meta: &BlockMeta, (start, end): (u64, u64)) -> bool {
    meta.end_unix_nanos == 0 || vivace_storage::overlaps(meta, start.max(1), end.saturating_add(1))
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

pub(crate) fn to_message(part: &TracePart) -> proto::TracePart {
    let TracePart { trace_id, start_unix_nanos, end_unix_nanos } = *part;
    proto::TracePart { trace_id: Bytes::copy_from_slice(&trace_id.0), start_unix_nanos, end_unix_nanos }
}

pub(crate) fn from_message(part: &proto::TracePart) -> TracePart {
    let proto::TracePart { trace_id, start_unix_nanos, end_unix_nanos } = part;
    TracePart { trace_id: TraceId::from_slice(trace_id), start_unix_nanos: *start_unix_nanos, end_unix_nanos: *end_unix_nanos }
}
