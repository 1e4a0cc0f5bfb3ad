//! Content encodings of what is sent here, taken apart into memory that is paid for before it is taken.

use std::io::{self, Read};

use vivace_core::budget::OverBudget;

use crate::request_budget::RequestCharge;

/// Start of a framed snappy stream. Source: snappy framing format.
const SNAPPY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// The first piece of memory for what is decompressed, bytes.
const FIRST_BYTES: u64 = 64 << 10;

/// The encodings that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 1950, or RFC 1951 without a header.
    Zlib,
    /// RFC 8878.
    Zstd,
    /// Framed, or one raw block.
    Snappy,
    /// A frame.
    Lz4,
}

/// Why a body was not decompressed.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// A name that is not known.
    #[error("unsupported Content-Encoding {0:?}: gzip, zstd, zlib, deflate, snappy, x-snappy-framed and lz4 are understood")]
    Unknown(String),
    /// Cut, or something else than it claims to be.
    #[error("the body is no valid {encoding:?} data: {why}")]
    Damaged {
        /// What it claims to be.
        encoding: Encoding,
        /// What is wrong with it.
        why: String,
    },
    /// It becomes larger than may be.
    #[error("the body is larger than {limit} bytes once it is decompressed")]
    TooLarge {
        /// The most, bytes.
        limit: u64,
    },
    /// There is no memory for it.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

impl Encoding {
    /// None: the body is plain.
    ///
    /// # Errors
    /// An encoding that is not understood.
    pub fn from_header(text: &str) -> Result<Option<Self>, EncodingError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "zlib" | "deflate" => Ok(Some(Self::Zlib)),
            "zstd" => Ok(Some(Self::Zstd)),
            "snappy" | "x-snappy-framed" => Ok(Some(Self::Snappy)),
            "lz4" => Ok(Some(Self::Lz4)),
            _ => Err(EncodingError::Unknown(text.to_owned())),
        }
    }

    /// Decompresses a body, up to `limit` bytes. What it becomes is charged as it appears, and stays charged.
    ///
    /// # Errors
    /// The body is cut or damaged, larger than the limit, or there is no memory for it.
    pub fn decode(self, body: &[u8], limit: u64, charge: &mut RequestCharge) -> Result<Vec<u8>, EncodingError> {
        match self {
            Self::Gzip => self.read(flate2::read::MultiGzDecoder::new(body), limit, charge),
            // What is called deflate is zlib's format, and some clients send it without zlib's header.
            Self::Zlib if has_zlib_header(body) => self.read(flate2::read::ZlibDecoder::new(body), limit, charge),
            Self::Zlib => self.read(flate2::read::DeflateDecoder::new(body), limit, charge),
            Self::Zstd => self.read(zstd::stream::read::Decoder::new(body).map_err(|error| self.damaged(&error))?, limit, charge),
            Self::Snappy if body.starts_with(SNAPPY_STREAM) => self.read(snap::read::FrameDecoder::new(body), limit, charge),
            Self::Snappy => {
                let len = snap::raw::decompress_len(body).map_err(|error| self.damaged(&error))? as u64;
                if len > limit {
                    return Err(EncodingError::TooLarge { limit });
                }
                charge.grow(len)?;
                snap::raw::Decoder::new().decompress_vec(body).map_err(|error| self.damaged(&error))
            }
            Self::Lz4 if !has_lz4_end(body) => Err(self.damaged(&io::Error::from(io::ErrorKind::UnexpectedEof))),
            Self::Lz4 => self.read(lz4_flex::frame::FrameDecoder::new(body), limit, charge),
        }
    }

    fn read(self, mut decoder: impl Read, limit: u64, charge: &mut RequestCharge) -> Result<Vec<u8>, EncodingError> {
        let mut out = Vec::new();
        // The decoder's own: what it has given out so far and may refer to.
        let mut window = charge.another();
        loop {
            let before = out.capacity() as u64;
            let wanted = (before * 2).max(FIRST_BYTES).min(limit.saturating_add(1));
            // While it grows, there are both.
            charge.grow(wanted)?;
            out.reserve_exact(usize::try_from(wanted).unwrap_or(usize::MAX) - out.len());
            charge.give_back(before);
            if self.keeps_what_it_gives() {
                window.grow(wanted - before)?;
            }
            let room = wanted - out.len() as u64;
            let read = decoder.by_ref().take(room).read_to_end(&mut out).map_err(|error| self.damaged(&error))?;
            if out.len() as u64 > limit {
                return Err(EncodingError::TooLarge { limit });
            }
            if (read as u64) < room {
                return Ok(out);
            }
        }
    }

    /// Whether the decoder holds a window as large as what it has given out. Those of the others are 64 KiB and less.
    fn keeps_what_it_gives(self) -> bool {
        match self {
            Self::Zstd | Self::Lz4 => true,
            Self::Gzip | Self::Zlib | Self::Snappy => false,
        }
    }

    fn damaged(self, error: &(dyn std::error::Error + 'static)) -> EncodingError {
        let cut = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
        let why = if cut { "the body ends too early".to_owned() } else { error.to_string() };
        EncodingError::Damaged { encoding: self, why }
    }
}

