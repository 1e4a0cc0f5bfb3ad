//! `tempopb.StreamingQuerier`, also on the HTTP port.
//!
//! Source: docs/facts/clients.md, "A stream's first copy of a trace stays", "Streamed messages are small", "gRPC comes to the HTTP port".

use std::collections::HashSet;

use tonic::Code;
use vivace_config::Config;
use vivace_proto::otlp::KeyValue;
use vivace_proto::tempopb::streaming_querier_client::StreamingQuerierClient;
use vivace_proto::tempopb::{SearchRequest, SearchTagValuesRequest, SearchTagsRequest};

use crate::querier;
use crate::{Frontend, block};

async fn all<T>(response: Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>) -> Result<Vec<T>, tonic::Status> {
    let mut stream = response?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

#[tokio::test]
async fn a_search_streams_at_least_one_message_on_either_port() {
    let (frontend, _querier) = Frontend::with(&Config::default(), |_| querier::found(&[("1", 1, "")])).await;
    frontend.add_blocks("single-tenant", [block(1, 60, 1, 1)]);
    for address in [&frontend.http, &frontend.grpc] {
        let mut client = StreamingQuerierClient::connect(address.clone()).await.unwrap();
        let messages = all(client.search(SearchRequest { query: "{}".to_owned(), limit: 1, ..Default::default() }).await).await.unwrap();
        assert_eq!(messages.len(), 1);
        let last = messages.last().unwrap();
        assert_eq!(last.traces[0].root_service_name, "<root span not yet received>");
        assert!(last.metrics.is_some());
    }
}

#[tokio::test]
async fn an_empty_search_is_one_message() {
    let (frontend, _querier) = Frontend::idle().await;
    let mut client = StreamingQuerierClient::connect(frontend.http.clone()).await.unwrap();
    let messages = all(client.search(SearchRequest { query: "{}".to_owned(), ..Default::default() }).await).await.unwrap();
    assert_eq!((messages.len(), messages[0].traces.len()), (1, 0));
    let metrics = messages[0].metrics.unwrap();
    assert_eq!((metrics.completed_jobs, metrics.total_jobs), (1, 1));
}

#[tokio::test]
async fn wrong_requests_and_failed_jobs_are_grpc_errors() {
    let (frontend, _querier) = Frontend::with(&Config::default(), |_| querier::failure("broken", false)).await;
    let mut client = StreamingQuerierClient::connect(frontend.grpc.clone()).await.unwrap();
    let code = |result: Result<Vec<_>, tonic::Status>| result.map(|_: Vec<vivace_proto::tempopb::SearchResponse>| ()).unwrap_err().code();
    assert_eq!(code(all(client.search(SearchRequest { query: "{".to_owned(), ..Default::default() }).await).await), Code::InvalidArgument);
    assert_eq!(code(all(client.search(SearchRequest { start: 1, ..Default::default() }).await).await), Code::InvalidArgument);
    assert_eq!(code(all(client.search(SearchRequest::default()).await).await), Code::Internal);
    let scope = client.search_tags_v2(SearchTagsRequest { scope: "nowhere".to_owned(), ..Default::default() }).await;
    assert_eq!(scope.err().map(|e| e.code()), Some(Code::InvalidArgument));

    let mut config = Config::default();
    config.multitenancy_enabled = true;
    let frontend = Frontend::start(&config).await;
    let mut client = StreamingQuerierClient::connect(frontend.grpc.clone()).await.unwrap();
    assert_eq!(code(all(client.search(SearchRequest::default()).await).await), Code::Unauthenticated);
}

#[tokio::test]
async fn names_and_values_stream_too() {
    let (frontend, _querier) = Frontend::idle().await;
    let mut client = StreamingQuerierClient::connect(frontend.grpc.clone()).await.unwrap();
    let v2 = all(client.search_tags_v2(SearchTagsRequest::default()).await).await.unwrap();
    assert_eq!((v2.len(), v2[0].scopes[0].name.as_str()), (1, "intrinsic"));
    let v1 = all(client.search_tags(SearchTagsRequest { scope: "intrinsic".to_owned(), ..Default::default() }).await).await.unwrap();
    assert_eq!(v1[0].tag_names.len(), 25);
    let request = |name: &str| SearchTagValuesRequest { tag_name: name.to_owned(), ..Default::default() };
    let values = all(client.search_tag_values(request("status.code")).await).await.unwrap();
    assert_eq!(values[0].tag_values, ["error", "ok", "unset"]);
    let values = all(client.search_tag_values_v2(request("kind")).await).await.unwrap();
    assert_eq!(values[0].tag_values.len(), 6);
}

/// Source: docs/facts/clients.md, "Streamed messages are small".
#[tokio::test]
async fn many_series_come_in_messages_that_clients_take() {
    use vivace_proto::tempopb::{QueryInstantRequest, QueryRangeRequest};
    use vivace_proto::vivace::v1::{GroupPartial, SeriesPartial, SeriesResponse, StagePartial, TypedValue, job_result, typed_value};
    let (frontend, _querier) = Frontend::with(&Config::default(), |_| {
        let group = |n: usize| {
            let value = Some(typed_value::Value::Text(format!("{n} {}", "x".repeat(500))));
            GroupPartial { key: vec![TypedValue { value }], counts: vec![1], ..Default::default() }
        };
        let stage = StagePartial { groups: (0..3001).map(group).collect(), ..Default::default() };
        let partial = Some(SeriesPartial { stages: vec![stage], ..Default::default() });
        querier::Outcome::Result(job_result::Outcome::Series(SeriesResponse { partial, ..Default::default() }))
    })
    .await;
    let now = vivace_server::clock::unix_nanos();
    let (query, start, end) = ("{} | rate() by (span.a)".to_owned(), now - 3_600_000_000_000, now);
    let mut client = StreamingQuerierClient::connect(frontend.grpc.clone()).await.unwrap();
    let range = QueryRangeRequest { query: query.clone(), start, end, step: 60_000_000_000, ..Default::default() };
    let messages = all(client.metrics_query_range(range).await).await.unwrap();
    assert!(messages.len() > 3);
    assert!(messages.iter().all(|message| prost::Message::encoded_len(message) < 2 << 20));
    // Where it takes long there are messages before the last ones.
    let names = |labels: &[KeyValue]| format!("{:?}", labels[0].value);
    let distinct: HashSet<String> = messages.iter().flat_map(|message| &message.series).map(|series| names(&series.labels)).collect();
    assert_eq!(distinct.len(), 3001);
    assert!(messages.iter().all(|message| message.metrics.is_some()));
    let messages = all(client.metrics_query_instant(QueryInstantRequest { query, start, end }).await).await.unwrap();
    assert!(messages.len() > 1);
    let distinct: HashSet<String> = messages.iter().flat_map(|message| &message.series).map(|series| names(&series.labels)).collect();
    assert_eq!(distinct.len(), 3001);
}

#[tokio::test]
async fn refusals_have_a_hint_unless_it_is_no_use() {
    let failure = |_: &_| {
        querier::Outcome::Result(vivace_proto::vivace::v1::job_result::Outcome::Failure(vivace_proto::vivace::v1::Failure {
            code: Code::ResourceExhausted.into(),
            message: "memory".to_owned(),
            retryable: true,
            holds_much: true,
        }))
    };
    let (frontend, _querier) = Frontend::with(&Config::default(), failure).await;
    let mut client = StreamingQuerierClient::connect(frontend.grpc.clone()).await.unwrap();
    let status = all(client.search(SearchRequest::default()).await).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("memory (no other query ran"), "{status}");
    assert!(!status.metadata().contains_key("retry-after"));
}
