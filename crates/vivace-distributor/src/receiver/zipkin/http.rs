//! The one port of Zipkin. Any path and method will do; what the path and the media type say is the format.
//!
//! Source: docs/facts/http-api.md, "Zipkin (HTTP)".

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Request;

use super::{json, proto, thrift};
use crate::metrics::Receiver;
use crate::receiver::body::Conversion;
use crate::receiver::post::{Format, Post, media_type};
use crate::receiver::tags::Dialect;

#[derive(Clone)]
struct Zipkin {
    post: Post,
    dialect: Dialect,
}

/// Takes whatever is sent.
pub(crate) fn router(post: Post, parse_string_tags: bool) -> Router {
    Router::new().fallback(take).with_state(Zipkin { post, dialect: Dialect::Zipkin { parse_string_tags } })
}

async fn take(State(receiver): State<Zipkin>, request: Request<Body>) -> Response {
    let is_v1 = request.uri().path().contains("api/v1/spans");
    let (receiver_of, read): (Receiver, fn(&[u8], &mut _) -> _) = match (is_v1, media_type(request.headers()).as_str()) {
        (true, "application/x-thrift") => (Receiver::ZipkinV1Thrift, thrift::spans),
        (true, _) => (Receiver::ZipkinV1Json, json::spans_v1),
        (false, "application/x-protobuf") => (Receiver::ZipkinV2Proto, proto::spans),
        (false, _) => (Receiver::ZipkinV2Json, json::spans_v2),
    };
    let conversion = Conversion { dialect: receiver.dialect, read };
    receiver.post.take(Format { receiver: receiver_of, conversion }, request).await
}
