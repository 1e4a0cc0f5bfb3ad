//! What is said about how a query will be answered.

use vivace_core::TimeRange;
use vivace_traceql::parse;

#[track_caller]
fn explained(query: &str, want: &[&str]) {
    let text = parse(query).expect(query).explain().expect(query).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, want, "{text}");
}

#[test]
fn searches() {
    explained(
        "{ status = error && span.n > 1 }",
        &[
            "query        { (status = error) && (span.n > 1) }",
            "traces       with a span where status = error && span.n > 1",
            "reads        of spans: status, span.n",
            "second pass  none: what storage finds is the answer",
            "spans        decided one by one",
        ],
    );
    explained(
        "{ span.n + 1 > 2 && name =~ \"a.*\" && event.x = 1 } >> { !span.b } | count() > 3 | select(link.why) with(most_recent=true)",
        &[
            "query        { (((span.n + 1) > 2) && (name =~ `a.*`)) && (event.x = 1) } >> { !span.b }|count() > 3|select(link.why) with(most_recent=true)",
            "traces       with a span where span.n != nil && name =~ `^(?s:a.*)$` && event.x = 1, and with a span where span.b = false",
            "reads        of spans: span.n, name, span.b",
            "             of events: event.x",
            "             of links: link.why",
            "second pass  { (((span.n + 1) > 2) && (name =~ `a.*`)) && (event.x = 1) } >> { !span.b }",
            "             count() > 3",
            "whole traces for { (((span.n + 1) > 2) && (name =~ `a.*`)) && (event.x = 1) } >> { !span.b }",
            "             for count() > 3",
            "order        exactly the newest traces: all candidates are read",
        ],
    );
    explained(
        "{ span.a = 1 && (span.b = 2 || span.c * 2 = 4) }",
        &[
            "query        { (span.a = 1) && ((span.b = 2) || ((span.c * 2) = 4)) }",
            "traces       with a span where span.a = 1 && (span.b = 2 || span.c != nil)",
            "reads        of spans: span.a, span.b, span.c",
            "second pass  { (span.b = 2) || ((span.c * 2) = 4) }",
            "spans        decided one by one",
        ],
    );
    explained(
        "{ .a = 1 } && { false }",
        &[
            "query        { .a = 1 } && { false }",
            "traces       none: nothing can match",
            "reads        of spans: .a",
            "second pass  { .a = 1 } && { false }",
            "whole traces for { .a = 1 } && { false }",
        ],
    );
}

#[test]
fn metrics() {
    explained(
        "({ status = error } | rate() by (rootName) > 2) / ({} | rate()) | topk(3)",
        &[
            "query        ({ status = error }|rate()by(rootName) > 2) / ({ true }|rate())|topk(3)",
            "traces       all",
            "reads        of spans: status",
            "second pass  none: what storage finds is the answer",
            "spans        decided one by one",
            "whole traces for rate()by(rootName)",
            "counts       rate()by(rootName); a series for each rootName",
            "at the end   > 2",
            "second pass  none: what storage finds is the answer",
            "spans        decided one by one",
            "counts       rate()",
            "at the end   series / series",
            "             topk(3)",
        ],
    );
}

#[test]
fn errors() {
    assert_eq!(
        parse("({} | rate()) + ({} | rate())").expect("a query").search_plan(TimeRange::ALL).expect_err("refused").to_string(),
        "arithmetic between metrics in a search is not supported yet"
    );
}
