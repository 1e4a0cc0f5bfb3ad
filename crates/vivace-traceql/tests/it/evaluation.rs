//! What queries find in the data of the worked examples.

use vivace_core::TimeRange;
use vivace_proto::otlp::{KeyValue, any_value};
use vivace_proto::tempopb::{ServiceStats, TraceSearchMetadata};
use vivace_traceql::{SearchPlan, Value, parse};

use crate::data::{self, BASE, MS};
use crate::examples::EXAMPLES;

fn plan(query: &str) -> SearchPlan {
    parse(query).expect(query).search_plan(TimeRange::ALL).expect(query)
}

fn search(query: &str) -> Vec<TraceSearchMetadata> {
    let plan = plan(query);
    plan.evaluate(&data::batch(&data::traces(), plan.fetch()), 100)
}

fn shown(attributes: &[KeyValue]) -> Vec<String> {
    let text = |attribute: &KeyValue| match attribute.value.clone().and_then(|v| v.value) {
        Some(any_value::Value::StringValue(v)) => v,
        Some(any_value::Value::IntValue(v)) => v.to_string(),
        Some(any_value::Value::DoubleValue(v)) => format!("{v:?}"),
        Some(any_value::Value::BoolValue(v)) => v.to_string(),
        Some(any_value::Value::ArrayValue(v)) => format!("[{}]", v.values.len()),
        other => panic!("unexpected {other:?}"),
    };
    attributes.iter().map(|a| format!("{}={}", a.key, text(a))).collect()
}

/// Spans by name, per trace and spanset, as the examples write them.
fn found(results: &[TraceSearchMetadata]) -> String {
    let names: Vec<(String, &str)> =
        data::traces().iter().flat_map(|t| t.spans.iter().map(|s| (format!("{:016x}", s.id), s.name)).collect::<Vec<_>>()).collect();
    let name = |id: &str| names.iter().find(|(known, _)| known == id).expect("a known span").1;
    let traces = results.iter().map(|trace| {
        let sets = trace.span_sets.iter().map(|set| {
            assert_eq!(set.matched as usize, set.spans.len());
            let spans = set.spans.iter().map(|s| name(&s.span_id)).collect::<Vec<_>>().join(" ");
            if set.attributes.is_empty() { spans } else { format!("{spans} {{{}}}", shown(&set.attributes).join(", ")) }
        });
        format!("{}: {}", trace.trace_id, sets.collect::<Vec<_>>().join(" & "))
    });
    traces.collect::<Vec<_>>().join("; ")
}

