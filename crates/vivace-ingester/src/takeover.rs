//! What a follower does about segments that their primary should have flushed: asks one that lives, and after a while takes over
//! from one that is gone. Followers act one after the other; should two do it, spans are in two blocks and readers drop the
//! copies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::task::spawn_blocking;
use vivace_proto::vivace::v1::CoveredRequest;
use vivace_proto::vivace::v1::segment_log_client::SegmentLogClient;
use vivace_ring::ClientPool;
use vivace_server::clock;

use crate::header::SegmentId;
use crate::ingester::Ingester;
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
    TakeOver,
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
        Some(gone_for) if gone_for >= grace * (standing.rank + 1) => Step::TakeOver,
        None if standing.age >= block_age_max => Step::Ask,
        _ => Step::Wait,
    }
}

/// Looks after held segments whose primary does not.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    gone_since: FxHashMap<Arc<str>, Instant>,
    asked: FxHashMap<Arc<str>, Instant>,
}

impl Takeover {
    /// Does for each primary what is due.
    pub(crate) async fn look(&mut self, ingester: &Arc<Ingester>, pool: &ClientPool) {
        let held = ingester.store.held();
        self.gone_since.retain(|primary, _| held.iter().any(|h| h.primary == *primary));
        self.asked.retain(|primary, _| held.iter().any(|h| h.primary == *primary));
        for of_primary in held {
            self.look_at(&of_primary, ingester, pool).await;
        }
    }

    async fn look_at(&mut self, held: &HeldFor, ingester: &Arc<Ingester>, pool: &ClientPool) {
        let primary = &held.primary;
        let settings = &ingester.settings;
        let snapshot = ingester.ring.snapshot();
        let instance = snapshot.get(primary);
        let gone_for = if instance.is_some_and(|i| i.alive) {
            self.gone_since.remove(primary);
            None
        } else {
            Some(self.gone_since.entry(Arc::clone(primary)).or_insert_with(Instant::now).elapsed())
        };
        let followers = snapshot.followers(primary, settings.replication_factor);
        let last = settings.replication_factor.saturating_sub(2);
        let rank = followers.iter().position(|f| *f.id == **ingester.store.id()).unwrap_or(last);
        let rank = u32::try_from(rank).unwrap_or(u32::MAX - 1);
        let now = clock::unix_seconds();
        let age = Duration::from_secs(now.saturating_sub(held.oldest_unix_seconds));
        match step(Standing { gone_for, rank, age }, settings.gone_grace, settings.max_block_duration) {
            Step::Wait => {}
            Step::TakeOver => {
                tracing::warn!(%primary, segments = held.segments, "primary is gone, its held segments are flushed from here");
                adopt(ingester, primary, |_| true).await;
            }
            Step::Ask => {
                if self.asked.get(primary).is_some_and(|asked| asked.elapsed() < ASK_PERIOD) {
                    return;
                }
                let Some(addr) = instance.map(|i| i.addr.clone()) else { return };
                let old = ingester.store.held_until(primary, now.saturating_sub(settings.max_block_duration.as_secs()));
                if old.is_empty() {
                    return;
                }
                self.asked.insert(Arc::clone(primary), Instant::now());
                match ask(pool, &addr, primary, &old).await {
                    Ok(answer) => apply(ingester, primary, &answer, now, rank).await,
                    Err(error) => {
                        tracing::warn!(%primary, error = format!("{error:#}"), "primary does not say which segments it has flushed")
                    }
                }
            }
        }
    }
}

/// What the primary says of the segments it was asked about.
struct Answer {
    asked: SegmentSet,
    covered: SegmentSet,
    pending: SegmentSet,
}

async fn ask(pool: &ClientPool, addr: &str, primary: &str, held: &SegmentSet) -> anyhow::Result<Answer> {
    let mut client = SegmentLogClient::new(pool.channel(addr)?);
    let request = CoveredRequest { primary: primary.to_owned(), held: held.to_proto() };
    let answer = tokio::time::timeout(ASK_TIMEOUT, client.covered(request)).await??.into_inner();
    let set = |ranges: &[_]| SegmentSet::from_proto(ranges).ok_or_else(|| anyhow::anyhow!("an incarnation in the answer has not 16 bytes"));
    Ok(Answer { asked: held.clone(), covered: set(&answer.covered)?, pending: set(&answer.pending)? })
}

async fn apply(ingester: &Ingester, primary: &Arc<str>, answer: &Answer, now_unix_seconds: u64, rank: u32) {
    let (store, of, covered) = (Arc::clone(&ingester.store), Arc::clone(primary), answer.covered.clone());
    // A panic in there leaves them held.
    let _ = spawn_blocking(move || store.release(&of, &covered, now_unix_seconds)).await;
    // The primary never had the others: it was routed around, or lost its disk.
    let wait = ingester.settings.max_block_duration * (rank + 1);
    let due = ingester.store.held_until(primary, now_unix_seconds.saturating_sub(wait.as_secs()));
    let unknown =
        |id: &SegmentId| answer.asked.contains(id) && due.contains(id) && !answer.covered.contains(id) && !answer.pending.contains(id);
    adopt(ingester, primary, unknown).await;
}

/// Makes held segments of a primary live here, those that pass. Tells which they were.
pub(crate) async fn adopt(ingester: &Ingester, primary: &Arc<str>, pass: impl Fn(&SegmentId) -> bool) -> SegmentSet {
    let segments = ingester.store.held_for(primary, pass);
    let ids: SegmentSet = segments.iter().map(|segment| segment.header.id).collect();
    if segments.is_empty() {
        return ids;
    }
    let (store, primary) = (Arc::clone(&ingester.store), Arc::clone(primary));
    let adopted = spawn_blocking(move || store.adopt(&primary, &segments, clock::unix_seconds()));
    if let Err(error) = adopted.await {
        tracing::error!(%error, "taking over segments failed");
    }
    ids
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
        assert_eq!(gone(30, 0), Step::TakeOver);
        assert_eq!(gone(59, 1), Step::Wait);
        assert_eq!(gone(60, 1), Step::TakeOver);
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
