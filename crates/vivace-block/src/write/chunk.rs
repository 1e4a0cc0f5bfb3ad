//! Encoded pages of one column of one row group.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use rustc_hash::FxHashMap;

use super::columns::{Column, List, Stretch};
use super::values::{Dictionary, Values, constant};
use crate::frames;
use crate::schema::{Leaf, vparquet4};

/// A page is to have at least so many bytes when it is compressed: what a page costs beside its bytes is small then.
const PAGE_BYTES_MIN: usize = 3 << 10;
/// And at most so many: who looks for one trace reads and decodes whole pages.
const PAGE_BYTES_MAX: usize = 8 << 10;
/// Stretches in a page, for columns that compress to next to nothing.
const PAGE_STRETCHES_MAX: usize = 8;
/// The same for attributes of spans and resources, whose stretches have more entries.
const PAGE_STRETCHES_ATTRS: usize = 4;
/// The same for columns whose values are all one, which the statistics tell: few read them.
const PAGE_STRETCHES_CONSTANT: usize = 64;

/// The least level of zstd for dictionaries.
const DICTIONARY_LEVEL: i32 = 3;

/// Encodes chunk after chunk.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    /// For dictionaries, whose texts are worth more work than codes and levels, and for large pages that few read.
    zstd_of_dictionaries: zstd::bulk::Compressor<'static>,
    level: i32,
    /// Stretches in a page of each leaf: what gave pages of a good size before.
    page_stretches: [usize; Leaf::COUNT],
    /// Pages of columns of the row group that have no value at all, by list, highest levels and encoding.
    empty_pages: FxHashMap<(List, u8, u8, Encoding), (Bytes, usize)>,
    body: Vec<u8>,
    compressed: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(level: i32) -> std::io::Result<Self> {
        let compressor = |level| {
            let mut zstd = zstd::bulk::Compressor::new(level)?;
            // Pages carry no checksum of their own, so a damaged one is noticed here.
            zstd.include_checksum(true)?;
            std::io::Result::Ok(zstd)
        };
        let (zstd, zstd_of_dictionaries) = (compressor(level)?, compressor(level.max(DICTIONARY_LEVEL))?);
        Ok(Self {
            zstd,
            zstd_of_dictionaries,
            level,
            page_stretches: [4; Leaf::COUNT],
            empty_pages: FxHashMap::default(),
            body: Vec::new(),
            compressed: Vec::new(),
        })
    }

    /// To be called between row groups.
    pub(super) fn next_row_group(&mut self) {
        self.empty_pages.clear();
    }

    fn compress(&mut self, page: &[u8], well: bool) -> Result<Bytes, ParquetError> {
        let zstd = if well { &mut self.zstd_of_dictionaries } else { &mut self.zstd };
        // Room for the worst case is large for the allocator, and what comes out of it is small.
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(page.len()));
        zstd.compress_to_buffer(page, &mut self.compressed).map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(Bytes::copy_from_slice(&self.compressed))
    }

    fn compress_dictionary(&mut self, dictionary: &Dictionary) -> Result<Bytes, ParquetError> {
        let mut compress =
            |plain: &[u8]| self.zstd_of_dictionaries.compress(plain).map(Bytes::from).map_err(|e| ParquetError::External(Box::new(e)));
        if dictionary.plain.len() < 2 * frames::FRAME_BYTES {
            return compress(&dictionary.plain);
        }
        let mut parts = Vec::new();
        let mut compressed = Vec::new();
        for (bytes, entries) in dictionary.cut(frames::FRAME_BYTES) {
            let plain_bytes = bytes.len() as u32;
            let part = compress(&dictionary.plain[bytes])?;
            parts.push(frames::Part { entries, bytes: part.len() as u32, plain_bytes });
            compressed.push(part);
        }
        let mut out = frames::table(&parts);
        compressed.iter().for_each(|part| out.extend_from_slice(part));
        Ok(out.into())
    }

    /// The page of these stretches, compressed, and its length before.
    fn page(
        &mut self,
        column: &Column,
        stretches: &[Stretch],
        values: Range<usize>,
        dictionary: Option<&Dictionary>,
        encoding: Encoding,
        well: bool,
    ) -> Result<(Bytes, usize), ParquetError> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let mut put = |max: u8, levels: fn(&Stretch) -> &[u8]| {
            if max > 0 {
                let at = body.len();
                body.extend_from_slice(&[0; 4]);
                stretches.iter().for_each(|stretch| body.extend_from_slice(levels(stretch)));
                let len = (body.len() - at - 4) as u32;
                body[at..at + 4].copy_from_slice(&len.to_le_bytes());
            }
        };
        put(column.max_repetition, |stretch| &stretch.repetition);
        put(column.max_definition, |stretch| &stretch.definition);
        column.values.encode(values, dictionary, encoding, &mut body);
        let compressed = self.compress(&body, well);
        let len = body.len();
        self.body = body;
        Ok((compressed?, len))
    }
}

/// Columns whose dictionary Tempo reads to list the names of tags.
fn is_key(leaf: Leaf) -> bool {
    [Leaf::RESOURCE_ATTRS, Leaf::SCOPE_ATTRS, Leaf::SPAN_ATTRS, Leaf::EVENT_ATTRS, Leaf::LINK_ATTRS].iter().any(|attrs| attrs.key == leaf)
}

