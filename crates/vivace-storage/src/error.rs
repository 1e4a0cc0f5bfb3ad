//! What can go wrong with a bucket, told apart by what the caller can do: try again, go on without the object, or tell people
//! which setting is wrong.

use vivace_block::CorruptMeta;

/// Why an operation on the bucket failed. Callers retry what is unavailable and skip what is gone or corrupt.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// No such object; where a block was asked for, it has been deleted since it was listed.
    #[error("{key} is gone")]
    Gone {
        /// The object.
        key: String,
    },
    /// The bucket did not do it, also not when tried again. Another try later may succeed.
    #[error("could not {action} {key}")]
    Unavailable {
        /// A verb: read, write, list, delete.
        action: &'static str,
        /// The object or folder.
        key: String,
        /// What the bucket answered.
        #[source]
        source: object_store::Error,
    },
    /// The bytes are not what the object's name says. Never retry; count it and name the object.
    #[error("invalid data in {key}: {reason}")]
    Corrupt {
        /// The object.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A local file that was to be stored could not be read.
    #[error("could not read the local file {path}")]
    LocalFile {
        /// Its path.
        path: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

impl BucketError {
    pub(crate) fn of_store(action: &'static str, key: &str, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::Gone { key: key.to_owned() },
            source => Self::Unavailable { action, key: key.to_owned(), source },
        }
    }
}

impl From<CorruptMeta> for BucketError {
    fn from(corrupt: CorruptMeta) -> Self {
        Self::Corrupt { key: corrupt.object_key, reason: corrupt.reason }
    }
}

/// Why the bucket could not be opened at start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration lacks something or contradicts itself.
    #[error("storage.trace.{path}: {problem}")]
    Config {
        /// The key below `storage.trace`.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The bucket could not be listed.
    #[error("could not list {bucket} at {endpoint}: {answer}")]
    Unreachable {
        /// The kind of backend and the bucket's name.
        bucket: String,
        /// Where it was looked for.
        endpoint: String,
        /// What the server answered, or why there was no answer.
        answer: String,
    },
    /// The bucket refuses to be written.
    #[error(
        "cannot write to {bucket}: {answer}; this process stores blocks there: let it write, or run only queriers and query-frontends on a bucket that must not change"
    )]
    ReadOnly {
        /// The kind of backend, the bucket's name and its endpoint.
        bucket: String,
        /// What the server or the operating system answered.
        answer: String,
    },
}

/// Whether a bucket can be written.
pub(crate) enum WriteCheck {
    /// It can.
    Fine,
    /// It says that it cannot, and will say so again.
    Refused(String),
    /// Not now, perhaps later.
    Unknown(String),
}

impl WriteCheck {
    /// What a failure to make a file in a local bucket means. A full disk may have room again.
    pub(crate) fn of_folder(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        match error.kind() {
            PermissionDenied | ReadOnlyFilesystem | NotADirectory => Self::Refused(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

/// The chain of causes on one line, each only as far as it says something new.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let says = error.to_string();
        if !text.contains(&says) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&says);
        }
        next = error.source();
    }
    text
}
