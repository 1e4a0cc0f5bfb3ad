use std::time::Duration;

use vivace_core::TenantId;
use vivace_proto::vivace::v1::PushRequest;

use crate::running::{Place, file_names, segment, spans, until};

async fn blocks(place: &Place) -> Vec<vivace_block::BlockMeta> {
    place.bucket.blocks(&TenantId::single()).await.expect("listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_block_is_in_the_bucket_and_still_served_and_its_log_is_gone() {
    let place = Place::new();
    let ingester = place.start().await;
    for id in 1..=10 {
        ingester.push(segment(id, &spans(&[(1, id), (2, 100 + id)]))).await.expect("taken");
    }
    assert_eq!(ingester.get("/flush").await.0, 204);
    until("the block is in the bucket", || async { blocks(&place).await.len() == 1 }).await;
    until("the first log file is gone", || async {
        matches!(file_names(&place.log_files())[..], [name] if name.starts_with("0000000002-"))
    })
    .await;
    let meta = blocks(&place).await.remove(0);
    assert_eq!((meta.total_objects, meta.compaction_level), (2, 0));
    assert_eq!(ingester.find(1).await, (1..=10).collect::<Vec<_>>());
    // What comes after is combined with what is in the block.
    ingester.push(segment(11, &spans(&[(1, 11)]))).await.expect("taken");
    assert_eq!(ingester.find(1).await, (1..=11).collect::<Vec<_>>());
    ingester.kill().await;
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, (1..=11).collect::<Vec<_>>(), "the block is served after a restart");
    assert_eq!(ingester.find(2).await, (101..=110).collect::<Vec<_>>());
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_block_is_served_until_queriers_know_it() {
    let mut place = Place::new();
    place.config.ingester.complete_block_timeout = Duration::from_secs(1);
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    ingester.get("/flush").await;
    until("the block is in the bucket", || async { blocks(&place).await.len() == 1 }).await;
    until("the block is not served any more", || async { ingester.find(1).await.is_empty() }).await;
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_cut_by_size_and_by_age() {
    let mut place = Place::new();
    place.config.ingester.max_block_bytes = 2000;
    place.config.ingester.max_block_duration = Duration::from_secs(3600);
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    for id in 2..=20 {
        ingester.push(segment(id, &spans(&[(1, id)]))).await.expect("taken");
    }
    until("a block is cut by size", || async { !blocks(&place).await.is_empty() }).await;
    ingester.stop().await;

    let mut place = Place::new();
    place.config.ingester.max_block_duration = Duration::from_secs(1);
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    until("a block is cut by age", || async { !blocks(&place).await.is_empty() }).await;
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_is_flushed_and_an_unknown_one_is_not_found() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    assert_eq!(ingester.get("/flush?tenant=nobody").await, (404, "tenant nobody is not known here\n".to_owned()));
    assert_eq!(ingester.get("/flush?tenant=single-tenant").await.0, 204);
    until("the block is in the bucket", || async { blocks(&place).await.len() == 1 }).await;
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_flushes_everything_first() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    assert_eq!(ingester.get("/shutdown").await, (200, "shutdown job acknowledged".to_owned()));
    ingester.ended().await;
    assert_eq!(blocks(&place).await.len(), 1);
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1]);
    assert_eq!(blocks(&place).await.len(), 1, "nothing is flushed twice");
    ingester.stop().await;
}

