//! Blocks that more than their writer can answer from. Until all queriers know a block its writer serves it; the writer's followers are
//! given it too, and answer when the writer does not.

use std::sync::Arc;
use std::time::Duration;

use vivace_proto::vivace::v1::handover_client::HandoverClient;
use vivace_proto::vivace::v1::{self as proto, ServeRequest};
use vivace_ring::{Instance, Snapshot};

use super::Succession;
use crate::store::{ServedBlock, Store};

/// Another ingester that does not answer in this time is left out.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Also where segments have no copies, there is to be another who can answer from a block.
pub(super) const SERVED_BY: usize = 2;

/// A message names a block that is none.
#[derive(Debug, thiserror::Error)]
#[error("block {index} of the request: {reason}")]
pub(crate) struct InvalidBlock {
    index: usize,
    reason: String,
}

/// Serves blocks that another ingester hands over. Blocks the thread.
///
/// # Errors
/// A message that names no block; nothing is served then.
pub(crate) fn serve(store: &Store, blocks: Vec<proto::ServedBlock>) -> Result<(), InvalidBlock> {
    let read = |(index, block)| ServedBlock::from_proto(block).map_err(|reason| InvalidBlock { index, reason });
    let blocks: Vec<Arc<ServedBlock>> = blocks.into_iter().enumerate().map(|b| read(b).map(Arc::new)).collect::<Result<_, _>>()?;
    store.serve(&blocks);
    Ok(())
}

impl Succession {
    /// Gives blocks that are served here to the followers, also to those that are still joining.
    /// One that does not answer goes without: there are others, and queriers learn of the blocks by themselves.
    pub(crate) async fn hand_over(&self, blocks: &[Arc<ServedBlock>]) {
        let (snapshot, id) = (self.ring.snapshot(), self.store.id());
        let followers = snapshot.live().filter(|other| *other.id != **id && self.serves_blocks_of(&snapshot, &other.id, id));
        let told = followers.map(|follower| async move {
            let blocks = blocks.iter().filter(|block| *block.writer != *follower.id).map(|block| block.to_proto()).collect();
            if let Err(error) = self.hand_over_to(follower, blocks).await {
                tracing::warn!(
                    follower = follower.id,
                    error = format!("{error:#}"),
                    "follower not told of a block that it could answer from"
                );
            }
        });
        futures::future::join_all(told).await;
    }

    /// Gives all blocks that are served here to the followers, before the process ends.
    pub(crate) async fn hand_over_all(&self) {
        self.hand_over(&self.store.served()).await;
    }

    /// Whether an ingester is to know the blocks of this writer.
    pub(super) fn serves_blocks_of(&self, snapshot: &Snapshot, id: &str, writer: &str) -> bool {
        snapshot.will_follow(id, writer, self.settings.replication_factor.max(SERVED_BY))
    }

    async fn hand_over_to(&self, follower: &Instance, blocks: Vec<proto::ServedBlock>) -> anyhow::Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let mut client = HandoverClient::new(self.pool.connection(&follower.addr)?);
        tokio::time::timeout(ANSWER_TIMEOUT, client.serve(ServeRequest { blocks })).await??;
        Ok(())
    }
}
