//! What stands in front of a segment's payload in the log: which segment it is, whose, and what was refused in it. The layout on
//! disk is decided here.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use vivace_core::{TenantId, TraceId};
use vivace_proto::vivace::v1::refused_trace::Reason;

/// No segment is larger once decompressed, bytes. Receivers stop far below it.
pub(crate) const SEGMENT_BYTES_MAX: u32 = 512 << 20;

/// A refused trace in a header.
const REFUSED_BYTES: usize = 21;

/// Names a segment for ever: a distributor's incarnation and its count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentId {
    /// Random, of one distributor process.
    pub(crate) incarnation: [u8; 16],
    /// From 1.
    pub(crate) sequence: u64,
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.incarnation[..4] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "/{}", self.sequence)
    }
}

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// lz4 block without a size prefix.
    Lz4,
}

/// A trace whose spans in this segment were refused: they are in the payload and must never be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) trace: TraceId,
    pub(crate) reason: Reason,
    pub(crate) spans: u32,
}

/// Everything of a segment but its payload; stands in front of the payload in the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: SegmentId,
    pub(crate) tenant: TenantId,
    /// Instance id of the ingester that builds the block.
    pub(crate) primary: Arc<str>,
    pub(crate) compression: Compression,
    /// Length of the payload once decompressed.
    pub(crate) uncompressed_bytes: u32,
    pub(crate) spans: u32,
    pub(crate) received_unix_seconds: u64,
    /// Decided before the segment was logged, so that a replay comes to the same result.
    pub(crate) refused: Vec<Refused>,
}

impl SegmentHeader {
    /// True when this trace's spans in this segment must not be seen.
    pub(crate) fn refuses(&self, trace: &TraceId) -> bool {
        !self.refused.is_empty() && self.refused.iter().any(|r| r.trace == *trace)
    }

    /// Appends the header's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_slice(&self.id.incarnation);
        out.put_u64_le(self.id.sequence);
        out.put_u8(match self.compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
        });
        out.put_u32_le(self.uncompressed_bytes);
        out.put_u32_le(self.spans);
        out.put_u64_le(self.received_unix_seconds);
        put_text(out, self.tenant.as_str());
        put_text(out, &self.primary);
        out.put_u32_le(u32::try_from(self.refused.len()).expect("a segment has fewer traces than bytes"));
        for refused in &self.refused {
            out.put_slice(&refused.trace.0);
            out.put_u8(refused.reason as u8);
            out.put_u32_le(refused.spans);
        }
    }

    /// How many bytes [`SegmentHeader::is_plausible`] looks at.
    pub(crate) const PLAUSIBLE_BYTES: usize = 43;

    /// False for most bytes that are no header, by two of its numbers.
    pub(crate) fn is_plausible(body: &[u8]) -> bool {
        let tenant_len = body.get(41..Self::PLAUSIBLE_BYTES).map(|mut len| len.get_u16_le());
        body.get(24).is_some_and(|compression| *compression <= 1) && tenant_len.is_some_and(|len| (1..=150).contains(&len))
    }

    /// Takes a header from the front of a record's body; what is left is the payload. None when the bytes are no header.
    pub(crate) fn decode(body: &mut Bytes) -> Option<Self> {
        let id = SegmentId { incarnation: take(body)?, sequence: body.try_get_u64_le().ok()? };
        let compression = match body.try_get_u8().ok()? {
            0 => Compression::None,
            1 => Compression::Lz4,
            _ => return None,
        };
        let uncompressed_bytes = body.try_get_u32_le().ok()?;
        let spans = body.try_get_u32_le().ok()?;
        let received_unix_seconds = body.try_get_u64_le().ok()?;
        let tenant = TenantId::new(&take_text(body)?).ok()?;
        let primary = take_text(body)?.into();
        let count = body.try_get_u32_le().ok()? as usize;
        let mut refused = Vec::with_capacity(count.min(body.remaining() / REFUSED_BYTES));
        for _ in 0..count {
            let trace = TraceId(take(body)?);
            let reason = Reason::try_from(i32::from(body.try_get_u8().ok()?)).ok()?;
            refused.push(Refused { trace, reason, spans: body.try_get_u32_le().ok()? });
        }
        Some(Self { id, tenant, primary, compression, uncompressed_bytes, spans, received_unix_seconds, refused })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u16_le(u16::try_from(text.len()).expect("tenants and instance ids are checked to be short"));
    out.put_slice(text.as_bytes());
}

fn take_text(body: &mut Bytes) -> Option<String> {
    let len = usize::from(body.try_get_u16_le().ok()?);
    if body.remaining() < len {
        return None;
    }
    String::from_utf8(body.split_to(len).to_vec()).ok()
}

fn take<const N: usize>(body: &mut Bytes) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    body.try_copy_to_slice(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(
            incarnation: [u8; 16], sequence: u64, uncompressed_bytes: u32, spans: u32, received_unix_seconds: u64,
            lz4: bool, tenant in "[a-z]{1,20}", primary in "[a-z0-9-]{1,30}",
            refused in proptest::collection::vec((any::<[u8; 16]>(), 1i32..3, any::<u32>()), 0..4), payload: Vec<u8>,
        ) {
            let header = SegmentHeader {
                id: SegmentId { incarnation, sequence },
                tenant: TenantId::new(&tenant).expect("valid"),
                primary: primary.into(),
                compression: if lz4 { Compression::Lz4 } else { Compression::None },
                uncompressed_bytes, spans, received_unix_seconds,
                refused: refused
                    .into_iter()
                    .map(|(trace, reason, spans)| Refused { trace: TraceId(trace), reason: Reason::try_from(reason).expect("known"), spans })
                    .collect(),
            };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            let header_len = bytes.len();
            bytes.extend_from_slice(&payload);
            let bytes = Bytes::from(bytes);
            let mut body = bytes.clone();
            prop_assert_eq!(SegmentHeader::decode(&mut body), Some(header));
            prop_assert_eq!(&body[..], &payload[..]);
            prop_assert!(SegmentHeader::is_plausible(&bytes));
            for len in 0..header_len {
                prop_assert_eq!(SegmentHeader::decode(&mut bytes.slice(..len)), None);
            }
        }
    }
}
