//! Any tree that the parser can make is printed as text that reads as the same tree.

use proptest::prelude::*;
use vivace_traceql::ast::{
    Aggregate, Arithmetic, Field, FieldOp, FirstStage, LaterStage, Metrics, Mode, OverTime, Pipeline, Query, Relation, Root, Scalar,
    ScalarFilter, SpansetOp, Spansets, Stage, UnaryOp,
};
use vivace_traceql::{Attribute, CompareOp, Intrinsic, Kind, Scope, Status, Value, parse};

fn one_of<T: Clone + std::fmt::Debug + 'static>(items: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(items.to_vec())
}

fn key() -> BoxedStrategy<String> {
    prop_oneof!["[a-z][a-z0-9._/:+*%;@'-]{0,8}", "[ -~]{0,6}", "\\PC{0,4}"].boxed()
}

fn named() -> BoxedStrategy<Attribute> {
    let scopes = [Scope::Unscoped, Scope::Span, Scope::Resource, Scope::Event, Scope::Link, Scope::Instrumentation];
    (one_of(&scopes), key()).prop_map(|(scope, key)| Attribute::Named { scope, key: key.as_str().into() }).boxed()
}

fn intrinsic(of: &[Intrinsic]) -> impl Strategy<Value = Attribute> + use<> {
    one_of(of).prop_map(Attribute::Intrinsic)
}

fn attribute() -> BoxedStrategy<Attribute> {
    prop_oneof![named(), numeric_attribute(), text_attribute(), intrinsic(&[Intrinsic::Status, Intrinsic::Kind, Intrinsic::ScopeVersion])]
        .boxed()
}

fn numeric_attribute() -> BoxedStrategy<Attribute> {
    use Intrinsic::{ChildCount, Duration, EventTimeSinceStart, NestedSetLeft, NestedSetParent, NestedSetRight, TraceDuration};
    let intrinsics = [Duration, TraceDuration, EventTimeSinceStart, ChildCount, NestedSetLeft, NestedSetParent, NestedSetRight];
    prop_oneof![named(), intrinsic(&intrinsics)].boxed()
}

fn text_attribute() -> BoxedStrategy<Attribute> {
    use Intrinsic::{EventName, LinkSpanId, LinkTraceId, Name, ParentId, RootName, RootService, SpanId, StatusMessage, TraceId};
    let intrinsics = [Name, StatusMessage, SpanId, ParentId, RootName, RootService, EventName, LinkTraceId, LinkSpanId, TraceId];
    prop_oneof![named(), intrinsic(&intrinsics)].boxed()
}

fn number() -> BoxedStrategy<Value> {
    let float = any::<f64>().prop_filter("it has a text", |v| v.is_finite());
    prop_oneof![any::<i64>().prop_map(Value::Int), float.prop_map(Value::Float), any::<i64>().prop_map(Value::Duration)]
        .prop_filter("it has a text", |value| *value != Value::Duration(i64::MIN))
        .boxed()
}

/// A constant of scalars and series, where the smallest integer has no name.
fn constant() -> BoxedStrategy<Value> {
    number().prop_filter("it has a text", |value| *value != Value::Int(i64::MIN)).boxed()
}

fn text() -> BoxedStrategy<Value> {
    prop_oneof!["\\PC{0,6}", "[`\"\\\\\r\n\t a]{0,6}"].prop_map(|text| Value::Str(text.as_str().into())).boxed()
}

fn compare_op() -> BoxedStrategy<CompareOp> {
    use CompareOp::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
    one_of(&[Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual]).boxed()
}

fn arithmetic() -> BoxedStrategy<Arithmetic> {
    use Arithmetic::{Add, Divide, Modulo, Multiply, Power, Subtract};
    one_of(&[Add, Subtract, Multiply, Divide, Modulo, Power]).boxed()
}

fn binary(op: FieldOp, left: Field, right: Field) -> Field {
    Field::Binary { op, left: Box::new(left), right: Box::new(right) }
}

/// A number that depends on the span.
fn numeric() -> BoxedStrategy<Field> {
    numeric_attribute()
        .prop_map(Field::Attribute)
        .prop_recursive(3, 12, 2, |inner| {
            let either = prop_oneof![3 => inner.clone(), 1 => number().prop_map(Field::Literal)];
            prop_oneof![
                (arithmetic(), inner.clone(), either.clone()).prop_map(|(op, a, b)| binary(FieldOp::Arithmetic(op), a, b)),
                (arithmetic(), either, inner.clone()).prop_map(|(op, a, b)| binary(FieldOp::Arithmetic(op), a, b)),
                inner.prop_map(|of| Field::Unary { op: UnaryOp::Minus, of: Box::new(of) }),
            ]
        })
        .boxed()
}

