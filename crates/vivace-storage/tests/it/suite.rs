use std::sync::Arc;

use vivace_block::ReadAt;
use vivace_config::{Backend, LocalBackend, S3, TraceStorage};
use vivace_storage::{Bucket, BucketError};

use crate::{block_id, store, tenant, trace_id};

/// What every bucket does. `bucket` is empty.
async fn behaves_as_a_bucket(bucket: Bucket) {
    let (a, odd) = (tenant("a"), tenant("it's-(b)*!"));
    assert!(bucket.tenants().await.expect("listed").is_empty());
    assert!(bucket.list(&a).await.expect("listed").blocks.is_empty());

    // Larger than one part of an upload, and not a multiple of it.
    let large: Vec<u8> = (0..(17u32 << 20) + 5).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let meta = store(&bucket, &a, 1, &large).await;
    store(&bucket, &a, 2, b"small").await;
    let other = store(&bucket, &odd, 3, &[7; 200]).await;
    assert_eq!(bucket.tenants().await.expect("listed"), [a.clone(), odd.clone()]);
    assert_eq!(bucket.blocks(&odd).await.expect("listed"), [other]);
    assert_eq!(bucket.meta(&a, block_id(1)).await.expect("read"), meta);

    reads_ranges(bucket.reader(&meta), large).await;

    assert!(bucket.bloom_may_contain(&meta, trace_id(5)).await.expect("read"));
    let mut wrong = 0;
    for i in 1000..1200 {
        wrong += usize::from(bucket.bloom_may_contain(&meta, trace_id(i)).await.expect("read"));
    }
    assert!(wrong < 20, "{wrong} of 200 absent traces may be there");

    bucket.mark_compacted(&a, block_id(1)).await.expect("marked");
    assert!(matches!(bucket.meta(&a, block_id(1)).await, Err(BucketError::Gone { .. })));
    assert!(matches!(bucket.mark_compacted(&a, block_id(1)).await, Err(BucketError::Gone { .. })), "twice");
    assert_eq!(bucket.compacted_meta(&a, block_id(1)).await.expect("read"), meta);
    let listed = bucket.list(&a).await.expect("listed").blocks;
    let compacted_at = listed[0].compacted_unix_nanos.expect("compacted");
    assert!(crate::clock().abs_diff(compacted_at) < 3_600_000_000_000, "the time of marking, not {compacted_at}");
    assert_eq!(listed[1].compacted_unix_nanos, None);

    bucket.delete_block(&a, block_id(1)).await.expect("deleted");
    bucket.delete_block(&a, block_id(2)).await.expect("deleted");
    bucket.delete_block(&a, block_id(2)).await.expect("deleting what is gone is no error");
    assert!(bucket.list(&a).await.expect("listed").blocks.is_empty());
    assert_eq!(bucket.tenants().await.expect("listed"), [odd]);
}

async fn reads_ranges(reader: Arc<dyn ReadAt>, want: Vec<u8>) {
    tokio::task::spawn_blocking(move || {
        let len = want.len();
        assert_eq!(reader.len(), len as u64);
        // The last 100 bytes are this block's footer, answered from the cache the second time.
        for range in [0..4, 1000..70_000, len - 8..len, len - 100..len - 8, len - 8..len, len - 200..len, 5..5] {
            let got = reader.read(range.start as u64..range.end as u64).expect("read");
            assert!(got == want[range.clone()], "bytes {range:?}");
        }
        let many = reader.read_many(&[1..3, 10..20, 9_000_000..9_000_010]).expect("read");
        assert_eq!(many, [&want[1..3], &want[10..20], &want[9_000_000..9_000_010]]);
        assert!(reader.read(0..len as u64 + 1).is_err(), "beyond the end");
    })
    .await
    .expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    behaves_as_a_bucket(Bucket::memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("traces").display().to_string();
    let config = TraceStorage { backend: Backend::Local, local: LocalBackend { path }, ..Default::default() };
    behaves_as_a_bucket(Bucket::open(&config, &|_| None).await.expect("opens")).await;
    assert_eq!(std::fs::read_dir(folder.path().join("traces/a")).map_or(0, Iterator::count), 0, "no empty folders stay");
}

/// `VIVACE_TEST_S3_ENDPOINT`, `VIVACE_TEST_S3_BUCKET` (empty), and AWS's or MinIO's variables for the keys.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server: VIVACE_TEST_S3_ENDPOINT, VIVACE_TEST_S3_BUCKET"]
#[expect(clippy::disallowed_methods, reason = "which server is there only the environment can say")]
async fn s3() {
    let env = |name: &str| std::env::var(name).ok();
    for prefix in ["", "some/folder"] {
        let s3 = S3 {
            endpoint: env("VIVACE_TEST_S3_ENDPOINT").expect("VIVACE_TEST_S3_ENDPOINT is set"),
            bucket: env("VIVACE_TEST_S3_BUCKET").expect("VIVACE_TEST_S3_BUCKET is set"),
            insecure: true,
            prefix: prefix.to_owned(),
            ..Default::default()
        };
        let config = TraceStorage { backend: Backend::S3, s3, ..Default::default() };
        let bucket = Bucket::open(&config, &env).await.expect("opens");
        behaves_as_a_bucket(bucket.clone()).await;
        bucket.delete_block(&tenant("it's-(b)*!"), block_id(3)).await.expect("deleted");
    }
}
