//! Zipkin's spans of version 1 in binary thrift: a list without a call around it. Source: zipkin-api `thrift/zipkinCore.thrift`.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thrift::protocol::{TInputProtocol, TType};

use super::span::{Endpoint, Fields, ZipkinSpan};
use crate::error::PushError;
use crate::receiver::output::Value;
use crate::receiver::spans::Spans;
use crate::receiver::thrift::{Broken, Input, OrBroken as _, fields, structs};

/// Reads a list of spans.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn spans(bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    let rest = Cell::new(bytes);
    let result = structs(&mut Input::binary(&rest), |input| read_span(input, spans));
    result.map_err(|broken| broken.at("body", bytes.len() - rest.get().len()))
}

fn read_span<P: TInputProtocol>(input: &mut Input<'_, '_, P>, spans: &mut Spans) -> Result<(), Broken> {
    let mut span = ZipkinSpan::begin(spans);
    let mut read = Fields::default();
    let (mut low, mut high) = (0i64, 0i64);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::I64) => low = input.read_i64().or_broken()?,
            (12, TType::I64) => high = input.read_i64().or_broken()?,
            (3, TType::String) => span.name(input.text()?)?,
            (4, TType::I64) => read.span_id = input.read_i64().or_broken()?.to_be_bytes(),
            (5, TType::I64) => read.parent_id = input.read_i64().or_broken()?.to_be_bytes(),
            (6, TType::List) => structs(input, |input| read_annotation(input, &mut span))?,
            (8, TType::List) => structs(input, |input| read_binary_annotation(input, &mut span))?,
            (10, TType::I64) => read.timestamp = input.read_i64().or_broken()?,
            (11, TType::I64) => read.duration = input.read_i64().or_broken()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    read.trace_id[..8].copy_from_slice(&high.to_be_bytes());
    read.trace_id[8..].copy_from_slice(&low.to_be_bytes());
    Ok(span.end(&read)?)
}

fn read_annotation<P: TInputProtocol>(input: &mut Input<'_, '_, P>, span: &mut ZipkinSpan<'_>) -> Result<(), Broken> {
    let (mut timestamp, mut value, mut endpoint): (_, &[u8], _) = (0, &[], None);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::I64) => timestamp = input.read_i64().or_broken()?,
            (2, TType::String) => value = input.text()?,
            (3, TType::Struct) => endpoint = Some(read_endpoint(input)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(span.annotation_v1(timestamp, value, endpoint)?)
}

fn read_binary_annotation<P: TInputProtocol>(input: &mut Input<'_, '_, P>, span: &mut ZipkinSpan<'_>) -> Result<(), Broken> {
    let (mut key, mut bytes, mut kind_of, mut endpoint): (&[u8], &[u8], _, _) = (&[], &[], STRING, None);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::String) => key = input.text()?,
            (2, TType::String) => bytes = input.text()?,
            (3, TType::I32) => kind_of = input.read_i32().or_broken()?,
            (4, TType::Struct) => endpoint = Some(read_endpoint(input)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(with_value(kind_of, bytes, |value| span.binary_annotation(key, value, endpoint))?)
}

/// `AnnotationType`
const BOOL: i32 = 0;
const BYTES: i32 = 1;
const I16: i32 = 2;
const I32: i32 = 3;
const I64: i32 = 4;
const DOUBLE: i32 = 5;
const STRING: i32 = 6;

/// Hands over the value that the bytes are, in the order of networks. Bytes, and those that are no number of their type, are a text
/// in base64.
fn with_value<T>(kind: i32, bytes: &[u8], take: impl FnOnce(Value<'_>) -> T) -> T {
    let read = match kind {
        BOOL => <[u8; 1]>::try_from(bytes).ok().map(|[byte]| Value::Bool(byte != 0)),
        I16 => bytes.try_into().ok().map(|bytes| Value::Int(i16::from_be_bytes(bytes).into())),
        I32 => bytes.try_into().ok().map(|bytes| Value::Int(i32::from_be_bytes(bytes).into())),
        I64 => bytes.try_into().ok().map(|bytes| Value::Int(i64::from_be_bytes(bytes))),
        DOUBLE => bytes.try_into().ok().map(|bytes| Value::Double(f64::from_be_bytes(bytes))),
        BYTES => None,
        _ => Some(Value::Text(bytes)),
    };
    match read {
        Some(value) => take(value),
        None => take(Value::Text(STANDARD.encode(bytes).as_bytes())),
    }
}

fn read_endpoint<P: TInputProtocol>(input: &mut Input<'_, '_, P>) -> Result<Endpoint, Broken> {
    let (mut endpoint, mut ipv4, mut ipv6): (_, _, &[u8]) = (Endpoint::default(), 0, &[]);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::I32) => ipv4 = input.read_i32().or_broken()?,
            (2, TType::I16) => endpoint.port = input.read_i16().or_broken()?.cast_unsigned(),
            (3, TType::String) => endpoint.service = input.text()?.to_vec(),
            (4, TType::String) => ipv6 = input.text()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if ipv4 != 0 {
        endpoint.ip = Ipv4Addr::from(ipv4.cast_unsigned()).to_string().into_bytes();
    } else if let Ok(ipv6) = <[u8; 16]>::try_from(ipv6) {
        endpoint.ip = Ipv6Addr::from(ipv6).to_string().into_bytes();
    }
    Ok(endpoint)
}
