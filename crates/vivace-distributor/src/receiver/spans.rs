//! A request in OTLP that is made of the spans of another protocol, one after the other, as they are read. Nothing is built of a
//! span in between: its fields are written in the order that they come in, and what only its end decides follows.

use bytes::Bytes;
use vivace_server::{RequestCharge, clock};

use super::forms::Link;
use super::output::{FIXED64, NoRoom, Output, Value};
use super::tags::{Dialect, Kind, Tags};

/// Field numbers. Source: OpenTelemetry protocol, `trace.proto`.
mod field {
    pub(super) const TRACES_RESOURCE_SPANS: u32 = 1;
    pub(super) const RESOURCE_SPANS_RESOURCE: u32 = 1;
    pub(super) const RESOURCE_SPANS_SCOPE_SPANS: u32 = 2;
    pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(super) const SCOPE_SPANS_SCOPE: u32 = 1;
    pub(super) const SCOPE_SPANS_SPANS: u32 = 2;
    pub(super) const SCOPE_NAME: u32 = 1;
    pub(super) const SCOPE_VERSION: u32 = 2;
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const EVENTS: u32 = 11;
    pub(super) const LINKS: u32 = 13;
    pub(super) const STATUS: u32 = 15;
    pub(super) const EVENT_TIME: u32 = 1;
    pub(super) const EVENT_NAME: u32 = 2;
    pub(super) const EVENT_ATTRIBUTES: u32 = 3;
    pub(super) const EVENT_DROPPED_ATTRIBUTES: u32 = 4;
    pub(super) const LINK_TRACE_ID: u32 = 1;
    pub(super) const LINK_SPAN_ID: u32 = 2;
    pub(super) const LINK_TRACE_STATE: u32 = 3;
    pub(super) const LINK_ATTRIBUTES: u32 = 4;
    pub(super) const LINK_DROPPED_ATTRIBUTES: u32 = 5;
    pub(super) const STATUS_MESSAGE: u32 = 2;
    pub(super) const STATUS_CODE: u32 = 3;
}

/// Bytes of a reference while it waits for the span's end: trace id, span id, type.
const REFERENCE_BYTES: usize = 25;
/// So many times of itself may a request become, and so many bytes beside. Real spans become about as much as they were; in thrift a
/// span may be a byte, and sixty in OTLP.
const GROWTH_MAX: usize = 8;
const GROWTH_BYTES_MIN: usize = 64 << 10;

/// The spans so far.
pub(crate) struct Spans {
    out: Output,
    /// Where the messages began that the next span may go into.
    open: Option<Open>,
    /// The resource and scope that are open.
    written_resource: Output,
    written_scope: Output,
    /// Of the span that is being read.
    span: Output,
    resource: Output,
    scope: Output,
    references: Output,
    tags: Tags,
    /// When the request came, nanoseconds since 1970.
    arrived_unix_nanos: u64,
    /// What is charged for texts that are held aside until the span ends.
    aside: RequestCharge,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    resource_spans: usize,
    scope_spans: usize,
}

/// What a span is, beside what was written of it already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Identity<'a> {
    pub(crate) trace_id: &'a [u8],
    pub(crate) span_id: &'a [u8],
    /// Empty where the protocol names it among the references, or there is none.
    pub(crate) parent_id: &'a [u8],
    /// Whether a reference of the second kind makes a parent where there is none of the first.
    pub(crate) follows_parent: bool,
    pub(crate) start_unix_nanos: u64,
    pub(crate) end_unix_nanos: u64,
    /// None where tags say it.
    pub(crate) kind: Option<Kind>,
}

/// A span that another one names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) follows_from: bool,
}

