//! Rules of metrics that the worked examples do not show.

use std::collections::BTreeSet;

use vivace_core::TimeRange;
use vivace_traceql::{Answer, Exemplar, MetricsPlan, MetricsRange, Release, Series, Value, parse};

use crate::data::{self, BASE, MS, text};
use crate::metrics::{SECOND, Span, T0, count, plan, range, spans};

fn answer_of(query: &str, spans: &[Span], exemplars: usize) -> Answer {
    let plan = plan(query, range(), exemplars);
    plan.finish(&count(&plan, spans), &|| false).expect("it fits")
}

fn labels(series: &Series) -> String {
    series.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect::<Vec<_>>().join(",")
}

fn values(series: &Series) -> Vec<f64> {
    series.samples.iter().map(|sample| sample.value).collect()
}

#[test]
fn groups_with_equal_labels_are_one_series() {
    let spans: Vec<Span> = [Value::Nil, text("nil"), Value::Opaque, Value::IntArray([1, 2].into())]
        .into_iter()
        .zip(spans())
        .map(|(g, span)| Span { g, start_ms: 0, ..span })
        .collect();
    let answer = answer_of("{} | count_over_time() by (span.g, span.zz)", &spans, 0);
    assert_eq!(answer.series.iter().map(labels).collect::<Vec<_>>(), ["span.g=`nil`"]);
    assert_eq!(values(&answer.series[0]), [4.0, 0.0, 0.0]);
    // A bucket is a label of its own, so that nothing has to stand for the missing one.
    let answer = answer_of("{} | histogram_over_time(duration) by (span.zz)", &spans[..1], 0);
    assert_eq!(answer.series.iter().map(labels).collect::<Vec<_>>(), ["__bucket=1.073741824"]);
}

#[test]
fn labels_are_typed_in_messages() {
    use vivace_proto::otlp::any_value::Value as Otlp;
    let message = |query: &str| {
        let series = answer_of(query, &spans()[..1], 0).series.remove(0).to_time_series();
        let label = &series.labels[0];
        (label.key.clone(), label.value.clone().and_then(|value| value.value).expect("a value"))
    };
    assert_eq!(message("{} | rate() by (status)"), ("status".to_owned(), Otlp::StringValue("unset".to_owned())));
    assert_eq!(message("{} | rate() by (duration)"), ("duration".to_owned(), Otlp::StringValue("1s".to_owned())));
    assert_eq!(message("{} | rate() by (span.n)"), ("span.n".to_owned(), Otlp::IntValue(1)));
    assert_eq!(message("{} | quantile_over_time(duration, .5)"), ("p".to_owned(), Otlp::DoubleValue(0.5)));
    assert_eq!(message("{} | rate() by (span:name)").0, "name");
    assert_eq!(message("{} | rate() by (nestedSetLeft)"), ("nestedSetLeft".to_owned(), Otlp::IntValue(1)));
}

#[test]
fn names_that_need_quotes() {
    let key = |release| {
        let range = MetricsRange::range(T0, T0 + 60 * SECOND, Some(60 * SECOND / 2), release).expect("a range");
        let plan = plan("{} | rate() by (span.\"a b\")", range, 0);
        plan.finish(&count(&plan, &spans()[..1]), &|| false).expect("it fits").series[0].labels[0].key.to_string()
    };
    assert_eq!(key(Release::V2), "span.a b");
    assert_eq!(key(Release::V3), "span.\"a b\"");
}

#[test]
fn durations_of_traces_are_nanoseconds_outside_of_histograms() {
    let first = |query: &str| answer_of(query, &spans()[..1], 0).series.remove(0);
    assert_eq!(values(&first("{} | max_over_time(traceDuration)")), [1e9]);
    assert_eq!(values(&first("{} | max_over_time(duration)")), [1.0]);
    assert_eq!(labels(&first("{} | histogram_over_time(traceDuration)")), "__bucket=1.073741824");
}

