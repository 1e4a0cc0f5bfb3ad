//! One port of two parts: one takes what is sent there, the other answers what is asked.

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, header};
use tower::ServiceExt as _;

/// `reads` for requests that read, `writes` for all others.
pub(crate) fn beside(reads: Router, writes: Router) -> Router {
    Router::new().fallback(move |request: Request| {
        let router = if is_read(&request) { reads.clone() } else { writes.clone() };
        router.oneshot(request)
    })
}

/// Whether a request reads, or is a browser's question before one that does.
fn is_read(request: &Request) -> bool {
    match *request.method() {
        Method::GET | Method::HEAD => true,
        Method::OPTIONS => {
            let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
            asked.is_some_and(|method| method == "GET" || method == "HEAD")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::any;

    use super::*;

    #[tokio::test]
    async fn requests_that_read_have_routes_of_their_own() {
        let one = |text: &'static str| Router::new().route("/api/v2/spans", any(move || async move { text }));
        let both = beside(one("read"), one("written"));
        let answer = async |method: Method, asked: Option<&str>| {
            let mut request = Request::builder().method(method).uri("/api/v2/spans");
            if let Some(asked) = asked {
                request = request.header(header::ACCESS_CONTROL_REQUEST_METHOD, asked);
            }
            let response = both.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            String::from_utf8(axum::body::to_bytes(response.into_body(), 100).await.unwrap().to_vec()).unwrap()
        };
        assert_eq!(answer(Method::GET, None).await, "read");
        assert_eq!(answer(Method::POST, None).await, "written");
        assert_eq!(answer(Method::PUT, None).await, "written", "which refuses it in its own words");
        assert_eq!(answer(Method::OPTIONS, Some("GET")).await, "read");
        assert_eq!(answer(Method::OPTIONS, Some("POST")).await, "written");
    }
}
