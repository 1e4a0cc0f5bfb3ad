//! The filter of tag requests, and what is answered without data.

use vivace_core::TimeRange;
use vivace_traceql::{Attribute, TagFilter, TagValue, Value, fixed_tag_values, parse_attribute};

use crate::data;

fn filter(q: &str, requested: Option<&str>) -> TagFilter {
    let requested = requested.map(|r| parse_attribute(r).expect(r));
    TagFilter::parse(q, requested.as_ref(), TimeRange::ALL).expect(q)
}

/// Names of the spans whose tags count.
fn passing(filter: &TagFilter) -> String {
    let traces = data::traces();
    let batch = data::batch(&traces, filter.fetch());
    let names: Vec<&str> = traces.iter().flat_map(|t| t.spans.iter().map(|s| s.name)).collect();
    let spans = batch.traces.iter().flat_map(|trace| trace.spans.clone().map(move |span| (trace, span)));
    spans.filter(|(trace, span)| filter.matches(&batch, trace, *span)).map(|(_, span)| names[span]).collect()
}

#[test]
fn filters_by_the_first_plain_filter() {
    assert_eq!(passing(&filter("{ resource.service.name = \"cart\" }", None)), "BJK");
    assert_eq!(passing(&filter("{ resource.service.name = \"cart\" && status = error } | count() > 9", None)), "J");
    assert_eq!(passing(&filter("{ .region = \"us\" || kind = consumer }", None)), "CDF");
    assert_eq!(passing(&filter("{ event.code = 9 && (status = error || true) }", None)), "C");
    assert_eq!(passing(&filter("{ !(status = error) && duration >= 500ms }", None)), "FGH");
    assert!(filter("{ false }", None).passes_nothing());
}

#[test]
fn what_is_still_being_typed_does_not_count() {
    for (q, want) in [
        ("{ resource.service.name = \"cart\" && span.x = }", "BJK"),
        ("{ resource.service.name = \"cart\" && status = ", "BJK"),
        ("{ (name =~ || kind = consumer) && name = \"F\" }", "F"),
        ("{ resource.service.name = \"cart\" ", "BJK"),
        ("{ resource.service.name = \"cart\" && span.foo", "BJK"),
        ("{ resource.service.name = \"cart\" && span.foo }", "BJK"),
        ("{ span.foo && resource.service.name = \"cart\" && (span.a = 1 ||", "BJK"),
        ("{ resource.service.name = \"cart\" && name = \"A", "BJK"),
        ("{ resource.service.name = \"cart\" &", "BJK"),
        ("{ resource.service.name = \"cart\" && }", "BJK"),
        ("{ && resource.service.name = \"cart\" }", "BJK"),
        ("{ resource.service.name = \"cart\" && name }", "BJK"),
        ("{ resource.service.name = \"cart\" && status = err", "BJK"),
        ("{ resource.service.name = \"cart\" && !(name = \"J\" && span.x = ) }", "BJK"),
        ("{ (resource.service.name = \"cart\" && (status = error && span.x =~", "J"),
        ("{ (resource.service.name = \"cart\" && span.x > ) && status = error } | sel", "J"),
        ("{ resource.service.name = \"cart\" && (span.x + 1) * }", "BJK"),
    ] {
        assert_eq!(passing(&filter(q, None)), want, "{q}");
    }
    for q in [
        "",
        "garbage",
        "{ name = \"A",
        "{ name }",
        "{ .a = 1 || .b",
        "{ .a = 1 } && { .b =",
        "{ span.",
        "{} > { name = \"A\" }",
        "{ span.x = }",
        "{}",
        "by(.a)",
    ] {
        assert!(filter(q, None).passes_everything(), "{q}");
    }
}

#[test]
fn conditions_on_the_requested_tag() {
    let pinned = filter("{ resource.service.name = \"cart\" && span.items = 3 }", Some("span.items"));
    assert_eq!(pinned.pinned(), [Value::Int(3)]);
    assert!(pinned.passes_nothing());
    let either = filter("{ span.items = 3 || kind = consumer }", Some("span.items"));
    assert_eq!((either.pinned(), passing(&either).as_str()), (&[Value::Int(3)][..], "F"));
    let other = filter("{ span.items > 3 && resource.service.name = \"cart\" }", Some("span.items"));
    assert_eq!((other.pinned().len(), passing(&other).as_str()), (0, "BJK"));
    assert!(filter("{ name != \"A\" }", Some("name")).passes_everything());
}

/// Whatever of a query has been typed, it is a filter, and what of it was whole before goes on filtering.
#[test]
fn every_prefix_of_a_query_is_a_filter() {
    for (first, rest) in [
        (
            "{ resource.service.name = \"cart\"",
            " && span.items >= 1.5e3 && !(status != error || kind = server) } | by(resource.region) | count() > 2",
        ),
        ("{ resource.service.name=\"cart\"", "&& (name =~ `a\\d{2}|b` || event:name != nil && (duration > 1h2m)) } >> { true }"),
        (
            "{ resource.service.name = \"cart\"",
            " && -span.a ^ 2 % 3 < 4 && link:spanID = \"ab\\\"\" && trace:rootName !~ \"x.*\" } | rate() by (.a)",
        ),
        ("{ \"cart\" = resource.service.name", " && .\"odd \\\" name\" = nil && parent.x = 1 && instrumentation.y = true // note"),
    ] {
        for end in (0..=rest.len()).filter(|end| rest.is_char_boundary(*end)) {
            let q = format!("{first}{}", &rest[..end]);
            let passing = passing(&filter(&q, None));
            let is_plain = !q.contains("} >");
            assert!(!is_plain || passing.chars().all(|name| "BJK".contains(name)), "{q}: {passing}");
        }
        for end in (0..first.len()).filter(|end| first.is_char_boundary(*end)) {
            // `"cart" = resource.s` is whole, though no more than a beginning.
            let filter = filter(&first[..end], None);
            assert!(filter.passes_everything() || first.starts_with("{ \"cart"), "{}", &first[..end]);
        }
    }
}

#[test]
fn many_ways_are_not_looked_at_one_by_one() {
    let either = "(span.items = 3 || resource.service.name = \"cart\")";
    let q = |times: usize| format!("{{ {} }}", vec![either; times].join(" && "));
    let (few, many) = (filter(&q(6), None), filter(&q(7), None));
    assert_eq!(passing(&few), passing(&many));
    assert_eq!(filter(&q(6), Some("span.items")).pinned(), [Value::Int(3)]);
    assert!(filter(&q(7), Some("span.items")).passes_everything());
}

#[test]
fn answers_without_data() {
    let values =
        |text: &str| fixed_tag_values(&parse_attribute(text).expect(text)).map(|v| v.into_iter().map(|v| v.value).collect::<Vec<_>>());
    assert_eq!(values("status").expect("fixed"), ["ok", "error", "unset"]);
    assert_eq!(values("span:kind").expect("fixed").len(), 6);
    assert_eq!(values("trace:duration").expect("fixed"), [""; 0]);
    assert_eq!(values("name"), None);
    assert_eq!(values("span.name"), None);
    for name in vivace_traceql::intrinsic_tags() {
        assert!(matches!(parse_attribute(name), Ok(Attribute::Intrinsic(_))), "{name}");
    }
    let tag = |kind, value: &str| TagValue { kind, value: value.to_owned() };
    assert_eq!(TagValue::of(&Value::IntArray([1, 2].into())), [tag("int", "1"), tag("int", "2")]);
    assert_eq!(TagValue::of(&Value::Duration(1_500_000_000)), [tag("duration", "1.5s")]);
}
