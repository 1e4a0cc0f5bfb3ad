//! What a row derives from its spans, against a model: the rules word by word, as slow as they are plain.
//!
//! Source: docs/facts/blocks.md, "OTLP to row rules".

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::span::Link;
use vivace_proto::otlp::{AnyValue, InstrumentationScope, KeyValue, Resource as OtlpResource, Span as OtlpSpan, Status};

use super::*;

const TRACE: TraceId = TraceId([7; 16]);

/// A span with its resource and scope, as a client sends it.
type Sent = (OtlpResource, InstrumentationScope, OtlpSpan);

fn attribute(key: &str, value: AnyKind) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, AnyKind::StringValue(value.to_owned()))
}

/// Few resources, so that many are the same; some without a usable name, some with two.
fn resource() -> impl Strategy<Value = OtlpResource> {
    let name = prop_oneof![
        4 => "[abc]".prop_map(|name| vec![text("service.name", &name)]),
        1 => Just(vec![]),
        1 => Just(vec![attribute("service.name", AnyKind::IntValue(3))]),
        1 => Just(vec![text("service.name", "")]),
        1 => Just(vec![text("service.name", "a"), text("service.name", "b")]),
        1 => Just(vec![attribute("service.name", AnyKind::BoolValue(true)), text("service.name", "last")]),
    ];
    (name, prop::option::of("[xy]")).prop_map(|(mut attributes, host)| {
        attributes.extend(host.map(|host| text("host", &host)));
        OtlpResource { attributes, ..OtlpResource::default() }
    })
}

/// A small number of ids, so that they are shared, met as parents, and missing.
fn span_id() -> impl Strategy<Value = Vec<u8>> {
    (1u8..25).prop_map(|id| vec![0, 0, 0, 0, 0, 0, 0, id])
}

fn link() -> impl Strategy<Value = Link> {
    let kind = prop::sample::select(vec!["child_of", "follows_from"]);
    (any::<bool>(), kind, any::<bool>()).prop_map(|(own, kind, is_text)| {
        let trace_id = if own { TRACE.0 } else { [8; 16] }.to_vec().into();
        let key = "opentracing.ref_type";
        let attribute = if is_text { text(key, kind) } else { attribute(key, AnyKind::IntValue(1)) };
        Link { trace_id, span_id: vec![1; 8].into(), attributes: vec![attribute], ..Link::default() }
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let parent = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec![0; 8]),
        6 => span_id(),
    ];
    let times = (prop_oneof![1 => Just(0), 9 => 1_000u64..2_000], prop_oneof![9 => 0u64..500, 1 => Just(u64::MAX)]);
    let status = prop::option::of(0i32..3);
    (resource(), "[st]?", span_id(), parent, "[a-e]", -1i32..9, times, status, prop::collection::vec(link(), 0..2)).prop_map(
        |(resource, scope, id, parent, name, kind, (start, length), status, links)| {
            let scope = InstrumentationScope { name: scope, ..InstrumentationScope::default() };
            let span = OtlpSpan {
                span_id: id.into(),
                parent_span_id: parent.into(),
                name,
                kind,
                start_time_unix_nano: start,
                // The largest length makes it end before it starts.
                end_time_unix_nano: start.wrapping_add(length),
                status: status.map(|code| Status { code, ..Status::default() }),
                links,
                ..OtlpSpan::default()
            };
            (resource, scope, span)
        },
    )
}

/// What makes a resource: its service, and all other attributes sorted by key.
type Content = (String, Vec<Vec<u8>>);

/// A scope's name and its spans.
type OfScope = (String, Vec<OtlpSpan>);

/// Copies of a span (first eight bytes of the id, and the kind, unknown ones counting as 0) are dropped.
fn without_copies(trace: &[Sent]) -> Vec<&Sent> {
    let mut kept: Vec<&Sent> = Vec::new();
    let identity = |span: &OtlpSpan| (span.span_id.clone(), if (0..=7).contains(&span.kind) { span.kind } else { 0 });
    for sent in trace {
        if kept.iter().all(|other| identity(&other.2) != identity(&sent.2)) {
            kept.push(sent);
        }
    }
    kept
}

fn string<'a>(attributes: impl IntoIterator<Item = &'a KeyValue>, key: &str) -> Vec<Option<&'a str>> {
    let value = |attribute: &'a KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        AnyKind::StringValue(text) => Some(text.as_str()),
        _ => None,
    };
    attributes.into_iter().filter(|attribute| attribute.key == key).map(value).collect()
}

/// The first string-typed one, else empty.
fn service_name(resource: &OtlpResource) -> &str {
    string(&resource.attributes, "service.name").into_iter().flatten().next().unwrap_or_default()
}

fn is_parentless(span: &OtlpSpan) -> bool {
    span.parent_span_id.iter().all(|byte| *byte == 0)
}

/// The last span without a parent and without a link that says `child_of` to its own trace; its name and the first
/// `service.name` of its resource, if that is text.
fn root<'s>(kept: &[&'s Sent]) -> (&'s str, &'s str) {
    let says_child =
        |link: &Link| link.trace_id == TRACE.0.as_slice() && string(&link.attributes, "opentracing.ref_type").contains(&Some("child_of"));
    let is_candidate = |sent: &&&'s Sent| is_parentless(&sent.2) && !sent.2.links.iter().any(says_child);
    let Some(last) = kept.iter().rfind(is_candidate) else { return ("", "") };
    let service = string(&last.0.attributes, "service.name").first().copied().flatten().unwrap_or_default();
    (&last.2.name, service)
}

