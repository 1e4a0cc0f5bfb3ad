//! A segment: what a distributor sends and a record of the log holds. The layout of its header on disk is decided here, and a
//! payload's claim about its size is checked here before memory is taken for it.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use vivace_core::wire::WireError;
use vivace_core::{TenantId, TraceId};
use vivace_proto::vivace::v1::refused_trace::Reason;

use crate::log::{LogPosition, ReadError};
use crate::summary::Arrival;

/// No segment is larger once decompressed, bytes. Receivers stop far below it.
pub(crate) const SEGMENT_BYTES_MAX: u32 = 512 << 20;

/// lz4 blocks cannot expand further than this, so a larger claim is a lie and is refused before memory is taken for it.
const LZ4_EXPANSION_MAX: u64 = 255;

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

    /// Which times of its spans count for the range of their block.
    pub(crate) fn arrival(&self, slack_nanos: u64) -> Arrival {
        Arrival { unix_nanos: self.received_unix_seconds.saturating_mul(1_000_000_000), slack_nanos }
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

/// Why a segment's spans cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    /// More than any receiver lets through, or more than the compressed bytes can hold.
    #[error("a payload of {compressed} bytes claims {claimed} bytes uncompressed, at most {max} are possible")]
    Size {
        /// Bytes of the payload.
        compressed: usize,
        /// Bytes it claims to have.
        claimed: u32,
        /// What it can have.
        max: u64,
    },
    /// The payload does not decompress to what it claims.
    #[error("payload is no lz4 block of {claimed} bytes: {reason}")]
    Compression {
        /// Bytes it claims to have.
        claimed: u32,
        /// The decoder's words.
        reason: String,
    },
    /// The payload is no `TracesData`.
    #[error("payload is no TracesData message")]
    Spans(#[from] WireError),
    /// The log could not be read back.
    #[error("segment could not be read back from the log")]
    Log(#[from] ReadError),
}

/// A logged segment. Its payload is in the log alone, which the operating system keeps in memory as far as there is room.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// Where its record is.
    pub(crate) at: LogPosition,
}

impl Segment {
    /// The decompressed payload: a serialised `TracesData`.
    ///
    /// # Errors
    /// The log cannot be read, or the payload is not what it claims.
    pub(crate) fn traces_data(&self) -> Result<Bytes, SegmentError> {
        self.traces_data_in(Vec::new())
    }

    /// The same in the memory of `used`, whose content does not matter.
    ///
    /// # Errors
    /// As for [`Segment::traces_data`].
    pub(crate) fn traces_data_in(&self, used: Vec<u8>) -> Result<Bytes, SegmentError> {
        let mut payload = self.at.read()?;
        SegmentHeader::decode(&mut payload)
            .ok_or_else(|| ReadError::Corrupt { path: self.at.file.path.clone(), offset: self.at.offset })?;
        decompress_in(used, self.header.compression, self.header.uncompressed_bytes, &payload)
    }
}

/// Decompresses a payload after checking its claim.
///
/// # Errors
/// [`SegmentError::Size`] or [`SegmentError::Compression`].
pub(crate) fn decompress(compression: Compression, claimed: u32, payload: &Bytes) -> Result<Bytes, SegmentError> {
    decompress_in(Vec::new(), compression, claimed, payload)
}

fn decompress_in(mut used: Vec<u8>, compression: Compression, claimed: u32, payload: &Bytes) -> Result<Bytes, SegmentError> {
    let possible = match compression {
        Compression::None => payload.len() as u64,
        Compression::Lz4 => payload.len() as u64 * LZ4_EXPANSION_MAX,
    };
    let max = possible.min(u64::from(SEGMENT_BYTES_MAX));
    if u64::from(claimed) > max {
        return Err(SegmentError::Size { compressed: payload.len(), claimed, max });
    }
    match compression {
        Compression::None if payload.len() as u64 == u64::from(claimed) => Ok(payload.clone()),
        Compression::None => {
            Err(SegmentError::Compression { claimed, reason: format!("it is uncompressed and has {} bytes", payload.len()) })
        }
        Compression::Lz4 if payload.is_empty() => Ok(Bytes::new()),
        Compression::Lz4 => {
            used.resize(claimed as usize, 0);
            match lz4_flex::block::decompress_into(payload, &mut used) {
                Ok(len) if len == claimed as usize => Ok(used.into()),
                Ok(len) => Err(SegmentError::Compression { claimed, reason: format!("it has {len} bytes") }),
                Err(error) => Err(SegmentError::Compression { claimed, reason: error.to_string() }),
            }
        }
    }
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

        #[test]
        fn foreign_payloads_never_panic(payload: Vec<u8>, claimed: u32, lz4: bool) {
            let compression = if lz4 { Compression::Lz4 } else { Compression::None };
            if let Ok(bytes) = decompress(compression, claimed, &payload.into()) {
                prop_assert!(bytes.len() == claimed as usize || bytes.is_empty());
            }
        }
    }

    #[test]
    fn a_payload_that_claims_too_much_is_refused_before_it_is_read() {
        let error = decompress(Compression::Lz4, 400 << 20, &Bytes::from_static(&[0; 100])).expect_err("too large");
        assert_eq!(error.to_string(), "a payload of 100 bytes claims 419430400 bytes uncompressed, at most 25500 are possible");
    }
}
