use bytes::Bytes;
use tonic::Code;

use crate::running::{Place, segment, spans};

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_found_as_soon_as_they_are_acknowledged() {
    let place = Place::new();
    let ingester = place.start().await;
    for sequence in 1..=20 {
        ingester.push(segment(sequence, &spans(&[(1, sequence), (2, 100 + sequence)]))).await.expect("taken");
        assert_eq!(ingester.find(1).await, (1..=sequence).collect::<Vec<_>>());
    }
    assert!(ingester.find(3).await.is_empty());
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_push_changes_nothing() {
    let place = Place::new();
    let ingester = place.start().await;
    let push = segment(1, &spans(&[(1, 1)]));
    for _ in 0..3 {
        ingester.push(push.clone()).await.expect("taken");
    }
    assert_eq!(ingester.find(1).await, [1]);
    ingester.kill().await;
    let log = std::fs::read(&place.log_files()[0]).expect("readable");
    assert!(log.len() < 2 * push.payload.len() + 200, "logged once, not three times: {} bytes", log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_segment_is_refused_by_name() {
    let place = Place::new();
    let ingester = place.start().await;
    let good = segment(1, &spans(&[(1, 1)]));
    let mut lying = good.clone();
    lying.uncompressed_bytes = 400 << 20;
    let mut short = good.clone();
    short.uncompressed_bytes += 1;
    let mut cut = good.clone();
    cut.compression = 0;
    cut.payload = Bytes::from_static(&[0x0a, 200, 1]);
    cut.uncompressed_bytes = 3;
    let mut tenant = good.clone();
    tenant.tenant = "a/b".to_owned();
    let mut id = good.clone();
    id.id = None;
    for (request, says) in [
        (lying, "claims 419430400 bytes uncompressed"),
        (short, "no lz4 block of"),
        (cut, "no TracesData message: message ends inside a field that starts at byte 0"),
        (tenant, "unsupported character '/'"),
        (id, "the segment has no id"),
    ] {
        let status = ingester.push(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(says), "{says:?} in {:?}", status.message());
    }
    ingester.push(good).await.expect("the good one is taken");
    assert_eq!(ingester.find(1).await, [1]);
    ingester.stop().await;
}
