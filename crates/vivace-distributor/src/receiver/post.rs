//! What HTTP receivers of other formats than OTLP have in common: a body in, made OTLP once; 202 or the reason in plain text out.
//!
//! Source: docs/facts/http-api.md, "Zipkin (HTTP)", "Jaeger". Other than there, what is no fault of the request is not called an
//! internal error: the status is that of OTLP over HTTP, so that clients know whether to try again.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use vivace_server::Tenancy;

use super::NO_METRICS;
use super::body::{Conversion, received, refusal, text, worked_on};
use crate::error::PushError;
use crate::metrics::Receiver;
use crate::push::{Distributor, Incoming};

/// What a handler knows.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) distributor: Arc<Distributor>,
    pub(crate) tenancy: Tenancy,
    /// Before and after decompression.
    pub(crate) body_bytes_max: u64,
}

/// How the bytes of a request are read.
#[derive(Clone, Copy)]
pub(super) struct Format {
    pub(super) receiver: Receiver,
    pub(super) conversion: Conversion,
}

impl Post {
    /// Takes a request, and answers it.
    pub(super) async fn take(&self, format: Format, request: Request<Body>) -> Response {
        match self.store(format, request).await {
            Ok(()) => StatusCode::ACCEPTED.into_response(),
            Err(error) => refusal(&error, format!("{error}\n")),
        }
    }

    async fn store(&self, format: Format, request: Request<Body>) -> Result<(), PushError> {
        let (head, body) = request.into_parts();
        let limit = self.body_bytes_max;
        let (encoding, body) = received(&head.headers, body, limit).await?;
        let mut charge = self.distributor.requests.open();
        // Compressed, a few bytes may be many.
        let work_bytes = if encoding.is_some() { usize::MAX } else { body.len() };
        let convert = move || {
            let body = match encoding {
                Some(encoding) => encoding.decode(&body, limit, &mut charge)?.into(),
                None => body,
            };
            format.conversion.of(&body, &charge)
        };
        let (body, charge) = worked_on(work_bytes, convert).await?;
        let incoming = Incoming {
            receiver: format.receiver,
            tenant: self.tenancy.one(&head.headers),
            skip_metrics: head.headers.contains_key(NO_METRICS),
            body,
            charge,
        };
        self.distributor.push(incoming).await?.or_refused()
    }
}

/// The media type without its parameters, in lower case; empty where there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = text(headers, &CONTENT_TYPE);
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
