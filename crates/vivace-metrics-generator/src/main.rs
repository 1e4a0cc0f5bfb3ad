//! The metrics-generator as a process of its own.

use vivace_config::Target;
use vivace_ring::{GossipOptions, Membership, Role};
use vivace_server::{Process, clock, host_name};

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load_service(Target::MetricsGenerator, std::env::args_os());
    let mut process =
        Process::start(&config, "vivace-metrics-generator", &[vivace_metrics_generator::METRICS, vivace_ring::METRICS]).await?;
    let overrides = process.overrides(&config)?;
    let gossip = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    let membership = Membership::start(gossip, clock::unix_nanos).await?;
    vivace_metrics_generator::start(&config, &membership, overrides, &mut process).await?;
    process.add_http(vivace_ring::router(&membership, &[Role::MetricsGenerator]));
    process.run().await
}