/// Method deflate, and a header that is a multiple of 31. Source: RFC 1950, 2.2.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [cmf, flags, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flags)) % 31 == 0)
}

/// The end mark, four zeros, before the checksum of the content if the frame has one. The library reads on without it, so a body
/// that was cut between two blocks would pass for a whole one.
///
/// Source: LZ4 frame format, "Frame Descriptor" and "EndMark".
fn has_lz4_end(body: &[u8]) -> bool {
    let checksum_bytes = if body.get(4).is_some_and(|flags| flags & 0x04 != 0) { 4 } else { 0 };
    body.len().checked_sub(checksum_bytes).is_some_and(|end| body[..end].ends_with(&[0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vivace_core::budget::Budget;

    use crate::RequestBudget;

    const TEXT: &[u8] = b"spans spans spans spans spans spans spans spans";

    fn encoded(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        for writer in [&mut gzip as &mut dyn Write, &mut zlib, &mut raw, &mut framed, &mut lz4] {
            writer.write_all(text).expect("writes to memory");
        }
        vec![
            ("gzip", gzip.finish().expect("ends")),
            ("zlib", zlib.finish().expect("ends")),
            ("deflate", raw.finish().expect("ends")),
            ("x-snappy-framed", framed.into_inner().expect("ends")),
            ("snappy", snap::raw::Encoder::new().compress_vec(text).expect("compresses")),
            ("lz4", lz4.finish().expect("ends")),
            ("zstd", zstd::stream::encode_all(text, 1).expect("compresses")),
        ]
    }

    fn decode(encoding: Encoding, bytes: &[u8], limit: u64) -> Result<Vec<u8>, EncodingError> {
        encoding.decode(bytes, limit, &mut RequestBudget::whole(&Budget::unlimited()).open())
    }

    #[test]
    fn every_encoding_is_read_within_the_limit() {
        for (name, bytes) in encoded(TEXT) {
            let encoding = Encoding::from_header(name).expect(name).expect(name);
            assert_eq!(decode(encoding, &bytes, TEXT.len() as u64).expect(name), TEXT, "{name}");
            let over = decode(encoding, &bytes, TEXT.len() as u64 - 1);
            assert!(matches!(over, Err(EncodingError::TooLarge { .. })), "{name}: {over:?}");
        }
    }

    #[test]
    fn cut_bodies_are_errors() {
        for (name, bytes) in encoded(TEXT) {
            let encoding = Encoding::from_header(name).expect(name).expect(name);
            let cut = decode(encoding, &bytes[..bytes.len() - 3], 1000);
            assert!(matches!(cut, Err(EncodingError::Damaged { .. })), "{name}: {cut:?}");
        }
        assert!(Encoding::from_header("br").is_err_and(|e| e.to_string().contains("\"br\"")));
    }

    #[test]
    fn what_a_body_becomes_is_paid_before_it_is_there() {
        let large = vec![7; 4 << 20];
        for (name, bytes) in encoded(&large) {
            let encoding = Encoding::from_header(name).expect(name).expect(name);
            let budget = Budget::new(4 << 20); // a quarter is for requests
            let mut charge = RequestBudget::whole(&budget).open();
            let refused = encoding.decode(&bytes, 100 << 20, &mut charge);
            assert!(matches!(refused, Err(EncodingError::OverBudget(_))), "{name}: {:?}", refused.map(|r| r.len()));
            drop(charge);
            assert_eq!(budget.used(), 0, "{name}");

            let budget = Budget::new(100 << 20);
            let mut charge = RequestBudget::whole(&budget).open();
            assert_eq!(encoding.decode(&bytes, 100 << 20, &mut charge).expect(name), large, "{name}");
            assert!((4 << 20..=9 << 20).contains(&budget.used()), "{name}: {}", budget.used());
        }
    }
}
