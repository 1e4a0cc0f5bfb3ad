//! Forwarders: other systems that speak OTLP over gRPC and get a copy of what tenants send, as they sent it but for what is filtered
//! out. No second try.
//! Source: docs/facts/components.md, "Generic forwarders".

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use vivace_config::ForwarderTls;
use vivace_core::TenantId;
use vivace_server::RequestBudget;

use super::filter::Filter;
use super::queue::{QueueLimits, Queues};
use crate::metrics::{FORWARDER_PUSH_FAILURES, FORWARDER_PUSHES};
use crate::raw_codec::RawCodec;

/// Share of what requests may take, percent, up to which copies are made: what does not answer must not cost spans.
const COPIES_PERCENT: u64 = 50;
/// Longest time of one try.
const TIMEOUT: Duration = Duration::from_secs(10);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// All forwarders of a process.
#[derive(Debug)]
pub(crate) struct Forwarders {
    by_name: FxHashMap<String, Arc<Forwarder>>,
    /// Tenants whose list has a name that is none; said once each.
    misled: Mutex<FxHashSet<TenantId>>,
}

#[derive(Debug)]
struct Forwarder {
    name: String,
    /// By address. Each gets every request.
    endpoints: Vec<(String, Channel)>,
    queues: Queues,
    filter: Option<Arc<Filter>>,
}

impl Forwarders {
    /// Connects when there is something to send.
    ///
    /// # Errors
    /// An address is none, a certificate cannot be read, or a condition is none.
    pub(crate) fn new(configured: &[vivace_config::Forwarder]) -> anyhow::Result<Self> {
        let mut by_name = FxHashMap::default();
        for forwarder in configured {
            let connect = |address: &String| Ok((address.clone(), channel(address, &forwarder.otlpgrpc.tls)?));
            let endpoints: anyhow::Result<Vec<_>> = forwarder.otlpgrpc.endpoints.iter().map(connect).collect();
            let name = forwarder.name.clone();
            let of_name = || format!("forwarder {name} (distributor.forwarders)");
            let endpoints = endpoints.with_context(of_name)?;
            let filter = Filter::new(&forwarder.filter.traces).with_context(of_name)?.map(Arc::new);
            by_name.insert(name.clone(), Arc::new(Forwarder { queues: Queues::new(name.clone()), name, endpoints, filter }));
        }
        Ok(Self { by_name, misled: Mutex::default() })
    }

    /// Queues a request for those that the tenant names. Where that would take memory that spans may need, the copy is dropped. A name that no forwarder has stops all of the tenant's.
    pub(crate) fn enqueue(&self, names: &[String], tenant: &TenantId, body: &Bytes, requests: &RequestBudget) {
        if let Some(unknown) = names.iter().find(|name| !self.by_name.contains_key(*name)) {
            if self.misled.lock().insert(tenant.clone()) {
                tracing::error!(%tenant, forwarder = unknown, "nothing of this tenant is forwarded: its overrides name a forwarder that \
                     distributor.forwarders does not have");
            }
            return;
        }
        for forwarder in names.iter().filter_map(|name| self.by_name.get(name)) {
            let Some(hold) = requests.spare(body.len() as u64, COPIES_PERCENT) else {
                forwarder.queues.drop_one(tenant);
                continue;
            };
            let (this, body) = (forwarder.clone(), body.clone());
            let of = tenant.clone();
            forwarder.queues.enqueue(tenant, QueueLimits::default(), async move {
                if let Some(body) = this.filtered(&of, body).await {
                    this.send(&of, &body).await;
                }
                drop(hold);
            });
        }
    }

    /// Waits for what is queued, for a while.
    pub(crate) async fn drain(&self) {
        futures::future::join_all(self.by_name.values().map(|forwarder| forwarder.queues.drain())).await;
    }
}

impl Forwarder {
    /// What is to be sent of a request.
    async fn filtered(&self, tenant: &TenantId, body: Bytes) -> Option<Bytes> {
        let Some(filter) = self.filter.clone() else { return Some(body) };
        let left = tokio::task::spawn_blocking(move || filter.left(&body)).await.map_err(anyhow::Error::from);
        left.and_then(|left| left).unwrap_or_else(|error| {
            metrics::counter!(FORWARDER_PUSH_FAILURES.name, "tenant" => tenant.to_string()).increment(1);
            tracing::warn!(%tenant, forwarder = self.name, error = format!("{error:#}"), "a request cannot be filtered, so it is not forwarded");
            None
        })
    }

    async fn send(&self, tenant: &TenantId, body: &Bytes) {
        futures::future::join_all(self.endpoints.iter().map(|(address, channel)| async move {
            metrics::counter!(FORWARDER_PUSHES.name, "tenant" => tenant.to_string()).increment(1);
            let sent = tokio::time::timeout(TIMEOUT, export(channel.clone(), tenant, body.clone())).await;
            if let Err(error) = sent.map_err(anyhow::Error::from).and_then(|sent| sent) {
                metrics::counter!(FORWARDER_PUSH_FAILURES.name, "tenant" => tenant.to_string()).increment(1);
                tracing::warn!(%tenant, forwarder = self.name, address, error = format!("{error:#}"), "a request was not forwarded");
            }
        }))
        .await;
    }
}

async fn export(channel: Channel, tenant: &TenantId, body: Bytes) -> anyhow::Result<()> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let mut request = tonic::Request::new(body);
    vivace_server::tenant::insert(request.metadata_mut(), tenant);
    grpc.unary(request, PathAndQuery::from_static(EXPORT), RawCodec).await?;
    Ok(())
}

/// A connection that is made when it is used, in plain text or checked against a certificate.
fn channel(address: &str, tls: &ForwarderTls) -> anyhow::Result<Channel> {
    let scheme = if tls.insecure { "http" } else { "https" };
    let host_and_port = address.split_once("://").map_or(address, |(_, rest)| rest);
    let endpoint = Endpoint::from_shared(format!("{scheme}://{host_and_port}")).with_context(|| format!("{address:?} is no host:port"))?;
    let endpoint = endpoint.connect_timeout(TIMEOUT);
    if tls.insecure {
        return Ok(endpoint.connect_lazy());
    }
    let pem = std::fs::read(&tls.cert_file).with_context(|| format!("cannot read otlpgrpc.tls.cert_file {:?}", tls.cert_file))?;
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    Ok(endpoint.tls_config(config).context("otlpgrpc.tls.cert_file")?.connect_lazy())
}
