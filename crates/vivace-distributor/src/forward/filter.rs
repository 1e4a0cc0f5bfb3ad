//! What a forwarder leaves out: spans and events of which a condition holds.
//! Source: docs/facts/components.md, "Generic forwarders".

use std::borrow::Cow;
use std::cmp::Ordering;

use anyhow::Context as _;
use bytes::Bytes;
use prost::{DecodeError, Message as _};
use vivace_config::ForwarderFilterTraces;
use vivace_config::ottl::{Comparison, Condition, Context, Field, Of, Operand};
use vivace_core::otlp::{Regroup, SpanContext, walk_spans};
use vivace_proto::otlp::span::Event;
use vivace_proto::otlp::{AnyValue, InstrumentationScope, KeyValue, Resource, Span, any_value};

/// Conditions of one forwarder.
#[derive(Debug)]
pub(crate) struct Filter {
    spans: Vec<Condition>,
    events: Vec<Condition>,
}

impl Filter {
    /// None where there is no condition.
    ///
    /// # Errors
    /// A text that is no condition.
    pub(crate) fn new(configured: &ForwarderFilterTraces) -> anyhow::Result<Option<Self>> {
        let read = |texts: &[String], context, key| -> anyhow::Result<Vec<Condition>> {
            texts.iter().map(|text| Condition::parse(text, context).with_context(|| format!("filter.traces.{key}: {text:?}"))).collect()
        };
        let spans = read(&configured.span, Context::Span, "span")?;
        let events = read(&configured.spanevent, Context::Event, "spanevent")?;
        Ok((!spans.is_empty() || !events.is_empty()).then_some(Self { spans, events }))
    }

    /// What is left of a request, a serialised `ExportTraceServiceRequest`; none where nothing is. Spans stay as they came but for
    /// events that are left out. Blocks the thread for as long as it takes to read every span.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn left(&self, body: &[u8]) -> anyhow::Result<Option<Bytes>> {
        let (mut stay, mut failure) = (Vec::new(), None);
        let mut above = Above::default();
        walk_spans(body, |at, head| {
            let left = above.at(at).and_then(|(resource, scope)| self.span_left(resource, scope, head.bytes));
            match left {
                Ok(Some(span)) => stay.push((at, span)),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let mut left = Regroup::default();
        stay.iter().for_each(|(at, span)| left.push(*at, span));
        Ok((left.spans() > 0).then(|| left.encode().into()))
    }

    /// A span without the events that are left out; none where it is left out itself.
    fn span_left<'s>(
        &self,
        resource: &Resource,
        scope: &InstrumentationScope,
        bytes: &'s [u8],
    ) -> Result<Option<Cow<'s, [u8]>>, DecodeError> {
        let mut span = Span::decode(bytes)?;
        let at = At { resource, scope, span: &span, event: None };
        if self.spans.iter().any(|condition| at.holds(condition)) {
            return Ok(None);
        }
        let mut stays = span.events.iter().map(|event| {
            let at = At { event: Some(event), ..at };
            !self.events.iter().any(|condition| at.holds(condition))
        });
        let stays: Vec<bool> = stays.by_ref().collect();
        if stays.iter().all(|stays| *stays) {
            return Ok(Some(bytes.into()));
        }
        let mut stays = stays.into_iter();
        span.events.retain(|_| stays.next().unwrap_or(true));
        Ok(Some(span.encode_to_vec().into()))
    }
}

/// What the spans that come next belong to, read once.
#[derive(Default)]
struct Above {
    of: Option<(u32, u32)>,
    resource: Resource,
    scope: InstrumentationScope,
}

impl Above {
    fn at(&mut self, at: SpanContext<'_>) -> Result<(&Resource, &InstrumentationScope), DecodeError> {
        let of = Some((at.resource_index, at.scope_index));
        if self.of != of {
            (self.resource, self.scope) = (Resource::decode(at.resource)?, InstrumentationScope::decode(at.scope)?);
            self.of = of;
        }
        Ok((&self.resource, &self.scope))
    }
}

/// What a condition is asked of.
#[derive(Clone, Copy)]
struct At<'a> {
    resource: &'a Resource,
    scope: &'a InstrumentationScope,
    span: &'a Span,
    event: Option<&'a Event>,
}

/// A value of a field or of a condition.
#[derive(Debug, Clone, PartialEq)]
enum Held<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// Bytes, lists, maps: equal to nothing here.
    Other,
}

