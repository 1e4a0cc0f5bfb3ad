//! Requests and answers, as clients know them.

use prost::Message as _;
use serde_json::json;
use vivace_config::Config;
use vivace_proto::tempopb::{SearchTagValuesV2Response, SearchTagsV2Response, SearchTagsV2Scope, TagValue, TraceByIdResponse};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{Job, job_result};

use crate::client::{get, get_with};
use crate::querier::{self, Outcome, Querier, nothing};
use crate::{Frontend, block};

/// Only the first version answers with 404. Source: docs/facts/clients.md, "A missing trace".
#[tokio::test]
async fn an_unknown_trace_is_404_in_version_1_and_an_empty_trace_in_version_2() {
    let (frontend, _querier) = Frontend::idle().await;
    let v1 = get(&frontend.http, "/api/traces/abc").await;
    assert_eq!((v1.status, v1.text(), v1.headers.get("content-type")), (404, "", None));
    assert_eq!(get(&frontend.http, "/api/v2/traces/abc").await.json(), json!({"trace": {}, "metrics": {}}));
    let protobuf = get_with(&frontend.http, "/api/v2/traces/abc", &[("accept", "application/protobuf")]).await;
    assert_eq!(protobuf.headers["content-type"], "application/protobuf");
    assert!(TraceByIdResponse::decode(protobuf.body).unwrap().trace.is_some());
}

/// Parts from everywhere are one trace.
///
/// Source: docs/facts/clients.md, "Messages must be there", "A resource without attributes is left out", "An end before its start",
/// "Ids are loose".
#[tokio::test]
async fn a_trace_is_combined_from_all_jobs() {
    let (frontend, querier) = Frontend::with(&Config::default(), |job| match job.work.as_ref().unwrap() {
        Work::FindRecent(_) => Outcome::Result(querier::part(&[1, 2])),
        _ => Outcome::Result(querier::part(&[2, 3])),
    })
    .await;
    let reply = get(&frontend.http, "/api/v2/traces/0Ff?start=10&end=20").await.json();
    let spans = &reply["trace"]["resourceSpans"];
    let names: Vec<&str> = spans
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|r| r["scopeSpans"][0]["spans"].as_array().unwrap())
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["span 1", "span 2", "span 3"]);
    assert_eq!(spans[0]["resource"], json!({}));
    assert_eq!(spans[0]["scopeSpans"][0]["spans"][0]["status"], json!({}));
    assert_eq!(spans[0]["scopeSpans"][0]["spans"][0]["endTimeUnixNano"], json!("10"));
    assert!(get(&frontend.http, "/api/traces/ff").await.json()["batches"].is_array());

    let protobuf = get_with(&frontend.http, "/api/v2/traces/ff", &[("accept", "application/protobuf")]).await;
    let trace = TraceByIdResponse::decode(protobuf.body).unwrap().trace.unwrap();
    assert!(trace.resource_spans[0].resource.as_ref().unwrap().attributes.is_empty(), "JSON says the same as protobuf");

    let jobs = querier.jobs.lock();
    let Some(Work::FindRecent(recent)) = &jobs[0].work else { panic!("{:?}", jobs[0]) };
    assert_eq!(recent.trace_id[14..], [0, 0xff]);
    let Some(Work::FindInBlocks(blocks)) = &jobs[1].work else { panic!("{:?}", jobs[1]) };
    assert_eq!((blocks.start, blocks.end, &blocks.last_block[..]), (10, 20, &[0xff; 16][..]));
}

#[tokio::test]
async fn a_trace_above_the_limit_is_422_in_version_1_and_partial_in_version_2() {
    let mut config = Config::default();
    config.overrides.defaults.global.max_bytes_per_trace = 10;
    let (frontend, _querier) = Frontend::with(&config, |_| Outcome::Result(querier::part(&[1, 2]))).await;
    let v1 = get(&frontend.http, "/api/traces/1").await;
    assert_eq!((v1.status, v1.text()), (422, "trace exceeds max size (max bytes: 10)"));
    let v2 = get(&frontend.http, "/api/v2/traces/1").await.json();
    assert_eq!((&v2["status"], &v2["message"]), (&json!("PARTIAL"), &json!("trace exceeds max size (max bytes: 10)")));
    assert!(v2["trace"]["resourceSpans"].is_array());
}

