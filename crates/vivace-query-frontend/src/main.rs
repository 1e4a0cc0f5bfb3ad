//! The query-frontend as a process of its own.

use anyhow::Context;
use vivace_config::Target;
use vivace_server::{Process, clock};
use vivace_storage::{Bucket, PollOptions, Poller};

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load_service(Target::QueryFrontend, std::env::args_os());
    let mut process = Process::start(&config, "vivace-query-frontend", &[vivace_query_frontend::METRICS, vivace_storage::METRICS]).await?;
    let overrides = process.overrides(&config)?;
    let opening = Bucket::open(&config.storage.trace, &vivace_server::environment);
    let bucket = process.wait_for("the bucket is not open yet", opening).await.context("could not open the bucket")?;
    let poller = Poller::reader(bucket, PollOptions::from(&config.storage.trace), clock::unix_nanos);
    let blocklist = poller.blocklist();
    let stop = process.stop_token();
    process.spawn("blocklist poller", async move {
        poller.run(stop).await;
        Ok(())
    });
    vivace_query_frontend::start(&config, blocklist, overrides, &mut process).await?;
    process.run().await
}
