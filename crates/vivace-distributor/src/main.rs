//! The `vivace-distributor` binary: wiring only.

use vivace_config::Target;
use vivace_ring::{GossipOptions, Membership, Role};
use vivace_server::{Process, clock, host_name};

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load_service(Target::Distributor, std::env::args_os());
    let mut process = Process::start(&config, "vivace-distributor", &[vivace_distributor::METRICS, vivace_ring::METRICS]).await?;
    let overrides = process.overrides(&config)?;
    let gossip = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    let membership = Membership::start(gossip, clock::unix_nanos).await?;
    vivace_distributor::start(&config, &membership, overrides, &mut process).await?;
    process.add_http(vivace_ring::router(&membership, &[Role::Distributor, Role::Ingester, Role::MetricsGenerator]));
    process.run().await
}
