//! Zipkin's spans in JSON, of both versions. Source: zipkin-api `zipkin2-api.yaml`, `zipkin-api.yaml`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::span::{Endpoint, Fields, ZipkinSpan};
use crate::error::PushError;
use crate::receiver::json_list::{Each, Item, Number, Text};
use crate::receiver::output::Value;
use crate::receiver::spans::Spans;
use crate::receiver::tags::Kind;

/// Reads a list of spans, version 2.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn spans_v2(body: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    read(Version::V2, body, spans)
}

/// Reads a list of spans, version 1.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn spans_v1(body: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    read(Version::V1, body, spans)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

fn read(version: Version, body: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Each { what: "a list of spans", read: SpanSeed { version, spans } }.deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|error| match spans.refused() {
        Some(why) => why.into(),
        None => PushError::Malformed(format!("the body is no list of Zipkin's spans in JSON ({version:?}): {error}")),
    })
}

struct SpanSeed<'s> {
    version: Version,
    spans: &'s mut Spans,
}

impl Item for SpanSeed<'_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        Ok(list.next_element_seed(SpanSeed { version: self.version, spans: &mut *self.spans })?.is_some())
    }
}

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
        let mut span = ZipkinSpan::begin(self.spans);
        let mut fields = Fields::default();
        let (mut has_trace_id, mut has_id) = (false, false);
        while let Some(Text(key)) = map.next_key()? {
            match (key.as_ref(), self.version) {
                (b"traceId", _) => (fields.trace_id, has_trace_id) = (id(&map.next_value::<Text>()?.0, "traceId")?, true),
                (b"id", _) => (fields.span_id, has_id) = (id(&map.next_value::<Text>()?.0, "id")?, true),
                (b"parentId", _) => {
                    if let Some(Text(text)) = map.next_value::<Option<Text>>()?.filter(|text| !text.0.is_empty()) {
                        fields.parent_id = id(&text, "parentId")?;
                    }
                }
                (b"name", _) => {
                    if let Some(Text(name)) = map.next_value()? {
                        span.name(&name).map_err(A::Error::custom)?;
                    }
                }
                (b"timestamp", _) => fields.timestamp = map.next_value::<Number>()?.0,
                (b"duration", _) => fields.duration = map.next_value::<Number>()?.0,
                (b"annotations", version) => {
                    map.next_value_seed(Each { what: "a list of annotations", read: Annotations { version, span: &mut span } })?;
                }
                (b"kind", Version::V2) => fields.kind = map.next_value::<Option<Text>>()?.and_then(|Text(text)| kind(&text)),
                (b"tags", Version::V2) => map.next_value_seed(Tags(&mut span))?,
                (b"localEndpoint", Version::V2) => {
                    if let Some(endpoint) = map.next_value::<Option<JsonEndpoint>>()? {
                        span.local(endpoint.read());
                    }
                }
                (b"remoteEndpoint", Version::V2) => {
                    if let Some(endpoint) = map.next_value::<Option<JsonEndpoint>>()? {
                        span.remote(&endpoint.read()).map_err(A::Error::custom)?;
                    }
                }
                (b"binaryAnnotations", Version::V1) => {
                    map.next_value_seed(Each { what: "a list of binary annotations", read: BinaryAnnotations(&mut span) })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if !has_trace_id || !has_id {
            return Err(A::Error::custom("a span without traceId or id"));
        }
        span.end(&fields).map_err(A::Error::custom)
    }
}

fn kind(text: &[u8]) -> Option<Kind> {
    match text {
        b"CLIENT" => Some(Kind::Client),
        b"SERVER" => Some(Kind::Server),
        b"PRODUCER" => Some(Kind::Producer),
        b"CONSUMER" => Some(Kind::Consumer),
        _ => None,
    }
}

/// An id in hex, filled up with zeros from the left.
fn id<const N: usize, E: Error>(text: &[u8], name: &str) -> Result<[u8; N], E> {
    let mut padded = [b'0'; 32];
    let padded = &mut padded[..2 * N];
    let mut id = [0; N];
    let fits = 1..=padded.len();
    if fits.contains(&text.len()) {
        let room = padded.len() - text.len();
        padded[room..].copy_from_slice(text);
        if hex::decode_to_slice(&*padded, &mut id).is_ok() {
            return Ok(id);
        }
    }
    let shown = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
    Err(E::custom(format!("{name} {shown:?}: expected 1 to {} hex digits", 2 * N)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonEndpoint<'a> {
    #[serde(borrow)]
    service_name: Option<Text<'a>>,
    #[serde(borrow)]
    ipv4: Option<Text<'a>>,
    #[serde(borrow)]
    ipv6: Option<Text<'a>>,
    port: Option<Number>,
}

impl JsonEndpoint<'_> {
    fn read(self) -> Endpoint {
        let text = |text: Option<Text<'_>>| text.map(|text| text.0.into_owned()).unwrap_or_default();
        let (ipv4, ipv6) = (text(self.ipv4), text(self.ipv6));
        let ip = if ipv4.is_empty() { ipv6 } else { ipv4 };
        let port = self.port.unwrap_or_default().0;
        Endpoint { service: text(self.service_name), ip, port: u16::try_from(port).unwrap_or(0) }
    }
}

#[derive(Deserialize)]
struct JsonAnnotation<'a> {
    timestamp: Option<Number>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    endpoint: Option<JsonEndpoint<'a>>,
}

struct Annotations<'z, 's> {
    version: Version,
    span: &'z mut ZipkinSpan<'s>,
}

impl Item for Annotations<'_, '_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(annotation) = list.next_element::<JsonAnnotation>()? else { return Ok(false) };
        let timestamp = annotation.timestamp.unwrap_or_default().0;
        let value = annotation.value.map(|text| text.0).unwrap_or_default();
        let written = match self.version {
            Version::V1 => self.span.annotation_v1(timestamp, &value, annotation.endpoint.map(JsonEndpoint::read)),
            Version::V2 => self.span.annotation(timestamp, &value),
        };
        written.map(|()| true).map_err(A::Error::custom)
    }
}