/// A condition that depends on the span.
fn condition() -> BoxedStrategy<Field> {
    let equality = || one_of(&[CompareOp::Equal, CompareOp::NotEqual]);
    let compared = |(op, left, right, swap): (CompareOp, Field, Value, bool)| {
        // The zeros in front of a trace id are dropped while parsing.
        let right = match (&left, right) {
            (Field::Attribute(Attribute::Intrinsic(Intrinsic::TraceId)), Value::Str(text)) => {
                Value::Str(text.trim_start_matches('0').into())
            }
            (_, right) => right,
        };
        let right = Field::Literal(right);
        if swap { binary(FieldOp::Compare(op), right, left) } else { binary(FieldOp::Compare(op), left, right) }
    };
    let status = one_of(&[Status::Ok, Status::Error, Status::Unset]).prop_map(Value::Status);
    let kinds = [Kind::Unspecified, Kind::Internal, Kind::Server, Kind::Client, Kind::Producer, Kind::Consumer];
    let leaf = prop_oneof![
        (compare_op(), numeric(), number(), any::<bool>()).prop_map(compared),
        (compare_op(), numeric(), numeric()).prop_map(|(op, a, b)| binary(FieldOp::Compare(op), a, b)),
        (compare_op(), text_attribute().prop_map(Field::Attribute), text(), any::<bool>()).prop_map(compared),
        (equality(), intrinsic(&[Intrinsic::Status]).prop_map(Field::Attribute), status, any::<bool>()).prop_map(compared),
        (equality(), named().prop_map(Field::Attribute), one_of(&kinds).prop_map(Value::Kind), any::<bool>()).prop_map(compared),
        (equality(), named().prop_map(Field::Attribute), any::<bool>().prop_map(Value::Bool), any::<bool>()).prop_map(compared),
        (any::<bool>(), text_attribute(), one_of(&["a.*", "x|y", "(?i)[b-d]+", "", r"\d{2}`"])).prop_map(
            |(negated, attribute, pattern)| {
                let op = if negated { FieldOp::NotRegex } else { FieldOp::Regex };
                binary(op, Field::Attribute(attribute), Field::Literal(Value::Str(pattern.into())))
            }
        ),
        named().prop_map(Field::Attribute),
        attribute().prop_map(|of| Field::Exists(Box::new(Field::Attribute(of)))),
        named().prop_map(|of| Field::NotExists(Box::new(Field::Attribute(of)))),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        let either = prop_oneof![5 => inner.clone(), 1 => any::<bool>().prop_map(|v| Field::Literal(Value::Bool(v)))];
        prop_oneof![
            (any::<bool>(), inner.clone(), either).prop_map(|(and, a, b)| binary(if and { FieldOp::And } else { FieldOp::Or }, a, b)),
            inner.clone().prop_map(|of| Field::Unary { op: UnaryOp::Not, of: Box::new(of) }),
            inner.clone().prop_map(|of| Field::NotExists(Box::new(of))),
            inner.prop_map(|of| Field::Exists(Box::new(of))),
        ]
    })
    .boxed()
}

fn filter() -> BoxedStrategy<Spansets> {
    prop_oneof![5 => condition(), 1 => any::<bool>().prop_map(|v| Field::Literal(Value::Bool(v)))].prop_map(Spansets::Filter).boxed()
}

fn spanset_op() -> BoxedStrategy<SpansetOp> {
    let relation = one_of(&[Relation::Child, Relation::Parent, Relation::Descendant, Relation::Ancestor, Relation::Sibling]);
    let mode = one_of(&[Mode::Plain, Mode::Negated, Mode::Union]);
    let structural = (relation, mode).prop_map(|(relation, mode)| SpansetOp::Structural { relation, mode });
    prop_oneof![Just(SpansetOp::And), Just(SpansetOp::Or), structural].boxed()
}

fn combined(operand: impl Strategy<Value = Spansets> + 'static) -> BoxedStrategy<Spansets> {
    operand
        .prop_recursive(3, 6, 2, |inner| {
            (spanset_op(), inner.clone(), inner).prop_map(|(op, left, right)| Spansets::Binary {
                op,
                left: Box::new(left),
                right: Box::new(right),
            })
        })
        .boxed()
}

fn aggregate() -> BoxedStrategy<Aggregate> {
    prop_oneof![
        Just(Aggregate::Count),
        numeric().prop_map(Aggregate::Min),
        numeric().prop_map(Aggregate::Max),
        numeric().prop_map(Aggregate::Avg),
        numeric().prop_map(Aggregate::Sum),
    ]
    .boxed()
}

fn attributes(max: usize) -> BoxedStrategy<Vec<Attribute>> {
    prop::collection::vec(attribute(), 1..=max).boxed()
}

fn first() -> BoxedStrategy<Stage> {
    let scalar = (aggregate(), compare_op(), constant()).prop_map(|(aggregate, op, value)| {
        Stage::ScalarFilter(ScalarFilter { left: Scalar::Aggregate(aggregate), op, right: Scalar::Constant(value) })
    });
    prop_oneof![4 => combined(filter()).prop_map(Stage::Spansets), 1 => scalar, 1 => attributes(3).prop_map(Stage::Select)].boxed()
}

