use tonic::Code;
use vivace_block::BlockMeta;
use vivace_proto::tempopb::{SearchRequest, SearchTagValuesRequest, SearchTagsRequest};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_result::Outcome;
use vivace_proto::vivace::v1::{BlockPart, FindInBlocks, JobResult, SearchBlock, TagValuesBlock, TagsBlock};

use crate::{Cluster, failure, id, names, store, trace};

fn find(number: u64, first: u8, last: u8) -> Work {
    Work::FindInBlocks(FindInBlocks {
        trace_id: id(number),
        first_block: vec![first; 16].into(),
        last_block: vec![last; 16].into(),
        ..Default::default()
    })
}

fn part(meta: &BlockMeta) -> Option<BlockPart> {
    Some(BlockPart { meta_json: meta.to_json().into(), first_row_group: 0, row_groups: 0 })
}

fn search(meta: &BlockMeta, query: &str) -> Work {
    let request = SearchRequest { query: query.to_owned(), limit: 20, ..Default::default() };
    Work::SearchBlock(SearchBlock { request: Some(request), part: part(meta), places: None })
}

fn found(result: &JobResult) -> Vec<&str> {
    let Some(Outcome::Search(found)) = &result.outcome else { panic!("expected a search, got {result:?}") };
    found.traces.iter().map(|t| t.root_trace_name.as_str()).collect()
}