/// The chunk's bytes, with offsets counted from their start.
pub(super) fn encode(leaf: Leaf, column: &Column, encoder: &mut Encoder) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let values = &column.values;
    let dictionary = values.dictionary(leaf, is_key(leaf));
    let with_dictionary = dictionary.is_some();
    let encoding = values.encoding(leaf, with_dictionary);
    let is_empty = values.len() == 0;
    let is_constant = values.is_constant();
    let stretches_max = match column.list {
        List::SpanAttrs | List::ResourceAttrs => PAGE_STRETCHES_ATTRS,
        _ => PAGE_STRETCHES_MAX,
    };

    let mut sink = TrackedWrite::new(Vec::new());
    let mut writer = SerializedPageWriter::new(&mut sink);
    let mut uncompressed_bytes = 0;
    let mut data_offset = 0;
    if let Some(dictionary) = &dictionary {
        let buf = encoder.compress_dictionary(dictionary)?;
        let page = Page::DictionaryPage { buf, num_values: dictionary.len as u32, encoding: Encoding::PLAIN, is_sorted: false };
        let spec = writer.write_page(CompressedPage::new(page, dictionary.plain.len()))?;
        uncompressed_bytes += spec.uncompressed_size;
        data_offset = spec.bytes_written as i64;
    }
    let mut offsets = OffsetIndexBuilder::new();
    let (mut rows, mut entries) = (0u64, 0u64);
    let mut values_start = 0;
    let mut rest = &column.stretches[..];
    while !rest.is_empty() {
        let count = match () {
            () if is_empty => rest.len(),
            () if is_constant => PAGE_STRETCHES_CONSTANT.min(rest.len()),
            () => encoder.page_stretches[leaf.index()].min(rest.len()),
        };
        let (stretches, after) = rest.split_at(count);
        rest = after;
        let values_end = stretches[count - 1].values_end;
        let range = values_start..values_end;
        values_start = values_end;
        let (buf, len) = if is_empty {
            let key = (column.list, column.max_repetition, column.max_definition, encoding);
            match encoder.empty_pages.get(&key) {
                Some(page) => page.clone(),
                None => {
                    let page = encoder.page(column, stretches, range, None, encoding, true)?;
                    encoder.empty_pages.insert(key, page.clone());
                    page
                }
            }
        } else {
            let page = encoder.page(column, stretches, range, dictionary.as_ref(), encoding, is_constant)?;
            let next = &mut encoder.page_stretches[leaf.index()];
            match page.0.len() {
                _ if is_constant => {}
                ..PAGE_BYTES_MIN => *next = (*next * 2).min(stretches_max),
                PAGE_BYTES_MAX.. => *next = (*next / 2).max(1),
                _ => {}
            }
            page
        };
        let page_entries: u32 = stretches.iter().map(|stretch| stretch.entries).sum();
        let page_rows: u32 = stretches.iter().map(|stretch| stretch.rows).sum();
        let data = Page::DataPage {
            buf,
            num_values: page_entries,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let spec = writer.write_page(CompressedPage::new(data, len))?;
        uncompressed_bytes += spec.uncompressed_size;
        offsets.append_row_count(i64::from(page_rows));
        offsets.append_offset_and_size(spec.offset as i64, spec.bytes_written as i32);
        rows += u64::from(page_rows);
        entries += u64::from(page_entries);
    }
    let bytes = Bytes::from(sink.into_inner()?);

    let mut encodings = vec![Encoding::RLE, encoding];
    if with_dictionary {
        encodings.push(Encoding::PLAIN);
    }
    let mut metadata = ColumnChunkMetaData::builder(Arc::clone(&vparquet4().columns()[leaf.index()]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(encoder.level)?))
        .set_encodings(encodings)
        .set_total_compressed_size(bytes.len() as i64)
        .set_total_uncompressed_size(uncompressed_bytes as i64)
        .set_num_values(entries as i64)
        .set_data_page_offset(data_offset)
        .set_dictionary_page_offset(with_dictionary.then_some(0));
    metadata = metadata.set_statistics(statistics(leaf, values, entries - values.len() as u64));
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: rows,
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(offsets.build()),
    };
    Ok((bytes, close))
}

/// How many entries have no value, so that readers leave empty columns alone. Bounds for the columns where they let a
/// reader skip a row group: trace ids, times and durations; and where both are one value, which need not be read then.
/// Texts are stored untruncated by readers that look at them, so they get none.
fn statistics(leaf: Leaf, values: &Values, nulls: u64) -> Statistics {
    let bounded = [Leaf::START, Leaf::END, Leaf::DURATION, Leaf::SPAN_START, Leaf::SPAN_DURATION];
    let nulls = Some(nulls);
    match values {
        Values::I64(values) => {
            // The columns are unsigned; what has the highest bit set would be ordered differently by readers of signed numbers.
            let bounds = values.iter().min().copied().zip(values.iter().max().copied());
            let bounds = bounds.filter(|(min, _)| bounded.contains(&leaf) && *min >= 0).unzip();
            Statistics::int64(bounds.0, bounds.1, None, nulls, false)
        }
        // Rows are in the order of their ids.
        Values::Ids(ids) if leaf == Leaf::TRACE_ID && values.len() > 0 => {
            let id = |row| Some(ids.get(row).to_vec().into());
            Statistics::byte_array(id(0), id(values.len() - 1), None, nulls, false)
        }
        Values::Ids(_) | Values::Text(_) => Statistics::byte_array(None, None, None, nulls, false),
        Values::I32(values) => {
            let value = constant(values);
            Statistics::int32(value, value, None, nulls, false)
        }
        Values::F64(_) => Statistics::double(None, None, None, nulls, false),
        Values::Bool(values) => {
            let value = constant(values);
            Statistics::boolean(value, value, None, nulls, false)
        }
    }
}
