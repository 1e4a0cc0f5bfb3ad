//! Jaeger's query API at its ports. Source: docs/facts/clients.md, "Jaeger's query API".

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};
use tokio_stream::StreamExt as _;
use vivace_core::TraceId;
use vivace_proto::jaeger::api_v3::query_service_client::QueryServiceClient;
use vivace_proto::jaeger::api_v3::{
    FindTracesRequest, GetOperationsRequest, GetServicesRequest, GetTraceRequest, Timestamp, TraceQueryParameters,
};
use vivace_proto::otlp::{AnyValue, KeyValue, any_value::Value};
use vivace_proto::tempopb::{SearchResponse, SearchTagValuesV2Response, Span, SpanSet, TagValue, TraceSearchMetadata};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{Job, job_result};
use vivace_traceql::ast::{Root, Spansets, Stage};

use crate::client::{Reply, get, get_with};
use crate::querier::{self, Outcome, Querier, nothing};
use crate::{Frontend, with_other_apis};

const TRACE: &str = "07070707070707070707070707070707";

impl Frontend {
    fn jaeger(&self) -> String {
        format!("http://{}", self.listening.jaeger_http.expect("it is asked for"))
    }
}

/// One trace with two spans, the services `cart` and `shop`, and operations by their kind.
fn data(job: &Job) -> Outcome {
    let values = |values: &[&str]| {
        let tag_values = values.iter().map(|value| TagValue { r#type: "string".to_owned(), value: (*value).to_owned() }).collect();
        Outcome::Result(job_result::Outcome::TagValues(SearchTagValuesV2Response { tag_values, metrics: None }))
    };
    match job.work.as_ref().unwrap() {
        Work::FindRecent(lookup) if lookup.trace_id[..] == [7; 16] => Outcome::Result(querier::part(&[1, 2])),
        Work::SearchRecent(_) => querier::found(&[(TRACE, 10, "shop")]),
        Work::TagValuesRecent(asked) if asked.tag_name == "resource.service.name" => values(&["shop", "cart"]),
        Work::TagValuesRecent(asked) if asked.query.contains("kind = server") => values(&["GET /"]),
        Work::TagValuesRecent(asked) if asked.query.contains("kind = unspecified") => values(&["work"]),
        Work::TagValuesRecent(asked) if !asked.query.contains("kind") => values(&["work", "GET /"]),
        _ => nothing(job),
    }
}

async fn start() -> (Frontend, Querier) {
    Frontend::with(&with_other_apis(), data).await
}

fn failed(reply: &Reply) -> (u16, Json) {
    assert_eq!(reply.headers["content-type"], "application/json");
    (reply.status, serde_json::from_slice(&reply.body).unwrap())
}

#[tokio::test]
async fn services_and_operations() {
    let (frontend, querier) = start().await;
    let jaeger = frontend.jaeger();
    let envelope = |data: Json, total: usize| json!({"data": data, "total": total, "limit": 0, "offset": 0, "errors": null});
    assert_eq!(get(&jaeger, "/api/services").await.json(), envelope(json!(["cart", "shop"]), 2));
    assert_eq!(get(&jaeger, "/api/services/a/b/operations").await.json(), envelope(json!(["GET /", "work"]), 2));
    {
        let jobs = querier.jobs.lock();
        let Some(Work::TagValuesRecent(asked)) = &jobs.last().unwrap().work else { panic!("{jobs:?}") };
        assert_eq!((asked.tag_name.as_str(), asked.query.as_str()), ("name", "{ resource.service.name = `a/b` }"));
        assert!((24 * 3600..=24 * 3600 + 1).contains(&(asked.end - asked.start)), "{asked:?}");
    }
    let server = json!([{"name": "GET /", "spanKind": "server"}]);
    assert_eq!(get(&jaeger, "/api/operations?service=shop&spanKind=server").await.json(), envelope(server, 1));
    assert_eq!(get(&jaeger, "/api/v3/services").await.json(), json!({"services": ["cart", "shop"]}));
    let operations = json!({"operations": [{"name": "GET /", "spanKind": "server"}, {"name": "work", "spanKind": ""}]});
    assert_eq!(get(&jaeger, "/api/v3/operations?service=shop").await.json(), operations);
    let (status, body) = failed(&get(&jaeger, "/api/v3/operations").await);
    assert_eq!((status, body), (400, json!({"error": {"httpCode": 400, "message": "service is required"}})));
}

#[tokio::test]
async fn a_trace_by_its_id_in_both_versions() {
    let (frontend, _querier) = start().await;
    let jaeger = frontend.jaeger();
    let found = get(&jaeger, &format!("/api/traces/{TRACE}?start=1700000000000&end=1700000001000")).await.json();
    assert_eq!(found["data"][0]["traceID"], json!(TRACE));
    assert_eq!(found["data"][0]["spans"].as_array().unwrap().len(), 2);
    assert_eq!(found["data"][0]["spans"][0]["duration"], json!(0), "a span that ends before it starts");
    assert_eq!(found, get(&jaeger, &format!("/api/traces?traceID={TRACE}&traceID=1")).await.json(), "what is not there is left out");
    let v3 = get(&jaeger, &format!("/api/v3/traces/{TRACE}?start_time=2023-11-14T21:13:20Z&end_time=2023-11-14T22:13:20Z")).await.json();
    assert_eq!(v3["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["spanId"], json!("0202020202020202"));
    let missing = json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": [{"code": 404, "msg": "trace not found"}]});
    assert_eq!(failed(&get(&jaeger, "/api/traces/1").await), (404, missing));
    let missing = json!({"error": {"httpCode": 404, "message": "trace not found"}});
    assert_eq!(failed(&get(&jaeger, "/api/v3/traces/1").await), (404, missing));
    assert_eq!(failed(&get(&jaeger, "/api/traces/no-id").await).0, 400);
    let page = get(&jaeger, &format!("/trace/{TRACE}")).await;
    assert!(page.status == 200 && page.text().contains("span 2") && page.headers["content-type"] == "text/html; charset=utf-8");
    assert_eq!(get(&jaeger, "/trace/1").await.status, 404);
    assert!(get(&jaeger, "/").await.text().contains("Jaeger's query API"));
}

#[tokio::test]
async fn searches_find_whole_traces() {
    let (frontend, querier) = start().await;
    let jaeger = frontend.jaeger();
    let v1 = get(
        &jaeger,
        "/api/traces?service=shop&operation=pay&tags=%7B%22vip%22%3A%22true%22%7D&limit=5&minDuration=1ms\
                           &start=1700000000000000&end=1700000010000000&lookback=1h",
    )
    .await;
    assert_eq!(v1.json()["data"], json!([]));
    {
        let jobs = querier.jobs.lock();
        let search = jobs.iter().find_map(|job| match &job.work {
            Some(Work::SearchRecent(search)) => Some(search.clone()),
            _ => None,
        });
        assert!(search.is_none(), "the ingesters have nothing of that time: {jobs:?}");
    }
    let v1 = get(&jaeger, "/api/traces?service=shop&limit=5&lookback=1h").await.json();
    assert_eq!((&v1["data"][0]["traceID"], &v1["total"]), (&json!(TRACE), &json!(1)));
    assert_eq!(v1["data"][0]["spans"].as_array().unwrap().len(), 2);
    let range = "query.startTimeMin=2023-11-14T21:13:20.000Z&query.startTimeMax=2123-11-14T22:13:20.000Z";
    assert_eq!(failed(&get(&jaeger, &format!("/api/v3/traces?{range}")).await).0, 400, "longer than a search may be");
    let now = time::OffsetDateTime::now_utc();
    let text = |time: time::OffsetDateTime| time.format(&time::format_description::well_known::Rfc3339).unwrap().replace('+', "%2B");
    let range = format!("query.startTimeMin={}&query.startTimeMax={}", text(now - time::Duration::HOUR), text(now));
    let summaries = get(&jaeger, &format!("/api/v3/trace-summaries?{range}&query.searchDepth=3")).await.json();
    assert_eq!((&summaries["summaries"][0]["traceId"], &summaries["summaries"][0]["spanCount"]), (&json!(TRACE), &json!(2)));
    let traces = get(&jaeger, &format!("/api/v3/traces?{range}&query.serviceName=shop")).await.json();
    assert_eq!(traces["result"]["resourceSpans"].as_array().unwrap().len(), 1);
    let jobs = querier.jobs.lock();
    let searches: Vec<(&str, u32)> = jobs
        .iter()
        .filter_map(|job| match &job.work {
            Some(Work::SearchRecent(search)) => Some((search.query.as_str(), search.limit)),
            _ => None,
        })
        .collect();
    let of_shop = "{ resource.service.name = `shop` } with (most_recent=true)";
    assert_eq!(searches, [(of_shop, 5), ("{ } with (most_recent=true)", 3), (of_shop, 100)]);
}

/// Jaeger's UI asks for the dependencies of a week, which is just what a search may have.
#[tokio::test]
async fn what_is_asked_is_kept_within_what_is_allowed() {
    let mut config = with_other_apis();
    config.query_frontend.search.max_result_limit = 50;
    config.query_frontend.jaeger.max_traces = 30;
    let (frontend, querier) = Frontend::with(&config, data).await;
    let jaeger = frontend.jaeger();
    let now = vivace_server::clock::unix_nanos() / 1000;
    let week = 7 * 24 * 3600;
    let limits = || {
        let jobs = std::mem::take(&mut *querier.jobs.lock());
        let searches = jobs.into_iter().filter_map(|job| match job.work {
            Some(Work::SearchRecent(search)) => Some((search.limit, search.end - search.start)),
            Some(Work::SearchRecentTraces(search)) => search.request.map(|search| (search.limit, search.end - search.start)),
            _ => None,
        });
        searches.collect::<Vec<_>>()
    };
    for lookback in [week * 1000, 2 * week * 1000] {
        let path = format!("/api/dependencies?endTs={}&lookback={lookback}", now / 1000);
        assert_eq!(get(&jaeger, &path).await.status, 200);
        let found = limits();
        assert!(found.iter().all(|(limit, seconds)| *limit == 50 && *seconds <= week as u32), "{found:?}");
        assert!(!found.is_empty());
    }
    let search = |start: u64| format!("/api/traces?service=shop&limit=1000&end={now}&start={start}");
    assert_eq!(get(&jaeger, &search(now - week * 1_000_000)).await.status, 200);
    let found = limits();
    assert!(!found.is_empty() && found.iter().all(|(limit, seconds)| *limit == 30 && *seconds <= week as u32), "{found:?}");
    assert_eq!(failed(&get(&jaeger, &search(now - 2 * week * 1_000_000)).await).0, 400, "a longer search is refused as everywhere");
    let mut config = with_other_apis();
    config.overrides.defaults.read.max_search_duration = std::time::Duration::from_secs(60);
    let (frontend, _querier) = Frontend::with(&config, data).await;
    assert_eq!(get(&frontend.jaeger(), "/api/services").await.status, 200, "services of as long as is allowed");
}

/// Whatever stands in a parameter is looked for as it is, or is refused in Jaeger's own words.
#[tokio::test]
async fn no_parameter_can_change_the_query() {
    let (frontend, querier) = start().await;
    let jaeger = frontend.jaeger();
    let mut runner = TestRunner::deterministic();
    let strange = prop_oneof![any::<String>(), "[`\"\\\\{}|&=() a\r\n]{1,12}"];
    let mut texts: Vec<String> = (0..150).map(|_| strange.new_tree(&mut runner).unwrap().current()).collect();
    texts.extend(["` || true } || { name = `", "\" } | rate() | { \"", "\\", "`\r", "x` } //"].map(str::to_owned));
    let (mut found, mut refused) = (0, 0);
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let tags: String = json!({&text: &text}).to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        querier.jobs.lock().clear();
        for path in [
            format!("/api/traces?service={escaped}&operation={escaped}&tags={tags}"),
            format!("/api/traces?service=a&limit={escaped}&minDuration={escaped}&start={escaped}"),
            format!("/api/services/{escaped}/operations"),
        ] {
            let reply = get(&jaeger, &path).await;
            if reply.status == 200 {
                found += 1;
                continue;
            }
            let (status, body) = failed(&reply);
            refused += 1;
            assert_eq!((status, &body["errors"][0]["code"], &body["data"]), (400, &json!(400), &Json::Null), "{text:?}");
        }
        for job in &*querier.jobs.lock() {
            let query = match &job.work {
                Some(Work::SearchRecent(search)) => &search.query,
                Some(Work::TagValuesRecent(asked)) => &asked.query,
                _ => continue,
            };
            let query = vivace_traceql::parse(query).unwrap();
            let Root::Pipeline(pipeline) = &query.root else { panic!("{text:?}: {query}") };
            assert!(matches!(pipeline.stages[..], [Stage::Spansets(Spansets::Filter(_))]), "{text:?}: {query}");
            let service = vivace_traceql::Value::Str(text.as_str().into()).to_string();
            assert!(query.to_string().contains(&service), "{text:?}: {query}");
        }
    }
    assert!(found > 200 && refused > 100, "{found} were answered and {refused} refused");
}

#[tokio::test]
async fn dependencies_are_calls_between_services() {
    let span = |id: &str, parent: &str, service: &str| {
        let text = |key: &str, text: &str| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) }),
        };
        Span {
            span_id: id.to_owned(),
            attributes: vec![text("span:parentID", parent), text("service.name", service)],
            ..Default::default()
        }
    };
    let (frontend, querier) = Frontend::with(&with_other_apis(), move |job| match job.work.as_ref().unwrap() {
        Work::SearchRecentTraces(_) => {
            let spans =
                vec![span("1", "0", "web"), span("2", "1", "web"), span("3", "2", "shop"), span("4", "2", "shop"), span("5", "9", "x")];
            let set = SpanSet { spans, matched: 5, ..Default::default() };
            let trace = TraceSearchMetadata { trace_id: TRACE.to_owned(), span_sets: vec![set], ..Default::default() };
            Outcome::Result(job_result::Outcome::Search(SearchResponse { traces: vec![trace], metrics: None }))
        }
        _ => nothing(job),
    })
    .await;
    let end = vivace_server::clock::unix_nanos() / 1_000_000;
    let path = format!("/api/dependencies?endTs={end}&lookback=600000");
    let answer = get(&frontend.jaeger(), &path).await.json();
    assert_eq!(answer["data"], json!([{"parent": "web", "child": "shop", "callCount": 2}]));
    assert_eq!(failed(&get(&frontend.jaeger(), "/api/dependencies?endTs=now").await).0, 400);
    let jobs = querier.jobs.lock();
    let Some(Work::SearchRecentTraces(search)) = &jobs[0].work else { panic!("{jobs:?}") };
    let search = search.request.as_ref().unwrap();
    assert_eq!((search.limit, search.spans_per_span_set), (1000, 100));
}

