//! Ports that speak gRPC alone, or HTTP alone, and say where the other one belongs. The router of gRPC would answer plain HTTP with 200,
//! in whose trailers alone it says that there is no such call: senders of spans take that for success. A plain 404 tells gRPC's clients
//! nothing but that number.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use tonic::Status;

use crate::connection::is_grpc;

/// These routes for requests of gRPC, by their content type; all others are refused with 415 and `elsewhere`, a sentence.
pub fn grpc_only(routes: Router, elsewhere: &str) -> Router {
    let refusal = format!("{elsewhere}\n");
    routes.layer(from_fn(move |request: Request, next: Next| {
        let refusal = refusal.clone();
        async move {
            if is_grpc(request.headers()) {
                return next.run(request).await;
            }
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, refusal).into_response()
        }
    }))
}

/// These routes for requests that are not of gRPC, by their content type; those are refused as UNIMPLEMENTED with `elsewhere`, a sentence.
pub fn http_only(routes: Router, elsewhere: &str) -> Router {
    let refusal = elsewhere.to_owned();
    routes.layer(from_fn(move |request: Request, next: Next| {
        let refusal = refusal.clone();
        async move {
            if is_grpc(request.headers()) {
                return Status::unimplemented(refusal).into_http();
            }
            next.run(request).await
        }
    }))
}
