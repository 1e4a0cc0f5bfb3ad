use vivace_proto::vivace::v1::refused_trace::Reason;

use crate::running::{Place, segment, spans, until};

#[tokio::test(flavor = "multi_thread")]
async fn traces_over_a_limit_are_named_and_never_seen() {
    let mut place = Place::new();
    place.limits.ingestion.max_traces_per_user = 2;
    let ingester = place.start().await;
    let answer = ingester.push(segment(1, &spans(&[(1, 1), (2, 2), (3, 3), (3, 4), (1, 5)]))).await.expect("taken");
    let refused: Vec<_> = answer.refused.iter().map(|r| (r.trace_id[0], r.reason(), r.spans)).collect();
    assert_eq!(refused, [(3, Reason::LiveTracesExceeded, 2)]);
    // The same answer for the same segment, though there may be room by now.
    let again = ingester.push(segment(1, &spans(&[(1, 1), (2, 2), (3, 3), (3, 4), (1, 5)]))).await.expect("taken");
    assert_eq!(again, answer);
    ingester.push(segment(2, &spans(&[(1, 6)]))).await.expect("a trace that is live goes on");
    let all = ingester.push(segment(3, &spans(&[(4, 7)]))).await.expect("answered");
    assert_eq!(all.refused.len(), 1);
    let seen = async |ingester: &crate::running::Running| {
        (ingester.find(1).await, ingester.find(2).await, ingester.find(3).await, ingester.find(4).await)
    };
    let want = (vec![1, 5, 6], vec![2], vec![], vec![]);
    assert_eq!(seen(&ingester).await, want);
    ingester.kill().await;
    let ingester = place.start().await;
    assert_eq!(seen(&ingester).await, want, "after a replay");
    ingester.get("/flush").await;
    until("the log is gone", || async { place.log_files().iter().all(|f| f.metadata().is_ok_and(|m| m.len() < 20)) }).await;
    assert_eq!(seen(&ingester).await, want, "after a flush");
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_grows_too_large_is_refused_from_there_on() {
    let mut place = Place::new();
    place.limits.global.max_bytes_per_trace = 150;
    let ingester = place.start().await;
    let mut refused = Vec::new();
    for id in 1..=4 {
        let answer = ingester.push(segment(id, &spans(&[(1, id)]))).await.expect("answered");
        refused.push(answer.refused.first().map(|r| r.reason()));
    }
    let kept = refused.iter().filter(|r| r.is_none()).count() as u64;
    assert!((1..4).contains(&kept), "{refused:?}");
    assert!(refused[kept as usize..].iter().all(|r| *r == Some(Reason::TraceTooLarge)), "{refused:?}");
    assert_eq!(ingester.find(1).await, (1..=kept).collect::<Vec<_>>());
    ingester.stop().await;
}
