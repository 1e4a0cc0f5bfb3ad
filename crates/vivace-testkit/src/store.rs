//! A bucket that fails when it is told to, for what no real one does on demand: writes that are refused midway, listings that
//! never end. It counts as well, for tests of how much a bucket is asked.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;

/// What becomes of a listing of blocks.
#[derive(Debug, Default, Clone, Copy)]
pub enum Listings {
    /// It is answered.
    #[default]
    Answered,
    /// It is an error.
    Refused,
    /// It never ends.
    Unanswered,
}

/// What a [`Faulty`] store does, and what was asked of it.
#[derive(Debug, Default)]
pub struct Faults {
    /// What becomes of listings.
    pub listings: Mutex<Listings>,
    /// So many writes are done before all are refused; no number: none is.
    pub writes_left: Mutex<Option<usize>>,
    /// Objects of this file name are not written.
    pub refused_name: Mutex<Option<&'static str>>,
    /// So many `meta.json` were asked for.
    pub metas_read: AtomicUsize,
    /// So often something was listed.
    pub listed: AtomicUsize,
    /// Parts of uploads are never answered.
    pub are_parts_unanswered: AtomicBool,
    /// An upload in parts was begun and neither completed nor aborted.
    pub is_upload_open: AtomicBool,
}

/// A store in memory that refuses what it is told to, and counts what is asked of it.
#[derive(Debug, Default)]
pub struct Faulty {
    store: InMemory,
    /// Kept by the test when the store is given away.
    pub faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    faults: Arc<Faults>,
}

impl Faults {
    fn write(&self, name: Option<&str>) -> Result<()> {
        if name.is_some() && *self.refused_name.lock() == name {
            return Err(refused());
        }
        match self.writes_left.lock().as_mut() {
            None => Ok(()),
            Some(0) => Err(refused()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

fn refused() -> Error {
    Error::Generic { store: "faulty", source: "slow down".into() }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.faults.are_parts_unanswered.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        match self.faults.write(None) {
            Ok(()) => self.upload.put_part(data),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.faults.write(None)?;
        let done = self.upload.complete().await?;
        self.faults.is_upload_open.store(false, Ordering::Relaxed);
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.faults.is_upload_open.store(false, Ordering::Relaxed);
        self.upload.abort().await
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.faults.write(location.filename())?;
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.faults.write(location.filename())?;
        let upload = self.store.put_multipart_opts(location, options).await?;
        self.faults.is_upload_open.store(true, Ordering::Relaxed);
        Ok(Box::new(FaultyUpload { upload, faults: Arc::clone(&self.faults) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if location.filename() == Some("meta.json") {
            self.faults.metas_read.fetch_add(1, Ordering::Relaxed);
        }
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.faults.listed.fetch_add(1, Ordering::Relaxed);
        match *self.faults.listings.lock() {
            Listings::Answered => self.store.list(prefix),
            Listings::Refused => futures::stream::iter([Err(refused())]).boxed(),
            Listings::Unanswered => futures::stream::pending().boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
