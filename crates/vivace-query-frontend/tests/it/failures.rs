//! What goes wrong between the queue and the queriers.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use vivace_config::Config;
use vivace_proto::otlp::{AnyValue, ArrayValue, KeyValue, ResourceSpans, ScopeSpans, Span, any_value};
use vivace_proto::tempopb::{Trace, TraceByIdResponse};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{Failure, Job, SearchRecentTraces, job_result};
use vivace_storage::Blocklist;

use crate::client::{Reply, get};
use crate::querier::{self, Outcome, Querier, nothing};
use crate::{Frontend, block};

/// Starts a request that is awaited later, or never.
fn request(frontend: &Frontend, path: &'static str) -> JoinSet<Reply> {
    let (mut set, base) = (JoinSet::new(), frontend.http.clone());
    set.spawn(async move { get(&base, path).await });
    set
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_stored_and_not_known_yet_is_said_to_be_missing() {
    let config = Config::default();
    let unpolled = Blocklist::new(Duration::from_secs(300), vivace_server::clock::unix_nanos);
    let frontend = Frontend::over(&config, unpolled).await;
    let _querier = Querier::connect(&frontend.grpc, "one", 8, Arc::new(nothing)).await;
    let query = "q=%7B%7D%7Crate()&start=1700000000&end=1700000060&step=10s";
    for path in
        ["/api/search?q=%7B%7D", "/api/v2/search/tags", "/api/v2/search/tag/span.a/values", &format!("/api/metrics/query_range?{query}")]
    {
        let reply = get(&frontend.http, path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let warning = reply.headers["x-vivace-warnings"].to_str().expect("text");
        assert_eq!(warning, "the blocks of tenant single-tenant are not known: the bucket has not been listed yet", "{path}");
    }
    // Once its own blocks are listed, a tenant is known, whatever of the others.
    frontend.add_blocks("single-tenant", [block(1, 0, 1, 1)]);
    assert!(!get(&frontend.http, "/api/search?q=%7B%7D").await.headers.contains_key("x-vivace-warnings"));
}

#[tokio::test]
async fn a_failed_job_is_tried_on_another_querier() {
    let frontend = Frontend::start(&Config::default()).await;
    let broken = Querier::connect(&frontend.grpc, "broken", 1, Arc::new(|_| querier::failure("disk", true))).await;
    let search = request(&frontend, "/api/search?q=%7B%7D");
    eventually("the broken querier has it", || !broken.jobs.lock().is_empty()).await;
    let works = Querier::connect(&frontend.grpc, "works", 1, Arc::new(|_| querier::found(&[("1", 1, "x")]))).await;
    // The first search may have ended in failure before the second querier came; this one finds both.
    drop(search);
    for _ in 0..10 {
        assert_eq!(get(&frontend.http, "/api/search?q=%7B%7D").await.status, 200);
    }
    assert!(works.jobs.lock().len() >= 10);
}

#[tokio::test]
async fn a_querier_that_goes_away_loses_no_query() {
    let frontend = Frontend::start(&Config::default()).await;
    let _leaves = Querier::connect(&frontend.grpc, "leaves", 1, Arc::new(|_| Outcome::Break)).await;
    let mut search = request(&frontend, "/api/search?q=%7B%7D");
    let _stays = Querier::connect(&frontend.grpc, "stays", 1, Arc::new(|_| querier::found(&[("1", 1, "x")]))).await;
    let reply = tokio::time::timeout(Duration::from_secs(20), search.join_next()).await.expect("an answer").unwrap().unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_querier_that_leaves_finishes_its_job_and_gets_no_other() {
    let frontend = Frontend::start(&Config::default()).await;
    let (let_go, gate) = std::sync::mpsc::channel::<()>();
    let gate = parking_lot::Mutex::new(gate);
    let answer = move |_: &Job| {
        let _ = gate.lock().recv_timeout(Duration::from_secs(20));
        querier::found(&[("1", 1, "x")])
    };
    let leaves = Querier::connect(&frontend.grpc, "leaves", 1, Arc::new(answer)).await;
    let mut search = request(&frontend, "/api/search?q=%7B%7D");
    eventually("it has a job", || leaves.jobs.lock().len() == 1).await;
    leaves.leave().await;
    let _stays = Querier::connect(&frontend.grpc, "stays", 8, Arc::new(nothing)).await;
    for _ in 0..5 {
        assert_eq!(get(&frontend.http, "/api/search?q=%7B%7D").await.status, 200);
    }
    let_go.send(()).expect("it waits");
    let reply = tokio::time::timeout(Duration::from_secs(20), search.join_next()).await.expect("an answer").unwrap().unwrap();
    assert!(reply.status == 200 && reply.text().contains("traceID"), "{}", reply.text());
    assert_eq!(leaves.jobs.lock().len(), 1);
}

#[tokio::test]
async fn a_job_that_fails_for_good_fails_the_query_with_its_text() {
    let (frontend, querier) = Frontend::with(&Config::default(), |_| querier::failure("column is damaged", false)).await;
    let reply = get(&frontend.http, "/api/search?q=%7B%7D").await;
    assert_eq!((reply.status, reply.text()), (500, "column is damaged"));
    assert_eq!(querier.jobs.lock().len(), 1);
}

#[tokio::test]
async fn tries_are_bounded() {
    let (frontend, querier) = Frontend::with(&Config::default(), |_| querier::failure("busy", true)).await;
    assert_eq!(get(&frontend.http, "/api/search?q=%7B%7D").await.status, 500);
    assert_eq!(querier.jobs.lock().len(), 2, "query_frontend.max_retries counts all tries");
}

#[tokio::test]
async fn what_a_job_says_decides_what_the_client_is_told() {
    // gRPC code, whether another querier may do better; status, tries, and whether there is a hint when to come back.
    for (code, retryable, holds_much, status, tries, hint) in [
        (3, false, false, 400, 1, false),
        (8, false, false, 422, 1, false),
        (8, true, false, 429, 2, true),
        (8, true, true, 422, 2, false),  // no other query holds the memory that is missing
        (4, true, false, 504, 1, false), // there is no other querier
        (14, true, false, 503, 2, true),
        (13, true, false, 500, 2, false),
        (2, false, false, 500, 1, false),
    ] {
        let failure = Failure { code, message: "why".to_owned(), retryable, holds_much };
        let fails = move |_: &_| Outcome::Result(job_result::Outcome::Failure(failure.clone()));
        let (frontend, querier) = Frontend::with(&Config::default(), fails).await;
        let reply = get(&frontend.http, "/api/search?q=%7B%7D").await;
        assert_eq!((reply.status, reply.headers.contains_key("retry-after")), (status, hint), "{code} {retryable}");
        assert!(reply.text().starts_with("why"), "{}", reply.text());
        assert_eq!(querier.jobs.lock().len(), tries, "{code} {retryable}");
    }
}

#[tokio::test]
async fn queriers_are_told_how_large_a_result_may_be() {
    let (frontend, querier) = Frontend::idle().await;
    assert_eq!(get(&frontend.http, "/api/search?q=%7B%7D").await.status, 200);
    let max = querier.jobs.lock()[0].max_result_bytes;
    assert!((15 << 20..16 << 20).contains(&max), "{max}");
}

/// A querier that takes so many jobs at a time, as long as each of them takes.
async fn slow_querier(frontend: &Frontend, slots: u32, job: Duration) -> Querier {
    let answer = move |job_: &_| {
        std::thread::sleep(job);
        nothing(job_)
    };
    Querier::connect(&frontend.grpc, "slow", slots, Arc::new(answer)).await
}

/// Statuses of queries that come at one time, and how long all of them took.
async fn at_once(frontend: &Frontend, count: usize) -> (Vec<Reply>, Duration) {
    let begun = std::time::Instant::now();
    let mut queries = JoinSet::new();
    for n in 0..count {
        let base = frontend.http.clone();
        let path = match n % 4 {
            0 => format!("/api/search?q=%7Bname%3D%22{n}%22%7D"),
            1 => "/api/metrics/query_range?q=%7B%7D%7Crate()".to_owned(),
            2 => "/api/v2/search/tag/span.a/values".to_owned(),
            _ => "/api/v2/search/tags".to_owned(),
        };
        queries.spawn(async move { get(&base, &path).await });
    }
    (queries.join_all().await, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_queries_at_once_are_answered_in_line() {
    let frontend = Frontend::start(&Config::default()).await;
    let querier = slow_querier(&frontend, 4, Duration::from_millis(10)).await;
    let (replies, _) = at_once(&frontend, 200).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{:?}", replies.iter().map(|reply| reply.status).collect::<Vec<_>>());
    assert_eq!(querier.jobs.lock().len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_begun_in_time_is_refused_early_with_a_hint_and_what_is_begun_is_finished() {
    let mut config = Config::default();
    config.query_frontend.max_wait = Duration::from_secs(1);
    let frontend = Frontend::start(&config).await;
    let querier = slow_querier(&frontend, 2, Duration::from_millis(100)).await;
    let (replies, took) = at_once(&frontend, 200).await;
    let (answered, refused): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 200);
    for reply in &refused {
        assert_eq!(reply.status, 429, "{}", reply.text());
        assert!(reply.text().starts_with("too many queries: "), "{}", reply.text());
        assert!((1..=60).contains(&reply.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap()));
    }
    // Two are begun at once and more as they end; on an idle machine twenty a second.
    assert!(answered.len() >= 2 && !refused.is_empty(), "{} in {took:?}", answered.len());
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(querier.jobs.lock().len(), answered.len(), "nothing was begun and then refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_has_begun_is_served_before_those_that_came_later() {
    let frontend = Frontend::start(&Config::default()).await;
    frontend.add_blocks("single-tenant", (0..10).map(|id| block(id, 60, 1, 1)));
    let querier = slow_querier(&frontend, 4, Duration::from_millis(5)).await;
    let mut queries = JoinSet::new();
    for n in 0..40 {
        let base = frontend.http.clone();
        queries.spawn(async move { get(&base, &format!("/api/search?q=%7Bname%3D%22{n}%22%7D")).await });
    }
    assert!(queries.join_all().await.iter().all(|reply| reply.status == 200));
    let jobs = querier.jobs.lock();
    let query = |job: &vivace_proto::vivace::v1::Job| match job.work.as_ref().unwrap() {
        Work::SearchRecent(request) => request.query.clone(),
        Work::SearchRecentTraces(job) => job.request.as_ref().unwrap().query.clone(),
        Work::SearchBlock(job) => job.request.as_ref().unwrap().query.clone(),
        other => panic!("{other:?}"),
    };
    let mut spread: std::collections::HashMap<String, (usize, usize)> = std::collections::HashMap::new();
    for (at, job) in jobs.iter().enumerate() {
        spread.entry(query(job)).or_insert((at, at)).1 = at;
    }
    assert_eq!(spread.len(), 40);
    for at in 0..jobs.len() {
        let under_way = spread.values().filter(|(first, last)| (*first..=*last).contains(&at)).count();
        assert!(under_way <= 6, "{under_way} queries are under way at once");
    }
}

#[tokio::test]
async fn a_complete_answer_cancels_the_jobs_that_still_run() {
    let (frontend, querier) = Frontend::with(&Config::default(), |job| match job.work.as_ref().unwrap() {
        Work::SearchRecent(_) => querier::found(&[("1", 1, "x")]),
        Work::SearchTraces(_) => querier::nothing(job),
        _ => Outcome::Hang,
    })
    .await;
    frontend.add_blocks("single-tenant", (0..20).map(|id| block(id, 60, 1, 1)));
    let reply = get(&frontend.http, "/api/search?q=%7B%7D&limit=1").await.json();
    assert_eq!(reply["traces"].as_array().unwrap().len(), 1);
    eventually("running jobs are cancelled", || querier.jobs.lock().len() == querier.cancelled.lock().len() + 2).await;
    assert!(querier.jobs.lock().len() <= 10, "no more than its slots were given out");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_query() {
    let (frontend, querier) = Frontend::with(&Config::default(), |_| Outcome::Hang).await;
    let search = request(&frontend, "/api/search?q=%7B%7D");
    eventually("the job runs", || querier.jobs.lock().len() == 1).await;
    drop(search);
    eventually("the job is cancelled", || querier.cancelled.lock().len() == 1).await;
}

/// Everything that works for a query ends within a second when whoever asked has gone, for every kind of query.
#[tokio::test]
async fn a_client_that_leaves_ends_every_kind_of_query_over_http() {
    for path in [
        "/api/search?q=%7B%7D",
        "/api/search?tags=a%3Db",
        "/api/search?q=%7B%7D%7Ccount()%3E1",
        "/api/search/tags",
        "/api/v2/search/tags",
        "/api/search/tag/a/values",
        "/api/v2/search/tag/span.a/values",
        "/api/metrics/query_range?q=%7B%7D%7Crate()",
        "/api/metrics/query?q=%7B%7D%7Crate()",
        "/api/traces/1",
        "/api/v2/traces/1",
    ] {
        let (frontend, querier) = Frontend::with(&Config::default(), |_| Outcome::Hang).await;
        let query = request(&frontend, path);
        eventually("a job runs", || !querier.jobs.lock().is_empty()).await;
        drop(query);
        all_cancelled(path, &querier).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_every_kind_of_query_over_grpc() {
    use vivace_proto::tempopb::streaming_querier_client::StreamingQuerierClient;
    use vivace_proto::tempopb::{QueryInstantRequest, QueryRangeRequest, SearchRequest, SearchTagValuesRequest, SearchTagsRequest};
    let end = vivace_server::clock::unix_nanos();
    let (start, query) = (end - 3_600_000_000_000, "{} | rate()".to_owned());
    for kind in 0..7 {
        let (frontend, querier) = Frontend::with(&Config::default(), |_| Outcome::Hang).await;
        let mut client = StreamingQuerierClient::connect(frontend.grpc.clone()).await.unwrap();
        let values = SearchTagValuesRequest { tag_name: ".a".to_owned(), ..Default::default() };
        let range = QueryRangeRequest { query: query.clone(), start, end, step: 60_000_000_000, ..Default::default() };
        let stream: Box<dyn std::any::Any> = match kind {
            0 => Box::new(client.search(SearchRequest { query: "{}".to_owned(), ..Default::default() }).await.unwrap()),
            1 => Box::new(client.search_tags(SearchTagsRequest::default()).await.unwrap()),
            2 => Box::new(client.search_tags_v2(SearchTagsRequest::default()).await.unwrap()),
            3 => Box::new(client.search_tag_values(values).await.unwrap()),
            4 => Box::new(client.search_tag_values_v2(values).await.unwrap()),
            5 => Box::new(client.metrics_query_range(range).await.unwrap()),
            _ => Box::new(client.metrics_query_instant(QueryInstantRequest { query: query.clone(), start, end }).await.unwrap()),
        };
        eventually("a job runs", || !querier.jobs.lock().is_empty()).await;
        drop(stream);
        all_cancelled(&format!("stream {kind}"), &querier).await;
    }
}

async fn all_cancelled(what: &str, querier: &Querier) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    while querier.jobs.lock().len() != querier.cancelled.lock().len() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: {} jobs, {:?}", querier.jobs.lock().len(), querier.cancelled.lock());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_queue_is_429() {
    let mut config = Config::default();
    config.query_frontend.max_outstanding_per_tenant = 1;
    let frontend = Frontend::start(&config).await; // nobody takes jobs
    let mut waiting: Vec<JoinSet<Reply>> = (0..2).map(|_| request(&frontend, "/api/search?q=%7B%7D")).collect();
    let mut refused = tokio::select! {
        reply = { let (first, rest) = waiting.split_at_mut(1); futures::future::select(Box::pin(first[0].join_next()), Box::pin(rest[0].join_next())) } => reply.factor_first().0,
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("neither is refused"),
    };
    let reply = refused.take().unwrap().unwrap();
    assert_eq!((reply.status, reply.text()), (429, "job queue full"));
}

#[tokio::test]
async fn a_query_ends_with_the_timeout() {
    let mut config = Config::default();
    config.query_frontend.api_timeout = Duration::from_millis(50);
    let (frontend, querier) = Frontend::with(&config, |_| Outcome::Hang).await;
    let reply = get(&frontend.http, "/api/search?q=%7B%7D").await;
    assert_eq!((reply.status, reply.text()), (503, "the query did not end within query_frontend.api_timeout"));
    eventually("the job is cancelled", || querier.cancelled.lock().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_shutdown_waits_for_the_queries_it_has() {
    let held = Arc::new(parking_lot::Mutex::new(true));
    let hold = held.clone();
    let (mut frontend, querier) = Frontend::with(&Config::default(), move |job| {
        while *hold.lock() {
            std::thread::sleep(Duration::from_millis(1));
        }
        nothing(job)
    })
    .await;
    let mut search = request(&frontend, "/api/search?q=%7B%7D");
    let jobs = querier.jobs.clone();
    eventually("the job runs", || jobs.lock().len() == 1).await;
    frontend.shutdown.begin();
    *held.lock() = false;
    let reply = tokio::time::timeout(Duration::from_secs(20), search.join_next()).await.expect("an answer").unwrap().unwrap();
    assert_eq!(reply.status, 200);
    tokio::time::timeout(Duration::from_secs(20), frontend.run.join_next()).await.expect("it ends").unwrap().unwrap().unwrap();
}

/// The first query hangs; memory is missing for the second one.
#[tokio::test]
async fn memory_that_others_hold_is_worth_another_try() {
    let (frontend, querier) = Frontend::with(&Config::default(), |job: &Job| match &job.work {
        Some(Work::TagsRecent(_)) => Outcome::Hang,
        _ => {
            let message = "memory".to_owned();
            Outcome::Result(job_result::Outcome::Failure(Failure { code: 8, message, retryable: true, holds_much: true }))
        }
    })
    .await;
    let _first = request(&frontend, "/api/v2/search/tags?scope=span");
    while querier.jobs.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reply = get(&frontend.http, "/api/search?q=%7B%7D").await;
    assert_eq!((reply.status, reply.text(), reply.headers.contains_key("retry-after")), (429, "memory", true));
}

#[tokio::test]
async fn a_result_that_cannot_be_read_fails_its_query_and_no_other() {
    let deep = (0..60).fold(any_value::Value::IntValue(1), |inner, _| {
        any_value::Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(inner) }] })
    });
    let span =
        Span { attributes: vec![KeyValue { key: "deep".to_owned(), value: Some(AnyValue { value: Some(deep) }) }], ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let trace = Trace { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
    let (frontend, querier) = Frontend::with(&Config::default(), move |job: &Job| match &job.work {
        Some(Work::FindRecent(_)) => {
            Outcome::Result(job_result::Outcome::Trace(TraceByIdResponse { trace: Some(trace.clone()), ..Default::default() }))
        }
        _ => querier::nothing(job),
    })
    .await;
    let reply = get(&frontend.http, "/api/v2/traces/1234").await;
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(reply.text().starts_with("the result of a job of the query cannot be read: "), "{}", reply.text());
    assert_eq!(get(&frontend.http, "/api/search?q=%7B%20kind%20%3D%20server%20%7D").await.status, 200);
    let lookups = querier.jobs.lock().iter().filter(|job| matches!(job.work, Some(Work::FindRecent(_)))).count();
    assert_eq!(lookups, 1, "no other querier could do better");
}

#[tokio::test]
async fn a_result_that_does_not_fit_ends_its_query_and_no_other() {
    // It may be received, but not be held: 9.6 MiB are for queries.
    let large = "x".repeat(5_100_000);
    let mut config = Config::default();
    config.memory.limit = vivace_config::ByteString(32 << 20);
    let (frontend, querier) = Frontend::with(&config, move |job: &Job| match &job.work {
        Some(Work::SearchRecent(request) | Work::SearchRecentTraces(SearchRecentTraces { request: Some(request), .. }))
            if request.query == "{}" =>
        {
            querier::found(&[("1", 1, &large)])
        }
        _ => querier::nothing(job),
    })
    .await;
    let reply = get(&frontend.http, "/api/search?q=%7B%7D").await;
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert!(reply.text().starts_with("out of memory for queries"), "{}", reply.text());
    assert_eq!(get(&frontend.http, "/api/search?q=%7B%20kind%20%3D%20server%20%7D").await.status, 200);
    assert_eq!(querier.cancelled.lock().len(), 0);
}
