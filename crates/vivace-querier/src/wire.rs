//! What messages hold as bytes, and what it stands for.

use vivace_block::TracePart;
use vivace_core::TraceId;
use vivace_proto::vivace::v1 as proto;

/// Ids one after another, 16 bytes each.
pub(crate) fn packed(ids: &[TraceId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

/// Ids that stand one after another, 16 bytes each.
pub(crate) fn ids_of(bytes: &[u8]) -> impl Iterator<Item = TraceId> {
    bytes.as_chunks().0.iter().map(|id| TraceId(*id))
}

/// The part of a trace that an ingester names.
pub(crate) fn trace_part(part: &proto::TracePart) -> TracePart {
    let proto::TracePart { trace_id, start_unix_nanos, end_unix_nanos } = part;
    TracePart { trace_id: TraceId::from_slice(trace_id), start_unix_nanos: *start_unix_nanos, end_unix_nanos: *end_unix_nanos }
}
