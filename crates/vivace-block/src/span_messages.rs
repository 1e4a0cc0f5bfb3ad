//! From decoded traces back to the messages that the writer takes.

use std::ops::Range;

use prost::Message;
use vivace_proto::otlp::ResourceSpans;

use crate::SpanRef;

/// The messages of one trace as bytes, for [`crate::BlockWriter::push_trace`]. Kept from trace to trace.
#[derive(Debug, Default)]
pub struct SpanMessages {
    bytes: Vec<u8>,
    /// Resource, scope and span of each span.
    spans: Vec<[Range<usize>; 3]>,
}

impl SpanMessages {
    /// Takes a trace in place of the one before.
    pub fn read(&mut self, trace: &[ResourceSpans]) {
        self.bytes.clear();
        self.spans.clear();
        for resource in trace {
            let of_resource = self.put(resource.resource.as_ref());
            for scope in &resource.scope_spans {
                let of_scope = self.put(scope.scope.as_ref());
                for span in &scope.spans {
                    let of_span = self.put(Some(span));
                    self.spans.push([of_resource.clone(), of_scope.clone(), of_span]);
                }
            }
        }
    }

    fn put(&mut self, message: Option<&impl Message>) -> Range<usize> {
        let start = self.bytes.len();
        if let Some(message) = message {
            message.encode(&mut self.bytes).expect("a vector grows");
        }
        start..self.bytes.len()
    }

    /// The spans of the trace, in its order.
    #[must_use]
    pub fn refs(&self) -> Vec<SpanRef<'_>> {
        let at = |range: &Range<usize>| &self.bytes[range.clone()];
        self.spans.iter().map(|[resource, scope, span]| SpanRef { resource: at(resource), scope: at(scope), span: at(span) }).collect()
    }
}
