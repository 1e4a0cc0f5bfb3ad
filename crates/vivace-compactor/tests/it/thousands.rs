//! What a cycle costs over tenants that are many and small. The figures are printed by
//! `cargo test -p vivace-compactor --test it thousands -- --ignored --nocapture`.

use std::time::Instant;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockMeta, Format};
use vivace_config::Config;
use vivace_core::{BlockId, TenantId};
use vivace_server::clock;
use vivace_storage::Bucket;

use crate::over;

const TENANTS: usize = 6000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn a_cycle_over_thousands_of_tenants() {
    let store = std::sync::Arc::new(InMemory::new());
    let now = clock::unix_nanos();
    for n in 0..TENANTS {
        let tenant_id = TenantId::new(&format!("customer-{n:05}")).expect("a tenant");
        // Two blocks that nothing is to be done with: they differ in level.
        for level in 0..2 {
            let meta = BlockMeta {
                format: Format::VParquet4,
                block_id: BlockId([u8::try_from(level).expect("small") + 1; 16]),
                tenant_id: tenant_id.clone(),
                start_unix_nanos: now,
                end_unix_nanos: now,
                total_objects: 1,
                size_bytes: 1,
                compaction_level: level,
                row_groups: 1,
                bloom_shards: 1,
                footer_bytes: 1,
                dedicated_columns: Vec::new(),
                replication_factor: 0,
            };
            let key = format!("{tenant_id}/{}/meta.json", meta.block_id);
            store.put(&key.into(), meta.to_json().into()).await.expect("stored");
        }
    }
    let store: std::sync::Arc<dyn ObjectStore> = store;
    let upkeep = over(&Config::default(), Bucket::of_store(store), std::sync::Arc::default()).await;
    let begun = Instant::now();
    upkeep.poller.poll_once().await.expect("polled");
    println!("polled in {:.2?}", begun.elapsed());
    let tenants = upkeep.poller.blocklist().tenants();
    assert_eq!(tenants.len(), TENANTS);
    let begun = Instant::now();
    for tenant in &tenants {
        upkeep.compactor.compact_tenant(tenant, &CancellationToken::new()).await;
    }
    println!("a cycle of compaction in {:.2?}", begun.elapsed());
    let begun = Instant::now();
    for tenant in &tenants {
        upkeep.compactor.retain_tenant(tenant).await;
    }
    println!("a cycle of retention in {:.2?}", begun.elapsed());
}
