//! Traces in several places: which ones a job leaves unjudged, and how they are judged.

use std::collections::BTreeSet;

use vivace_block::BlockMeta;
use vivace_proto::tempopb::SearchRequest;
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_result::Outcome;
use vivace_proto::vivace::v1::{BlockPart, JobResult, Places, SearchBlock, SearchRecentTraces, SearchTraces};

use crate::{Cluster, id, store, trace};

const QUERY: &str = r#"{ name = "span 0" } >> { name = "span 2" }"#;

fn request(limit: u32) -> Option<SearchRequest> {
    Some(SearchRequest { query: QUERY.to_owned(), limit, ..Default::default() })
}

fn places(blocks: &[u8], ingesters: bool) -> Option<Places> {
    let blocks = blocks.iter().flat_map(|block| [*block; 16]).collect::<Vec<u8>>().into();
    Some(Places { blocks, known_blocks: Default::default(), ingesters })
}

fn search(meta: &BlockMeta, blocks: &[u8], ingesters: bool) -> Work {
    let part = Some(BlockPart { meta_json: meta.to_json().into(), first_row_group: 0, row_groups: 0 });
    Work::SearchBlock(SearchBlock { request: request(20), part, places: places(blocks, ingesters) })
}

fn search_traces(numbers: &[u64], blocks: &[u8], ingesters: bool) -> Work {
    let mut ids: Vec<_> = numbers.iter().map(|number| id(*number)).collect();
    ids.sort();
    let trace_ids = ids.concat().into();
    Work::SearchTraces(SearchTraces { request: request(20), trace_ids, places: places(blocks, ingesters), only_split: false })
}

/// Ids of the traces that match, as texts, and the numbers of those that are left.
fn judged(result: &JobResult) -> (BTreeSet<String>, BTreeSet<u64>) {
    let Some(Outcome::Search(found)) = &result.outcome else { panic!("expected a search, got {result:?}") };
    let number = |of: &[u8]| (1..20).find(|number| id(*number) == of).expect("a trace of the test");
    (found.traces.iter().map(|trace| trace.trace_id.clone()).collect(), result.split.chunks(16).map(number).collect())
}

fn hex(numbers: &[u64]) -> BTreeSet<String> {
    numbers.iter().map(|number| vivace_core::TraceId::from_slice(&id(*number)).trimmed_hex()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_other_blocks_too_is_left_and_then_judged_as_a_whole() {
    let mut cluster = Cluster::start(0, &[], 1).await;
    // 1 is whole, 2 and 3 lie in two blocks, 4 in this one and in an unknown one, 5 has no descendant anywhere.
    let traces = [trace(1, 0, 3), trace(2, 0, 2), trace(3, 2, 3), trace(4, 0, 3), trace(5, 0, 2)];
    let own = store(&cluster.bucket, 1, &traces).await;
    store(&cluster.bucket, 2, &[trace(2, 2, 3), trace(3, 0, 1)]).await;
    store(&cluster.bucket, 3, &[trace(4, 1, 2)]).await;
    let result = cluster.frontend.run(search(&own, &[2], false)).await;
    // The condition that finds 2 is `span 0`, the one that finds 3 there is elsewhere.
    let (found, split) = judged(&result);
    assert_eq!((found, split), (hex(&[1, 4]), BTreeSet::from([2])));
    let result = cluster.frontend.run(search(&own, &[2, 3, 9], false)).await;
    assert_eq!(judged(&result), (hex(&[1]), BTreeSet::from([2, 4])), "a block that is gone has nothing");
    assert!(result.warnings.is_empty());
    let result = cluster.frontend.run(search_traces(&[2, 3, 4, 5], &[1, 2, 3, 9], false)).await;
    assert_eq!(judged(&result), (hex(&[2, 3, 4]), BTreeSet::new()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ingesters_have_too_is_left() {
    let mut cluster = Cluster::start(2, &[], 1).await;
    let own = store(&cluster.bucket, 1, &[trace(1, 0, 3), trace(2, 0, 2)]).await;
    cluster.ingesters[1].0.lock().own = vec![trace(2, 2, 3), trace(6, 0, 3), trace(7, 0, 2)];
    assert_eq!(judged(&cluster.frontend.run(search(&own, &[], true)).await), (hex(&[1]), BTreeSet::from([2])));
    assert_eq!(judged(&cluster.frontend.run(search(&own, &[], false)).await), (hex(&[1]), BTreeSet::new()));
    let recent = || Work::SearchRecentTraces(SearchRecentTraces { request: request(20), places: places(&[1], true) });
    let (found, split) = judged(&cluster.frontend.run(recent()).await);
    assert!(found.is_superset(&hex(&[6])) && !found.contains(hex(&[2]).first().expect("one")), "{found:?}");
    assert_eq!(split, BTreeSet::from([2]));
    // Parts at two ingesters, as when one of them was routed around.
    cluster.ingesters[0].0.lock().own = vec![trace(7, 2, 3)];
    assert_eq!(judged(&cluster.frontend.run(recent()).await).1, BTreeSet::from([2, 7]));
    assert_eq!(judged(&cluster.frontend.run(search_traces(&[2, 7], &[1], true)).await).0, hex(&[2, 7]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_by_a_part_is_looked_at_as_a_whole() {
    let mut cluster = Cluster::start(1, &[], 1).await;
    store(&cluster.bucket, 1, &[trace(1, 0, 3), trace(2, 1, 2), trace(3, 1, 2)]).await;
    store(&cluster.bucket, 2, &[trace(2, 0, 1)]).await;
    cluster.ingesters[0].0.lock().own = vec![trace(3, 2, 9), trace(4, 0, 2)];
    let search = SearchRequest { query: r#"{ name = "span 1" }"#.to_owned(), limit: 20, ..Default::default() };
    let mut work = search_traces(&[1, 2, 3, 4], &[1, 2], true);
    if let Work::SearchTraces(job) = &mut work {
        (job.request, job.only_split) = (Some(search), true);
    }
    let result = cluster.frontend.run(work).await;
    let Some(Outcome::Search(found)) = &result.outcome else { panic!("{result:?}") };
    let whole: BTreeSet<(&str, &str, u32)> =
        found.traces.iter().map(|trace| (&trace.trace_id[..], &trace.root_trace_name[..], trace.duration_ms)).collect();
    let [two, three] = [2, 3].map(|number| hex(&[number]).first().cloned().expect("one"));
    assert_eq!(whole, BTreeSet::from([(&two[..], "span 0", 11), (&three[..], "", 17)]), "1 and 4 are in one place");
    cluster.stop().await;
}
