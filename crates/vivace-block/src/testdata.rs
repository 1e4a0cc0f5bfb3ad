//! Data for tests of several modules.

use std::collections::BTreeMap;

use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;

use crate::SpanRef;

/// The requests of the data set `edge-a`, each behind its length.
pub(crate) const EDGE_A: &[u8] = include_bytes!("../testdata/edge-a/requests.otlp.pb");

/// The trace of `edge-a` whose spans came in two parts, one of them twice.
pub(crate) const TWO_PARTS: &str = "9de6ea8cbd2e589a72b2e6434ce19654";

/// The trace of `edge-a` that has a resource with two names and a span with two methods.
pub(crate) const EQUAL_KEYS: &str = "3f7a7f7ab94619c2e3e80354aa519575";

/// The spans of every trace in the order they were sent.
pub(crate) fn traces(mut requests: &[u8]) -> BTreeMap<TraceId, Vec<SpanRef<'_>>> {
    let mut traces: BTreeMap<TraceId, Vec<SpanRef<'_>>> = BTreeMap::new();
    while !requests.is_empty() {
        let len = prost::decode_length_delimiter(&mut requests).expect("a length");
        let (request, rest) = requests.split_at(len);
        requests = rest;
        walk_spans(request, |at, head| {
            traces.entry(head.trace()).or_default().push(SpanRef { resource: at.resource, scope: at.scope, span: head.bytes });
        })
        .expect("a request");
    }
    traces
}
