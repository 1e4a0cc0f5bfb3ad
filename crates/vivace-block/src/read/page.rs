//! The header of a page, its checksum, and decompression.

use std::cell::Cell;

use super::fault::Fault;
use super::footer::Codec;
use super::format::{codec, encoding, field, page_type};
use super::thrift::{Kind, Reader};

/// A page of one giant trace may be large; more than this is no page.
const MAX_PAGE_BYTES: usize = 1 << 29;

/// Entries of one page.
const MAX_PAGE_ENTRIES: usize = 1 << 26;

/// The most that a block of zstd has after decompression.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    Dictionary,
    /// Levels and values are compressed together.
    V1,
    /// Levels stand uncompressed before the values.
    V2 {
        rep_len: usize,
        def_len: usize,
        compressed: bool,
    },
    /// An index page, passed over.
    Other,
}

#[derive(Debug, Clone)]
pub(crate) struct PageHeader {
    pub(crate) kind: PageKind,
    /// Bytes of the header itself.
    pub(crate) len: usize,
    /// Bytes after the header.
    pub(crate) stored: usize,
    /// Bytes after decompression, levels of V2 included.
    pub(crate) size: usize,
    pub(crate) entries: usize,
    pub(crate) encoding: i64,
    crc: Option<u32>,
}

