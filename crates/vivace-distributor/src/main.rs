//! The `vivace-distributor` binary: wiring only.

use std::ffi::OsString;

use vivace_ring::{GossipOptions, Membership, Role};
use vivace_server::{Process, clock, host_name};

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Without a target the configuration is that of a single process, whose replication factor is 1.
    let mut args: Vec<OsString> = std::env::args_os().collect();
    args.insert(args.len().min(1), "-target=distributor".into());
    let config = vivace_server::load(args);
    let mut process = Process::start(&config, "vivace-distributor").await?;
    let overrides = process.overrides(&config)?;
    let gossip = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    let membership = Membership::start(gossip, clock::unix_nanos).await?;
    vivace_distributor::start(&config, &membership, overrides, &mut process).await?;
    process.add_http(vivace_ring::router(&membership, &[Role::Distributor, Role::Ingester, Role::MetricsGenerator]));
    process.run().await
}
