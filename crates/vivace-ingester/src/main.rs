//! The `vivace-ingester` binary: wiring only.

use anyhow::Context;
use vivace_ring::{GossipOptions, Membership, Role};
use vivace_server::{Process, clock, host_name};
use vivace_storage::Bucket;

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load(std::env::args_os());
    let mut process = Process::start(&config, "vivace-ingester").await?;
    let overrides = process.overrides(&config)?;
    let gossip = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    let membership = Membership::start(gossip, clock::unix_nanos).await?;
    #[expect(clippy::disallowed_methods, reason = "credentials of the bucket may come from the environment, by names that the store knows")]
    let env = |name: &str| std::env::var(name).ok();
    let bucket = Bucket::open(&config.storage.trace, &env).await.context("could not open the bucket")?;
    vivace_ingester::start(&config, &membership, bucket, overrides, &mut process).await?;
    process.add_http(vivace_ring::router(&membership, &[Role::Ingester]));
    process.run().await
}
