//! What can be asked for: names of attributes, written as TraceQL takes them, and the values of one.

use std::fmt::Write as _;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;

use crate::client::{Client, accepted};
use crate::text::{one_line, table};
use crate::times::Times;

/// Names of attributes.
#[derive(Debug, Args)]
pub(crate) struct Tags {
    /// Only those of one scope: resource, span, event, link, instrumentation or intrinsic.
    #[arg(long)]
    scope: Option<String>,
    #[command(flatten)]
    times: Times,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

/// Values of an attribute.
#[derive(Debug, Args)]
pub(crate) struct TagValues {
    /// The attribute as in TraceQL: `resource.service.name`, `.http.method`, `name`.
    tag: String,
    #[command(flatten)]
    times: Times,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Names {
    scopes: Vec<Scope>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scope {
    name: String,
    tags: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Values {
    tag_values: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Value {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

pub(crate) async fn names(command: Tags, client: &Client) -> anyhow::Result<String> {
    let mut parameters = command.times.parameters()?;
    parameters.extend(command.scope.map(|scope| ("scope", scope)));
    let body = accepted(client.json("/api/v2/search/tags", &parameters).await?)?;
    if command.json {
        return pretty(&body);
    }
    let mut names: Names =
        serde_json::from_slice(&body).context("the server's answer is no list of tags; does --address name a query-frontend?")?;
    names.scopes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = String::new();
    for scope in &mut names.scopes {
        scope.tags.sort();
        for tag in &scope.tags {
            let tag = one_line(tag);
            // As it is written in TraceQL; intrinsics have no scope before them.
            let _ = if scope.name == "intrinsic" { writeln!(out, "{tag}") } else { writeln!(out, "{}.{tag}", scope.name) };
        }
    }
    Ok(if out.is_empty() { "No attributes in this range. A wider one may help: --since 24h.\n".to_owned() } else { out })
}

pub(crate) async fn values(command: TagValues, client: &Client) -> anyhow::Result<String> {
    let path = format!("/api/v2/search/tag/{}/values", escaped(&command.tag));
    let body = accepted(client.json(&path, &command.times.parameters()?).await?)?;
    if command.json {
        return pretty(&body);
    }
    let mut values: Values =
        serde_json::from_slice(&body).context("the server's answer is no list of values; does --address name a query-frontend?")?;
    if values.tag_values.is_empty() {
        return Ok(format!("No values of {} in this range. A wider one may help: --since 24h.\n", command.tag));
    }
    values.tag_values.sort_by(|a, b| (&a.kind, &a.value).cmp(&(&b.kind, &b.value)));
    let rows: Vec<Vec<String>> = values.tag_values.into_iter().map(|value| vec![value.kind, value.value]).collect();
    Ok(table(&["TYPE", "VALUE"], &rows))
}

fn pretty(body: &[u8]) -> anyhow::Result<String> {
    let value: serde_json::Value = serde_json::from_slice(body).context("the server's answer is no JSON")?;
    Ok(format!("{value:#}\n"))
}

/// A text as one segment of a path.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
