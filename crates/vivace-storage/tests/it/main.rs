//! The crate as its users see it: one suite for every kind of bucket, and the block lists over one.

mod blocklist;
mod first_look;
mod foreign;
mod open;
mod outage;
mod suite;
mod thousands;

use std::sync::atomic::{AtomicU64, Ordering};

use vivace_block::{BlockMeta, Format, bloom};
use vivace_core::{BlockId, TenantId, TraceId};

/// Near to the stores' own clock, and moved by tests that need time to pass.
static SKIPPED_NANOS: AtomicU64 = AtomicU64::new(0);

#[expect(clippy::disallowed_methods, reason = "stores date objects by the real clock; the lists are compared with that")]
fn clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554") + SKIPPED_NANOS.load(Ordering::Relaxed)
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant")
}

fn block_id(n: u8) -> BlockId {
    BlockId([n; 16])
}

fn trace_id(n: u32) -> TraceId {
    TraceId::from_slice(&n.to_be_bytes())
}

/// The meta, bloom filters and bytes of something that looks like a block from the outside.
fn block(tenant: &TenantId, n: u8, data: &[u8]) -> (BlockMeta, Vec<Vec<u8>>) {
    let params = bloom::Params::fitting(100, 0.001, 64);
    let mut blooms = bloom::Builder::new(params);
    (0..100).for_each(|i| blooms.insert(trace_id(i)));
    let meta = BlockMeta {
        format: Format::VParquet4,
        block_id: block_id(n),
        tenant_id: tenant.clone(),
        start_unix_nanos: 1_795_176_000_000_000_000,
        end_unix_nanos: 1_795_176_060_000_000_000,
        total_objects: 100,
        size_bytes: data.len() as u64,
        compaction_level: 0,
        row_groups: 1,
        bloom_shards: params.shards,
        footer_bytes: 92,
        dedicated_columns: vivace_block::dedicated::for_vparquet4(&vivace_block::dedicated::default_columns()),
        replication_factor: 0,
    };
    (meta, blooms.finish())
}

async fn store(bucket: &vivace_storage::Bucket, tenant: &TenantId, n: u8, data: &[u8]) -> BlockMeta {
    let (meta, blooms) = block(tenant, n, data);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), data).expect("written");
    bucket.put_block(&meta, file.path(), blooms, b"{}".to_vec()).await.expect("stored");
    meta
}
