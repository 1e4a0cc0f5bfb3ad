use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::{Buf, Bytes};
use clap::{Args, Subcommand};
use parquet::basic::Encoding;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use vivace_block::{BlockMeta, ReadAt, rfc3339};
use vivace_config::{Backend, Config, TraceStorage};
use vivace_core::{BlockId, TenantId};
use vivace_storage::Bucket;

use crate::text::{bytes, count, duration, table};

/// Look into the bucket.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the blocks of all tenants, or of one.
    Ls {
        #[command(flatten)]
        place: Place,
        /// The bucket: a folder, or s3://bucket/prefix. Left out with --config.
        bucket: Option<String>,
        /// Only this tenant's blocks.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Show what a block is made of: row groups, columns, their sizes and encodings.
    Inspect {
        #[command(flatten)]
        place: Place,
        /// The block's folder: ./vivace-data/blocks/single-tenant/<id>, s3://bucket/prefix/tenant/<id>, or tenant/<id> with --config.
        block: String,
        /// Every column instead of the largest ones.
        #[arg(long)]
        all: bool,
    },
}

/// How to reach a bucket.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Take the bucket from this configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// host:port of an S3 server other than AWS.
    #[arg(long)]
    endpoint: Option<String>,
    /// Speak plain HTTP with it.
    #[arg(long)]
    insecure: bool,
}

/// Columns shown where not all are asked for.
const COLUMNS_SHOWN: usize = 20;

pub(crate) async fn run(command: Command) -> anyhow::Result<String> {
    match command {
        Command::Ls { place, bucket, tenant } => {
            let bucket = place.open(bucket.as_deref()).await?;
            let tenants = match tenant {
                Some(tenant) => vec![TenantId::new(&tenant)?],
                None => bucket.tenants().await?,
            };
            list(&bucket, &tenants).await
        }
        Command::Inspect { place, block, all } => {
            let (at, tenant, id) = address(&block)?;
            let bucket = place.open(at.as_deref()).await?;
            let meta = bucket.meta(&tenant, id).await.with_context(|| format!("block {id} of tenant {tenant}"))?;
            let source = bucket.reader(&meta);
            let read = tokio::task::spawn_blocking(move || Source(source).metadata()).await?;
            let parquet = read.with_context(|| format!("data.parquet of block {id} of tenant {tenant}"))?;
            Ok(inspect(&meta, &parquet, all))
        }
    }
}

impl Place {
    async fn open(&self, at: Option<&str>) -> anyhow::Result<Bucket> {
        let storage = self.storage(at)?;
        Ok(Bucket::open(&storage, &vivace_server::environment).await?)
    }

    fn storage(&self, at: Option<&str>) -> anyhow::Result<TraceStorage> {
        let mut storage = TraceStorage::default();
        match (&self.config, at) {
            (Some(_), Some(at)) => bail!("{at} and --config both name a bucket; leave one out"),
            (None, None) => bail!("no bucket is named: give a folder, s3://bucket/prefix, or --config FILE"),
            (Some(file), None) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                storage = Config::parse(&text, &file.to_string_lossy())?.0.storage.trace;
            }
            (None, Some(at)) => match at.strip_prefix("s3://") {
                Some(rest) => {
                    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                    storage.backend = Backend::S3;
                    storage.s3.bucket = bucket.to_owned();
                    storage.s3.prefix = prefix.trim_end_matches('/').to_owned();
                }
                None => {
                    if !Path::new(at).is_dir() {
                        bail!("{at} is no folder; expected the folder of a local bucket, or s3://bucket/prefix");
                    }
                    storage.backend = Backend::Local;
                    storage.local.path = at.to_owned();
                }
            },
        }
        if let Some(endpoint) = &self.endpoint {
            storage.s3.endpoint.clone_from(endpoint);
        }
        storage.s3.insecure |= self.insecure;
        Ok(storage)
    }
}

