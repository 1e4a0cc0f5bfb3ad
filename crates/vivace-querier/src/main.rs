//! The querier as a process of its own.

use anyhow::Context;
use vivace_config::Target;
use vivace_ring::{GossipOptions, Membership, Role};
use vivace_server::{Process, clock, host_name};
use vivace_storage::{Bucket, PollOptions, Poller};

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load_service(Target::Querier, std::env::args_os());
    anyhow::ensure!(
        !config.querier.frontend_worker.frontend_address.is_empty(),
        "querier.frontend_worker.frontend_address is empty, expected host:port of the query-frontends' gRPC"
    );
    let mut process =
        Process::start(&config, "vivace-querier", &[vivace_querier::METRICS, vivace_ring::METRICS, vivace_storage::METRICS]).await?;
    let gossip = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    let membership = Membership::start(gossip, clock::unix_nanos).await?;
    let opening = Bucket::open(&config.storage.trace, &vivace_server::environment);
    let bucket = process.wait_for("the bucket is not open yet", opening).await.context("could not open the bucket")?;
    let poller = Poller::reader(bucket.clone(), PollOptions::from(&config.storage.trace), clock::unix_nanos);
    let (polling, stop) = (poller.clone(), process.stop_token());
    process.spawn("block list", async move {
        polling.run(stop).await;
        Ok(())
    });
    vivace_querier::start(&config, &host_name(), membership.ring(Role::Ingester), bucket, poller, &mut process);
    process.add_http(vivace_ring::router(&membership, &[Role::Ingester]));
    process.run().await
}
