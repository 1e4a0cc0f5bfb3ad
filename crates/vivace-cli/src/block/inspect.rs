//! For whoever asks where the bytes of a block go. Sizes and encodings are what the footer says, read by the Parquet library;
//! only dictionaries need Vivace's own reader, so that a format it does not know is shown too, without them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use clap::Args;
use parquet::basic::Encoding;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::printer::print_schema;
use parquet::schema::types::ColumnPath;
use vivace_block::{BlockMeta, BlockReader, DictionaryUse, ParquetSource, ReadError, rfc3339};

use super::place::BlockPlace;
use crate::text::{bytes, count, table};

/// Show what a block is made of: row groups, columns, their sizes, encodings and dictionaries.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    block: BlockPlace,
    /// Every column instead of the largest ones.
    #[arg(long)]
    all: bool,
    /// The schema of the file instead of its sizes.
    #[arg(long, conflicts_with = "all")]
    schema: bool,
}

/// Columns shown where not all are asked for.
const COLUMNS_SHOWN: usize = 20;

pub(crate) async fn run(command: Command) -> anyhow::Result<String> {
    let found = command.block.find().await?;
    let (meta, source) = (found.meta.clone(), found.source());
    let (id, tenant) = (meta.block_id, meta.tenant_id.clone());
    let read = move || {
        let parquet = ParquetMetaDataReader::new().parse_and_finish(&ParquetSource(source.clone()))?;
        if command.schema {
            let mut out = Vec::new();
            print_schema(&mut out, parquet.file_metadata().schema());
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        // Of a format that cannot be read, the footer can be shown.
        let dictionaries = match BlockReader::open(meta.clone(), source) {
            Ok(block) => block.dictionaries()?,
            Err(ReadError::Format { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok::<_, anyhow::Error>(show(&meta, &parquet, &dictionaries, command.all))
    };
    let read = tokio::task::spawn_blocking(read).await?;
    read.with_context(|| format!("data.parquet of block {id} of tenant {tenant}"))
}

/// A column over all row groups.
#[derive(Default)]
struct Column {
    compressed: u64,
    uncompressed: u64,
    values: u64,
    chunks: u64,
    /// Chunks whose pages all refer to a dictionary.
    dictionary_only: u64,
    /// Chunks that have a dictionary.
    dictionary: u64,
    codec: String,
    /// Distinct values of all dictionaries, and their bytes.
    entries: u64,
    dictionary_bytes: u64,
}

fn show(meta: &BlockMeta, parquet: &ParquetMetaData, dictionaries: &[DictionaryUse], all: bool) -> String {
    let mut out = String::new();
    let spans = spans(parquet);
    let _ = writeln!(out, "Block {} of tenant {}", meta.block_id, meta.tenant_id);
    let _ = writeln!(out, "  format      {}, compaction level {}", meta.format.as_str(), meta.compaction_level);
    let _ = writeln!(out, "  time        {} to {}", rfc3339(meta.start_unix_nanos), rfc3339(meta.end_unix_nanos));
    let _ = writeln!(out, "  traces      {}, {}", meta.total_objects, count(spans, "span"));
    let per_span = if spans == 0 { String::new() } else { format!(", {:.1} bytes per span", meta.size_bytes as f64 / spans as f64) };
    let _ = writeln!(out, "  size        {}, footer {}{per_span}", bytes(meta.size_bytes), bytes(meta.footer_bytes.into()));
    let _ = writeln!(out, "  blooms      {}", count(meta.bloom_shards.into(), "shard"));
    let _ = writeln!(out, "  written by  {}", parquet.file_metadata().created_by().unwrap_or("unknown"));
    let columns = parquet.file_metadata().schema_descr().num_columns();
    let _ = writeln!(out, "  columns     {columns}, {} dedicated", meta.dedicated_columns.len());
    for column in &meta.dedicated_columns {
        let _ = writeln!(out, "              {:?} attribute {} ({:?})", column.scope, column.name, column.kind);
    }

    let _ = writeln!(out, "\nRow groups");
    let rows: Vec<Vec<String>> = parquet
        .row_groups()
        .iter()
        .enumerate()
        .map(|(index, group)| {
            let plain = u64::try_from(group.total_byte_size()).unwrap_or_default();
            let stored = u64::try_from(group.compressed_size()).unwrap_or_default();
            vec![index.to_string(), group.num_rows().to_string(), bytes(stored), bytes(plain)]
        })
        .collect();
    out.push_str(&table(&["GROUP", "TRACES", "STORED", "UNCOMPRESSED"], &rows));

    let mut columns: Vec<(String, Column)> = columns_of(parquet, dictionaries).into_iter().collect();
    columns.sort_by(|a, b| b.1.compressed.cmp(&a.1.compressed).then_with(|| a.0.cmp(&b.0)));
    let total: u64 = columns.iter().map(|(_, column)| column.compressed).sum();
    let shown = if all { columns.len() } else { COLUMNS_SHOWN.min(columns.len()) };
    let _ = writeln!(out, "\nColumns, the largest first");
    let rows: Vec<Vec<String>> = columns[..shown].iter().map(|(name, column)| column_row(name, column, total)).collect();
    out.push_str(&table(&["COLUMN", "STORED", "SHARE", "UNCOMPRESSED", "VALUES", "DICTIONARY", "ENTRIES", "BYTES", "CODEC"], &rows));
    if shown < columns.len() {
        let rest: u64 = columns[shown..].iter().map(|(_, column)| column.compressed).sum();
        let _ = writeln!(out, "and {} more with {}; --all shows them", columns.len() - shown, bytes(rest));
    }
    out
}

fn column_row(name: &str, column: &Column, total: u64) -> Vec<String> {
    let dictionary = match column {
        Column { dictionary: 0, .. } => "no".to_owned(),
        Column { dictionary_only, chunks, .. } if dictionary_only == chunks => "yes".to_owned(),
        Column { dictionary, dictionary_only, chunks, .. } => {
            format!("{dictionary_only} of {chunks} whole, {} given up", dictionary - dictionary_only)
        }
    };
    vec![
        name.to_owned(),
        bytes(column.compressed),
        format!("{:.1}%", column.compressed as f64 / total.max(1) as f64 * 100.0),
        bytes(column.uncompressed),
        column.values.to_string(),
        dictionary,
        if column.dictionary == 0 { String::new() } else { column.entries.to_string() },
        if column.dictionary == 0 { String::new() } else { bytes(column.dictionary_bytes) },
        column.codec.clone(),
    ]
}

fn columns_of(parquet: &ParquetMetaData, dictionaries: &[DictionaryUse]) -> BTreeMap<String, Column> {
    let mut columns: BTreeMap<String, Column> = BTreeMap::new();
    for chunk in parquet.row_groups().iter().flat_map(|group| group.columns()) {
        let column = columns.entry(short_path(chunk.column_path())).or_default();
        column.compressed += u64::try_from(chunk.compressed_size()).unwrap_or_default();
        column.uncompressed += u64::try_from(chunk.uncompressed_size()).unwrap_or_default();
        column.values += u64::try_from(chunk.num_values()).unwrap_or_default();
        column.chunks += 1;
        if chunk.dictionary_page_offset().is_some() {
            column.dictionary += 1;
            column.dictionary_only += u64::from(!has_plain_pages(chunk));
        }
        column.codec = chunk.compression().to_string();
    }
    let names = parquet.file_metadata().schema_descr().columns().iter().map(|column| short_path(column.path()));
    for (name, used) in names.zip(dictionaries) {
        let column = columns.entry(name).or_default();
        column.entries += used.entries;
        column.dictionary_bytes += used.bytes;
    }
    columns
}

/// A column's path without the levels that lists and maps add.
fn short_path(path: &ColumnPath) -> String {
    path.parts().join(".").replace(".list.element", "").replace(".key_value", "")
}

/// Whether a writer gave its dictionary up midway. Where the file does not say, the encodings of the chunk are a hint.
fn has_plain_pages(chunk: &ColumnChunkMetaData) -> bool {
    match chunk.page_encoding_stats() {
        Some(stats) => stats.iter().any(|page| {
            let is_data = matches!(page.page_type, parquet::basic::PageType::DATA_PAGE | parquet::basic::PageType::DATA_PAGE_V2);
            is_data && !matches!(page.encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY)
        }),
        None => false,
    }
}

/// How many spans there are: the values of the span id column.
fn spans(parquet: &ParquetMetaData) -> u64 {
    let chunks = parquet.row_groups().iter().flat_map(|group| group.columns());
    let ids = chunks.filter(|chunk| chunk.column_path().parts().last().is_some_and(|name| name == "SpanID"));
    ids.filter(|chunk| !chunk.column_path().parts().iter().any(|part| part == "Links"))
        .map(|chunk| u64::try_from(chunk.num_values()).unwrap_or_default())
        .sum()
}
