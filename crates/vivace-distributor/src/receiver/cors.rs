//! Web pages that send spans.

use axum::Router;
use http::Method;
use vivace_config::Cors;

/// Routes that pages of the allowed origins may post to.
pub(crate) fn around(router: Router, cors: &Cors) -> Router {
    match vivace_server::cors(cors, &[Method::POST]) {
        Some(layer) => router.layer(layer),
        None => router,
    }
}