/// Makes a stored block unreadable: same length, other bytes.
async fn break_block(cluster: &Cluster, meta: &BlockMeta) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), vec![7; usize::try_from(meta.size_bytes).expect("small")]).expect("written");
    let params = vivace_block::bloom::Params { shards: meta.bloom_shards, bits: 64, hashes: 1 };
    let mut bloom = vivace_block::bloom::Builder::new(params);
    (0..1000u32).for_each(|n| bloom.insert(vivace_core::TraceId::from_slice(&n.to_be_bytes())));
    cluster.bucket.put_block(meta, file.path(), bloom.finish(), Vec::new()).await.expect("stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_put_together_from_the_blocks_of_the_range() {
    let mut cluster = Cluster::start(0, &[], 1).await;
    store(&cluster.bucket, 1, &[trace(1, 0, 2), trace(2, 0, 1)]).await;
    store(&cluster.bucket, 2, &[trace(1, 1, 3)]).await;
    store(&cluster.bucket, 9, &[trace(1, 3, 4)]).await;
    // The first poll was before: the tenant is looked up now.
    let result = cluster.frontend.run(find(1, 0, 5)).await;
    assert_eq!(names(&result), ["span 0", "span 1", "span 2"]);
    assert_eq!(names(&cluster.frontend.run(find(1, 0, 255)).await).len(), 4);
    assert_eq!(names(&cluster.frontend.run(find(3, 0, 255)).await).len(), 0);

    // Replaced a moment ago: still read, as the successor may not be in the list yet.
    cluster.bucket.mark_compacted(&vivace_core::TenantId::single(), vivace_core::BlockId([9; 16])).await.expect("marked");
    cluster.poller.poll_once().await.expect("polled");
    assert_eq!(names(&cluster.frontend.run(find(1, 0, 255)).await).len(), 4);

    let bounded = |start, end| match find(1, 0, 255) {
        Work::FindInBlocks(job) => Work::FindInBlocks(FindInBlocks { start, end, ..job }),
        other => other,
    };
    assert_eq!(names(&cluster.frontend.run(bounded(1_800_000_000, 1_800_000_060)).await).len(), 4);
    assert_eq!(names(&cluster.frontend.run(bounded(1_700_000_000, 1_700_000_060)).await).len(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_block_is_named_and_the_rest_is_answered() {
    let mut cluster = Cluster::start(0, &[], 1).await;
    store(&cluster.bucket, 1, &[trace(1, 0, 2)]).await;
    let broken = store(&cluster.bucket, 2, &[trace(1, 1, 3)]).await;
    break_block(&cluster, &broken).await;
    let result = cluster.frontend.run(find(1, 0, 255)).await;
    assert_eq!(names(&result), ["span 0", "span 1"]);
    let [warning] = result.warnings.as_slice() else { panic!("one warning, not {:?}", result.warnings) };
    assert!(warning.starts_with(&format!("skipped single-tenant/{}/data.parquet: ", broken.block_id)), "{warning}");

    let result = cluster.frontend.run(search(&broken, "{}")).await;
    assert!(found(&result).is_empty());
    assert_eq!(result.warnings.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_searched() {
    let mut cluster = Cluster::start(0, &[], 1).await;
    let meta = store(&cluster.bucket, 1, &[trace(1, 0, 2), trace(2, 0, 3), trace(3, 0, 1)]).await;
    assert_eq!(found(&cluster.frontend.run(search(&meta, "{}")).await).len(), 3);
    assert_eq!(found(&cluster.frontend.run(search(&meta, "{ name = `span 2` }")).await), ["span 0"]);
    let result = cluster.frontend.run(search(&meta, "{ span.n = `1` && resource.service.name = `shop` }")).await;
    assert_eq!(found(&result).len(), 2);
    let Some(Outcome::Search(answer)) = &result.outcome else { panic!("a search") };
    let metrics = answer.metrics.as_ref().expect("metrics");
    assert_eq!(metrics.inspected_traces, 3);
    assert!(metrics.inspected_bytes > 0);
    assert!(found(&cluster.frontend.run(search(&meta, "{ span.n = `7` }")).await).is_empty());

    let legacy = SearchRequest { tags: [("service.name".to_owned(), "shop".to_owned())].into(), limit: 2, ..Default::default() };
    let legacy = Work::SearchBlock(SearchBlock { request: Some(legacy), part: part(&meta), places: None });
    assert_eq!(found(&cluster.frontend.run(legacy).await).len(), 2, "the limit");

    let beyond = BlockPart { first_row_group: 5, row_groups: 3, ..part(&meta).expect("a part") };
    let beyond =
        SearchBlock { request: Some(SearchRequest { query: "{}".to_owned(), ..Default::default() }), part: Some(beyond), places: None };
    assert!(found(&cluster.frontend.run(Work::SearchBlock(beyond)).await).is_empty());

    let failed = failure(cluster.frontend.run(search(&meta, "{ span. }")).await);
    assert_eq!((failed.code, failed.retryable), (Code::InvalidArgument as i32, false));
    let mut foreign = meta.clone();
    foreign.tenant_id = vivace_core::TenantId::new("other").expect("a tenant");
    let failed = failure(cluster.frontend.run(search(&foreign, "{}")).await);
    assert_eq!(failed.message, "a job of tenant single-tenant names a block of tenant other");
    cluster.stop().await;
}

/// The same as an ingester does with it: there is one rule.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_names_no_limit_ends_at_twenty_traces() {
    let mut cluster = Cluster::start(0, &[], 1).await;
    let traces: Vec<_> = (1..=25).map(|number| trace(number, 0, 1)).collect();
    let meta = store(&cluster.bucket, 1, &traces).await;
    let request = SearchRequest { query: "{}".to_owned(), ..Default::default() };
    let unlimited = Work::SearchBlock(SearchBlock { request: Some(request), part: part(&meta), places: None });
    assert_eq!(found(&cluster.frontend.run(unlimited).await).len(), 20);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_their_values_are_listed() {
    let mut cluster = Cluster::start(0, &[], 1).await;
    let meta = store(&cluster.bucket, 1, &[trace(1, 0, 2), trace(2, 0, 3)]).await;
    let tags = |scope: &str, query: &str| {
        let request = SearchTagsRequest { scope: scope.to_owned(), query: query.to_owned(), ..Default::default() };
        Work::TagsBlock(TagsBlock { request: Some(request), part: part(&meta), max_bytes: 0 })
    };
    let scopes = |result: JobResult| match result.outcome {
        Some(Outcome::Tags(answer)) => answer.scopes.into_iter().map(|s| (s.name, s.tags)).collect::<Vec<_>>(),
        other => panic!("expected tags, got {other:?}"),
    };
    let (resource, span) = (("resource".to_owned(), vec!["service.name".to_owned()]), ("span".to_owned(), vec!["n".to_owned()]));
    assert_eq!(scopes(cluster.frontend.run(tags("", "")).await), [resource.clone(), span.clone()]);
    assert_eq!(scopes(cluster.frontend.run(tags("span", "")).await), std::slice::from_ref(&span));
    assert_eq!(scopes(cluster.frontend.run(tags("span", "{ name = `span 2` }")).await), [span]);
    assert_eq!(scopes(cluster.frontend.run(tags("", "{ name = `none` }")).await), []);
    assert_eq!(scopes(cluster.frontend.run(tags("intrinsic", "")).await), []);
    for unknown in ["all", "planet"] {
        let failed = failure(cluster.frontend.run(tags(unknown, "")).await);
        assert_eq!((failed.code, failed.message), (Code::InvalidArgument as i32, format!("invalid scope: {unknown}")));
    }

    let values = |tag: &str, query: &str| {
        let request = SearchTagValuesRequest { tag_name: tag.to_owned(), query: query.to_owned(), ..Default::default() };
        Work::TagValuesBlock(TagValuesBlock { request: Some(request), part: part(&meta), max_bytes: 0 })
    };
    let texts = |result: JobResult| match result.outcome {
        Some(Outcome::TagValues(answer)) => answer.tag_values.into_iter().map(|v| format!("{} {}", v.r#type, v.value)).collect::<Vec<_>>(),
        other => panic!("expected values, got {other:?}"),
    };
    assert_eq!(texts(cluster.frontend.run(values("span.n", "")).await), ["string 0", "string 1", "string 2"]);
    // From one more than is allowed the query-frontend sees that there was more.
    let Work::TagValuesBlock(mut ended) = values("span.n", "") else { unreachable!() };
    ended.max_bytes = 1;
    assert_eq!(texts(cluster.frontend.run(Work::TagValuesBlock(ended)).await).len(), 2);
    assert_eq!(texts(cluster.frontend.run(values(".service.name", "")).await), ["string shop"]);
    assert_eq!(texts(cluster.frontend.run(values("name", "{ span.n = `2` }")).await), ["string span 2"]);
    assert_eq!(texts(cluster.frontend.run(values("rootName", "{ span.n = `2` }")).await), ["string span 0"]);
    assert!(texts(cluster.frontend.run(values("status", "")).await).contains(&"keyword error".to_owned()));
    let failed = failure(cluster.frontend.run(values("no such thing", "")).await);
    assert_eq!(failed.code, Code::InvalidArgument as i32);
    cluster.stop().await;
}
