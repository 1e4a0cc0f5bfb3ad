use axum::Router;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use prost::Message;
use vivace_proto::otlp::{AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, any_value};
use vivace_proto::tempopb::{Trace, TraceByIdResponse};

use crate::{cli, serve};

fn trace() -> TraceByIdResponse {
    let name = AnyValue { value: Some(any_value::Value::StringValue("shop".to_owned())) };
    let resource = Resource { attributes: vec![KeyValue { key: "service.name".to_owned(), value: Some(name) }], ..Resource::default() };
    let span = Span {
        trace_id: vec![1; 16].into(),
        span_id: vec![1; 8].into(),
        name: "GET /create".to_owned(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_005_980_000,
        ..Span::default()
    };
    let spans = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans: vec![spans], ..ResourceSpans::default() }];
    TraceByIdResponse { trace: Some(Trace { resource_spans }), ..TraceByIdResponse::default() }
}

#[tokio::test]
async fn a_trace_is_asked_for_and_drawn() {
    let answer = |headers: HeaderMap| async move {
        if headers.get("x-scope-orgid").is_none_or(|tenant| tenant != "team-a") {
            return (StatusCode::UNAUTHORIZED, b"no org id\n".to_vec());
        }
        assert_eq!(headers[header::ACCEPT], "application/protobuf");
        (StatusCode::OK, trace().encode_to_vec())
    };
    let none = || async { TraceByIdResponse::default().encode_to_vec() };
    let router = Router::new()
        .route("/api/v2/traces/01010101010101010101010101010101", get(answer))
        .route("/api/v2/traces/0000000000000000000000000000abcd", get(none));
    let address = serve(router).await;
    let id = "01010101010101010101010101010101";

    let got = cli(&["query", "trace", id, "--address", &address, "--org-id", "team-a"]).await.expect("the trace");
    assert!(got.contains("1 span of 1 service in 5.98ms, no errors"), "{got}");
    assert!(got.contains("GET /create  shop    5.98ms  |"), "{got}");

    let got = cli(&["query", "--address", &address, "trace", id]).await.expect_err("no tenant");
    assert_eq!(got, "the server wants to know the tenant (no org id): name it with --org-id");

    let got = cli(&["query", "--address", &address, "trace", "ABCD"]).await.expect_err("no such trace");
    assert!(got.starts_with("there is no trace 0000000000000000000000000000abcd"), "{got}");

    let got = cli(&["query", "--address", &address, "trace", "xyz"]).await.expect_err("no id");
    assert!(got.starts_with("\"xyz\" is no trace id"), "{got}");
}

#[tokio::test]
async fn nobody_there_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let got = cli(&["query", "tags", "--address", &address]).await.expect_err("nobody is there");
    assert!(got.starts_with(&format!("cannot reach {address}: Connection refused")) && got.contains("Is Vivace running there?"), "{got}");
}

#[tokio::test]
async fn a_search_is_a_table_and_a_wrong_query_is_pointed_at() {
    let answer = |RawQuery(query): RawQuery| async move {
        let query = query.unwrap_or_default();
        assert!(query.starts_with("start=100&end=201&q=") && query.ends_with("&limit=20"), "{query}");
        r#"{"traces":[{"traceID":"1f","rootServiceName":"shop","rootTraceName":"pay","startTimeUnixNano":"1700000000000000000","durationMs":12}],"metrics":{}}"#
    };
    let address = serve(Router::new().route("/api/search", get(answer))).await;
    let search = |query: &'static str| {
        let address = address.clone();
        async move { cli(&["query", "search", query, "--start", "100", "--end", "200", "--address", &address]).await }
    };
    let got = search("{ status = error }").await.expect("a table");
    assert!(got.contains("0000000000000000000000000000001f  2023-11-14T22:13:20Z  12.0ms    shop: pay"), "{got}");
    assert!(got.ends_with("1 trace, 0 B read in 0 blocks\n"), "{got}");
    let got = search("{ status = }").await.expect_err("a wrong query");
    assert!(got.starts_with("this is no TraceQL: ") && got.ends_with("\n  { status = }\n             ^"), "{got}");
}

#[tokio::test]
async fn tags_are_written_as_in_traceql() {
    let router = Router::new()
        .route(
            "/api/v2/search/tags",
            get(|| async { r#"{"scopes":[{"name":"span","tags":["b","a"]},{"name":"intrinsic","tags":["name"]}],"metrics":{}}"# }),
        )
        .route(
            "/api/v2/search/tag/resource.service.name/values",
            get(|| async { r#"{"tagValues":[{"type":"string","value":"shop"}],"metrics":{}}"# }),
        );
    let address = serve(router).await;
    assert_eq!(cli(&["query", "tags", "--address", &address]).await, Ok("name\nspan.a\nspan.b\n".to_owned()));
    let got = cli(&["query", "tag-values", "resource.service.name", "--address", &address]).await;
    assert_eq!(got, Ok("TYPE    VALUE\nstring  shop\n".to_owned()));
}

#[tokio::test]
async fn a_query_is_explained_without_a_server() {
    let text = cli(&["query", "explain", "{ status = error } | rate() by (resource.service.name)"]).await.expect("an answer");
    assert!(text.contains("traces       with a span where status = error\n"), "{text}");
    assert!(text.contains("a series for each resource.service.name\n"), "{text}");
    let error = cli(&["query", "explain", "{ status = } | rate()"]).await.expect_err("no query");
    assert!(error.contains("  { status = } | rate()\n             ^"), "{error}");
    assert_eq!(
        cli(&["query", "explain", "{ name }"]).await,
        Err("span filter field expressions must resolve to a boolean: { name }".to_owned())
    );
}
