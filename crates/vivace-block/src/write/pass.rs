//! Row groups of other blocks, taken over byte by byte.

use std::io::Write;
use std::sync::Arc;

use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use vivace_core::TraceId;

use super::{BlockWriter, WriteError};
use crate::ParquetSource;
use crate::read::{BlockReader, ReadAt};
use crate::schema::Leaf;

/// A block whose row groups are taken over.
pub(super) struct Passed {
    source: Arc<dyn ReadAt>,
    metadata: ParquetMetaData,
}

impl<W: Write + Send> BlockWriter<W> {
    /// Whether a row group may end here without being a small one.
    pub(crate) fn may_end_row_group(&self) -> bool {
        self.row_group.is_empty() || !self.row_group.is_small(&self.options)
    }

    /// Adds a row group of a block as it is, and returns how many spans it has. `ids` are its traces.
    pub(crate) fn copy_row_group(&mut self, block: &BlockReader, index: usize, ids: &[TraceId]) -> Result<u64, WriteError> {
        if !self.row_group.is_empty() {
            self.end_row_group()?;
        }
        let (Some(first), Some(last)) = (ids.first().copied(), ids.last().copied()) else { return Ok(0) };
        if let Some(previous) = self.last_id.filter(|previous| *previous >= first) {
            return Err(WriteError::Order { previous, given: first });
        }
        let source = ParquetSource(Arc::clone(&block.file.source));
        let spans = self.append(&source, index).map_err(|source| WriteError::Io { block: self.block_id, source })?;
        ids.iter().for_each(|id| self.bloom.insert(*id));
        self.last_id = Some(last);
        self.index.last_ids.push(last);
        self.traces += ids.len() as u64;
        self.spans += spans;
        self.start_unix_nanos = self.start_unix_nanos.min(block.meta().start_unix_nanos);
        self.end_unix_nanos = self.end_unix_nanos.max(block.meta().end_unix_nanos);
        Ok(spans)
    }

    fn append(&mut self, source: &ParquetSource, index: usize) -> Result<u64, ParquetError> {
        if self.passed.as_ref().is_none_or(|passed| !Arc::ptr_eq(&passed.source, &source.0)) {
            let metadata = ParquetMetaDataReader::new()
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Optional)
                .parse_and_finish(source)?;
            self.passed = Some(Passed { source: Arc::clone(&source.0), metadata });
        }
        let Some(Passed { metadata, .. }) = &self.passed else { return Ok(0) };
        let missing = || ParquetError::General(format!("row group {index} is gone"));
        let group = metadata.row_groups().get(index).ok_or_else(missing)?;
        let pages = metadata.page_index_for_row_group(index);
        let mut row_group = self.file.next_row_group()?;
        for (leaf, column) in group.columns().iter().enumerate() {
            let close = ColumnCloseResult {
                bytes_written: column.compressed_size() as u64,
                rows_written: group.num_rows() as u64,
                metadata: column.clone(),
                bloom_filter: None,
                column_index: None,
                offset_index: pages.offset_index(leaf).cloned(),
            };
            row_group.append_column(source, close)?;
        }
        row_group.close()?;
        let ids = group.column(Leaf::SPAN_ID.index());
        let nulls = ids.statistics().and_then(|statistics| statistics.null_count_opt()).unwrap_or_default();
        Ok((ids.num_values() as u64).saturating_sub(nulls))
    }
}
