//! Reads from the client's bytes what metrics need of each span. Text that is no UTF-8 is mended with U+FFFD, as it is in traces.

use std::borrow::Cow;
use std::fmt;

use vivace_core::otlp::walk_spans;
use vivace_core::wire::{Reader, Value, WireError};
use vivace_core::{SpanId, TraceId};

use crate::sampling::adjusted_count;

/// A span, as far as metrics look at it.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredSpan<'a> {
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    pub(crate) trace_state: &'a [u8],
    /// None for a root.
    pub(crate) parent: Option<SpanId>,
    pub(crate) name: Cow<'a, str>,
    /// OTLP's number.
    pub(crate) kind: u64,
    /// OTLP's number.
    pub(crate) status_code: u64,
    pub(crate) status_message: Cow<'a, str>,
    pub(crate) start_unix_nanos: u64,
    pub(crate) end_unix_nanos: u64,
    /// The size of the span's message, bytes.
    pub(crate) size: usize,
    /// Empty unless they were asked for.
    pub(crate) attributes: Attributes<'a>,
}

/// What produced spans.
#[derive(Debug, Default)]
pub(crate) struct MeasuredResource<'a> {
    /// Counts from 0 within the message.
    pub(crate) index: u32,
    pub(crate) attributes: Attributes<'a>,
}

/// What says how many spans one stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Multiplier {
    /// An attribute with the share that was kept; empty is none.
    pub(crate) key: String,
    /// The trace state, where there is no such attribute.
    pub(crate) trace_state: bool,
}

/// Attributes that are looked at: to read all of them would be most of the work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    keys: Vec<String>,
    /// A bit for each length of a key, the last one for all that are longer.
    lengths: u64,
    all: bool,
}

/// What is looked at in resources, in spans that are a side of a call, and in all other spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interest {
    pub(crate) resources: Wanted,
    pub(crate) calls: Wanted,
    pub(crate) others: Wanted,
}

/// The scalar attributes of one message that are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes<'a>(Vec<(Cow<'a, str>, Scalar<'a>)>);

/// A value that can be a label.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
}

/// Attributes of one span or resource that are looked at; SDKs write 128 at most.
const ATTRIBUTES_MAX: usize = 4096;

/// OTLP's numbers of the kinds of a call's sides: server, client, producer, consumer.
const CALLS: std::ops::RangeInclusive<u64> = 2..=5;

/// OTLP's number of a failed span's status.
const STATUS_ERROR: u64 = 2;

impl MeasuredSpan<'_> {
    /// Negative durations count as none.
    pub(crate) fn duration_seconds(&self) -> f64 {
        self.end_unix_nanos.saturating_sub(self.start_unix_nanos) as f64 / 1e9
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.status_code == STATUS_ERROR
    }

    /// As Prometheus' labels have it.
    pub(crate) fn kind_name(&self) -> &'static str {
        const KINDS: [&str; 6] = [
            "SPAN_KIND_UNSPECIFIED",
            "SPAN_KIND_INTERNAL",
            "SPAN_KIND_SERVER",
            "SPAN_KIND_CLIENT",
            "SPAN_KIND_PRODUCER",
            "SPAN_KIND_CONSUMER",
        ];
        named(&KINDS, self.kind)
    }

    /// As Prometheus' labels have it.
    pub(crate) fn status_name(&self) -> &'static str {
        named(&["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"], self.status_code)
    }

    /// How many spans this one stands for. Source: docs/facts/components.md, "Span metrics".
    pub(crate) fn weight(&self, by: &Multiplier, resource: &MeasuredResource<'_>) -> f64 {
        let share = || self.attributes.get(&by.key).or_else(|| resource.attributes.get(&by.key));
        if !by.key.is_empty()
            && let Some(Scalar::Double(share)) = share()
            && *share > 0.0
            && (1.0 / share).is_finite()
        {
            return 1.0 / share;
        }
        let state = if by.trace_state { std::str::from_utf8(self.trace_state).unwrap_or_default() } else { "" };
        adjusted_count(state).unwrap_or(1.0)
    }

    /// An attribute of the resource, or else of the span.
    pub(crate) fn dimension<'s>(&'s self, key: &str, resource: &'s MeasuredResource<'_>) -> Option<&'s Scalar<'s>> {
        resource.attributes.get(key).or_else(|| self.attributes.get(key))
    }
}

fn named(names: &[&'static str], number: u64) -> &'static str {
    usize::try_from(number).ok().and_then(|number| names.get(number)).unwrap_or(&names[0])
}

#[cfg(test)]
impl Interest {
    pub(crate) fn all() -> Self {
        Self { resources: Wanted::all(), calls: Wanted::all(), others: Wanted::all() }
    }
}

impl Wanted {
    pub(crate) fn new<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        let mut keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        keys.sort_unstable();
        keys.dedup();
        let lengths = keys.iter().fold(0, |lengths, key| lengths | Self::length(key.len()));
        Self { keys, lengths, all: false }
    }

    pub(crate) fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.all
    }

    fn has(&self, key: &[u8]) -> bool {
        self.all || self.lengths & Self::length(key.len()) != 0 && self.keys.iter().any(|wanted| wanted.as_bytes() == key)
    }

    fn length(bytes: usize) -> u64 {
        1 << bytes.min(63)
    }
}