impl PageHeader {
    /// Parses the header that `bytes` starts with.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        let mut page = Self { kind: PageKind::Other, len: 0, stored: 0, size: 0, entries: 0, encoding: 0, crc: None };
        let mut number = None;
        let (mut levels_encoding, mut v2) = (encoding::RLE, PageKind::V2 { rep_len: 0, def_len: 0, compressed: true });
        let mut last = 0;
        while let Some((id, kind)) = reader.field(&mut last)? {
            match id {
                field::page_header::TYPE => number = Some(reader.int(kind)?),
                field::page_header::UNCOMPRESSED_PAGE_SIZE => page.size = reader.size(kind)?,
                field::page_header::COMPRESSED_PAGE_SIZE => page.stored = reader.size(kind)?,
                field::page_header::CRC => page.crc = Some((reader.int(kind)? as i32).cast_unsigned()),
                field::page_header::DATA_PAGE_HEADER if kind == Kind::STRUCT => {
                    levels_encoding = page.data_or_dictionary(&mut reader, true)?;
                }
                field::page_header::DICTIONARY_PAGE_HEADER if kind == Kind::STRUCT => {
                    levels_encoding = page.data_or_dictionary(&mut reader, false)?;
                }
                field::page_header::DATA_PAGE_HEADER_V2 if kind == Kind::STRUCT => v2 = page.data_v2(&mut reader)?,
                _ => reader.skip(kind)?,
            }
        }
        page.len = reader.position();
        page.kind = match number {
            Some(page_type::DATA_PAGE) => PageKind::V1,
            Some(page_type::INDEX_PAGE) => PageKind::Other,
            Some(page_type::DICTIONARY_PAGE) => PageKind::Dictionary,
            Some(page_type::DATA_PAGE_V2) => v2,
            Some(other) => return Err(Fault::Unsupported(format!("a page of type {other}"))),
            None => return Err(Fault::corrupt("a page header has no type")),
        };
        if page.kind == PageKind::V1 && levels_encoding != encoding::RLE {
            return Err(Fault::Unsupported(format!("levels in encoding {levels_encoding}")));
        }
        if page.size > MAX_PAGE_BYTES || page.entries > MAX_PAGE_ENTRIES {
            return Err(Fault::corrupt(format!(
                "a page claims {} bytes and {} entries; {MAX_PAGE_BYTES} and {MAX_PAGE_ENTRIES} are possible",
                page.size, page.entries
            )));
        }
        if let PageKind::V2 { rep_len, def_len, .. } = page.kind
            && rep_len.saturating_add(def_len) > page.stored.min(page.size)
        {
            return Err(Fault::corrupt("the levels of a page are longer than the page"));
        }
        Ok(page)
    }

    /// Counts and encodings of a V1 data page or a dictionary page; returns the worse of the two levels' encodings.
    fn data_or_dictionary(&mut self, reader: &mut Reader<'_>, data: bool) -> Result<i64, Fault> {
        let mut levels = encoding::RLE;
        let mut last = 0;
        while let Some((id, kind)) = reader.field(&mut last)? {
            match id {
                field::data_page_header::NUM_VALUES => self.entries = reader.size(kind)?,
                field::data_page_header::ENCODING => self.encoding = reader.int(kind)?,
                field::data_page_header::DEFINITION_LEVEL_ENCODING | field::data_page_header::REPETITION_LEVEL_ENCODING if data => {
                    let number = reader.int(kind)?;
                    levels = if number == encoding::RLE { levels } else { number };
                }
                _ => reader.skip(kind)?,
            }
        }
        Ok(levels)
    }

    fn data_v2(&mut self, reader: &mut Reader<'_>) -> Result<PageKind, Fault> {
        let (mut rep_len, mut def_len, mut compressed) = (0, 0, true);
        let mut last = 0;
        while let Some((id, kind)) = reader.field(&mut last)? {
            match id {
                field::data_page_header_v2::NUM_VALUES => self.entries = reader.size(kind)?,
                field::data_page_header_v2::ENCODING => self.encoding = reader.int(kind)?,
                field::data_page_header_v2::DEFINITION_LEVELS_BYTE_LENGTH => def_len = reader.size(kind)?,
                field::data_page_header_v2::REPETITION_LEVELS_BYTE_LENGTH => rep_len = reader.size(kind)?,
                field::data_page_header_v2::IS_COMPRESSED if kind == Kind::TRUE => compressed = true,
                field::data_page_header_v2::IS_COMPRESSED if kind == Kind::FALSE => compressed = false,
                _ => reader.skip(kind)?,
            }
        }
        Ok(PageKind::V2 { rep_len, def_len, compressed })
    }

    /// Whether the writer left a checksum to compare with.
    pub(crate) fn has_checksum(&self) -> bool {
        self.crc.is_some_and(|crc| crc != 0)
    }

    /// The stored bytes that follow the header, checked against their checksum where there is one.
    pub(crate) fn body<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
        let end = self.len.checked_add(self.stored);
        let body = end.and_then(|end| bytes.get(self.len..end));
        let body = body.ok_or_else(|| Fault::corrupt(format!("a page of {} bytes ends after {}", self.stored, bytes.len() - self.len)))?;
        match self.crc {
            Some(crc) if crc != 0 && crc32fast::hash(body) != crc => Err(Fault::corrupt("a page's checksum is wrong")),
            _ => Ok(body),
        }
    }
}

/// Decompresses pages; keeps its contexts and buffer from page to page.
#[derive(Default)]
pub(crate) struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    buffer: Vec<u8>,
}

thread_local! {
    /// A context that nobody on this thread uses: it takes longer to make one than to decompress a page.
    static IDLE: Cell<Option<zstd::bulk::Decompressor<'static>>> = const { Cell::new(None) };
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // A thread that ends has no use for it.
        let _ = IDLE.try_with(|idle| self.zstd.take().map(|zstd| idle.set(Some(zstd))));
    }
}

