//! What a search hands out, against the same question asked of the decoded traces.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use vivace_block::{BlockReader, ScanStats};
use vivace_core::{SpanId, TimeRange, TraceId};
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::{AnyValue, InstrumentationScope, KeyValue, Resource, Span};
use vivace_traceql::{
    Attribute, Batch, Comparison, Condition, Fetch, Intrinsic, Kind, RowParts, Scope, SpanFilter, SpanRow, Status, TraceFilter, TraceRow,
    Value, compile_pattern,
};

use crate::read::open;

const SETS: [&str; 3] = ["v4-edge-dedicated", "v4-bulk-rowgroups", "v5-edge-dedicated"];

/// A span with what it belongs to.
struct Flat {
    trace: TraceId,
    resource: Resource,
    scope: InstrumentationScope,
    span: Span,
}

fn flat(block: &BlockReader) -> Vec<Flat> {
    let mut spans = Vec::new();
    for trace in block.traces() {
        let (id, resources) = trace.expect("reads");
        for resource in resources {
            for scope in resource.scope_spans {
                for span in scope.spans {
                    let (resource, scope) = (resource.resource.clone().unwrap_or_default(), scope.scope.clone().unwrap_or_default());
                    spans.push(Flat { trace: id, resource, scope, span });
                }
            }
        }
    }
    spans
}

fn value(any: &AnyValue) -> Value {
    let scalar = |any: &AnyValue| match &any.value {
        Some(AnyKind::StringValue(v)) => Value::Str(v.as_str().into()),
        Some(AnyKind::IntValue(v)) => Value::Int(*v),
        Some(AnyKind::DoubleValue(v)) => Value::Float(*v),
        Some(AnyKind::BoolValue(v)) => Value::Bool(*v),
        _ => Value::Opaque,
    };
    let Some(AnyKind::ArrayValue(array)) = &any.value else { return scalar(any) };
    let values: Vec<Value> = array.values.iter().map(scalar).collect();
    macro_rules! typed {
        ($kind:ident, $array:ident) => {
            let of_kind: Option<Vec<_>> = values.iter().map(|v| if let Value::$kind(v) = v { Some(v.clone()) } else { None }).collect();
            if let Some(of_kind) = of_kind {
                return Value::$array(of_kind.into());
            }
        };
    }
    match values.as_slice() {
        [] => return Value::Opaque,
        [one] => return one.clone(),
        _ => {}
    }
    typed!(Str, StrArray);
    typed!(Int, IntArray);
    typed!(Float, FloatArray);
    typed!(Bool, BoolArray);
    Value::Opaque
}

fn attribute(attributes: &[KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|kv| kv.key == key);
    found.map_or(Value::Nil, |kv| value(kv.value.as_ref().unwrap_or(&AnyValue::default())))
}