impl Spans {
    /// No spans yet, of a request with this many bytes that has just come. What else it holds is in `charge`.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(crate) fn new(charge: &RequestCharge, dialect: Dialect, body_bytes: usize) -> Result<Self, NoRoom> {
        let mut aside = charge.another();
        aside.grow(body_bytes as u64).map_err(|over| NoRoom::of_request(over, charge.bytes()))?;
        let output = || Output::new(charge.another()).beside(charge.bytes() + aside.bytes());
        let mut this = Self {
            out: output(),
            open: None,
            written_resource: output(),
            written_scope: output(),
            span: output(),
            resource: output(),
            scope: output(),
            references: output(),
            tags: Tags::new(dialect),
            arrived_unix_nanos: clock::unix_nanos(),
            aside,
        };
        this.allow(body_bytes);
        Ok(this)
    }

    /// From now on there come so many bytes of a request: what they may become is bounded.
    fn allow(&mut self, body_bytes: usize) {
        let bytes = body_bytes.saturating_mul(GROWTH_MAX).saturating_add(GROWTH_BYTES_MIN);
        self.out.grow_by_at_most(bytes);
        for part in [&mut self.span, &mut self.resource] {
            part.truncate(0);
            part.grow_by_at_most(bytes);
        }
    }

    /// The request as OTLP, and what is charged for it.
    ///
    /// # Errors
    /// There is no memory for the last few bytes.
    pub(crate) fn finish(mut self) -> Result<(Bytes, RequestCharge), NoRoom> {
        // What was taken can be ended.
        self.allow(0);
        self.close()?;
        drop(self.aside);
        let (bytes, charge) = self.out.finish();
        Ok((bytes.into(), charge))
    }

    /// Where it stands, to come back to if the bytes that follow are broken, of which there are so many.
    pub(crate) fn mark(&mut self, body_bytes: usize) -> Result<usize, NoRoom> {
        self.allow(body_bytes);
        self.close()?;
        Ok(self.out.bytes().len())
    }

    /// Forgets everything since [`Spans::mark`].
    pub(crate) fn go_back(&mut self, mark: usize) {
        self.open = None;
        self.out.truncate(mark);
    }

    /// When the request came, nanoseconds since 1970.
    pub(crate) fn arrived_unix_nanos(&self) -> u64 {
        self.arrived_unix_nanos
    }

    /// Why there was no room, if there was none.
    pub(crate) fn refused(&self) -> Option<NoRoom> {
        let outputs = [&self.out, &self.written_resource, &self.written_scope, &self.span, &self.resource, &self.scope, &self.references];
        outputs.into_iter().find_map(Output::refused)
    }

    /// Begins the resource of the spans that follow, until it is begun anew.
    pub(crate) fn begin_resource(&mut self) {
        self.resource.truncate(0);
    }

    pub(crate) fn resource_attribute(&mut self, key: &[u8], value: Value<'_>) -> Result<(), NoRoom> {
        self.resource.attribute(field::RESOURCE_ATTRIBUTES, key, value)
    }

    /// Begins a span. Everything up to [`Spans::end_span`] is its own.
    pub(crate) fn begin_span(&mut self) {
        self.span.truncate(0);
        self.references.truncate(0);
        self.tags.clear();
    }

    pub(crate) fn name(&mut self, name: &[u8]) -> Result<(), NoRoom> {
        self.span.text(field::NAME, name)
    }

    /// A tag: something that OTLP has a field for, or an attribute.
    #[inline]
    pub(crate) fn tag(&mut self, key: &[u8], value: Value<'_>) -> Result<(), NoRoom> {
        if self.tags.take(key, value) {
            return Ok(());
        }
        self.span.attribute(field::ATTRIBUTES, key, value)
    }

    /// Whether a tag with a text is something that OTLP has a field for; then it is taken.
    pub(crate) fn is_field(&mut self, key: &[u8], text: &[u8]) -> bool {
        self.tags.take(key, Value::Text(text))
    }

    /// A text as the value that the protocol means by it.
    pub(crate) fn value<'t>(&self, text: &'t [u8]) -> Value<'t> {
        self.tags.value(text)
    }

    pub(crate) fn attribute(&mut self, key: &[u8], value: Value<'_>) -> Result<(), NoRoom> {
        self.span.attribute(field::ATTRIBUTES, key, value)
    }

    /// Begins an event; what it is ended with.
    pub(crate) fn begin_event(&mut self) -> Result<usize, NoRoom> {
        self.span.begin(field::EVENTS)
    }

    pub(crate) fn event_attribute(&mut self, key: &[u8], value: Value<'_>) -> Result<(), NoRoom> {
        self.span.attribute(field::EVENT_ATTRIBUTES, key, value)
    }

    /// Attributes that were left out of an event.
    pub(crate) fn event_dropped_attributes(&mut self, count: u32) -> Result<(), NoRoom> {
        self.span.number(field::EVENT_DROPPED_ATTRIBUTES, count.into())
    }

    pub(crate) fn end_event(&mut self, start: usize, unix_nanos: u64, name: &[u8]) -> Result<(), NoRoom> {
        self.span.fixed(field::EVENT_TIME, FIXED64, &unix_nanos.to_le_bytes())?;
        if !name.is_empty() {
            self.span.text(field::EVENT_NAME, name)?;
        }
        self.span.end(start)
    }

    /// A link, all of which is known.
    pub(crate) fn link(&mut self, link: &Link<'_>) -> Result<(), NoRoom> {
        let start = self.span.begin(field::LINKS)?;
        self.span.text(field::LINK_TRACE_ID, &link.trace_id)?;
        self.span.text(field::LINK_SPAN_ID, &link.span_id)?;
        if !link.trace_state.is_empty() {
            self.span.text(field::LINK_TRACE_STATE, link.trace_state)?;
        }
        link.attributes.each(|key, value| self.span.attribute(field::LINK_ATTRIBUTES, key, value))?;
        if link.attributes.dropped > 0 {
            self.span.number(field::LINK_DROPPED_ATTRIBUTES, link.attributes.dropped.into())?;
        }
        self.span.end(start)
    }

    pub(crate) fn reference(&mut self, reference: &Reference) -> Result<(), NoRoom> {
        self.references.raw(&reference.trace_id)?;
        self.references.raw(&reference.span_id)?;
        self.references.raw(&[u8::from(reference.follows_from)])
    }

    /// Ends the span, and puts it to those of the same resource and scope if the one before was of them.
    pub(crate) fn end_span(&mut self, identity: &Identity<'_>) -> Result<(), NoRoom> {
        self.span.text(field::TRACE_ID, identity.trace_id)?;
        self.span.text(field::SPAN_ID, identity.span_id)?;
        self.span.fixed(field::START, FIXED64, &identity.start_unix_nanos.to_le_bytes())?;
        self.span.fixed(field::END, FIXED64, &identity.end_unix_nanos.to_le_bytes())?;
        self.write_references(identity)?;
        self.write_tags(identity)?;
        self.write_scope()?;
        self.open_group()?;
        self.out.text(field::SCOPE_SPANS_SPANS, self.span.bytes())
    }

    /// The parent, and links to all others.
    fn write_references(&mut self, identity: &Identity<'_>) -> Result<(), NoRoom> {
        let in_trace = |reference: &Reference| reference.trace_id == *identity.trace_id;
        let all = || self.references.bytes().chunks_exact(REFERENCE_BYTES).map(Reference::read);
        let child_of = || all().find(|reference| in_trace(reference) && !reference.follows_from);
        let follows = || all().find(|reference| in_trace(reference) && identity.follows_parent);
        let parent = match identity.parent_id {
            [] => child_of().or_else(follows).map(|reference| reference.span_id),
            id => id.try_into().ok(),
        };
        // None is its own parent.
        let parent = parent.filter(|id: &[u8; 8]| id != identity.span_id);
        if let Some(parent) = parent {
            self.span.text(field::PARENT_SPAN_ID, &parent)?;
        }
        let mut seen_parent = false;
        for reference in all() {
            if !seen_parent && in_trace(&reference) && Some(reference.span_id) == parent {
                seen_parent = true;
                continue;
            }
            let start = self.span.begin(field::LINKS)?;
            self.span.text(field::LINK_TRACE_ID, &reference.trace_id)?;
            self.span.text(field::LINK_SPAN_ID, &reference.span_id)?;
            let kind = if reference.follows_from { "follows_from" } else { "child_of" };
            self.span.attribute(field::LINK_ATTRIBUTES, b"opentracing.ref_type", Value::Text(kind.as_bytes()))?;
            self.span.end(start)?;
        }
        Ok(())
    }

    /// What tags said that is no attribute.
    fn write_tags(&mut self, identity: &Identity<'_>) -> Result<(), NoRoom> {
        let kind = identity.kind.or(self.tags.kind);
        if let Some(kind) = kind {
            self.span.number(field::KIND, kind as u64)?;
        }
        if !self.tags.trace_state.is_empty() {
            self.span.text(field::TRACE_STATE, &self.tags.trace_state)?;
        }
        let (status, left) = self.tags.status(kind);
        if let Some((key, value)) = left {
            self.span.attribute(field::ATTRIBUTES, key, Value::Text(value))?;
        }
        if let Some((code, message)) = status {
            let start = self.span.begin(field::STATUS)?;
            if !message.is_empty() {
                self.span.text(field::STATUS_MESSAGE, message)?;
            }
            self.span.number(field::STATUS_CODE, code as u64)?;
            self.span.end(start)?;
        }
        Ok(())
    }

    fn write_scope(&mut self) -> Result<(), NoRoom> {
        self.scope.truncate(0);
        for (field, text) in [(field::SCOPE_NAME, &self.tags.scope_name), (field::SCOPE_VERSION, &self.tags.scope_version)] {
            if !text.is_empty() {
                self.scope.text(field, text)?;
            }
        }
        Ok(())
    }

    /// Opens messages for the resource and scope of the span that ends, unless they are open.
    fn open_group(&mut self) -> Result<(), NoRoom> {
        let resource_spans = match self.open {
            Some(open) if self.written_resource.bytes() == self.resource.bytes() => {
                if self.written_scope.bytes() == self.scope.bytes() {
                    return Ok(());
                }
                self.out.end(open.scope_spans)?;
                open.resource_spans
            }
            _ => {
                self.close()?;
                let start = self.out.begin(field::TRACES_RESOURCE_SPANS)?;
                self.out.text(field::RESOURCE_SPANS_RESOURCE, self.resource.bytes())?;
                self.written_resource.truncate(0);
                self.written_resource.raw(self.resource.bytes())?;
                start
            }
        };
        let scope_spans = self.out.begin(field::RESOURCE_SPANS_SCOPE_SPANS)?;
        self.out.text(field::SCOPE_SPANS_SCOPE, self.scope.bytes())?;
        self.written_scope.truncate(0);
        self.written_scope.raw(self.scope.bytes())?;
        self.open = Some(Open { resource_spans, scope_spans });
        Ok(())
    }

    fn close(&mut self) -> Result<(), NoRoom> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.out.end(open.scope_spans)?;
        self.out.end(open.resource_spans)
    }
}

impl Reference {
    fn read(bytes: &[u8]) -> Self {
        let (trace_id, rest) = bytes.split_first_chunk().expect("a reference has 25 bytes");
        let (span_id, rest) = rest.split_first_chunk().expect("a reference has 25 bytes");
        Self { trace_id: *trace_id, span_id: *span_id, follows_from: rest[0] != 0 }
    }
}

/// Microseconds as nanoseconds; what is before 1970 is 1970, what is too late for 64 bits is the latest.
pub(crate) fn nanos_of_micros(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).saturating_mul(1_000)
}