impl<'a> At<'a> {
    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Or(parts) => parts.iter().any(|part| self.holds(part)),
            Condition::And(parts) => parts.iter().all(|part| self.holds(part)),
            Condition::Not(inner) => !self.holds(inner),
            Condition::Compare(left, comparison, right) => compares(&self.value(left), *comparison, &self.value(right)),
            Condition::True(operand) => self.value(operand) == Held::Bool(true),
            Condition::Match(operand, pattern) => match self.value(operand) {
                Held::Text(text) => pattern.is_match(&text),
                Held::Bool(value) => pattern.is_match(&value.to_string()),
                Held::Int(value) => pattern.is_match(&value.to_string()),
                Held::Float(value) => pattern.is_match(&value.to_string()),
                Held::Nil | Held::Other => false,
            },
            Condition::Prefix(operand, part) => self.texts(operand, part, |text, part| text.starts_with(part)),
            Condition::Suffix(operand, part) => self.texts(operand, part, |text, part| text.ends_with(part)),
            Condition::IsText(operand) => matches!(self.value(operand), Held::Text(_)),
            Condition::IsRoot => self.span.parent_span_id.iter().all(|byte| *byte == 0),
        }
    }

    fn texts(&self, text: &Operand, part: &Operand, is: impl Fn(&str, &str) -> bool) -> bool {
        match (self.value(text), self.value(part)) {
            (Held::Text(text), Held::Text(part)) => is(&text, &part),
            _ => false,
        }
    }

    fn value<'v>(&self, operand: &'v Operand) -> Held<'v>
    where
        'a: 'v,
    {
        match operand {
            Operand::Nil => Held::Nil,
            Operand::Bool(value) => Held::Bool(*value),
            Operand::Int(value) => Held::Int(*value),
            Operand::Float(value) => Held::Float(*value),
            Operand::Text(text) => Held::Text(text.into()),
            Operand::Field(of, Field::Attribute(keys)) => attribute(self.attributes(*of), keys),
            Operand::Field(of, field) => self.field(*of, field),
        }
    }

    fn attributes(&self, of: Of) -> &'a [KeyValue] {
        match of {
            Of::Span => &self.span.attributes,
            Of::Event => self.event.map_or(&[], |event| &event.attributes),
            Of::Scope => &self.scope.attributes,
            Of::Resource => &self.resource.attributes,
        }
    }

    fn field(&self, of: Of, field: &Field) -> Held<'a> {
        let span = self.span;
        let text = |text: &'a str| Held::Text(text.into());
        match field {
            Field::Name => match of {
                Of::Event => self.event.map_or(Held::Nil, |event| text(&event.name)),
                Of::Scope => text(&self.scope.name),
                Of::Span | Of::Resource => text(&span.name),
            },
            Field::Version => text(&self.scope.version),
            Field::Kind => Held::Int(span.kind.into()),
            Field::KindText => text(
                ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"]
                    .get(usize::try_from(span.kind).unwrap_or(0))
                    .unwrap_or(&"Unspecified"),
            ),
            Field::StatusCode => Held::Int(span.status.as_ref().map_or(0, |status| status.code).into()),
            Field::StatusMessage => text(span.status.as_ref().map_or("", |status| &status.message)),
            Field::TraceId => Held::Text(hex::encode(&span.trace_id).into()),
            Field::SpanId => Held::Text(hex::encode(&span.span_id).into()),
            Field::ParentSpanId => Held::Text(hex::encode(&span.parent_span_id).into()),
            Field::TraceState => text(&span.trace_state),
            Field::Start => time(span.start_time_unix_nano),
            Field::End => time(span.end_time_unix_nano),
            Field::Time => self.event.map_or(Held::Nil, |event| time(event.time_unix_nano)),
            Field::Attribute(_) => Held::Nil,
        }
    }
}

fn time<'a>(unix_nanos: u64) -> Held<'a> {
    Held::Int(i64::try_from(unix_nanos).unwrap_or(i64::MAX))
}

/// The first of equal keys counts.
fn attribute<'a>(attributes: &'a [KeyValue], keys: &[String]) -> Held<'a> {
    let Some((key, further)) = keys.split_first() else { return Held::Nil };
    let value = attributes.iter().find(|attribute| attribute.key == *key).and_then(|attribute| attribute.value.as_ref());
    match value.and_then(|AnyValue { value }| value.as_ref()) {
        Some(any_value::Value::KvlistValue(map)) if !further.is_empty() => attribute(&map.values, further),
        Some(_) if !further.is_empty() => Held::Nil,
        None => Held::Nil,
        Some(any_value::Value::StringValue(text)) => Held::Text(text.into()),
        Some(any_value::Value::BoolValue(value)) => Held::Bool(*value),
        Some(any_value::Value::IntValue(value)) => Held::Int(*value),
        Some(any_value::Value::DoubleValue(value)) => Held::Float(*value),
        Some(_) => Held::Other,
    }
}