#[tokio::test]
async fn metrics_are_counted_where_no_prometheus_is_configured() {
    let (frontend, querier) = start().await;
    let jaeger = frontend.jaeger();
    assert_eq!(get(&jaeger, "/api/metrics/minstep").await.json()["data"], json!(1000));
    let calls = get(&jaeger, "/api/metrics/calls?service=shop&lookback=600000&step=60000").await.json();
    assert_eq!((&calls["name"], &calls["type"], &calls["metrics"]), (&json!("service_call_rate"), &json!("GAUGE"), &json!([])));
    assert_eq!(failed(&get(&jaeger, "/api/metrics/calls").await).0, 400);
    assert_eq!(failed(&get(&jaeger, "/api/metrics/other?service=shop").await).0, 404);
    let jobs = querier.jobs.lock();
    let Some(Work::SeriesRecent(series)) = &jobs[0].work else { panic!("{jobs:?}") };
    let query = &series.request.as_ref().unwrap().query;
    assert_eq!(query, "{ resource.service.name = `shop` && kind = server } | rate() by(resource.service.name)");
}

#[tokio::test]
async fn a_prometheus_that_does_not_answer_is_named_without_its_password() {
    let mut config = with_other_apis();
    config.query_frontend.jaeger.prometheus_url = "http://user:secret@127.0.0.1:1".into();
    let (frontend, _querier) = Frontend::with(&config, data).await;
    let reply = get(&frontend.jaeger(), "/api/metrics/calls?service=shop").await;
    let (status, body) = failed(&reply);
    let said = body["errors"][0]["msg"].as_str().unwrap();
    assert!(status == 503 && said.starts_with("Prometheus does not answer") && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn tenants_are_asked_for_in_jaegers_words() {
    let mut config = with_other_apis();
    config.multitenancy_enabled = true;
    let (frontend, querier) = Frontend::with(&config, data).await;
    let jaeger = frontend.jaeger();
    let (status, body) = failed(&get(&jaeger, "/api/services").await);
    assert_eq!((status, &body["errors"]), (401, &json!([{"code": 401, "msg": "no org id"}])));
    assert_eq!(failed(&get(&jaeger, "/api/v3/services").await).0, 401);
    assert_eq!(get_with(&jaeger, "/api/services", &[("x-scope-orgid", "a")]).await.json()["total"], json!(2));
    assert_eq!(get(&jaeger, &format!("/trace/{TRACE}")).await.status, 401);
    assert!(querier.jobs.lock().iter().all(|job| job.tenant == "a"));
}

#[tokio::test]
async fn web_pages_of_this_machine_may_ask() {
    let (frontend, _querier) = start().await;
    let jaeger = frontend.jaeger();
    let allowed = get_with(&jaeger, "/api/services", &[("origin", "http://localhost:3000")]).await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "http://localhost:3000");
    let other = get_with(&jaeger, "/api/services", &[("origin", "https://evil.example")]).await;
    assert_eq!(other.headers.get("access-control-allow-origin"), None);
}

#[tokio::test]
async fn large_answers_are_compressed() {
    let (frontend, _querier) = Frontend::with(&with_other_apis(), |_| Outcome::Result(querier::part(&(0..100).collect::<Vec<u8>>()))).await;
    let packed = get_with(&frontend.jaeger(), "/api/traces/1", &[("accept-encoding", "gzip, deflate, br")]).await;
    assert_eq!(
        (&packed.headers["content-encoding"], &packed.headers["vary"]),
        (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_in_jaegers_words() {
    let (frontend, _querier) = start().await;
    let jaeger = frontend.jaeger();
    for path in ["/api/nothing", "/api/v3/nothing", "/api/services/shop/spans"] {
        assert_eq!(failed(&get(&jaeger, path).await).0, 404, "{path}");
    }
}

#[tokio::test]
async fn the_same_over_grpc() {
    let (frontend, _querier) = start().await;
    let grpc = format!("http://{}", frontend.listening.jaeger_grpc.expect("it is asked for"));
    let mut client = QueryServiceClient::connect(grpc.clone()).await.unwrap();
    let services = client.get_services(GetServicesRequest {}).await.unwrap().into_inner();
    assert_eq!(services.services, ["cart", "shop"]);
    let asked = GetOperationsRequest { service: "shop".to_owned(), span_kind: "server".to_owned() };
    let operations = client.get_operations(asked).await.unwrap().into_inner().operations;
    assert_eq!(operations.iter().map(|of| (of.name.as_str(), of.span_kind.as_str())).collect::<Vec<_>>(), [("GET /", "server")]);

    let asked = GetTraceRequest { trace_id: TRACE.to_owned(), ..Default::default() };
    let mut messages = client.get_trace(asked).await.unwrap().into_inner();
    let first = messages.next().await.unwrap().unwrap();
    let span = &first.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(
        (TraceId::from_slice(&span.trace_id).trimmed_hex(), span.name.as_str()),
        (TRACE.trim_start_matches('0').to_owned(), "span 1")
    );
    assert!(messages.next().await.is_none());
    let missing = client.get_trace(GetTraceRequest { trace_id: "1".to_owned(), ..Default::default() }).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);

    let now = i64::try_from(vivace_server::clock::unix_nanos() / 1_000_000_000).unwrap();
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let query = TraceQueryParameters { start_time_min: time(now - 60), start_time_max: time(now), ..Default::default() };
    let mut found = client.find_traces(FindTracesRequest { query: Some(query) }).await.unwrap().into_inner();
    assert_eq!(found.next().await.unwrap().unwrap().resource_spans.len(), 1);
    let open = client.find_traces(FindTracesRequest { query: Some(TraceQueryParameters::default()) }).await.unwrap_err();
    assert_eq!((open.code(), open.message()), (tonic::Code::InvalidArgument, "start_time_min is required"));
    assert_eq!(get(&grpc, "/api/services").await.status, 415);
}

#[tokio::test]
async fn a_port_that_is_taken_ends_only_who_asks_for_it() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = with_other_apis();
    config.query_frontend.jaeger.http_listen_port = taken.local_addr().unwrap().port();
    let start = async |config: &vivace_config::Config| {
        let mut process = vivace_server::Process::test_with(config, "query-frontend").await.unwrap();
        let overrides = vivace_server::Overrides::fixed(config.overrides.defaults.clone());
        let poller = vivace_storage::Poller::reader(
            vivace_storage::Bucket::memory(),
            vivace_storage::PollOptions::from(&config.storage.trace),
            vivace_server::clock::unix_nanos,
        );
        vivace_query_frontend::start(config, poller.blocklist(), overrides, &mut process).await
    };
    let error = format!("{:#}", start(&config).await.unwrap_err());
    assert!(error.contains("query_frontend.jaeger.http_listen_port"), "{error}");
    (config.query_frontend.jaeger.enabled, config.query_frontend.zipkin.enabled) = (None, None);
    let listening = start(&config).await.unwrap();
    assert!(listening.jaeger_http.is_none() && listening.jaeger_grpc.is_some() && listening.zipkin.is_some());
    config.query_frontend.jaeger.grpc_listen_port = 4317;
    let listening = start(&config).await.unwrap();
    assert_eq!(listening.jaeger_grpc, None, "the port of a receiver, which listens later");
    config.target = vivace_config::Target::QueryFrontend;
    assert_eq!(start(&config).await.unwrap(), Default::default(), "a query-frontend of its own is asked to");
}
