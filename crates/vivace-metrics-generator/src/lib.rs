//! Spans to metrics: receives spans from distributors through its ring, keeps series per tenant, and remote-writes them.
//!
//! One processor so far: span metrics ([`SpanMetricsOptions`]). Storage of the series is the receiver's business;
//! nothing here is durable, as in the reference. Start with [`start`].

mod grpc;
mod metrics;
mod registry;
mod remote_write;
mod span_metrics;
mod spans;
mod tenants;

use std::sync::Arc;

use anyhow::Context as _;
use vivace_config::Config;
use vivace_proto::tempopb::metrics_generator_server::MetricsGeneratorServer;
use vivace_ring::{Membership, Registration, Role, State};
use vivace_server::{Overrides, Process, add_grpc, host_name};

pub use remote_write::Target;
pub use span_metrics::SpanMetricsOptions;

use crate::tenants::Tenants;

/// What the metrics-generator counts of itself.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

/// Starts the generator in a process. Without `metrics_generator.storage.path` it is an error, as it is in the reference.
///
/// # Errors
/// The configuration does not allow it to run, or names a remote-write target that cannot be used.
pub async fn start(config: &Config, membership: &Membership, overrides: Arc<Overrides>, process: &mut Process) -> anyhow::Result<()> {
    let section = &config.metrics_generator;
    anyhow::ensure!(
        !section.storage.path.is_empty(),
        "metrics_generator.storage.path is not set: the metrics-generator needs a folder of its own"
    );
    let targets = section.storage.remote_write.iter().map(target).collect::<anyhow::Result<Vec<_>>>()?;
    if targets.is_empty() {
        tracing::warn!("metrics_generator.storage.remote_write is empty: metrics are made and sent nowhere");
    }
    let tenants = Arc::new(Tenants::new(section, targets, overrides)?);

    let service = grpc::Generator { tenants: tenants.clone(), tenancy: process.tenancy() };
    add_grpc!(process, MetricsGeneratorServer::new(service));

    let registration = Registration::of_service(&section.ring, membership, &host_name(), process.grpc_addr());
    membership.register(Role::MetricsGenerator, registration, State::Active).await;

    let (collecting, stop) = (tenants.clone(), process.stop_token());
    process.spawn("collection of metrics", async move {
        collecting.collect_until(stop).await;
        Ok(())
    });
    let (leaving, deadline) = (membership.clone(), section.storage.remote_write_flush_deadline);
    process.on_drain("metrics-generator", move || {
        Box::pin(async move {
            leaving.set_state(Role::MetricsGenerator, State::Leaving).await;
            tenants.collect_last(deadline).await;
            Ok(())
        })
    });
    Ok(())
}

fn target(entry: &vivace_config::RemoteWrite) -> anyhow::Result<Target> {
    let url = entry.url.expose().to_owned();
    anyhow::ensure!(!url.is_empty(), "metrics_generator.storage.remote_write: an entry without url");
    let mut headers: Vec<(String, String)> = entry.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let bearer = match (entry.bearer_token.expose(), entry.bearer_token_file.as_str()) {
        ("", "") => None,
        ("", file) => Some(std::fs::read_to_string(file).with_context(|| format!("cannot read bearer_token_file {file}"))?),
        (token, _) => Some(token.to_owned()),
    };
    if let Some(bearer) = bearer {
        headers.push(("authorization".to_owned(), format!("Bearer {}", bearer.trim())));
    }
    let basic_auth = match &entry.basic_auth {
        Some(auth) if !auth.password_file.is_empty() => {
            let password = std::fs::read_to_string(&auth.password_file)
                .with_context(|| format!("cannot read basic_auth.password_file {}", auth.password_file))?;
            Some((auth.username.clone(), password.trim().to_owned()))
        }
        Some(auth) => Some((auth.username.clone(), auth.password.expose().to_owned())),
        None => None,
    };
    Ok(Target { url, headers, basic_auth, timeout: entry.remote_timeout, send_exemplars: entry.send_exemplars })
}
