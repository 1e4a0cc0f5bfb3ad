use std::time::Duration;

use object_store::MultipartUpload;
use object_store::path::Path;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::BucketError;

/// Parts of one upload in flight. With the parts' size this bounds an upload's memory.
const PARTS_IN_FLIGHT: usize = 4;
/// How long it is tried to take the parts of an upload back that was given up.
const ABORT_TIMEOUT: Duration = Duration::from_secs(60);

/// An upload in parts. Where it is not completed, also when it is dropped because its time ran out, its parts are taken out
/// of the bucket again: they are listed nowhere, and paid for until then.
pub(crate) struct Upload {
    /// None once there is nothing left to take back.
    parts: Option<Box<dyn MultipartUpload>>,
    location: Path,
    runtime: Handle,
}

impl Upload {
    pub(crate) fn new(parts: Box<dyn MultipartUpload>, location: Path, runtime: Handle) -> Self {
        Self { parts: Some(parts), location, runtime }
    }

    /// Uploads a file in parts of so many bytes; `unreadable` names it in an error.
    pub(crate) async fn of_file(
        mut self,
        file: File,
        part_bytes: usize,
        unreadable: impl Fn(std::io::Error) -> BucketError,
    ) -> Result<(), BucketError> {
        let uploaded = self.send(file, part_bytes, unreadable).await;
        match (&uploaded, self.parts.take()) {
            (Err(_), Some(parts)) => take_back(parts, &self.location).await,
            _ => {}
        }
        uploaded
    }

    async fn send(
        &mut self,
        mut file: File,
        part_bytes: usize,
        unreadable: impl Fn(std::io::Error) -> BucketError,
    ) -> Result<(), BucketError> {
        let location = self.location.clone();
        let unwritten = |source| BucketError::of_store("write", location.as_ref(), source);
        let Some(parts) = &mut self.parts else { return Ok(()) };
        // Ends its tasks when it is dropped.
        let mut sending = JoinSet::new();
        let sent = |joined: Result<object_store::Result<()>, tokio::task::JoinError>| {
            joined.unwrap_or_else(|e| Err(object_store::Error::JoinError { source: e })).map_err(unwritten)
        };
        loop {
            let mut chunk = Vec::with_capacity(part_bytes);
            (&mut file).take(part_bytes as u64).read_to_end(&mut chunk).await.map_err(&unreadable)?;
            if chunk.is_empty() {
                break;
            }
            if sending.len() >= PARTS_IN_FLIGHT
                && let Some(joined) = sending.join_next().await
            {
                sent(joined)?;
            }
            sending.spawn(parts.put_part(chunk.into()));
        }
        while let Some(joined) = sending.join_next().await {
            sent(joined)?;
        }
        parts.complete().await.map(drop).map_err(unwritten)
    }

    /// Begins to write the object and takes it back: whether that is allowed is known, and no object was ever there.
    pub(crate) async fn probe(mut self) -> object_store::Result<()> {
        let Some(mut parts) = self.parts.take() else { return Ok(()) };
        let written = parts.put_part(bytes::Bytes::from_static(b"vivace").into()).await;
        take_back(parts, &self.location).await;
        written
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        let location = self.location.clone();
        // Nobody waits for it: who gives an upload up has no time left.
        self.runtime.spawn(async move { take_back(parts, &location).await });
    }
}

async fn take_back(mut parts: Box<dyn MultipartUpload>, location: &Path) {
    let problem = match tokio::time::timeout(ABORT_TIMEOUT, parts.abort()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {ABORT_TIMEOUT:?}"),
    };
    tracing::warn!(key = %location, error = problem, "could not abort an upload; its parts stay in the bucket");
}
