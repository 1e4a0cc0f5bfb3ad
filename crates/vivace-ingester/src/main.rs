//! The `vivace-ingester` binary: wiring only.

use anyhow::Context;
use vivace_config::Target;
use vivace_ring::{GossipOptions, Membership, Role};
use vivace_server::{Process, clock, host_name};
use vivace_storage::Bucket;

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load_service(Target::Ingester, std::env::args_os());
    let mut process =
        Process::start(&config, "vivace-ingester", &[vivace_ingester::METRICS, vivace_ring::METRICS, vivace_storage::METRICS]).await?;
    let overrides = process.overrides(&config)?;
    let gossip = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    let membership = Membership::start(gossip, clock::unix_nanos).await?;
    let opening = Bucket::open_for_writing(&config.storage.trace, &vivace_server::environment);
    let bucket = process.wait_for("the bucket is not open yet", opening).await.context("could not open the bucket")?;
    vivace_ingester::start(&config, &membership, bucket, overrides, &mut process).await?;
    process.add_http(vivace_ring::router(&membership, &[Role::Ingester]));
    process.run().await
}
