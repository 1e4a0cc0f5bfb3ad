//! Reads from the client's bytes what span metrics need of each span. Text that is no UTF-8 is mended with U+FFFD, as it is in traces.

use std::borrow::Cow;

use rustc_hash::FxHashMap;
use vivace_core::otlp::walk_spans;
use vivace_core::wire::{Reader, Value, WireError};

/// A span, as far as metrics look at it.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredSpan<'a> {
    pub(crate) trace_id: &'a [u8],
    pub(crate) name: Cow<'a, str>,
    pub(crate) kind: u64,
    pub(crate) status_code: u64,
    pub(crate) status_message: Cow<'a, str>,
    pub(crate) start_unix_nanos: u64,
    pub(crate) end_unix_nanos: u64,
    /// The size of the span's message, bytes.
    pub(crate) size: usize,
    /// The `Span` message, for attributes.
    pub(crate) bytes: &'a [u8],
}

impl MeasuredSpan<'_> {
    /// Negative durations count as none.
    pub(crate) fn duration_seconds(&self) -> f64 {
        self.end_unix_nanos.saturating_sub(self.start_unix_nanos) as f64 / 1e9
    }
}

/// The scalar attributes of a message, as text.
pub(crate) type Attributes<'a> = FxHashMap<Cow<'a, str>, String>;

/// Calls `visit` with each span and its resource's attributes. Attributes that are no scalar are left out. Returns how many spans
/// could not be read, of themselves or since their resource could not.
///
/// # Errors
/// The bytes are no `TracesData`.
pub(crate) fn measure<'a>(traces_data: &'a [u8], mut visit: impl FnMut(&Attributes<'a>, MeasuredSpan<'a>)) -> Result<u64, WireError> {
    let mut resource = Ok(Attributes::default());
    let mut resource_index = None;
    let mut unreadable = 0;
    walk_spans(traces_data, |at, head| {
        if resource_index != Some(at.resource_index) {
            resource_index = Some(at.resource_index);
            resource = attributes(at.resource, 1);
        }
        let mut span = MeasuredSpan {
            trace_id: head.trace_id,
            name: Cow::Borrowed(""),
            kind: head.kind,
            status_code: 0,
            status_message: Cow::Borrowed(""),
            start_unix_nanos: head.start_unix_nanos,
            end_unix_nanos: head.end_unix_nanos,
            size: head.bytes.len(),
            bytes: head.bytes,
        };
        match (&resource, name_and_status(&mut span)) {
            (Ok(resource), Ok(())) => visit(resource, span),
            (Err(_), _) | (_, Err(_)) => unreadable += 1,
        }
    })?;
    Ok(unreadable)
}

fn name_and_status(span: &mut MeasuredSpan<'_>) -> Result<(), WireError> {
    let mut reader = Reader::new(span.bytes);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (5, Value::Bytes(name)) => span.name = String::from_utf8_lossy(name),
            (15, Value::Bytes(status)) => {
                let mut status = Reader::new(status);
                while let Some((field, value)) = status.next_field()? {
                    match (field, value) {
                        (2, Value::Bytes(message)) => span.status_message = String::from_utf8_lossy(message),
                        (3, Value::Varint(code)) => span.status_code = code,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The scalar attributes of a message that lists them in field `number`, as text. The first of equal keys counts.
pub(crate) fn attributes(message: &[u8], number: u32) -> Result<Attributes<'_>, WireError> {
    let mut found = Attributes::default();
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.next_field()? {
        let Value::Bytes(attribute) = value else { continue };
        if field != number {
            continue;
        }
        let (mut key, mut content) = (Cow::Borrowed(""), None);
        let mut parts = Reader::new(attribute);
        while let Some((field, value)) = parts.next_field()? {
            match (field, value) {
                (1, Value::Bytes(bytes)) => key = String::from_utf8_lossy(bytes),
                (2, Value::Bytes(any)) => content = scalar(any)?,
                _ => {}
            }
        }
        if let Some(content) = content {
            found.entry(key).or_insert(content);
        }
    }
    Ok(found)
}

fn scalar(any: &[u8]) -> Result<Option<String>, WireError> {
    let mut found = None;
    let mut reader = Reader::new(any);
    while let Some((field, value)) = reader.next_field()? {
        found = match (field, value) {
            (1, Value::Bytes(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            (2, Value::Varint(flag)) => Some((flag != 0).to_string()),
            (3, Value::Varint(number)) => Some(number.cast_signed().to_string()),
            (4, Value::Fixed64(bits)) => Some(f64::from_bits(bits).to_string()),
            _ => None,
        };
    }
    Ok(found)
}