impl Flat {
    /// One value for most, one per event or link for theirs.
    fn values(&self, of: &Attribute) -> Vec<Value> {
        let span = &self.span;
        let text = |text: &str| vec![Value::Str(text.into())];
        match of {
            Attribute::Named { scope, key } => match scope {
                Scope::Span => vec![attribute(&span.attributes, key)],
                Scope::Resource if &**key == "service.name" => match attribute(&self.resource.attributes, key) {
                    Value::Nil => text(""),
                    // Of any type.
                    name => vec![name],
                },
                Scope::Resource => vec![attribute(&self.resource.attributes, key)],
                Scope::Instrumentation => vec![attribute(&self.scope.attributes, key)],
                Scope::Event => span.events.iter().map(|event| attribute(&event.attributes, key)).collect(),
                Scope::Link => span.links.iter().map(|link| attribute(&link.attributes, key)).collect(),
                Scope::Unscoped => match attribute(&span.attributes, key) {
                    Value::Nil => self.values(&named(Scope::Resource, key)),
                    value => vec![value],
                },
            },
            Attribute::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Name => text(&span.name),
                Intrinsic::StatusMessage => text(&span.status.clone().unwrap_or_default().message),
                Intrinsic::Status => vec![Value::Status(Status::from_otlp(span.status.clone().unwrap_or_default().code.into()))],
                Intrinsic::Kind => vec![Value::Kind(Kind::from_otlp(span.kind.into()))],
                Intrinsic::Duration => vec![Value::Duration(duration(span).cast_signed())],
                Intrinsic::ScopeName => text(&self.scope.name),
                Intrinsic::ScopeVersion => text(&self.scope.version),
                Intrinsic::ParentId => text(&SpanId::from_slice(&span.parent_span_id).to_string()),
                Intrinsic::SpanId => text(&SpanId::from_slice(&span.span_id).to_string()),
                Intrinsic::TraceId => text(&self.trace.trimmed_hex()),
                Intrinsic::EventName => span.events.iter().map(|event| Value::Str(event.name.as_str().into())).collect(),
                Intrinsic::LinkSpanId => {
                    span.links.iter().map(|link| Value::Str(SpanId::from_slice(&link.span_id).to_string().into())).collect()
                }
                other => panic!("{other:?} is not looked up here"),
            },
        }
    }

    fn passes(&self, filter: &SpanFilter) -> bool {
        match filter {
            SpanFilter::Maybe => true,
            SpanFilter::Leaf(condition) => self.values(&condition.attribute).iter().any(|value| condition.comparison.matches(value)),
            SpanFilter::And(filters) => filters.iter().all(|filter| self.passes(filter)),
            SpanFilter::Or(filters) => filters.iter().any(|filter| self.passes(filter)),
        }
    }

    /// A key that occurs twice: which one is first depends on where they are stored.
    fn has_twice(&self, key: &str) -> bool {
        let twice = |attributes: &[KeyValue]| attributes.iter().filter(|kv| kv.key == key).count() > 1;
        twice(&self.span.attributes) || twice(&self.resource.attributes) || twice(&self.scope.attributes)
    }
}

fn duration(span: &Span) -> u64 {
    span.end_time_unix_nano.wrapping_sub(span.start_time_unix_nano)
}

fn named(scope: Scope, key: &str) -> Attribute {
    Attribute::Named { scope, key: key.into() }
}

fn leaf(attribute: Attribute, comparison: Comparison) -> SpanFilter {
    SpanFilter::Leaf(Condition { attribute, comparison })
}

fn any_span(filter: SpanFilter) -> Fetch {
    Fetch {
        range: TimeRange::ALL,
        filter: TraceFilter::AnySpan(filter),
        span_attributes: Vec::new(),
        event_attributes: Vec::new(),
        link_attributes: Vec::new(),
        rows: RowParts::ALL,
    }
}

fn search(block: &BlockReader, fetch: &Fetch) -> (Vec<Batch>, ScanStats) {
    let mut batches = Vec::new();
    let stats = block.search(fetch, 0..usize::MAX, &mut |batch| {
        batches.push(batch);
        ControlFlow::Continue(())
    });
    (batches, stats.expect("reads"))
}

fn ids(batches: &[Batch]) -> BTreeSet<TraceId> {
    batches.iter().flat_map(|batch| &batch.traces).map(|trace| trace.trace_id).collect()
}

/// Every attribute that occurs, by scope and key, with its values.
fn attributes(spans: &[Flat]) -> BTreeMap<(Scope, String), Vec<Value>> {
    let mut all: BTreeMap<(Scope, String), Vec<Value>> = BTreeMap::new();
    let mut add = |scope, attributes: &[KeyValue]| {
        for kv in attributes {
            let values = all.entry((scope, kv.key.clone())).or_default();
            let value = value(kv.value.as_ref().unwrap_or(&AnyValue::default()));
            if !values.contains(&value) {
                values.push(value);
            }
        }
    };
    for flat in spans {
        add(Scope::Span, &flat.span.attributes);
        add(Scope::Resource, &flat.resource.attributes);
        add(Scope::Instrumentation, &flat.scope.attributes);
        flat.span.events.iter().for_each(|event| add(Scope::Event, &event.attributes));
        flat.span.links.iter().for_each(|link| add(Scope::Link, &link.attributes));
    }
    all
}

