//! The compactor as a process of its own.

use anyhow::Context;
use vivace_config::Target;
use vivace_ring::{GossipOptions, Membership, Role};
use vivace_server::{Process, clock, host_name};
use vivace_storage::Bucket;

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load_service(Target::Compactor, std::env::args_os());
    let mut process =
        Process::start(&config, "vivace-compactor", &[vivace_compactor::METRICS, vivace_ring::METRICS, vivace_storage::METRICS]).await?;
    let overrides = process.overrides(&config)?;
    let gossip = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    let membership = Membership::start(gossip, clock::unix_nanos).await?;
    let opening = async {
        let (storage, env) = (&config.storage.trace, &vivace_server::environment);
        if config.compactor.disabled { Bucket::open(storage, env).await } else { Bucket::open_for_writing(storage, env).await }
    };
    let bucket = process.wait_for("the bucket is not open yet", opening).await.context("could not open the bucket")?;
    vivace_compactor::start(&config, &membership, bucket, overrides, &mut process).await?;
    process.add_http(vivace_ring::router(&membership, &[Role::Compactor]));
    process.run().await
}
