//! Writing a block: traces in ascending order become row groups of columns.

mod chunk;
mod columns;
mod combine;
mod copy;
mod encode;
mod estimate;
mod pass;
mod row_group;
mod stamp;
mod values;

use std::io::{self, Write};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use vivace_core::{BlockId, TenantId, TraceId};

use crate::bloom;
use crate::dedicated::{DedicatedColumn, default_columns, for_vparquet4};
use crate::index::RowGroupIndex;
use crate::meta::{BlockMeta, Format};
use crate::row::{Layout, ResourceCache, Row, SpanRef};
use crate::schema::{Leaf, vparquet4};
use chunk::Encoder;
use copy::Copied;
pub(crate) use copy::{Mismatch, RowSource, is_representative};
use row_group::RowGroup;

/// How the name of what wrote a file begins, for files of [`BlockWriter`].
pub(crate) const CREATED_BY: &str = "vivace version ";

/// How a block is written.
#[derive(Debug, Clone)]
pub struct BlockOptions {
    /// As configured for the tenant; what vParquet4 cannot hold is left out.
    pub dedicated_columns: Vec<DedicatedColumn>,
    /// Share of lookups for absent traces that pass the bloom filter.
    pub bloom_false_positive: f64,
    /// A filter is cut into shards of at most so many bytes.
    pub bloom_shard_size_bytes: u64,
    /// A row group ends when its estimated size, in the unit of Tempo's `parquet_row_group_size_bytes`, exceeds this.
    pub row_group_size_bytes: u64,
    /// A row group ends when so many bytes of OTLP have gone into it; about an eighth of that is written.
    /// Bounds the memory of the writer.
    pub row_group_otlp_bytes: u64,
    /// A row group of so many traces ends even if it is smaller, once it holds an eighth of `row_group_otlp_bytes`.
    pub row_group_traces: u32,
    /// 1 to 22.
    pub zstd_level: i32,
    /// 0 for fresh blocks.
    pub compaction_level: u32,
    /// For `meta.json`: 0 makes Tempo 2.x answer trace lookups from the block, 1 its metrics queries.
    pub replication_factor: u32,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            dedicated_columns: default_columns(),
            bloom_false_positive: 0.01,
            bloom_shard_size_bytes: 100 * 1024,
            row_group_size_bytes: 100_000_000,
            row_group_otlp_bytes: 48 << 20,
            row_group_traces: 3000,
            zstd_level: 1,
            compaction_level: 0,
            replication_factor: 0,
        }
    }
}

/// Writes one block's `data.parquet`. Holds one row group in memory.
pub struct BlockWriter<W: Write + Send> {
    options: BlockOptions,
    tenant: TenantId,
    block_id: BlockId,
    dedicated_columns: Vec<DedicatedColumn>,
    layout: Layout,
    resources: ResourceCache,
    file: SerializedFileWriter<Counted<W>>,
    row_group: RowGroup,
    encoder: Encoder,
    bloom: bloom::Builder,
    bloom_params: bloom::Params,
    index: RowGroupIndex,
    /// The block whose row groups were taken over last.
    passed: Option<pass::Passed>,
    last_id: Option<TraceId>,
    traces: u64,
    spans: u64,
    invalid_spans: u64,
    conflicting_spans: u64,
    start_unix_nanos: u64,
    end_unix_nanos: u64,
}

/// What was written, and the objects that go beside `data.parquet`.
#[derive(Debug)]
pub struct FinishedBlock<W> {
    /// For `meta.json`. Its times are those of the spans, widened to whole seconds.
    pub meta: BlockMeta,
    /// `bloom-0`, `bloom-1`, ….
    pub blooms: Vec<Vec<u8>>,
    /// `index`.
    pub index: Vec<u8>,
    /// Spans in the block; copies of a span are dropped.
    pub spans: u64,
    /// Spans that are left out because their bytes are no message. Each was logged.
    pub invalid_spans: u64,
    /// Spans that are left out because another one with their id and kind came before, with other content.
    pub conflicting_spans: u64,
    /// Where the columns were written to, flushed.
    pub out: W,
}

