use futures::StreamExt as _;
use prost::Message as _;
use tonic::{Code, Request};
use vivace_core::{BlockId, TenantId};
use vivace_proto::tempopb::{SearchRequest, SearchTagValuesRequest, SearchTagsRequest};
use vivace_proto::vivace::v1::{CountPlacesRequest, SearchPartsRequest, SearchPartsResponse};

use crate::running::{Place, Running, segment, spans, until};

/// First bytes of the ids of the traces found, sorted.
async fn search(ingester: &Running, query: &str) -> Vec<u8> {
    search_with(ingester, SearchRequest { query: query.to_owned(), limit: 100, ..SearchRequest::default() }).await
}

async fn search_with(ingester: &Running, request: SearchRequest) -> Vec<u8> {
    let found = ingester.querier().search_recent(Request::new(request)).await.expect("an answer").into_inner();
    let digits = |id: &str| u8::from_str_radix(&format!("{id:0>32}")[..2], 16).expect("hex");
    let mut ids: Vec<u8> = found.traces.iter().map(|t| digits(&t.trace_id)).collect();
    ids.sort_unstable();
    ids
}

/// Large answers come in pieces, and what does not fit into memory is left out with a word.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_sent_in_pieces_within_the_limit_of_memory() {
    let query = "{ } | select(name)";
    let found = async |limit_bytes: u64| {
        let mut place = Place::new();
        place.config.memory.limit = vivace_config::ByteString(limit_bytes);
        let ingester = place.start().await;
        for number in 1..=20 {
            let mut data = spans(&[(number, 1)]);
            data.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(300_000);
            ingester.push(segment(number.into(), &data)).await.expect("taken");
        }
        let request = SearchRequest { query: query.to_owned(), limit: 100, ..SearchRequest::default() };
        let answer = ingester.recent().search(Request::new(request)).await.expect("an answer");
        let warning = vivace_server::warning::of(answer.metadata());
        let pieces: Vec<_> = answer.into_inner().map(|piece| piece.expect("a piece")).collect().await;
        let (last, before) = pieces.split_last().expect("there is one at least");
        assert!(last.metrics.is_some() && before.iter().all(|piece| piece.metrics.is_none()));
        assert!(pieces.iter().all(|piece| piece.encoded_len() < 1 << 21), "far below what anybody takes");
        ingester.stop().await;
        (pieces.iter().map(|piece| piece.traces.len()).sum::<usize>(), pieces.len(), warning)
    };
    let (traces, pieces, warning) = found(1 << 30).await;
    assert!((traces, warning) == (20, None) && pieces > 4, "{traces} {pieces}");
    // 40 of 75 percent of it for queries, 4.2 MB, of which the reader has its part.
    let (traces, _, warning) = found(14 << 20).await;
    assert!((1..20).contains(&traces), "{traces}");
    assert!(warning.is_some_and(|warning| warning.contains("the search ended early with")));
}

