//! Why a job has no result, and whether the query-frontend is to try again. What is wrong with one block is kept apart: a broken
//! one is left out, and the answer says so.

use std::time::Duration;

use tonic::Code;
use vivace_block::ReadError;
use vivace_core::budget::OverBudget;
use vivace_proto::vivace::v1::Failure;
use vivace_storage::BucketError;
use vivace_traceql::TooLarge;

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The job itself makes no sense; no querier can run it.
    #[error("{0}")]
    Invalid(String),
    /// What is asked for is larger than what may be sent.
    #[error(
        "a part of the answer has {bytes} bytes, more than the {max_bytes} that querier.frontend_worker.grpc_client_config.max_send_msg_size, \
         the query-frontend's server.grpc_server_max_recv_msg_size and its memory allow: narrow the query, or ask for fewer results or attributes"
    )]
    TooLarge {
        /// Of the result.
        bytes: usize,
        /// The setting.
        max_bytes: usize,
    },
    /// Answering takes more than may be taken.
    #[error("{why}")]
    TooMuch {
        /// Of what, and what to do.
        why: String,
        /// It is others that hold the rest.
        retryable: bool,
        /// The query held a good part of it where it was refused.
        holds_much: bool,
    },
    /// It took too long.
    #[error("the job took longer than {setting} ({limit:?})")]
    TimedOut {
        /// Which limit.
        setting: &'static str,
        /// Its value.
        limit: Duration,
    },
    /// Ingesters or the bucket did not answer.
    #[error("{0}")]
    Unavailable(String),
    /// A bug, such as a panic while a block was read.
    #[error("{0}")]
    Internal(String),
}

impl JobError {
    /// What the query-frontend is told.
    pub(crate) fn failure(&self) -> Failure {
        let (code, retryable) = match self {
            Self::Invalid(_) => (Code::InvalidArgument, false),
            Self::TooLarge { .. } => (Code::ResourceExhausted, false),
            Self::TooMuch { retryable, .. } => (Code::ResourceExhausted, *retryable),
            Self::TimedOut { .. } => (Code::DeadlineExceeded, true),
            Self::Unavailable(_) => (Code::Unavailable, true),
            Self::Internal(_) => (Code::Internal, true),
        };
        let holds_much = matches!(self, Self::TooMuch { holds_much: true, .. });
        Failure { code: code.into(), message: self.to_string(), retryable, holds_much }
    }
}

/// Adds warnings to those of a result, each once.
pub(crate) fn add_new(warnings: &mut Vec<String>, more: Vec<String>) {
    for warning in more {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

impl From<TooLarge> for JobError {
    fn from(error: TooLarge) -> Self {
        Self::TooMuch { why: error.to_string(), retryable: !error.never_fits(), holds_much: error.holds_much() }
    }
}

impl From<OverBudget> for JobError {
    fn from(error: OverBudget) -> Self {
        Self::TooMuch { why: error.to_string(), retryable: !error.never_fits(), holds_much: error.asks_much() }
    }
}

/// What is wrong with one block.
#[derive(Debug)]
pub(crate) enum BlockFault {
    /// Reading it again gives the same. The job goes on without it and says so.
    Broken(String),
    /// The bucket failed; another try may succeed.
    Unavailable(String),
}

impl From<ReadError> for BlockFault {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Format { .. } | ReadError::Corrupt { .. } | ReadError::Unsupported { .. } => Self::Broken(error.to_string()),
            ReadError::Io { source, .. } => {
                let text = format!("{error}: {source}");
                match source.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidInput => {
                        Self::Broken(text)
                    }
                    _ => Self::Unavailable(text),
                }
            }
        }
    }
}

impl From<BucketError> for BlockFault {
    fn from(error: BucketError) -> Self {
        let text = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        match error {
            BucketError::Gone { .. } | BucketError::Corrupt { .. } => Self::Broken(text),
            BucketError::Unavailable { .. } | BucketError::LocalFile { .. } => Self::Unavailable(text),
        }
    }
}
