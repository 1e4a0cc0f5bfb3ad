//! Reads the meta of every block instead of the tenants' indexes: what is there is shown, not what somebody has written about it.
//! A meta that cannot be read is named below the table and hides no other block.

use std::fmt::Write as _;

use clap::Args;
use vivace_block::{BlockMeta, rfc3339};
use vivace_core::TenantId;

use super::place::Place;
use crate::text::{bytes, count, duration, table};

/// List the blocks of all tenants, or of one.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    place: Place,
    /// The bucket: a folder, or s3://bucket/prefix. Left out with --config.
    bucket: Option<String>,
    /// Only this tenant's blocks.
    #[arg(long)]
    tenant: Option<String>,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<String> {
    let bucket = command.place.open(command.bucket.as_deref()).await?;
    let tenants = match command.tenant {
        Some(tenant) => vec![TenantId::new(&tenant)?],
        None => bucket.tenants().await?,
    };
    let mut rows = vec![];
    let (mut traces, mut size) = (0, 0);
    let mut broken = String::new();
    for tenant in &tenants {
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
