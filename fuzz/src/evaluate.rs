//! Queries on made-up traces: searched, counted, and counted in parts, which must come to the same.

use std::sync::Arc;

use vivace_core::{SpanId, TimeRange, TraceId};
use vivace_traceql::{
    Answer, Batch, ChildRows, Fetch, Kind, MetricsPlan, MetricsRange, Partial, Query, Release, ServiceStat, SpanRow, Status, TraceRow,
    Value, parse, parse_attribute,
};

use crate::input::Input;

/// Where a text from nowhere would rarely make sense.
const QUERIES: &[&str] = &[
    "{ span.a = 1 } >> { span.b != nil }",
    "{ span.a > 1 || event.a = 2 && link.b = \"x\" }",
    "({ span.a = nil } !> { name =~ \"a.*\" }) &>> { !span.b }",
    "{ .a + 1 > -.b * 2 ^ .c } ~ { .a } << { duration > 1ms }",
    "{} | by(span.a) | count() > 1 | coalesce() | avg(span.b) >= 0 | select(event.a, link.b, rootName)",
    "({ .a } | max(.b) > 1) && ({ .b } | sum(duration) < 1s)",
    "{ nestedSetParent < 0 || span:childCount > 0 || trace:id != \"1\" || span:parentID = \"\" }",
    "{} | rate() by (span.a, .b, name)",
    "{ .a != 1 } | quantile_over_time(span.b, 0, .5, 1) by (span.a)",
    "{} | histogram_over_time(event:timeSinceStart) by (status)",
    "{} | avg_over_time(.a) by (.b)",
    "{} | min_over_time(span.a) by (link.b) | topk(2)",
    "{} | max_over_time(traceDuration) > 1 | bottomk(1)",
    "{} | compare({ span.a = 1 && event.a != nil }, 2)",
    "(({ .a } | count_over_time() by (.b)) / ({} | count_over_time())) * 2 - ({} | rate() by (.b)) > 0",
    "({ .a } > {}) | sum_over_time(duration) by (kind)",
];

const START: u64 = 1_700_000_000_000_000_000;
const RANGE: u64 = 100_000_000_000;

/// An input is a query, as text or by its number, and the traces.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let choice = input.index(QUERIES.len() * 2);
    let text = match QUERIES.get(choice) {
        Some(text) => (*text).to_owned(),
        None => String::from_utf8_lossy(input.part()).into_owned(),
    };
    let Ok(query) = parse(&text) else { return };
    search(&query, input.clone());
    if query.is_metrics() {
        count(&query, input);
    }
}

fn search(query: &Query, input: Input<'_>) {
    let Ok(plan) = query.search_plan(TimeRange::ALL) else { return };
    let traces = Traces::read(input);
    let batch = traces.batch(plan.fetch(), 0..traces.count());
    let found = plan.evaluate(&batch, 3);
    assert!(found.len() <= batch.traces.len());
    for trace in &found {
        assert!(!trace.span_sets.is_empty() && trace.span_sets.iter().all(|set| set.matched > 0 && set.spans.len() <= 3));
    }
    // Each trace is decided alone.
    let alone = |number: usize| plan.evaluate(&traces.batch(plan.fetch(), number..number + 1), 3);
    let alone: Vec<_> = (0..traces.count()).flat_map(alone).collect();
    // As text, since numbers that are none equal nothing.
    assert_eq!(format!("{alone:?}"), format!("{found:?}"), "{query}");
}

