//! What is told to followers after a flush: which segments are covered, so that they need not hold them any longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use vivace_proto::vivace::v1::ReleaseRequest;
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;

use super::Succession;
use crate::segment_set::SegmentSet;

/// A follower that does not answer a release in this time asks by itself later.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

impl Succession {
    /// Tells the followers of each primary which of its segments are covered. Tries once: a follower that does not hear of it asks later.
    pub(crate) async fn release(&self, covered: &BTreeMap<Arc<str>, SegmentSet>) {
        join_all(covered.iter().map(|(primary, segments)| self.release_of(primary, segments))).await;
    }

    async fn release_of(&self, primary: &str, covered: &SegmentSet) {
        let snapshot = self.ring.snapshot();
        let followers = snapshot.followers(primary, self.settings.replication_factor);
        let told = followers.into_iter().filter(|follower| *follower.id != **self.store.id()).map(|follower| async move {
            if let Err(error) = self.tell(&follower.addr, primary, covered).await {
                tracing::warn!(follower = follower.id, primary, error = format!("{error:#}"), "follower not told of a flushed block");
            }
        });
        join_all(told).await;
    }

    async fn tell(&self, addr: &str, primary: &str, covered: &SegmentSet) -> anyhow::Result<()> {
        let mut client = SegmentLogClient::new(self.pool.connection(addr)?);
        let request = ReleaseRequest { primary: primary.to_owned(), covered: covered.to_proto() };
        tokio::time::timeout(RELEASE_TIMEOUT, client.release(request)).await??;
        Ok(())
    }
}
