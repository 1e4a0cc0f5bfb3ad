//! The query-frontend over HTTP and gRPC, with a querier made of a closure.

#![expect(clippy::unwrap_used, reason = "in a test the panic is the report")]
#![expect(clippy::field_reassign_with_default, reason = "one key of a large configuration is changed")]

mod api;
mod client;
mod failures;
mod jaeger;
mod querier;
mod streaming;
mod zipkin;

use std::sync::Arc;

use tokio::task::JoinSet;
use vivace_block::BlockMeta;
use vivace_config::Config;
use vivace_core::TenantId;
use vivace_server::{Overrides, Process, Shutdown, clock};
use vivace_storage::{Blocklist, Bucket, Change, PollOptions, Poller};
use vivace_testkit::block_meta;

use crate::querier::Querier;

/// A running query-frontend.
struct Frontend {
    http: String,
    grpc: String,
    /// Of other systems' APIs, as [`with_other_apis`] asks for them.
    listening: vivace_query_frontend::Listening,
    blocklist: Blocklist,
    shutdown: Shutdown,
    run: JoinSet<anyhow::Result<()>>,
}

impl Frontend {
    async fn start(config: &Config) -> Self {
        let poller = Poller::reader(Bucket::memory(), PollOptions::from(&config.storage.trace), clock::unix_nanos);
        poller.poll_once().await.unwrap();
        Self::over(config, poller.blocklist()).await
    }

    async fn over(config: &Config, blocklist: Blocklist) -> Self {
        let mut process = Process::test_with(config, "query-frontend").await.unwrap();
        let overrides = Overrides::fixed(config.overrides.defaults.clone());
        let mut config = config.clone();
        config.query_frontend.jaeger.enabled.get_or_insert(false);
        config.query_frontend.zipkin.enabled.get_or_insert(false);
        let listening = vivace_query_frontend::start(&config, blocklist.clone(), overrides, &mut process).await.unwrap();
        let http = format!("http://{}", process.http_addr());
        let grpc = format!("http://{}", process.grpc_addr());
        let shutdown = process.shutdown();
        let mut run = JoinSet::new();
        run.spawn(process.run());
        Self { http, grpc, listening, blocklist, shutdown, run }
    }

    /// With defaults, and a querier that answers everything with nothing.
    async fn idle() -> (Self, Querier) {
        Self::with(&Config::default(), querier::nothing).await
    }

    async fn with(
        config: &Config,
        answer: impl Fn(&vivace_proto::vivace::v1::Job) -> querier::Outcome + Send + Sync + 'static,
    ) -> (Self, Querier) {
        let frontend = Self::start(config).await;
        let querier = Querier::connect(&frontend.grpc, "one", 8, Arc::new(answer)).await;
        (frontend, querier)
    }

    fn add_blocks(&self, tenant: &str, blocks: impl IntoIterator<Item = BlockMeta>) {
        let change = Change { added: blocks.into_iter().collect(), ..Default::default() };
        self.blocklist.apply(&TenantId::new(tenant).unwrap(), change);
    }
}

/// Defaults, and the query APIs of Jaeger and Zipkin on free ports.
fn with_other_apis() -> Config {
    let mut config = Config::default();
    "127.0.0.1".clone_into(&mut config.server.http_listen_address);
    "127.0.0.1".clone_into(&mut config.server.grpc_listen_address);
    let (jaeger, zipkin) = (&mut config.query_frontend.jaeger, &mut config.query_frontend.zipkin);
    (jaeger.enabled, jaeger.http_listen_port, jaeger.grpc_listen_port) = (Some(true), 0, 0);
    (zipkin.enabled, zipkin.http_listen_port) = (Some(true), 0);
    config
}

/// A block that ended some seconds ago.
fn block(id: u8, seconds_ago: u64, size_bytes: u64, row_groups: u32) -> BlockMeta {
    let end = clock::unix_nanos() - seconds_ago * 1_000_000_000;
    BlockMeta { start_unix_nanos: end - 1_000_000_000, end_unix_nanos: end, size_bytes, row_groups, ..block_meta(id) }
}
