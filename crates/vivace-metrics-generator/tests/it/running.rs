use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use vivace_config::Config;
use vivace_core::TenantId;
use vivace_proto::otlp::TracesData;
use vivace_proto::tempopb::PushSpansRequest;
use vivace_proto::tempopb::metrics_generator_client::MetricsGeneratorClient;
use vivace_ring::Membership;
use vivace_server::{Overrides, Process, Shutdown, clock};

/// Nothing in these tests takes longer unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running generator.
pub(crate) struct Running {
    channel: Channel,
    task: JoinSet<anyhow::Result<()>>,
    shutdown: Shutdown,
}

impl Running {
    /// Starts one that collects ten times a second. `storage` and `limits` are keys of the configuration.
    pub(crate) async fn start(folder: &Path, url: &str, storage: &str, limits: &str) -> Self {
        let text = format!(
            "multitenancy_enabled: true\nmetrics_generator:\n  ring: {{instance_id: generator-0}}\n  storage: {{path: {}, remote_write: [{{url: '{url}'{storage}}}]}}\n\
             overrides: {{defaults: {{metrics_generator: {{collection_interval: 100ms, {limits}}}}}}}\n",
            folder.display()
        );
        let (config, _) = Config::parse(&text, "t").expect("it is right");
        let mut process = Process::test_with(&config, "vivace-metrics-generator").await.expect("free ports");
        let overrides = Overrides::fixed(config.overrides.defaults.clone());
        let membership = Membership::local(clock::unix_nanos);
        vivace_metrics_generator::start(&config, &membership, overrides, &mut process).await.expect("it starts");
        let (grpc, shutdown) = (process.grpc_addr(), process.shutdown());
        let mut task = JoinSet::new();
        task.spawn(process.run());
        let channel = Channel::from_shared(format!("http://{grpc}")).expect("an address").connect_lazy();
        Self { channel, task, shutdown }
    }

    pub(crate) async fn push(&self, tenant: &str, data: &TracesData, skip: bool) {
        let message = || {
            let mut request =
                tonic::Request::new(PushSpansRequest { traces_data: data.encode_to_vec().into(), skip_metrics_generation: skip });
            vivace_server::tenant::insert(request.metadata_mut(), &TenantId::new(tenant).expect("a tenant"));
            request
        };
        let deadline = Instant::now() + DEADLINE;
        let mut client = MetricsGeneratorClient::new(self.channel.clone());
        while let Err(error) = client.push_spans(message()).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it without a word, as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.task.shutdown().await;
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.shutdown.begin();
        self.task.join_next().await.expect("it runs").expect("no panic").expect("an orderly end");
    }
}

/// Waits for something.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it never came to pass that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
