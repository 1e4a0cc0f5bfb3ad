//! One process at a time may use a log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vivace_core::files;

use super::aside::set_aside;

/// Name of the locked file in the log's parent folder.
const FILE: &str = "lock";
/// A process that was killed lets go sooner.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// The folder of a log, for this process alone as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    /// None on a file system without locks, or without room for the file.
    _file: Option<File>,
}

/// Another process still uses the folder.
#[derive(Debug, thiserror::Error)]
#[error("another process has been using {path} for {PATIENCE:?}")]
pub(crate) struct InUse {
    path: PathBuf,
}

impl Lock {
    /// Waits for another process to let go: a pod that was deleted without grace may still be ending while its successor starts.
    /// Blocks the thread.
    ///
    /// # Errors
    /// [`InUse`].
    pub(super) fn take(wal: &Path) -> Result<Self, InUse> {
        let path = wal.join(FILE);
        let without = |error: io::Error| {
            tracing::warn!(path = %path.display(), %error, "write-ahead log cannot be locked against a second process");
            Ok(Self { _file: None })
        };
        let open = || match files::check(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => OpenOptions::new().write(true).create(true).truncate(false).open(&path),
        };
        let file = match open() {
            Ok(file) => file,
            Err(_) if fs::symlink_metadata(&path).is_ok() => match set_aside(&path).and_then(|_| open()) {
                Ok(file) => file,
                Err(error) => return without(error),
            },
            Err(error) => return without(error),
        };
        let deadline = Instant::now() + PATIENCE;
        let mut is_waiting = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: Some(file) }),
                Err(TryLockError::Error(error)) => return without(error),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Err(InUse { path: wal.to_owned() }),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut is_waiting, true) {
                        tracing::warn!(path = %path.display(), patience_seconds = PATIENCE.as_secs(), "waiting for another process to let go of the write-ahead log");
                    }
                    std::thread::sleep(RETRY_PERIOD);
                }
            }
        }
    }
}
