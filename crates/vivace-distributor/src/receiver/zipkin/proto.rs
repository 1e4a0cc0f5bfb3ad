//! Zipkin's spans of version 2 in protobuf, read from the bytes that they came in: nothing is built of them.
//!
//! The messages are in `proto/zipkin/zipkin.proto`. Source: zipkin-api `zipkin.proto`.

use std::net::{Ipv4Addr, Ipv6Addr};

use vivace_core::wire::{Reader, Value, WireError};

use super::span::{Endpoint, Fields, ZipkinSpan};
use crate::error::PushError;
use crate::receiver::output::NoRoom;
use crate::receiver::spans::Spans;
use crate::receiver::tags::Kind;

/// Reads a `ListOfSpans`.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn spans(bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    read_list(bytes, spans).map_err(|broken| match broken {
        Broken::NoRoom(why) => why.into(),
        Broken::Wire(error) => PushError::Malformed(format!("the body is no list of Zipkin's spans in protobuf: {error}")),
        Broken::Id { name, len, expected } => PushError::Malformed(format!("{name} of a span has {len} bytes, expected {expected}")),
    })
}

/// Why reading ended.
enum Broken {
    NoRoom(NoRoom),
    Wire(WireError),
    Id { name: &'static str, len: usize, expected: &'static str },
}

impl From<NoRoom> for Broken {
    fn from(why: NoRoom) -> Self {
        Self::NoRoom(why)
    }
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

fn read_list(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    let mut list = Reader::new(bytes);
    while let Some((number, value)) = list.next_field()? {
        match (number, value) {
            (1, Value::Bytes(span)) => read_span(span, spans)?,
            (1, _) => return Err(list.wrong_type(number).into()),
            _ => {}
        }
    }
    Ok(())
}

fn read_span(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    let mut span = ZipkinSpan::begin(spans);
    let mut read = Fields::default();
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(id)) => trace_id = id,
            (2, Value::Bytes([])) => {}
            (2, Value::Bytes(id)) => read.parent_id = of_8_bytes("the parent id", id)?,
            (3, Value::Bytes(id)) => span_id = id,
            (4, Value::Varint(number)) => read.kind = kind(number),
            (5, Value::Bytes(name)) => span.name(name)?,
            (6, Value::Fixed64(micros)) => read.timestamp = i64::try_from(micros).unwrap_or(i64::MAX),
            (7, Value::Varint(micros)) => read.duration = i64::try_from(micros).unwrap_or(i64::MAX),
            (8, Value::Bytes(endpoint)) => span.local(read_endpoint(endpoint)?),
            (9, Value::Bytes(endpoint)) => span.remote(&read_endpoint(endpoint)?)?,
            (10, Value::Bytes(annotation)) => read_annotation(annotation, &mut span)?,
            (11, Value::Bytes(tag)) => read_tag(tag, &mut span)?,
            (1..=11, _) => return Err(fields.wrong_type(number).into()),
            _ => {}
        }
    }
    read.span_id = of_8_bytes("the id", span_id)?;
    match trace_id.len() {
        len @ (8 | 16) => read.trace_id[16 - len..].copy_from_slice(trace_id),
        len => return Err(Broken::Id { name: "the trace id", len, expected: "8 or 16" }),
    }
    Ok(span.end(&read)?)
}

fn of_8_bytes(name: &'static str, id: &[u8]) -> Result<[u8; 8], Broken> {
    id.try_into().map_err(|_| Broken::Id { name, len: id.len(), expected: "8" })
}

fn kind(number: u64) -> Option<Kind> {
    match number {
        1 => Some(Kind::Client),
        2 => Some(Kind::Server),
        3 => Some(Kind::Producer),
        4 => Some(Kind::Consumer),
        _ => None,
    }
}

fn read_endpoint(bytes: &[u8]) -> Result<Endpoint, WireError> {
    let mut endpoint = Endpoint::default();
    let (mut ipv4, mut ipv6): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(name)) => endpoint.service = name.to_vec(),
            (2, Value::Bytes(ip)) => ipv4 = ip,
            (3, Value::Bytes(ip)) => ipv6 = ip,
            (4, Value::Varint(port)) => endpoint.port = u16::try_from(port).unwrap_or(0),
            (1..=4, _) => return Err(fields.wrong_type(number)),
            _ => {}
        }
    }
    let ipv4 = <[u8; 4]>::try_from(ipv4).map(|ip| Ipv4Addr::from(ip).to_string());
    let ipv6 = <[u8; 16]>::try_from(ipv6).map(|ip| Ipv6Addr::from(ip).to_string());
    endpoint.ip = ipv4.or(ipv6).unwrap_or_default().into_bytes();
    Ok(endpoint)
}

fn read_annotation(bytes: &[u8], span: &mut ZipkinSpan<'_>) -> Result<(), Broken> {
    let (mut timestamp, mut text): (u64, &[u8]) = (0, &[]);
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Fixed64(micros)) => timestamp = micros,
            (2, Value::Bytes(value)) => text = value,
            (1 | 2, _) => return Err(fields.wrong_type(number).into()),
            _ => {}
        }
    }
    Ok(span.annotation(i64::try_from(timestamp).unwrap_or(i64::MAX), text)?)
}

/// An entry of a map.
fn read_tag(bytes: &[u8], span: &mut ZipkinSpan<'_>) -> Result<(), Broken> {
    let (mut key, mut text): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(name)) => key = name,
            (2, Value::Bytes(value)) => text = value,
            (1 | 2, _) => return Err(fields.wrong_type(number).into()),
            _ => {}
        }
    }
    Ok(span.tag(key, text)?)
}
