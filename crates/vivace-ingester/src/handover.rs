//! What an ingester leaves to the others when it ends or dies, and gets back when it starts again.
//!
//! A block in the bucket is answered from by its writer until all queriers know it. The writer's followers know it too, and answer
//! when the writer does not. Segments that a primary lost with its disk are taken over by a follower
//! before the primary answers again: until then its followers answer for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use vivace_proto::vivace::v1::handover_client::HandoverClient;
use vivace_proto::vivace::v1::{self as proto, ResumeRequest, ResumeResponse, ServeRequest};
use vivace_ring::{ClientPool, Instance, Snapshot};

use crate::ingester::Ingester;
use crate::segment_set::SegmentSet;
use crate::store::ServedBlock;
use crate::takeover::adopt;

/// Another ingester that does not answer in this time is left out.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// An ingester that starts is heard of in this time, or is answered before.
const NEWS_TIMEOUT: Duration = Duration::from_secs(2);
/// Also where segments have no copies, there is to be another who can answer from a block.
const SHARED_WITH: usize = 2;
/// An answer to a primary that starts again may name thousands of blocks, at a few KB each.
const RESUME_BYTES_MAX: usize = 64 << 20;

/// An ingester that has started.
pub(crate) struct Started {
    pub(crate) id: Arc<str>,
    /// The segments that it has logged or flushed.
    pub(crate) known: SegmentSet,
    /// What it held for others is lost, if it held anything.
    pub(crate) is_empty: bool,
    /// Of its gRPC server.
    pub(crate) addr: String,
}

/// A message names a block that is none.
#[derive(Debug, thiserror::Error)]
#[error("block {index} of the request: {reason}")]
pub(crate) struct InvalidBlock {
    index: usize,
    reason: String,
}

impl Ingester {
    /// Gives blocks that are served here to the followers, also to those that are still joining.
    /// One that does not answer goes without: there are others, and queriers learn of the blocks by themselves.
    pub(crate) async fn share(&self, pool: &ClientPool, blocks: &[Arc<ServedBlock>]) {
        let snapshot = self.ring.snapshot();
        let followers = snapshot.live().filter(|i| *i.id != **self.store.id() && self.is_told_of_blocks(&snapshot, &i.id, self.store.id()));
        let told = followers.map(|follower| async move {
            let blocks = blocks.iter().filter(|block| *block.writer != *follower.id).map(|block| block.to_proto()).collect();
            if let Err(error) = serve(pool, follower, blocks).await {
                tracing::warn!(
                    follower = follower.id,
                    error = format!("{error:#}"),
                    "follower not told of a block that it could answer from"
                );
            }
        });
        futures::future::join_all(told).await;
    }

    /// Whether an ingester is to know the blocks of this writer.
    fn is_told_of_blocks(&self, snapshot: &Snapshot, id: &str, writer: &str) -> bool {
        snapshot.will_follow(id, writer, self.settings.replication_factor.max(SHARED_WITH))
    }

    /// Gives all blocks that are served here to the followers, before the process ends.
    pub(crate) async fn hand_over(&self, pool: &ClientPool) {
        let blocks: Vec<Arc<ServedBlock>> = self.store.served();
        self.share(pool, &blocks).await;
    }

    /// Serves blocks of others. Blocks the thread.
    ///
    /// # Errors
    /// A message that names no block; nothing is served then.
    pub(crate) fn serve(&self, blocks: Vec<proto::ServedBlock>) -> Result<(), InvalidBlock> {
        let read = |(index, block)| ServedBlock::from_proto(block).map_err(|reason| InvalidBlock { index, reason });
        let blocks: Vec<Arc<ServedBlock>> = blocks.into_iter().enumerate().map(|b| read(b).map(Arc::new)).collect::<Result<_, _>>()?;
        self.store.serve(&blocks);
        Ok(())
    }

    /// Waits until as many others are seen as have something of this one, but no longer than `patience`.
    pub(crate) async fn others_known(&self, patience: Duration) {
        let wanted = self.settings.replication_factor.max(SHARED_WITH) - 1;
        let mut ring = self.ring.watch();
        let known = ring.wait_for(|snapshot| snapshot.live().filter(|other| *other.id != **self.store.id()).count() >= wanted);
        // Without them there is nobody to ask; an error says that the process is ending.
        let _ = tokio::time::timeout(patience, known).await;
    }

    /// Asks the other ingesters for what this one had before it was started: each takes over the segments that are lost here,
    /// and names the blocks that this one is to answer from. Has to be done before this one answers for itself.
    pub(crate) async fn resume(self: &Arc<Self>, pool: &ClientPool) {
        let ingester = Arc::clone(self);
        let mut known = match spawn_blocking(move || ingester.store.known()).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%error, "what this ingester has is not known: the others are not asked for what it lost");
                return;
            }
        };
        for other in self.ring.snapshot().live().filter(|other| *other.id != **self.store.id()) {
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
    }

    async fn resume_with(self: &Arc<Self>, pool: &ClientPool, other: &Instance, known: &SegmentSet) -> anyhow::Result<SegmentSet> {
        let addr = self.ring.snapshot().get(self.store.id()).map_or_else(String::new, |this| this.addr.clone());
        let request =
            ResumeRequest { primary: self.store.id().to_string(), known: known.to_proto(), starts_empty: self.store.starts_empty(), addr };
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

    /// An ingester has started and knows these segments: takes over what else is held for it, has flushed what it does not hold
    /// any more, and tells which blocks it is to answer from.
    pub(crate) async fn resumed(self: &Arc<Self>, Started { id: primary, known, is_empty, addr }: Started) -> ResumeResponse {
        // Blocks that are flushed for its sake are to reach it.
        let is_known = |snapshot: &Arc<Snapshot>| snapshot.get(&primary).is_some_and(|i| i.alive && i.addr == addr);
        let _ = tokio::time::timeout(NEWS_TIMEOUT, self.ring.watch().wait_for(is_known)).await;
        if is_empty && self.ring.snapshot().will_follow(&primary, self.store.id(), self.settings.replication_factor) {
            let segments = self.store.lose_copies();
            if segments > 0 {
                tracing::warn!(follower = %primary, segments, "follower has lost its log, the segments that it held are flushed");
            }
        }
        let taken_over = adopt(self, &primary, |id| !known.contains(id)).await;
        if !taken_over.is_empty() {
            tracing::warn!(%primary, segments = taken_over.len(), "primary has lost its log, its held segments are flushed from here");
        }
        let snapshot = self.ring.snapshot();
        let served = self.store.served().into_iter();
        let blocks = served.filter(|block| block.writer == primary || self.is_told_of_blocks(&snapshot, &primary, &block.writer));
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