#[test]
fn only_what_a_pipeline_leaves_is_counted() {
    let range = MetricsRange::range(BASE, BASE + 10_000 * MS, Some(1000 * MS), Release::V3).expect("a range");
    let total = |query: &str| {
        let plan = parse(query).expect(query).metrics_plan(range, 0).expect(query);
        let mut partial = plan.partial();
        assert!(plan.observe(&mut partial, &data::batch(&data::traces(), plan.fetch()), &|| false).is_continue());
        plan.finish(&partial, &|| false).expect("it fits").series.iter().flat_map(values).sum::<f64>()
    };
    assert_eq!(total("{} | count_over_time()"), 11.0);
    assert_eq!(total("{ name = \"A\" } >> { status = error } | count_over_time()"), 2.0);
    assert_eq!(total("{} | by(resource.service.name) | count() > 2 | count_over_time()"), 4.0);
    assert_eq!(total("{} | count() > 4 | count_over_time() by (name)"), 5.0);
    assert_eq!(total("{ status = error } && { kind = server } | count_over_time()"), 3.0);
    assert_eq!(total("{} | select(span.n) | sum_over_time(span.n)"), 9.0);
    assert_eq!(total("{ event:name = \"retry\" } | count_over_time() by (event:name)"), 1.0);
    // The first event of the span gives the label, whichever matched.
    let plan = parse("{ event:name = \"retry\" } | rate() by (event:name)").expect("a query").metrics_plan(range, 0).expect("a plan");
    let mut partial = plan.partial();
    assert!(plan.observe(&mut partial, &data::batch(&data::traces(), plan.fetch()), &|| false).is_continue());
    assert_eq!(labels(&plan.finish(&partial, &|| false).expect("it fits").series[0]), "event:name=`exception`");
}

#[test]
fn whole_traces_are_needed_where_spans_decide_together() {
    let needs = |query: &str| {
        let query = parse(query).expect(query);
        let metrics = if query.is_metrics() { query.metrics_plan(range(), 0).expect("a plan").needs_whole_traces() } else { false };
        (query.search_plan(TimeRange::ALL).expect("a plan").needs_whole_traces(), metrics)
    };
    for alone in [
        "{ name = \"x\" && event.a = 1 || span.b > 2 } | rate() by (resource.service.name)",
        "{ name = \"x\" } || { .a = 1 } | { .b = 1 } | select(span.c) | avg_over_time(duration)",
        "{ trace:id = \"1\" } | count_over_time() by (span:parentID)",
        // A root says itself that it is one.
        "{ nestedSetParent < 0 } | rate()",
    ] {
        assert_eq!(needs(alone), (false, false), "{alone}");
    }
    for together in [
        "{ .a = 1 } > { .b = 1 } | rate()",
        "{ .a = 1 } && { .b = 1 } | rate()",
        "{} | count() > 1 | rate()",
        "{} | by(.a) | rate()",
        "{ traceDuration > 1s } | rate()",
        "{} | select(rootName) | rate()",
        "{ nestedSetParent = 3 } | rate()",
        "({ .a = 1 } && { .b = 2 }) || { .c = 3 } | rate()",
        "{ .a = 1 || !(rootName != `x`) } | rate()",
        "{ .a = 1 } !> { .b = 2 } | rate()",
    ] {
        assert_eq!(needs(together), (true, true), "{together}");
    }
    for metrics in ["{} | rate() by (rootServiceName)", "{} | max_over_time(span:childCount)", "{} | compare({ .a = 1 })"] {
        assert_eq!(needs(metrics), (false, true), "{metrics}");
    }
}

