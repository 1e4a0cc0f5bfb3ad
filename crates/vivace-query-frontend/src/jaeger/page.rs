//! What a browser sees on Jaeger's port: a page that says what this is, and a trace as a list of its spans.

use std::fmt::Write as _;

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use rustc_hash::FxHashMap;
use vivace_proto::otlp::Span;
use vivace_proto::tempopb::Trace;

use super::{JaegerApi, v1};
use crate::asked::Asked;
use crate::finding::service_of;

/// Spans of a page. The whole trace is a link away.
const SPANS: usize = 1000;
const STYLE: &str = "body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}td,th{text-align:left;padding:0 1em 0 0;\
                     white-space:pre-wrap;overflow-wrap:anywhere}td.n{text-align:right;white-space:nowrap}";

pub(crate) async fn start() -> Html<String> {
    page(
        "Vivace: Jaeger's query API",
        "<p>This port answers what Jaeger's UI and Grafana's Jaeger data source ask: <code>/api/services</code>, \
         <code>/api/traces</code>, <code>/api/dependencies</code>, <code>/api/metrics</code> and <code>/api/v3</code>. \
         It has no UI of its own yet.</p><ul><li>Grafana: a data source of type Jaeger with the URL of this page.</li>\
         <li>One trace: <code>/trace/&lt;trace id&gt;</code>.</li><li><a href=\"/api/services\">The services that were seen lately</a></li></ul>",
    )
}

pub(crate) async fn trace(State(jaeger): State<JaegerApi>, Path(id): Path<String>, asked: Asked) -> Response {
    match v1::one(&jaeger, &asked, &id).await {
        Ok(found) => {
            // Laying out many spans takes a while.
            let made = tokio::task::spawn_blocking(move || spans(&found.trace)).await.unwrap_or_else(|error| escaped(&error.to_string()));
            page("Vivace: a trace", &made).into_response()
        }
        Err(refusal) => refusal.complete(page("Vivace: no trace", &format!("<p>{}</p>", escaped(&refusal.message))).into_response()),
    }
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1>{body}</body></html>\n"
    ))
}

/// The spans of a trace with at least one, each below its parent.
fn spans(trace: &Trace) -> String {
    let all: Vec<(&str, &Span)> = trace
        .resource_spans
        .iter()
        .flat_map(|resource| {
            let service = service_of(resource.resource.as_ref()).unwrap_or_default();
            resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |span| (service, span))
        })
        .collect();
    let start = all.iter().map(|(_, span)| span.start_time_unix_nano).min().unwrap_or(0);
    let id = all.first().map(|(_, span)| hex::encode(&span.trace_id)).unwrap_or_default();
    let mut html = format!(
        "<p>{} spans of <a href=\"/api/traces/{id}\">{id}</a></p><table><tr><th>service<th>span<th>begins<th>takes</tr>",
        all.len()
    );
    for (depth, index) in in_order(&all).into_iter().take(SPANS) {
        let (service, span) = all[index];
        let millis = |nanos: u64| nanos as f64 / 1e6;
        let (begins, takes) =
            (millis(span.start_time_unix_nano - start), millis(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano)));
        let indent = "\u{a0}\u{a0}".repeat(depth.min(40));
        write!(
            html,
            "<tr><td>{}<td>{indent}{}<td class=\"n\">{begins:.3} ms<td class=\"n\">{takes:.3} ms</tr>",
            escaped(service),
            escaped(&span.name)
        )
        .expect("a text takes everything");
    }
    html.push_str("</table>");
    if all.len() > SPANS {
        write!(html, "<p>The first {SPANS}; <a href=\"/api/traces/{id}\">all of them as JSON</a>.</p>").expect("a text takes everything");
    }
    html
}

/// Depth and index of each span once: children below their parent, by their start.
fn in_order(spans: &[(&str, &Span)]) -> Vec<(usize, usize)> {
    let places: FxHashMap<&[u8], usize> = spans.iter().enumerate().map(|(index, (_, span))| (&span.span_id[..], index)).collect();
    let mut children: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
    let mut roots = Vec::new();
    for (index, (_, span)) in spans.iter().enumerate() {
        match places.get(&span.parent_span_id[..]).filter(|parent| **parent != index) {
            Some(parent) => children.entry(*parent).or_default().push(index),
            None => roots.push(index),
        }
    }
    let by_start = |list: &mut Vec<usize>| list.sort_by_key(|index| std::cmp::Reverse(spans[*index].1.start_time_unix_nano));
    let (mut order, mut seen) = (Vec::new(), vec![false; spans.len()]);
    by_start(&mut roots);
    let mut waiting: Vec<(usize, usize)> = roots.into_iter().map(|root| (0, root)).collect();
    // What is left then are circles.
    let mut next = 0;
    loop {
        while let Some((depth, index)) = waiting.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            order.push((depth, index));
            let mut below = children.remove(&index).unwrap_or_default();
            by_start(&mut below);
            waiting.extend(below.into_iter().map(|child| (depth + 1, child)));
        }
        match seen[next..].iter().position(|seen| !seen) {
            Some(at) => waiting.push((0, next + at)),
            None => return order,
        }
        next = waiting[0].1;
    }
}

/// A text as it may stand in a page.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use vivace_proto::otlp::{ResourceSpans, ScopeSpans};

    use super::*;

    fn span(id: u8, parent: u8, start: u64, name: &str) -> Span {
        Span {
            trace_id: vec![1; 16].into(),
            span_id: vec![id; 8].into(),
            parent_span_id: vec![parent; 8].into(),
            name: name.to_owned(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 1_500_000,
            ..Default::default()
        }
    }

    #[test]
    fn spans_stand_below_their_parents_and_are_no_markup() {
        let list = [span(1, 0, 0, "<script>alert(1)</script>"), span(2, 1, 9, "late"), span(3, 1, 5, "early"), span(4, 3, 6, "leaf")];
        let all: Vec<(&str, &Span)> = list.iter().map(|span| ("shop", span)).collect();
        assert_eq!(in_order(&all), [(0, 0), (1, 2), (2, 3), (1, 1)]);
        let circle = [span(1, 2, 0, "a"), span(2, 1, 1, "b"), span(3, 3, 2, "itself")];
        let all: Vec<(&str, &Span)> = circle.iter().map(|span| ("shop", span)).collect();
        let mut places: Vec<usize> = in_order(&all).into_iter().map(|(_, index)| index).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);

        let scope = ScopeSpans { spans: list.to_vec(), ..Default::default() };
        let html = spans(&Trace { resource_spans: vec![ResourceSpans { scope_spans: vec![scope], ..Default::default() }] });
        assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains("<script>"), "{html}");
        assert!(html.contains("<td class=\"n\">1.500 ms"), "{html}");
    }
}
