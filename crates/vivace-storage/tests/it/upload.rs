//! Blocks are stored while their data is being written.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vivace_block::objects;
use vivace_storage::{Bucket, BucketError, DataWriter};
use vivace_testkit::Faulty;

use crate::{block, tenant};

/// Writes in pieces that are no parts, and finishes unless told otherwise.
fn write(mut writer: DataWriter, data: &[u8], is_finished: bool) -> std::io::Result<()> {
    for piece in data.chunks(100_000) {
        writer.write_all(piece)?;
    }
    if is_finished { writer.finish() } else { Ok(()) }
}

async fn stream(bucket: &Bucket, data: &[u8], is_finished: bool) -> Result<Option<u64>, BucketError> {
    let (meta, _) = block(&tenant("a"), 1, data);
    let (writer, upload) = bucket.stream_data(&meta.tenant_id, meta.block_id);
    let data = data.to_vec();
    let writing = tokio::task::spawn_blocking(move || write(writer, &data, is_finished));
    let (uploaded, written) = tokio::join!(upload.run(), writing);
    let written = written.expect("no panic");
    if uploaded.is_ok() {
        written.expect("the upload took all");
    }
    uploaded
}

#[tokio::test]
async fn what_is_streamed_is_what_was_written() {
    for len in [1, 99_999, 8 << 20, (8 << 20) + 1, 30 << 20] {
        let data: Vec<u8> = (0..len).map(|i: usize| (i / 1000) as u8).collect();
        let bucket = Bucket::memory();
        assert_eq!(stream(&bucket, &data, true).await.expect("stored"), Some(len as u64));
        let (meta, blooms) = block(&tenant("a"), 1, &data);
        assert!(bucket.blocks(&meta.tenant_id).await.expect("listed").is_empty(), "not to be seen without its meta");
        bucket.finish_block(&meta, &blooms, b"{}").await.expect("stored");
        assert_eq!(bucket.blocks(&meta.tenant_id).await.expect("listed"), std::slice::from_ref(&meta));
        let stored = bucket.object(&meta.tenant_id, meta.block_id, objects::DATA).await.expect("readable").expect("there");
        assert!(stored == data, "{len} bytes");
    }
}

#[tokio::test]
async fn a_writer_that_gives_up_leaves_nothing() {
    for len in [0, 5, 20 << 20] {
        let faulty = Faulty::default();
        let faults = Arc::clone(&faulty.faults);
        let bucket = Bucket::of_store(Arc::new(faulty));
        assert_eq!(stream(&bucket, &vec![7; len], false).await.expect("no failure"), None);
        assert!(!faults.is_upload_open.load(Ordering::Relaxed));
        let (meta, _) = block(&tenant("a"), 1, b"");
        assert_eq!(bucket.object(&meta.tenant_id, meta.block_id, objects::DATA).await.expect("readable"), None);
    }
}

/// Whichever write it is that fails first: an error that names the object, a writer that hears of it, no upload that stays open.
#[tokio::test]
async fn every_write_may_fail() {
    for len in [5, 20 << 20] {
        let data = vec![7; len];
        for writes in 0.. {
            let faulty = Faulty::default();
            let faults = Arc::clone(&faulty.faults);
            let bucket = Bucket::of_store(Arc::new(faulty));
            let (meta, blooms) = block(&tenant("a"), 1, &data);
            *faults.writes_left.lock() = Some(writes);
            let stored = match stream(&bucket, &data, true).await {
                Ok(_) => bucket.finish_block(&meta, &blooms, b"{}").await,
                Err(error) => Err(error),
            };
            let Err(error) = stored else {
                assert!(writes > 3, "data, filters, index and meta are objects of their own");
                break;
            };
            assert!(matches!(&error, BucketError::Unavailable { .. }) && error.to_string().contains(&meta.block_id.to_string()), "{error}");
            assert!(!faults.is_upload_open.load(Ordering::Relaxed), "after {writes} writes parts stay in the bucket");
            assert!(bucket.blocks(&meta.tenant_id).await.expect("listed").is_empty());
            *faults.writes_left.lock() = None;
            stream(&bucket, &data, true).await.expect("stored");
            bucket.finish_block(&meta, &blooms, b"{}").await.expect("stored");
            assert_eq!(bucket.blocks(&meta.tenant_id).await.expect("listed").len(), 1);
        }
    }
}
