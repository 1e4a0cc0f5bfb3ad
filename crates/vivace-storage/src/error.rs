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
}
