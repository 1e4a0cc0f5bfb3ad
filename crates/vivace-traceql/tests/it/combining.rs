//! Results of many places become one answer.

use proptest::prelude::*;
use vivace_proto::otlp::{AnyValue, KeyValue, any_value};
use vivace_proto::tempopb::{ServiceStats, SpanSet, TraceSearchMetadata};
use vivace_traceql::SearchCombiner;

fn trace(id: u64, start: u64) -> TraceSearchMetadata {
    TraceSearchMetadata { trace_id: format!("{id:x}"), start_time_unix_nano: start, ..Default::default() }
}

fn set(group: &str, count: i64, matched: u32) -> SpanSet {
    let attribute = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) };
    let attributes = vec![
        attribute("by(name)", any_value::Value::StringValue(group.to_owned())),
        attribute("count()", any_value::Value::IntValue(count)),
    ];
    SpanSet { attributes, matched, spans: Vec::new() }
}

fn starts(combiner: SearchCombiner) -> Vec<u64> {
    combiner.finish().iter().map(|t| t.start_time_unix_nano).collect()
}

#[test]
fn two_views_of_one_trace_are_merged() {
    let mut combiner = SearchCombiner::new(10, false);
    combiner.add(TraceSearchMetadata {
        duration_ms: 5,
        service_stats: [("a".to_owned(), ServiceStats { span_count: 3, error_count: 0 })].into(),
        span_sets: vec![set("x", 1, 1), set("y", 1, 4)],
        ..trace(1, 200)
    });
    combiner.add(TraceSearchMetadata {
        root_service_name: "shop".to_owned(),
        root_trace_name: "pay".to_owned(),
        duration_ms: 9,
        service_stats: [("a".to_owned(), ServiceStats { span_count: 2, error_count: 1 })].into(),
        span_sets: vec![set("x", 7, 7), set("y", 2, 2), set("z", 1, 1)],
        ..trace(1, 100)
    });
    let [merged] = &combiner.finish()[..] else { panic!("one trace") };
    assert_eq!((merged.root_service_name.as_str(), merged.root_trace_name.as_str()), ("shop", "pay"));
    assert_eq!((merged.start_time_unix_nano, merged.duration_ms), (100, 9));
    assert_eq!(merged.service_stats["a"], ServiceStats { span_count: 3, error_count: 1 });
    assert_eq!(merged.span_sets, [set("x", 7, 7), set("y", 1, 4), set("z", 1, 1)]);
}

#[test]
fn an_unknown_root_is_named_at_the_end_only() {
    let mut combiner = SearchCombiner::new(10, false);
    combiner.add(trace(1, 1));
    combiner.add(TraceSearchMetadata { root_service_name: "late".to_owned(), ..trace(1, 1) });
    combiner.add(trace(2, 2));
    let names: Vec<_> = combiner.finish().into_iter().map(|t| t.root_service_name).collect();
    assert_eq!(names, ["<root span not yet received>", "late"]);
}

#[test]
fn stops_at_the_limit_unless_the_newest_are_wanted() {
    let mut first = SearchCombiner::new(2, false);
    for start in [5, 1, 9] {
        first.add(trace(start, start));
    }
    assert!(first.is_complete());
    assert_eq!(starts(first), [5, 1]);
}

proptest! {
    #[test]
    fn most_recent_is_exact(times in prop::collection::vec(1u64..10_000, 0..500), limit in 1usize..20) {
        let mut combiner = SearchCombiner::new(limit, true);
        for (id, start) in times.iter().enumerate() {
            prop_assert!(!combiner.is_complete());
            combiner.add(trace(id as u64, *start));
        }
        let mut newest = times.clone();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.truncate(limit);
        prop_assert_eq!(starts(combiner), newest);
    }

    #[test]
    fn order_makes_no_difference(mut parts in prop::collection::vec((0u64..5, 1u64..50, 0u32..9, "[a-c]?"), 0..30)) {
        let combine = |parts: &[(u64, u64, u32, String)]| {
            let mut combiner = SearchCombiner::new(0, false);
            for (id, start, duration_ms, root) in parts {
                combiner.add(TraceSearchMetadata { duration_ms: *duration_ms, root_service_name: root.clone(), ..trace(*id, *start) });
            }
            combiner.finish()
        };
        let forward = combine(&parts);
        parts.reverse();
        prop_assert_eq!(forward, combine(&parts));
    }
}
