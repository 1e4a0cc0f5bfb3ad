//! What followers and primaries tell each other, and who answers meanwhile.

use vivace_core::TenantId;
use vivace_proto::vivace::v1::sequence_ranges::Range;
use vivace_proto::vivace::v1::{CoveredRequest, ReleaseRequest, SequenceRanges};

use crate::running::{Place, segment, spans, until};

fn ranges(first: u64, last: u64) -> Vec<SequenceRanges> {
    vec![SequenceRanges { incarnation: vec![1; 16].into(), ranges: vec![Range { first, last }] }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_answers_for_a_primary_that_does_not() {
    let place = Place::new();
    let follower = place.start().await;
    let mut push = segment(1, &spans(&[(1, 1)]));
    push.primary = "ingester-7".to_owned();
    follower.push(push).await.expect("held");
    assert!(follower.find_unless(1, &["ingester-7"]).await.is_empty());
    assert_eq!(follower.find_unless(1, &["ingester-5"]).await, [1]);
    follower.kill().await;
    let follower = place.start().await;
    assert_eq!(follower.find(1).await, [1], "after a replay");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn released_segments_are_gone_for_good() {
    let place = Place::new();
    let follower = place.start().await;
    for id in 1..=3 {
        let mut push = segment(id, &spans(&[(1, id)]));
        push.primary = "ingester-7".to_owned();
        follower.push(push).await.expect("held");
    }
    let release = ReleaseRequest { primary: "ingester-7".to_owned(), covered: ranges(1, 2) };
    follower.log().release(release).await.expect("released");
    assert_eq!(follower.find(1).await, [3]);
    follower.kill().await;
    let follower = place.start().await;
    assert_eq!(follower.find(1).await, [3], "after a replay");
    let before = place.log_files();
    let release = ReleaseRequest { primary: "ingester-7".to_owned(), covered: ranges(3, 9) };
    follower.log().release(release).await.expect("released");
    until("the log is empty", || async { place.log_files() != before }).await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_tells_what_is_stored_what_is_pending_and_nothing_of_the_rest() {
    let place = Place::new();
    let primary = place.start().await;
    for id in 1..=2 {
        primary.push(segment(id, &spans(&[(1, id)]))).await.expect("taken");
    }
    primary.get("/flush").await;
    until("the block is in the bucket", || async { place.bucket.blocks(&TenantId::single()).await.is_ok_and(|b| b.len() == 1) }).await;
    primary.push(segment(3, &spans(&[(1, 3)]))).await.expect("taken");
    let covered = async || {
        let request = CoveredRequest { primary: "ingester-0".to_owned(), held: ranges(2, 9) };
        primary.log().covered(request).await.expect("answered").into_inner()
    };
    until("the block is recorded", || async { covered().await.covered == ranges(2, 2) }).await;
    assert_eq!(covered().await.pending, ranges(3, 3));
    primary.stop().await;
}
