//! Thrift over HTTP, as Jaeger's clients send it to the collector. Source: docs/facts/http-api.md, "Jaeger".

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::ALLOW;
use http::{Request, StatusCode};

use super::thrift;
use crate::metrics::Receiver;
use crate::receiver::body::Conversion;
use crate::receiver::post::{Format, Post, media_type};
use crate::receiver::tags::Dialect;

const FORMAT: Format =
    Format { receiver: Receiver::JaegerThriftHttp, conversion: Conversion { dialect: Dialect::Jaeger, read: thrift::batch } };

/// The one route.
pub(crate) fn router(receiver: Post) -> Router {
    let not_post = || async { (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "POST")], "405 method not allowed, supported: [POST]") };
    Router::new().route("/api/traces", post(take).fallback(not_post)).with_state(receiver)
}

async fn take(State(receiver): State<Post>, request: Request<Body>) -> Response {
    let media_type = media_type(request.headers());
    if !matches!(media_type.as_str(), "application/x-thrift" | "application/vnd.apache.thrift.binary") {
        let text =
            format!("unsupported Content-Type {media_type:?}, supported: [application/x-thrift, application/vnd.apache.thrift.binary]\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    receiver.take(FORMAT, request).await
}
