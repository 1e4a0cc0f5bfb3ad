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
    /// Generators that serve the tenant; 0 is all.
    pub(crate) shard_size: usize,
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
        let Copy { tenant, body, skip_metrics, max_attribute_bytes, shard_size, hold } = copy;
        let limits = PlanLimits::new(max_attribute_bytes, self.taken_bytes_max);
        let parts = {
            let tenant = tenant.clone();
            tokio::task::spawn_blocking(move || {
                let shard = snapshot.shard(tenant.as_str(), shard_size);
                let plan = plan(&body, &tenant, limits, |token| snapshot.primary_in(token, &shard));
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
            let channel = self.pool.connection(&addr)?;
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

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use vivace_proto::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};
    use vivace_ring::{Instance, Role, Snapshot, State};

    use super::*;

    fn generator(number: u8) -> Instance {
        Instance {
            id: format!("generator-{number}"),
            role: Role::MetricsGenerator,
            addr: format!("10.0.0.{number}:9095"),
            zone: String::new(),
            state: State::Active,
            alive: true,
            registered_unix_seconds: 0,
            last_heartbeat_unix_nanos: 0,
        }
    }

    fn request(trace: u8, span: u8) -> Bytes {
        let span = Span { trace_id: vec![trace; 16].into(), span_id: vec![span; 8].into(), ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec().into()
    }

    /// A generator pairs the two sides of a call, which their services send by themselves.
    #[test]
    fn all_of_a_trace_meets_in_one_generator_whatever_request_it_came_in() {
        let snapshot = Snapshot::new((0..5).map(generator));
        let tenant = TenantId::single();
        let mut used = std::collections::BTreeSet::new();
        for trace in 1..=100 {
            let halves = [1, 2].map(|span| {
                let plan =
                    plan(&request(trace, span), &tenant, PlanLimits::new(0, usize::MAX), |token| snapshot.primary(token)).expect("valid");
                assert_eq!(plan.parts.len(), 1);
                plan.parts[0].owner.id.clone()
            });
            assert_eq!(halves[0], halves[1]);
            used.extend(halves);
        }
        assert_eq!(used.len(), 5, "and the traces are spread over all of them");
    }

    /// Tenants that shall not know all generators have different ones.
    #[test]
    fn a_tenant_s_traces_stay_with_its_generators() {
        let snapshot = Snapshot::new((0..8).map(generator));
        let mut all = std::collections::BTreeSet::new();
        for number in 0..20 {
            let tenant = TenantId::new(&format!("tenant-{number}")).expect("a tenant");
            let shard = snapshot.shard(tenant.as_str(), 2);
            let mut used = std::collections::BTreeSet::new();
            for trace in 1..=100 {
                let (body, limits) = (request(trace, 1), PlanLimits::new(0, usize::MAX));
                let plan = plan(&body, &tenant, limits, |token| snapshot.primary_in(token, &shard)).expect("valid");
                used.extend(plan.parts.iter().map(|part| part.owner.id.clone()));
            }
            assert_eq!(used.len(), 2, "{used:?}");
            all.extend(used);
        }
        assert_eq!(all.len(), 8);
    }
}
