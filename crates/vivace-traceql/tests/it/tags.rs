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
    ] {
        assert_eq!(passing(&filter(q, None)), want, "{q}");
    }
    for q in ["", "garbage", "{ name = \"A", "{ .a = 1 && }", "{ name }", "{} > { name = \"A\" }", "{ span.x = }", "{}", "by(.a)"] {
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

#[test]
fn too_many_ways_are_refused() {
    let either = "(.a = 1 || .b = 1)";
    let q = |times: usize| format!("{{ {} }}", vec![either; times].join(" && "));
    TagFilter::parse(&q(6), None, TimeRange::ALL).expect("64 ways");
    let error = TagFilter::parse(&q(7), None, TimeRange::ALL).expect_err("128 ways").to_string();
    assert!(error.contains("128 ways, the limit is 100"), "{error}");
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
