//! What goes wrong between the queue and the queriers.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use vivace_config::Config;
use vivace_proto::vivace::v1::job::Work;

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
