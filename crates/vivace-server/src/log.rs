//! Log lines on standard error: `level=info ts=… caller=… msg="…" key=value`, or the same as one JSON object.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};
use vivace_core::Chain;

/// Libraries that tell at info what is none of an operator's business.
const QUIET: &[&str] =
    &["h2", "hyper", "hyper_util", "tower", "tonic", "rustls", "aws_config", "aws_smithy_runtime", "aws_sdk_s3", "krafka"];
/// Whose warnings are advice to programmers.
const MUTE: &[&str] = &["krafka::consumer::group::classic"];

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Logfmt,
    Json,
}

/// Installs the logger at the first call; later calls keep it. Tests run several processes' worth of parts in one.
pub(crate) fn install(format: Format, level: Level) {
    let level = LevelFilter::from_level(level);
    let quiet = level.min(LevelFilter::WARN);
    let mute = level.min(LevelFilter::ERROR);
    let targets = Targets::new().with_default(level).with_targets(QUIET.iter().map(|target| (*target, quiet)));
    let targets = targets.with_targets(MUTE.iter().map(|target| (*target, mute)));
    if Registry::default().with(Lines { format }.with_filter(targets)).try_init().is_err() {
        tracing::debug!("a logger is installed already");
    }
}

struct Lines {
    format: Format,
}

/// Fields of an event or a span in their order, as text.
#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.pairs.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.pairs.push((field.name(), value.to_owned()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.pairs.push((field.name(), Chain(value).to_string()));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.pairs.extend(of_span.pairs.iter().cloned());
            }
        }
        let metadata = event.metadata();
        let caller = caller(metadata.file().unwrap_or(metadata.target()), metadata.line());
        let now = OffsetDateTime::from_unix_timestamp_nanos(crate::clock::unix_nanos().into())
            .ok()
            .and_then(|now| now.format(&Rfc3339).ok())
            .unwrap_or_default();
        let head = [("level", level(*metadata.level())), ("ts", now.as_str()), ("caller", &caller), ("msg", &fields.message)];
        let pairs = head.into_iter().chain(fields.pairs.iter().map(|(name, value)| (*name, value.as_str())));
        let mut line = match self.format {
            Format::Logfmt => logfmt(pairs),
            Format::Json => json(pairs),
        };
        line.push('\n');
        // One write per line keeps lines whole. Where standard error is gone there is nobody left to tell.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// File and line without the folders above it.
fn caller(file: &str, line: Option<u32>) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    match line {
        Some(line) => format!("{name}:{line}"),
        None => name.to_owned(),
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

fn logfmt<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut line = String::new();
    for (name, value) in pairs {
        let separator = if line.is_empty() { "" } else { " " };
        let needs_quotes =
            value.is_empty() || name == "msg" || value.chars().any(|c| c <= ' ' || c == '"' || c == '=' || c == '\\' || c == '\u{7f}');
        if needs_quotes {
            write!(line, "{separator}{name}={value:?}").expect("writing to a string does not fail");
        } else {
            write!(line, "{separator}{name}={value}").expect("writing to a string does not fail");
        }
    }
    line
}

fn json<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let object: serde_json::Map<String, serde_json::Value> = pairs.map(|(name, value)| (name.to_owned(), value.into())).collect();
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(&str, &str); 3] = [("level", "info"), ("msg", "started"), ("error", "a \"b\"\nc")];

    #[test]
    fn logfmt_quotes_what_needs_it() {
        assert_eq!(logfmt(PAIRS.into_iter()), r#"level=info msg="started" error="a \"b\"\nc""#);
    }

    #[test]
    fn json_is_one_object_per_line() {
        assert_eq!(json(PAIRS.into_iter()), r#"{"level":"info","msg":"started","error":"a \"b\"\nc"}"#);
    }
}
