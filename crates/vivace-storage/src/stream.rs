//! Storing a block without a file of its own: from memory, or while its data is being written.

use std::io::{self, Write};

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::mpsc;
use vivace_block::{BlockMeta, objects};
use vivace_core::{BlockId, TenantId};

use crate::bucket::Bucket;
use crate::error::BucketError;
use crate::keys;
use crate::metrics::WRITTEN_BYTES;

/// Takes a block's `data.parquet` as it is written, and hands it to its [`DataUpload`] in parts. Writing blocks the thread while the
/// bucket is slower; it fails when the upload has failed or was given up.
#[derive(Debug)]
pub struct DataWriter {
    part: Vec<u8>,
    part_bytes: usize,
    parts: mpsc::Sender<Part>,
}

/// The other end of a [`DataWriter`].
#[derive(Debug)]
pub struct DataUpload {
    bucket: Bucket,
    tenant: TenantId,
    block: BlockId,
    parts: mpsc::Receiver<Part>,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    is_last: bool,
}

impl Bucket {
    /// Stores a block's `data.parquet` while it is written: both ends have to run at the same time, and memory is bounded by a few
    /// parts. Where this fails, nothing of the object is to be seen, and doing it again is right.
    #[must_use]
    pub fn stream_data(&self, tenant: &TenantId, block: BlockId) -> (DataWriter, DataUpload) {
        let (sender, parts) = mpsc::channel(1);
        let part_bytes = usize::try_from(self.part_bytes()).unwrap_or(usize::MAX);
        let writer = DataWriter { part: Vec::new(), part_bytes, parts: sender };
        (writer, DataUpload { bucket: self.clone(), tenant: tenant.clone(), block, parts })
    }

    /// Stores a block whose data is in memory; `meta.json` is written last and makes it visible.
    ///
    /// # Errors
    /// [`BucketError`]; storing it again under the same id is right.
    pub async fn put_block_from_memory(&self, meta: &BlockMeta, data: Bytes, blooms: &[Vec<u8>], index: &[u8]) -> Result<(), BucketError> {
        let len = data.len() as u64;
        self.put(&keys::object(&meta.tenant_id, meta.block_id, objects::DATA), data).await?;
        metrics::counter!(WRITTEN_BYTES.name).increment(len);
        self.finish_block(meta, blooms, index).await
    }

    /// Stores what belongs to a block whose data is in the bucket already; `meta.json` is written last and makes it visible.
    ///
    /// # Errors
    /// [`BucketError`]; doing it again is right.
    pub async fn finish_block(&self, meta: &BlockMeta, blooms: &[Vec<u8>], index: &[u8]) -> Result<(), BucketError> {
        let at = |name: &str| keys::object(&meta.tenant_id, meta.block_id, name);
        let blooms = (0..).zip(blooms).map(|(shard, bytes)| (at(&objects::bloom(shard)), Bytes::copy_from_slice(bytes)));
        let beside = blooms.chain([(at(objects::INDEX), Bytes::copy_from_slice(index))]);
        try_join_all(beside.map(|(location, bytes)| async move { self.put(&location, bytes).await })).await?;
        self.put(&at(objects::META), meta.to_json().into()).await
    }
}

impl DataWriter {
    fn send(&mut self, is_last: bool) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.part).into();
        self.parts.blocking_send(Part { bytes, is_last }).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended"))
    }

    /// Hands over the rest. Without it nothing is stored.
    ///
    /// # Errors
    /// The upload has ended.
    pub fn finish(mut self) -> io::Result<()> {
        self.send(true)
    }
}

impl Write for DataWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.part_bytes - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == self.part_bytes {
            self.send(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DataUpload {
    /// Stores what is written until the writer is finished; tells how many bytes that were. None when the writer was dropped before:
    /// then nothing is stored.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    pub async fn run(mut self) -> Result<Option<u64>, BucketError> {
        let location = keys::object(&self.tenant, self.block, objects::DATA);
        let Some(first) = self.parts.recv().await else { return Ok(None) };
        let mut bytes = first.bytes.len() as u64;
        if first.is_last {
            self.bucket.put(&location, first.bytes).await?;
        } else {
            let mut upload = self.bucket.begin_upload(&location).await?;
            let mut next = Some(first);
            loop {
                let Some(part) = next else {
                    upload.give_up().await;
                    return Ok(None);
                };
                if let Err(error) = upload.put(part.bytes).await {
                    upload.give_up().await;
                    return Err(error);
                }
                if part.is_last {
                    break;
                }
                next = self.parts.recv().await;
                bytes += next.as_ref().map_or(0, |part| part.bytes.len() as u64);
            }
            upload.complete().await?;
        }
        metrics::counter!(WRITTEN_BYTES.name).increment(bytes);
        Ok(Some(bytes))
    }
}
