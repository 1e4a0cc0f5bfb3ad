//! What a follower does about segments that their primary should have flushed: asks one that lives, and after a while adopts those
//! of one that is gone. Followers act one after the other; should two do it, spans are in two blocks and readers drop the copies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::task::spawn_blocking;
use vivace_proto::vivace::v1::CoveredRequest;
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;
use vivace_ring::{ClientPool, Snapshot};
use vivace_server::clock;

use super::Succession;
use crate::header::SegmentId;
use crate::segment_set::SegmentSet;
use crate::store::HeldFor;

/// Pause between questions to the same primary.
const ASK_PERIOD: Duration = Duration::from_secs(60);
/// A primary that does not answer in this time is asked again later.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a follower does about segments that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The primary is expected to flush them.
    Wait,
    /// The primary should have flushed them by now.
    Ask,
    /// The primary is gone.
    Adopt,
}

/// How a primary and this follower stand.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// How long the primary has been gone; none while it lives.
    gone_for: Option<Duration>,
    /// 0 for the first follower, who acts first; the next waits twice as long.
    rank: u32,
    /// Of the oldest segment held.
    age: Duration,
}

fn step(standing: Standing, grace: Duration, block_age_max: Duration) -> Step {
    match standing.gone_for {
        Some(gone_for) if gone_for >= grace * (standing.rank + 1) => Step::Adopt,
        None if standing.age >= block_age_max => Step::Ask,
        _ => Step::Wait,
    }
}

/// What this instance knows of the primaries that it is a follower of.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    gone_since: FxHashMap<Arc<str>, Instant>,
    asked: FxHashMap<Arc<str>, Instant>,
}

impl Follower {
    /// Does for each primary what is due.
    pub(crate) async fn look_after(&mut self, succession: &Succession) {
        let held = succession.store.held();
        self.gone_since.retain(|primary, _| held.iter().any(|h| h.primary == *primary));
        self.asked.retain(|primary, _| held.iter().any(|h| h.primary == *primary));
        for of_primary in held {
            self.look_at(&of_primary, succession).await;
        }
    }

    async fn look_at(&mut self, held: &HeldFor, succession: &Succession) {
        let HeldFor { primary, segments, oldest_unix_seconds } = held;
        let settings = &succession.settings;
        let snapshot = succession.ring.snapshot();
        let instance = snapshot.get(primary);
        let gone_for = self.gone_for(primary, instance.is_some_and(|instance| instance.alive));
        let rank = rank(&snapshot, primary, succession.store.id(), settings.replication_factor);
        let now = clock::unix_seconds();
        let age = Duration::from_secs(now.saturating_sub(*oldest_unix_seconds));
        match step(Standing { gone_for, rank, age }, settings.gone_grace, settings.max_block_duration) {
            Step::Wait => {}
            Step::Adopt => {
                tracing::warn!(%primary, segments, "primary is gone, its held segments are flushed from here");
                succession.adopt(primary, |_| true).await;
            }
            Step::Ask => {
                if let Some(instance) = instance {
                    self.ask_about_old(primary, &instance.addr, succession, now, rank).await;
                }
            }
        }
    }

    /// How long a primary has been gone; none while it lives.
    fn gone_for(&mut self, primary: &Arc<str>, is_alive: bool) -> Option<Duration> {
        if is_alive {
            self.gone_since.remove(primary);
            return None;
        }
        Some(self.gone_since.entry(Arc::clone(primary)).or_insert_with(Instant::now).elapsed())
    }

    async fn ask_about_old(&mut self, primary: &Arc<str>, addr: &str, succession: &Succession, now_unix_seconds: u64, rank: u32) {
        if self.asked.get(primary).is_some_and(|asked| asked.elapsed() < ASK_PERIOD) {
            return;
        }
        let old = now_unix_seconds.saturating_sub(succession.settings.max_block_duration.as_secs());
        let old = succession.store.held_until(primary, old);
        if old.is_empty() {
            return;
        }
        self.asked.insert(Arc::clone(primary), Instant::now());
        match ask(&succession.pool, addr, primary, old).await {
            Ok(answer) => apply(succession, primary, answer, now_unix_seconds, rank).await,
            Err(error) => {
                tracing::warn!(%primary, error = format!("{error:#}"), "primary does not say which segments it has flushed");
            }
        }
    }
}

/// This instance's place among the followers of a primary, 0 for the first. One that is not among them any more acts last.
fn rank(snapshot: &Snapshot, primary: &str, id: &str, replication_factor: usize) -> u32 {
    let followers = snapshot.followers(primary, replication_factor);
    let last = replication_factor.saturating_sub(2);
    let rank = followers.iter().position(|follower| *follower.id == *id).unwrap_or(last);
    u32::try_from(rank).unwrap_or(u32::MAX - 1)
}

/// What the primary says of the segments it was asked about.
struct Answer {
    asked: SegmentSet,
    covered: SegmentSet,
    pending: SegmentSet,
}

async fn ask(pool: &ClientPool, addr: &str, primary: &str, held: SegmentSet) -> anyhow::Result<Answer> {
    let mut client = SegmentLogClient::new(pool.connection(addr)?);
    let request = CoveredRequest { primary: primary.to_owned(), held: held.to_proto() };
    let answer = tokio::time::timeout(ASK_TIMEOUT, client.covered(request)).await??.into_inner();
    let set = |ranges: &[_]| SegmentSet::from_proto(ranges).ok_or_else(|| anyhow::anyhow!("an incarnation in the answer has not 16 bytes"));
    Ok(Answer { asked: held, covered: set(&answer.covered)?, pending: set(&answer.pending)? })
}

async fn apply(succession: &Succession, primary: &Arc<str>, answer: Answer, now_unix_seconds: u64, rank: u32) {
    let Answer { asked, covered, pending } = answer;
    let store = Arc::clone(&succession.store);
    let (of, released) = (Arc::clone(primary), covered.clone());
    // A panic in there leaves them held.
    let _ = spawn_blocking(move || store.release(&of, &released, now_unix_seconds)).await;
    // The primary never had the others: it was routed around, or lost its disk.
    let wait = succession.settings.max_block_duration * (rank + 1);
    let due = succession.store.held_until(primary, now_unix_seconds.saturating_sub(wait.as_secs()));
    let is_unknown = |id: &SegmentId| asked.contains(id) && due.contains(id) && !covered.contains(id) && !pending.contains(id);
    succession.adopt(primary, is_unknown).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_follower_acts_after_the_grace_and_the_next_after_twice_the_wait() {
        let gone = |seconds, rank| {
            let standing = Standing { gone_for: Some(Duration::from_secs(seconds)), rank, age: Duration::from_secs(9999) };
            step(standing, Duration::from_secs(30), Duration::from_secs(1800))
        };
        assert_eq!(gone(29, 0), Step::Wait);
        assert_eq!(gone(30, 0), Step::Adopt);
        assert_eq!(gone(59, 1), Step::Wait);
        assert_eq!(gone(60, 1), Step::Adopt);
    }

    #[test]
    fn a_living_primary_is_asked_only_about_old_segments() {
        let alive = |seconds| {
            let standing = Standing { gone_for: None, rank: 0, age: Duration::from_secs(seconds) };
            step(standing, Duration::from_secs(30), Duration::from_secs(1800))
        };
        assert_eq!(alive(1799), Step::Wait);
        assert_eq!(alive(1800), Step::Ask);
    }
}
