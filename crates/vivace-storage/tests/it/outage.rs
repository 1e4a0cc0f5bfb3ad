//! Blocks are stored while the bucket refuses writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vivace_storage::{Bucket, BucketError};
use vivace_testkit::Faulty;

use crate::{block, tenant};

/// Whichever write it is that fails first, it is an error that names the object; nothing is to be seen of the block and no upload
/// stays open. Once writes are answered again the same block is stored.
async fn every_write_may_fail(data: &[u8]) {
    let tenant = tenant("a");
    for writes in 0.. {
        let faulty = Faulty::default();
        let faults = Arc::clone(&faulty.faults);
        let bucket = Bucket::of_store(Arc::new(faulty));
        let (meta, blooms) = block(&tenant, 1, data);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), data).expect("written");
        *faults.writes_left.lock() = Some(writes);
        let refused = bucket.put_block(&meta, file.path(), blooms.clone(), b"{}".to_vec()).await;
        if refused.is_ok() {
            assert!(writes > 3, "data, filters, index and meta are objects of their own");
            return;
        }
        let error = refused.expect_err("refused");
        assert!(matches!(&error, BucketError::Unavailable { .. }) && error.to_string().contains(&meta.block_id.to_string()), "{error}");
        assert!(!faults.is_upload_open.load(Ordering::Relaxed), "after {writes} writes parts stay in the bucket");
        assert!(bucket.blocks(&tenant).await.expect("listed").is_empty());

        *faults.writes_left.lock() = None;
        bucket.put_block(&meta, file.path(), blooms, b"{}".to_vec()).await.expect("stored");
        assert_eq!(bucket.blocks(&tenant).await.expect("listed").len(), 1);
    }
}

#[tokio::test]
async fn an_upload_whose_time_runs_out_leaves_no_parts() {
    let faulty = Faulty::default();
    let faults = Arc::clone(&faulty.faults);
    let bucket = Bucket::of_store(Arc::new(faulty));
    let data = vec![7; 20 << 20];
    let (meta, blooms) = block(&tenant("a"), 1, &data);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &data).expect("written");
    faults.are_parts_unanswered.store(true, Ordering::Relaxed);
    let stored = bucket.put_block(&meta, file.path(), blooms, b"{}".to_vec());
    tokio::time::timeout(Duration::from_millis(300), stored).await.expect_err("no part is answered");
    let aborted = async {
        while faults.is_upload_open.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), aborted).await.expect("the parts are taken out of the bucket");
}

#[tokio::test]
async fn every_write_of_a_small_block_may_fail() {
    every_write_may_fail(b"data").await;
}

#[tokio::test]
async fn every_write_of_a_block_in_parts_may_fail() {
    every_write_may_fail(&vec![7; 20 << 20]).await;
}
