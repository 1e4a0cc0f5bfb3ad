//! Spans to metrics: receives spans from distributors through its ring, keeps series per tenant, and remote-writes them.
//!
//! Processors look at each span: span metrics, service graphs, host info (`tenant` has them). Series live in memory and begin at zero
//! with the process; what was collected of them waits in a folder until a receiver takes it. Start with [`start`].

mod cardinality;
mod collection;
mod demand;
mod edges;
mod filter;
mod grpc;
mod histogram;
mod host_info;
mod labels;
#[cfg(feature = "measuring")]
pub mod measuring;
mod metrics;
mod native_histogram;
mod options;
mod outlet;
mod registry;
mod remote_write;
mod sampling;
mod service_graphs;
mod span_metrics;
mod span_names;
mod spans;
mod tenant;
mod tenants;

use std::sync::Arc;

use anyhow::Context as _;
use vivace_config::Config;
use vivace_proto::tempopb::metrics_generator_server::MetricsGeneratorServer;
use vivace_ring::{Membership, Registration, Role, State};
use vivace_server::{Overrides, Process, add_grpc, host_name};

use crate::remote_write::Target;
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
    let mut targets = section.storage.remote_write.iter().map(Target::new).collect::<anyhow::Result<Vec<_>>>()?;
    if targets.is_empty() {
        tracing::warn!("metrics_generator.storage.remote_write is empty: metrics are made and sent nowhere");
    }
    for index in 1..targets.len() {
        // Each has a folder of its own.
        if targets[..index].iter().any(|other| other.name == targets[index].name) {
            targets[index].name = format!("{}-{index}", targets[index].name);
        }
    }
    let tenants = Arc::new(Tenants::new(section, targets, overrides));
    tenants.resume().with_context(|| format!("metrics_generator.storage.path {}", section.storage.path))?;

    let service = grpc::Generator { tenants: tenants.clone(), tenancy: process.tenancy() };
    add_grpc!(process, MetricsGeneratorServer::new(service));

    let registration = Registration::of_service(&section.ring, membership, &host_name(), process.grpc_addr());
    membership.register(Role::MetricsGenerator, registration, State::Active).await;

    let (collecting, stop) = (tenants.clone(), process.stop_token());
    process.spawn("collection of metrics", async move {
        collecting.collect_until(stop).await;
        Ok(())
    });
    // Time is left for what drains after this.
    let deadline = section.storage.remote_write_flush_deadline.min(config.server.graceful_shutdown_timeout / 2);
    let leaving = membership.clone();
    process.on_drain("metrics-generator", move || {
        Box::pin(async move {
            leaving.set_state(Role::MetricsGenerator, State::Leaving).await;
            tenants.collect_last(deadline).await;
            Ok(())
        })
    });
    Ok(())
}
