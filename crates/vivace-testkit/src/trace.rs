//! Small traces as a client would send them. Ids follow from a number and times from the caller, so that a test can say what to
//! expect.

use vivace_proto::otlp::{
    AnyValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status, TracesData, any_value::Value,
};

/// A text attribute.
#[must_use]
pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }) }
}

/// Builds one trace of one service: a root and children, each a millisecond after the one before.
#[derive(Debug, Clone)]
pub struct TraceBuilder {
    trace_id: [u8; 16],
    service: String,
    start_unix_nanos: u64,
    spans: Vec<Span>,
}

impl TraceBuilder {
    /// A trace whose id ends in `number`, starting at a time of the caller's choice.
    #[must_use]
    pub fn new(number: u64, service: &str, start_unix_nanos: u64) -> Self {
        let mut trace_id = [0u8; 16];
        // Spread over the ring and never all zero in either half.
        trace_id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        trace_id[8..].copy_from_slice(&number.to_be_bytes());
        trace_id[15] |= 1;
        Self { trace_id, service: service.to_owned(), start_unix_nanos, spans: Vec::new() }
    }

    /// The id, 16 bytes.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// Adds a span: the first is the root, the others are its children. 10 ms long.
    #[must_use]
    pub fn span(mut self, name: &str, attributes: &[KeyValue]) -> Self {
        let number = self.spans.len() as u64 + 1;
        let start = self.start_unix_nanos + 1_000_000 * (number - 1);
        self.spans.push(Span {
            trace_id: self.trace_id.to_vec().into(),
            span_id: span_id(number),
            parent_span_id: if number == 1 { Vec::new().into() } else { span_id(1) },
            name: name.to_owned(),
            kind: if number == 1 { 2 } else { 1 },
            start_time_unix_nano: start,
            end_time_unix_nano: start + 10_000_000,
            attributes: attributes.to_vec(),
            ..Span::default()
        });
        self
    }

    /// Marks the last span as failed.
    #[must_use]
    pub fn failed(mut self, message: &str) -> Self {
        if let Some(span) = self.spans.last_mut() {
            span.status = Some(Status { message: message.to_owned(), code: 2 });
        }
        self
    }

    /// The message a client would send.
    #[must_use]
    pub fn build(self) -> TracesData {
        TracesData {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: vec![attribute("service.name", &self.service)], ..Resource::default() }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope { name: "testkit".to_owned(), ..InstrumentationScope::default() }),
                    spans: self.spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    }
}

fn span_id(number: u64) -> vivace_proto::Bytes {
    (number | 0xab00_0000_0000_0000).to_be_bytes().to_vec().into()
}