impl Decompressor {
    /// `stored` as it was before compression: exactly `size` bytes.
    pub(crate) fn decompress<'a>(&'a mut self, codec: Codec, stored: &'a [u8], size: usize) -> Result<&'a [u8], Fault> {
        let wrong = |got: usize| Fault::corrupt(format!("a page has {got} bytes after decompression, its header says {size}"));
        if codec == Codec::Uncompressed {
            return if stored.len() == size { Ok(stored) } else { Err(wrong(stored.len())) };
        }
        if size == 0 {
            return Ok(&[]);
        }
        match codec {
            Codec::Snappy => {
                let len = snap::raw::decompress_len(stored).map_err(|e| Fault::corrupt(format!("snappy: {e}")))?;
                if len != size {
                    return Err(wrong(len));
                }
                // A copy of at most 64 bytes takes at least two bytes.
                if len / 32 > stored.len() {
                    return Err(Fault::corrupt(format!("snappy: {} bytes cannot hold {len}", stored.len())));
                }
                self.buffer.resize(size, 0);
                snap::raw::Decoder::new().decompress(stored, &mut self.buffer).map_err(|e| Fault::corrupt(format!("snappy: {e}")))?;
            }
            Codec::Zstd => {
                let io = |e: std::io::Error| Fault::corrupt(format!("zstd: {e}"));
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    empty => empty.insert(match IDLE.take() {
                        Some(idle) => idle,
                        None => zstd::bulk::Decompressor::new().map_err(io)?,
                    }),
                };
                // A block gives at most 128 kB and takes at least four bytes.
                if size / ZSTD_BLOCK_BYTES > stored.len() / 4 {
                    return Err(Fault::corrupt(format!("zstd: {} bytes cannot hold {size}", stored.len())));
                }
                self.buffer.clear();
                self.buffer.reserve(size);
                zstd.decompress_to_buffer(stored, &mut self.buffer).map_err(io)?;
            }
            Codec::Uncompressed => {}
            Codec::Other(number) => {
                let name = match number {
                    codec::GZIP => "GZIP",
                    codec::LZO => "LZO",
                    codec::BROTLI => "BROTLI",
                    codec::LZ4 => "LZ4",
                    codec::LZ4_RAW => "LZ4_RAW",
                    _ => "of unknown number",
                };
                return Err(Fault::Unsupported(format!("the codec {name}")));
            }
        }
        if self.buffer.len() == size { Ok(&self.buffer) } else { Err(wrong(self.buffer.len())) }
    }
}

/// Makes the checksum of a changed page right again, if it has one of the full length.
#[cfg(test)]
pub(crate) fn reseal(page: &mut [u8]) -> bool {
    let varint = |crc: u32, len: usize| -> Option<Vec<u8>> {
        let crc = crc.cast_signed();
        let mut left = u64::from((crc << 1 ^ crc >> 31).cast_unsigned());
        let mut out: Vec<u8> = Vec::new();
        for _ in 0..len {
            out.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        *out.last_mut()? &= 0x7f;
        (left == 0).then_some(out)
    };
    let Ok(header) = PageHeader::parse(page) else { return false };
    let Some(old) = header.crc.and_then(|crc| varint(crc, 5)) else { return false };
    let Some(at) = page[..header.len].windows(5).position(|window| window == old) else { return false };
    let Some(new) = varint(crc32fast::hash(&page[header.len..header.len + header.stored]), 5) else { return false };
    page[at..at + 5].copy_from_slice(&new);
    header.body(page).is_err() && PageHeader::parse(page).is_ok_and(|header| header.body(page).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_compressed_bytes_cannot_have_takes_no_memory() {
        for (codec, name) in [(Codec::Zstd, "zstd"), (Codec::Snappy, "snappy")] {
            let mut zip = Decompressor::default();
            let stored = match codec {
                Codec::Zstd => zstd::bulk::compress(&[7; 100], 1).expect("compresses"),
                // A claim of 512 MiB in front.
                _ => [&[0x80, 0x80, 0x80, 0x80, 0x02][..], &[0; 20]].concat(),
            };
            let error = zip.decompress(codec, &stored, MAX_PAGE_BYTES).expect_err("is too much");
            assert!(format!("{error:?}").contains(&format!("{name}: ")), "{error:?}");
            assert!(zip.buffer.capacity() < 1 << 20, "{name}: {} bytes", zip.buffer.capacity());
        }
        // As much as zstd can do.
        let zeros = vec![0; 8 << 20];
        let stored = zstd::bulk::compress(&zeros, 19).expect("compresses");
        assert!(Decompressor::default().decompress(Codec::Zstd, &stored, zeros.len()).is_ok_and(|bytes| bytes == zeros));
    }
}
