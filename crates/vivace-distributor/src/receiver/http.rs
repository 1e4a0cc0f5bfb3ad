//! OTLP over HTTP. Source: docs/facts/http-api.md, "OTLP over HTTP".

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use prost::Message;
use serde_json::json;
use vivace_config::Cors;
use vivace_server::{Encoding, RequestBudget, RequestCharge, Tenancy};

use super::body::{received, refusal, worked_on};
use super::{NO_METRICS, json, response};
use crate::error::PushError;
use crate::metrics::Receiver;
use crate::push::{Accepted, Distributor, Incoming};
use crate::status::{self, RpcStatus};

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
        let body: Bytes = match self {
            Self::Protobuf => RpcStatus::from(error).encode_to_vec().into(),
            Self::Json => status::json(error).to_string().into(),
        };
        refusal(error, ([(CONTENT_TYPE, self.content_type())], body))
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
        let limit = self.body_bytes_max;
        let (encoding, body) = received(&head.headers, body, limit).await?;
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
    worked_on(body.len(), move || {
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
    })
    .await
}
