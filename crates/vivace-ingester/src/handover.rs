//! What an ingester leaves to the others when it ends or dies, and gets back when it starts again.
//!
//! A block in the bucket is answered from by its writer until all queriers know it. The writer's followers have it too, and the first
//! of them that answers does so when the writer does not. Segments that a primary lost with its disk are taken over by a follower
//! before the primary answers again: until then its followers answer for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use vivace_block::BlockMeta;
use vivace_proto::vivace::v1::handover_client::HandoverClient;
use vivace_proto::vivace::v1::{self as proto, ResumeRequest, ResumeResponse, ServeRequest};
use vivace_ring::{ClientPool, Instance};

use crate::ingester::Ingester;
use crate::ledger::LedgerError;
use crate::live::ServedBlock;
use crate::ranges::SegmentSet;
use crate::takeover::adopt;

/// Another ingester that does not answer in this time is left out.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Also where segments have no copies, there is to be another who can answer from a block.
const SHARED_WITH: usize = 2;
/// An answer to a primary that starts again may name thousands of blocks, at a few KB each.
const RESUME_BYTES_MAX: usize = 64 << 20;

/// A message names a block that is none.
#[derive(Debug, thiserror::Error)]
#[error("block {index} of the request: {reason}")]
pub(crate) struct InvalidBlock {
    index: usize,
    reason: String,
}

impl ServedBlock {
    pub(crate) fn to_proto(&self) -> proto::ServedBlock {
        proto::ServedBlock {
            meta: self.meta.to_json().into(),
            writer: self.writer.to_string(),
            flushed_unix_seconds: self.flushed_unix_seconds,
            earlier: self.earlier.clone(),
        }
    }

    /// # Errors
    /// What is wrong with the block's meta.
    pub(crate) fn from_proto(block: proto::ServedBlock) -> Result<Self, String> {
        let meta = BlockMeta::from_json(&block.meta, "another ingester").map_err(|error| error.to_string())?;
        Ok(Self { meta, flushed_unix_seconds: block.flushed_unix_seconds, writer: block.writer.into(), earlier: block.earlier })
    }
}

impl Ingester {
    /// Gives blocks that are served here to the followers, one after the other, so that each knows who has them before it.
    /// One that does not answer goes without: there are others, and queriers learn of the blocks by themselves.
    pub(crate) async fn share(&self, pool: &ClientPool, blocks: &[Arc<ServedBlock>]) {
        if blocks.is_empty() {
            return;
        }
        let snapshot = self.ring.snapshot();
        let mut told: Vec<String> = Vec::new();
        for follower in snapshot.followers(&self.id, self.settings.replication_factor.max(SHARED_WITH)) {
            let new_to_it = blocks.iter().filter(|block| *block.writer != *follower.id && !block.earlier.contains(&follower.id));
            let blocks: Vec<proto::ServedBlock> = new_to_it
                .map(|block| {
                    let mut block = block.to_proto();
                    block.earlier.extend(told.iter().cloned());
                    block
                })
                .collect();
            match serve(pool, follower, blocks).await {
                Ok(()) => told.push(follower.id.clone()),
                Err(error) => {
                    tracing::warn!(
                        follower = follower.id,
                        error = format!("{error:#}"),
                        "follower not told of a block that it could answer from"
                    );
                }
            }
        }
    }

    /// Gives all blocks that are served here to the followers, before the process ends.
    pub(crate) async fn hand_over(&self, pool: &ClientPool) {
        let blocks: Vec<Arc<ServedBlock>> = self.live.tenants().iter().flat_map(|tenant| tenant.view().served).collect();
        self.share(pool, &blocks).await;
    }

    /// Serves blocks of others. Blocks the thread.
    ///
    /// # Errors
    /// A message that names no block; nothing is served then.
    pub(crate) fn serve(&self, blocks: Vec<proto::ServedBlock>) -> Result<(), InvalidBlock> {
        let read = |(index, block)| ServedBlock::from_proto(block).map_err(|reason| InvalidBlock { index, reason });
        let mut blocks: Vec<ServedBlock> = blocks.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        for block in &mut blocks {
            // Who is behind this one in the order is none of its business.
            let own_place = if *block.writer == *self.id { Some(0) } else { block.earlier.iter().position(|id| **id == *self.id) };
            block.earlier.truncate(own_place.unwrap_or(block.earlier.len()));
        }
        let blocks: Vec<Arc<ServedBlock>> = blocks.into_iter().map(Arc::new).collect();
        for block in &blocks {
            self.live.tenant(&block.meta.tenant_id).serve(Arc::clone(block));
        }
        if let Err(error) = self.ledger.serve(&blocks) {
            tracing::warn!(%error, "blocks of others not in the ledger: after a restart they are not served from here");
        }
        Ok(())
    }

    /// Waits until as many others are seen as have something of this one, but no longer than `patience`.
    pub(crate) async fn others_known(&self, patience: Duration) {
        let wanted = self.settings.replication_factor.max(SHARED_WITH) - 1;
        let mut ring = self.ring.watch();
        let known = ring.wait_for(|snapshot| snapshot.live().filter(|other| *other.id != *self.id).count() >= wanted);
        // Without them there is nobody to ask; an error says that the process is ending.
        let _ = tokio::time::timeout(patience, known).await;
    }