fn scalars(value: &Value) -> Vec<Value> {
    match value {
        Value::StrArray(v) => v.iter().cloned().map(Value::Str).collect(),
        Value::IntArray(v) => v.iter().copied().map(Value::Int).collect(),
        Value::FloatArray(v) => v.iter().copied().map(Value::Float).collect(),
        Value::BoolArray(v) => v.iter().copied().map(Value::Bool).collect(),
        Value::Opaque => Vec::new(),
        scalar => vec![scalar.clone()],
    }
}

fn expect(block: &BlockReader, spans: &[Flat], filter: &SpanFilter, exact: bool, what: &str) {
    let got = ids(&search(block, &any_span(filter.clone())).0);
    let want: BTreeSet<TraceId> = spans.iter().filter(|flat| flat.passes(filter)).map(|flat| flat.trace).collect();
    if exact {
        assert_eq!(got, want, "{what}: {filter:?}");
    } else {
        assert!(got.is_superset(&want), "{what}: {filter:?}: {got:?} lacks some of {want:?}");
    }
}

#[test]
fn conditions_find_the_traces_that_satisfy_them() {
    for set in SETS {
        let block = open(set);
        let spans = flat(&block);
        for (number, ((scope, key), values)) in attributes(&spans).into_iter().enumerate() {
            let exact = !spans.iter().any(|flat| flat.has_twice(&key));
            let mut comparisons = vec![Comparison::NotExists];
            // All operators for some, so that the test stays quick.
            for value in values.iter().flat_map(scalars).take(2) {
                comparisons.push(Comparison::Equal(value.clone()));
                match number % 4 {
                    0 => comparisons.push(Comparison::NotEqual(value)),
                    1 => comparisons.push(Comparison::Greater(value)),
                    2 => comparisons.push(Comparison::LessEqual(value)),
                    _ => {}
                }
            }
            for comparison in comparisons {
                expect(&block, &spans, &leaf(named(scope, &key), comparison.clone()), exact, set);
                if matches!(scope, Scope::Span | Scope::Resource) {
                    expect(&block, &spans, &leaf(named(Scope::Unscoped, &key), comparison), exact, set);
                }
            }
            expect(&block, &spans, &leaf(named(scope, &key), Comparison::Exists), false, set);
        }
    }
}

