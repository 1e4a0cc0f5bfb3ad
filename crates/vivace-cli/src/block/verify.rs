//! Fetches a block's small objects, has `vivace_block::verify` check everything, and says what can be done about what is wrong.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use clap::Args;
use vivace_block::verify::{Check, Report, SmallObjects, Verdict, verify};
use vivace_block::{BlockMeta, objects};

use super::place::{BlockPlace, Found};
use crate::Ending;
use crate::progress::Progress;
use crate::text::{count, table};

/// Check checksums, objects, order, and what is derived from spans.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    block: BlockPlace,
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let found = command.block.find().await?;
    let small = small_objects(&found).await?;
    let meta = found.meta.clone();
    let (_, source) = found.as_it_lies().await?;
    let (meta, report) = tokio::task::spawn_blocking(move || {
        let mut progress = Progress::new("trace", meta.total_objects);
        let report = verify(&meta, &Arc::clone(&source), &small, &mut |done| progress.at(done));
        (meta, report)
    })
    .await?;
    out.write_all(show(&meta, &report).as_bytes())?;
    Ok(if report.is_bad() { Ending::Bad } else { Ending::Good })
}

async fn small_objects(found: &Found) -> anyhow::Result<SmallObjects> {
    let (tenant, id) = (&found.meta.tenant_id, found.meta.block_id);
    let mut small = SmallObjects { blooms: Vec::new(), index: found.bucket.object(tenant, id, objects::INDEX).await? };
    for shard in 0..found.meta.bloom_shards {
        small.blooms.push(found.bucket.object(tenant, id, &objects::bloom(shard)).await?);
    }
    Ok(small)
}

fn show(meta: &BlockMeta, report: &Report) -> String {
    let mut out = format!("Block {} of tenant {}, {}", meta.block_id, meta.tenant_id, meta.format.as_str());
    let _ = writeln!(out, ", {}, {}\n", count(report.traces, "trace"), count(report.spans, "span"));
    let row = |check: &Check| vec![check.name.to_owned(), check.verdict.to_string(), check.summary.clone()];
    out.push_str(&table(&["CHECK", "RESULT", ""], &report.checks.iter().map(row).collect::<Vec<_>>()));
    for check in report.checks.iter().filter(|check| !check.examples.is_empty()) {
        let _ = writeln!(out, "\n{} ({})", check.name, check.verdict);
        for example in &check.examples {
            let _ = writeln!(out, "  {example}");
        }
    }
    let failed: Vec<&str> = report.checks.iter().filter(|check| check.verdict == Verdict::Failed).map(|check| check.name).collect();
    let _ = match failed.as_slice() {
        [] => writeln!(out, "\nNothing is wrong."),
        failed => writeln!(
            out,
            "\n{} of {} failed: {}.{}",
            failed.len(),
            count(report.checks.len() as u64, "check"),
            failed.join(", "),
            advice(report)
        ),
    };
    out
}

/// What to do about it.
fn advice(report: &Report) -> &'static str {
    let failed = |name| report.check(name).is_some_and(|check| check.verdict == Verdict::Failed);
    let is_unread = report.checks.iter().any(|check| check.verdict == Verdict::Skipped) || report.check("trace ids").is_none();
    if failed("format") {
        ""
    } else if is_unread || failed("pages") {
        "\nWhat is damaged cannot be repaired: restore the block from a copy of the bucket, or delete its folder."
    } else {
        "\nAll spans can be read: `vivace-cli block convert` writes them to a new block that is right."
    }
}
