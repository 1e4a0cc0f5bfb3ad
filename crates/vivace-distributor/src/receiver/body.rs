//! What becomes of a body before it is OTLP, and of an answer that is a refusal, whatever the format: the same for all receivers.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body_util::BodyExt;
use vivace_server::{Encoding, RequestCharge};

use super::spans::Spans;
use super::tags::Dialect;
use crate::error::PushError;
use crate::status;

/// Up to so many bytes are worked on where they arrive.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// How the bytes of a request become OTLP.
#[derive(Clone, Copy)]
pub(super) struct Conversion {
    pub(super) dialect: Dialect,
    pub(super) read: fn(&[u8], &mut Spans) -> Result<(), PushError>,
}

impl Conversion {
    /// The request as OTLP, and what is charged for it. What else it holds is in `charge`.
    ///
    /// # Errors
    /// It is not in its format, or there is no room for what it becomes.
    pub(super) fn of(self, request: &[u8], charge: &RequestCharge) -> Result<(Bytes, RequestCharge), PushError> {
        let mut spans = Spans::new(charge, self.dialect, request.len())?;
        (self.read)(request, &mut spans)?;
        Ok(spans.finish()?)
    }
}

/// The body of a request, as it was sent and how that is compressed.
///
/// # Errors
/// It is larger than the limit, in an encoding that is not known, or cannot be received.
pub(super) async fn received(headers: &HeaderMap, body: Body, limit: u64) -> Result<(Option<Encoding>, Bytes), PushError> {
    let encoding = Encoding::from_header(&text(headers, &CONTENT_ENCODING))?;
    let announced = text(headers, &CONTENT_LENGTH).parse::<u64>().unwrap_or(0);
    if announced > limit {
        return Err(PushError::TooLarge { limit });
    }
    Ok((encoding, whole(body, announced, limit).await?))
}

/// A header's text; empty where there is none.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// The body as it was sent. The listener charges it as it arrives.
async fn whole(mut body: Body, announced: u64, limit: u64) -> Result<Bytes, PushError> {
    let (mut first, mut whole, mut received, mut refused) = (Bytes::new(), BytesMut::new(), 0, None);
    while let Some(frame) = body.frame().await {
        let data = match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(_)) => continue,
            Err(error) => match PushError::of_body(&error) {
                // The rest is thrown away as it comes: clients listen when they have sent all.
                PushError::Overloaded(over) => {
                    (first, whole, refused) = (Bytes::new(), BytesMut::new(), Some(over));
                    continue;
                }
                other => return Err(other),
            },
        };
        received += data.len() as u64;
        if received > limit {
            return Err(PushError::TooLarge { limit });
        }
        if refused.is_some() {
            continue;
        }
        if received == data.len() as u64 {
            first = data;
            continue;
        }
        if whole.is_empty() {
            // No larger than the limit, which was compared with what is announced.
            whole.reserve(usize::try_from(announced).unwrap_or(0));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    match refused {
        Some(over) => Err(PushError::Overloaded(over)),
        None if whole.is_empty() => Ok(first),
        None => Ok(whole.freeze()),
    }
}

/// Does the work on so many bytes: where it is called, or off the async threads if they are many.
///
/// # Errors
/// Those of the work, or it has panicked.
pub(super) async fn worked_on<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, PushError> + Send + 'static,
) -> Result<T, PushError> {
    if bytes <= INLINE_BYTES_MAX {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "converting a request panicked");
        Err(PushError::Fault(format!("could not convert what was sent: {error}")))
    })
}

/// An answer with a refusal's status, and when to come back.
pub(super) fn refusal(error: &PushError, body: impl IntoResponse) -> Response {
    let status = match error {
        error if error.is_too_large() => StatusCode::PAYLOAD_TOO_LARGE,
        other => StatusCode::from_u16(status::http(other.code())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let mut response = (status, body).into_response();
    if let Some(delay) = error.retry_after() {
        // Whole seconds, rounded up: a client that comes back too early is refused again.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}