fn with_row<T>(trace: &[Sent], look: impl FnOnce(&Row<'_>) -> T) -> T {
    let bytes: Vec<[Vec<u8>; 3]> = trace.iter().map(|(r, s, span)| [r.encode_to_vec(), s.encode_to_vec(), span.encode_to_vec()]).collect();
    let refs: Vec<SpanRef<'_>> = bytes.iter().map(|[resource, scope, span]| SpanRef { resource, scope, span }).collect();
    look(&Row::build(&Layout::vparquet4(&[]), &mut ResourceCache::default(), TRACE, &refs))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn root_times_and_service_stats_are_the_models(trace in prop::collection::vec(sent(), 1..25)) {
        let kept = without_copies(&trace);
        with_row(&trace, |row| {
            prop_assert_eq!((lossy(row.root_name), lossy(row.root_service)), { let (name, service) = root(&kept); (name.to_owned(), service.to_owned()) });

            let mut stats: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
            for (resource, _, span) in &kept {
                let (spans, errors) = stats.entry(service_name(resource)).or_default();
                *spans += 1;
                *errors += u32::from(span.status.as_ref().is_some_and(|status| status.code == 2));
            }
            let got: Vec<_> = row.stats.iter().map(|stat| (lossy(stat.service), (stat.spans, stat.errors))).collect();
            // Ascending, since the model's map is.
            prop_assert_eq!(got, stats.into_iter().map(|(service, counts)| (service.to_owned(), counts)).collect::<Vec<_>>());

            let mut start = 0;
            for (_, _, span) in &kept {
                if start == 0 || span.start_time_unix_nano < start {
                    start = span.start_time_unix_nano;
                }
            }
            prop_assert_eq!(row.start, start);
            prop_assert_eq!(row.end, kept.iter().map(|(_, _, span)| span.end_time_unix_nano).max().unwrap_or_default());
            Ok(())
        })?;
    }

    #[test]
    fn spans_stay_together_by_resource_and_scope_in_order_of_arrival(trace in prop::collection::vec(sent(), 1..25)) {
        let kept = without_copies(&trace);
        let resource_of = |resource: &OtlpResource| -> Content {
            let mut others = resource.attributes.clone();
            if let Some(name) = others.iter().position(|attribute| string([attribute], "service.name").into_iter().flatten().next().is_some()) {
                others.remove(name);
            }
            others.sort_by(|a, b| a.key.cmp(&b.key));
            let others = others.iter().map(KeyValue::encode_to_vec).collect();
            (service_name(resource).to_owned(), others)
        };
        let mut want: Vec<(Content, Vec<OfScope>)> = Vec::new();
        for sent in &trace {
            let (resource, scope, span) = sent.clone();
            let resource = resource_of(&resource);
            let at = want.iter().position(|(other, _)| *other == resource).unwrap_or(want.len());
            if at == want.len() {
                want.push((resource, Vec::new()));
            }
            let scopes = &mut want[at].1;
            // A copy that is dropped still marks a place for its resource and scope.
            let span = kept.iter().any(|other| std::ptr::eq(*other, sent)).then_some(span);
            match scopes.iter_mut().find(|(other, _)| *other == scope.name) {
                Some((_, spans)) => spans.extend(span),
                None => scopes.push((scope.name, span.into_iter().collect())),
            }
        }
        want.iter_mut().for_each(|(_, scopes)| scopes.retain(|(_, spans)| !spans.is_empty()));
        want.retain(|(_, scopes)| !scopes.is_empty());
        with_row(&trace, |row| {
            prop_assert_eq!(row.resources.len(), want.len());
            for (resource, ((service, _), scopes)) in row.resources.iter().zip(&want) {
                prop_assert_eq!(lossy(resource.service_name), service.as_str());
                prop_assert_eq!(resource.scopes.len(), scopes.len());
                for (scope, (name, spans)) in row.scopes[resource.scopes.clone()].iter().zip(scopes) {
                    prop_assert_eq!(lossy(scope.name), name.as_str());
                    let got: Vec<_> = row.spans[scope.spans.clone()].iter().map(|span| (span.id.to_vec(), span.kind, span.start)).collect();
                    let want: Vec<_> = spans.iter().map(|span| (span.span_id.to_vec(), i64::from(span.kind), span.start_time_unix_nano)).collect();
                    prop_assert_eq!(got, want);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn places_are_those_of_the_rows_order(trace in prop::collection::vec(sent(), 1..25)) {
        with_row(&trace, |row| {
            let nodes: Vec<Node> = row.spans.iter().map(|span| Node {
                id: SpanId::from_slice(span.id),
                parent: span.parent_id.iter().any(|byte| *byte != 0).then(|| SpanId::from_slice(span.parent_id)),
                kind: span.kind,
            }).collect();
            let got: Vec<Position> = row.spans.iter().map(|span| span.position).collect();
            prop_assert_eq!(got, nested_set::number(&nodes));
            // A link makes no child: roots are those without a parent.
            let is_on_three = |id| nodes.iter().filter(|other| other.id == id).count() > 2;
            if !nodes.iter().any(|node| is_on_three(node.id)) {
                for (node, span) in nodes.iter().zip(&row.spans) {
                    prop_assert_eq!(node.parent.is_none(), span.position.parent == -1);
                }
            }
            Ok(())
        })?;
    }
}
