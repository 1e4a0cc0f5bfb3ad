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

fn target(entry: &vivace_config::RemoteWrite) -> anyhow::Result<Target> {
    let url = entry.url.expose().to_owned();
    anyhow::ensure!(!url.is_empty(), "metrics_generator.storage.remote_write: an entry without url");
    let mut headers: Vec<(String, String)> = entry.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let bearer = given(entry.bearer_token.expose(), &entry.bearer_token_file, "bearer_token_file")?;
    if !bearer.is_empty() {
        headers.push(("authorization".to_owned(), format!("Bearer {bearer}")));
    }
    if let Some(authorization) = &entry.authorization {
        let credentials = given(authorization.credentials.expose(), &authorization.credentials_file, "authorization.credentials_file")?;
        headers.push(("authorization".to_owned(), format!("{} {credentials}", authorization.kind).trim().to_owned()));
    }
    let basic_auth = match &entry.basic_auth {
        Some(auth) => Some((
            given(&auth.username, &auth.username_file, "basic_auth.username_file")?,
            given(auth.password.expose(), &auth.password_file, "basic_auth.password_file")?,
        )),
        None => None,
    };
    Ok(Target { url, headers, basic_auth, timeout: entry.remote_timeout, send_exemplars: entry.send_exemplars })
}

/// A value of the configuration, or else the content of the file that one names.
fn given(value: &str, file: &str, key: &str) -> anyhow::Result<String> {
    if !value.is_empty() || file.is_empty() {
        return Ok(value.to_owned());
    }
    let content = std::fs::read_to_string(file).with_context(|| format!("cannot read {key} {file}"))?;
    Ok(content.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_authorizes_is_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name).display().to_string();
            std::fs::write(&path, content).expect("written");
            path
        };
        let (user, password, token) = (file("user", "me\n"), file("password", "pass\n"), file("token", "abc\n"));
        let targets = format!(
            "metrics_generator: {{storage: {{remote_write: [\
             {{url: 'http://a', basic_auth: {{username_file: {user}, password_file: {password}}}}}, \
             {{url: 'http://a', bearer_token_file: {token}}}, \
             {{url: 'http://a', authorization: {{credentials_file: {token}}}}}, \
             {{url: 'http://a', authorization: {{type: Token, credentials: x}}}}]}}}}"
        );
        let (config, _) = Config::parse(&targets, "t").expect("it is right");
        let targets: Vec<_> =
            config.metrics_generator.storage.remote_write.iter().map(|entry| target(entry).expect("it can be used")).collect();
        assert_eq!(targets[0].basic_auth, Some(("me".to_owned(), "pass".to_owned())));
        let header = |value: &str| vec![("authorization".to_owned(), value.to_owned())];
        assert_eq!(targets[1].headers, header("Bearer abc"));
        assert_eq!(targets[2].headers, header("Bearer abc"));
        assert_eq!(targets[3].headers, header("Token x"));
    }
}