/// Sends spans with other times than now, in seconds from now, and returns the range of their block, in seconds from its flush.
async fn block_range(times: &[(i64, i64)]) -> (i64, i64) {
    let place = Place::new();
    let ingester = place.start().await;
    let now = vivace_server::clock::unix_nanos();
    let at = |seconds: i64| if seconds == ZERO { 0 } else { now.saturating_add_signed(seconds * 1_000_000_000) };
    let mut data = spans(&(1..=times.len() as u64).map(|id| (1, id)).collect::<Vec<_>>());
    for (span, (start, end)) in data.resource_spans[0].scope_spans[0].spans.iter_mut().zip(times) {
        (span.start_time_unix_nano, span.end_time_unix_nano) = (at(*start), at(*end));
    }
    ingester.push(segment(1, &data)).await.expect("taken");
    // Also when it is replayed, its times count from its arrival.
    ingester.kill().await;
    let ingester = place.start().await;
    ingester.get("/flush").await;
    until("the block is in the bucket", || async { blocks(&place).await.len() == 1 }).await;
    assert_eq!(ingester.find(1).await.len(), times.len());
    ingester.stop().await;
    let meta = blocks(&place).await.remove(0);
    let seconds = |nanos: u64| (nanos as i64 - now as i64).div_euclid(1_000_000_000);
    (seconds(meta.start_unix_nanos), seconds(meta.end_unix_nanos))
}

/// No time at all.
const ZERO: i64 = i64::MIN;

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_spans_with_other_times_counts_from_their_arrival() {
    const DAY: i64 = 86_400;
    let near = |seconds: i64| (-2..30).contains(&seconds);
    for times in [[(-400 * DAY, -400 * DAY)], [(ZERO, ZERO)], [(174 * 365 * DAY, 174 * 365 * DAY)], [(-15 * DAY, -15 * DAY + 1)]] {
        let (start, end) = block_range(&times).await;
        assert!(near(start) && near(end), "{times:?}: {start} to {end}");
    }
    let (start, end) = block_range(&[(-90, -80), (ZERO, ZERO), (174 * 365 * DAY, ZERO)]).await;
    assert!((-92..=-90).contains(&start) && near(end), "beside spans of now: {start} to {end}");
    let (start, end) = block_range(&[(-600, -590)]).await;
    assert!((-602..=-600).contains(&start) && near(end), "late spans are found at their own time: {start} to {end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_tenants_are_flushed_together_and_each_has_its_block() {
    let mut place = Place::new();
    place.config.ingester.flush_check_period = Duration::from_secs(1);
    let ingester = place.start().await;
    for n in 1..=300u64 {
        let request = PushRequest { tenant: format!("tenant-{n}"), ..segment(n, &spans(&[(1, n)])) };
        ingester.push(request).await.expect("taken");
    }
    assert_eq!(ingester.get("/flush").await.0, 204);
    until("nothing is left in the log", || async { place.log_bytes() < 100 }).await;
    assert_eq!(place.bucket.tenants().await.expect("listed").len(), 300);
    for n in [1, 150, 300] {
        let tenant = TenantId::new(&format!("tenant-{n}")).expect("valid");
        let metas = place.bucket.blocks(&tenant).await.expect("listed");
        assert_eq!((metas.len(), metas[0].total_objects), (1, 1), "{tenant}");
    }
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_block_goes_into_the_bucket_as_it_is_built() {
    let place = Place::new();
    let ingester = place.start().await;
    // Noise, which does not compress: more than one part of an upload.
    let mut state = 1u64;
    for n in 1..=40u8 {
        let mut data = spans(&(1..=20).map(|i| (n, i)).collect::<Vec<_>>());
        for span in &mut data.resource_spans[0].scope_spans[0].spans {
            let noise: String = (0..30_000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    char::from(b' ' + (state >> 33) as u8 % 95)
                })
                .collect();
            span.name = noise;
        }
        ingester.push(segment(n.into(), &data)).await.expect("taken");
    }
    ingester.get("/flush").await;
    until("the block is in the bucket", || async { blocks(&place).await.len() == 1 }).await;
    let meta = blocks(&place).await.remove(0);
    assert!(meta.size_bytes > 16 << 20, "{}", meta.size_bytes);
    assert_eq!(place.bucket.data_bytes(&meta.tenant_id, meta.block_id).await.expect("there"), meta.size_bytes);
    assert_eq!(ingester.find(40).await.len(), 20);
    until("nothing is left in the log", || async { place.log_bytes() < 100 }).await;
    ingester.stop().await;
}