#[test]
fn too_many_series_are_cut_and_said_to_be() {
    let limited = |query: &str, max| {
        let plan = plan(query, range(), 0).with_max_series(max);
        let partial = count(&plan, &spans());
        (partial.is_truncated(), plan.finish(&partial, &|| false).expect("it fits"))
    };
    let (early, answer) = limited("{} | rate() by (span.n)", 2);
    assert!(early && answer.is_truncated);
    assert_eq!(answer.series.len(), 2);
    let (early, answer) = limited("{} | rate() by (span.n)", 7);
    assert!(!early && !answer.is_truncated && answer.series.len() == 7, "as many as allowed");
    let (early, answer) = limited("{} | quantile_over_time(duration, .1, .5, .9)", 2);
    assert!(early || answer.is_truncated);
    assert_eq!(answer.series.len(), 2);
    let (early, answer) = limited("{} | quantile_over_time(duration, .5)", 1);
    assert!(!early && !answer.is_truncated, "buckets are no series");
    let (early, answer) = limited("{} | compare({ status = error }, 1)", 10);
    assert!(!early && answer.is_truncated && answer.series.len() == 10, "values that are not listed are no series");
    let plan = plan("{} | rate() by (span.n)", range(), 0).with_max_series(4);
    assert!(plan.truncation_message().starts_with("Response exceeds maximum series limit of 4, a partial response is returned."));
    let mut merged = count(&plan, &spans()[..4]);
    assert!(!merged.is_truncated());
    plan.merge(&mut merged, count(&plan, &spans()[3..]));
    assert!(merged.is_truncated() && merged.groups() == 4);
    assert!(vivace_traceql::Partial::from_message(merged.to_message(), &plan).expect("its own").is_truncated());
}

/// Many traces of one span each, over the whole range.
fn many() -> Vec<Span> {
    let one = &spans()[0];
    (0..200)
        .map(|i| Span { start_ms: i * 600, duration_ms: 100 + 10 * i, n: Value::Int(i64::try_from(i).expect("small")), ..one.clone() })
        .collect()
}

fn all_exemplars(answer: &Answer) -> Vec<&Exemplar> {
    answer.series.iter().flat_map(|series| &series.exemplars).collect()
}

#[test]
fn exemplars_are_spread_over_time_and_traces() {
    let answer = answer_of("{} | rate() by (span.g)", &many(), 10);
    let shown = all_exemplars(&answer);
    assert!((6..=10).contains(&shown.len()), "{}", shown.len());
    let traces: BTreeSet<String> = shown.iter().map(|exemplar| exemplar.labels[0].value.to_string()).collect();
    assert_eq!(traces.len(), shown.len(), "each of another trace");
    let slot = |exemplar: &Exemplar| (exemplar.timestamp_ms - i64::try_from((T0 - 60 * SECOND) / MS).expect("small") - 1) / 36_000;
    for at in 0..5 {
        assert!(shown.iter().filter(|exemplar| slot(exemplar) == at).count() <= 2);
    }
    for exemplar in &shown {
        let names: Vec<&str> = exemplar.labels.iter().map(|label| &*label.key).collect();
        assert_eq!(names, ["trace:id", "span.g"]);
        let sample = answer.series[0].samples.iter().find(|sample| sample.timestamp_ms >= exemplar.timestamp_ms).expect("its interval");
        assert_eq!(exemplar.value, sample.value, "that of the series");
    }
    assert!(answer.series[0].exemplars.is_sorted_by_key(|exemplar| exemplar.timestamp_ms));
}

#[test]
fn exemplars_show_the_spans_own_value() {
    let answer = answer_of("{ span.n > 0 } | max_over_time(span.n)", &many(), 10);
    for exemplar in all_exemplars(&answer) {
        let number = exemplar.labels.iter().find(|label| &*label.key == "span.n").expect("it was asked for");
        assert_eq!(number.value.to_string(), exemplar.value.to_string());
    }
    let answer = answer_of("{} | quantile_over_time(duration, 0, 1)", &many(), 40);
    assert_eq!(answer.series.len(), 2);
    let (low, high) = (&answer.series[0], &answer.series[1]);
    assert!(!low.exemplars.is_empty() && !high.exemplars.is_empty());
    let largest = |series: &Series| series.exemplars.iter().map(|exemplar| exemplar.value).fold(0.0, f64::max);
    assert!(largest(low) < largest(high));
}

#[test]
fn how_many_exemplars() {
    let shown = |query: &str, exemplars| all_exemplars(&answer_of(query, &many(), exemplars)).len();
    assert_eq!(shown("{} | rate()", 0), 0);
    assert_eq!(shown("{} | rate()", 1), 1);
    assert_eq!(shown("{} | rate() with(exemplars=2)", 50), 2);
    assert_eq!(shown("{} | rate() with(exemplars=false)", 50), 0);
    assert_eq!(shown("{} | compare({ status = error })", 50), 0);
    assert!(shown("{} | rate() with(exemplars=true)", 4) > 0);
    assert!(shown("{} | rate() with(exemplars=100000)", 0) <= 100);
    assert_eq!(shown("({} | rate()) + ({ name = \"m\" } | rate())", 4), 4, "two of each part");
    assert!(shown("({} | rate()) / ({ name = \"m\" } | rate() by (span.g))", 20) <= 10, "of the side with labels alone");
    let instant = MetricsRange::instant(T0, T0 + SECOND, Release::V2).expect("a range");
    let plan = plan("{} | rate()", instant, 50);
    assert!(all_exemplars(&plan.finish(&count(&plan, &many()), &|| false).expect("it fits")).is_empty());
}