#[test]
fn worked_examples() {
    let mut wrong = Vec::new();
    for (number, query, want) in EXAMPLES {
        let found = found(&search(query));
        if found != *want {
            wrong.push(format!("{number}: {query}\n  found {found}\n  not   {want}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What storage may skip can never match.
#[test]
fn filters_are_necessary_conditions() {
    let traces = data::traces();
    let mut decided = 0;
    for (number, query, _) in EXAMPLES {
        let filter = plan(query).fetch().filter.clone();
        for trace in search(query) {
            let stored = traces.iter().find(|t| t.id == trace.trace_id).expect("a known trace");
            assert!(stored.passes(&filter), "{number}: {query}: {filter:?} skips {}", stored.id);
        }
        decided += traces.iter().filter(|trace| !trace.passes(&filter)).count();
    }
    assert!(decided > 100, "filters skip something: {decided}");
}

/// What is missing is not false: only comparisons, which are false for it, are true when negated.
#[test]
fn the_opposite_of_what_is_missing_is_missing() {
    const ALL: &str = "1a: A B C D E; 2b: F G H I; 3c: J K";
    for (query, want) in [
        ("{ !span.missing }", ""),
        ("{ !!span.missing }", ""),
        ("{ !span.retry }", "1a: A"),
        ("{ !!span.retry }", ""),
        ("{ !.retry && true }", "1a: A"),
        ("{ !span.retry || span.retry = nil }", ALL),
        ("{ (!span.retry) = true }", "1a: A"),
        ("{ (!span.missing) = false }", ""),
        ("{ (!span.missing) = nil }", ALL),
        ("{ (!span.missing) != nil }", ""),
        ("{ (-span.missing) = nil }", ALL),
        ("{ -span.missing < 1 }", ""),
        ("{ !(span.missing = 1) }", ALL),
        ("{ !(span.missing != 1) }", ALL),
        ("{ !(span.missing = nil) }", ""),
        ("{ !(span.missing != nil) }", ALL),
        ("{ !(span.missing && true) }", ALL),
        ("{ !(span.missing || true) }", ""),
        ("{ !event.missing }", ""),
    ] {
        assert_eq!(found(&search(query)), want, "{query}");
    }
}

#[test]
fn storage_is_asked_for_what_a_negated_attribute_needs() {
    use vivace_traceql::{Comparison, Condition, SpanFilter, TraceFilter, Value, parse_attribute};
    let leaf = |value| {
        let attribute = parse_attribute("span.a").expect("an attribute");
        TraceFilter::AnySpan(SpanFilter::Leaf(Condition { attribute, comparison: Comparison::Equal(Value::Bool(value)) }))
    };
    assert_eq!(plan("{ !span.a }").fetch().filter, leaf(false));
    assert_eq!(plan("{ !!span.a }").fetch().filter, leaf(true));
    assert_eq!(plan("{ !(span.a && span.b) }").fetch().filter, TraceFilter::All);
}

#[test]
fn what_folds_to_nothing_is_not_fetched() {
    use vivace_traceql::TraceFilter;
    for query in ["{ false }", "{ 1 = 2 } && { .a = 1 }", "{ \"a\" =~ \"b\" } | count() > 1", "{ .a = 5s }", "{ .a = 1 } > { nil = nil }"] {
        assert_eq!(plan(query).fetch().filter, TraceFilter::Nothing, "{query}");
    }
    for query in ["{}", "{ true || .a = 1 }", "{ !(.a = 1) }", "{ .a = 1 } || {}", "{} | by(.a)"] {
        assert_eq!(plan(query).fetch().filter, TraceFilter::All, "{query}");
    }
}

#[test]
fn fetches_what_is_mentioned() {
    let plan = plan("{ span.a = 1 && duration > 1s && event.x = 2 && link:traceID != \"\" } | by(.b) | select(name, span.a) | avg(.c) > 1");
    let names = |attributes: &[vivace_traceql::Attribute]| attributes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&plan.fetch().span_attributes), ["span.a", ".b", "name", ".c"]);
    assert_eq!(names(&plan.fetch().event_attributes), ["event.x"]);
    assert_eq!(names(&plan.fetch().link_attributes), ["link:traceID"]);
}

#[test]
fn a_result_says_what_was_asked() {
    let results = search("{ name = \"C\" } | select(span.currency, resource.tier)");
    let [trace] = &results[..] else { panic!("{results:?}") };
    assert_eq!((trace.root_trace_name.as_str(), trace.root_service_name.as_str()), ("A", "gateway"));
    assert_eq!((trace.start_time_unix_nano, trace.duration_ms), (BASE, 300));
    assert_eq!(trace.service_stats["payment"], ServiceStats { span_count: 2, error_count: 1 });
    let span = &trace.span_sets[0].spans[0];
    assert_eq!((span.name.as_str(), span.span_id.as_str()), ("C", "a100000000000003"));
    assert_eq!((span.start_time_unix_nano, span.duration_nanos), (BASE + 80 * MS, 150 * MS));
    assert_eq!(shown(&span.attributes), ["currency=EUR", "tier=prod"]);
}

#[test]
fn attributes_of_spans() {
    let attributes = |query: &str| shown(&search(query)[0].span_sets[0].spans[0].attributes);
    assert_eq!(attributes("{ status = error && kind = client && duration > 1ms }"), ["status=error", "kind=client"]);
    assert_eq!(attributes("{ span.tier = nil && resource.service.name = \"cart\" }"), ["tier=nil", "service.name=cart"]);
    assert_eq!(attributes("{ span.tags = \"a\" }"), ["tags=a"], "the element that was asked for");
    assert_eq!(attributes("{ span.tags != \"z\" }"), ["tags=[2]"]);
    assert_eq!(attributes("{ span.tags = \"a\" } | select(span.tags)"), ["tags=[2]"]);
    assert!(attributes("{ span.tags = \"z\" || name = \"B\" }").is_empty(), "a value that satisfies nothing was not asked for");
    assert_eq!(attributes("{ name = \"A\" } > { kind = client && .region =~ \"e.\" }"), ["kind=client", "region=eu"]);
    assert_eq!(attributes("{ !(kind = server) && name = \"B\" }"), ["kind=client"]);
    assert_eq!(attributes("{ nestedSetLeft = 1.0 }"), ["nestedSetLeft=1"]);
    assert_eq!(attributes("{ .tier = \"silver\" && resource.tier != nil }"), ["tier=silver", "tier=prod"]);
    assert_eq!(attributes("{ event.code = 9 }"), ["code=9"], "of the event that matched");
    assert_eq!(attributes("{ event:name = \"exception\" } && { event.code = 9 }"), ["event:name=exception", "code=9"]);
    assert_eq!(attributes("{ name = \"C\" } | select(event:timeSinceStart)"), ["event:timeSinceStart=100ms"]);
    assert!(attributes("{}").is_empty());
    let other = search("{ name = \"A\" } > { status = error }");
    assert_eq!(other[0].span_sets[0].spans[0].name, "", "another name was asked for");
    let unnamed = search("{ span:id = \"A100000000000003\" }");
    assert_eq!(unnamed[0].span_sets[0].spans[0].name, "", "not mentioned");
}

#[test]
fn spans_per_spanset_and_matched() {
    let plan = plan("{}");
    let batch = data::batch(&data::traces(), plan.fetch());
    let sizes = |max| plan.evaluate(&batch, max).iter().map(|t| (t.span_sets[0].spans.len(), t.span_sets[0].matched)).collect::<Vec<_>>();
    assert_eq!(sizes(2), [(2, 5), (2, 4), (2, 2)]);
    assert_eq!(sizes(0), [(3, 5), (3, 4), (2, 2)]);
}

#[test]
fn a_trace_is_searched_if_it_overlaps_the_range() {
    let between = |start_ms: u64, end_ms: u64| {
        let plan = parse("{}").expect("a query").search_plan(TimeRange::between(BASE + start_ms * MS, BASE + end_ms * MS)).expect("a plan");
        plan.evaluate(&data::batch(&data::traces(), plan.fetch()), 1).into_iter().map(|t| t.trace_id).collect::<Vec<_>>()
    };
    assert_eq!(between(0, 1000), ["1a"]);
    assert_eq!(between(6000, 6000), ["2b"]);
    assert_eq!(between(7999, 9000), ["2b", "3c"], "bounds at whole seconds");
    assert_eq!(between(20_000, 30_000), [""; 0]);
}

#[test]
fn metrics_queries_are_searched_by_their_filter() {
    assert_eq!(found(&search("{ name = \"B\" } | rate() by(name) | topk(3)")), "1a: B");
    let error = parse("({} | rate()) + ({} | rate())").expect("a query").search_plan(TimeRange::ALL).expect_err("no search");
    assert_eq!(error.to_string(), "arithmetic between metrics in a search is not supported yet");
    assert!(parse("{} with(most_recent=true)").expect("a query").search_plan(TimeRange::ALL).expect("a plan").most_recent());
    assert!(!parse("{} with(most_recent=1)").expect("a query").most_recent());
}

#[test]
fn evaluation_errors_are_nil() {
    assert_eq!(found(&search("{ span.n / 0 = 1 || name = \"A\" }")), "1a: A");
    assert_eq!(found(&search("{ !span.n || name = \"A\" }")), "1a: A");
    assert_eq!(found(&search("{ span.tags + 1 = nil }")), "1a: A B C D E; 2b: F G H I; 3c: J K");
    assert_eq!(found(&search("{ span.missing || true }")), "1a: A B C D E; 2b: F G H I; 3c: J K");
}

#[test]
fn groups_are_told_apart_by_type_and_value() {
    let mut traces = data::traces();
    traces.truncate(1);
    let values = [Value::Int(5), Value::Float(5.0), data::text("5"), Value::Opaque, Value::Float(5.0)];
    for (span, value) in traces[0].spans.iter_mut().zip(values) {
        span.attributes = vec![("n", value)];
    }
    let plan = plan("{} | by(span.n)");
    let results = plan.evaluate(&data::batch(&traces, plan.fetch()), 100);
    assert_eq!(found(&results), "1a: A {by(span.n)=5} & B E {by(span.n)=5.0} & C {by(span.n)=5} & D {by(span.n)=nil}");
}

#[test]
fn a_batch_with_missing_columns_is_all_nil() {
    let plan = plan("{ name = \"A\" || event.x = 1 || span.a + 1 > 0 } | by(.x)");
    let mut batch = data::batch(&data::traces(), plan.fetch());
    batch.columns.clear();
    batch.events = Default::default();
    batch.spans.truncate(3);
    assert!(plan.evaluate(&batch, 3).is_empty());
}

/// A trace of 100,000 spans: a chain as deep as that, or one parent of all, or roots and orphans in turn.
fn large(shape: usize, columns: usize) -> vivace_traceql::Batch {
    const SPANS: i32 = 100_000;
    let position = |i: i32| match shape {
        0 => (i + 1, 2 * SPANS - i, if i == 0 { -1 } else { i }),
        1 if i == 0 => (1, 2 * SPANS, -1),
        1 => (2 * i, 2 * i + 1, 1),
        _ if i % 2 == 0 => (i + 1, i + 2, -1),
        _ => (0, 0, 0),
    };
    let row = |i: i32| {
        let (left, right, parent) = position(i);
        vivace_traceql::SpanRow {
            id: vivace_core::SpanId(u64::from(i.unsigned_abs() + 1).to_be_bytes()),
            start_unix_nanos: BASE,
            duration_nanos: u64::from(i.unsigned_abs()),
            nested_set_left: left,
            nested_set_right: right,
            nested_set_parent: parent,
            child_count: 1,
            resource: 0,
        }
    };
    vivace_traceql::Batch {
        traces: vec![vivace_traceql::TraceRow {
            trace_id: "1".parse().expect("an id"),
            start_unix_nanos: BASE,
            end_unix_nanos: BASE + MS,
            root_name: "".into(),
            root_service: "".into(),
            services: Vec::new(),
            spans: 0..100_000,
        }],
        spans: (0..SPANS).map(row).collect(),
        columns: (0..columns).map(|_| (0..i64::from(SPANS)).map(Value::Int).collect()).collect(),
        ..Default::default()
    }
}

/// Each of these would take hours if its time grew with the square of the spans.
#[test]
fn a_trace_of_a_hundred_thousand_spans() {
    let matched = |query: &str, shape| {
        let plan = plan(query);
        let found = plan.evaluate(&large(shape, plan.fetch().span_attributes.len()), 3);
        found.first().map_or(0, |trace| trace.span_sets.iter().map(|set| set.matched).sum::<u32>())
    };
    for (query, want) in [
        ("{} >> {}", [99_999, 99_999, 0]),
        ("{} << {}", [99_999, 1, 0]),
        ("{} > {}", [99_999, 99_999, 0]),
        ("{} < {}", [99_999, 1, 0]),
        ("{} ~ {}", [0, 99_999, 50_000]),
        ("{} !>> {}", [1, 1, 100_000]),
        ("{ span.i < 50000 } &>> { span.i >= 50000 }", [100_000, 50_001, 0]),
        ("{ span.i < 10 } &~ { span.i > 99990 }", [0, 18, 9]),
        ("{} | by(span.i) | coalesce() | count() = 100000", [100_000; 3]),
        ("({} | by(span.i) | count() = 1) && ({ span.i != 7 })", [100_000; 3]),
    ] {
        for (shape, want) in want.into_iter().enumerate() {
            assert_eq!(matched(query, shape), want, "{query} on shape {shape}");
        }
    }
}

/// A long chain is a low tree, and finds what a short one does.
#[test]
fn chains_may_be_as_long_as_a_query() {
    let same = |long: &str, short: &str| assert_eq!(found(&search(long)), found(&search(short)), "{short}");
    let many = |what: &str, count: usize, op: &str| (0..count).map(|n| what.replace('#', &n.to_string())).collect::<Vec<_>>().join(op);
    same(&format!("{{ {} || name = \"A\" }}", many("span.x = \"#\"", 1500, " || ")), "{ name = \"A\" }");
    same(&format!("{{ name = \"A\" || {} }}", many("span.x# = 1", 5000, " || ")), "{ name = \"A\" }");
    same(&format!("{{ {} && name = \"A\" }}", many("name != \"#\"", 5000, " && ")), "{ name = \"A\" }");
    same(&format!("{} || {{ name = \"A\" }}", many("{ name = \"#\" }", 1500, " || ")), "{ name = \"A\" }");
    same(
        &format!("{{ name = \"B\" }} && {} && {{ name = \"A\" }}", many("{ }", 500, " && ")),
        "{ name = \"A\" } && { } && { name = \"B\" }",
    );
    same(&format!("{{ name =~ \"{}|A\" }}", many("value-that-nobody-has-of-this-length-#", 2000, "|")), "{ name = \"A\" }");
}
