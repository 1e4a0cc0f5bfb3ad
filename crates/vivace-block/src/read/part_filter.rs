//! What is left of a filter where only a part of each trace is at hand.

use vivace_traceql::{Attribute, Comparison, Condition, Intrinsic, SpanFilter, TraceFilter, Value};

/// What some part of a trace has if the whole matches, wherever its other spans are: a condition that one span decides.
///
/// Of conditions that several spans satisfy together, one is enough to find the trace: the one that seems to pass least.
#[must_use]
pub fn part_filter(filter: &TraceFilter) -> TraceFilter {
    match filter {
        TraceFilter::All => TraceFilter::All,
        TraceFilter::Nothing => TraceFilter::Nothing,
        TraceFilter::AnySpan(filter) => match of_one_span(filter) {
            SpanFilter::Maybe => TraceFilter::All,
            filter => TraceFilter::AnySpan(filter),
        },
        TraceFilter::And(filters) => part_branch(filters).map_or(TraceFilter::All, |branch| part_filter(&filters[branch])),
        TraceFilter::Or(filters) => {
            let filters: Vec<TraceFilter> = filters.iter().map(part_filter).collect();
            if filters.contains(&TraceFilter::All) { TraceFilter::All } else { TraceFilter::Or(filters) }
        }
    }
}

/// Which of several necessary conditions is taken.
pub(crate) fn part_branch(filters: &[TraceFilter]) -> Option<usize> {
    (0..filters.len()).min_by_key(|index| passes(&part_filter(&filters[*index])))
}

/// The filter without conditions on the whole trace.
fn of_one_span(filter: &SpanFilter) -> SpanFilter {
    match filter {
        SpanFilter::Maybe => SpanFilter::Maybe,
        SpanFilter::Leaf(condition) if condition.attribute.is_of_trace() && !asks_for_root(condition) => SpanFilter::Maybe,
        SpanFilter::Leaf(condition) => SpanFilter::Leaf(condition.clone()),
        SpanFilter::And(filters) => {
            let mut filters: Vec<SpanFilter> = filters.iter().map(of_one_span).filter(|filter| *filter != SpanFilter::Maybe).collect();
            match filters.len() {
                0 => SpanFilter::Maybe,
                1 => filters.remove(0),
                _ => SpanFilter::And(filters),
            }
        }
        SpanFilter::Or(filters) => {
            let filters: Vec<SpanFilter> = filters.iter().map(of_one_span).collect();
            if filters.contains(&SpanFilter::Maybe) { SpanFilter::Maybe } else { SpanFilter::Or(filters) }
        }
    }
}

/// `nestedSetParent < 0`: a root says itself that it is one.
fn asks_for_root(condition: &Condition) -> bool {
    condition.attribute == Attribute::Intrinsic(Intrinsic::NestedSetParent) && condition.comparison == Comparison::Less(Value::Int(0))
}

/// How much passes, roughly: 0 is least.
fn passes(filter: &TraceFilter) -> u32 {
    match filter {
        TraceFilter::Nothing => 0,
        TraceFilter::AnySpan(filter) => span_passes(filter),
        TraceFilter::And(filters) => filters.iter().map(passes).min().unwrap_or(u32::MAX),
        TraceFilter::Or(filters) => filters.iter().map(passes).max().unwrap_or(0),
        TraceFilter::All => u32::MAX,
    }
}

fn span_passes(filter: &SpanFilter) -> u32 {
    match filter {
        SpanFilter::Maybe => u32::MAX,
        SpanFilter::And(filters) => filters.iter().map(span_passes).min().unwrap_or(u32::MAX),
        SpanFilter::Or(filters) => filters.iter().map(span_passes).max().unwrap_or(0),
        SpanFilter::Leaf(Condition { attribute, comparison }) => match (attribute, comparison) {
            (Attribute::Intrinsic(Intrinsic::Kind), Comparison::Equal(_)) => 5,
            (Attribute::Intrinsic(Intrinsic::Status), Comparison::Equal(_)) => 3,
            (_, Comparison::Equal(_)) => 1,
            (_, Comparison::Regex(_)) => 2,
            (_, Comparison::Less(_) | Comparison::LessEqual(_) | Comparison::Greater(_) | Comparison::GreaterEqual(_)) => 4,
            (_, Comparison::Exists) => 6,
            (_, Comparison::NotEqual(_) | Comparison::NotRegex(_) | Comparison::NotExists) => 7,
        },
    }
}

#[cfg(test)]
mod tests {
    use vivace_core::TimeRange;

    use super::*;

    #[track_caller]
    fn found_by(query: &str, want: &str) {
        let filter = |query: &str| vivace_traceql::parse(query).unwrap().search_plan(TimeRange::ALL).unwrap().fetch().filter.clone();
        assert_eq!(part_filter(&filter(query)), filter(want), "{query}");
    }

    #[test]
    fn a_part_needs_what_one_span_decides() {
        found_by("{ .a = 1 }", "{ .a = 1 }");
        found_by("{ .a = 1 } && { .b != 2 }", "{ .a = 1 }");
        found_by("{ .b != 2 } >> { .a = 1 }", "{ .a = 1 }");
        found_by("{ .a = 1 } !>> { .b != 2 }", "{ .b != 2 }"); // without any `a` it gives all `b`
        found_by("({ .a = 1 } && { kind = server }) || { .c = 3 }", "{ .a = 1 } || { .c = 3 }");
        found_by("{ .a = 1 } && { traceDuration > 1s }", "{ .a = 1 }");
        found_by("{ .a = 1 && traceDuration > 1s }", "{ .a = 1 }");
        found_by("{ rootName = `x` }", "{ }");
        found_by("{ .a = 1 || rootName = `x` }", "{ }");
        found_by("{ span:childCount > 2 && nestedSetParent < 0 }", "{ nestedSetParent < 0 }");
        found_by("{ span:childCount > 2 && (.a = 1 || nestedSetParent = 2) } | count() > 3", "{ }");
        found_by("{ false } && { .a = 1 }", "{ false }");
    }
}
