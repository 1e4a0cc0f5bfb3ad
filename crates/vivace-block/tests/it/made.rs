//! Blocks of our own writer, for tests of what is in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vivace_block::verify::{Report, SmallObjects, verify};
use vivace_block::{BlockMeta, BlockOptions, BlockWriter, ReadAt, SpanRef};
use vivace_core::otlp::walk_spans;
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::otlp::ResourceSpans;

/// Requests with everything that OTLP can say, each behind its length.
const REQUESTS: &[u8] = include_bytes!("../../testdata/edge-a/requests.otlp.pb");

/// A finished block in memory.
pub(crate) struct Made {
    pub(crate) meta: BlockMeta,
    pub(crate) data: Bytes,
    pub(crate) blooms: Vec<Vec<u8>>,
    pub(crate) index: Vec<u8>,
}

impl Made {
    pub(crate) fn verify(&self) -> Report {
        let blooms = self.blooms.iter().map(|bytes| Some(bytes.clone().into())).collect();
        let small = SmallObjects { blooms, index: Some(self.index.clone().into()) };
        let source: Arc<dyn ReadAt> = Arc::new(self.data.clone());
        verify(&self.meta, &source, &small, &mut |_| {})
    }
}

/// A block of these traces, which come in the order of their ids.
pub(crate) fn of_traces<'a>(options: BlockOptions, traces: impl IntoIterator<Item = (TraceId, Vec<SpanRef<'a>>)>) -> Made {
    let traces: BTreeMap<TraceId, Vec<SpanRef<'a>>> = traces.into_iter().collect();
    let mut writer =
        BlockWriter::new(options, TenantId::single(), BlockId([7; 16]), Vec::new(), traces.len() as u64).expect("the writer starts");
    for (id, spans) in &traces {
        writer.push_trace(*id, spans).expect("the trace is taken");
    }
    let block = writer.finish().expect("the block is finished");
    Made { meta: block.meta, data: block.out.into(), blooms: block.blooms, index: block.index }
}

/// The traces of the data set that has a case of everything.
pub(crate) fn of_every_case(options: BlockOptions) -> Made {
    let mut requests = REQUESTS;
    let mut traces: BTreeMap<TraceId, Vec<SpanRef<'_>>> = BTreeMap::new();
    while !requests.is_empty() {
        let len = prost::decode_length_delimiter(&mut requests).expect("a length");
        walk_spans(&requests[..len], |at, head| {
            let span = SpanRef { resource: at.resource, scope: at.scope, span: head.bytes };
            traces.entry(head.trace()).or_default().push(span);
        })
        .expect("a request");
        requests = &requests[len..];
    }
    of_traces(options, traces)
}

/// The messages of a trace: resource, scope and span of each span.
pub(crate) struct Messages(Vec<[Vec<u8>; 3]>);

impl Messages {
    pub(crate) fn of(trace: &[ResourceSpans]) -> Self {
        let mut messages = Vec::new();
        for resource in trace {
            let of_resource = resource.resource.as_ref().map(|message| message.encode_to_vec()).unwrap_or_default();
            for scope in &resource.scope_spans {
                let of_scope = scope.scope.as_ref().map(|message| message.encode_to_vec()).unwrap_or_default();
                messages.extend(scope.spans.iter().map(|span| [of_resource.clone(), of_scope.clone(), span.encode_to_vec()]));
            }
        }
        Self(messages)
    }

    pub(crate) fn refs(&self) -> Vec<SpanRef<'_>> {
        self.0.iter().map(|[resource, scope, span]| SpanRef { resource, scope, span }).collect()
    }
}

/// A block of decoded traces.
pub(crate) fn of_otlp(options: BlockOptions, traces: &[(TraceId, Vec<ResourceSpans>)]) -> Made {
    let messages: Vec<(TraceId, Messages)> = traces.iter().map(|(id, trace)| (*id, Messages::of(trace))).collect();
    of_traces(options, messages.iter().map(|(id, messages)| (*id, messages.refs())))
}
