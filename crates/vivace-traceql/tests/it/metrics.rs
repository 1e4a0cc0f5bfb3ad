//! Series of the worked examples.

use vivace_core::{SpanId, TraceId};
use vivace_traceql::{
    Answer, Attribute, Batch, Fetch, Intrinsic, Kind, Label, MetricsPlan, MetricsRange, Partial, Release, Scope, SpanAttributes, SpanRow,
    Status, TraceRow, Value, parse,
};

use crate::data::text;

pub(crate) use vivace_core::SECOND;
/// A multiple of 60 s.
pub(crate) const T0: u64 = 1_700_000_040 * SECOND;

#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) start_ms: u64,
    pub(crate) duration_ms: u64,
    pub(crate) service: &'static str,
    pub(crate) g: Value,
    pub(crate) n: Value,
    pub(crate) status: Status,
}

/// The seven spans of the worked examples of metrics; each is a trace. Source: docs/facts/traceql.md, "Worked examples".
pub(crate) fn spans() -> Vec<Span> {
    let span = |start_ms, duration_ms, service, g: &str, n| {
        let g = if g.is_empty() { Value::Nil } else { text(g) };
        Span { start_ms, duration_ms, service, g, n, status: Status::Unset }
    };
    vec![
        span(0, 1000, "A", "x", Value::Int(1)),
        span(1, 500, "A", "x", Value::Int(2)),
        span(30_000, 2000, "A", "y", Value::Int(3)),
        Span { status: Status::Error, ..span(60_000, 4000, "B", "y", Value::Int(4)) },
        span(60_001, 8000, "B", "", Value::Int(5)),
        span(90_000, 100, "B", "x", Value::Float(2.5)),
        span(119_999, 3000, "A", "x", Value::Int(100)),
    ]
}

/// A batch of these spans, whose numbers are those of their traces.
pub(crate) fn batch<'a>(spans: impl IntoIterator<Item = (usize, &'a Span)>, fetch: &Fetch) -> Batch {
    let mut batch = Batch { columns: vec![Vec::new(); fetch.span_attributes.len()], ..Batch::default() };
    for (number, span) in spans {
        let id = u64::try_from(number + 1).expect("few");
        let start = T0 + span.start_ms * 1_000_000;
        let at = batch.spans.len();
        batch.spans.push(SpanRow {
            id: SpanId(id.to_be_bytes()),
            start_unix_nanos: start,
            duration_nanos: span.duration_ms * 1_000_000,
            nested_set_left: 1,
            nested_set_right: 2,
            nested_set_parent: -1,
            child_count: 0,
            resource: 0,
        });
        batch.traces.push(TraceRow {
            trace_id: TraceId(u128::from(id).to_be_bytes()),
            start_unix_nanos: start,
            end_unix_nanos: start + span.duration_ms * 1_000_000,
            root_name: "m".into(),
            root_service: span.service.into(),
            services: Vec::new(),
            spans: at..at + 1,
        });
        for (column, attribute) in batch.columns.iter_mut().zip(&fetch.span_attributes) {
            column.push(value(span, attribute));
        }
    }
    batch
}

fn value(span: &Span, attribute: &Attribute) -> Value {
    match attribute {
        Attribute::Named { scope: Scope::Resource, key } if &**key == "service.name" => text(span.service),
        Attribute::Named { scope: Scope::Span, key } if &**key == "g" => span.g.clone(),
        Attribute::Named { scope: Scope::Span, key } if &**key == "n" => span.n.clone(),
        Attribute::Intrinsic(Intrinsic::Name) => text("m"),
        Attribute::Intrinsic(Intrinsic::Status) => Value::Status(span.status),
        Attribute::Intrinsic(Intrinsic::Kind) => Value::Kind(Kind::Unspecified),
        Attribute::Intrinsic(Intrinsic::StatusMessage | Intrinsic::ScopeName | Intrinsic::ScopeVersion) => text(""),
        _ => Value::Nil,
    }
}

