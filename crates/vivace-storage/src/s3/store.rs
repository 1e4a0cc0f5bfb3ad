//! The calls themselves, kept to what servers other than AWS's know too. Credentials, retries and timeouts belong to the client
//! that is handed in.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;

use super::error::store_error;

/// Deletions in flight of one `delete_stream`. Objects are deleted one by one: the batch call needs a checksum that
/// several S3-compatible servers do not know.
const DELETE_CONCURRENCY: usize = 16;

/// What every written object carries.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    pub(crate) sse: Option<ServerSideEncryption>,
    pub(crate) sse_kms_key_id: Option<String>,
    /// Base64 of the JSON object.
    pub(crate) sse_kms_context: Option<String>,
    pub(crate) storage_class: Option<StorageClass>,
    /// In the form of a URL query.
    pub(crate) tagging: Option<String>,
    pub(crate) metadata: Option<std::collections::HashMap<String, String>>,
}

/// [`ObjectStore`] over AWS's own client.
#[derive(Clone)]
pub(crate) struct S3 {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    bucket: String,
    write: WriteOptions,
}

impl S3 {
    pub(crate) fn new(client: Client, bucket: String, write: WriteOptions) -> Self {
        Self { inner: Arc::new(Inner { client, bucket, write }) }
    }

    fn pages(&self, prefix: Option<&Path>, delimiter: bool) -> BoxStream<'static, Result<ListResult>> {
        // A prefix is a folder: `a/b` must not list `a/bc`.
        let prefix = prefix.filter(|p| !p.is_root()).map(|p| format!("{p}/"));
        let request = self.inner.client.list_objects_v2().bucket(&self.inner.bucket).set_prefix(prefix.clone());
        let request = if delimiter { request.delimiter("/") } else { request };
        let place = prefix.unwrap_or_default();
        let pages = request.into_paginator().send();
        stream::try_unfold((pages, place), |(mut pages, place)| async move {
            let Some(page) = pages.next().await else { return Ok(None) };
            let page = page.map_err(|e| store_error(&place, e))?;
            let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
            for folder in page.common_prefixes() {
                result.common_prefixes.extend(path_of(folder.prefix().unwrap_or_default()));
            }
            for object in page.contents() {
                let key = object.key().unwrap_or_default();
                // Folders made by hand in a console are empty objects whose name ends with a slash.
                if key.ends_with('/') {
                    continue;
                }
                let Some(location) = path_of(key) else { continue };
                result.objects.push(ObjectMeta {
                    location,
                    last_modified: time_of(object.last_modified()),
                    size: size_of(object.size()),
                    e_tag: object.e_tag().map(str::to_owned),
                    version: None,
                });
            }
            Ok(Some((result, (pages, place))))
        })
        .boxed()
    }

    fn get_request(&self, location: &Path) -> GetObjectFluentBuilder {
        self.inner.client.get_object().bucket(&self.inner.bucket).key(location.as_ref())
    }

    async fn head_object(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let request = self.inner.client.head_object().bucket(&self.inner.bucket).key(location.as_ref());
        let found = request
            .set_if_match(options.if_match)
            .set_if_none_match(options.if_none_match)
            .send()
            .await
            .map_err(|e| store_error(location.as_ref(), e))?;
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: time_of(found.last_modified()),
            size: size_of(found.content_length()),
            e_tag: found.e_tag().map(str::to_owned),
            version: found.version_id().map(str::to_owned),
        };
        Ok(GetResult {
            range: 0..meta.size,
            meta,
            payload: GetResultPayload::Stream(stream::empty().boxed()),
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }
}

impl fmt::Display for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3({})", self.inner.bucket)
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The path of a key. Keys that are none, such as `a//b` or ones with line breaks, are of nobody that writes blocks: they are
/// reported, and hide nothing else of a listing.
fn path_of(key: &str) -> Option<Path> {
    match Path::parse(key) {
        Ok(path) => Some(path),
        Err(error) => {
            crate::report_bad_object("", key, &error.to_string());
            None
        }
    }
}

