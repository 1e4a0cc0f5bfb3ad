//! Web pages that send spans: which of them a browser lets do so.
//!
//! The rules are the collector's: origins may have one `*` for any part, and a page may always send what a plain form could.

use std::time::Duration;

use axum::Router;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, request};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use vivace_config::Cors;

/// Where an allowed origin or header is this, all are.
const ANY: &str = "*";

/// Routes that web pages of the allowed origins may send to.
pub(crate) fn around(router: Router, cors: &Cors) -> Router {
    match layer(cors) {
        Some(layer) => router.layer(layer),
        None => router,
    }
}

/// What answers preflights and marks answers; none where no origin is allowed.
fn layer(cors: &Cors) -> Option<CorsLayer> {
    if cors.allowed_origins.is_empty() {
        return None;
    }
    let origins: Vec<String> = cors.allowed_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
    let is_allowed = move |origin: &HeaderValue, _: &request::Parts| {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        origins.iter().any(|allowed| matches(allowed, &origin))
    };
    let headers = if cors.allowed_headers.iter().any(|name| name == ANY) {
        AllowHeaders::mirror_request()
    } else {
        let always = [ACCEPT, CONTENT_TYPE, HeaderName::from_static("x-requested-with")];
        AllowHeaders::list(always.into_iter().chain(names(&cors.allowed_headers)))
    };
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_headers(headers)
        .allow_methods([Method::POST])
        .allow_credentials(true)
        .expose_headers(names(&cors.exposed_headers).collect::<Vec<_>>());
    Some(match cors.max_age {
        0 => layer,
        seconds => layer.max_age(Duration::from_secs(seconds)),
    })
}

/// What is no header name is left out: a browser could not send it.
fn names(texts: &[String]) -> impl Iterator<Item = HeaderName> {
    texts.iter().filter_map(|text| text.parse().ok())
}

/// Whether an origin is the allowed one, which may have one `*`.
fn matches(allowed: &str, origin: &str) -> bool {
    match allowed.split_once('*') {
        None => allowed == origin,
        Some((head, tail)) => origin.len() >= head.len() + tail.len() && origin.starts_with(head) && origin.ends_with(tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_may_have_one_star() {
        let allowed = |pattern: &str, origin: &str| matches(pattern, origin);
        assert!(allowed("*", "https://shop.example"));
        assert!(allowed("https://shop.example", "https://shop.example"));
        assert!(!allowed("https://shop.example", "https://shop.example.org"));
        assert!(allowed("https://*.shop.example", "https://eu.shop.example"));
        assert!(!allowed("https://*.shop.example", "https://.shop.exampl"));
        assert!(!allowed("https://aa*aa", "https://aa"), "one letter does not count twice");
        assert!(allowed("http://localhost:*", "http://localhost:8080"));
    }
}
