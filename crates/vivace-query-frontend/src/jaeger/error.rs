//! Errors as Jaeger's clients read them, in the form of either version. Source: docs/facts/clients.md, "Jaeger's query API".

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::refusal::Refusal;

/// An error of version 1.
pub(crate) struct V1Error(Refusal);

/// An error of version 3.
pub(crate) struct V3Error(Refusal);

impl<E: Into<Refusal>> From<E> for V1Error {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl<E: Into<Refusal>> From<E> for V3Error {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for V1Error {
    fn into_response(self) -> Response {
        let errors = [json!({"code": self.0.status.as_u16(), "msg": self.0.message})];
        let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors});
        self.0.complete(Json(body).into_response())
    }
}

impl IntoResponse for V3Error {
    fn into_response(self) -> Response {
        let body = json!({"error": {"httpCode": self.0.status.as_u16(), "message": self.0.message}});
        self.0.complete(Json(body).into_response())
    }
}

/// There is no such trace, or none that a search of version 3 would find.
pub(crate) fn not_found(message: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, message)
}
