//! Content encodings of HTTP bodies.

use std::io::{self, Read};

use bytes::Bytes;

use crate::error::PushError;

/// Start of a framed snappy stream. Source: snappy framing format.
const SNAPPY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// The encodings that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Zlib,
    Zstd,
    Snappy,
    Lz4,
}

impl Encoding {
    /// None: the body is plain.
    ///
    /// # Errors
    /// An encoding that is not understood.
    pub(crate) fn from_header(text: &str) -> Result<Option<Self>, PushError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "zlib" | "deflate" => Ok(Some(Self::Zlib)),
            "zstd" => Ok(Some(Self::Zstd)),
            "snappy" | "x-snappy-framed" => Ok(Some(Self::Snappy)),
            "lz4" => Ok(Some(Self::Lz4)),
            other => Err(PushError::Malformed(format!(
                "unsupported Content-Encoding {other:?}: gzip, zstd, zlib, deflate, snappy, x-snappy-framed and lz4 are understood"
            ))),
        }
    }

    /// Decompresses a body, up to `limit` bytes.
    ///
    /// # Errors
    /// The body is cut or damaged, or larger than the limit.
    pub(crate) fn decode(self, body: &[u8], limit: u64) -> Result<Bytes, PushError> {
        match self {
            Self::Gzip => self.read(flate2::read::MultiGzDecoder::new(body), limit),
            // What is called deflate is zlib's format, and some clients send it without zlib's header.
            Self::Zlib if has_zlib_header(body) => self.read(flate2::read::ZlibDecoder::new(body), limit),
            Self::Zlib => self.read(flate2::read::DeflateDecoder::new(body), limit),
            Self::Zstd => self.read(zstd::stream::read::Decoder::new(body).map_err(|error| self.damaged(&error))?, limit),
            Self::Snappy if body.starts_with(SNAPPY_STREAM) => self.read(snap::read::FrameDecoder::new(body), limit),
            Self::Snappy => {
                let len = snap::raw::decompress_len(body).map_err(|error| self.damaged(&error))?;
                if len as u64 > limit {
                    return Err(PushError::TooLarge { limit });
                }
                snap::raw::Decoder::new().decompress_vec(body).map(Bytes::from).map_err(|error| self.damaged(&error))
            }
            Self::Lz4 if !has_lz4_end(body) => Err(self.damaged(&io::Error::from(io::ErrorKind::UnexpectedEof))),
            Self::Lz4 => self.read(lz4_flex::frame::FrameDecoder::new(body), limit),
        }
    }

    fn read(self, decoder: impl Read, limit: u64) -> Result<Bytes, PushError> {
        let mut out = Vec::new();
        match decoder.take(limit + 1).read_to_end(&mut out) {
            Ok(read) if read as u64 > limit => Err(PushError::TooLarge { limit }),
            Ok(_) => Ok(out.into()),
            Err(error) => Err(self.damaged(&error)),
        }
    }

    fn damaged(self, error: &(dyn std::error::Error + 'static)) -> PushError {
        let cut = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
        let what = if cut { "the body ends too early".to_owned() } else { error.to_string() };
        PushError::Malformed(format!("the body is no valid {self:?} data: {what}"))
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

    const TEXT: &[u8] = b"spans spans spans spans spans spans spans spans";

    fn encoded() -> Vec<(&'static str, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        for writer in [&mut gzip as &mut dyn Write, &mut zlib, &mut raw, &mut framed, &mut lz4] {
            writer.write_all(TEXT).expect("writes to memory");
        }
        vec![
            ("gzip", gzip.finish().expect("ends")),
            ("zlib", zlib.finish().expect("ends")),
            ("deflate", raw.finish().expect("ends")),
            ("x-snappy-framed", framed.into_inner().expect("ends")),
            ("snappy", snap::raw::Encoder::new().compress_vec(TEXT).expect("compresses")),
            ("lz4", lz4.finish().expect("ends")),
            ("zstd", zstd::stream::encode_all(TEXT, 1).expect("compresses")),
        ]
    }

    #[test]
    fn every_encoding_is_read_within_the_limit() {
        for (name, bytes) in encoded() {
            let encoding = Encoding::from_header(name).expect(name).expect(name);
            assert_eq!(encoding.decode(&bytes, TEXT.len() as u64).expect(name), TEXT, "{name}");
            let over = encoding.decode(&bytes, TEXT.len() as u64 - 1);
            assert!(matches!(over, Err(PushError::TooLarge { .. })), "{name}: {over:?}");
        }
    }

    #[test]
    fn cut_bodies_are_errors() {
        for (name, bytes) in encoded() {
            let encoding = Encoding::from_header(name).expect(name).expect(name);
            let cut = encoding.decode(&bytes[..bytes.len() - 3], 1000);
            assert!(matches!(cut, Err(PushError::Malformed(_))), "{name}: {cut:?}");
        }
        assert!(Encoding::from_header("br").is_err_and(|e| e.to_string().contains("\"br\"")));
    }
}
