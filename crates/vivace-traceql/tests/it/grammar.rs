//! What is accepted, how it reads, and what is said about the rest.

use proptest::prelude::*;
use vivace_traceql::{MAX_NESTING, QueryError, parse};

#[track_caller]
fn reads(text: &str, want: &str) {
    assert_eq!(parse(text).expect(text).to_string(), want, "{text}");
}

#[track_caller]
fn refused(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[track_caller]
fn is_parse_error(text: &str) {
    match parse(text) {
        Err(QueryError::Parse(_)) => {}
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn is_invalid(text: &str, message: &str) {
    match parse(text) {
        Err(QueryError::Invalid(found)) => assert_eq!(found, message, "{text}"),
        other => panic!("{text}: {other:?}"),
    }
}

/// Source: docs/facts/traceql.md, "Precedence and associativity".
#[test]
fn precedence() {
    for (text, want) in [
        (".a || .b && .c", "(.a || .b) && .c"),
        (".a && .b || .c && .d", "((.a && .b) || .c) && .d"),
        ("-.a * 2 = 1", "(-(.a * 2)) = 1"),
        ("-.a + 2 = 1", "((-.a) + 2) = 1"),
        ("1 = -.a ^ 2", "1 = (-(.a ^ 2))"),
        ("1 = .a ^ .b ^ .c", "1 = (.a ^ (.b ^ .c))"),
        ("!.a = .b", "(!.a) = .b"),
        (".a = .b = nil", "(.a = .b) = nil"),
        (".a + .b = nil", "(.a + .b) = nil"),
        ("nil != .a", ".a != nil"),
        (".a + -1 > 2 ^ 3", "(.a + (-1)) > 8"),
        (".a > 5 - 2 - 1", ".a > 2"),
        ("(.a)", ".a"),
    ] {
        reads(&format!("{{ {text} }}"), &format!("{{ {want} }}"));
    }
    for (text, want) in [
        ("{.x} && {.y} || {.z}", "({ .x } && { .y }) || { .z }"),
        ("{.x} && {.y} > {.z}", "{ .x } && ({ .y } > { .z })"),
        ("{.x} > {.y} >> {.z}", "({ .x } > { .y }) >> { .z }"),
        ("{.x} | {.y} && {.z}", "{ .x }|{ .y } && { .z }"),
        ("{.x} !>> {.y} &~ {.z}", "({ .x } !>> { .y }) &~ { .z }"),
        ("({.a} && {.b}) >> {.c} | count() > 1", "({ .a } && { .b }) >> { .c }|count() > 1"),
        ("({.a} | count() > 1) && ({.b})", "({ .a }|count() > 1) && ({ .b })"),
        ("({.a} | {.b})", "({ .a }|{ .b })"),
        ("by(resource.service.name) | avg(span.n + 1) >= 1 + 1", "by(resource.service.name)|avg(span.n + 1) >= 2"),
        ("{} | count() > -(2 - 3.0)", "{ true }|count() > 1.0"),
        ("{} | select(span.a, .b) | coalesce()", "{ true }|select(span.a, .b)|coalesce()"),
        ("({} | rate()) + ({} | rate()) * ({} | rate())", "({ true }|rate()) + (({ true }|rate()) * ({ true }|rate()))"),
        ("({} | rate()) / 3 * 2", "(({ true }|rate()) / 3) * 2"),
        ("2 + 3 * ({} | rate())", "2 + (3 * ({ true }|rate()))"),
        ("({} | rate()) * 10 + 5 > 50 | topk(1)", "(({ true }|rate()) * 10) + 5 > 50|topk(1)"),
        ("{} | count_over_time() by (span.a, name) > 2 | bottomk(3)", "{ true }|count_over_time()by(span.a, name) > 2|bottomk(3)"),
        (
            "{} | quantile_over_time(duration, .5, 1) with(exemplars=true)",
            "{ true }|quantile_over_time(duration, 0.5, 1.0) with(exemplars=true)",
        ),
        ("{} | compare({ status = error }, 5, 1, 2)", "{ true }|compare({ status = error }, 5, 1, 2)"),
        ("{} with(a=1) with(b=2)", "{ true } with(b=2)"),
    ] {
        reads(text, want);
    }
}

#[test]
fn canonical_text() {
    for (text, want) in [
        ("{ 1 + 1 = 2 }", "{ true }"),
        ("{ span:name = \"a\" && trace:rootService != `b` }", "{ (name = `a`) && (rootServiceName != `b`) }"),
        ("{ duration > 90m && .x = 1500ms && .y < 250us }", "{ ((duration > 1h30m0s) && (.x = 1.5s)) && (.y < 250µs) }"),
        ("{ span.\"a b\" = 1.0 || .x > 1e20 }", "{ (span.\"a b\" = 1.0) || (.x > 1e20) }"),
        ("{ .x = \"`\" }", "{ .x = \"`\" }"),
        ("{ .x > minInt }", "{ .x > minInt }"),
        ("{ nil = nil }", "{ false }"),
        ("{ 5 != nil }", "{ true }"),
    ] {
        reads(text, want);
    }
}

/// Source: docs/facts/traceql.md, "Accepted or refused".
#[test]
fn accepted_or_refused() {
    for accepted in [
        "{ .a-1=2 }",
        "{ span.\"my key\".x = 1 }",
        "{ .a }",
        "{ instrumentation:version = 1 }",
        "{ name != nil }",
        "{ .service.name = nil }",
        "{ .a > 1 // note\n }",
        "{ .a//x = 1 }",
        "{ duration = 5 }",
        "{ span:childCount > 1s }",
        "{ name > \"m\" }",
        "{} | max_over_time(name)",
        "()".replace("()", "({})").as_str(),
    ] {
        parse(accepted).expect(accepted);
    }
    for bad in [
        "{ .a == 1 }",
        "{ a = 1 }",
        "{ .a = 'x' }",
        "{} | count()",
        "{} | by(.a, .b)",
        "coalesce()",
        "({.a} | count() > 1) && {.b}",
        "({.a} | {.b}) | count() > 1",
        "({.a} | {.b}) | rate()",
        "{} | rate() by (.a = 1)",
        "{} with(most_recent=true) | count() > 1",
        "({} | rate()) * 10s",
        "({} | rate()) % 2",
        "-({} | rate())",
        "({} | count()) > 1",
        "{} | 1 > 2",
        "{} | count() > 1s + 1s",
        "{} | count() > 1 / 0",
        "{} | rate() * 2",
        "{} with(name=1)",
        "{ trace:rootServiceName = \"x\" }",
        "{ parent = nil }",
        "{ parent.a = 1 }",
        "",
        "{",
        "{ . a }",
        "{}}",
        "1",
    ] {
        is_parse_error(bad);
    }
    is_invalid("{ name }", "span filter field expressions must resolve to a boolean: { name }");
    is_invalid("{ .a + 1 }", "span filter field expressions must resolve to a boolean: { .a + 1 }");
    is_invalid("{ status = \"error\" }", "binary operations must operate on the same type: status = `error`");
    is_invalid("{ kind = 2 }", "binary operations must operate on the same type: kind = 2");
    is_invalid("{ status > ok }", "illegal operation for the given types: status > ok");
    is_invalid("{ duration > \"1s\" }", "binary operations must operate on the same type: duration > `1s`");
    is_invalid("{ name = nil }", "name=nil is not valid because intrinsics cannot be nil");
    is_invalid("{ resource.service.name = nil }", "resource.service.name=nil is not valid because resource.service.name cannot be nil");
    is_invalid("{ .a =~ .b }", "invalid type for =~ or !~: .b");
    is_invalid("{ .a =~ \"(\" }", "invalid regex: `(`");
    is_invalid("{} | 1 < count()", "scalar filter lhs of type constant not yet supported");
    is_invalid("{} | count() + 1 > 2", "scalar filter lhs of type arithmetic not yet supported");
    is_invalid("{} | avg(name) > 1", "aggregate field expressions must resolve to a number type: avg(name)");
    is_invalid("{} | max(2) > 1", "aggregate field expressions must reference the span: max(2)");
    is_invalid("{} | by(1)", "grouping field expressions must reference the span: by(1)");
    is_invalid("{ !(-name = 1) }", "illegal operation for the given type: -name");
    is_invalid("{} | rate() by(.a,.b,.c,.d,.e,.f)", "metrics group by 6 values not yet supported");
    is_invalid("{} | quantile_over_time(duration, 2)", "quantile must be between 0 and 1: 2");
    is_invalid("{} | rate() | topk(0)", "limit must be greater than 0");
    is_invalid("{} | compare({}) | topk(1)", "`compare()` cannot be used with second stage functions");
    assert!(refused("({} | by(span.n)) >> ({})").contains("consider using coalesce()"));
}

/// Source: docs/facts/traceql.md, "Checks". One query for each reason that is not among the worked examples.
#[test]
fn checks() {
    let four = "by(.a,.b,.c,.d)";
    for query in ["histogram_over_time(.x)", "quantile_over_time(.x, .5)", "avg_over_time(.x)"] {
        parse(&format!("{{}} | {query} {four}")).expect("four are fine");
        is_invalid(&format!("{{}} | {query} by(.a,.b,.c,.d,.e)"), "metrics group by 5 values not yet supported");
    }
    for query in ["rate()", "count_over_time()", "min_over_time(.x)", "max_over_time(.x)", "sum_over_time(.x)"] {
        parse(&format!("{{}} | {query} by(.a,.b,.c,.d,.e)")).expect("five are fine");
        is_invalid(&format!("{{}} | {query} by(.a,.b,.c,.d,.e,.f)"), "metrics group by 6 values not yet supported");
    }
    is_invalid("{} | quantile_over_time(.x, .5, 1.5)", "quantile must be between 0 and 1: 1.5");
    is_invalid("{} | rate() | bottomk(0)", "limit must be greater than 0");
    for count in ["0", "1001"] {
        is_invalid(&format!("{{}} | compare({{ .a }}, {count})"), "compare() top number of values must be an integer between 1 and 1000");
    }
    parse("{} | compare({ .a }, 1000, 5, 6)").expect("as many as allowed");
    is_invalid("{} | compare({ .a }, 5, 6, 6)", "compare() end timestamp must be greater than start timestamp");
    is_invalid("{} | compare({ name })", "span filter field expressions must resolve to a boolean: { name }");
    for query in ["({} | compare({ .a })) + ({} | rate())", "2 * ({} | compare({ .a }))", "{} | compare({ .a }) > 2"] {
        is_invalid(query, "`compare()` cannot be used with second stage functions");
    }
    is_invalid("{} | count() > count()", "scalar filter rhs of type aggregate not yet supported");
    is_invalid("{} | by(name + 1)", "binary operations must operate on the same type: name + 1");
    is_invalid("{} | sum(.a = 1) > 1", "aggregate field expressions must resolve to a number type: sum(.a = 1)");
    is_invalid("{ name && .a }", "illegal operation for the given types: name && .a");
    is_invalid("{ duration + 1 }", "span filter field expressions must resolve to a boolean: { duration + 1 }");
    is_invalid("{ !duration }", "illegal operation for the given type: !duration");
    is_invalid("{ kind =~ \"x\" }", "binary operations must operate on the same type: kind =~ `x`");
    is_invalid("{ duration =~ 1s }", "illegal operation for the given types: duration =~ 1s");
    is_invalid("{ .a = 1 } | { trace:id = nil }", "trace:id=nil is not valid because intrinsics cannot be nil");
    assert!(refused("{ parent.a = 1 }").ends_with("parent not yet supported"));
    assert!(refused("{ parent = 1 }").ends_with("intrinsic (parent) not yet supported"));
    is_invalid("{ name =~ `\\pL{500}{10}` }", "invalid regex: `\\pL{500}{10}`: it would take more than 16777216 bytes");
}

#[test]
fn regular_expressions_have_room_together() {
    let words: Vec<String> = (0..1200).map(|n| format!("{n:037}")).collect();
    parse(&format!("{{ name =~ \"{}\" }}", words.join("|"))).expect("a set of texts");
    parse(r"{ name =~ `\p{L}{2,64}` && span.a !~ `\w{2,100}` }").expect("large, but not too large");
    let different = |count: usize| format!("{{ {} }}", (0..count).map(|n| format!(".a =~ `x{n}.*`")).collect::<Vec<_>>().join(" || "));
    parse(&different(150)).expect("small ones");
    let equal = format!("{{ {} }}", vec![r".a =~ `\p{L}{2,64}`"; 1000].join(" || "));
    parse(&equal).expect("one pattern");
    let large: Vec<String> = (100..108).map(|n| format!(".a =~ `\\p{{L}}{{{n}}}`")).collect();
    let error = refused(&format!("{{ {} }}", large.join(" || ")));
    assert!(error.ends_with("the regular expressions of the query would take more than 33554432 bytes together"), "{error}");
}

#[test]
fn errors_quote_no_more_than_a_line() {
    let long = "x".repeat(50_000);
    for query in [
        format!("{{ name =~ \"({long}\" }}"),
        format!("{{ name = \"{long}\" + 1 }}"),
        format!("{{ .a = \"{long}\" \"{long}\" }}"),
        format!("{{ {long} = 1 }}"),
        format!("{{ span:{long} = 1 }}"),
        format!("{{ .a = 1{} }}", "2".repeat(50_000)),
    ] {
        let error = refused(&query);
        assert!(error.chars().count() < 400, "{error}");
    }
}

#[test]
fn errors_say_where_and_what() {
    assert_eq!(refused("{ .a == 1 }"), "parse error at line 1, col 7: unexpected =, expected a value, an attribute or (");
    assert_eq!(refused("{\n  foo = 1 }"), "parse error at line 2, col 3: unknown identifier: foo");
    assert_eq!(refused("{ .a = 1"), "parse error at line 1, col 9: unexpected end of the text, expected }");
    assert_eq!(refused("{ .a = \"ü\" } }"), "parse error at line 1, col 14: unexpected }, expected the end of the text");
    for (text, want) in [
        ("{} | rate(", "line 1, col 11: unexpected end of the text, expected )"),
        ("{} |", "line 1, col 5: unexpected end of the text, expected {, ( or a stage"),
        ("{ .a = \"x }", "line 1, col 8: string is not terminated"),
        ("{ .a = 1.5d }", "line 1, col 11: unknown identifier: d"),
        ("{}\n\t| by(.a, .b)", "line 2, col 9: unexpected ,, expected )"),
        ("{} | rate() by (.a = 1)", "line 1, col 20: unexpected =, expected )"),
        ("{} | quantile_over_time(duration)", "line 1, col 33: unexpected ), expected , and a quantile"),
        ("{ .a = 0x1F }", "line 1, col 9: unknown identifier: x1F"),
        ("{ span.a = }", "line 1, col 12: unexpected }, expected a value, an attribute or ("),
        ("{} | select()", "line 1, col 13: unexpected ), expected an attribute such as span.name or an intrinsic"),
        ("{} | rate() | topk(-1)", "line 1, col 20: unexpected -, expected an integer"),
        ("{} with(5=1)", "line 1, col 9: unexpected 5, expected the name of a hint"),
    ] {
        assert_eq!(refused(text), format!("parse error at {want}"), "{text}");
    }
    assert!(refused(&" ".repeat(200_000)).contains("200000 bytes long, the limit is 131072"));
}

#[test]
fn depth_has_a_limit_and_no_overflow() {
    let nested = |depth: usize| format!("{{ {}.a{} }}", "(".repeat(depth), ")".repeat(depth));
    parse(&nested(MAX_NESTING - 1)).expect("shallow enough");
    assert!(refused(&nested(10_000)).contains("nested deeper than 100 levels"));
    assert!(refused(&format!("{{ {}.a }}", "!".repeat(10_000))).contains("nested deeper"));
    assert!(refused(&format!("{}{{}}", "(".repeat(10_000))).contains("nested deeper"));

    let chain = |links: usize| format!("{{ {} }}", vec![".a"; links].join("||"));
    let query = parse(&chain(1000)).expect("short enough");
    assert_eq!(query, query.clone());
    assert_eq!(query.to_string().matches("||").count(), 999);
    let query = parse(&chain(30_000)).expect("a chain of one operator may be as long as the text");
    assert_eq!(query.to_string().matches("||").count(), 29_999);
    parse(&vec!["{}"; 30_000].join("&&")).expect("the same of spansets");
    assert!(refused(&format!("{{ {} }}", vec![".a"; 20_000].join(" + "))).contains("more than 1000 operators above one operand"));
    assert!(refused(&format!("{{ {} }}", vec![".a||.a"; 15_000].join("&&"))).contains("more than 1000 operators above one operand"));
}

fn attribute() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("name".to_owned()),
        Just("duration".to_owned()),
        Just("event:name".to_owned()),
        Just("nestedSetLeft".to_owned()),
        "(span|resource|event|link|instrumentation)?[.][a-z][a-z0-9+*/.-]{0,5}",
        "span[.]\"[a-z {}=]{0,5}\"",
    ]
}

fn field() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        attribute(),
        any::<i64>().prop_map(|v| v.unsigned_abs().min(i64::MAX as u64).to_string()),
        "[0-9]{1,3}[.][0-9]{0,3}",
        "[1-9][0-9]{0,2}(ns|us|ms|s|m|h|d)",
        "`[ -~&&[^`]]{0,5}`",
        Just("true".to_owned()),
        Just("error".to_owned()),
        Just("server".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        let op = prop::sample::select(vec!["&&", "||", "=", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "^", "=~", "!~"]);
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("- {a}")),
            inner.clone().prop_map(|a| format!("! {a}")),
            inner.clone().prop_map(|a| format!("{a} = nil")),
            inner.prop_map(|a| format!("nil != {a}")),
        ]
    })
}