/// Without groups, whose spansets structural operators refuse.
fn plain_pipeline() -> BoxedStrategy<Pipeline> {
    (first(), prop::collection::vec(prop_oneof![4 => first(), 1 => Just(Stage::Coalesce)], 0..3))
        .prop_map(|(first, rest)| Pipeline { stages: std::iter::once(first).chain(rest).collect() })
        .boxed()
}

fn pipeline() -> BoxedStrategy<Pipeline> {
    let group = prop_oneof![condition(), numeric()].prop_map(Stage::Group);
    (plain_pipeline(), prop::option::of(group), any::<bool>())
        .prop_map(|(mut pipeline, group, first)| {
            if let Some(group) = group {
                pipeline.stages.insert(if first { 0 } else { pipeline.stages.len() }, group);
            }
            pipeline
        })
        .boxed()
}

/// Pipelines in parentheses, which stand alone.
fn wrapped() -> BoxedStrategy<Pipeline> {
    // In parentheses, one spanset expression is no pipeline.
    let inner = plain_pipeline().prop_filter("a pipeline", |pipeline| !matches!(&pipeline.stages[..], [Stage::Spansets(_)]));
    combined(prop_oneof![filter(), inner.prop_map(Spansets::Pipeline)])
        .prop_map(|of| Pipeline { stages: vec![Stage::Spansets(of)] })
        .boxed()
}

fn first_stage() -> BoxedStrategy<FirstStage> {
    let function = prop_oneof![
        Just(OverTime::Rate),
        Just(OverTime::Count),
        attribute().prop_map(OverTime::Min),
        attribute().prop_map(OverTime::Max),
        attribute().prop_map(OverTime::Sum),
        attribute().prop_map(OverTime::Avg),
        attribute().prop_map(OverTime::Histogram),
        (attribute(), prop::collection::vec(0.0..=1.0, 1..4)).prop_map(|(of, quantiles)| OverTime::Quantile(of, quantiles)),
    ];
    (function, prop::option::of(attributes(4))).prop_map(|(function, by)| FirstStage::Over { function, by: by.unwrap_or_default() }).boxed()
}

fn compared() -> BoxedStrategy<FirstStage> {
    let range = (0..=i64::MAX / 2).prop_flat_map(|start| (Just(start), start + 1..=i64::MAX));
    (condition(), prop::option::of((1i64..=1000, prop::option::of(range))))
        .prop_map(|(filter, rest)| FirstStage::Compare { filter, top: rest.map(|(top, _)| top), range: rest.and_then(|(_, range)| range) })
        .boxed()
}

fn later() -> BoxedStrategy<LaterStage> {
    prop_oneof![
        (1i64..).prop_map(LaterStage::Top),
        (1i64..).prop_map(LaterStage::Bottom),
        (compare_op(), constant()).prop_map(|(op, value)| LaterStage::Compare(op, value)),
    ]
    .boxed()
}

fn metrics() -> BoxedStrategy<Metrics> {
    let leaf = (pipeline(), first_stage()).prop_map(|(pipeline, stage)| Metrics::First { pipeline, stage });
    leaf.prop_recursive(3, 6, 2, |inner| {
        let number =
            constant().prop_filter("no duration", |value| !matches!(value, Value::Duration(_))).prop_map(Metrics::Constant).boxed();
        let op = || one_of(&[Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide]);
        let both = |(op, left, right)| Metrics::Binary { op, left: Box::new(left), right: Box::new(right) };
        prop_oneof![
            (inner.clone(), later()).prop_map(|(of, stage)| Metrics::Later { of: Box::new(of), stage }),
            (op(), inner.clone(), inner.clone()).prop_map(both),
            (op(), inner.clone(), number.clone()).prop_map(both),
            (op(), number, inner).prop_map(both),
        ]
    })
    .boxed()
}

fn query() -> BoxedStrategy<Query> {
    let root = prop_oneof![
        3 => pipeline().prop_map(Root::Pipeline),
        1 => wrapped().prop_map(Root::Pipeline),
        2 => metrics().prop_map(Root::Metrics),
        1 => (pipeline(), compared()).prop_map(|(pipeline, stage)| Root::Metrics(Metrics::First { pipeline, stage })),
    ];
    let value = prop_oneof![
        (0..=i64::MAX).prop_map(Value::Int),
        (0.0..1e300).prop_map(Value::Float),
        (0..=i64::MAX).prop_map(Value::Duration),
        any::<bool>().prop_map(Value::Bool),
        text(),
        Just(Value::Status(Status::Error)),
    ];
    (root, prop::collection::vec(("x_[a-z]{0,4}", value), 0..3)).prop_map(|(root, hints)| Query { root, hints }).boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_printed_reads_as_it_was(query in query()) {
        let text = query.to_string();
        match parse(&text) {
            Ok(read) => prop_assert_eq!(&read, &query, "{}", text),
            Err(error) => prop_assert!(false, "{}: {}", text, error),
        }
    }
}
