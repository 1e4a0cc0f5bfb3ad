//! OTLP over HTTP. Source: docs/facts/http-api.md, "OTLP over HTTP".

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use prost::Message;
use serde_json::json;
use vivace_config::Cors;
use vivace_server::{Encoding, RequestBudget, RequestCharge, Tenancy};

use super::{NO_METRICS, json, response};
use crate::error::PushError;
use crate::metrics::Receiver;
use crate::push::{Accepted, Distributor, Incoming};
use crate::status::{self, RpcStatus};

/// Bodies up to this size are decompressed where they arrive.
pub(super) const INLINE_BYTES_MAX: usize = 16 << 10;

/// What the handler knows.
#[derive(Clone)]
pub(crate) struct OtlpHttp {
    pub(crate) distributor: Arc<Distributor>,
    pub(crate) tenancy: Tenancy,
    /// Before and after decompression.
    pub(crate) body_bytes_max: u64,
}

/// The one route, also for web pages of the origins that `cors` allows.
pub(crate) fn router(path: &str, receiver: OtlpHttp, cors: &Cors) -> Router {
    let not_post = || async { (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "POST")], "405 method not allowed, supported: [POST]") };
    let router = Router::new().route(path, post(export).fallback(not_post)).with_state(receiver);
    vivace_server::cors(router, cors, &[Method::POST])
}

/// The format of a request and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }

    fn accepted(self, accepted: &Accepted) -> Response {
        let body = match self {
            Self::Protobuf => response(accepted),
            Self::Json if accepted.rejected_spans == 0 => Bytes::from_static(br#"{"partialSuccess":{}}"#),
            Self::Json => {
                let rejected = accepted.rejected_spans.to_string();
                json!({ "partialSuccess": { "rejectedSpans": rejected, "errorMessage": accepted.message } }).to_string().into()
            }
        };
        ([(CONTENT_TYPE, self.content_type())], body).into_response()
    }

    fn refused(self, error: &PushError) -> Response {
        let status = match error {
            error if error.is_too_large() => StatusCode::PAYLOAD_TOO_LARGE,
            other => StatusCode::from_u16(status::http(other.code())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let body: Bytes = match self {
            Self::Protobuf => RpcStatus::from(error).encode_to_vec().into(),
            Self::Json => status::json(error).to_string().into(),
        };
        let mut response = (status, [(CONTENT_TYPE, self.content_type())], body).into_response();
        if let Some(delay) = error.retry_after() {
            // Whole seconds, rounded up: a client that comes back too early is refused again.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

async fn export(State(receiver): State<OtlpHttp>, request: Request<Body>) -> Response {
    let Some(format) = Format::of(request.headers()) else {
        let text = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    };
    match receiver.export(format, request).await {
        Ok(accepted) => format.accepted(&accepted),
        Err(error) => format.refused(&error),
    }
}

impl OtlpHttp {
    async fn export(&self, format: Format, request: Request<Body>) -> Result<Accepted, PushError> {
        let (head, body) = request.into_parts();
        let header = |name| head.headers.get(name).map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let encoding = Encoding::from_header(&header(CONTENT_ENCODING).unwrap_or_default())?;
        let limit = self.body_bytes_max;
        let announced = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        if announced > limit {
            return Err(PushError::TooLarge { limit });
        }
        let body = read(body, announced, limit).await?;
        let (body, charge) = decoded(format, encoding, body, limit, &self.distributor.requests).await?;
        let incoming = Incoming {
            receiver: Receiver::OtlpHttp,
            tenant: self.tenancy.one(&head.headers),
            skip_metrics: head.headers.contains_key(NO_METRICS),
            body,
            charge,
        };
        self.distributor.push(incoming).await
    }
}

/// The body as it was sent. The listener charges it as it arrives.
pub(super) async fn read(mut body: Body, announced: u64, limit: u64) -> Result<Bytes, PushError> {
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

/// The body as plain protobuf, and what is charged for it beside the body as it was sent. Larger ones are worked on off the async
/// threads.
async fn decoded(
    format: Format,
    encoding: Option<Encoding>,
    body: Bytes,
    limit: u64,
    requests: &RequestBudget,
) -> Result<(Bytes, RequestCharge), PushError> {
    let mut charge = requests.open();
    if encoding.is_none() && format == Format::Protobuf {
        return Ok((body, charge));
    }
    let small = body.len() <= INLINE_BYTES_MAX;
    let work = move || {
        let body = match encoding {
            Some(encoding) => encoding.decode(&body, limit, &mut charge)?.into(),
            None => body,
        };
        match format {
            Format::Protobuf => Ok((body, charge)),
            Format::Json => {
                let mut of_protobuf = charge.another();
                let protobuf = json::to_protobuf(&body, &mut of_protobuf)?;
                Ok((protobuf.into(), of_protobuf))
            }
        }
    };
    if small {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "decoding a request panicked");
        Err(PushError::Fault(format!("could not decode the body: {error}")))
    })
}
