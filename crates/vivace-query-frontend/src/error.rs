//! Why a query has no answer, and what the client is told.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// The request is wrong; the text says where.
    #[error("{0}")]
    Invalid(String),
    /// The tenant has as many jobs waiting as `query_frontend.max_outstanding_per_tenant` allows.
    #[error("job queue full")]
    QueueFull,
    /// The spans of one trace exceed the tenant's `max_bytes_per_trace`. The text is what Tempo's clients look for.
    #[error("trace exceeds max size (max bytes: {max_bytes})")]
    TraceTooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// `query_frontend.api_timeout` is over.
    #[error("the query did not end within query_frontend.api_timeout")]
    Timeout,
    /// The process ends before the query does.
    #[error("the query-frontend is shutting down")]
    ShuttingDown,
    /// A job failed for good.
    #[error("{0}")]
    Job(String),
}

impl QueryError {
    /// Of the HTTP API. Source: HTTP API facts, 2.7.
    pub(crate) fn http_status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Self::TraceTooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Job(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Of the streaming API.
    pub(crate) fn grpc_status(&self) -> tonic::Status {
        let text = self.to_string();
        match self {
            Self::Invalid(_) => tonic::Status::invalid_argument(text),
            Self::QueueFull | Self::TraceTooLarge { .. } => tonic::Status::resource_exhausted(text),
            Self::ShuttingDown => tonic::Status::unavailable(text),
            Self::Timeout | Self::Job(_) => tonic::Status::internal(text),
        }
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        (self.http_status(), [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.to_string()).into_response()
    }
}