#[test]
fn intrinsics_and_combinations_find_the_traces_that_satisfy_them() {
    for set in SETS {
        let block = open(set);
        let spans = flat(&block);
        let text = |text: &str| Value::Str(text.into());
        let pattern = |text: &str| Arc::new(compile_pattern(text).expect("a pattern"));
        let intrinsic = |intrinsic, comparison| leaf(Attribute::Intrinsic(intrinsic), comparison);
        let some = &spans[spans.len() / 3];
        let event = spans.iter().flat_map(|flat| &flat.span.events).map(|event| event.name.as_str()).next().unwrap_or("none");
        let service = leaf(named(Scope::Resource, "service.name"), Comparison::NotEqual(text("")));
        let name = intrinsic(Intrinsic::Name, Comparison::Equal(text(&some.span.name)));
        let error = intrinsic(Intrinsic::Status, Comparison::Equal(Value::Status(Status::Error)));
        for filter in [
            name.clone(),
            error.clone(),
            service.clone(),
            intrinsic(Intrinsic::Name, Comparison::Regex(pattern("(GET|HTTP|db).*"))),
            intrinsic(Intrinsic::Name, Comparison::NotRegex(pattern("[a-m].*"))),
            intrinsic(Intrinsic::Name, Comparison::Equal(text("nowhere"))),
            intrinsic(Intrinsic::Kind, Comparison::Equal(Value::Kind(Kind::Server))),
            intrinsic(Intrinsic::Kind, Comparison::NotEqual(Value::Kind(Kind::Client))),
            intrinsic(Intrinsic::StatusMessage, Comparison::NotEqual(text(""))),
            intrinsic(Intrinsic::ScopeName, Comparison::Equal(text(&some.scope.name))),
            intrinsic(Intrinsic::ScopeVersion, Comparison::NotEqual(text(&some.scope.version))),
            intrinsic(Intrinsic::SpanId, Comparison::Equal(text(&SpanId::from_slice(&some.span.span_id).to_string()))),
            intrinsic(Intrinsic::TraceId, Comparison::Equal(text(&some.trace.trimmed_hex()))),
            intrinsic(Intrinsic::ParentId, Comparison::Equal(text("0000000000000000"))),
            intrinsic(Intrinsic::EventName, Comparison::Equal(text(event))),
            intrinsic(Intrinsic::EventName, Comparison::NotEqual(text(event))),
            intrinsic(Intrinsic::LinkSpanId, Comparison::Exists),
            SpanFilter::And(vec![service.clone(), error.clone()]),
            SpanFilter::And(vec![intrinsic(Intrinsic::Name, Comparison::Equal(text("nowhere"))), error.clone()]),
            SpanFilter::Or(vec![name.clone(), error.clone()]),
            SpanFilter::Or(vec![
                SpanFilter::And(vec![name.clone(), service.clone()]),
                SpanFilter::And(vec![error.clone(), SpanFilter::Maybe]),
            ]),
        ] {
            expect(&block, &spans, &filter, true, set);
        }
        // A span that ends before it starts has a huge duration, which is left to evaluation.
        expect(&block, &spans, &intrinsic(Intrinsic::Duration, Comparison::Greater(Value::Duration(50_000_000))), false, set);
        let (batches, _) = search(&block, &Fetch { filter: TraceFilter::And(vec![]), ..any_span(SpanFilter::Maybe) });
        assert_eq!(ids(&batches).len() as u64, block.meta().total_objects);
        let both = TraceFilter::And(vec![TraceFilter::AnySpan(name.clone()), TraceFilter::AnySpan(error.clone())]);
        let with = |filter: &SpanFilter| -> BTreeSet<TraceId> { spans.iter().filter(|f| f.passes(filter)).map(|f| f.trace).collect() };
        let (batches, _) = search(&block, &Fetch { filter: both, ..any_span(SpanFilter::Maybe) });
        assert_eq!(ids(&batches), with(&name).intersection(&with(&error)).copied().collect());
    }
}

