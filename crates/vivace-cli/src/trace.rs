//! A trace as a tree, with a bar that shows when each span ran. Whatever spans say of each other is drawn: parents that are
//! missing, spans that are their own ancestors, and depths at which recursion would run out of stack.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use anyhow::{Context, bail};
use clap::Args;
use prost::Message;
use reqwest::StatusCode;
use vivace_core::TraceId;
use vivace_proto::otlp::{AnyValue, KeyValue, ResourceSpans, Span, any_value, span, status};
use vivace_proto::tempopb::{PartialStatus, TraceByIdResponse};

use crate::client::{Client, Refusal, accepted};
use crate::text::{count, duration, one_line, short};

/// Deepest level that is still indented.
const INDENT_MAX: usize = 30;
/// Characters of the bar that shows when a span ran.
const BAR: usize = 32;
/// Characters of a span's name, its branches included.
const NAME_MAX: usize = 60;

/// One trace as a tree, by its id.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The id: up to 32 hexadecimal digits.
    id: String,
    /// Print the server's JSON instead of a tree.
    #[arg(long)]
    json: bool,
    /// Print the attributes of every span.
    #[arg(long, short)]
    attributes: bool,
}

pub(crate) async fn run(command: Command, client: &Client) -> anyhow::Result<String> {
    let id: TraceId = command.id.parse().with_context(|| format!("{:?} is no trace id", command.id))?;
    let path = format!("/api/v2/traces/{id}");
    if command.json {
        let body = found(client.json(&path, &[]).await?, id)?;
        let value: serde_json::Value = serde_json::from_slice(&body).context("the server's answer is no JSON")?;
        if value["trace"]["resourceSpans"].as_array().is_none_or(Vec::is_empty) {
            return missing(id);
        }
        return Ok(format!("{value:#}\n"));
    }
    let body = found(client.protobuf(&path).await?, id)?;
    let answer = TraceByIdResponse::decode(body).context("the server's answer is no trace; does --address name a query-frontend?")?;
    let resources = answer.trace.unwrap_or_default().resource_spans;
    if resources.iter().all(|resource| resource.scope_spans.iter().all(|scope| scope.spans.is_empty())) {
        return missing(id);
    }
    let mut out = tree(id, &resources, command.attributes);
    if answer.status == PartialStatus::Partial as i32 {
        let _ = writeln!(out, "\nThis is not all of it: {}", answer.message);
    }
    Ok(out)
}

fn found(answer: crate::client::Answer, id: TraceId) -> anyhow::Result<bytes::Bytes> {
    match answer {
        Err(Refusal { status: StatusCode::NOT_FOUND, .. }) => missing(id),
        other => accepted(other),
    }
}

fn missing<T>(id: TraceId) -> anyhow::Result<T> {
    bail!("there is no trace {id}\nIt may belong to another tenant (--org-id), be older than the retention, or not have been sent.")
}

/// A span with what stands around it.
struct Node<'t> {
    span: &'t Span,
    service: &'t str,
    parent: Option<usize>,
    is_orphan: bool,
}

/// Draws a trace: a line per span, children below their parents, with a bar that shows when each ran.
fn tree(id: TraceId, resources: &[ResourceSpans], attributes: bool) -> String {
    let nodes = nodes(resources);
    let start = nodes.iter().map(|node| node.span.start_time_unix_nano).min().unwrap_or_default();
    let end = nodes.iter().map(|node| node.span.end_time_unix_nano).max().unwrap_or_default().max(start);
    let errors = nodes.iter().filter(|node| is_error(node.span)).count() as u64;
    let services: BTreeSet<&str> = nodes.iter().map(|node| node.service).collect();
    let mut out = format!(
        "Trace {id}\n{} of {} in {}, {}, {}\n\n",
        count(nodes.len() as u64, "span"),
        count(services.len() as u64, "service"),
        duration(end - start),
        if errors == 0 { "no errors".to_owned() } else { count(errors, "error") },
        vivace_block::rfc3339(start),
    );
    let lines = order(&nodes);
    let label = |line: &Line| short(&format!("{}{}", line.branch, nodes[line.node].span.name), NAME_MAX);
    let name_width = lines.iter().map(|line| label(line).chars().count()).max().unwrap_or_default();
    let service_width = services.iter().map(|service| service.chars().count()).max().unwrap_or_default().min(30);
    for line in &lines {
        let Node { span, service, is_orphan, .. } = &nodes[line.node];
        let took = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        let mut mark = String::new();
        if is_error(span) {
            let message = span.status.as_ref().map(|status| status.message.as_str()).unwrap_or_default();
            mark = if message.is_empty() { "  ERROR".to_owned() } else { format!("  ERROR: {}", short(message, 120)) };
        }
        if *is_orphan {
            mark.push_str("  (its parent is missing)");
        }
        let _ = writeln!(
            out,
            "{:<name_width$}  {:<service_width$}  {:>8}  |{}|{mark}",
            label(line),
            short(service, service_width),
            duration(took),
            bar(span, start, end),
        );
        let below = format!("{}{}", line.below, "    ");
        if attributes {
            for attribute in &span.attributes {
                let _ = writeln!(out, "{below}{} = {}", one_line(&attribute.key), attribute.value.as_ref().map_or_else(String::new, plain));
            }
        }
        for event in span.events.iter().filter(|event| is_error(span) || event.name == "exception") {
            let at = duration(event.time_unix_nano.saturating_sub(start));
            let _ = writeln!(out, "{below}! {} after {at}{}", one_line(&event.name), exception(event));
        }
    }
    out
}

