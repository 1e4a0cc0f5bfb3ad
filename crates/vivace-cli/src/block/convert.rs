//! Reads every trace of a block and writes it as a new block would be written, so that what the old one derived wrongly is
//! derived again. The block grows in a temporary file and is stored only when it is complete; if one span cannot be written,
//! nothing is stored.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use tempfile::NamedTempFile;
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, FinishedBlock, SpanMessages};
use vivace_core::BlockId;

use super::place::BlockPlace;
use crate::progress::Progress;
use crate::text::{bytes, table};

/// Write a block anew as vParquet4: one of vParquet5, or one whose derived columns are wrong.
///
/// The new block has the same tenant, traces, level and dedicated columns, as far as vParquet4 can hold them, and an id of
/// its own. The old block stays as it is.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    block: BlockPlace,
    /// The bucket for the new block: a folder, which is made where there is none, or s3://bucket/prefix.
    #[arg(long, value_name = "BUCKET")]
    to: String,
    /// 1 to 22: the higher, the smaller and slower.
    #[arg(long, value_name = "LEVEL", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=22))]
    zstd_level: i32,
    /// Where the new block is kept until it is complete. It needs room for all of it.
    #[arg(long, value_name = "FOLDER")]
    temp_dir: Option<PathBuf>,
}

/// What was written, and what came of the spans.
struct Converted {
    block: FinishedBlock<BufWriter<File>>,
    spans_read: u64,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<String> {
    let found = command.block.find().await?;
    let target = command.block.place().open_other(&command.to).await?;
    let folder = command.temp_dir.unwrap_or_else(std::env::temp_dir);
    let temp =
        NamedTempFile::new_in(&folder).with_context(|| format!("cannot write to {}; --temp-dir names another folder", folder.display()))?;
    let file = temp.reopen()?;
    let new_id = BlockId(uuid::Uuid::new_v4().into_bytes());
    let zstd_level = command.zstd_level;
    // A wrong meta is one of the things that are put right.
    let (meta, source) = found.as_it_lies().await?;
    let converted = tokio::task::spawn_blocking(move || convert(&BlockReader::open(meta, source)?, file, new_id, zstd_level)).await??;
    let FinishedBlock { meta, blooms, index, spans, invalid_spans, .. } = converted.block;
    if invalid_spans > 0 {
        bail!("{invalid_spans} spans cannot be written again, so nothing was stored; `vivace-cli block verify` may say more");
    }
    target.put_block(&meta, temp.path(), blooms, index).await?;
    Ok(show(&found.meta, &meta, converted.spans_read, spans, &command.to))
}

fn convert(block: &BlockReader, file: File, id: BlockId, zstd_level: i32) -> anyhow::Result<Converted> {
    let old = block.meta();
    let options = BlockOptions {
        dedicated_columns: old.dedicated_columns.clone(),
        compaction_level: old.compaction_level,
        replication_factor: old.replication_factor,
        zstd_level,
        ..BlockOptions::default()
    };
    let mut writer = BlockWriter::new(options, old.tenant_id.clone(), id, BufWriter::new(file), old.total_objects)?;
    let mut progress = Progress::new("trace", old.total_objects);
    let mut messages = SpanMessages::default();
    let mut spans_read = 0;
    for (done, trace) in (1..).zip(block.traces()) {
        let (id, trace) = trace?;
        messages.read(&trace);
        let spans = messages.refs();
        spans_read += spans.len() as u64;
        writer.push_trace(id, &spans)?;
        progress.at(done);
    }
    let mut block = writer.finish()?;
    block.out.flush()?;
    widen(&mut block.meta, old, vivace_server::clock::unix_nanos());
    Ok(Converted { block, spans_read })
}

/// The old writer may have known better than the spans' own clocks, and what it left out must be found. But a span without
/// a time makes no block of 1970, and one of the year 2200 no block that is kept until then.
fn widen(new: &mut BlockMeta, old: &BlockMeta, now: u64) {
    let Some((old_start, old_end)) = old.times() else { return };
    if old_start > 0 {
        let start = new.start_unix_nanos;
        new.start_unix_nanos = if start == 0 { old_start } else { start.min(old_start) };
    }
    let end = new.end_unix_nanos;
    new.end_unix_nanos = if end > now { old_end } else { end.max(old_end) };
}

fn show(old: &BlockMeta, new: &BlockMeta, spans_read: u64, spans_written: u64, to: &str) -> String {
    let row = |when: &str, meta: &BlockMeta, spans: u64| {
        let per_span = meta.size_bytes as f64 / spans.max(1) as f64;
        vec![
            when.to_owned(),
            meta.block_id.to_string(),
            meta.format.as_str().to_owned(),
            meta.total_objects.to_string(),
            spans.to_string(),
            meta.row_groups.to_string(),
            bytes(meta.size_bytes),
            format!("{per_span:.1}"),
        ]
    };
    let rows = [row("before", old, spans_read), row("after", new, spans_written)];
    let mut out = table(&["", "BLOCK", "FORMAT", "TRACES", "SPANS", "ROW GROUPS", "SIZE", "BYTES PER SPAN"], &rows);
    out.push_str(&format!("\nWritten to {}/{}/{}\n", to.trim_end_matches('/'), new.tenant_id, new.block_id));
    let lost = old.dedicated_columns.iter().filter(|column| !new.dedicated_columns.contains(column)).count();
    if lost > 0 {
        out.push_str(&format!(
            "{lost} of {} dedicated columns are generic attributes or columns of the format in vParquet4.\n",
            old.dedicated_columns.len()
        ));
    }
    if spans_written < spans_read {
        out.push_str(&format!("{} copies of spans were dropped.\n", spans_read - spans_written));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_testkit::block_meta;

    #[track_caller]
    fn widens(spans: (u64, u64), old: (u64, u64), want: (u64, u64)) {
        let meta = |(start_unix_nanos, end_unix_nanos): (u64, u64)| BlockMeta { start_unix_nanos, end_unix_nanos, ..block_meta(1) };
        let mut new = meta(spans);
        widen(&mut new, &meta(old), 1000);
        assert_eq!((new.start_unix_nanos, new.end_unix_nanos), want, "spans {spans:?}, before {old:?}");
    }

    #[test]
    fn the_new_block_covers_what_the_old_one_did_and_no_impossible_times() {
        widens((500, 600), (510, 590), (500, 600));
        widens((500, 600), (490, 700), (490, 700));
        widens((0, 600), (490, 590), (490, 600));
        widens((500, 9000), (490, 590), (490, 590));
        widens((500, 600), (0, 0), (500, 600));
        widens((500, 600), (700, 400), (500, 600));
        widens((500, 600), (0, 650), (500, 650));
    }
}
