use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use prost::Message;
use vivace_proto::otlp::TracesData;
use vivace_proto::tempopb::{PartialStatus, Trace, TraceByIdResponse};

use vivace_cli::Ending;

use crate::{answer, cli, serve};

/// Takes traces of tenant `t`, and gives the last one back: whole by the third question, found by the second search.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    trace: TracesData,
    writes: usize,
    questions: usize,
    searches: usize,
}

impl Store {
    fn router(self) -> Router {
        let (writes, questions, searches) = (self.clone(), self.clone(), self);
        Router::new()
            .route(
                "/v1/traces",
                post(move |headers: HeaderMap, body: Bytes| async move {
                    assert_eq!(headers.get("X-Scope-OrgID").expect("a tenant"), "t");
                    let mut stored = writes.0.lock().expect("no panic");
                    stored.writes += 1;
                    if stored.writes == 1 {
                        return (StatusCode::SERVICE_UNAVAILABLE, "no ingester").into_response();
                    }
                    stored.trace = TracesData::decode(body).expect("OTLP");
                    StatusCode::OK.into_response()
                }),
            )
            .route("/api/v2/traces/{id}", get(move |Path(id): Path<String>| async move { questions.by_id(&id) }))
            .route("/api/search", get(move |RawQuery(query): RawQuery| async move { searches.search(&query.unwrap_or_default()) }))
    }

    fn by_id(&self, id: &str) -> axum::response::Response {
        let mut stored = self.0.lock().expect("no panic");
        stored.questions += 1;
        let mut trace = Trace { resource_spans: stored.trace.resource_spans.clone() };
        let first = trace.resource_spans[0].scope_spans[0].spans[0].trace_id.clone();
        assert_eq!(id, first.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let (status, message) = match stored.questions {
            1 => return StatusCode::NOT_FOUND.into_response(),
            2 => {
                trace.resource_spans.pop();
                (PartialStatus::Partial as i32, "one ingester did not answer".to_owned())
            }
            _ => (0, String::new()),
        };
        TraceByIdResponse { trace: Some(trace), status, message, ..TraceByIdResponse::default() }.encode_to_vec().into_response()
    }

    fn search(&self, query: &str) -> String {
        let mut stored = self.0.lock().expect("no panic");
        stored.searches += 1;
        assert!(query.contains("start=") && query.contains("end=") && query.contains("check.id"), "{query}");
        let id = &stored.trace.resource_spans[0].scope_spans[0].spans[0].trace_id;
        let hex = id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let found = format!(r#"{{"traceID":"{}"}}"#, hex.trim_start_matches('0'));
        format!(r#"{{"traces":[{}],"metrics":{{}}}}"#, if stored.searches == 1 { "" } else { &found })
    }
}

#[tokio::test]
async fn a_trace_goes_round_and_each_step_says_what_it_waits_for() {
    let address = serve(Store::default().router()).await;
    let said = cli(&["check", "round-trip", "--write", &address, "--read", &address, "--org-id", "t"]).await.expect("it works");
    let lines: Vec<&str> = said.lines().collect();
    for (line, parts) in [
        ["Trace ", " of 3 spans for tenant t, within 60s"].as_slice(),
        &["write       not yet: the answer was 503 Service Unavailable: no ingester"],
        &["write       ", " took it, "],
        &["read by id  not yet: not found (404)"],
        &["read by id  not yet: 2 of 3 spans, and this is not all of it: one ingester did not answer"],
        &["read by id  3 of 3 spans, "],
        &["search      not yet: no trace matches"],
        &["search      { resource.service.name = \"round-trip\" && span.check.id = ", " finds it, "],
        &["The trace was written and read back in "],
    ]
    .iter()
    .enumerate()
    {
        assert!(parts.iter().all(|part| lines[line].contains(part)), "line {line} of {said}");
    }
    assert_eq!(lines.len(), 9, "{said}");
}

async fn fails(address: &str, more: &[&str]) -> String {
    let read = address.replace("grpc://", "http://");
    let arguments = ["check", "round-trip", "--write", address, "--read", &read];
    cli(&[&arguments, more].concat()).await.expect_err("it fails")
}

#[tokio::test]
async fn the_step_that_failed_is_named() {
    let taking = || Router::new().route("/v1/traces", post(|| async { "" }));
    let refusing = Router::new().route("/v1/traces", post(|| async { (StatusCode::BAD_REQUEST, "\u{8}\u{3}\u{12}\u{4}why?") }));
    let error = fails(&serve(refusing).await, &[]).await;
    assert!(error.starts_with("write failed: the answer was 400 Bad Request: why?\nIs an OTLP receiver there"), "{error}");

    let rejecting = Router::new().route("/v1/traces", post(|| async { "\n\u{c}\u{8}\u{3}\u{12}\u{8}too late" }));
    let error = fails(&serve(rejecting).await, &[]).await;
    assert!(error.starts_with("write failed: 3 spans were rejected: too late\n"), "{error}");

    let error = fails(&serve(taking()).await, &["--within", "1ms"]).await;
    assert!(error.contains(" failed, 1ms are over: "), "{error}");

    let missing = fails(&serve(taking()).await, &["--within", "300ms"]).await;
    assert!(missing.starts_with("read by id failed, 300ms are over: not found (404)\n") && missing.contains("of --read"), "{missing}");

    let unknown = taking().route("/api/v2/traces/{id}", get(|| async { (StatusCode::UNAUTHORIZED, "no org id") }));
    let error = fails(&serve(unknown).await, &[]).await;
    assert!(error.starts_with("read by id failed: the server wants to know the tenant (no org id): name it with --org-id\n"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_for_both_protocols() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    for scheme in ["http", "grpc"] {
        let error = fails(&format!("{scheme}://{address}"), &["--within", "300ms"]).await;
        let want = format!("write failed, 300ms are over: cannot reach {scheme}://{address}: Connection refused");
        assert!(error.starts_with(&want), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_before_anything_is_sent() {
    for (arguments, want) in [
        (["--write", "ftp://x", "--within", "1s"], "--write ftp://x is no address: expected http://host:port"),
        (["--write", "grpc://a b", "--within", "1s"], "--write grpc://a b is no address: expected grpc://host:port"),
        (["--read", "http://", "--within", "1s"], "--read http:// is no address"),
        (["--read", "http://127.0.0.1:1", "--within", "soon"], "--within \"soon\", "),
        (["--read", "http://127.0.0.1:1", "--within", "0s"], "--within is no time at all"),
    ] {
        let error = cli(&[["check", "round-trip"].as_slice(), &arguments].concat()).await.expect_err("it is refused");
        assert!(error.starts_with(want), "{error}");
    }
}

#[tokio::test]
async fn a_health_check_ends_as_the_process_says() {
    let ready = serve(Router::new().route("/ready", get(|| async { "ready" }))).await;
    for url in [ready.clone(), format!("{ready}/"), format!("{ready}/ready")] {
        assert_eq!(answer(&["check", "ready", "--url", &url]).await, Ok((Ending::Good, format!("{ready} is ready\n"))));
    }
    let starting = serve(Router::new().route("/ready", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "not in the ring yet") }))).await;
    let said = answer(&["check", "ready", "--url", &starting]).await;
    assert_eq!(said, Ok((Ending::Bad, format!("{starting} is not ready: not in the ring yet\n"))));
    let error = cli(&["check", "ready", "--url", "127.0.0.1:1"]).await.expect_err("nobody is there");
    assert!(error.contains("cannot reach http://127.0.0.1:1"), "{error}");
}
