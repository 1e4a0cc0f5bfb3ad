//! What the messages of searches and tag requests mean.

use std::collections::{BTreeMap, BTreeSet};

use vivace_core::{SECOND, TimeRange};
use vivace_proto::tempopb::{SearchRequest, SearchTagsRequest};
use vivace_traceql::{QueryError, Scope, SearchPlan, TagFilter, TagScope, TraceFilter, search_limit, tag_limit, tag_names_answer};

fn search(query: &str) -> SearchRequest {
    SearchRequest { query: query.to_owned(), ..Default::default() }
}

#[test]
fn a_search_is_traceql_or_tags_and_durations() {
    let plan =
        SearchPlan::of_request(&SearchRequest { start: 10, end: 20, ..search("{ name = `a` } with(most_recent=true)") }).expect("plans");
    assert_eq!(plan.fetch().range, TimeRange::between(10 * SECOND, 20 * SECOND));
    assert!(plan.most_recent() && !plan.needs_whole_traces());
    let everything = SearchPlan::of_request(&SearchRequest::default()).expect("plans");
    assert_eq!(everything.fetch().filter, TraceFilter::All);
    assert!(everything.needs_whole_traces());
    let tags = [("service.name".to_owned(), "shop".to_owned())].into();
    let legacy = SearchPlan::of_request(&SearchRequest { tags, min_duration_ms: 5, ..Default::default() }).expect("plans");
    let TraceFilter::And(needed) = &legacy.fetch().filter else { panic!("{:?}", legacy.fetch().filter) };
    assert_eq!(needed.len(), 2);
}

#[test]
fn a_search_that_contradicts_itself_is_refused() {
    let refused = |request: SearchRequest| match SearchPlan::of_request(&request) {
        Err(QueryError::Request(text)) => text,
        other => panic!("{other:?}"),
    };
    let tags = [("a".to_owned(), "b".to_owned())].into();
    assert_eq!(refused(SearchRequest { tags, ..search("{}") }), "invalid request: can't specify tags and q in the same query");
    for query in ["", "{}"] {
        let request = SearchRequest { min_duration_ms: 2, max_duration_ms: 1, ..search(query) };
        assert_eq!(refused(request), "invalid maxDuration: must be greater than minDuration");
    }
    assert!(matches!(SearchPlan::of_request(&search("{")), Err(QueryError::Parse(_))));
}

#[test]
fn no_limit_is_twenty_traces_and_any_number_of_tags() {
    assert_eq!(search_limit(&SearchRequest::default()), 20);
    assert_eq!(search_limit(&SearchRequest { limit: 7, ..Default::default() }), 7);
    assert_eq!((tag_limit(0), tag_limit(7)), (usize::MAX, 7));
}

/// Source: docs/facts/traceql.md, "Tag names and values".
#[test]
fn scopes_have_names() {
    assert_eq!(TagScope::of_request(""), Ok(TagScope::All));
    assert_eq!(TagScope::of_request("none"), Ok(TagScope::All));
    assert_eq!(TagScope::of_request("intrinsic"), Ok(TagScope::Intrinsics));
    let named = [
        ("resource", Scope::Resource),
        ("span", Scope::Span),
        ("event", Scope::Event),
        ("link", Scope::Link),
        ("instrumentation", Scope::Instrumentation),
    ];
    for (name, scope) in named {
        assert_eq!(TagScope::of_request(name), Ok(TagScope::Attributes(scope)));
        let names = BTreeMap::from([(scope, BTreeSet::from(["a".to_owned()]))]);
        assert_eq!(tag_names_answer(names, 0).scopes[0].name, name);
    }
    for unknown in ["all", "planet", "Span"] {
        assert_eq!(TagScope::of_request(unknown), Err(QueryError::Request(format!("invalid scope: {unknown}"))));
    }
}

#[test]
fn a_filter_of_names_has_the_range_of_its_request() {
    let request = SearchTagsRequest { query: "{ name = `a` }".to_owned(), start: 10, end: 20, ..Default::default() };
    let filter = TagFilter::of_names_request(&request).expect("a filter");
    assert!(!filter.passes_everything());
    assert_eq!(filter.fetch().range, TimeRange::between(10 * SECOND, 20 * SECOND));
}