pub(crate) fn plan(query: &str, range: MetricsRange, exemplars: usize) -> MetricsPlan {
    let plan = parse(query).expect(query).metrics_plan(range, exemplars).expect(query);
    if !plan.wants_all_attributes() {
        return plan;
    }
    let attributes = ["span.g", "span.n", "resource.service.name", "span.zz"];
    plan.with_attributes(attributes.map(|text| vivace_traceql::parse_attribute(text).expect(text)))
}

pub(crate) fn range() -> MetricsRange {
    MetricsRange::range(T0, T0 + 120 * SECOND, Some(60 * SECOND), Release::V3).expect("a range")
}

pub(crate) fn count(plan: &MetricsPlan, spans: &[Span]) -> Partial {
    let mut partial = plan.partial();
    assert!(plan.observe(&mut partial, &batch(spans.iter().enumerate(), plan.fetch()), &|| false).is_continue());
    partial
}

fn answer(query: &str, range: MetricsRange) -> Answer {
    let plan = plan(query, range, 0);
    plan.finish(&count(&plan, &spans()), &|| false).expect("it fits")
}

fn shown(labels: &[Label]) -> String {
    labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect::<Vec<_>>().join(",")
}

/// Series by their labels: three values, `–` where there is none.
fn series(answer: &Answer, range: &MetricsRange) -> Vec<String> {
    let line = |series: &vivace_traceql::Series| {
        let values = (0..range.intervals()).map(|interval| {
            let sample = series.samples.iter().find(|sample| sample.timestamp_ms == range.timestamp_ms(interval));
            sample.map_or("–".to_owned(), |sample| format!("{}", (sample.value * 1e4).round() / 1e4))
        });
        format!("{}: {}", shown(&series.labels), values.collect::<Vec<_>>().join(", "))
    };
    answer.series.iter().map(line).collect()
}