/// Splits `<bucket>/<tenant>/<id>`. The bucket is missing where only the last two are given.
fn address(block: &str) -> anyhow::Result<(Option<String>, TenantId, BlockId)> {
    let expected = || format!("expected <bucket>/<tenant>/<block id>, got {block:?}");
    let trimmed = block.trim_end_matches('/').trim_end_matches("/data.parquet").trim_end_matches("/meta.json");
    let (rest, id) = trimmed.rsplit_once('/').with_context(expected)?;
    let id: BlockId = id.parse().with_context(expected)?;
    let (at, tenant) = match rest.rsplit_once('/') {
        Some(("", tenant)) => (Some("/".to_owned()), tenant),
        Some((at, tenant)) => (Some(at.to_owned()), tenant),
        None => (None, rest),
    };
    Ok((at, TenantId::new(tenant).with_context(expected)?, id))
}

async fn list(bucket: &Bucket, tenants: &[TenantId]) -> anyhow::Result<String> {
    let mut rows = vec![];
    let (mut traces, mut size) = (0, 0);
    let mut broken = String::new();
    for tenant in tenants {
        for block in bucket.list(tenant).await?.blocks {
            let compacted = block.compacted_unix_nanos.is_some();
            let meta = if compacted { bucket.compacted_meta(tenant, block.id).await } else { bucket.meta(tenant, block.id).await };
            let meta = match meta {
                Ok(meta) => meta,
                Err(error) => {
                    let _ = writeln!(broken, "unreadable: block {} of tenant {tenant}: {error}", block.id);
                    continue;
                }
            };
            traces += meta.total_objects;
            size += meta.size_bytes;
            rows.push((meta.end_unix_nanos, row(&meta, compacted)));
        }
    }
    rows.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
    let mut out = table(&["TENANT", "BLOCK", "FORMAT", "LEVEL", "TRACES", "SIZE", "START", "SPAN OF TIME", ""], &rows);
    let _ = writeln!(out, "{}, {}, {}", count(rows.len() as u64, "block"), count(traces, "trace"), bytes(size));
    out.push_str(&broken);
    Ok(out)
}

fn row(meta: &BlockMeta, compacted: bool) -> Vec<String> {
    vec![
        meta.tenant_id.to_string(),
        meta.block_id.to_string(),
        meta.format.as_str().to_owned(),
        meta.compaction_level.to_string(),
        meta.total_objects.to_string(),
        bytes(meta.size_bytes),
        rfc3339(meta.start_unix_nanos),
        duration(meta.end_unix_nanos.saturating_sub(meta.start_unix_nanos)),
        if compacted { "compacted".to_owned() } else { String::new() },
    ]
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
}

fn inspect(meta: &BlockMeta, parquet: &ParquetMetaData, all: bool) -> String {
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

    let mut columns: Vec<(String, Column)> = columns_of(parquet).into_iter().collect();
    columns.sort_by(|a, b| b.1.compressed.cmp(&a.1.compressed).then_with(|| a.0.cmp(&b.0)));
    let total: u64 = columns.iter().map(|(_, column)| column.compressed).sum();
    let shown = if all { columns.len() } else { COLUMNS_SHOWN.min(columns.len()) };
    let _ = writeln!(out, "\nColumns, the largest first");
    let rows: Vec<Vec<String>> = columns[..shown].iter().map(|(name, column)| column_row(name, column, total)).collect();
    out.push_str(&table(&["COLUMN", "STORED", "SHARE", "UNCOMPRESSED", "VALUES", "DICTIONARY", "CODEC"], &rows));
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
        column.codec.clone(),
    ]
}

fn columns_of(parquet: &ParquetMetaData) -> BTreeMap<String, Column> {
    let mut columns: BTreeMap<String, Column> = BTreeMap::new();
    for chunk in parquet.row_groups().iter().flat_map(|group| group.columns()) {
        let column = columns.entry(name(chunk)).or_default();
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
    columns
}

/// A column's path without the levels that lists and maps add.
fn name(chunk: &ColumnChunkMetaData) -> String {
    chunk.column_path().parts().join(".").replace(".list.element", "").replace(".key_value", "")
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

/// A block's bytes for the Parquet library.
struct Source(Arc<dyn ReadAt>);

impl Source {
    fn metadata(&self) -> Result<ParquetMetaData, ParquetError> {
        ParquetMetaDataReader::new().parse_and_finish(self)
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        self.0.read(range).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Source {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(Box::new(self.read(start..self.0.len())?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.read(start..start + length as u64)
    }
}
