//! The metrics-generator as a process of its own.

use vivace_server::Process;

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load(std::env::args_os());
    let mut process = Process::start(&config, "vivace-metrics-generator").await?;
    let overrides = process.overrides(&config)?;
    let membership = vivace_ring::Membership::join(&config, &mut process).await?;
    vivace_metrics_generator::start(&config, &membership, overrides, &mut process).await?;
    process.run().await
}