#[tokio::test]
async fn a_trace_that_is_not_found_may_be_in_what_could_not_be_looked_at() {
    let (frontend, _querier) = Frontend::with(&Config::default(), |job| match job.work.as_ref().unwrap() {
        Work::FindInBlocks(_) => Outcome::Incomplete(querier::part(&[]), "block 1 is broken"),
        _ => nothing(job),
    })
    .await;
    let trace = get(&frontend.http, "/api/traces/1").await;
    assert_eq!((trace.status, &trace.headers["x-vivace-warnings"]), (404, &"block 1 is broken".parse().unwrap()));
}

#[tokio::test]
async fn what_could_not_be_looked_at_is_said() {
    let (frontend, _querier) = Frontend::with(&Config::default(), |job| match job.work.as_ref().unwrap() {
        Work::FindRecent(_) => Outcome::Result(querier::part(&[1])),
        Work::FindInBlocks(_) => Outcome::Incomplete(querier::part(&[]), "block 1 is broken"),
        _ => match nothing(job) {
            Outcome::Result(outcome) => Outcome::Incomplete(outcome, "block 2 is broken"),
            other => other,
        },
    })
    .await;
    for path in ["/api/traces/1", "/api/v2/traces/1"] {
        assert_eq!(get(&frontend.http, path).await.headers["x-vivace-warnings"], "block 1 is broken", "{path}");
    }
    let trace = get(&frontend.http, "/api/v2/traces/1").await.json();
    assert_eq!((&trace["status"], &trace["message"]), (&json!("PARTIAL"), &json!("block 1 is broken")));
    let search = get(&frontend.http, "/api/search?q=%7B%7D").await;
    assert_eq!(search.headers["x-vivace-warnings"], "block 2 is broken");
    assert_eq!(search.json()["traces"], json!([]), "the body has no place for it");
}