impl<'a> Attributes<'a> {
    /// The first of equal keys.
    pub(crate) fn get(&self, key: &str) -> Option<&Scalar<'a>> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// A value as text, unless it is empty.
    pub(crate) fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key).map(Scalar::text).filter(|text| !text.is_empty())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Scalar<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    fn push(&mut self, attribute: &'a [u8], wanted: &Wanted) -> Result<(), WireError> {
        let (mut key, mut content): (&[u8], Option<&[u8]>) = (&[], None);
        let mut parts = Reader::new(attribute);
        while let Some((field, value)) = parts.next_field()? {
            match (field, value) {
                // Nearly always the first field: most attributes end here.
                (1, Value::Bytes(bytes)) if content.is_none() && !wanted.has(bytes) => return Ok(()),
                (1, Value::Bytes(bytes)) => key = bytes,
                (2, Value::Bytes(any)) => content = Some(any),
                _ => {}
            }
        }
        if self.0.len() < ATTRIBUTES_MAX
            && wanted.has(key)
            && let Some(scalar) = content.map(scalar).transpose()?.flatten()
        {
            self.0.push((String::from_utf8_lossy(key), scalar));
        }
        Ok(())
    }
}

impl Scalar<'_> {
    /// What it is as a label.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_string()),
        }
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bool(flag) => flag.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
        }
    }
}

/// Calls `visit` with each span and its resource. Attributes that are no scalar, and those that are not wanted, are left out. Returns how many spans could not be read, of themselves or since their resource could not.
///
/// # Errors
/// The bytes are no `TracesData`.
pub(crate) fn measure<'a>(
    traces_data: &'a [u8],
    interest: &Interest,
    mut visit: impl FnMut(&MeasuredResource<'a>, &MeasuredSpan<'a>),
) -> Result<u64, WireError> {
    let mut resource = None;
    let mut unreadable = 0;
    // Its room is used for one span after the other.
    let mut spare = Attributes::default();
    walk_spans(traces_data, |at, head| {
        if !matches!(&resource, Some((index, _)) if *index == at.resource_index) {
            let attributes = attributes(at.resource, &interest.resources);
            let read = attributes.map(|attributes| MeasuredResource { index: at.resource_index, attributes });
            resource = Some((at.resource_index, read));
        }
        spare.0.clear();
        let mut span = MeasuredSpan {
            trace: head.trace(),
            id: head.span(),
            trace_state: &[],
            parent: head.parent_span_id.iter().any(|byte| *byte != 0).then(|| SpanId::from_slice(head.parent_span_id)),
            name: Cow::Borrowed(""),
            kind: head.kind,
            status_code: 0,
            status_message: Cow::Borrowed(""),
            start_unix_nanos: head.start_unix_nanos,
            end_unix_nanos: head.end_unix_nanos,
            size: head.bytes.len(),
            attributes: std::mem::take(&mut spare),
        };
        let wanted = if CALLS.contains(&head.kind) { &interest.calls } else { &interest.others };
        match (&resource, read_rest(&mut span, head.bytes, wanted)) {
            (Some((_, Ok(resource))), Ok(())) => visit(resource, &span),
            _ => unreadable += 1,
        }
        spare = span.attributes;
    })?;
    Ok(unreadable)
}

fn read_rest<'a>(span: &mut MeasuredSpan<'a>, bytes: &'a [u8], wanted: &Wanted) -> Result<(), WireError> {
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (3, Value::Bytes(trace_state)) => span.trace_state = trace_state,
            (5, Value::Bytes(name)) => span.name = String::from_utf8_lossy(name),
            // One that cannot be read is absent.
            (9, Value::Bytes(attribute)) if !wanted.is_empty() => drop(span.attributes.push(attribute, wanted)),
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

/// The attributes of a resource.
fn attributes<'a>(message: &'a [u8], wanted: &Wanted) -> Result<Attributes<'a>, WireError> {
    let mut found = Attributes::default();
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.next_field()? {
        if let Value::Bytes(attribute) = value
            && field == 1
        {
            found.push(attribute, wanted)?;
        }
    }
    Ok(found)
}

fn scalar(any: &[u8]) -> Result<Option<Scalar<'_>>, WireError> {
    let mut found = None;
    let mut reader = Reader::new(any);
    while let Some((field, value)) = reader.next_field()? {
        found = match (field, value) {
            (1, Value::Bytes(bytes)) => Some(Scalar::Text(String::from_utf8_lossy(bytes))),
            (2, Value::Varint(flag)) => Some(Scalar::Bool(flag != 0)),
            (3, Value::Varint(number)) => Some(Scalar::Int(number.cast_signed())),
            (4, Value::Fixed64(bits)) => Some(Scalar::Double(f64::from_bits(bits))),
            _ => None,
        };
    }
    Ok(found)
}