proptest! {
    /// Canonical text reads as what it was printed from; folding leaves nothing to fold.
    #[test]
    fn printed_then_read_is_the_same(a in field(), b in field(), by in attribute(), op in "(&&|[|][|]|[!&]?(>|<|>>|<<|~))") {
        for text in [
            format!("{{ {a} }}"),
            format!("{{ .x = ({a}) }} {op} {{ .y = ({b}) }} | by({by}) | count() > 3"),
            format!("({{ .x = ({a}) }} | avg({by}) > -2s) {op} ({{}})"),
            format!("{{ .x = ({a}) }} | rate() by({by}) | topk(3) with(x=1)"),
        ] {
            let first = match parse(&text) {
                Ok(query) => query,
                Err(QueryError::Invalid(_)) => continue,
                Err(error) => return Err(TestCaseError::fail(format!("{text}: {error}"))),
            };
            let printed = first.to_string();
            let second = parse(&printed).map_err(|e| TestCaseError::fail(format!("{text} -> {printed}: {e}")))?;
            prop_assert_eq!(&first, &second, "{} -> {}", text, printed);
        }
    }

    #[test]
    fn any_text_is_answered(text in "\\PC{0,40}", words in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "(", ")", "&&", "|", ".a", "=", "1", "count", "by", "nil", "\"x\"", "-", "!", ">>", "rate", "with", "5s", "coalesce", ",",
        "select", "topk", "compare", "avg", "name", "status",
    ]), 0..20)) {
        let _ = parse(&text);
        let _ = parse(&words.join(" "));
    }
}