#[test]
fn batches_hold_what_was_asked_for() {
    for set in SETS {
        let block = open(set);
        let spans = flat(&block);
        let mut fetch = any_span(SpanFilter::Maybe);
        for (scope, key) in attributes(&spans).into_keys() {
            match scope {
                Scope::Event => fetch.event_attributes.push(named(scope, &key)),
                Scope::Link => fetch.link_attributes.push(named(scope, &key)),
                _ => {
                    fetch.span_attributes.push(named(scope, &key));
                    fetch.span_attributes.push(named(Scope::Unscoped, &key));
                }
            }
        }
        fetch.event_attributes.push(Attribute::Intrinsic(Intrinsic::EventName));
        fetch.link_attributes.push(Attribute::Intrinsic(Intrinsic::LinkSpanId));
        let of_spans = [Intrinsic::Name, Intrinsic::Status, Intrinsic::StatusMessage, Intrinsic::Kind, Intrinsic::ParentId];
        fetch.span_attributes.extend(of_spans.map(Attribute::Intrinsic));
        fetch.span_attributes.extend([Intrinsic::ScopeName, Intrinsic::ScopeVersion].map(Attribute::Intrinsic));

        let same = |got: &Value, want: &Value| format!("{got:?}") == format!("{want:?}");
        // All traces, and few enough that only their pages are read.
        let few: BTreeSet<TraceId> = spans.iter().map(|flat| flat.trace).step_by(97).collect();
        let some = few.iter().map(|id| {
            let id = Value::Str(id.trimmed_hex().into());
            leaf(Attribute::Intrinsic(Intrinsic::TraceId), Comparison::Equal(id))
        });
        let filters = [TraceFilter::All, TraceFilter::AnySpan(SpanFilter::Or(some.collect()))];
        for (filter, want) in filters.into_iter().zip([None, Some(few)]) {
            fetch.filter = filter;
            let (batches, stats) = search(&block, &fetch);
            let mut expected = spans.iter().filter(|flat| want.as_ref().is_none_or(|few| few.contains(&flat.trace)));
            assert_eq!(stats.spans as usize, expected.clone().count(), "{set}");
            for batch in batches {
                assert!(batch.traces.len() <= 256);
                for trace in &batch.traces {
                    let mut counted = 0;
                    for index in trace.spans.clone() {
                        let flat = expected.next().expect("a span");
                        let row = batch.spans[index];
                        assert_eq!((trace.trace_id, row.id), (flat.trace, SpanId::from_slice(&flat.span.span_id)));
                        assert_eq!((row.start_unix_nanos, row.duration_nanos), (flat.span.start_time_unix_nano, duration(&flat.span)));
                        counted += row.child_count;
                        for (column, attribute) in fetch.span_attributes.iter().enumerate() {
                            if let Attribute::Named { key, .. } = attribute
                                && flat.has_twice(key)
                            {
                                continue;
                            }
                            let (got, want) = (&batch.columns[column][index], &flat.values(attribute)[0]);
                            assert!(same(got, want), "{set} {} {attribute:?}: {got:?} {want:?}", flat.trace);
                        }
                        for (rows, attributes) in [(&batch.events, &fetch.event_attributes), (&batch.links, &fetch.link_attributes)] {
                            for (column, attribute) in attributes.iter().enumerate() {
                                let got = &rows.columns[column][rows.of_span(index)];
                                let want = flat.values(attribute);
                                assert_eq!(format!("{got:?}"), format!("{want:?}"), "{set} {} {attribute:?}", flat.trace);
                            }
                        }
                    }
                    let total: u32 = trace.services.iter().map(|service| service.spans).sum();
                    assert_eq!(total as usize, trace.spans.len(), "{set} {}", trace.trace_id);
                    assert!(counted < trace.spans.len() as i32 || trace.spans.len() == 1 || counted == 0 || set.contains("edge"));
                }
            }
            assert!(expected.next().is_none());
        }
    }
}

#[test]
fn parts_of_rows_that_nobody_looks_at_are_not_read() {
    for set in SETS {
        let block = open(set);
        let all = any_span(SpanFilter::Maybe);
        let (whole, whole_stats) = search(&block, &all);
        for rows in [
            RowParts::LEAST,
            RowParts { positions: true, ..RowParts::LEAST },
            RowParts { child_counts: true, ..RowParts::LEAST },
            RowParts { summary: true, ..RowParts::LEAST },
        ] {
            let (part, stats) = search(&block, &Fetch { rows, ..all.clone() });
            assert!(stats.bytes < whole_stats.bytes, "{rows:?}");
            for (whole, part) in whole.iter().zip(&part) {
                for (whole, part) in whole.spans.iter().zip(&part.spans) {
                    let position = |span: &SpanRow| (span.nested_set_left, span.nested_set_right, span.nested_set_parent);
                    assert_eq!(
                        (whole.id, whole.start_unix_nanos, whole.duration_nanos),
                        (part.id, part.start_unix_nanos, part.duration_nanos)
                    );
                    assert!(!rows.positions || position(whole) == position(part), "{rows:?}");
                    assert_eq!(part.child_count, if rows.child_counts { whole.child_count } else { 0 }, "{rows:?}");
                }
                for (whole, part) in whole.traces.iter().zip(&part.traces) {
                    let summary = |trace: &TraceRow| (trace.root_name.clone(), trace.root_service.clone(), trace.services.clone());
                    assert_eq!((whole.trace_id, &whole.spans), (part.trace_id, &part.spans));
                    let expected = if rows.summary { summary(whole) } else { Default::default() };
                    assert_eq!(summary(part), expected, "{rows:?}");
                }
            }
        }
    }
}