/// `tags`: texts by name.
struct Tags<'z, 's>(&'z mut ZipkinSpan<'s>);

impl<'de> DeserializeSeed<'de> for Tags<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tags<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tags")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((Text(key), value)) = map.next_entry::<Text, Option<Text>>()? {
            if let Some(Text(value)) = value {
                self.0.tag(&key, &value).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// A value of any type that an attribute can have.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalars;

        impl<'de> Visitor<'de> for Scalars {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a boolean")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Int(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar<'de>, E> {
                Ok(i64::try_from(value).map_or(Scalar::Double(value as f64), Scalar::Int))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Double(value))
            }
        }

        deserializer.deserialize_any(Scalars)
    }
}

#[derive(Deserialize)]
struct JsonBinaryAnnotation<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Scalar<'a>>,
    #[serde(borrow)]
    endpoint: Option<JsonEndpoint<'a>>,
}

struct BinaryAnnotations<'z, 's>(&'z mut ZipkinSpan<'s>);

impl Item for BinaryAnnotations<'_, '_> {
    fn next<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(annotation) = list.next_element::<JsonBinaryAnnotation>()? else { return Ok(false) };
        let key = annotation.key.map(|text| text.0).unwrap_or_default();
        let value = match &annotation.value {
            Some(Scalar::Text(text)) => Value::Text(text.as_bytes()),
            Some(Scalar::Bool(value)) => Value::Bool(*value),
            Some(Scalar::Int(value)) => Value::Int(*value),
            Some(Scalar::Double(value)) => Value::Double(*value),
            None => return Ok(true),
        };
        let endpoint = annotation.endpoint.map(JsonEndpoint::read);
        self.0.binary_annotation(&key, value, endpoint).map(|()| true).map_err(A::Error::custom)
    }
}