fn compares(left: &Held<'_>, comparison: Comparison, right: &Held<'_>) -> bool {
    let order = match (left, right) {
        (Held::Nil, Held::Nil) => Some(Ordering::Equal),
        (Held::Bool(left), Held::Bool(right)) => Some(left.cmp(right)),
        (Held::Int(left), Held::Int(right)) => Some(left.cmp(right)),
        (Held::Text(left), Held::Text(right)) => Some(left.cmp(right)),
        (Held::Int(left), Held::Float(right)) => (*left as f64).partial_cmp(right),
        (Held::Float(left), Held::Int(right)) => left.partial_cmp(&(*right as f64)),
        (Held::Float(left), Held::Float(right)) => left.partial_cmp(right),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

#[cfg(test)]
mod tests {
    use vivace_proto::otlp::{ResourceSpans, ScopeSpans, Status, TracesData};

    use super::*;

    fn text(key: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
        KeyValue { key: key.to_owned(), value }
    }

    fn request() -> TracesData {
        let event = |name: &str| Event { name: name.to_owned(), attributes: vec![text("e", name)], ..Event::default() };
        let span = |name: &str, kind: i32, parent: &'static [u8]| Span {
            trace_id: vec![1; 16].into(),
            name: name.to_owned(),
            kind,
            parent_span_id: parent.into(),
            attributes: vec![text("http.route", &format!("/{name}"))],
            events: vec![event("retry"), event("exception")],
            status: Some(Status { code: 2, ..Status::default() }),
            ..Span::default()
        };
        let resource = Some(Resource { attributes: vec![text("service.name", "shop")], ..Resource::default() });
        let spans = vec![span("health", 2, b""), span("order", 3, b"12345678")];
        let scope = Some(InstrumentationScope { name: "lib".to_owned(), ..InstrumentationScope::default() });
        let scope_spans = vec![ScopeSpans { scope, spans, ..ScopeSpans::default() }];
        TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }
    }

    /// Names of the spans that are left, and of their events.
    fn left(span: &[&str], spanevent: &[&str]) -> Vec<(String, Vec<String>)> {
        let texts = |conditions: &[&str]| conditions.iter().map(|text| (*text).to_owned()).collect();
        let filter = Filter::new(&ForwarderFilterTraces { span: texts(span), spanevent: texts(spanevent) }).unwrap().unwrap();
        let Some(body) = filter.left(&request().encode_to_vec()).unwrap() else { return Vec::new() };
        let names = |events: &[Event]| events.iter().map(|event| event.name.clone()).collect();
        let spans = TracesData::decode(body).unwrap().resource_spans.remove(0).scope_spans.remove(0).spans;
        spans.iter().map(|span| (span.name.clone(), names(&span.events))).collect()
    }

    fn names(span: &str) -> Vec<String> {
        left(&[span], &[]).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_matches_is_left_out() {
        for health in [
            r#"name == "health""#,
            r#"attributes["http.route"] == "/health""#,
            "kind == SPAN_KIND_SERVER",
            r#"kind.string == "Server""#,
            "IsRootSpan()",
            r#"parent_span_id.string == """#,
            r#"resource.attributes["service.name"] == "shop" and not (name == "order")"#,
            r#"IsMatch(attributes["http.route"], "^/heal")"#,
            r#"HasSuffix(name, "th") or name == "none""#,
            r#"instrumentation_scope.name == "lib" and HasPrefix(name, "h")"#,
            r#"trace_id.string == "01010101010101010101010101010101" and kind < 3"#,
        ] {
            assert_eq!(names(health), ["order"], "{health}");
        }
        for nothing in [r#"attributes["none"] != nil"#, r#"kind == "2""#, r#"attributes["http.route"] > 1"#, "status.code != 2.0"] {
            assert_eq!(names(nothing), ["health", "order"], "{nothing}");
        }
        assert!(names(r#"attributes["none"] == nil"#).is_empty() && names("status.code == STATUS_CODE_ERROR").is_empty());
        assert_eq!(left(&[r#"name == "health""#, r#"name == "order""#], &[]), []);
    }

    #[test]
    fn events_are_left_out_of_their_spans() {
        let of = |name: &str, events: &[&str]| (name.to_owned(), events.iter().map(|event| (*event).to_owned()).collect::<Vec<_>>());
        let filtered = left(&[], &[r#"name == "retry" and span.name == "order""#, r#"attributes["e"] == "none""#]);
        assert_eq!(filtered, [of("health", &["retry", "exception"]), of("order", &["exception"])]);
    }
}
