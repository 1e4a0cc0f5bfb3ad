//! `tempo_request_duration_seconds`: every HTTP and gRPC request by route and outcome.
//!
//! Source: docs/facts/metrics.md, "Requests".

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::metrics::{INFLIGHT_REQUESTS, REQUEST_DURATION};

/// gRPC status codes as they stand in `grpc-status`.
const OK: &str = "0";
const CANCELLED: &str = "1";
const UNIMPLEMENTED: &str = "12";

/// Measures HTTP routes. Paths without a route share the label `other`, so that labels stay bounded.
pub(crate) async fn http(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| route_label(path.as_str()));
    let method = method_label(request.method());
    let inflight = Inflight::enter(method, &route);
    let start = Instant::now();
    let response = next.run(request).await;
    drop(inflight);
    metrics::histogram!(
        REQUEST_DURATION.name,
        "method" => method, "route" => route, "status_code" => response.status().as_str().to_owned(), "ws" => "false",
    )
    .record(start.elapsed().as_secs_f64());
    response
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The path template in lower case, braces dropped, everything else that is no letter or digit as `_`.
fn route_label(template: &str) -> String {
    let mut label = String::with_capacity(template.len());
    for c in template.trim_matches('/').chars() {
        match c {
            '{' | '}' | '*' => {}
            c if c.is_ascii_alphanumeric() => label.push(c.to_ascii_lowercase()),
            _ if label.ends_with('_') => {}
            _ => label.push('_'),
        }
    }
    if label.is_empty() { "root".to_owned() } else { label }
}

/// Measures gRPC methods, up to the end of the answer's stream.
pub(crate) async fn grpc(request: Request, next: Next) -> Response {
    let route = request.uri().path().to_owned();
    let mut measured = Measured { route, start: Instant::now(), outcome: "cancel" };
    let response = next.run(request).await;
    measured.see(response.headers());
    if response.headers().contains_key("grpc-status") {
        return response; // an answer without a body
    }
    response.map(|inner| Body::new(MeasuredBody { inner, measured }))
}

/// Records when dropped: at the end of the answer, or when the client has left.
struct Measured {
    route: String,
    start: Instant,
    outcome: &'static str,
}

impl Measured {
    fn see(&mut self, headers: &HeaderMap) {
        let Some(status) = headers.get("grpc-status").and_then(|v| v.to_str().ok()) else { return };
        self.outcome = match status {
            OK => "success",
            CANCELLED => "cancel",
            _ => "error",
        };
        if status == UNIMPLEMENTED {
            "other".clone_into(&mut self.route); // what the client made up is no label
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        metrics::histogram!(
            REQUEST_DURATION.name,
            "method" => "gRPC", "route" => std::mem::take(&mut self.route), "status_code" => self.outcome, "ws" => "false",
        )
        .record(self.start.elapsed().as_secs_f64());
    }
}

struct MeasuredBody {
    inner: Body,
    measured: Measured,
}

impl HttpBody for MeasuredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.measured.see(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Counts a request in `tempo_inflight_requests` while it lives.
struct Inflight(metrics::Gauge);

impl Inflight {
    fn enter(method: &'static str, route: &str) -> Self {
        let gauge = metrics::gauge!(INFLIGHT_REQUESTS.name, "method" => method, "route" => route.to_owned());
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::route_label;

    #[test]
    fn labels_are_those_of_the_dashboards() {
        assert_eq!(route_label("/api/traces/{traceID}"), "api_traces_traceid");
        assert_eq!(route_label("/tempo/api/v2/search/tag/{*tagName_values}"), "tempo_api_v2_search_tag_tagname_values");
        assert_eq!(route_label("/api/metrics/query_range"), "api_metrics_query_range");
        assert_eq!(route_label("/ingester/prepare-partition-downscale"), "ingester_prepare_partition_downscale");
    }
}
