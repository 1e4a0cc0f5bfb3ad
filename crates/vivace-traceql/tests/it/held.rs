//! What queries hold is charged, and what does not fit is refused by name.

use std::ops::ControlFlow;

use vivace_core::budget::{Account, Budget};
use vivace_core::{SECOND, SpanId, TraceId};
use vivace_proto::tempopb::{SpanSet, TraceSearchMetadata};
use vivace_traceql::{Batch, Halted, MetricsPlan, MetricsRange, Release, SearchCombiner, SpanRow, TraceRow, Value, parse};

/// One trace of so many spans, a second apart; their first column is a text of its own.
fn spans(count: usize, plan: &MetricsPlan) -> Batch {
    let span =
        |i: usize| SpanRow { id: SpanId((i as u64).to_be_bytes()), start_unix_nanos: (1 + i as u64 % 600) * SECOND, ..SpanRow::default() };
    let trace = TraceRow {
        trace_id: TraceId([1; 16]),
        start_unix_nanos: SECOND,
        end_unix_nanos: 600 * SECOND,
        root_name: "".into(),
        root_service: "".into(),
        services: Vec::new(),
        spans: 0..count,
    };
    let columns = plan.fetch().span_attributes.iter().map(|_| (0..count).map(|i| Value::Str(format!("value {i}").into())).collect());
    Batch { traces: vec![trace], spans: (0..count).map(span).collect(), columns: columns.collect(), ..Batch::default() }
}

fn plan(query: &str) -> MetricsPlan {
    let range = MetricsRange::range(0, 600 * SECOND, Some(SECOND), Release::default()).expect("a range");
    parse(query).expect("a query").metrics_plan(range, 0).expect("a plan")
}

#[test]
fn groups_and_cells_are_charged() {
    for query in ["{} | rate() by (span:id)", "{} | max_over_time(duration) by (span.a)", "{} | compare({ span.a = \"x\" })"] {
        let (plan, budget) = (plan(query), Budget::new(10 << 20));
        let mut partial = plan.partial_within(&budget);
        assert!(plan.observe(&mut partial, &spans(1000, &plan), &|| false).is_continue(), "{query}");
        partial.check().expect("it fits");
        assert!(partial.bytes() > 100_000, "{query}: {}", partial.bytes());
        assert!(budget.used_by(Account::Queries) >= partial.bytes());
        drop(partial);
        assert_eq!(budget.used(), 0, "{query}");
    }
}

#[test]
fn what_does_not_fit_ends_the_count_by_name() {
    let (plan, budget) = (plan("{} | rate() by (span:id)"), Budget::new(1 << 20));
    let mut partial = plan.partial_within(&budget);
    let batch = spans(100_000, &plan);
    assert_eq!(plan.observe(&mut partial, &batch, &|| false), ControlFlow::Break(()));
    let error = partial.check().expect_err("too large");
    assert!(error.never_fits());
    assert!(error.to_string().contains("group by attributes with fewer values"), "{error}");
    assert!(budget.used() <= budget.limit_of(Account::Queries));
    assert_eq!(plan.finish(&partial, &|| false).map(drop), Err(Halted::TooLarge(error.clone())), "a part does not pass for all");
    // Nor where it is merged into another.
    let mut other = plan.partial_within(&Budget::unlimited());
    plan.merge(&mut other, partial);
    assert_eq!(other.check(), Err(error));
}

#[test]
fn series_are_charged_before_they_are_made() {
    // Counted it is small, as series it is not: each span's has 600 values.
    let (plan, budget) = (plan("{} | rate() by (span:id)"), Budget::new(20 << 20));
    let mut partial = plan.partial_within(&budget);
    assert!(plan.observe(&mut partial, &spans(10_000, &plan), &|| false).is_continue());
    let before = budget.used();
    assert!(matches!(plan.finish(&partial, &|| false), Err(Halted::TooLarge(_))));
    assert_eq!(budget.used(), before, "what was refused is given back");

    let roomy = Budget::new(1 << 30);
    let mut partial = plan.partial_within(&roomy);
    assert!(plan.observe(&mut partial, &spans(1000, &plan), &|| false).is_continue());
    let before = roomy.used();
    let (series, charge) = plan.finish(&partial, &|| false).expect("it fits").into_time_series();
    assert_eq!(series.len(), 1000);
    assert_eq!(roomy.used(), before + charge.bytes());
    assert!(charge.bytes() >= 600 * 1000 * 16, "{}", charge.bytes());
}

#[test]
fn messages_are_charged_as_they_are_merged() {
    let plan = plan("{} | rate() by (span:id)");
    let mut there = plan.partial();
    assert!(plan.observe(&mut there, &spans(100_000, &plan), &|| false).is_continue());
    let message = there.to_message();
    let mut here = plan.partial_within(&Budget::new(1 << 20));
    plan.merge_message(&mut here, message).expect("it is of this plan");
    assert!(here.check().is_err());
}

#[test]
fn counting_and_finishing_stop() {
    let plan = plan("{} | rate() by (span:id)");
    let mut partial = plan.partial();
    let mut batch = spans(5000, &plan);
    batch.traces = vec![batch.traces[0].clone(); 20];
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) > 2;
    assert!(plan.observe(&mut partial, &batch, &stop).is_break());
    assert!(asked.get() < 10, "it did not go on: {}", asked.get());
    assert_eq!(plan.finish(&partial, &|| true).map(drop), Err(Halted::Stopped));
}

fn found(id: usize, text: usize) -> TraceSearchMetadata {
    let set = SpanSet { matched: 1, ..SpanSet::default() };
    TraceSearchMetadata {
        trace_id: id.to_string(),
        root_service_name: "x".repeat(text),
        start_time_unix_nano: id as u64,
        span_sets: vec![set],
        ..TraceSearchMetadata::default()
    }
}

#[test]
fn a_search_that_does_not_fit_ends_early_and_says_so() {
    for most_recent in [false, true] {
        let budget = Budget::new(10 << 20);
        let mut combiner = SearchCombiner::within(&budget, 1_000_000, most_recent);
        let mut added = 0;
        while !combiner.is_complete() {
            combiner.add(found(added, 1 << 20));
            added += 1;
            assert!(added < 100);
        }
        let warning = combiner.warning().expect("something is missing");
        assert!(warning.contains("ended early with 3 traces") && warning.contains("memory"), "{warning}");
        assert_eq!(combiner.finish().len(), 3);
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn traces_that_are_merged_or_dropped_are_not_charged_twice() {
    let budget = Budget::unlimited();
    let mut combiner = SearchCombiner::within(&budget, 10, true);
    for id in 0..10_000 {
        combiner.add(found(id % 5000, 1000));
    }
    assert!(budget.used() < 1 << 20, "{}", budget.used());
    assert_eq!(combiner.warning(), None);
    let (traces, charge) = combiner.finish_charged();
    assert_eq!(traces.len(), 10);
    assert!(charge.bytes() >= 10_000);
}