/// By their numbers. Source: docs/facts/traceql.md, "Worked examples".
const EXAMPLES: &[(u32, &str, &[&str])] = &[
    (124, "{} | count_over_time()", &["__name__=`count_over_time`: 1, 3, 3"]),
    (126, "{} | rate()", &["__name__=`rate`: 0.0167, 0.05, 0.05"]),
    (127, "{} | count_over_time() by (span.g)", &["span.g=`nil`: 0, 0, 1", "span.g=`x`: 1, 1, 2", "span.g=`y`: 0, 2, 0"]),
    (
        128,
        "{} | count_over_time() by (span.g, resource.service.name)",
        &[
            "resource.service.name=`B`: 0, 0, 1",
            "span.g=`x`,resource.service.name=`A`: 1, 1, 1",
            "span.g=`x`,resource.service.name=`B`: 0, 0, 1",
            "span.g=`y`,resource.service.name=`A`: 0, 1, 0",
            "span.g=`y`,resource.service.name=`B`: 0, 1, 0",
        ],
    ),
    (129, "{} | count_over_time() by (span.zz)", &["span.zz=`nil`: 1, 3, 3"]),
    (130, "{} | count_over_time() by (status)", &["status=error: 0, 1, 0", "status=unset: 1, 2, 3"]),
    (131, "{} | min_over_time(duration)", &["__name__=`min_over_time`: 1, 0.5, 0.1"]),
    (132, "{} | max_over_time(span.n)", &["__name__=`max_over_time`: 1, 4, 100"]),
    (
        133,
        "{} | sum_over_time(span.n) by (resource.service.name)",
        &["resource.service.name=`A`: 1, 5, 100", "resource.service.name=`B`: –, 4, 7.5"],
    ),
    (134, "{} | avg_over_time(span.n)", &["__name__=`avg_over_time`: 1, 3, 35.8333"]),
    (
        135,
        "{} | avg_over_time(duration) by (resource.service.name)",
        &["resource.service.name=`A`: 1, 1.25, 3", "resource.service.name=`B`: –, 4, 4.05"],
    ),
    (136, "{} | min_over_time(span.zz)", &[]),
    (137, "{ name = \"none\" } | count_over_time()", &["__name__=`count_over_time`: 0, 0, 0"]),
    (138, "{ name = \"none\" } | count_over_time() by (name)", &[]),
    (139, "{ false } | count_over_time()", &[]),
    (
        140,
        "{} | histogram_over_time(duration)",
        &[
            "__bucket=0.134217728: 0, 0, 1",
            "__bucket=0.536870912: 0, 1, 0",
            "__bucket=1.073741824: 1, 0, 0",
            "__bucket=2.147483648: 0, 1, 0",
            "__bucket=4.294967296: 0, 1, 1",
            "__bucket=8.589934592: 0, 0, 1",
        ],
    ),
    (
        141,
        "{} | histogram_over_time(span.n)",
        &["__bucket=128.0: 0, 0, 1", "__bucket=2.0: 0, 1, 0", "__bucket=4.0: 0, 2, 0", "__bucket=8.0: 0, 0, 1"],
    ),
    (142, "{} | quantile_over_time(duration, 0.5, .9)", &["p=0.5: 1.0737, 2.1475, 4.295", "p=0.9: 1.0737, 4.295, 8.5899"]),
    (
        143,
        "{} | quantile_over_time(span.n, 0.5) by (span.g)",
        &["p=0.5: 0, 0, 8", "span.g=`x`,p=0.5: 0, 2, 128", "span.g=`y`,p=0.5: 0, 2.8284, 0"],
    ),
    (144, "{} | count_over_time() by (span.g) | topk(1)", &["span.g=`x`: 1, –, 2", "span.g=`y`: –, 2, –"]),
    (145, "{} | count_over_time() by (span.g) | bottomk(1)", &["span.g=`nil`: –, 0, –", "span.g=`y`: 0, –, 0"]),
    (
        146,
        "{} | count_over_time() by (span.n) | topk(2)",
        &["span.n=2.5: 0, –, 1", "span.n=1: 1, –, –", "span.n=100: –, –, 1", "span.n=3: –, 1, –", "span.n=4: –, 1, –"],
    ),
    (147, "{} | count_over_time() > 2", &["__name__=`count_over_time`: –, 3, 3"]),
    (148, "{ resource.service.name = \"A\" } | max_over_time(duration) > 1500ms", &["__name__=`max_over_time`: –, 2, 3"]),
    (
        149,
        "({ status = error } | count_over_time()) / ({} | count_over_time())",
        &["__name__=`(count_over_time / count_over_time)`: 0, 0.3333, 0"],
    ),
    (
        150,
        "({} | count_over_time() by (span.g)) / ({} | count_over_time())",
        &["span.g=`nil`: 0, 0, 0.3333", "span.g=`x`: 1, 0.3333, 0.6667", "span.g=`y`: 0, 0.6667, 0"],
    ),
    (151, "10 - ({ resource.service.name = \"A\" } | count_over_time() by (span.g))", &["span.g=`x`: 9, 9, 9", "span.g=`y`: 10, 9, 10"]),
    (
        152,
        "({ resource.service.name = \"A\" } | count_over_time() by (span.g)) + ({ resource.service.name = \"B\" } | count_over_time() by (span.g))",
        &["span.g=`x`: 1, 1, 2", "span.g=`y`: 0, 2, 0"],
    ),
    (153, "({} | max_over_time(duration)) / 0", &[]),
];

