//! Why a query has no answer, and what the client is told.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use vivace_core::budget::OverBudget;
use vivace_proto::vivace::v1::Failure;
use vivace_traceql::{Halted, TooLarge};

/// When to come back where it is not known better, seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// The request is wrong; the text says where.
    #[error("{0}")]
    Invalid(String),
    /// The tenant has as many jobs or queries waiting as `query_frontend.max_outstanding_per_tenant` allows.
    #[error("job queue full")]
    QueueFull,
    /// There is too much to do, or too little memory free just now.
    #[error("{reason}")]
    Busy {
        /// What there is too much of, and the limit.
        reason: String,
        /// When to come back.
        retry_after_seconds: u64,
    },
    /// There is too little memory free just now for what the query holds.
    #[error("{reason}")]
    OutOfMemory {
        /// What was refused.
        reason: String,
        /// The query itself held a good part of what all may hold.
        holds_much: bool,
    },
    /// The query asks for more than is allowed or fits; the text says for less of what to ask.
    #[error("{0}")]
    TooLarge(String),
    /// The spans of one trace exceed the tenant's `max_bytes_per_trace`. The text is what Tempo's clients look for.
    #[error("trace exceeds max size (max bytes: {max_bytes})")]
    TraceTooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// `query_frontend.api_timeout` is over.
    #[error("the query did not end within query_frontend.api_timeout")]
    Timeout,
    /// A job took longer than it may.
    #[error("{0}")]
    JobTimeout(String),
    /// Something that is needed does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The process ends before the query does.
    #[error("the query-frontend is shutting down")]
    ShuttingDown,
    /// Nobody waits for the answer.
    #[error("the client does not take the answer: {0}")]
    Gone(String),
    /// A job failed for good.
    #[error("{0}")]
    Job(String),
}

impl From<vivace_traceql::QueryError> for QueryError {
    fn from(error: vivace_traceql::QueryError) -> Self {
        match error {
            vivace_traceql::QueryError::Busy(reason) => Self::Busy { reason, retry_after_seconds: RETRY_AFTER_SECONDS },
            error => Self::Invalid(error.to_string()),
        }
    }
}

/// Characters of an answer that quotes what a client has sent. A gRPC status is a header, and clients refuse large ones.
const SAID: usize = 1000;

impl QueryError {
    /// What the client is told, cut in the middle where it quotes too much.
    pub(crate) fn said(&self) -> String {
        let text = self.to_string();
        let chars = text.chars().count();
        if chars <= SAID {
            return text;
        }
        let (start, end) = (SAID * 3 / 4, chars - SAID / 4);
        text.chars().take(start).chain(['…']).chain(text.chars().skip(end)).collect()
    }

    /// What a querier says of a job.
    pub(crate) fn of_failure(failure: &Failure) -> Self {
        let message = failure.message.clone();
        match Code::from(failure.code) {
            Code::InvalidArgument => Self::Invalid(message),
            Code::ResourceExhausted if failure.retryable => Self::OutOfMemory { reason: message, holds_much: failure.holds_much },
            Code::ResourceExhausted => Self::TooLarge(message),
            Code::DeadlineExceeded => Self::JobTimeout(message),
            Code::Unavailable => Self::Unavailable(message),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::Job(message),
        }
    }

    /// Of the HTTP API. Source: docs/facts/http-api.md, "Errors".
    pub(crate) fn http_status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::QueueFull | Self::Busy { .. } | Self::OutOfMemory { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge(_) | Self::TraceTooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Unavailable(_) | Self::ShuttingDown | Self::Gone(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::JobTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Job(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When trying again may help, seconds.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Busy { retry_after_seconds, .. } => Some(*retry_after_seconds),
            Self::QueueFull | Self::OutOfMemory { .. } | Self::Unavailable(_) | Self::ShuttingDown => Some(RETRY_AFTER_SECONDS),
            Self::Invalid(_)
            | Self::TooLarge(_)
            | Self::TraceTooLarge { .. }
            | Self::Timeout
            | Self::JobTimeout(_)
            | Self::Gone(_)
            | Self::Job(_) => None,
        }
    }

    /// Of the streaming API.
    pub(crate) fn grpc_status(&self) -> Status {
        let text = self.said();
        let mut status = match self {
            Self::Invalid(_) => Status::invalid_argument(text),
            Self::QueueFull | Self::Busy { .. } | Self::OutOfMemory { .. } | Self::TooLarge(_) | Self::TraceTooLarge { .. } => {
                Status::resource_exhausted(text)
            }
            Self::ShuttingDown | Self::Unavailable(_) => Status::unavailable(text),
            Self::Timeout | Self::JobTimeout(_) => Status::deadline_exceeded(text),
            Self::Gone(_) => Status::cancelled(text),
            Self::Job(_) => Status::internal(text),
        };
        if let Some(seconds) = self.retry_after_seconds() {
            status.metadata_mut().insert("retry-after", MetadataValue::from(seconds));
        }
        status
    }
}

impl From<TooLarge> for QueryError {
    fn from(error: TooLarge) -> Self {
        match error.never_fits() {
            true => Self::TooLarge(error.to_string()),
            false => Self::OutOfMemory { reason: error.to_string(), holds_much: error.holds_much() },
        }
    }
}

impl From<Halted> for QueryError {
    fn from(error: Halted) -> Self {
        match error {
            Halted::Stopped => Self::Gone(error.to_string()),
            Halted::TooLarge(error) => error.into(),
        }
    }
}

impl From<OverBudget> for QueryError {
    fn from(error: OverBudget) -> Self {
        if error.never_fits() {
            Self::TooLarge(format!("{error}: ask for less, such as fewer results, series or attributes"))
        } else {
            Self::OutOfMemory { reason: format!("{error}: try again later, or ask for less"), holds_much: error.asks_much() }
        }
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let mut response = (self.http_status(), [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.said()).into_response();
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
