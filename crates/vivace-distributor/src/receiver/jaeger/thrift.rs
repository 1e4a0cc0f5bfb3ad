//! Jaeger's batches in thrift. Source: jaeger-idl `thrift/jaeger.thrift`, `thrift/agent.thrift`.

use std::cell::Cell;

use thrift::protocol::{TInputProtocol, TMessageType, TType};

use super::model::{Log, Process, Tag, TagKind};
use crate::error::PushError;
use crate::receiver::spans::{Identity, Reference, Spans, nanos_of_micros};
use crate::receiver::thrift::{Broken, Encoding, Input, OrBroken as _, fields, structs};

/// Reads a packet as agents get them: a call of `emitBatch`.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn packet(encoding: Encoding, bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    in_passes(|pass| {
        let rest = Cell::new(bytes);
        let result = match encoding {
            Encoding::Compact => call(&mut Input::compact(&rest), pass, spans),
            Encoding::Binary => call(&mut Input::binary(&rest), pass, spans),
        };
        result.map_err(|broken| broken.at("packet", bytes.len() - rest.get().len()))
    })
}

/// Reads a batch as the collector gets it over HTTP: binary, without a call around it.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn batch(bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    in_passes(|pass| {
        let rest = Cell::new(bytes);
        let result = read_batch(&mut Input::binary(&rest), pass, spans);
        result.map_err(|broken| broken.at("body", bytes.len() - rest.get().len()))
    })
}

/// Nearly always one pass is all: the process, which is the resource of all spans, is written before them. Where it is not, a second
/// one reads the spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Second,
}

fn in_passes(mut read: impl FnMut(Pass) -> Result<Left, PushError>) -> Result<(), PushError> {
    match read(Pass::First)? {
        Left::Nothing => Ok(()),
        Left::Spans => read(Pass::Second).map(drop),
    }
}

/// What a pass has left for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Spans,
}

fn call<P: TInputProtocol>(input: &mut Input<'_, '_, P>, pass: Pass, spans: &mut Spans) -> Result<Left, Broken> {
    let message = input.read_message_begin().or_broken()?;
    let is_call = matches!(message.message_type, TMessageType::Call | TMessageType::OneWay);
    if !is_call || message.name != "emitBatch" {
        let name: String = message.name.chars().take(40).collect();
        let text = format!("the packet calls {name:?} ({:?}), only emitBatch is taken", message.message_type);
        return Err(PushError::Malformed(text).into());
    }
    let mut left = None;
    fields(input, |input, id, kind| {
        let is_batch = (id, kind) == (1, TType::Struct);
        if is_batch {
            left = Some(read_batch(input, pass, spans)?);
        }
        Ok(is_batch)
    })?;
    left.ok_or_else(|| PushError::Malformed("the packet calls emitBatch without a batch".to_owned()).into())
}