#[tokio::test]
async fn a_search_asks_ingesters_and_blocks_newest_first_and_merges() {
    let (frontend, querier) = Frontend::with(&Config::default(), |job| match job.work.as_ref().unwrap() {
        Work::SearchRecent(_) => querier::found(&[("1f", 30, ""), ("2", 40, "cart")]),
        _ => querier::found(&[("1f", 20, "shop")]),
    })
    .await;
    frontend.add_blocks("single-tenant", [block(1, 300, 100, 1), block(2, 100, 300 << 20, 3), block(3, 90_000, 5, 1)]);
    let reply = get(&frontend.http, "/api/search?q=%7B%20name%20%3D%20%22x%22%20%7D&limit=7&spss=2").await.json();
    let traces = json!([
        {"traceID": "2", "rootServiceName": "cart", "startTimeUnixNano": "40"},
        {"traceID": "1f", "rootServiceName": "shop", "startTimeUnixNano": "20"},
    ]);
    assert_eq!(reply["traces"], traces);
    let bytes = (100 + (300u64 << 20)).to_string();
    assert_eq!(reply["metrics"], json!({"totalBlocks": 2, "completedJobs": 5, "totalJobs": 5, "totalBlockBytes": bytes}));

    let jobs = querier.jobs.lock();
    let Some(Work::SearchRecent(request)) = &jobs[0].work else { panic!("{:?}", jobs[0]) };
    assert_eq!((request.query.as_str(), request.limit, request.spans_per_span_set), (r#"{ name = "x" }"#, 7, 2));
    assert_eq!(request.end - request.start, 901, "15 minutes, rounded outwards");
    let parts: Vec<(u8, u32, u32)> = jobs[1..5].iter().map(block_part).collect();
    assert_eq!(parts, [(2, 0, 1), (2, 1, 1), (2, 2, 0), (1, 0, 0)]);
    let Some(Work::SearchTraces(whole)) = &jobs[5].work else { panic!("{:?}", jobs[5]) };
    assert_eq!((whole.trace_ids.len(), whole.only_split), (32, true), "what parts have found is looked at as a whole");
}

#[tokio::test]
async fn traces_in_several_places_are_judged_once_by_jobs_of_their_own() {
    let of_jobs = |ids: &[u8], found: &[(&str, u64, &str)]| match querier::found(found) {
        querier::Outcome::Result(outcome) => querier::Outcome::Split(outcome, ids.to_vec()),
        other => other,
    };
    let (frontend, querier) = Frontend::with(&Config::default(), move |job| match job.work.as_ref().unwrap() {
        Work::SearchRecentTraces(_) => of_jobs(&[5, 6], &[("1f", 30, "shop")]),
        Work::SearchTraces(_) => querier::found(&[("5", 20, "shop")]),
        _ => of_jobs(&[6, 7], &[]),
    })
    .await;
    frontend.add_blocks("single-tenant", [block(1, 300, 100, 1), block(2, 100, 300, 1), block(3, 90_000, 5, 1)]);
    let reply = get(&frontend.http, "/api/search?q=%7B%7D%20%3E%3E%20%7B%7D").await.json();
    let ids: Vec<&str> = reply["traces"].as_array().unwrap().iter().map(|trace| trace["traceID"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1f", "5"]);
    assert_eq!((&reply["metrics"]["totalJobs"], &reply["metrics"]["completedJobs"]), (&json!(4), &json!(4)));

    let jobs = querier.jobs.lock();
    let ids = |bytes: &[u8]| bytes.chunks(16).map(|id| id[0]).collect::<Vec<u8>>();
    let Some(Work::SearchRecentTraces(recent)) = &jobs[0].work else { panic!("{:?}", jobs[0]) };
    let places = recent.places.as_ref().unwrap();
    assert_eq!((ids(&places.blocks), ids(&places.known_blocks), places.ingesters), (vec![1, 2], vec![1, 2, 3], true));
    let Some(Work::SearchBlock(search)) = &jobs[1].work else { panic!("{:?}", jobs[1]) };
    assert_eq!(ids(&search.places.as_ref().unwrap().blocks), [1], "what is left beside block 2");
    let Some(Work::SearchTraces(split)) = &jobs[3].work else { panic!("{:?}", jobs[3]) };
    let places = split.places.as_ref().unwrap();
    assert_eq!((ids(&split.trace_ids), ids(&places.blocks), places.ingesters), (vec![5, 6, 7], vec![1, 2], true));
}

fn block_part(job: &Job) -> (u8, u32, u32) {
    let Some(Work::SearchBlock(search)) = &job.work else { panic!("{job:?}") };
    let part = search.part.as_ref().unwrap();
    let meta = vivace_block::BlockMeta::from_json(&part.meta_json, "job").unwrap();
    (meta.block_id.0[0], part.first_row_group, part.row_groups)
}

#[tokio::test]
async fn wrong_parameters_are_named_in_plain_text() {
    let frontend = Frontend::start(&Config::default()).await;
    let cases = [
        ("/api/search?q=%7B", "invalid TraceQL query: parse error at line 1, col 2"),
        ("/api/search?q=%7B%7D&limit=many", "invalid limit: strconv.Atoi: parsing \"many\": invalid syntax"),
        ("/api/search?limit=0", "invalid limit: must be a positive number"),
        ("/api/search?spss=101", "spans per span set exceeds 100. received 101"),
        ("/api/search?spss=x", "invalid spss: strconv.Atoi: parsing \"x\": invalid syntax"),
        ("/api/search?start=1&end=1700000000", "range specified by start and end exceeds 168h0m0s. received start=1 end=1700000000"),
        ("/api/search?start=20&end=10", "http parameter start must be before end. received start=20 end=10"),
        ("/api/search?tags=a%3Db&q=%7B%7D", "invalid request: can't specify tags and q in the same query"),
        ("/api/search?tags=a%3D%22b", "invalid tags: "),
        ("/api/search?tags=a%3Db&minDuration=soon", "invalid minDuration: time: invalid duration \"soon\""),
        ("/api/search?minDuration=10s&maxDuration=5s", "invalid maxDuration: must be greater than minDuration"),
        ("/api/v2/search/tags?scope=nowhere", "invalid scope: nowhere"),
        ("/api/search/tags?scope=all", "invalid scope: all"),
        ("/api/v2/search/tag/foo/values", "please provide a valid tagName: failed to parse identifier foo: "),
        ("/api/traces/xyz", "trace IDs can only contain hex characters: invalid character 'x' at position 1"),
        ("/api/v2/traces/0123456789abcdef0123456789abcdef01", "trace IDs can't be larger than 128 bits"),
        ("/api/traces/1?start=20&end=10", "http parameter start must be before end. received start=20 end=10"),
        ("/api/traces/1?mode=external", "invalid mode \"external\""),
        ("/api/metrics/query_range?q=%7B%7D", "not a metrics query"),
    ];
    for (path, text) in cases {
        let reply = get(&frontend.http, path).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        assert!(reply.text().starts_with(text), "{path}: {}", reply.text());
        assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    }
    assert_eq!(get(&frontend.http, "/api/traces/").await.status, 404);
    assert_eq!(get(&frontend.http, "/api/echo").await.text(), "echo\n");
}

fn tags(job: &Job) -> Outcome {
    match job.work.as_ref().unwrap() {
        Work::TagsRecent(_) => {
            let scope = |name: &str, tags: &[&str]| SearchTagsV2Scope {
                name: name.to_owned(),
                tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            };
            let scopes = vec![scope("span", &["http.url", "a"]), scope("resource", &["service.name", "a"])];
            Outcome::Result(job_result::Outcome::Tags(SearchTagsV2Response { scopes, metrics: None }))
        }
        Work::TagValuesRecent(request) => {
            let value = |kind: &str, value: &str| TagValue { r#type: kind.to_owned(), value: value.to_owned() };
            let tag_values = vec![value("string", &request.tag_name), value("int", "7")];
            Outcome::Result(job_result::Outcome::TagValues(SearchTagValuesV2Response { tag_values, metrics: None }))
        }
        _ => nothing(job),
    }
}

#[tokio::test]
async fn tag_names_come_flat_or_by_scope() {
    let (frontend, querier) = Frontend::with(&Config::default(), tags).await;
    let v1 = get(&frontend.http, "/api/search/tags").await.json();
    assert_eq!(v1, json!({"tagNames": ["a", "http.url", "service.name"], "metrics": {}}));
    let v2 = get(&frontend.http, "/api/v2/search/tags").await.json();
    let names: Vec<&str> = v2["scopes"].as_array().unwrap().iter().map(|scope| scope["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["resource", "span", "intrinsic"]);
    assert_eq!(v2["scopes"][2]["tags"].as_array().unwrap().len(), 25);
    querier.jobs.lock().clear();
    assert_eq!(get(&frontend.http, "/api/search/tags?scope=intrinsic").await.json()["tagNames"].as_array().unwrap().len(), 25);
    assert!(querier.jobs.lock().is_empty(), "intrinsics need no data");
}

/// Source: docs/facts/clients.md, "Tags are sent half typed, and with slashes".
#[tokio::test]
async fn tag_values_take_any_name_in_the_path() {
    let (frontend, querier) = Frontend::with(&Config::default(), tags).await;
    let v2 = get(&frontend.http, "/api/v2/search/tag/span.k8s.io/name/values?tag=span.k8s.io/name").await.json();
    let values = json!([{"type": "int", "value": "7"}, {"type": "string", "value": "span.k8s.io/name"}]);
    assert_eq!(v2, json!({"tagValues": values, "metrics": {}}));
    let v1 = get(&frontend.http, "/api/search/tag/service.name/values").await.json();
    assert_eq!(v1, json!({"tagValues": ["7", "resource.service.name"], "metrics": {}}));
    querier.jobs.lock().clear();
    for name in ["/span.", "/.", "", "/duration", "/trace:id"] {
        let reply = get(&frontend.http, &format!("/api/v2/search/tag{name}/values").replace("/./", "/%2E/")).await;
        let reply = if reply.status == 301 { get(&frontend.http, reply.headers["location"].to_str().unwrap()).await } else { reply };
        assert_eq!(reply.json(), json!({"tagValues": [], "metrics": {}}), "{name}");
    }
    let status = get(&frontend.http, "/api/v2/search/tag/span:status/values").await.json();
    assert_eq!(status["tagValues"].as_array().unwrap().len(), 3);
    assert_eq!(status["tagValues"][0]["type"], json!("keyword"));
    let pinned = get(&frontend.http, "/api/v2/search/tag/span.a/values?q=%7Bspan.a%3D%22x%22%7D").await.json();
    assert_eq!(pinned["tagValues"], json!([{"type": "string", "value": "x"}]));
    assert!(querier.jobs.lock().is_empty(), "none of these needs data");
    // A filter that is still being typed is no error.
    assert_eq!(get(&frontend.http, "/api/v2/search/tag/span.a/values?q=%7B%20resource.b%20%3D%20%7D").await.status, 200);
}

#[tokio::test]
async fn tenants_are_asked_for_and_several_are_merged() {
    let mut config = Config::default();
    config.multitenancy_enabled = true;
    let (frontend, querier) = Frontend::with(&config, |job| querier::found(&[(job.tenant.as_str(), 1, "x")])).await;
    let missing = get(&frontend.http, "/api/search").await;
    assert_eq!((missing.status, missing.text()), (401, "no org id\n"));
    assert_eq!(get_with(&frontend.http, "/api/search", &[("x-scope-orgid", "a/b")]).await.status, 400);
    assert_eq!(get(&frontend.http, "/api/echo").await.status, 200);
    let both = get_with(&frontend.http, "/api/search?q=%7B%7D", &[("x-scope-orgid", "b|a")]).await.json();
    assert_eq!(both["traces"].as_array().unwrap().len(), 2);
    assert_eq!(both["metrics"]["totalJobs"], json!(2));
    let is_whole = |job: &&Job| matches!(job.work, Some(Work::SearchTraces(_)));
    let jobs = querier.jobs.lock().clone();
    assert_eq!((jobs.len(), jobs.iter().filter(is_whole).count()), (4, 2));

    config.query_frontend.multi_tenant_queries_enabled = false;
    let frontend = Frontend::start(&config).await;
    assert_eq!(get_with(&frontend.http, "/api/search", &[("x-scope-orgid", "b|a")]).await.status, 400);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let (frontend, _querier) = Frontend::with(&Config::default(), |_| Outcome::Result(querier::part(&(0..100).collect::<Vec<u8>>()))).await;
    let plain = get(&frontend.http, "/api/v2/traces/1").await;
    assert_eq!((plain.headers.get("content-encoding"), &plain.headers["vary"]), (None, &"Accept-Encoding".parse().unwrap()));
    let packed = get_with(&frontend.http, "/api/v2/traces/1", &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() < plain.body.len() / 2);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut text).unwrap();
    assert_eq!(text, plain.text());
    let small = get_with(&frontend.http, "/api/search?q=%7B%7B", &[("accept-encoding", "gzip")]).await;
    assert_eq!(small.headers.get("content-encoding"), None);
    for (asked, coding) in [("GZIP", Some("gzip")), ("*", Some("gzip")), ("gzip;q=0", None), ("br, gzip;q=0.5", Some("gzip"))] {
        let reply = get_with(&frontend.http, "/api/v2/traces/1", &[("accept-encoding", asked)]).await;
        assert_eq!(reply.headers.get("content-encoding").map(|value| value.to_str().unwrap()), coding, "{asked}");
    }
    // What is not coded is refused, however small the answer is.
    let small = get_with(&frontend.http, "/api/v2/search/tags?scope=intrinsic", &[("accept-encoding", "gzip, identity;q=0")]).await;
    assert_eq!((small.status, &small.headers["content-encoding"]), (200, &"gzip".parse().unwrap()));
}

#[tokio::test]
async fn a_process_without_queriers_is_not_ready() {
    let frontend = Frontend::start(&Config::default()).await;
    let reply = get(&frontend.http, "/ready").await;
    assert_eq!((reply.status, reply.text()), (503, "query-frontend not ready: no querier is connected\n"));
    let _querier = Querier::connect(&frontend.grpc, "one", 1, std::sync::Arc::new(nothing)).await;
    assert_eq!(get(&frontend.http, "/ready").await.status, 200);
}

#[tokio::test]
async fn requests_with_many_headers_are_taken() {
    let (frontend, _querier) = Frontend::idle().await;
    let names: Vec<String> = (0..300).map(|n| format!("x-mesh-{n}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "value")).collect();
    assert_eq!(get_with(&frontend.http, "/api/echo", &headers[..250]).await.status, 200);
    assert_eq!(get_with(&frontend.http, "/api/echo", &headers).await.status, 431);
}

#[tokio::test]
async fn values_of_any_name_are_asked_for_in_the_first_version() {
    let (frontend, querier) = Frontend::idle().await;
    let names = [
        ("1abc", "1abc"),
        ("a%20b", "a b"),
        ("a%22b%5Cc", "a\"b\\c"),
        ("%7B%7D%3D", "{}="),
        ("a%0Ab", "a\nb"),
        ("%C3%BC'", "ü'"),
        ("a/b", "a/b"),
    ];
    for (escaped, name) in names {
        let reply = get(&frontend.http, &format!("/api/search/tag/{escaped}/values")).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let jobs = querier.jobs.lock();
        let Some(Work::TagValuesRecent(request)) = &jobs.last().unwrap().work else { panic!("{jobs:?}") };
        let asked = vivace_traceql::parse_attribute(&request.tag_name).unwrap();
        assert_eq!(asked, vivace_traceql::Attribute::Named { scope: vivace_traceql::Scope::Unscoped, key: name.into() });
    }
}

#[tokio::test]
async fn times_of_another_unit_are_named_everywhere() {
    let (frontend, querier) = Frontend::idle().await;
    for path in [
        "/api/search?q=%7B%7D&",
        "/api/search/tags?",
        "/api/v2/search/tags?",
        "/api/search/tag/a/values?",
        "/api/v2/search/tag/.a/values?",
        "/api/metrics/query_range?q=%7B%7D%7Crate()&",
        "/api/metrics/query?q=%7B%7D%7Crate()&",
        "/api/traces/1?",
        "/api/v2/traces/1?",
    ] {
        for (start, end, unit) in
            [(1_700_000_000_000_u64, 1_700_000_100_000_u64, "milliseconds"), (1_700_000_000_000_000, 1_700_000_100_000_000, "microseconds")]
        {
            let reply = get(&frontend.http, &format!("{path}start={start}&end={end}")).await;
            assert_eq!(reply.status, 400, "{path}");
            assert!(reply.text().starts_with(&format!("invalid start: {start} seems to be in {unit}; ")), "{}", reply.text());
        }
    }
    assert!(querier.jobs.lock().is_empty());
}

#[tokio::test]
async fn errors_quote_little_of_what_was_sent() {
    let (frontend, _querier) = Frontend::idle().await;
    let long = "x".repeat(40_000);
    for path in [
        format!("/api/search?q=%7Bname=~%60({long}%60%7D"),
        format!("/api/v2/search/tag/{long}/values"),
        format!("/api/search?start={long}"),
    ] {
        let reply = get(&frontend.http, &path).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text().chars().count() <= 1001, "{}", reply.text().len());
    }
}
