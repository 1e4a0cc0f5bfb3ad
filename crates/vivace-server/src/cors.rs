//! Web pages of other origins: which of them a browser lets read answers.
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

/// Routes to which web pages of the allowed origins may send requests of these methods.
pub fn cors(routes: Router, cors: &Cors, methods: &[Method]) -> Router {
    if cors.allowed_origins.is_empty() { routes } else { routes.layer(layer(cors, methods)) }
}

/// What answers a browser's questions and marks answers.
fn layer(cors: &Cors, methods: &[Method]) -> CorsLayer {
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
        .allow_methods(methods.to_vec())
        .allow_credentials(true)
        .expose_headers(names(&cors.exposed_headers).collect::<Vec<_>>());
    match cors.max_age {
        0 => layer,
        seconds => layer.max_age(Duration::from_secs(seconds)),
    }
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