fn count(query: &Query, mut input: Input<'_>) {
    let flags = input.u8();
    let release = if flags & 1 == 0 { Release::V2 } else { Release::V3 };
    let range = match flags & 2 {
        0 => MetricsRange::range(START, START + RANGE, Some(1_000_000_000 * u64::from(flags >> 3) + 1_000_000_000), release),
        _ => MetricsRange::instant(START, START + RANGE, release),
    };
    let range = range.unwrap_or_else(|error| panic!("{error}"));
    let Ok(mut plan) = query.metrics_plan(range, usize::from(flags >> 4)) else { return };
    if plan.wants_all_attributes() {
        plan = plan.with_attributes(["span.a", "resource.b", "span.c"].map(|text| parse_attribute(text).unwrap_or_else(|e| panic!("{e}"))));
    }
    let traces = Traces::read(input);
    let whole = counted(&plan, &traces, 0..traces.count());
    let half = traces.count() / 2;
    let (left, right) = (counted(&plan, &traces, 0..half), counted(&plan, &traces, half..traces.count()));
    let mut parts = Partial::from_message(right.to_message(), &plan).unwrap_or_else(|error| panic!("{query}: {error}"));
    plan.merge(&mut parts, left);
    assert_eq!(parts.inspected_spans(), whole.inspected_spans());
    let (whole, parts) = (finished(&plan, &whole), finished(&plan, &parts));
    // Sums of any doubles may differ in the last bit, and with them what is compared with them.
    let text = query.to_string();
    if !["sum_over_time", "avg_over_time"].iter().any(|function| text.contains(function)) {
        assert_eq!(shown(&whole), shown(&parts), "{text}");
    }
    for series in &whole.series {
        assert!(!series.samples.is_empty() && series.samples.iter().all(|sample| !sample.value.is_nan()));
        assert!(series.samples.is_sorted_by_key(|sample| sample.timestamp_ms));
        let _ = (series.to_time_series(), series.to_instant_series());
    }
}

fn counted(plan: &MetricsPlan, traces: &Traces, some: std::ops::Range<usize>) -> Partial {
    let mut partial = plan.partial();
    let _ = plan.observe(&mut partial, &traces.batch(plan.fetch(), some), &|| false);
    partial
}

fn finished(plan: &MetricsPlan, partial: &Partial) -> Answer {
    plan.finish(partial, &|| false).unwrap_or_else(|error| panic!("{error}"))
}

fn shown(answer: &Answer) -> Vec<String> {
    answer.series.iter().map(|series| format!("{series:?}")).collect()
}

/// Traces whose attribute values are drawn from what is left of the input.
struct Traces<'a> {
    traces: Vec<Vec<SpanRow>>,
    values: Input<'a>,
}

impl<'a> Traces<'a> {
    fn read(mut input: Input<'a>) -> Self {
        let mut traces = Vec::new();
        for _ in 0..input.index(6) {
            let mut spans: Vec<SpanRow> = Vec::new();
            for i in 0..input.index(12) {
                let flags = input.u8();
                // A tree of nested sets: a child lies in the middle of its parent; some spans have no place.
                let parent = spans.get(usize::from(flags >> 4) % i.max(1)).filter(|_| flags & 3 != 0).copied();
                let (left, right, parent) = match parent {
                    Some(parent) if parent.nested_set_right - parent.nested_set_left > 4 => {
                        let third = (parent.nested_set_right - parent.nested_set_left) / 3;
                        let left = parent.nested_set_left + 1 + if flags & 4 == 0 { 0 } else { third };
                        (left, left + third.max(1) - 1, parent.nested_set_left)
                    }
                    None if flags & 8 == 0 => {
                        (1 + i32::try_from(i).unwrap_or(0) * 100_000, 99_999 + i32::try_from(i).unwrap_or(0) * 100_000, -1)
                    }
                    _ => (0, 0, 0),
                };
                spans.push(SpanRow {
                    id: SpanId(u64::try_from(i + 1).unwrap_or(0).to_be_bytes()),
                    start_unix_nanos: match input.u8() {
                        255 => input.number().cast_unsigned(),
                        tenths => START + u64::from(tenths) * RANGE / 200,
                    },
                    duration_nanos: input.number().cast_unsigned(),
                    nested_set_left: left,
                    nested_set_right: right,
                    nested_set_parent: parent,
                    child_count: i32::from(flags >> 6),
                    resource: u32::from(flags >> 7),
                });
            }
            traces.push(spans);
        }
        Self { traces, values: input }
    }