fn nodes(resources: &[ResourceSpans]) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = vec![];
    for resource in resources {
        let attributes = resource.resource.as_ref().map(|resource| resource.attributes.as_slice()).unwrap_or_default();
        let service = text_of(attributes, "service.name").unwrap_or("(no service.name)");
        let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
        nodes.extend(spans.map(|span| Node { span, service, parent: None, is_orphan: false }));
    }
    nodes.sort_by_key(|node| node.span.start_time_unix_nano);
    let by_id: HashMap<&[u8], usize> = nodes.iter().enumerate().map(|(index, node)| (node.span.span_id.as_ref(), index)).collect();
    let parents: Vec<(Option<usize>, bool)> = nodes
        .iter()
        .map(|node| {
            let id = node.span.parent_span_id.as_ref();
            if id.iter().all(|byte| *byte == 0) {
                return (None, false);
            }
            let parent = by_id.get(id).copied();
            (parent, parent.is_none())
        })
        .collect();
    for (node, (parent, is_orphan)) in nodes.iter_mut().zip(parents) {
        (node.parent, node.is_orphan) = (parent, is_orphan);
    }
    nodes
}

/// A span's place in the drawing.
struct Line {
    node: usize,
    /// What is drawn before its name.
    branch: String,
    /// What is drawn before lines that belong to it.
    below: String,
}

/// Parents before children, siblings by their start. Spans that are their own ancestors come last, as if they were roots.
fn order(nodes: &[Node<'_>]) -> Vec<Line> {
    let mut children: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
    let mut roots = vec![];
    for (index, node) in nodes.iter().enumerate() {
        match node.parent {
            Some(parent) => children[parent].push(index),
            None => roots.push(index),
        }
    }
    let mut lines = vec![];
    let mut drawn = vec![false; nodes.len()];
    let starts: Vec<usize> = roots.into_iter().chain(0..nodes.len()).collect();
    for start in starts {
        // Depth first, without recursion: traces may be a hundred thousand levels deep.
        let mut open = vec![(start, 0, String::new(), String::new())];
        while let Some((node, depth, branch, below)) = open.pop() {
            if std::mem::replace(&mut drawn[node], true) {
                continue;
            }
            for (place, child) in children[node].iter().enumerate().rev() {
                let is_last = place + 1 == children[node].len();
                let (branch, after) = if depth >= INDENT_MAX {
                    (below.clone(), below.clone())
                } else if is_last {
                    (format!("{below}└─ "), format!("{below}   "))
                } else {
                    (format!("{below}├─ "), format!("{below}│  "))
                };
                open.push((*child, depth + 1, branch, after));
            }
            lines.push(Line { node, branch, below });
        }
    }
    lines
}

/// When a span ran, within the time of the trace. At least one character, however short it was.
fn bar(span: &Span, start: u64, end: u64) -> String {
    let total = (end - start).max(1) as f64;
    let at = |time: u64| time.saturating_sub(start).min(end - start) as f64 / total * BAR as f64;
    let from = (at(span.start_time_unix_nano).floor() as usize).min(BAR - 1);
    let to = (at(span.end_time_unix_nano).ceil() as usize).clamp(from + 1, BAR);
    format!("{}{}{}", " ".repeat(from), "█".repeat(to - from), " ".repeat(BAR - to))
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == status::StatusCode::Error as i32)
}