fn read_batch<P: TInputProtocol>(input: &mut Input<'_, '_, P>, pass: Pass, spans: &mut Spans) -> Result<Left, Broken> {
    if pass == Pass::First {
        spans.begin_resource();
    }
    let (mut has_process, mut has_spans) = (false, false);
    let mut left = Left::Nothing;
    fields(input, |input, id, kind| {
        has_spans |= (id, kind) == (2, TType::List);
        match (id, kind) {
            (1, TType::Struct) if pass == Pass::First => {
                read_process(input, spans)?;
                has_process = true;
            }
            (2, TType::List) if pass == Pass::Second || has_process && left == Left::Nothing => {
                structs(input, |input| read_span(input, spans))?;
            }
            (2, TType::List) => {
                left = Left::Spans;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if pass == Pass::First && !(has_process && has_spans) {
        // Both are required, and noise that is a struct by chance has neither.
        return Err(PushError::Malformed("a batch without its process or its spans".to_owned()).into());
    }
    Ok(left)
}

fn read_process<P: TInputProtocol>(input: &mut Input<'_, '_, P>, spans: &mut Spans) -> Result<(), Broken> {
    spans.begin_resource();
    let mut process = Process::default();
    let mut service: &[u8] = &[];
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::String) => service = input.text()?,
            (2, TType::List) => structs(input, |input| Ok(process.tag(&read_tag(input)?, spans)?))?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(process.end(service, spans)?)
}

fn read_span<P: TInputProtocol>(input: &mut Input<'_, '_, P>, spans: &mut Spans) -> Result<(), Broken> {
    let (mut trace_low, mut trace_high, mut span_id, mut parent_id, mut start, mut duration) = (0, 0, 0, 0, 0, 0);
    spans.begin_span();
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::I64) => trace_low = input.read_i64().or_broken()?,
            (2, TType::I64) => trace_high = input.read_i64().or_broken()?,
            (3, TType::I64) => span_id = input.read_i64().or_broken()?,
            (4, TType::I64) => parent_id = input.read_i64().or_broken()?,
            (5, TType::String) => spans.name(input.text()?)?,
            (6, TType::List) => structs(input, |input| read_reference(input, spans))?,
            (8, TType::I64) => start = input.read_i64().or_broken()?,
            (9, TType::I64) => duration = input.read_i64().or_broken()?,
            (10, TType::List) => structs(input, |input| Ok(read_tag(input)?.with(|key, value| spans.tag(key, value))?))?,
            (11, TType::List) => structs(input, |input| read_log(input, spans))?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let parent = parent_id.to_be_bytes();
    Ok(spans.end_span(&Identity {
        trace_id: &trace_id(trace_high, trace_low),
        span_id: &i64::to_be_bytes(span_id),
        parent_id: if parent_id == 0 { &[] } else { &parent },
        follows_parent: false,
        start_unix_nanos: nanos_of_micros(start),
        end_unix_nanos: nanos_of_micros(start).saturating_add(nanos_of_micros(duration)),
        kind: None,
    })?)
}

fn trace_id(high: i64, low: i64) -> [u8; 16] {
    (u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned())).to_be_bytes()
}

fn read_reference<P: TInputProtocol>(input: &mut Input<'_, '_, P>, spans: &mut Spans) -> Result<(), Broken> {
    let (mut kind_of, mut low, mut high, mut span_id) = (0, 0, 0, 0);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::I32) => kind_of = input.read_i32().or_broken()?,
            (2, TType::I64) => low = input.read_i64().or_broken()?,
            (3, TType::I64) => high = input.read_i64().or_broken()?,
            (4, TType::I64) => span_id = input.read_i64().or_broken()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // Without an id it names no span.
    if span_id == 0 {
        return Ok(());
    }
    let reference = Reference { trace_id: trace_id(high, low), span_id: i64::to_be_bytes(span_id), follows_from: kind_of == 1 };
    Ok(spans.reference(&reference)?)
}

fn read_tag<'b, P: TInputProtocol>(input: &mut Input<'_, 'b, P>) -> Result<Tag<&'b [u8]>, Broken> {
    let mut tag = Tag::default();
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::String) => tag.key = input.text()?,
            (2, TType::I32) => {
                tag.kind = match input.read_i32().or_broken()? {
                    1 => TagKind::Double,
                    2 => TagKind::Bool,
                    3 => TagKind::Long,
                    4 => TagKind::Binary,
                    _ => TagKind::Text,
                }
            }
            (3, TType::String) => tag.text = input.text()?,
            (4, TType::Double) => tag.double = input.read_double().or_broken()?,
            (5, TType::Bool) => tag.bool = input.read_bool().or_broken()?,
            (6, TType::I64) => tag.long = input.read_i64().or_broken()?,
            (7, TType::String) => tag.binary = input.text()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(tag)
}

fn read_log<P: TInputProtocol>(input: &mut Input<'_, '_, P>, spans: &mut Spans) -> Result<(), Broken> {
    let mut log = Log::begin(spans)?;
    let mut timestamp = 0;
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, TType::I64) => timestamp = input.read_i64().or_broken()?,
            (2, TType::List) => structs(input, |input| Ok(log.field(&read_tag(input)?, spans)?))?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(log.end(nanos_of_micros(timestamp), spans)?)
}
