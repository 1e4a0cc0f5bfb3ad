//! The protocols that spans arrive in. They read and answer; what happens to the spans is [`crate::push`]'s business.

mod body;
mod forms;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod jaeger;
pub(crate) mod json;
mod json_list;
pub(crate) mod kafka;
pub(crate) mod output;
pub(crate) mod post;
mod schema;
pub(crate) mod spans;
pub(crate) mod tags;
pub(crate) mod thrift;
pub(crate) mod zipkin;

use bytes::Bytes;
use vivace_core::wire::{put_bytes, put_varint};

use crate::push::Accepted;

/// Header and metadata key: no metrics shall be made of the request's spans, whatever its value.
const NO_METRICS: &str = "no-generate-metrics";

/// `ExportTraceServiceResponse`: a partial success, empty when all went well.
fn response(accepted: &Accepted) -> Bytes {
    let mut partial = Vec::new();
    if accepted.rejected_spans > 0 {
        put_varint(&mut partial, 1 << 3);
        put_varint(&mut partial, accepted.rejected_spans.unsigned_abs());
        put_bytes(&mut partial, 2, accepted.message.as_bytes());
    }
    let mut out = Vec::with_capacity(partial.len() + 4);
    put_bytes(&mut out, 1, &partial);
    out.into()
}
