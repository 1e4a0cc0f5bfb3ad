//! A single span of Jaeger's in protobuf's JSON, as its collector writes it to Kafka.
//!
//! The messages are in `proto/jaeger/collector.proto`; ids are bytes, and so base64.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::model::{Log, Process, Tag, TagKind};
use crate::error::PushError;
use crate::receiver::json_list::{Each, Item, Number, Text};
use crate::receiver::spans::{Identity, Reference, Spans};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Reads a span.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn span(body: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = SpanSeed(spans).deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|error| match spans.refused() {
        Some(why) => why.into(),
        None => PushError::Malformed(format!("the message is no span of Jaeger's in JSON: {error}")),
    })
}

struct SpanSeed<'s>(&'s mut Spans);

impl<'de> DeserializeSeed<'de> for SpanSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for SpanSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a span")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(spans) = self;
        let (mut trace_id, mut span_id) = (Bytes::default(), Bytes::default());
        let (mut start, mut duration) = (0, 0);
        spans.begin_resource();
        spans.begin_span();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                b"traceId" | b"trace_id" => trace_id = map.next_value()?,
                b"spanId" | b"span_id" => span_id = map.next_value()?,
                b"operationName" | b"operation_name" => {
                    if let Some(Text(name)) = map.next_value()? {
                        spans.name(&name).map_err(A::Error::custom)?;
                    }
                }
                b"references" => map.next_value_seed(Each { what: "a list of references", read: References(&mut *spans) })?,
                b"startTime" | b"start_time" => start = time(map.next_value()?)?,
                b"duration" => duration = nanos(map.next_value()?)?,
                b"tags" => map.next_value_seed(Each { what: "a list of tags", read: Tags(&mut *spans) })?,
                b"logs" => map.next_value_seed(Each { what: "a list of logs", read: Logs(&mut *spans) })?,
                b"process" => map.next_value_seed(ProcessSeed(&mut *spans))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let identity = Identity {
            trace_id: &wide(&trace_id.0),
            span_id: &span_id.0,
            follows_parent: true,
            start_unix_nanos: start,
            end_unix_nanos: start.saturating_add(duration),
            ..Identity::default()
        };
        spans.end_span(&identity).map_err(A::Error::custom)
    }
}

/// A trace's id; old clients have 8 bytes of it.
fn wide(id: &[u8]) -> Vec<u8> {
    if id.len() == 8 { [&[0; 8], id].concat() } else { id.to_vec() }
}

/// RFC 3339 as nanoseconds since 1970; before that it is 1970.
fn time<E: Error>(text: Option<Text<'_>>) -> Result<u64, E> {
    let Some(Text(text)) = text else { return Ok(0) };
    let text = String::from_utf8_lossy(&text);
    let time =
        OffsetDateTime::parse(&text, &Rfc3339).map_err(|error| E::custom(format!("a time such as 2026-01-02T03:04:05.678Z: {error}")))?;
    Ok(u64::try_from(time.unix_timestamp_nanos().max(0)).unwrap_or(u64::MAX))
}

/// Seconds with a fraction and an `s`, as nanoseconds; below zero it is zero.
fn nanos<E: Error>(text: Option<Text<'_>>) -> Result<u64, E> {
    let Some(Text(text)) = text else { return Ok(0) };
    let text = String::from_utf8_lossy(&text);
    let wrong = || E::custom("a duration such as 1.5s was expected");
    let seconds = text.strip_suffix('s').ok_or_else(wrong)?;
    if seconds.starts_with('-') {
        return Ok(0);
    }
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let fraction = format!("{fraction:0<9}").parse::<u64>().map_err(|_| wrong())?;
    let whole = whole.parse::<u64>().map_err(|_| wrong())?;
    Ok(whole.saturating_mul(NANOS_PER_SECOND).saturating_add(fraction))
}

