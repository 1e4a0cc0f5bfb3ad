//! Large dictionaries compressed in parts, so that a reader who needs a few entries reads and decompresses only their parts.
//!
//! A dictionary page compressed with zstd may be several frames one after the other; every zstd reader takes them for one.
//! Where Vivace writes several, the first is a skippable frame, which other readers pass over: it says how many bytes
//! each of the others has, compressed and not, and how many dictionary entries it holds. No entry lies in two frames.
//!
//! Source: RFC 8878, sections 3.1 "Frames" and 3.1.2 "Skippable frames".

use vivace_core::wire::put_varint;

/// Bytes of entries that go into a frame.
pub(crate) const FRAME_BYTES: usize = 32 << 10;

/// One of the sixteen numbers that begin a skippable frame.
const MAGIC: [u8; 4] = 0x184D_2A5Du32.to_le_bytes();
/// Tells the table from what others may put into skippable frames.
const NAME: &[u8] = b"vivace dictionary 1";
/// More frames than this are not believed: they are dictionaries of half a gigabyte.
const PARTS_MAX: usize = 1 << 14;

/// A frame of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) entries: u32,
    /// Compressed.
    pub(crate) bytes: u32,
    /// Not compressed.
    pub(crate) plain_bytes: u32,
}

/// The skippable frame that stands before the others.
pub(crate) fn table(parts: &[Part]) -> Vec<u8> {
    let mut body = NAME.to_vec();
    put_varint(&mut body, parts.len() as u64);
    for part in parts {
        put_varint(&mut body, u64::from(part.entries));
        put_varint(&mut body, u64::from(part.bytes));
        put_varint(&mut body, u64::from(part.plain_bytes));
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// The frames of a page whose compressed bytes begin with `bytes`, and where the first of them starts. None: it has no
/// table, or more of it is needed than `bytes`.
pub(crate) fn read_table(bytes: &[u8]) -> Option<(usize, Vec<Part>)> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let mut body = rest.get(..len)?.strip_prefix(NAME).filter(|_| *magic == MAGIC)?;
    let mut number = || {
        let mut value = 0u64;
        for shift in (0..).step_by(7).take(5) {
            let (byte, rest) = body.split_first()?;
            body = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    };
    let count = usize::try_from(number()?).ok().filter(|count| *count <= PARTS_MAX)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        parts.push(Part { entries: number()?, bytes: number()?, plain_bytes: number()? });
    }
    Some((8 + len, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_written_and_nothing_else_is() {
        let parts = [Part { entries: 300, bytes: 9000, plain_bytes: 33_000 }, Part { entries: 1, bytes: 70_000, plain_bytes: 70_000 }];
        let mut bytes = table(&parts);
        let len = bytes.len();
        bytes.extend_from_slice(b"frames");
        assert_eq!(read_table(&bytes), Some((len, parts.to_vec())));
        (0..len).for_each(|end| assert_eq!(read_table(&bytes[..end]), None, "{end}"));
        assert_eq!(read_table(&zstd::bulk::compress(b"text", 1).expect("compresses")), None);
    }

    #[test]
    fn zstd_takes_the_frames_for_one() {
        let frames = [b"first ".as_slice(), b"second"].map(|part| zstd::bulk::compress(part, 1).expect("compresses"));
        let parts = frames.each_ref().map(|frame| Part { entries: 1, bytes: frame.len() as u32, plain_bytes: 6 });
        let page = [table(&parts), frames.concat()].concat();
        assert_eq!(zstd::bulk::decompress(&page, 100).expect("decompresses"), b"first second");
    }
}
