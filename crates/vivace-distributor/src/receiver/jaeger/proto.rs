//! Jaeger's batches in protobuf, read from the bytes that they came in: nothing is built of them.
//!
//! The messages are in `proto/jaeger/collector.proto`. Source: docs/facts/grpc-api.md, "Jaeger's collector".

use vivace_core::wire::{Reader, Value, WireError};

use super::model::{Log, Process, Tag, TagKind};
use crate::error::PushError;
use crate::receiver::output::NoRoom;
use crate::receiver::spans::{Identity, Reference, Spans};

/// Reads a `PostSpansRequest`.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn request(bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    read_request(bytes, spans).map_err(|broken| match broken {
        Broken::Push(error) => error,
        Broken::Wire(error) => PushError::Malformed(format!("the request is no PostSpansRequest: {error}")),
    })
}

/// Reads a single `Span`, which has its process with it.
///
/// # Errors
/// It is none, or there is no memory for what it becomes.
pub(crate) fn span(bytes: &[u8], spans: &mut Spans) -> Result<(), PushError> {
    let read = |spans: &mut Spans| {
        read_process(own_process(bytes)?.unwrap_or_default(), spans)?;
        read_span(bytes, spans)
    };
    read(spans).map_err(|broken| match broken {
        Broken::Push(error) => error,
        Broken::Wire(error) => PushError::Malformed(format!("the message is no Span of Jaeger's: {error}")),
    })
}

/// Why reading ended.
enum Broken {
    Push(PushError),
    Wire(WireError),
}

impl From<NoRoom> for Broken {
    fn from(why: NoRoom) -> Self {
        Self::Push(why.into())
    }
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

fn read_request(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    let mut request = Reader::new(bytes);
    while let Some((number, value)) = request.next_field()? {
        match (number, value) {
            (1, Value::Bytes(batch)) => read_batch(batch, spans)?,
            (1, _) => return Err(request.wrong_type(number).into()),
            _ => {}
        }
    }
    Ok(())
}

/// The process comes after the spans that it is of.
fn read_batch(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    let mut process: &[u8] = &[];
    let mut batch = Reader::new(bytes);
    while let Some((number, value)) = batch.next_field()? {
        match (number, value) {
            (2, Value::Bytes(of_all)) => process = of_all,
            (1, Value::Bytes(_)) => {}
            (1 | 2, _) => return Err(batch.wrong_type(number).into()),
            _ => {}
        }
    }
    let mut current = process;
    read_process(current, spans)?;
    let mut batch = Reader::new(bytes);
    while let Some((number, value)) = batch.next_field()? {
        let (1, Value::Bytes(span)) = (number, value) else { continue };
        let own = own_process(span)?.unwrap_or(process);
        if own != current {
            read_process(own, spans)?;
            current = own;
        }
        read_span(span, spans)?;
    }
    Ok(())
}

fn own_process(span: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut span = Reader::new(span);
    let mut own = None;
    while let Some((number, value)) = span.next_field()? {
        match (number, value) {
            (10, Value::Bytes(process)) => own = Some(process),
            (10, _) => return Err(span.wrong_type(number)),
            _ => {}
        }
    }
    Ok(own)
}

fn read_process(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    spans.begin_resource();
    let mut process = Process::default();
    let mut service: &[u8] = &[];
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(name)) => service = name,
            (2, Value::Bytes(tag)) => process.tag(&read_tag(tag)?, spans)?,
            (1 | 2, _) => return Err(fields.wrong_type(number).into()),
            _ => {}
        }
    }
    Ok(process.end(service, spans)?)
}

fn read_span(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    let mut identity = Identity { follows_parent: true, ..Identity::default() };
    let mut wide = [0; 16];
    let (mut start, mut duration) = (0, 0);
    spans.begin_span();
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(id)) => identity.trace_id = id,
            (2, Value::Bytes(id)) => identity.span_id = id,
            (3, Value::Bytes(name)) => spans.name(name)?,
            (4, Value::Bytes(reference)) => read_reference(reference, spans)?,
            (6, Value::Bytes(time)) => start = nanos(time)?,
            (7, Value::Bytes(time)) => duration = nanos(time)?,
            (8, Value::Bytes(tag)) => read_tag(tag)?.with(|key, value| spans.tag(key, value))?,
            (9, Value::Bytes(log)) => read_log(log, spans)?,
            (1..=4 | 6..=9, _) => return Err(fields.wrong_type(number).into()),
            _ => {}
        }
    }
    if let Ok(id) = <[u8; 8]>::try_from(identity.trace_id) {
        // As old clients have it.
        wide[8..].copy_from_slice(&id);
        identity.trace_id = &wide;
    }
    identity.start_unix_nanos = start;
    identity.end_unix_nanos = start.saturating_add(duration);
    Ok(spans.end_span(&identity)?)
}

fn read_reference(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    let mut follows_from = false;
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(id)) => trace_id = id,
            (2, Value::Bytes(id)) => span_id = id,
            (3, Value::Varint(kind)) => follows_from = kind == 1,
            (1..=3, _) => return Err(fields.wrong_type(number).into()),
            _ => {}
        }
    }
    let mut wide = [0; 16];
    // An id of another length names no span.
    let (Some(room), Ok(span_id)) = (16usize.checked_sub(trace_id.len()), span_id.try_into()) else { return Ok(()) };
    wide[room..].copy_from_slice(trace_id);
    Ok(spans.reference(&Reference { trace_id: wide, span_id, follows_from })?)
}

fn read_tag(bytes: &[u8]) -> Result<Tag<&[u8]>, WireError> {
    let mut tag = Tag::default();
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(key)) => tag.key = key,
            (2, Value::Varint(kind)) => tag.kind = TagKind::of_number(kind),
            (3, Value::Bytes(text)) => tag.text = text,
            (4, Value::Varint(value)) => tag.bool = value != 0,
            (5, Value::Varint(value)) => tag.long = value.cast_signed(),
            (6, Value::Fixed64(bits)) => tag.double = f64::from_bits(bits),
            (7, Value::Bytes(bytes)) => tag.binary = bytes,
            (1..=7, _) => return Err(fields.wrong_type(number)),
            _ => {}
        }
    }
    Ok(tag)
}

fn read_log(bytes: &[u8], spans: &mut Spans) -> Result<(), Broken> {
    let mut log = Log::begin(spans)?;
    let mut timestamp = 0;
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(time)) => timestamp = nanos(time)?,
            (2, Value::Bytes(field)) => log.field(&read_tag(field)?, spans)?,
            (1 | 2, _) => return Err(fields.wrong_type(number).into()),
            _ => {}
        }
    }
    Ok(log.end(timestamp, spans)?)
}

/// A `Timestamp` or `Duration` in nanoseconds; below zero it is zero.
fn nanos(bytes: &[u8]) -> Result<u64, WireError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Varint(value)) => seconds = value.cast_signed(),
            (2, Value::Varint(value)) => nanos = value.cast_signed(),
            (1 | 2, _) => return Err(fields.wrong_type(number)),
            _ => {}
        }
    }
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Ok(u64::try_from(total.max(0)).unwrap_or(u64::MAX))
}
