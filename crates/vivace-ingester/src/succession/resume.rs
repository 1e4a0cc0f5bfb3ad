//! How an ingester comes back: it asks the others for what it had, and answers for itself only after each of them has made live what
//! is lost here. Until then its followers answer for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use vivace_proto::vivace::v1::handover_client::HandoverClient;
use vivace_proto::vivace::v1::{ResumeRequest, ResumeResponse};
use vivace_ring::{Instance, Snapshot};

use super::Succession;
use super::hand_over::{ANSWER_TIMEOUT, SERVED_BY, serve};
use crate::segment_set::SegmentSet;

/// An ingester that starts is heard of in this time, or is answered before.
const NEWS_TIMEOUT: Duration = Duration::from_secs(2);
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

impl Succession {
    /// Waits until as many others are seen as have something of this one, but no longer than `patience`.
    pub(crate) async fn wait_for_others(&self, patience: Duration) {
        let wanted = self.settings.replication_factor.max(SERVED_BY) - 1;
        let mut ring = self.ring.watch();
        let known = ring.wait_for(|snapshot| snapshot.live().filter(|other| *other.id != **self.store.id()).count() >= wanted);
        // Without them there is nobody to ask; an error says that the process is ending.
        let _ = tokio::time::timeout(patience, known).await;
    }

    /// Asks the other ingesters for what this one had before it was started: each adopts the segments that are lost here,
    /// and names the blocks that this one is to answer from. Has to be done before this one answers for itself.
    pub(crate) async fn resume(&self) {
        let store = Arc::clone(&self.store);
        let mut known = match spawn_blocking(move || store.known()).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%error, "what this ingester has is not known: the others are not asked for what it lost");
                return;
            }
        };
        for other in self.ring.snapshot().live().filter(|other| *other.id != **self.store.id()) {
            match self.resume_with(other, &known).await {
                Ok(adopted) => known.merge(&adopted),
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

    /// Tells which segments the other one adopts.
    async fn resume_with(&self, other: &Instance, known: &SegmentSet) -> anyhow::Result<SegmentSet> {
        let addr = self.ring.snapshot().get(self.store.id()).map_or_else(String::new, |this| this.addr.clone());
        let request =
            ResumeRequest { primary: self.store.id().to_string(), known: known.to_proto(), starts_empty: self.store.starts_empty(), addr };
        let mut client = HandoverClient::new(self.pool.connection(&other.addr)?).max_decoding_message_size(RESUME_BYTES_MAX);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.resume(request)).await??.into_inner();
        let adopted =
            SegmentSet::from_proto(&answer.taken_over).ok_or_else(|| anyhow::anyhow!("an incarnation in the answer has not 16 bytes"))?;
        let blocks = answer.blocks.len();
        let store = Arc::clone(&self.store);
        spawn_blocking(move || serve(&store, answer.blocks)).await??;
        if !adopted.is_empty() || blocks > 0 {
            tracing::info!(ingester = other.id, segments_lost_here = adopted.len(), blocks, "another ingester kept what this one had");
        }
        Ok(adopted)
    }

    /// An ingester has started and resumes here: adopts what is held for it and it does not know, has flushed what it does not hold
    /// any more, and names the blocks that it is to serve.
    pub(crate) async fn answer_resume(&self, Started { id: primary, known, is_empty, addr }: Started) -> ResumeResponse {
        // Blocks that are flushed for its sake are to reach it.
        let is_known = |snapshot: &Arc<Snapshot>| snapshot.get(&primary).is_some_and(|i| i.alive && i.addr == addr);
        let _ = tokio::time::timeout(NEWS_TIMEOUT, self.ring.watch().wait_for(is_known)).await;
        if is_empty && self.ring.snapshot().will_follow(&primary, self.store.id(), self.settings.replication_factor) {
            let segments = self.store.lose_copies();
            if segments > 0 {
                tracing::warn!(follower = %primary, segments, "follower has lost its log, the segments that it held are flushed");
            }
        }
        let adopted = self.adopt(&primary, |id| !known.contains(id)).await;
        if !adopted.is_empty() {
            tracing::warn!(%primary, segments = adopted.len(), "primary has lost its log, its held segments are flushed from here");
        }
        let snapshot = self.ring.snapshot();
        let mut blocks = self.store.served();
        blocks.retain(|block| block.writer == primary || self.serves_blocks_of(&snapshot, &primary, &block.writer));
        ResumeResponse { taken_over: adopted.to_proto(), blocks: blocks.iter().map(|block| block.to_proto()).collect() }
    }
}
