use std::time::Duration;

use prost::Message;
use tonic::Code;
use vivace_proto::vivace::v1::RefusedTrace;
use vivace_proto::vivace::v1::refused_trace::Reason;

use crate::client::traces;
use crate::cluster::{Behaviour, Cluster, eventually, span_ids};

#[tokio::test]
async fn over_the_rate_clients_are_told_when_to_come_back() {
    let cluster = Cluster::start(1, 1, |c| {
        c.distributor.retry_after_on_resource_exhausted = Duration::from_secs(5);
        c.overrides.defaults.ingestion.rate_limit_bytes = 1;
        c.overrides.defaults.ingestion.burst_size_bytes = 300;
    })
    .await;
    let one = traces(&[(1, 1)]);
    cluster.export(&one, &[]).await.expect("within the burst");
    let error = cluster.export(&one, &[]).await.expect_err("over the rate");
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().starts_with("RATE_LIMITED: "), "{error}");
    let hint = b"google.rpc.RetryInfo";
    assert!(error.details().windows(hint.len()).any(|w| w == hint), "{error:?}");

    let answer = cluster.post("application/json", r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01010101010101010101010101010101","spanId":"0101010101010101","name":"a name that is quite long for one so small, but the bucket is small as well; a name that is quite long for one so small, but the bucket is small as well"}]}]}]}"#).await;
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (429, "5"), "{answer:?}");
    let status = answer.json();
    assert_eq!(status["code"], 8);
    assert_eq!(status["details"][0]["@type"], "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(status["details"][0]["retryDelay"], "5s");

    let larger = traces(&(1..=9).map(|n| (n, n)).collect::<Vec<_>>());
    let error = cluster.export(&larger, &[]).await.expect_err("larger than the burst");
    assert!(error.message().contains("can never be accepted") && error.details().is_empty(), "{error:?}");
}

#[tokio::test]
async fn without_a_hint_configured_none_is_given() {
    let cluster = Cluster::start(1, 1, |c| {
        c.overrides.defaults.ingestion.rate_limit_bytes = 1;
        c.overrides.defaults.ingestion.burst_size_bytes = 300;
    })
    .await;
    let body = traces(&[(1, 1)]).encode_to_vec();
    assert_eq!(cluster.post("application/x-protobuf", body.clone()).await.status, 200);
    let answer = cluster.post("application/x-protobuf", body).await;
    assert_eq!((answer.status, answer.headers.get("retry-after")), (429, None));
}

#[tokio::test]
async fn what_an_ingester_refuses_is_a_partial_success() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    let refused = |trace: u8, reason: Reason, spans| RefusedTrace { trace_id: vec![trace; 16].into(), reason: reason.into(), spans };
    cluster.instances[0].behave(Behaviour::Refuse(vec![refused(1, Reason::TraceTooLarge, 2), refused(2, Reason::LiveTracesExceeded, 1)]));
    let answer = cluster.export(&traces(&[(1, 1), (1, 2), (2, 3), (3, 4)]), &[]).await.expect("the rest is stored");
    let partial = answer.partial_success.expect("present");
    assert_eq!(partial.rejected_spans, 3);
    assert!(partial.error_message.contains("2 spans rejected: TRACE_TOO_LARGE"), "{}", partial.error_message);
    assert!(partial.error_message.contains("1 spans rejected: LIVE_TRACES_EXCEEDED"), "{}", partial.error_message);
    assert!(partial.error_message.contains(&"01".repeat(16)), "{}", partial.error_message);
}

#[tokio::test]
async fn tenants_that_want_metrics_have_their_spans_copied_to_generators() {
    let cluster = Cluster::start(2, 1, |c| c.overrides.defaults.metrics_generator.processors = vec!["span-metrics".to_owned()]).await;
    let spans: Vec<(u8, u8)> = (1..=20).map(|n| (n, n)).collect();
    cluster.export(&traces(&spans), &[("no-generate-metrics", "1")]).await.expect("stored");
    let copied = || {
        let copies = cluster.instances.iter().flat_map(|i| i.copies());
        let mut ids: Vec<u8> = copies.flat_map(|c| span_ids(&c.traces_data)).collect();
        ids.sort_unstable();
        ids
    };
    eventually("all spans are copied", || copied() == (1..=20).collect::<Vec<u8>>()).await;
    assert!(cluster.instances.iter().all(|i| i.copies().iter().all(|c| c.skip_metrics_generation)));
    assert!(cluster.instances.iter().all(|i| i.copies().len() <= 1), "one request per generator");
}