#[test]
fn worked_examples() {
    let mut wrong = Vec::new();
    for (number, query, want) in EXAMPLES {
        let found = series(&answer(query, range()), &range());
        if found != *want {
            wrong.push(format!("{number}: {query}\n  found {found:#?}\n  not   {want:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn example_125_ranges_are_aligned_outward() {
    let range = MetricsRange::range(T0 + 10 * SECOND, T0 + 110 * SECOND, Some(60 * SECOND), Release::V2).expect("a range");
    assert_eq!(series(&answer("{} | count_over_time()", range), &range), ["__name__=`count_over_time`: 1, 3, 3"]);
}

#[test]
fn example_154_compare() {
    let found = series(&answer("{} | compare({ status = error })", range()), &range());
    for want in [
        "__meta_type=`baseline`,span.g=`x`: 1, 1, 2",
        "__meta_type=`baseline`,span.g=`y`: 0, 1, 0",
        "__meta_type=`selection`,span.g=`y`: 0, 1, 0",
        "__meta_type=`baseline_total`,span.g=`nil`: 1, 2, 2",
        "__meta_type=`selection_total`,span.g=`nil`: 0, 1, 0",
        "__meta_type=`baseline`,status=unset: 1, 2, 3",
        "__meta_type=`selection`,status=error: 0, 1, 0",
        "__meta_type=`baseline`,span.n=2.5: 0, 0, 1",
        "__meta_type=`selection`,rootName=`m`: 0, 1, 0",
        "__meta_type=`baseline`,kind=unspecified: 1, 2, 3",
    ] {
        assert!(found.iter().any(|line| line == want), "{want} is not in {found:#?}");
    }
    assert!(!found.iter().any(|line| line.contains("span.zz") || line.contains("duration")), "{found:#?}");
    assert!(!found.iter().any(|line| line.contains("selection,span.g=`nil`")), "nil is no value");
}

/// What is found by looking at each span is what columns of all names give.
#[test]
fn attributes_span_by_span_compare_as_columns_do() {
    for query in ["{} | compare({ status = error })", "{ span.g != nil } | compare({ span.n > 2 || resource.service.name = \"B\" }, 1)"] {
        let by_columns = answer(query, range());
        let plan = parse(query).expect(query).metrics_plan(range(), 0).expect(query);
        let names: Vec<Attribute> = ["span.g", "span.n", "resource.service.name", "span.zz"]
            .map(|text| vivace_traceql::parse_attribute(text).expect(text))
            .to_vec();
        let mut attributes = SpanAttributes { names: names.clone(), ..SpanAttributes::default() };
        for span in &self::spans() {
            attributes.offsets.push(u32::try_from(attributes.entries.len()).expect("few"));
            let of_span = (0..).zip(&names).map(|(name, attribute)| (name, value(span, attribute)));
            attributes.entries.extend(of_span.filter(|(_, value)| *value != Value::Nil));
        }
        attributes.offsets.push(u32::try_from(attributes.entries.len()).expect("few"));
        let mut partial = plan.partial();
        let spans = spans();
        let batch = batch(spans.iter().enumerate(), plan.fetch());
        assert!(plan.observe_with(&mut partial, &batch, &attributes, &|| false).is_continue());
        assert_eq!(series(&plan.finish(&partial, &|| false).expect("it fits"), &range()), series(&by_columns, &range()), "{query}");
    }
}

#[test]
fn compare_lists_the_most_frequent_values() {
    let found = series(&answer("{} | compare({ status = error }, 1)", range()), &range());
    assert!(found.iter().any(|line| line == "__meta_type=`baseline`,span.g=`x`: 1, 1, 2"), "{found:#?}");
    assert!(!found.iter().any(|line| line.starts_with("__meta_type=`baseline`,span.g=`y`")), "{found:#?}");
    assert!(found.iter().any(|line| line == "__meta_type=`baseline_total`,span.g=`nil`: 1, 2, 2"), "totals count all");
    // The selection is open on the left and closed on the right.
    let query = format!("{{}} | compare({{ true }}, 5, {}, {})", T0, T0 + 30 * SECOND);
    let found = series(&answer(&query, range()), &range());
    assert!(found.iter().any(|line| line == "__meta_type=`selection_total`,name=`nil`: 0, 2, 0"), "{found:#?}");
    assert!(found.iter().any(|line| line == "__meta_type=`baseline_total`,name=`nil`: 1, 1, 3"), "{found:#?}");
}

#[test]
fn examples_155_to_157_instant() {
    let range = MetricsRange::instant(T0, T0 + 120 * SECOND, Release::V2).expect("a range");
    let found = |query: &str| series(&answer(query, range), &range);
    assert_eq!(found("{} | count_over_time()"), ["__name__=`count_over_time`: 6"]);
    assert_eq!(found("{} | rate()"), ["__name__=`rate`: 0.05"]);
    assert_eq!(found("{} | count_over_time() by (span.g)"), ["span.g=`nil`: 1", "span.g=`x`: 3", "span.g=`y`: 2"]);
    assert_eq!(found("{ false } | rate()"), [""; 0]);
    let answer = answer("{ name = \"none\" } | rate()", range);
    assert_eq!(answer.series[0].to_instant_series().expect("zero is a value").value, 0.0);
}
