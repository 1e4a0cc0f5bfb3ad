//! What Zipkin's spans say in any of their formats, in OTLP's words: of both versions, since a span of version 1 is one of version 2
//! whose kind, times and endpoints are told by annotations.

use crate::receiver::forms::{ABSENT_START, Attributes, Link, NO_SERVICE_NAME, SERVICE_NAME_SOURCE};
use crate::receiver::output::{NoRoom, Value};
use crate::receiver::spans::{Identity, Spans, nanos_of_micros};
use crate::receiver::tags::Kind;

/// Names that are of the resource where OpenTelemetry's exporters have made tags of them. Those of
/// OpenTelemetry's conventions for resources.
const RESOURCE_PREFIXES: [&[u8]; 11] = [
    b"service.",
    b"telemetry.",
    b"host.",
    b"process.",
    b"os.",
    b"container.",
    b"k8s.",
    b"cloud.",
    b"deployment.",
    b"device.",
    b"webengine.",
];

/// Where something ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) service: Vec<u8>,
    /// As text; empty where there is none.
    pub(super) ip: Vec<u8>,
    /// 0 where there is none.
    pub(super) port: u16,
}

impl Endpoint {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What only a span's end says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fields {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    /// Zeros where there is none.
    pub(super) parent_id: [u8; 8],
    pub(super) kind: Option<Kind>,
    /// Microseconds since 1970; 0 where it is not known.
    pub(super) timestamp: i64,
    /// Microseconds; 0 where it is not known.
    pub(super) duration: i64,
}

/// A span that is being read.
pub(super) struct ZipkinSpan<'s> {
    spans: &'s mut Spans,
    local: Endpoint,
    /// Whether that is of the span's own annotations, and not only of what else was noted.
    local_is_certain: bool,
    /// `service.name` as a tag.
    service: Vec<u8>,
    /// The attribute that the local endpoint's service is, where that is another one.
    service_key: Vec<u8>,
    /// Whether an exporter says that there was no start.
    lacks_start: bool,
    /// What annotations of version 1 tell.
    kind: Option<Kind>,
    start: Option<i64>,
    end: Option<i64>,
    earliest: Option<i64>,
}

impl<'s> ZipkinSpan<'s> {
    pub(super) fn begin(spans: &'s mut Spans) -> Self {
        spans.begin_resource();
        spans.begin_span();
        Self {
            spans,
            local: Endpoint::default(),
            local_is_certain: false,
            service: Vec::new(),
            service_key: Vec::new(),
            lacks_start: false,
            kind: None,
            start: None,
            end: None,
            earliest: None,
        }
    }

    pub(super) fn name(&mut self, name: &[u8]) -> Result<(), NoRoom> {
        self.spans.name(name)
    }

    pub(super) fn local(&mut self, endpoint: Endpoint) {
        (self.local, self.local_is_certain) = (endpoint, true);
    }

    pub(super) fn remote(&mut self, endpoint: &Endpoint) -> Result<(), NoRoom> {
        if !endpoint.service.is_empty() {
            self.spans.attribute(b"peer.service", Value::Text(&endpoint.service))?;
        }
        self.address(endpoint, b"net.peer.ip", b"net.peer.port")
    }

    pub(super) fn tag(&mut self, key: &[u8], text: &[u8]) -> Result<(), NoRoom> {
        if self.spans.is_field(key, text) {
            return Ok(());
        }
        if let Some(link) = Link::of_tag(key, text) {
            return self.spans.link(&link);
        }
        match (key, text) {
            (SERVICE_NAME_SOURCE, key) => {
                self.service_key = key.to_vec();
                return Ok(());
            }
            (ABSENT_START, b"true") => {
                self.lacks_start = true;
                return Ok(());
            }
            _ => {}
        }
        let value = self.spans.value(text);
        self.attribute(key, value)
    }

    pub(super) fn annotation(&mut self, timestamp: i64, value: &[u8]) -> Result<(), NoRoom> {
        self.earliest = Some(self.earliest.map_or(timestamp, |earliest| earliest.min(timestamp)));
        let start = self.spans.begin_event()?;
        let mut name = value;
        if let Some((text, attributes)) = Attributes::after(value) {
            name = text;
            attributes.each(|key, value| self.spans.event_attribute(key, value))?;
            if attributes.dropped > 0 {
                self.spans.event_dropped_attributes(attributes.dropped)?;
            }
        }
        self.spans.end_event(start, nanos_of_micros(timestamp), name)
    }

