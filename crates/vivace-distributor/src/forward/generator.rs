//! The copy of spans that metrics are made of, for tenants that want metrics.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vivace_config::GeneratorForwarderLimits;
use vivace_core::TenantId;
use vivace_proto::tempopb::PushSpansRequest;
use vivace_proto::tempopb::metrics_generator_client::MetricsGeneratorClient;
use vivace_ring::{ClientPool, Ring};
use vivace_server::RequestCharge;

use super::queue::Queues;
use crate::metrics::{GENERATOR_CLIENTS, GENERATOR_PUSH_FAILURES, GENERATOR_PUSHES};
use crate::plan::{PlanLimits, plan};

/// The queue's name.
const NAME: &str = "metrics-generator";

/// Sends spans to the metrics-generators.
#[derive(Debug)]
pub(crate) struct GeneratorForwarder {
    ring: Ring,
    pool: ClientPool,
    timeout: Duration,
    message_bytes_max: usize,
    /// Largest message that metrics-generators take, bytes: parts are cut to it.
    taken_bytes_max: usize,
    queues: Queues,
}

/// What is sent.
pub(crate) struct Copy {
    pub(crate) tenant: TenantId,
    pub(crate) body: Bytes,
    pub(crate) skip_metrics: bool,
    pub(crate) max_attribute_bytes: usize,
    /// The memory that the body takes, given back when it is sent.
    pub(crate) hold: Arc<RequestCharge>,
}

impl GeneratorForwarder {
    pub(crate) fn new(ring: Ring, pool: ClientPool, timeout: Duration, message_bytes_max: usize, taken_bytes_max: usize) -> Self {
        Self { ring, pool, timeout, message_bytes_max, taken_bytes_max, queues: Queues::new(NAME) }
    }

    /// Queues a request. Never waits.
    pub(crate) fn enqueue(self: &Arc<Self>, copy: Copy, limits: &GeneratorForwarderLimits) {
        let (tenant, this) = (copy.tenant.clone(), self.clone());
        self.queues.enqueue(&tenant, limits.into(), async move { this.send(copy).await });
    }

    /// Waits for what is queued, for a while.
    pub(crate) async fn drain(&self) {
        self.queues.drain().await;
    }

    /// Sends each trace to the generator that owns it. No second try: metrics of late spans are worse than none.
    async fn send(&self, copy: Copy) {
        let snapshot = self.ring.snapshot();
        let Copy { tenant, body, skip_metrics, max_attribute_bytes, hold } = copy;
        let limits = PlanLimits::new(max_attribute_bytes, self.taken_bytes_max);
        let parts = {
            let tenant = tenant.clone();
            tokio::task::spawn_blocking(move || {
                let plan = plan(&body, &tenant, limits, |token| snapshot.primary(token));
                plan.map(|plan| plan.parts.into_iter().map(|p| (p.owner.addr.clone(), p.payload)).collect::<Vec<_>>())
            })
            .await
        };
        let parts = match parts {
            Ok(Ok(parts)) => parts,
            Ok(Err(error)) => return tracing::warn!(%tenant, %error, "spans are missing in metrics"),
            Err(_) => return,
        };
        let sends = parts.into_iter().map(|(addr, traces_data)| self.push(&tenant, addr, traces_data, skip_metrics));
        futures::future::join_all(sends).await;
        drop(hold);
    }

    async fn push(&self, tenant: &TenantId, addr: String, traces_data: Bytes, skip_metrics: bool) {
        metrics::counter!(GENERATOR_PUSHES.name, "metrics_generator" => addr.clone()).increment(1);
        let sent = async {
            let channel = self.pool.channel(&addr)?;
            metrics::gauge!(GENERATOR_CLIENTS.name).set(self.pool.len() as f64);
            let mut client = MetricsGeneratorClient::new(channel).max_encoding_message_size(self.message_bytes_max);
            let mut request = tonic::Request::new(PushSpansRequest { traces_data, skip_metrics_generation: skip_metrics });
            vivace_server::tenant::insert(request.metadata_mut(), tenant);
            tokio::time::timeout(self.timeout, client.push_spans(request)).await??;
            anyhow::Ok(())
        };
        if let Err(error) = sent.await {
            metrics::counter!(GENERATOR_PUSH_FAILURES.name, "metrics_generator" => addr.clone()).increment(1);
            tracing::warn!(%tenant, %addr, %error, "spans are missing in metrics");
        }
    }
}