/// Base64, of which null is nothing.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(Text(text)) = Option::<Text>::deserialize(deserializer)? else { return Ok(Self::default()) };
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// A number, or its name.
struct Float(f64);

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Floats;

        impl Visitor<'_> for Floats {
            type Value = Float;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Float, E> {
                Ok(Float(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Float, E> {
                Ok(Float(value as f64))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Float, E> {
                Ok(Float(value as f64))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Float, E> {
                text.parse().map(Float).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Floats)
    }
}

impl<'de> Deserialize<'de> for TagKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;

        impl Visitor<'_> for Kinds {
            type Value = TagKind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the type of a tag")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<TagKind, E> {
                Ok(match name {
                    "BOOL" => TagKind::Bool,
                    "INT64" => TagKind::Long,
                    "FLOAT64" => TagKind::Double,
                    "BINARY" => TagKind::Binary,
                    _ => TagKind::Text,
                })
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<TagKind, E> {
                Ok(TagKind::of_number(number))
            }
        }

        deserializer.deserialize_any(Kinds)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonTag<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(alias = "v_type")]
    v_type: Option<TagKind>,
    #[serde(borrow, alias = "v_str")]
    v_str: Option<Text<'a>>,
    #[serde(alias = "v_bool")]
    v_bool: Option<bool>,
    #[serde(alias = "v_int64")]
    v_int64: Option<Number>,
    #[serde(alias = "v_float64")]
    v_float64: Option<Float>,
    #[serde(default, alias = "v_binary")]
    v_binary: Bytes,
}

impl<'a> JsonTag<'a> {
    fn read(self) -> Tag<std::borrow::Cow<'a, [u8]>> {
        Tag {
            key: self.key.map(|text| text.0).unwrap_or_default(),
            kind: self.v_type.unwrap_or_default(),
            text: self.v_str.map(|text| text.0).unwrap_or_default(),
            double: self.v_float64.map_or(0.0, |number| number.0),
            bool: self.v_bool.unwrap_or_default(),
            long: self.v_int64.unwrap_or_default().0,
            binary: self.v_binary.0.into(),
        }
    }
}

struct Tags<'s>(&'s mut Spans);

impl Item for Tags<'_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(tag) = list.next_element::<JsonTag>()? else { return Ok(false) };
        tag.read().with(|key, value| self.0.tag(key, value)).map_err(A::Error::custom)?;
        Ok(true)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonReference<'a> {
    #[serde(default, alias = "trace_id")]
    trace_id: Bytes,
    #[serde(default, alias = "span_id")]
    span_id: Bytes,
    #[serde(borrow, alias = "ref_type")]
    ref_type: Option<Text<'a>>,
}

struct References<'s>(&'s mut Spans);

impl Item for References<'_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(reference) = list.next_element::<JsonReference>()? else { return Ok(false) };
        let follows_from = reference.ref_type.is_some_and(|Text(name)| name.as_ref() == b"FOLLOWS_FROM");
        // An id of another length names no span.
        if let (Ok(trace_id), Ok(span_id)) = (wide(&reference.trace_id.0).try_into(), reference.span_id.0.try_into()) {
            self.0.reference(&Reference { trace_id, span_id, follows_from }).map_err(A::Error::custom)?;
        }
        Ok(true)
    }
}

struct Logs<'s>(&'s mut Spans);

impl Item for Logs<'_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        Ok(list.next_element_seed(LogSeed(&mut *self.0))?.is_some())
    }
}

struct LogSeed<'s>(&'s mut Spans);

impl<'de> DeserializeSeed<'de> for LogSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LogSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(spans) = self;
        let mut log = Log::begin(spans).map_err(A::Error::custom)?;
        let mut timestamp = 0;
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                b"timestamp" => timestamp = time(map.next_value()?)?,
                b"fields" => {
                    map.next_value_seed(Each { what: "a list of fields", read: LogFields { log: &mut log, spans: &mut *spans } })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        log.end(timestamp, spans).map_err(A::Error::custom)
    }
}

struct LogFields<'l, 's> {
    log: &'l mut Log,
    spans: &'s mut Spans,
}

impl Item for LogFields<'_, '_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(field) = list.next_element::<JsonTag>()? else { return Ok(false) };
        self.log.field(&field.read(), self.spans).map(|()| true).map_err(A::Error::custom)
    }
}

struct ProcessSeed<'s>(&'s mut Spans);

impl<'de> DeserializeSeed<'de> for ProcessSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ProcessSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a process")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(spans) = self;
        let (mut process, mut service) = (Process::default(), Vec::new());
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                b"serviceName" | b"service_name" => {
                    service = map.next_value::<Option<Text>>()?.map(|text| text.0.into_owned()).unwrap_or_default();
                }
                b"tags" => {
                    map.next_value_seed(Each { what: "a list of tags", read: ProcessTags { process: &mut process, spans: &mut *spans } })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        process.end(&service, spans).map_err(A::Error::custom)
    }
}

struct ProcessTags<'p, 's> {
    process: &'p mut Process,
    spans: &'s mut Spans,
}

impl Item for ProcessTags<'_, '_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(tag) = list.next_element::<JsonTag>()? else { return Ok(false) };
        self.process.tag(&tag.read(), self.spans).map(|()| true).map_err(A::Error::custom)
    }
}