    /// An annotation of version 1: of the span itself, or something that happened.
    pub(super) fn annotation_v1(&mut self, timestamp: i64, value: &[u8], endpoint: Option<Endpoint>) -> Result<(), NoRoom> {
        let (kind, is_start) = match value {
            b"cs" => (Kind::Client, true),
            b"cr" => (Kind::Client, false),
            b"sr" => (Kind::Server, true),
            b"ss" => (Kind::Server, false),
            b"ms" => (Kind::Producer, true),
            b"mr" => (Kind::Consumer, true),
            _ => {
                self.noted_by(endpoint);
                return self.annotation(timestamp, value);
            }
        };
        // Who reports both halves of a call in one span has the client's first.
        if self.kind.is_none_or(|known| known == kind) {
            self.kind = Some(kind);
            let time = if is_start { &mut self.start } else { &mut self.end };
            *time = Some(timestamp);
            if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) {
                self.local(endpoint);
            }
        }
        Ok(())
    }

    /// A binary annotation of version 1: the other side's address, or a tag.
    pub(super) fn binary_annotation(&mut self, key: &[u8], value: Value<'_>, endpoint: Option<Endpoint>) -> Result<(), NoRoom> {
        if let (b"sa" | b"ca" | b"ma", Value::Bool(true)) = (key, value) {
            return self.remote(&endpoint.unwrap_or_default());
        }
        self.noted_by(endpoint);
        match value {
            // The component that ran here, without a name.
            Value::Text(b"") if key == b"lc" => Ok(()),
            Value::Text(text) => self.tag(key, text),
            other => self.spans.tag(key, other),
        }
    }

    pub(super) fn end(mut self, fields: &Fields) -> Result<(), NoRoom> {
        let local = std::mem::take(&mut self.local);
        self.address(&local, b"net.host.ip", b"net.host.port")?;
        self.service_name(&local.service)?;
        let said = Some(fields.timestamp).filter(|time| *time > 0).or(self.start);
        if said.is_none() || self.lacks_start {
            self.spans.attribute(ABSENT_START, Value::Bool(true))?;
        }
        let start = said.or(self.earliest).or(self.end).filter(|time| *time > 0);
        let between = self.end.and_then(|end| end.checked_sub(self.start.or(start)?));
        let duration = if fields.duration > 0 { fields.duration } else { between.unwrap_or(0) };
        let start_unix_nanos = start.map_or_else(|| self.spans.arrived_unix_nanos(), nanos_of_micros);
        self.spans.end_span(&Identity {
            trace_id: &fields.trace_id,
            span_id: &fields.span_id,
            parent_id: if fields.parent_id == [0; 8] { &[] } else { &fields.parent_id },
            follows_parent: false,
            start_unix_nanos,
            end_unix_nanos: start_unix_nanos.saturating_add(nanos_of_micros(duration)),
            kind: fields.kind.or(self.kind),
        })
    }

    /// The service as an attribute of the resource.
    fn service_name(&mut self, of_endpoint: &[u8]) -> Result<(), NoRoom> {
        let (key, service): (&[u8], _) = match of_endpoint {
            b"" | NO_SERVICE_NAME => (b"service.name", self.service.as_slice()),
            service if self.service_key.is_empty() => (b"service.name", service),
            service => (&self.service_key, service),
        };
        match service {
            [] => Ok(()),
            service => self.spans.resource_attribute(key, Value::Text(service)),
        }
    }

    fn attribute(&mut self, key: &[u8], value: Value<'_>) -> Result<(), NoRoom> {
        match value {
            Value::Text(text) if key == b"service.name" => {
                self.service = text.to_vec();
                Ok(())
            }
            value if RESOURCE_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) => self.spans.resource_attribute(key, value),
            value => self.spans.attribute(key, value),
        }
    }

    /// Where a note was made: where the span ran, unless it is told better.
    fn noted_by(&mut self, endpoint: Option<Endpoint>) {
        if let Some(endpoint) = endpoint.filter(|_| !self.local_is_certain && self.local.is_empty()) {
            self.local = endpoint;
        }
    }

    fn address(&mut self, endpoint: &Endpoint, ip: &[u8], port: &[u8]) -> Result<(), NoRoom> {
        if !endpoint.ip.is_empty() {
            self.spans.attribute(ip, Value::Text(&endpoint.ip))?;
        }
        if endpoint.port > 0 {
            self.spans.attribute(port, Value::Int(endpoint.port.into()))?;
        }
        Ok(())
    }
}