/// What an event says went wrong.
fn exception(event: &span::Event) -> String {
    let kind = text_of(&event.attributes, "exception.type");
    let message = text_of(&event.attributes, "exception.message");
    let said: Vec<&str> = [kind, message].into_iter().flatten().filter(|text| !text.is_empty()).collect();
    if said.is_empty() { String::new() } else { format!(": {}", short(&said.join(": "), 160)) }
}

fn text_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?;
    match value.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A value as text.
pub(crate) fn plain(value: &AnyValue) -> String {
    use any_value::Value;
    match &value.value {
        None => "(empty)".to_owned(),
        Some(Value::StringValue(text)) => short(text, 200),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::BytesValue(value)) => count(value.len() as u64, "byte"),
        Some(Value::ArrayValue(list)) => format!("[{}]", list.values.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Some(Value::KvlistValue(list)) => {
            let entry = |entry: &KeyValue| format!("{}: {}", entry.key, entry.value.as_ref().map_or_else(String::new, plain));
            format!("{{{}}}", list.values.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_proto::otlp::{Resource, ScopeSpans, Status};

    const START: u64 = 1_700_000_000_000_000_000;

    fn span(id: u8, parent: u8, name: &str, from: u64, to: u64) -> Span {
        let id_of = |id: u8| if id == 0 { vec![].into() } else { vec![0, 0, 0, 0, 0, 0, 0, id].into() };
        Span {
            span_id: id_of(id),
            parent_span_id: id_of(parent),
            name: name.to_owned(),
            start_time_unix_nano: START + from * 1_000_000,
            end_time_unix_nano: START + to * 1_000_000,
            ..Span::default()
        }
    }

    fn text(key: &str, value: &str) -> KeyValue {
        let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
        KeyValue { key: key.to_owned(), value: Some(value) }
    }

    fn resource(service: &str, spans: Vec<Span>) -> ResourceSpans {
        ResourceSpans {
            resource: Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    }

    #[test]
    fn a_trace_is_drawn_with_its_errors() {
        let mut failed = span(3, 1, "SELECT", 20, 30);
        failed.status = Some(Status { code: status::StatusCode::Error as i32, message: "connection refused".to_owned() });
        failed.events.push(span::Event {
            name: "exception".to_owned(),
            time_unix_nano: START + 25_000_000,
            attributes: vec![text("exception.type", "OperationalError"), text("exception.message", "no\nserver")],
            ..span::Event::default()
        });
        let trace = [
            resource("shop", vec![span(1, 0, "GET /create", 0, 40), span(2, 1, "check", 0, 10)]),
            resource("db", vec![failed, span(9, 8, "late", 39, 40)]),
        ];
        let want = "\
Trace 0000000000000000000000000000abcd
4 spans of 2 services in 40.0ms, 1 error, 2023-11-14T22:13:20Z

GET /create  shop    40.0ms  |████████████████████████████████|
├─ check     shop    10.0ms  |████████                        |
└─ SELECT    db      10.0ms  |                ████████        |  ERROR: connection refused
       ! exception after 25.0ms: OperationalError: no server
late         db      1.00ms  |                               █|  (its parent is missing)
";
        let got = tree("abcd".parse().expect("an id"), &trace, false);
        assert_eq!(got, want, "\n{got}");
    }

    #[test]
    fn every_span_is_drawn_whatever_its_parents_are() {
        let mut spans = vec![
            span(1, 2, "a", 0, 1),
            span(2, 1, "b", 0, 1),
            span(3, 3, "self", 0, 1),
            span(4, 0, "twice", 0, 1),
            span(4, 0, "twice", 0, 1),
        ];
        spans.push(Span { end_time_unix_nano: 0, ..span(5, 4, "backwards", 9, 9) });
        let got = tree("1".parse().expect("an id"), &[resource("s", spans)], false);
        assert_eq!(got.lines().count(), 3 + 6, "{got}");
    }

    #[test]
    fn a_deep_trace_is_drawn() {
        let chain: Vec<Span> = (0..50_000u64)
            .map(|level| {
                let id = |level: u64| (level + 1).to_be_bytes().to_vec().into();
                let parent = if level == 0 { vec![].into() } else { id(level - 1) };
                Span { span_id: id(level), parent_span_id: parent, ..span(1, 0, "n", level, 50_000) }
            })
            .collect();
        let got = tree("1".parse().expect("an id"), &[resource("s", chain)], false);
        assert!(got.lines().count() > 50_000);
    }
}