/// Why a block could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Traces must come in ascending order, each once.
    #[error("trace {given} was given after trace {previous}")]
    Order {
        /// The one before.
        previous: TraceId,
        /// The one refused.
        given: TraceId,
    },
    /// There is no block without a trace. Nothing but file marks was written.
    #[error("no trace with a valid span was given, {invalid_spans} invalid ones were left out")]
    Empty {
        /// Spans whose bytes are no message.
        invalid_spans: u64,
    },
    /// The writer that was given failed.
    #[error("could not write the columns of block {block}")]
    Io {
        /// The block.
        block: BlockId,
        /// From the writer, or from Parquet.
        #[source]
        source: ParquetError,
    },
}

impl<W: Write + Send> BlockWriter<W> {
    /// Starts a block. `expected_traces` decides the size of the bloom filter; too few makes it less sharp.
    ///
    /// # Errors
    /// [`WriteError::Io`] when the head of the file cannot be written, or zstd does not know the level.
    pub fn new(options: BlockOptions, tenant: TenantId, block_id: BlockId, out: W, expected_traces: u64) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Io { block: block_id, source };
        let dedicated_columns = for_vparquet4(&options.dedicated_columns);
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by(format!("{CREATED_BY}{}", env!("CARGO_PKG_VERSION")))
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let schema = vparquet4().root_schema_ptr();
        let file = SerializedFileWriter::new(Counted::new(out), schema, Arc::new(properties)).map_err(failed)?;
        let encoder = Encoder::new(options.zstd_level).map_err(|e| failed(ParquetError::External(Box::new(e))))?;
        let bloom_params = bloom::Params::fitting(expected_traces, options.bloom_false_positive, options.bloom_shard_size_bytes);
        Ok(Self {
            layout: Layout::vparquet4(&dedicated_columns),
            resources: ResourceCache::default(),
            options,
            tenant,
            block_id,
            dedicated_columns,
            file,
            row_group: RowGroup::new(),
            encoder,
            bloom: bloom::Builder::new(bloom_params),
            bloom_params,
            index: RowGroupIndex::default(),
            passed: None,
            last_id: None,
            traces: 0,
            spans: 0,
            invalid_spans: 0,
            conflicting_spans: 0,
            start_unix_nanos: u64::MAX,
            end_unix_nanos: 0,
        })
    }

    /// Adds a trace: all its spans in the order of their arrival. A trace without a valid span adds nothing.
    ///
    /// # Errors
    /// [`WriteError::Order`] for an id that is not above the one before. [`WriteError::Io`] when a row group is complete
    /// and cannot be written; the block is lost then.
    pub fn push_trace(&mut self, id: TraceId, spans: &[SpanRef<'_>]) -> Result<(), WriteError> {
        if let Some(previous) = self.last_id.filter(|last| *last >= id) {
            return Err(WriteError::Order { previous, given: id });
        }
        let row = Row::build(&self.layout, &mut self.resources, id, spans);
        for (position, error) in &row.invalid {
            tracing::warn!(tenant = %self.tenant, block_id = %self.block_id, trace_id = %id, position, %error, "span left out of block");
        }
        self.invalid_spans += row.invalid.len() as u64;
        self.conflicting_spans += row.conflicting;
        if row.spans.is_empty() {
            return Ok(());
        }
        self.row_group.push_row(&row);
        self.added(Copied {
            trace_id: id,
            start_unix_nanos: row.start,
            end_unix_nanos: row.end,
            spans: row.spans.len() as u64,
            bytes: spans.iter().map(|span| span.span.len() as u64).sum(),
            estimate: estimate::of_row(&row),
        })
    }

    /// Adds the trace that is the current row of each of `parts`, combined where there are several. False: nothing was
    /// added, since the rows need to be combined as OTLP.
    ///
    /// # Errors
    /// As for [`Self::push_trace`]; inside, the column of a part that disagrees with the others. The block is lost then.
    pub(crate) fn copy_trace(&mut self, id: TraceId, parts: &mut [&mut RowSource]) -> Result<Result<bool, Mismatch>, WriteError> {
        if let Some(previous) = self.last_id.filter(|last| *last >= id) {
            return Err(WriteError::Order { previous, given: id });
        }
        match self.row_group.copy_rows(parts) {
            Ok(Some(copied)) => self.added(copied).map(|()| Ok(true)),
            Ok(None) => Ok(Ok(false)),
            Err(mismatch) => Ok(Err(mismatch)),
        }
    }

    fn added(&mut self, row: Copied) -> Result<(), WriteError> {
        self.bloom.insert(row.trace_id);
        self.last_id = Some(row.trace_id);
        self.traces += 1;
        self.spans += row.spans;
        self.start_unix_nanos = self.start_unix_nanos.min(row.start_unix_nanos);
        self.end_unix_nanos = self.end_unix_nanos.max(row.end_unix_nanos);
        self.row_group.count(&row);
        if self.row_group.is_full(&self.options) {
            self.end_row_group()?;
        }
        Ok(())
    }

    /// As they are in this block.
    pub(crate) fn dedicated_columns(&self) -> &[DedicatedColumn] {
        &self.dedicated_columns
    }

    /// Writes the rest and the footer.
    ///
    /// # Errors
    /// [`WriteError::Empty`] when there was no trace. [`WriteError::Io`] when the file could not be completed.
    pub fn finish(mut self) -> Result<FinishedBlock<W>, WriteError> {
        if self.traces == 0 {
            return Err(WriteError::Empty { invalid_spans: self.invalid_spans });
        }
        if !self.row_group.is_empty() {
            self.end_row_group()?;
        }
        let block = self.block_id;
        let mut out = self.file.into_inner().map_err(|source| WriteError::Io { block, source })?;
        // Whoever drops a buffered writer never hears of what could not be written.
        out.flush().map_err(|error| WriteError::Io { block, source: error.into() })?;
        const SECOND: u64 = 1_000_000_000;
        let meta = BlockMeta {
            format: Format::VParquet4,
            block_id: self.block_id,
            tenant_id: self.tenant,
            start_unix_nanos: self.start_unix_nanos / SECOND * SECOND,
            // Rounded up: a bounded lookup that begins in the block's last second must find it.
            end_unix_nanos: self.end_unix_nanos.div_ceil(SECOND).saturating_mul(SECOND),
            total_objects: self.traces,
            size_bytes: out.written,
            compaction_level: self.options.compaction_level,
            row_groups: self.index.last_ids.len() as u32,
            bloom_shards: self.bloom_params.shards,
            footer_bytes: out.footer_bytes(),
            dedicated_columns: self.dedicated_columns,
            replication_factor: self.options.replication_factor,
        };
        Ok(FinishedBlock {
            meta,
            blooms: self.bloom.finish(),
            index: self.index.to_json(),
            spans: self.spans,
            invalid_spans: self.invalid_spans,
            conflicting_spans: self.conflicting_spans,
            out: out.inner,
        })
    }

    fn end_row_group(&mut self) -> Result<(), WriteError> {
        let block = self.block_id;
        self.try_end_row_group().map_err(|source| WriteError::Io { block, source })
    }

    fn try_end_row_group(&mut self) -> Result<(), ParquetError> {
        self.row_group.columns.cut_rest();
        let mut row_group = self.file.next_row_group()?;
        for (leaf, column) in Leaf::all().zip(&self.row_group.columns.columns) {
            let (bytes, close) = chunk::encode(leaf, column, &mut self.encoder)?;
            row_group.append_column(&bytes, close)?;
        }
        row_group.close()?;
        self.encoder.next_row_group();
        self.row_group.clear();
        self.index.last_ids.extend(self.last_id);
        Ok(())
    }
}

/// Counts what passes, and remembers its end.
struct Counted<W> {
    inner: W,
    written: u64,
    tail: [u8; 8],
}

impl<W: Write> Counted<W> {
    fn new(inner: W) -> Self {
        Self { inner, written: 0, tail: [0; 8] }
    }

    /// A Parquet file ends with its footer's length and four magic bytes.
    fn footer_bytes(&self) -> u32 {
        u32::from_le_bytes([self.tail[0], self.tail[1], self.tail[2], self.tail[3]])
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        let last = &bytes[n.saturating_sub(8)..n];
        self.tail.rotate_left(last.len());
        self.tail[8 - last.len()..].copy_from_slice(last);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