#[test]
fn comparisons_drop_exemplars_that_fail() {
    let answer = answer_of("{} | max_over_time(span.n) > 150", &many(), 100);
    let shown = all_exemplars(&answer);
    assert!(!shown.is_empty() && shown.iter().all(|exemplar| exemplar.value > 150.0));
    let answer = answer_of("({} | max_over_time(span.n)) * 2", &many(), 10);
    for exemplar in all_exemplars(&answer) {
        let number = exemplar.labels.iter().find(|label| &*label.key == "span.n");
        assert!(number.is_none_or(|label| label.value.to_string().parse::<f64>().expect("a number") * 2.0 == exemplar.value));
    }
}

fn lines(query: &str) -> Vec<String> {
    answer_of(query, &spans(), 0).series.iter().map(|series| format!("{}: {:?}", labels(series), values(series))).collect()
}

#[test]
fn arithmetic_between_series() {
    // Names vanish where only one side has one, and unmatched series with them.
    assert_eq!(
        lines("({} | count_over_time()) - ({} | count_over_time() by (resource.service.name))"),
        ["resource.service.name=`A`: [0.0, 1.0, 2.0]", "resource.service.name=`B`: [1.0, 2.0, 1.0]"]
    );
    assert_eq!(lines("({} | rate() by (span.g)) + ({} | rate() by (status))"), [""; 0]);
    // Labels are matched whatever their order.
    assert_eq!(
        lines("({ span.n = 4 } | count_over_time() by (span.g, status)) + ({ span.n = 4 } | count_over_time() by (status, span.g))"),
        ["span.g=`y`,status=error: [0.0, 2.0, 0.0]"]
    );
    // No sample where a side has none, and none of a division by zero.
    assert_eq!(lines("({} | count_over_time()) / ({ status = error } | count_over_time())").len(), 1);
    assert_eq!(lines("({} | max_over_time(duration)) * 2 + 1"), ["__name__=`max_over_time`: [3.0, 9.0, 17.0]"]);
    assert_eq!(
        lines("({ status = error } | max_over_time(duration)) + ({} | count_over_time())"),
        ["__name__=`(max_over_time + count_over_time)`: [7.0]"]
    );
    assert_eq!(lines("(({} | count_over_time() by (span.g)) > 1) | topk(1)").len(), 2);
    assert_eq!(lines("({} | rate()) - ({} | rate())"), ["__name__=`(rate - rate)`: [0.0, 0.0, 0.0]"]);
}

#[test]
fn equal_parts_are_counted_once() {
    let plan: MetricsPlan = plan("({} | rate()) / ({} | rate())", range(), 0);
    assert_eq!(plan.partial().to_message().stages.len(), 1);
}

#[test]
fn what_cannot_match_is_not_fetched() {
    use vivace_traceql::TraceFilter;
    let filter = |query: &str| plan(query, range(), 0).fetch().filter.clone();
    assert_eq!(filter("{ false } | rate()"), TraceFilter::Nothing);
    assert_ne!(filter("({ false } | rate()) + ({ name = \"x\" } | rate())"), TraceFilter::Nothing);
    assert_eq!(filter("({ name = \"x\" } | rate()) / ({} | rate())"), TraceFilter::All);
    let fetch = plan("{} | rate()", range(), 0).fetch().clone();
    assert_eq!(fetch.range, TimeRange::between(T0 - 60 * SECOND, T0 + 120 * SECOND));
    assert_eq!(parse("{}").expect("a query").metrics_plan(range(), 0).expect_err("refused").to_string(), "not a metrics query");
}