fn size_of(length: Option<i64>) -> u64 {
    length.and_then(|l| u64::try_from(l).ok()).unwrap_or_default()
}

fn time_of(time: Option<&DateTime>) -> chrono::DateTime<chrono::Utc> {
    time.and_then(|t| chrono::DateTime::from_timestamp(t.secs(), t.subsec_nanos())).unwrap_or_default()
}

fn body_stream(key: String, body: ByteStream) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold((key, body), |(key, mut body)| async move {
        match body.try_next().await {
            Ok(Some(bytes)) => Ok(Some((bytes, (key, body)))),
            Ok(None) => Ok(None),
            Err(source) => Err(Error::Generic { store: "S3", source: format!("the answer for {key} broke off: {source}").into() }),
        }
    })
    .boxed()
}

/// `bytes 0-99/1234`: the range given and the size of the whole object.
fn content_range(text: &str) -> Option<(std::ops::Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?, size.parse().ok()?))
}

#[async_trait]
impl ObjectStore for S3 {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let write = &self.inner.write;
        let mut request = self
            .inner
            .client
            .put_object()
            .bucket(&self.inner.bucket)
            .key(location.as_ref())
            .body(ByteStream::from(Bytes::from(payload)))
            .set_server_side_encryption(write.sse.clone())
            .set_ssekms_key_id(write.sse_kms_key_id.clone())
            .set_ssekms_encryption_context(write.sse_kms_context.clone())
            .set_storage_class(write.storage_class.clone())
            .set_tagging(write.tagging.clone())
            .set_metadata(write.metadata.clone());
        let create = matches!(opts.mode, PutMode::Create);
        match opts.mode {
            PutMode::Overwrite => {}
            PutMode::Create => request = request.if_none_match("*"),
            PutMode::Update(version) => request = request.set_if_match(version.e_tag),
        }
        match request.send().await {
            Ok(put) => Ok(PutResult { e_tag: put.e_tag, version: put.version_id, extensions: Default::default() }),
            Err(error) => Err(match store_error(location.as_ref(), error) {
                Error::Precondition { path, source } if create => Error::AlreadyExists { path, source },
                other => other,
            }),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let write = &self.inner.write;
        let created = self
            .inner
            .client
            .create_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(location.as_ref())
            .set_server_side_encryption(write.sse.clone())
            .set_ssekms_key_id(write.sse_kms_key_id.clone())
            .set_ssekms_encryption_context(write.sse_kms_context.clone())
            .set_storage_class(write.storage_class.clone())
            .set_tagging(write.tagging.clone())
            .set_metadata(write.metadata.clone())
            .send()
            .await
            .map_err(|e| store_error(location.as_ref(), e))?;
        let id = created.upload_id.ok_or_else(|| Error::Generic {
            store: "S3",
            source: format!("the server started an upload of {location} without naming it").into(),
        })?;
        Ok(Box::new(Upload { store: self.clone(), key: location.to_string(), id, next_part: 1, done: Arc::default() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.head_object(location, options).await;
        }
        let range = options.range.as_ref().map(|range| match range {
            GetRange::Bounded(r) => format!("bytes={}-{}", r.start, r.end.saturating_sub(1)),
            GetRange::Offset(first) => format!("bytes={first}-"),
            GetRange::Suffix(length) => format!("bytes=-{length}"),
        });
        let got = self
            .get_request(location)
            .set_range(range)
            .set_if_match(options.if_match)
            .set_if_none_match(options.if_none_match)
            .send()
            .await
            .map_err(|e| store_error(location.as_ref(), e))?;
        let (range, size) = match got.content_range() {
            Some(text) => content_range(text).ok_or_else(|| Error::Generic {
                store: "S3",
                source: format!("the answer for {location} has the content range {text:?}").into(),
            })?,
            None => (0..size_of(got.content_length()), size_of(got.content_length())),
        };
        if let Some(GetRange::Bounded(wanted)) = &options.range
            && (range.start != wanted.start || range.end > wanted.end)
        {
            let source = format!("asked {location} for bytes {wanted:?}, was given {range:?}").into();
            return Err(Error::Generic { store: "S3", source });
        }
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: time_of(got.last_modified()),
            size,
            e_tag: got.e_tag().map(str::to_owned),
            version: got.version_id().map(str::to_owned),
        };
        let payload = GetResultPayload::Stream(body_stream(location.to_string(), got.body));
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .map(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let request = store.inner.client.delete_object().bucket(&store.inner.bucket).key(location.as_ref());
                    request.send().await.map_err(|e| store_error(location.as_ref(), e))?;
                    Ok(location)
                }
            })
            .buffered(DELETE_CONCURRENCY)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(prefix, false).map_ok(|page| stream::iter(page.objects.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut all = ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        let mut pages = self.pages(prefix, true);
        while let Some(page) = pages.try_next().await? {
            all.common_prefixes.extend(page.common_prefixes);
            all.objects.extend(page.objects);
        }
        Ok(all)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if options.mode == CopyMode::Create {
            return Err(Error::NotImplemented { operation: "copy to a new object only".to_owned(), implementer: self.to_string() });
        }
        let write = &self.inner.write;
        let source = format!("{}/{from}", self.inner.bucket);
        let request = self.inner.client.copy_object().bucket(&self.inner.bucket).key(to.as_ref()).copy_source(url_encoded(&source));
        request
            .set_server_side_encryption(write.sse.clone())
            .set_ssekms_key_id(write.sse_kms_key_id.clone())
            .set_ssekms_encryption_context(write.sse_kms_context.clone())
            .set_storage_class(write.storage_class.clone())
            .send()
            .await
            .map_err(|e| store_error(from.as_ref(), e))?;
        Ok(())
    }
}

/// Percent-encodes everything but unreserved characters and slashes, as the header `x-amz-copy-source` wants it.
pub(crate) fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[derive(Debug)]
struct Upload {
    store: S3,
    key: String,
    id: String,
    next_part: i32,
    done: Arc<Mutex<Vec<CompletedPart>>>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.next_part;
        self.next_part += 1;
        let done = self.done.clone();
        let key = self.key.clone();
        let inner = &self.store.inner;
        let request = inner.client.upload_part().bucket(&inner.bucket).key(&self.key).upload_id(&self.id).part_number(number);
        let request = request.body(ByteStream::from(Bytes::from(data)));
        Box::pin(async move {
            let part = request.send().await.map_err(|e| store_error(&key, e))?;
            done.lock().push(CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).build());
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut parts = std::mem::take(&mut *self.done.lock());
        parts.sort_by_key(CompletedPart::part_number);
        if parts.len() != usize::try_from(self.next_part - 1).unwrap_or_default() {
            let source = format!("{} of {} parts of {} were uploaded", parts.len(), self.next_part - 1, self.key).into();
            return Err(Error::Generic { store: "S3", source });
        }
        let inner = &self.store.inner;
        let completed = inner
            .client
            .complete_multipart_upload()
            .bucket(&inner.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .send()
            .await
            .map_err(|e| store_error(&self.key, e))?;
        Ok(PutResult { e_tag: completed.e_tag, version: completed.version_id, extensions: Default::default() })
    }

    async fn abort(&mut self) -> Result<()> {
        let inner = &self.store.inner;
        let request = inner.client.abort_multipart_upload().bucket(&inner.bucket).key(&self.key).upload_id(&self.id);
        match request.send().await {
            Ok(_) => Ok(()),
            // Completed or aborted before.
            Err(SdkError::ServiceError(e)) if e.raw().status().as_u16() == 404 => Ok(()),
            Err(error) => Err(store_error(&self.key, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_keys_are_left_out_of_a_listing() {
        assert_eq!(path_of("a/b c/ü.json").map(|path| path.to_string()).as_deref(), Some("a/b c/ü.json"));
        for odd in ["a//b", "a/../b", "a/line\nbreak", "./a", "a/\u{7f}"] {
            assert_eq!(path_of(odd), None, "{odd:?}");
        }
    }
}
