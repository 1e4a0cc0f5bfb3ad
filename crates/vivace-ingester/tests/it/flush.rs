use std::time::Duration;

use vivace_core::TenantId;

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
    until("the first log file is gone", || async { file_names(&place.log_files()) == ["0000000002.log"] }).await;
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