async fn tag_values(ingester: &Running, tag: &str, query: &str) -> Vec<(String, String)> {
    let request = SearchTagValuesRequest { tag_name: tag.to_owned(), query: query.to_owned(), ..SearchTagValuesRequest::default() };
    let found = ingester.querier().search_tag_values_v2(Request::new(request)).await.expect("an answer").into_inner();
    found.tag_values.into_iter().map(|v| (v.r#type, v.value)).collect()
}

async fn tag_names(ingester: &Running, scope: &str) -> Vec<(String, Vec<String>)> {
    let request = SearchTagsRequest { scope: scope.to_owned(), ..SearchTagsRequest::default() };
    let found = ingester.querier().search_tags_v2(Request::new(request)).await.expect("an answer").into_inner();
    found.scopes.into_iter().map(|s| (s.name, s.tags)).collect()
}

fn strings(values: &[&str]) -> Vec<(String, String)> {
    values.iter().map(|v| ("string".to_owned(), (*v).to_owned())).collect()
}

/// The same answers whether the spans are live, partly in a block, or all in one.
async fn answers(ingester: &Running) {
    assert_eq!(search(ingester, "{}").await, [1, 2, 3]);
    assert_eq!(search(ingester, r#"{ name = "op-2" }"#).await, [2]);
    assert_eq!(search(ingester, r#"{ resource.service.name = "shop" && span.item = "3" }"#).await, [3]);
    // On different spans of one trace, which came in different segments.
    assert_eq!(search(ingester, r#"{ name = "op-1" } && { name = "op-4" }"#).await, [1]);
    assert!(search(ingester, r#"{ name = "op-1" && span.item = "4" }"#).await.is_empty());
    assert!(search(ingester, r#"{ name = "op-9" }"#).await.is_empty());
    let tags = [("item".to_owned(), "2".to_owned())].into();
    assert_eq!(search_with(ingester, SearchRequest { tags, ..SearchRequest::default() }).await, [2]);
    assert_eq!(search_with(ingester, SearchRequest { limit: 2, ..SearchRequest::default() }).await.len(), 2);
    let past = SearchRequest { query: "{}".to_owned(), start: 1000, end: 2000, ..SearchRequest::default() };
    assert!(search_with(ingester, past).await.is_empty());

    assert_eq!(
        tag_names(ingester, "").await,
        [("resource".to_owned(), vec!["service.name".to_owned()]), ("span".to_owned(), vec!["item".to_owned()])]
    );
    assert_eq!(tag_names(ingester, "span").await, [("span".to_owned(), vec!["item".to_owned()])]);
    // Those need no data; the query-frontend has them.
    assert_eq!(tag_names(ingester, "intrinsic").await, []);
    assert_eq!(tag_values(ingester, "span.item", "").await, strings(&["1", "2", "3", "4"]));
    assert_eq!(tag_values(ingester, "name", "").await, strings(&["op-1", "op-2", "op-3", "op-4"]));
    assert_eq!(tag_values(ingester, "span.item", r#"{ name = "op-3" }"#).await, strings(&["3"]));
    assert_eq!(tag_values(ingester, "resource.service.name", "").await, strings(&["shop"]));
    assert_eq!(tag_values(ingester, "trace:rootService", "").await, strings(&["shop"]));
    assert_eq!(tag_values(ingester, "status", "").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_the_same_wherever_the_spans_are() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1), (2, 2)]))).await.expect("taken");
    ingester.push(segment(2, &spans(&[(3, 3)]))).await.expect("taken");
    ingester.push(segment(3, &spans(&[(1, 4)]))).await.expect("taken");
    answers(&ingester).await;
    ingester.kill().await;
    let ingester = place.start().await;
    answers(&ingester).await;
    ingester.get("/flush").await;
    let blocks = || async { place.bucket.blocks(&TenantId::single()).await.is_ok_and(|b| b.len() == 1) };
    until("the block is in the bucket", blocks).await;
    until("the log is gone", || async { place.log_files().iter().all(|f| f.metadata().is_ok_and(|m| m.len() < 20)) }).await;
    answers(&ingester).await;
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_names_no_limit_ends_at_twenty_traces() {
    let ingester = Place::new().start().await;
    let ids: Vec<(u8, u64)> = (1..=25).map(|number| (number, number.into())).collect();
    ingester.push(segment(1, &spans(&ids))).await.expect("taken");
    assert_eq!(search_with(&ingester, SearchRequest::default()).await.len(), 20);
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_segments_are_searched_unless_their_primary_answers() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    let mut held = segment(1, &spans(&[(2, 2)]));
    held.primary = "ingester-7".to_owned();
    ingester.push(held).await.expect("held");
    assert_eq!(search(&ingester, "{}").await, [1, 2]);
    let answering = vec!["ingester-7".to_owned()];
    assert_eq!(search_with(&ingester, SearchRequest { query: "{}".to_owned(), answering, ..SearchRequest::default() }).await, [1]);
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_query_is_refused_with_its_place() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    let query = |query: &str| SearchRequest { query: query.to_owned(), ..SearchRequest::default() };
    let status = ingester.querier().search_recent(Request::new(query("{ name = }"))).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("parse error at line 1, col 10"), "{status}");
    for unknown in ["all", "planet"] {
        let scope = SearchTagsRequest { scope: unknown.to_owned(), ..SearchTagsRequest::default() };
        let status = ingester.querier().search_tags_v2(Request::new(scope)).await.expect_err("refused");
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, &*format!("invalid scope: {unknown}")));
    }
    ingester.stop().await;
}

/// First bytes of the ids that are found, of those that are candidates, and how many places were looked at.
async fn search_parts(ingester: &Running, query: &str, known: &[BlockId]) -> (Vec<u8>, Vec<u8>, u32) {
    let request = SearchRequest { query: query.to_owned(), limit: 100, ..SearchRequest::default() };
    let known_blocks = known.iter().flat_map(|id| id.0).collect::<Vec<u8>>().into();
    let request = SearchPartsRequest { request: Some(request), known_blocks };
    let answer = ingester.recent().search_parts(Request::new(request)).await.expect("an answer").into_inner();
    let pieces: Vec<SearchPartsResponse> = answer.map(|piece| piece.expect("a piece")).collect().await;
    let (last, before) = pieces.split_last().expect("there is one at least");
    assert!(!last.more && before.iter().all(|piece| piece.places == 0));
    let found = pieces.iter().filter_map(|piece| piece.found.as_ref()).flat_map(|found| &found.traces);
    let mut found: Vec<u8> = found.map(|t| u8::from_str_radix(&format!("{:0>32}", t.trace_id)[..2], 16).expect("hex")).collect();
    let mut candidates: Vec<u8> = pieces.iter().flat_map(|piece| &piece.candidates).map(|part| part.trace_id[0]).collect();
    found.sort_unstable();
    candidates.sort_unstable();
    (found, candidates, last.places)
}

async fn count_places(ingester: &Running, traces: &[u8], known: &[BlockId]) -> Vec<u8> {
    let trace_ids = traces.iter().flat_map(|trace| [*trace; 16]).collect::<Vec<u8>>().into();
    let known_blocks = known.iter().flat_map(|id| id.0).collect::<Vec<u8>>().into();
    let request = CountPlacesRequest { trace_ids, known_blocks, answering: Vec::new() };
    ingester.recent().count_places(Request::new(request)).await.expect("an answer").into_inner().counts.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_traces_are_named_by_what_one_span_says() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1), (1, 4), (2, 1), (3, 4)]))).await.expect("taken");
    let both = r#"{ name = "op-1" } && { name = "op-4" }"#;
    assert_eq!(search_parts(&ingester, both, &[]).await, (vec![1], vec![1, 2], 1));
    assert_eq!(search_parts(&ingester, "{ } | count() > 1", &[]).await, (vec![1], vec![1, 2, 3], 1));
    assert_eq!(search_parts(&ingester, "{ traceDuration > 1h }", &[]).await, (vec![], vec![1, 2, 3], 1));
    ingester.get("/flush").await;
    let blocks = || async { place.bucket.blocks(&TenantId::single()).await.is_ok_and(|b| b.len() == 1) };
    until("the block is in the bucket", blocks).await;
    until("the log is gone", || async { place.log_files().iter().all(|f| f.metadata().is_ok_and(|m| m.len() < 20)) }).await;
    ingester.push(segment(2, &spans(&[(2, 4), (5, 1)]))).await.expect("taken");
    assert_eq!(count_places(&ingester, &[1, 2, 3, 4, 5], &[]).await, [1, 2, 1, 0, 1]);
    // Which of them are right is for those to say who know all places.
    assert_eq!(search_parts(&ingester, both, &[]).await, (vec![1], vec![1, 2, 5], 2));
    // Whoever finds the block in the bucket asks for the rest only.
    let known: Vec<BlockId> = place.bucket.blocks(&TenantId::single()).await.expect("listed").iter().map(|meta| meta.block_id).collect();
    assert_eq!(count_places(&ingester, &[1, 2, 3, 4, 5], &known).await, [0, 1, 0, 0, 1]);
    assert_eq!(search_parts(&ingester, both, &known).await, (vec![], vec![5], 1));
    let broken = CountPlacesRequest { trace_ids: vec![1; 17].into(), ..CountPlacesRequest::default() };
    let status = ingester.recent().count_places(Request::new(broken)).await.expect_err("refused");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "ids have 16 bytes each, 1 are left over"));
    ingester.stop().await;
}
