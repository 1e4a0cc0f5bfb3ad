//! Encoded pages of one column of one row group.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};

use super::columns::Column;
use super::values::Values;
use crate::schema::{Leaf, vparquet4};

/// Compresses pages one after the other.
pub(super) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    level: i32,
}

impl Compressor {
    pub(super) fn new(level: i32) -> std::io::Result<Self> {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        // Pages carry no checksum of their own, so a damaged one is noticed here.
        zstd.include_checksum(true)?;
        Ok(Self { zstd, level })
    }

    fn compress(&mut self, page: &[u8]) -> Result<Bytes, ParquetError> {
        self.zstd.compress(page).map(Bytes::from).map_err(|e| ParquetError::External(Box::new(e)))
    }
}

/// Columns whose dictionary Tempo reads to list the names of tags.
fn is_key(leaf: Leaf) -> bool {
    [Leaf::RESOURCE_ATTRS, Leaf::SCOPE_ATTRS, Leaf::SPAN_ATTRS, Leaf::EVENT_ATTRS, Leaf::LINK_ATTRS].iter().any(|attrs| attrs.key == leaf)
}

/// The chunk's bytes, with offsets counted from their start.
pub(super) fn encode(leaf: Leaf, column: &Column, compressor: &mut Compressor) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let values = &column.values;
    let dictionary = values.dictionary(is_key(leaf));
    let with_dictionary = dictionary.is_some();
    let encoding = values.encoding(with_dictionary);

    let mut sink = TrackedWrite::new(Vec::new());
    let mut writer = SerializedPageWriter::new(&mut sink);
    let mut uncompressed_bytes = 0;
    let mut data_offset = 0;
    if let Some((entries, plain)) = dictionary {
        let page =
            Page::DictionaryPage { buf: compressor.compress(&plain)?, num_values: entries, encoding: Encoding::PLAIN, is_sorted: false };
        let spec = writer.write_page(CompressedPage::new(page, plain.len()))?;
        uncompressed_bytes += spec.uncompressed_size;
        data_offset = spec.bytes_written as i64;
    }
    let mut offsets = OffsetIndexBuilder::new();
    let (mut rows, mut entries) = (0u64, 0u64);
    let mut values_start = 0;
    let mut body = Vec::new();
    for page in &column.pages {
        body.clear();
        body.extend_from_slice(&page.levels);
        values.encode(values_start..page.values_end, with_dictionary, &mut body);
        values_start = page.values_end;
        let data = Page::DataPage {
            buf: compressor.compress(&body)?,
            num_values: page.entries,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let spec = writer.write_page(CompressedPage::new(data, body.len()))?;
        uncompressed_bytes += spec.uncompressed_size;
        offsets.append_row_count(i64::from(page.rows));
        offsets.append_offset_and_size(spec.offset as i64, spec.bytes_written as i32);
        rows += u64::from(page.rows);
        entries += u64::from(page.entries);
    }
    let bytes = Bytes::from(sink.into_inner()?);

    let mut encodings = vec![Encoding::RLE, encoding];
    if with_dictionary {
        encodings.push(Encoding::PLAIN);
    }
    let mut metadata = ColumnChunkMetaData::builder(Arc::clone(&vparquet4().columns()[leaf.index()]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(compressor.level)?))
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
/// reader skip a row group: trace ids, times and durations. Texts are stored untruncated by readers that look at them, so
/// they get none.
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
        Values::I32(_) => Statistics::int32(None, None, None, nulls, false),
        Values::F64(_) => Statistics::double(None, None, None, nulls, false),
        Values::Bool(_) => Statistics::boolean(None, None, None, nulls, false),
    }
}
