//! Query text: read, printed, read again, planned and explained.

use vivace_core::TimeRange;
use vivace_traceql::{LegacySearch, MetricsRange, Release, TagFilter, parse, parse_attribute, parse_tags};

/// An input is the text of a query.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = parse_attribute(&text);
    let _ = TagFilter::parse(&text, parse_attribute("span.a").ok().as_ref(), TimeRange::ALL);
    if let Ok(tags) = parse_tags(&text) {
        let _ = LegacySearch { tags, min_duration_ms: Some(1), max_duration_ms: None }.search_plan(TimeRange::ALL);
    }
    let query = match parse(&text) {
        Ok(query) => query,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let printed = query.to_string();
    let again = parse(&printed).unwrap_or_else(|error| panic!("{text} is printed as {printed}: {error}"));
    assert_eq!(again, query, "{printed}");
    if let Ok(plan) = query.search_plan(TimeRange::between(1, 2)) {
        let _ = plan.needs_whole_traces();
    }
    if query.is_metrics() {
        for release in [Release::V2, Release::V3] {
            let range = MetricsRange::range(1, 3_600_000_000_000, None, release).unwrap_or_else(|error| panic!("{error}"));
            let plan = query.metrics_plan(range, 10).unwrap_or_else(|error| panic!("{printed}: {error}"));
            let _ = plan.finish(&plan.partial(), &|| false);
        }
    }
    if let Ok(explanation) = query.explain() {
        assert!(explanation.to_string().starts_with("query "));
    }
}
