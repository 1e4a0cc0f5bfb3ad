//! The distributor as a process of its own.

use anyhow::Context as _;
use vivace_ring::{GossipOptions, Membership, Registration, Role, State};
use vivace_server::{Process, clock};

#[global_allocator]
static ALLOCATOR: vivace_server::Jemalloc = vivace_server::Jemalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load(std::env::args_os());
    let mut process = Process::start(&config, "vivace-distributor").await?;
    let overrides = process.overrides(&config)?;
    let started = clock::unix_nanos();
    let options = GossipOptions::from_config(&config.memberlist, &vivace_server::host_name(), started)?;
    let membership = Membership::start(options, clock::unix_nanos).await.context("could not become a member of the cluster")?;
    Ok(())
}
