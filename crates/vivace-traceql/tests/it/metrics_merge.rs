//! What is counted in many places, in any order, is what is counted in one.

use proptest::prelude::*;
use vivace_core::TraceId;
use vivace_proto::vivace::v1::{GroupPartial, SeriesPartial, TypedValue, typed_value};
use vivace_traceql::{Answer, MetricsPlan, MetricsRange, Partial, Release, Status, Value};

use crate::data::text;
use crate::metrics::{SECOND, Span, T0, batch, count, plan, range, spans};

/// Every function, later stages, arithmetic and whole traces.
const QUERIES: &[&str] = &[
    "{} | rate()",
    "{ span.n != nil } | count_over_time() by (span.g)",
    "{} | count_over_time() by (span.g, resource.service.name, span.n)",
    "{} | min_over_time(span.n) by (span.g)",
    "{} | max_over_time(span.n)",
    "{} | sum_over_time(span.n) by (resource.service.name)",
    "{} | avg_over_time(span.n) by (span.g)",
    "{} | avg_over_time(duration)",
    "{} | histogram_over_time(duration) by (span.g)",
    "{} | quantile_over_time(duration, 0.1, 0.5, 0.99) by (resource.service.name)",
    "{} | compare({ status = error }, 3)",
    "{} | count_over_time() by (span.g) | topk(1)",
    "{} | rate() by (span.g) | bottomk(2)",
    "({ status = error } | rate() by (span.g)) / ({} | rate()) > 0.1",
    "{} | by(span.g) | count() > 0 | rate()",
    "({} > {}) | rate()",
];

/// Whole numbers and sixteenths, which sum without rounding as far as an answer shows.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        Just(text("7")),
        (-1000i64..1000).prop_map(Value::Int),
        any::<i32>().prop_map(|v| Value::Float(f64::from(v) / 16.0)),
        Just(Value::IntArray([1, 2].into())),
        Just(Value::Float(f64::NAN)),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    let g = prop_oneof![Just(Value::Nil), "[x-z]".prop_map(|g| text(&g)), Just(text("nil")), Just(Value::Bool(true))];
    (0u64..200_000, 0u64..5000, prop::sample::select(vec!["", "A", "B"]), g, number(), any::<bool>()).prop_map(
        |(start_ms, duration_ms, service, g, n, is_error)| Span {
            start_ms,
            duration_ms,
            service,
            g,
            n,
            status: if is_error { Status::Error } else { Status::Ok },
        },
    )
}

/// A partial as it arrives elsewhere.
fn sent(partial: &Partial, plan: &MetricsPlan) -> Partial {
    Partial::from_message(partial.to_message(), plan).expect("its own message")
}

