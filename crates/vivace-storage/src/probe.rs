//! Whether a bucket can be written, asked at start. The question leaves nothing behind.

use std::time::Duration;

use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use vivace_config::TraceStorage;

use crate::error::{WriteCheck, causes};
use crate::upload::Upload;
use crate::{Bucket, Environment, OpenError};

/// The object that is begun and never completed.
const PROBE: &str = "vivace-write-probe";

/// How long the bucket has to answer. One that is slow is no reason not to start.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

impl Bucket {
    /// As [`Bucket::open`], for processes that store something: a bucket that can only be read is an error.
    ///
    /// # Errors
    /// Of [`Bucket::open`] and [`Bucket::check_writable`].
    pub async fn open_for_writing(config: &TraceStorage, env: Environment<'_>) -> Result<Self, OpenError> {
        let bucket = Self::open(config, env).await?;
        bucket.check_writable().await?;
        Ok(bucket)
    }

    /// Finds out whether the bucket can be written, for processes that will: else it would show hours later, when the first
    /// block is due.
    ///
    /// Nothing appears in the bucket, and no permission to delete is needed: an upload in parts is begun and aborted; in a
    /// folder a file without a name is made.
    ///
    /// # Errors
    /// [`OpenError::ReadOnly`] when the bucket refuses. Where it merely does not answer, that is logged: what was received is
    /// kept until it does.
    pub async fn check_writable(&self) -> Result<(), OpenError> {
        let probed = tokio::time::timeout(PROBE_TIMEOUT, self.probe()).await;
        match probed.unwrap_or_else(|_| WriteCheck::Unknown(format!("no answer within {PROBE_TIMEOUT:?}"))) {
            WriteCheck::Fine => Ok(()),
            WriteCheck::Refused(answer) => Err(OpenError::ReadOnly { bucket: self.to_string(), answer }),
            WriteCheck::Unknown(answer) => {
                tracing::warn!(bucket = %self, error = answer, "the bucket could not be written just now; it is tried again when there is something to write");
                Ok(())
            }
        }
    }

    async fn probe(&self) -> WriteCheck {
        if let Some(root) = self.local() {
            let root = root.to_owned();
            return match tokio::task::spawn_blocking(move || tempfile::tempfile_in(root)).await {
                Ok(Ok(_)) => WriteCheck::Fine,
                Ok(Err(error)) => WriteCheck::of_folder(&error),
                Err(error) => WriteCheck::Unknown(error.to_string()),
            };
        }
        let location = Path::from(PROBE);
        let probed = match self.store().put_multipart(&location).await {
            Ok(parts) => Upload::new(parts, location, self.runtime()).probe().await,
            Err(error) => Err(error),
        };
        match probed {
            Ok(()) => WriteCheck::Fine,
            Err(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => WriteCheck::Refused(causes(&error)),
            // Without its bucket or container nothing can be written either, but it could be listed a moment ago.
            Err(error) => WriteCheck::Unknown(causes(&error)),
        }
    }
}
