//! What HTTP receivers of other formats than OTLP have in common: a body in, made OTLP once; 202 or the reason in plain text out.
//!
//! Source: docs/facts/http-api.md, "Zipkin (HTTP)", "Jaeger". Other than there, what is no fault of the request is not called an
//! internal error: the status is that of OTLP over HTTP, so that clients know whether to try again.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use vivace_server::{Encoding, RequestBudget, RequestCharge, Tenancy};

use super::NO_METRICS;
use super::http::{INLINE_BYTES_MAX, read};
use super::spans::Spans;
use super::tags::Dialect;
use crate::error::PushError;
use crate::metrics::Receiver;
use crate::push::{Distributor, Incoming};
use crate::status;

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
    pub(super) dialect: Dialect,
    pub(super) read: fn(&[u8], &mut Spans) -> Result<(), PushError>,
}

impl Post {
    /// Takes a request, and answers it.
    pub(super) async fn take(&self, format: Format, request: Request<Body>) -> Response {
        match self.store(format, request).await {
            Ok(()) => StatusCode::ACCEPTED.into_response(),
            Err(error) => refusal(&error),
        }
    }

    async fn store(&self, format: Format, request: Request<Body>) -> Result<(), PushError> {
        let (head, body) = request.into_parts();
        let encoding = Encoding::from_header(&text(&head.headers, &CONTENT_ENCODING))?;
        let limit = self.body_bytes_max;
        let announced = text(&head.headers, &CONTENT_LENGTH).parse::<u64>().unwrap_or(0);
        if announced > limit {
            return Err(PushError::TooLarge { limit });
        }
        let body = read(body, announced, limit).await?;
        let (body, charge) = converted(format, encoding, body, limit, &self.distributor.requests).await?;
        let incoming = Incoming {
            receiver: format.receiver,
            tenant: self.tenancy.one(&head.headers),
            skip_metrics: head.headers.contains_key(NO_METRICS),
            body,
            charge,
        };
        // There is no place in the answer for what was rejected of it.
        self.distributor.push(incoming).await.map(drop)
    }
}

/// A header's text; empty where there is none.
fn text(headers: &HeaderMap, name: &http::HeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// The media type without its parameters, in lower case; empty where there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = text(headers, &CONTENT_TYPE);
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The reason in plain text.
fn refusal(error: &PushError) -> Response {
    let status = match error {
        error if error.is_too_large() => StatusCode::PAYLOAD_TOO_LARGE,
        other => StatusCode::from_u16(status::http(other.code())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let mut response = (status, format!("{error}\n")).into_response();
    if let Some(delay) = error.retry_after() {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The body as OTLP, and what is charged for it. Larger ones are worked on off the async threads.
async fn converted(
    format: Format,
    encoding: Option<Encoding>,
    body: Bytes,
    limit: u64,
    requests: &RequestBudget,
) -> Result<(Bytes, RequestCharge), PushError> {
    let mut charge = requests.open();
    let small = body.len() <= INLINE_BYTES_MAX;
    let work = move || {
        let body = match encoding {
            Some(encoding) => encoding.decode(&body, limit, &mut charge)?.into(),
            None => body,
        };
        let mut spans = Spans::new(&charge, format.dialect, body.len())?;
        (format.read)(&body, &mut spans)?;
        Ok(spans.finish()?)
    };
    if small {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "converting a request panicked");
        Err(PushError::Fault(format!("could not convert the body: {error}")))
    })
}
