//! What Jaeger's spans say in either of their formats, in OTLP's words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::receiver::forms::NO_SERVICE_NAME;
use crate::receiver::output::{NoRoom, Value};
use crate::receiver::spans::Spans;

/// A tag as either format has it: a type, and a value for each type.
#[derive(Debug, Default)]
pub(super) struct Tag<B> {
    pub(super) key: B,
    pub(super) kind: TagKind,
    pub(super) text: B,
    pub(super) double: f64,
    pub(super) bool: bool,
    pub(super) long: i64,
    pub(super) binary: B,
}

/// The type of a tag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TagKind {
    #[default]
    Text,
    Double,
    Bool,
    Long,
    Binary,
}

impl TagKind {
    /// As `ValueType` numbers it in protobuf.
    pub(super) fn of_number(number: u64) -> Self {
        match number {
            1 => Self::Bool,
            2 => Self::Long,
            3 => Self::Double,
            4 => Self::Binary,
            _ => Self::Text,
        }
    }
}

impl<B: AsRef<[u8]>> Tag<B> {
    /// Hands over its key and its value; bytes as text in base64.
    pub(super) fn with<T>(&self, take: impl FnOnce(&[u8], Value<'_>) -> T) -> T {
        let key = self.key.as_ref();
        match self.kind {
            TagKind::Text => take(key, Value::Text(self.text.as_ref())),
            TagKind::Double => take(key, Value::Double(self.double)),
            TagKind::Bool => take(key, Value::Bool(self.bool)),
            TagKind::Long => take(key, Value::Int(self.long)),
            TagKind::Binary => take(key, Value::Text(STANDARD.encode(self.binary.as_ref()).as_bytes())),
        }
    }
}

/// A process that is being read: the resource of its spans.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Whether there was `host.name` itself.
    has_host_name: bool,
    hostname: Option<Vec<u8>>,
    /// `service.name` as a tag, which some clients have beside the service.
    service: Vec<u8>,
}

impl Process {
    pub(super) fn tag<B: AsRef<[u8]>>(&mut self, tag: &Tag<B>, spans: &mut Spans) -> Result<(), NoRoom> {
        tag.with(|key, value| match (key, value) {
            (b"hostname", Value::Text(name)) => {
                self.hostname = Some(name.to_vec());
                Ok(())
            }
            (b"service.name", Value::Text(name)) => {
                self.service = name.to_vec();
                Ok(())
            }
            (b"jaeger.version", Value::Text(version)) => {
                let version = [b"Jaeger-", version].concat();
                spans.resource_attribute(b"opencensus.exporterversion", Value::Text(&version))
            }
            _ => {
                self.has_host_name |= key == b"host.name";
                spans.resource_attribute(key, value)
            }
        })
    }

    pub(super) fn end(&self, service: &[u8], spans: &mut Spans) -> Result<(), NoRoom> {
        if let Some(hostname) = self.hostname.as_deref().filter(|_| !self.has_host_name) {
            spans.resource_attribute(b"host.name", Value::Text(hostname))?;
        }
        let service = if matches!(service, b"" | NO_SERVICE_NAME) { &self.service } else { service };
        if service.is_empty() {
            return Ok(());
        }
        spans.resource_attribute(b"service.name", Value::Text(service))
    }
}

/// A log that is being read: an event. Its name is the field `event`, or `message` where there is none.
#[derive(Debug)]
pub(super) struct Log {
    start: usize,
    event: Option<Vec<u8>>,
    message: Option<Vec<u8>>,
}

impl Log {
    pub(super) fn begin(spans: &mut Spans) -> Result<Self, NoRoom> {
        Ok(Self { start: spans.begin_event()?, event: None, message: None })
    }

    pub(super) fn field<B: AsRef<[u8]>>(&mut self, tag: &Tag<B>, spans: &mut Spans) -> Result<(), NoRoom> {
        tag.with(|key, value| match (key, value) {
            (b"event", Value::Text(text)) if self.event.is_none() => {
                self.event = Some(text.to_vec());
                Ok(())
            }
            (b"message", Value::Text(text)) if self.message.is_none() => {
                self.message = Some(text.to_vec());
                Ok(())
            }
            _ => spans.event_attribute(key, value),
        })
    }

    pub(super) fn end(self, unix_nanos: u64, spans: &mut Spans) -> Result<(), NoRoom> {
        let name = match (self.event, self.message) {
            (Some(event), Some(message)) => {
                spans.event_attribute(b"message", Value::Text(&message))?;
                event
            }
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => Vec::new(),
        };
        spans.end_event(self.start, unix_nanos, &name)
    }
}
