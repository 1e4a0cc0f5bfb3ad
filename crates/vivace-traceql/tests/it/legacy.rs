//! Search by tags and durations.

use vivace_core::TimeRange;
use vivace_traceql::{LegacySearch, TraceFilter, parse_tags};

use crate::data;

fn search(tags: &str, min_duration_ms: Option<u64>, max_duration_ms: Option<u64>) -> Vec<String> {
    let search = LegacySearch { tags: parse_tags(tags).expect(tags), min_duration_ms, max_duration_ms };
    let plan = search.search_plan(TimeRange::ALL).expect("a plan");
    let traces = data::traces();
    let results = plan.evaluate(&data::batch(&traces, plan.fetch()), 3);
    for result in &results {
        assert!(result.span_sets.is_empty() && result.span_set.is_none() && result.service_stats.is_empty());
        assert!(traces.iter().find(|t| t.id == result.trace_id).expect("a known trace").passes(&plan.fetch().filter), "{tags}");
    }
    results.into_iter().map(|t| t.trace_id).collect()
}

#[test]
fn tags_are_found_in_one_resource() {
    for (tags, want) in [
        ("", &["1a", "2b", "3c"][..]),
        ("service.name=cart", &["1a", "3c"]),
        ("service.name=ar", &["1a", "3c"]),
        ("region=us", &["1a"]),
        ("region=u", &[]),
        ("tier=silver db=pg", &["1a"]),
        ("tier=gold db=pg", &[]),
        ("service.name=payment tier=silver region=us currency=EUR", &["1a"]),
        ("name=B service.name=cart", &["1a"]),
        ("status.code=error service.name=cart", &["3c"]),
        ("status.code=broken", &[]),
        ("items=3", &["3c"]),
        ("root.name=F", &["2b"]),
        ("root.service.name=gate", &["1a"]),
        ("http.status_code=200", &["1a"]),
        ("http.status_code=2", &[]),
        ("service.name=a.r", &[]),
    ] {
        assert_eq!(search(tags, None, None), want, "{tags}");
    }
}

#[test]
fn durations_are_those_of_the_trace_in_milliseconds() {
    assert_eq!(search("", Some(300), None), ["1a", "2b"]);
    assert_eq!(search("", Some(301), None), ["2b"]);
    assert_eq!(search("", None, Some(300)), ["1a", "3c"]);
    assert_eq!(search("", Some(20), Some(20)), ["3c"]);
    let upside_down = LegacySearch { tags: Vec::new(), min_duration_ms: Some(2), max_duration_ms: Some(1) };
    assert!(upside_down.search_plan(TimeRange::ALL).expect_err("upside down").to_string().contains("2ms is above maxDuration of 1ms"));
}

#[test]
fn what_cannot_match_is_not_fetched() {
    let search = LegacySearch { tags: vec![("status.code".to_owned(), "x".to_owned())], ..Default::default() };
    assert_eq!(search.search_plan(TimeRange::ALL).expect("a plan").fetch().filter, TraceFilter::Nothing);
}

#[test]
fn tags_are_logfmt() {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        parse_tags(" a=1  b=\"x \\\"y\\\"\" c d= ").expect("tags"),
        [tag("a", "1"), tag("b", "x \"y\""), tag("c", ""), tag("d", "")]
    );
    for (bad, reason) in [("a=1 a=2", "\"a\" comes twice"), ("=1", "expected a key"), ("a=\"x", "no closing quote")] {
        let error = parse_tags(bad).expect_err(bad).to_string();
        assert!(error.contains(reason), "{bad}: {error}");
    }
}
