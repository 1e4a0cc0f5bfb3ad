//! Why another system's API does not answer: each tells its clients in its own form.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use vivace_core::TenantError;
use vivace_server::tenant;

use crate::error::QueryError;

/// A status, what the client is told, and when trying again may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) retry_after_seconds: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after_seconds: None }
    }

    /// The response with what all forms have in common.
    pub(crate) fn complete(&self, mut response: Response) -> Response {
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        Self { status: error.http_status(), message: error.said(), retry_after_seconds: error.retry_after_seconds() }
    }
}

impl From<TenantError> for Refusal {
    fn from(error: TenantError) -> Self {
        Self::new(tenant::http_error(&error).status(), error.to_string())
    }
}
