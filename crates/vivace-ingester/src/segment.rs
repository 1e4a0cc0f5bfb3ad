//! A segment as it lies in the log, and its spans. A payload's claim about its size is checked here before memory is taken for it.

use bytes::Bytes;
use vivace_core::wire::WireError;

use crate::header::{Compression, SEGMENT_BYTES_MAX, SegmentHeader};
use crate::log::{LogPosition, ReadError};
use crate::summary::{Arrival, TraceSummary, summarize_arrived};

/// lz4 blocks cannot expand further than this, so a larger claim is a lie and is refused before memory is taken for it.
const LZ4_EXPANSION_MAX: u64 = 255;

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

    /// The traces in it.
    ///
    /// # Errors
    /// As for [`Segment::traces_data`], and for a payload that is no `TracesData`.
    pub(crate) fn traces(&self, slack_nanos: u64) -> Result<Vec<TraceSummary>, SegmentError> {
        summarize_decompressed(&self.header, &self.traces_data()?, slack_nanos)
    }
}

/// The traces of a payload that this header came with. Proves that every span can be read. `slack_nanos`:
/// `storage.trace.wal.ingestion_time_range_slack`.
///
/// # Errors
/// The payload is not what the header claims, or no `TracesData`.
pub(crate) fn traces_of(header: &SegmentHeader, payload: &Bytes, slack_nanos: u64) -> Result<Vec<TraceSummary>, SegmentError> {
    summarize_decompressed(header, &decompress(header.compression, header.uncompressed_bytes, payload)?, slack_nanos)
}

fn summarize_decompressed(header: &SegmentHeader, data: &[u8], slack_nanos: u64) -> Result<Vec<TraceSummary>, SegmentError> {
    Ok(summarize_arrived(data, Arrival::of(header, slack_nanos))?)
}

/// Decompresses a payload after checking its claim.
///
/// # Errors
/// [`SegmentError::Size`] or [`SegmentError::Compression`].
fn decompress(compression: Compression, claimed: u32, payload: &Bytes) -> Result<Bytes, SegmentError> {
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