    fn count(&self) -> usize {
        self.traces.len()
    }

    /// The same values for a trace, whatever others are in the batch.
    fn batch(&self, fetch: &Fetch, some: std::ops::Range<usize>) -> Batch {
        let rows = |attributes: usize| ChildRows {
            offsets: if attributes == 0 { Vec::new() } else { vec![0] },
            columns: vec![Vec::new(); attributes],
        };
        let texts: Vec<Arc<str>> = ["", "x", "abc", "nil", "1"].map(Arc::from).to_vec();
        let mut batch = Batch {
            columns: vec![Vec::new(); fetch.span_attributes.len()],
            events: rows(fetch.event_attributes.len()),
            links: rows(fetch.link_attributes.len()),
            ..Batch::default()
        };
        let mut input = self.values.clone();
        for (number, spans) in self.traces.iter().enumerate() {
            let is_wanted = some.contains(&number);
            let first = batch.spans.len();
            for span in spans {
                let values = fetch.span_attributes.iter().map(|_| value(&mut input, &texts)).collect::<Vec<_>>();
                let counts = [input.index(3), input.index(2)];
                let events = (0..counts[0] * fetch.event_attributes.len()).map(|_| value(&mut input, &texts)).collect::<Vec<_>>();
                let links = (0..counts[1] * fetch.link_attributes.len()).map(|_| value(&mut input, &texts)).collect::<Vec<_>>();
                if !is_wanted {
                    continue;
                }
                batch.spans.push(*span);
                batch.columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
                for (rows, values) in [(&mut batch.events, events), (&mut batch.links, links)] {
                    let width = rows.columns.len();
                    if let Some(last) = rows.offsets.last().copied() {
                        rows.offsets.push(last + u32::try_from(values.len() / width.max(1)).unwrap_or(0));
                    }
                    values.into_iter().enumerate().for_each(|(i, value)| rows.columns[i % width].push(value));
                }
            }
            if is_wanted && batch.spans.len() > first {
                let starts = || spans.iter().map(|span| span.start_unix_nanos);
                batch.traces.push(TraceRow {
                    trace_id: TraceId(u128::try_from(number + 1).unwrap_or(0).to_be_bytes()),
                    start_unix_nanos: starts().min().unwrap_or(0),
                    end_unix_nanos: starts().max().unwrap_or(0),
                    root_name: texts[number % texts.len()].clone(),
                    root_service: texts[0].clone(),
                    services: vec![ServiceStat { service: texts[1].clone(), spans: 1, errors: 0 }],
                    spans: first..batch.spans.len(),
                });
            }
        }
        batch
    }
}

fn value(input: &mut Input<'_>, texts: &[Arc<str>]) -> Value {
    let kind = input.u8();
    let text = |kind: u8| texts[usize::from(kind >> 4) % texts.len()].clone();
    match kind & 15 {
        0 => Value::Nil,
        1 => Value::Opaque,
        2 | 3 => Value::Int(i64::from(kind >> 4)),
        4 => Value::Int(input.number()),
        5 => Value::Float(f64::from(kind >> 4) / 4.0),
        6 => Value::Float(f64::from_bits(input.number().cast_unsigned())),
        7 => Value::Bool(kind >> 7 == 1),
        8..=10 => Value::Str(text(kind)),
        11 => Value::Duration(input.number()),
        12 => Value::Status([Status::Unset, Status::Ok, Status::Error][usize::from(kind >> 4) % 3]),
        13 => Value::Kind([Kind::Unspecified, Kind::Server, Kind::Client][usize::from(kind >> 4) % 3]),
        14 => Value::int_array([i64::from(kind >> 4), input.number()]),
        _ => Value::str_array([text(kind), text(kind.wrapping_add(16))]),
    }
}
