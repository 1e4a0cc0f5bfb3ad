//! Zipkin's query API at its port. Source: docs/facts/clients.md, "Zipkin's query API".

use serde_json::{Value as Json, json};
use vivace_proto::tempopb::{SearchTagValuesV2Response, SearchTagsV2Response, SearchTagsV2Scope, TagValue};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{Job, job_result};

use crate::client::{get, get_with, post};
use crate::querier::{self, Outcome, Querier, nothing};
use crate::{Frontend, with_other_apis};

const TRACE: &str = "07070707070707070707070707070707";

fn data(job: &Job) -> Outcome {
    match job.work.as_ref().unwrap() {
        Work::FindRecent(lookup) if lookup.trace_id[..] == [7; 16] => Outcome::Result(querier::part(&[1, 2])),
        Work::SearchRecent(_) => querier::found(&[(TRACE, 10, "shop")]),
        Work::TagValuesRecent(asked) => {
            let value = TagValue { r#type: "string".to_owned(), value: format!("{} of {}", asked.tag_name, asked.query) };
            Outcome::Result(job_result::Outcome::TagValues(SearchTagValuesV2Response { tag_values: vec![value], metrics: None }))
        }
        Work::TagsRecent(_) => {
            let scopes = vec![SearchTagsV2Scope { name: "span".to_owned(), tags: vec!["vip".to_owned(), "http.path".to_owned()] }];
            Outcome::Result(job_result::Outcome::Tags(SearchTagsV2Response { scopes, metrics: None }))
        }
        _ => nothing(job),
    }
}

async fn start() -> (Frontend, Querier, String) {
    let (frontend, querier) = Frontend::with(&with_other_apis(), data).await;
    let zipkin = format!("http://{}", frontend.listening.zipkin.expect("it is asked for"));
    (frontend, querier, zipkin)
}

#[tokio::test]
async fn names_are_plain_lists() {
    let (_frontend, _querier, zipkin) = start().await;
    assert_eq!(get(&zipkin, "/api/v2/services").await.json(), json!(["resource.service.name of { }"]));
    let spans = get(&zipkin, "/zipkin/api/v2/spans?serviceName=a%60b").await.json();
    assert_eq!(spans, json!(["name of { resource.service.name = \"a`b\" }"]));
    let remote = get(&zipkin, "/api/v2/remoteServices?serviceName=a").await.json();
    assert_eq!(remote, json!(["span.peer.service of { resource.service.name = `a` && (kind = client || kind = producer) }"]));
    assert_eq!(get(&zipkin, "/api/v2/autocompleteKeys").await.json(), json!(["http.path", "vip"]));
    assert_eq!(get(&zipkin, "/api/v2/autocompleteValues?key=http.path").await.json(), json!(["span.http.path of { }"]));
    let missing = get(&zipkin, "/api/v2/spans").await;
    assert_eq!((missing.status, missing.text()), (400, "required parameter serviceName is missing"));
}

#[tokio::test]
async fn traces_are_lists_of_spans() {
    let (_frontend, querier, zipkin) = start().await;
    let trace = get(&zipkin, &format!("/api/v2/trace/{TRACE}")).await.json();
    let names = |trace: &Json| trace.as_array().unwrap().iter().map(|span| span["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&trace), ["span 1", "span 2"]);
    assert_eq!((&trace[0]["traceId"], &trace[0]["id"]), (&json!(TRACE), &json!("0101010101010101")));
    let found = get(&zipkin, "/api/v2/traces?serviceName=shop&spanName=all&limit=3&lookback=3600000").await.json();
    assert_eq!(found, json!([trace]));
    {
        let jobs = querier.jobs.lock();
        let search = jobs.iter().find_map(|job| match &job.work {
            Some(Work::SearchRecent(search)) => Some((search.query.clone(), search.limit)),
            _ => None,
        });
        assert_eq!(search, Some(("{ resource.service.name = `shop` } with (most_recent=true)".to_owned(), 3)));
    }
    assert_eq!(get(&zipkin, &format!("/api/v2/traceMany?traceIds={TRACE},1")).await.json(), json!([trace]));
    let missing = get(&zipkin, "/api/v2/trace/1").await;
    assert_eq!((missing.status, missing.text()), (404, "1 not found"));
    assert_eq!(get(&zipkin, "/api/v2/trace/xyz").await.status, 400);
    assert_eq!(get(&zipkin, "/api/v2/traces?limit=x").await.status, 400);
}

#[tokio::test]
async fn the_ui_is_told_what_there_is() {
    let (_frontend, _querier, zipkin) = start().await;
    let config = get(&zipkin, "/zipkin/config.json").await.json();
    assert_eq!(
        (&config["searchEnabled"], &config["queryLimit"], &config["dependency"]["enabled"]),
        (&json!(true), &json!(10), &json!(true))
    );
    assert_eq!(get(&zipkin, "/api/v2/dependencies?endTs=1700000000000").await.json(), json!([]));
    assert_eq!(get(&zipkin, "/api/v2/dependencies").await.status, 400);
    assert!(get(&zipkin, "/").await.text().contains("Zipkin's query API"));
    assert_eq!(get(&zipkin, "/health").await.json(), json!({"status": "UP"}));
    let allowed = get_with(&zipkin, "/api/v2/services", &[("origin", "http://localhost:3000")]).await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "http://localhost:3000");
}

#[tokio::test]
async fn tenants_are_asked_for() {
    let mut config = with_other_apis();
    config.multitenancy_enabled = true;
    let (frontend, querier) = Frontend::with(&config, data).await;
    let zipkin = format!("http://{}", frontend.listening.zipkin.expect("it is asked for"));
    let missing = get(&zipkin, "/api/v2/services").await;
    assert_eq!((missing.status, missing.text()), (401, "no org id"));
    assert_eq!(get_with(&zipkin, "/api/v2/services", &[("x-scope-orgid", "a")]).await.status, 200);
    assert!(querier.jobs.lock().iter().all(|job| job.tenant == "a"));
}

fn connections() -> vivace_server::ConnectionOptions {
    vivace_server::ConnectionOptions {
        timeouts: vivace_server::Timeouts::NONE,
        max_concurrent_streams: 10,
        ping_after: std::time::Duration::ZERO,
        ping_timeout: std::time::Duration::ZERO,
        keep_alive: true,
        message_bytes_max: 1 << 20,
    }
}

/// Clients send spans to the port that they read from. A receiver of the same process has it, and listens later.
#[tokio::test]
async fn a_receiver_and_the_query_api_share_a_port() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = with_other_apis();
    config.query_frontend.zipkin.http_listen_port = port.local_addr().unwrap().port();
    let http = vivace_config::ZipkinHttp { endpoint: port.local_addr().unwrap().to_string(), ..Default::default() };
    config.distributor.receivers.zipkin = vec![vivace_config::ZipkinReceiver { id: "zipkin".to_owned(), http }];
    let mut process = vivace_server::Process::test_with(&config, "vivace").await.unwrap();
    let overrides = vivace_server::Overrides::fixed(config.overrides.defaults.clone());
    let options = vivace_storage::PollOptions::from(&config.storage.trace);
    let poller = vivace_storage::Poller::reader(vivace_storage::Bucket::memory(), options, vivace_server::clock::unix_nanos);
    poller.poll_once().await.unwrap();
    let listening = vivace_query_frontend::start(&config, poller.blocklist(), overrides, &mut process).await.unwrap();
    assert_eq!(listening.zipkin, None);

    let zipkin = format!("http://{}", port.local_addr().unwrap());
    let receiver = axum::Router::new().fallback(|| async { "received" });
    let server = process.serve_on(port, "zipkin", receiver, connections(), None, process.stop_token());
    process.spawn("receiver", async move {
        server.await;
        Ok(())
    });
    let grpc = format!("http://{}", process.grpc_addr());
    let mut run = tokio::task::JoinSet::new();
    run.spawn(process.run());
    let _querier = Querier::connect(&grpc, "one", 1, std::sync::Arc::new(data)).await;
    let names = get(&zipkin, "/api/v2/spans?serviceName=a").await.json();
    assert_eq!(names, json!(["name of { resource.service.name = `a` }"]));
    assert_eq!(post(&zipkin, "/api/v2/spans").await.text(), "received");
}