fn exact(answer: &Answer) -> Vec<String> {
    answer.series.iter().map(|series| format!("{series:?}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_in_any_order_are_the_whole(
        spans in prop::collection::vec(span(), 0..40),
        parts in prop::collection::vec(0usize..5, 40),
        order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
        pairs_first in any::<bool>(),
        exemplars in 0usize..9,
    ) {
        for query in QUERIES {
            let plan = plan(query, range(), exemplars);
            let whole = plan.finish(&count(&plan, &spans), &|| false).expect("it fits");

            let mut partials: Vec<Partial> = (0..5).map(|part| {
                let mut partial = plan.partial();
                let of_part = spans.iter().enumerate().filter(|(i, _)| parts[*i] == part);
                // Two batches, of which the second has its spans in reverse.
                let (even, odd): (Vec<_>, Vec<_>) = of_part.partition(|(i, _)| i % 2 == 0);
                assert!(plan.observe(&mut partial, &batch(even, plan.fetch()), &|| false).is_continue());
                assert!(plan.observe(&mut partial, &batch(odd.into_iter().rev(), plan.fetch()), &|| false).is_continue());
                sent(&partial, &plan)
            }).collect();
            if pairs_first {
                let (a, b) = (partials.remove(0), partials.remove(0));
                let mut both = b;
                plan.merge(&mut both, a);
                partials.push(both);
            }
            let mut merged = plan.partial();
            let len = partials.len();
            let mut partials: Vec<_> = partials.into_iter().map(Some).collect();
            for place in order.iter().filter(|place| **place < len) {
                plan.merge(&mut merged, partials[*place].take().expect("once each"));
            }
            prop_assert_eq!(merged.inspected_spans(), spans.len() as u64);
            let merged = plan.finish(&merged, &|| false).expect("it fits");
            prop_assert_eq!(exact(&whole), exact(&merged), "{}", query);
            prop_assert!(!merged.is_truncated);
        }
    }

    /// A trace whose spans are in several places, where the query does not need it whole.
    #[test]
    fn traces_may_be_split(spans in prop::collection::vec(span(), 1..30), cut in 0usize..30) {
        for query in QUERIES {
            let plan = plan(query, range(), 6);
            if plan.needs_whole_traces() {
                continue;
            }
            let one_trace = |spans: &[(usize, &Span)]| {
                let mut batch = batch(spans.iter().copied(), plan.fetch());
                let end = batch.spans.len();
                batch.traces.truncate(1);
                if let Some(trace) = batch.traces.first_mut() {
                    trace.trace_id = TraceId([7; 16]);
                    trace.spans = 0..end;
                    (trace.start_unix_nanos, trace.end_unix_nanos) = (T0, T0 + 300 * SECOND);
                }
                let mut partial = plan.partial();
                assert!(plan.observe(&mut partial, &batch, &|| false).is_continue());
                partial
            };
            let numbered: Vec<_> = spans.iter().enumerate().collect();
            let (left, right) = numbered.split_at(cut.min(numbered.len()));
            let mut merged = one_trace(right);
            plan.merge(&mut merged, one_trace(left));
            let whole = plan.finish(&one_trace(&numbered), &|| false).expect("it fits");
            prop_assert!(whole.series.iter().map(|series| series.exemplars.len()).sum::<usize>() <= 2, "one per trace and part");
            prop_assert_eq!(exact(&whole), exact(&plan.finish(&merged, &|| false).expect("it fits")), "{}", query);
        }
    }
}

#[test]
fn messages_of_other_queries_are_refused() {
    let plans: Vec<MetricsPlan> = QUERIES.iter().map(|query| plan(query, range(), 4)).collect();
    let mut refused = 0;
    for from in &plans {
        let message = count(from, &spans()).to_message();
        for to in &plans {
            match Partial::from_message(message.clone(), to) {
                Ok(partial) => drop(to.finish(&partial, &|| false).expect("it fits")),
                Err(error) => {
                    assert!(error.to_string().starts_with("what was counted elsewhere does not fit the query: "), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
    let short = MetricsRange::range(T0, T0 + SECOND, Some(SECOND), Release::V3).expect("a range");
    let message = count(&plans[0], &spans()).to_message();
    Partial::from_message(message, &plan(QUERIES[0], short, 0)).expect_err("more intervals than the range has");
}

fn typed_value() -> impl Strategy<Value = TypedValue> {
    let value = prop_oneof![
        any::<i64>().prop_map(typed_value::Value::Int),
        (0i64..70).prop_map(typed_value::Value::Int),
        any::<f64>().prop_map(typed_value::Value::Float),
        "[a-z]{0,2}".prop_map(typed_value::Value::Text),
        any::<u32>().prop_map(typed_value::Value::Status),
        any::<u32>().prop_map(typed_value::Value::Kind),
        any::<i64>().prop_map(typed_value::Value::Duration),
    ];
    prop::option::of(value).prop_map(|value| TypedValue { value })
}

fn group() -> impl Strategy<Value = GroupPartial> {
    let numbers = prop::collection::vec(any::<f64>(), 0..4);
    (prop::collection::vec(typed_value(), 0..4), 0u32..3, prop::collection::vec(any::<u64>(), 0..4), numbers.clone(), numbers)
        .prop_map(|(key, first_interval, counts, values, corrections)| GroupPartial { key, first_interval, counts, values, corrections })
}

proptest! {
    /// Foreign numbers are counted or refused; none of them panics, now or when more is counted on top.
    #[test]
    fn foreign_messages_are_harmless(groups in prop::collection::vec(group(), 0..4), query in prop::sample::select(QUERIES)) {
        let plan = plan(query, range(), 4);
        let stages = plan.partial().to_message().stages.len();
        for keep in 1..8 {
            let mut stage = vivace_proto::vivace::v1::StagePartial { groups: groups.clone(), exemplars: Vec::new() };
            for group in &mut stage.groups {
                if keep & 1 == 0 { group.counts.clear(); }
                if keep & 2 == 0 { group.values.clear(); }
                if keep & 4 == 0 { group.corrections.clear(); }
            }
            let message = SeriesPartial { stages: vec![stage; stages], truncated: false, inspected_spans: u64::MAX };
            if let Ok(mut partial) = Partial::from_message(message, &plan) {
                assert!(plan.observe(&mut partial, &batch(spans().iter().enumerate(), plan.fetch()), &|| false).is_continue());
                let other = partial.clone();
                plan.merge(&mut partial, other);
                drop(plan.finish(&partial, &|| false).expect("it fits"));
            }
        }
    }
}
