use std::time::Duration;

use tonic::Code;
use vivace_proto::tempopb::{PartialStatus, SearchRequest, SearchTagsRequest, TraceByIdRequest};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_result::Outcome;
use vivace_proto::vivace::v1::{JobResult, to_querier};

use crate::{Cluster, failure, id, names, trace};

fn find(number: u64) -> Work {
    Work::FindRecent(TraceByIdRequest { trace_id: id(number), ..Default::default() })
}

fn status(result: &JobResult) -> (PartialStatus, &str) {
    match &result.outcome {
        Some(Outcome::Trace(answer)) => (answer.status(), &answer.message),
        other => panic!("expected a trace, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_ingesters_are_asked_and_their_parts_combined() {
    let mut cluster = Cluster::start(3, &[], 3).await;
    assert_eq!(cluster.frontend.hello.querier, "querier-a");
    assert_eq!(cluster.frontend.hello.concurrency, 20);
    cluster.ingesters[0].0.lock().own = vec![trace(1, 0, 2)];
    cluster.ingesters[2].0.lock().own = vec![trace(1, 1, 4)];
    let result = cluster.frontend.run(find(1)).await;
    assert_eq!(names(&result), ["span 0", "span 1", "span 2", "span 3"]);
    assert_eq!((status(&result).0, result.warnings.len()), (PartialStatus::Complete, 0));

    let search = SearchRequest { query: "{}".to_owned(), limit: 5, ..Default::default() };
    let result = cluster.frontend.run(Work::SearchRecent(search)).await;
    let Some(Outcome::Search(found)) = result.outcome else { panic!("no search result") };
    assert_eq!(found.traces.len(), 1);
    assert_eq!(found.traces[0].root_trace_name, "span 0", "known by one of them only");

    let result = cluster.frontend.run(Work::TagsRecent(SearchTagsRequest::default())).await;
    let Some(Outcome::Tags(found)) = result.outcome else { panic!("no tags") };
    assert_eq!(found.scopes[0].tags, ["service.name"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_answer_for_a_dead_primary() {
    let mut cluster = Cluster::start(3, &[1], 3).await;
    cluster.ingesters[0].0.lock().own = vec![trace(1, 0, 1)];
    cluster.ingesters[2].0.lock().held.insert("ingester-1".to_owned(), vec![trace(1, 1, 3)]);
    let result = cluster.frontend.run(find(1)).await;
    assert_eq!(names(&result), ["span 0", "span 1", "span 2"]);
    assert_eq!(status(&result).0, PartialStatus::Complete, "a quorum had every segment");
    assert_eq!(cluster.ingesters[0].0.lock().asked, [["ingester-0", "ingester-2"]], "asked once");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_answer_for_a_primary_that_fails() {
    let mut cluster = Cluster::start(3, &[], 3).await;
    cluster.ingesters[1].0.lock().fails = true;
    cluster.ingesters[2].0.lock().held.insert("ingester-1".to_owned(), vec![trace(1, 0, 3)]);
    let result = cluster.frontend.run(find(1)).await;
    assert_eq!(names(&result).len(), 3);
    assert_eq!((status(&result).0, result.warnings.len()), (PartialStatus::Complete, 0));
    let asked = cluster.ingesters[0].0.lock().asked.clone();
    let [first, again] = &asked[..] else { panic!("asked twice: {asked:?}") };
    assert_eq!(first, &["ingester-0", "ingester-1", "ingester-2"]);
    assert!(again.len() == 2 && !again.contains(&"ingester-1".to_owned()), "{again:?}");

    // Of two that are gone, each may have been the other's only follower to have a segment.
    cluster.ingesters[0].0.lock().fails = true;
    let result = cluster.frontend.run(find(1)).await;
    assert_eq!(names(&result).len(), 3);
    let (status, message) = status(&result);
    assert_eq!(status, PartialStatus::Partial);
    assert!(message.contains("ingester-1 answered Internal") && message.contains("the disk is on fire"), "{message}");
    assert_eq!(result.warnings, [message]);

    cluster.ingesters[2].0.lock().fails = true;
    let failure = failure(cluster.frontend.run(find(1)).await);
    assert_eq!((failure.code, failure.retryable), (Code::Unavailable as i32, true));
    assert!(failure.message.starts_with("no ingester answers: ingester-"), "{}", failure.message);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replicas_a_dead_ingester_makes_the_answer_partial() {
    let mut cluster = Cluster::start(2, &[0], 1).await;
    cluster.ingesters[1].0.lock().own = vec![trace(1, 0, 2)];
    let result = cluster.frontend.run(find(1)).await;
    assert_eq!(names(&result).len(), 2);
    let (status, message) = status(&result);
    assert_eq!((status, message), (PartialStatus::Partial, "recent spans may be missing: ingester-0 has not been heard of lately"));
    cluster.stop().await;

    let mut cluster = Cluster::start(1, &[0], 1).await;
    let failure = failure(cluster.frontend.run(find(1)).await);
    assert_eq!((failure.code, failure.retryable), (Code::Unavailable as i32, true));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_not_tried_again() {
    let mut cluster = Cluster::start(1, &[], 1).await;
    let search = SearchRequest { query: "{".to_owned(), ..Default::default() };
    let failed = failure(cluster.frontend.run(Work::SearchRecent(search)).await);
    assert_eq!((failed.code, failed.retryable, failed.message.as_str()), (Code::InvalidArgument as i32, false, "a brace is missing"));
    let failed = failure(cluster.frontend.run(Work::FindRecent(TraceByIdRequest::default())).await);
    assert_eq!((failed.code, failed.retryable), (Code::InvalidArgument as i32, false));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_when_it_is_cancelled_and_when_its_time_is_up() {
    let mut cluster = Cluster::start_with(1, &[], |config| {
        config.querier.search.query_timeout = Duration::from_millis(200);
    })
    .await;
    cluster.ingesters[0].0.lock().hangs = true;
    let cancelled = cluster.frontend.give(find(1)).await;
    cluster.frontend.send(to_querier::Message::Cancel(cancelled)).await;
    let failed = cluster.frontend.run(Work::TagsRecent(SearchTagsRequest::default())).await;
    let failed = failure(failed);
    assert_eq!((failed.code, failed.retryable), (Code::DeadlineExceeded as i32, true));
    assert!(failed.message.contains("querier.search.query_timeout (200ms)"), "{}", failed.message);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_sent_is_a_failure_that_says_so() {
    let mut cluster = Cluster::start_with(1, &[], |config| {
        config.querier.frontend_worker.grpc_client_config.max_send_msg_size = 500;
    })
    .await;
    cluster.ingesters[0].0.lock().own = vec![trace(1, 0, 50)];
    let failed = failure(cluster.frontend.run(find(1)).await);
    assert_eq!((failed.code, failed.retryable), (Code::ResourceExhausted as i32, false));
    assert!(failed.message.contains("querier.frontend_worker.grpc_client_config.max_send_msg_size"), "{}", failed.message);
    cluster.stop().await;
}
