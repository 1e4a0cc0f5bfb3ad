//! The `vivace-query-frontend` binary: wiring only.

use anyhow::Context as _;
use vivace_server::{Process, clock};
use vivace_storage::{Bucket, PollOptions, Poller};

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = vivace_server::load(std::env::args_os());
    let mut process = Process::start(&config, "vivace-query-frontend").await?;
    let overrides = process.overrides(&config)?;
    #[expect(clippy::disallowed_methods, reason = "a bucket's credentials may come from the environment, under names that the store knows")]
    let env = |name: &str| std::env::var(name).ok();
    let bucket = Bucket::open(&config.storage.trace, &env).await.context("could not open the bucket")?;
    let poller = Poller::reader(bucket, PollOptions::from(&config.storage.trace), clock::unix_nanos);
    let (polling, stop) = (poller.clone(), process.stop_token());
    process.spawn("block list", async move {
        polling.run(stop).await;
        Ok(())
    });
    vivace_query_frontend::start(&config, poller.blocklist(), overrides, &mut process)?;
    process.run().await
}