#[test]
fn time_bounds_and_missing_words_save_reading() {
    let block = open("v4-bulk-rowgroups");
    let spans = flat(&block);
    let (all, everything) = search(&block, &any_span(SpanFilter::Maybe));
    let middle = spans[spans.len() / 2].span.start_time_unix_nano;
    let late = Fetch { range: TimeRange { start: Some(middle), end: None }, ..any_span(SpanFilter::Maybe) };
    let (found, _) = search(&block, &late);
    let want: BTreeSet<TraceId> =
        all.iter().flat_map(|batch| &batch.traces).filter(|trace| trace.end_unix_nanos >= middle).map(|trace| trace.trace_id).collect();
    assert_eq!(ids(&found), want);
    assert!(want.len() < ids(&all).len());
    // Only the dictionaries of keys are read when no span has the key.
    let missing = leaf(named(Scope::Span, "no.such.key"), Comparison::Equal(Value::Int(1)));
    let (found, stats) = search(&block, &any_span(missing));
    assert!(found.is_empty());
    assert!(stats.bytes < everything.bytes / 20, "{stats:?} {everything:?}");
    // A scan can be stopped.
    let mut seen = 0;
    let stop = |_| {
        seen += 1;
        ControlFlow::Break(())
    };
    block.search(&any_span(SpanFilter::Maybe), 3..9, &mut { stop }).expect("reads");
    assert_eq!(seen, 1);
}

#[test]
fn tags_are_those_of_the_spans() {
    for set in SETS {
        let block = open(set);
        let spans = flat(&block);
        let all = attributes(&spans);
        let mut names = BTreeSet::new();
        let sink = &mut |scope, name: &str| {
            assert!(names.insert((scope, name.to_owned())), "{set}: {name} twice");
            ControlFlow::Continue(())
        };
        block.tag_names(None, None, 0..usize::MAX, sink).expect("reads");
        assert_eq!(names, all.keys().cloned().collect(), "{set}");

        let some = &spans[spans.len() / 2];
        let filter = leaf(
            named(Scope::Resource, "service.name"),
            Comparison::Equal(some.values(&named(Scope::Resource, "service.name"))[0].clone()),
        );
        for ((scope, key), values) in &all {
            let tag = named(*scope, key);
            let values_of = |filter: Option<&SpanFilter>| {
                let mut values = BTreeSet::new();
                let sink = &mut |value: Value| {
                    assert!(values.insert(format!("{value:?}")), "{set} {tag:?}: {value:?} twice");
                    ControlFlow::Continue(())
                };
                block.tag_values(&tag, filter, 0..usize::MAX, sink).expect("reads");
                values
            };
            let want: BTreeSet<String> = values.iter().flat_map(scalars).map(|value| format!("{value:?}")).collect();
            let mut got = values_of(None);
            if *scope == Scope::Resource && key == "service.name" && !want.contains("Str(\"\")") {
                // Of a resource without a name, which may have no spans.
                got.remove("Str(\"\")");
            }
            assert_eq!(got, want, "{set} {tag:?}");
            let passing: Vec<Value> = spans.iter().filter(|flat| flat.passes(&filter)).flat_map(|flat| flat.values(&tag)).collect();
            let want: BTreeSet<String> =
                passing.iter().filter(|v| **v != Value::Nil).flat_map(scalars).map(|value| format!("{value:?}")).collect();
            if !spans.iter().any(|flat| flat.has_twice(key)) {
                assert_eq!(values_of(Some(&filter)), want, "{set} {tag:?}");
            }
        }
        let mut names = BTreeSet::new();
        let sink = &mut |scope, name: &str| {
            names.insert((scope, name.to_owned()));
            ControlFlow::Continue(())
        };
        block.tag_names(None, Some(&filter), 0..usize::MAX, sink).expect("reads");
        let passing: Vec<Flat> = flat(&block).into_iter().filter(|flat| flat.passes(&filter)).collect();
        assert_eq!(names, attributes(&passing).into_keys().collect(), "{set}");

        let mut names = BTreeSet::new();
        let sink = &mut |value: Value| {
            names.insert(format!("{value:?}"));
            ControlFlow::Continue(())
        };
        block.tag_values(&Attribute::Intrinsic(Intrinsic::Name), None, 0..usize::MAX, sink).expect("reads");
        assert_eq!(names, spans.iter().map(|flat| format!("{:?}", Value::Str(flat.span.name.as_str().into()))).collect());
    }
}