    /// Asks the other ingesters for what this one had before it was started: each takes over the segments that are lost here,
    /// and names the blocks that this one is to answer from. Has to be done before this one answers for itself.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(crate) async fn resume(self: &Arc<Self>, pool: &ClientPool) -> Result<(), LedgerError> {
        let ingester = Arc::clone(self);
        let mut known = match spawn_blocking(move || ingester.known()).await {
            Ok(known) => known?,
            Err(error) => {
                tracing::error!(%error, "what this ingester has is not known: the others are not asked for what it lost");
                return Ok(());
            }
        };
        for other in self.ring.snapshot().live().filter(|other| *other.id != *self.id) {
            match self.resume_with(pool, other, &known).await {
                Ok(taken_over) => known.merge(&taken_over),
                Err(error) => {
                    tracing::warn!(
                        ingester = other.id,
                        error = format!("{error:#}"),
                        "ingester not asked for what this one lost; it asks by itself later"
                    );
                }
            }
        }
        Ok(())
    }

    async fn resume_with(self: &Arc<Self>, pool: &ClientPool, other: &Instance, known: &SegmentSet) -> anyhow::Result<SegmentSet> {
        let request = ResumeRequest { primary: self.id.to_string(), known: known.to_proto() };
        let mut client = HandoverClient::new(pool.channel(&other.addr)?).max_decoding_message_size(RESUME_BYTES_MAX);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.resume(request)).await??.into_inner();
        let taken_over =
            SegmentSet::from_proto(&answer.taken_over).ok_or_else(|| anyhow::anyhow!("an incarnation in the answer has not 16 bytes"))?;
        let blocks = answer.blocks.len();
        let ingester = Arc::clone(self);
        spawn_blocking(move || ingester.serve(answer.blocks)).await??;
        if !taken_over.is_empty() || blocks > 0 {
            tracing::info!(ingester = other.id, segments_lost_here = taken_over.len(), blocks, "another ingester kept what this one had");
        }
        Ok(taken_over)
    }

    /// A primary has started again and knows these segments: takes over what else is held for it, and tells which blocks it is
    /// to answer from.
    pub(crate) async fn resumed(self: &Arc<Self>, primary: &str, known: &SegmentSet) -> ResumeResponse {
        let primary: Arc<str> = primary.into();
        let taken_over = adopt(self, &primary, |id| !known.contains(id)).await;
        if !taken_over.is_empty() {
            tracing::warn!(%primary, segments = taken_over.len(), "primary has lost its log, its held segments are flushed from here");
        }
        let served = self.live.tenants().into_iter().flat_map(|tenant| tenant.view().served);
        let blocks = served.filter(|block| block.writer == primary || block.earlier.iter().any(|id| **id == *primary));
        ResumeResponse { taken_over: taken_over.to_proto(), blocks: blocks.map(|block| block.to_proto()).collect() }
    }
}

async fn serve(pool: &ClientPool, follower: &Instance, blocks: Vec<proto::ServedBlock>) -> anyhow::Result<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    let mut client = HandoverClient::new(pool.channel(&follower.addr)?);
    tokio::time::timeout(ANSWER_TIMEOUT, client.serve(ServeRequest { blocks })).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vivace_block::{BlockOptions, BlockWriter, SpanRef};
    use vivace_core::{BlockId, TenantId, TraceId};

    use super::*;

    fn meta() -> BlockMeta {
        let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([1; 16]), Vec::new(), 1).expect("starts");
        writer.push_trace(TraceId([1; 16]), &[SpanRef { resource: &[], scope: &[], span: &[10, 1, 1] }]).expect("taken");
        writer.finish().expect("finished").meta
    }

    proptest! {
        #[test]
        fn one_of_those_that_have_a_block_answers_from_it(holders in 1usize..6, answers in proptest::collection::vec(any::<bool>(), 6)) {
            let names: Vec<String> = (0..holders).map(|i| format!("ingester-{i}")).collect();
            let answering: Vec<String> = names.iter().zip(&answers).filter(|(_, answers)| **answers).map(|(name, _)| name.clone()).collect();
            let meta = meta();
            let has = |place: usize| ServedBlock {
                meta: meta.clone(),
                flushed_unix_seconds: 0,
                writer: names[0].as_str().into(),
                earlier: names[1..].iter().take(place.saturating_sub(1)).cloned().collect(),
            };
            let chosen = (0..holders).filter(|place| answers[*place] && has(*place).is_answered_by(&names[*place], &answering)).count();
            prop_assert_eq!(chosen, usize::from(!answering.is_empty()));
        }
    }

    #[test]
    fn a_block_survives_its_message() {
        let block = ServedBlock { meta: meta(), flushed_unix_seconds: 7, writer: "a".into(), earlier: vec!["b".to_owned()] };
        assert_eq!(ServedBlock::from_proto(block.to_proto()), Ok(block));
        let bad = proto::ServedBlock { meta: b"{".to_vec().into(), ..proto::ServedBlock::default() };
        assert!(ServedBlock::from_proto(bad).is_err());
    }
}
