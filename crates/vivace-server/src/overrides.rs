//! The limits of tenants, read again while the process runs.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use vivace_config::{Config, Limits, OverridesConfig as OverrideKeys};
use vivace_core::TenantId;
use vivace_core::metric::Metric;

use crate::load;
use crate::metrics::{LIMITS_DEFAULTS, LIMITS_OVERRIDES, RUNTIME_CONFIG_LOADED, USER_OVERRIDES_FAILED};

/// The limits that hold now. A per-tenant file that turns invalid changes nothing: the last good one stays, an error is logged
/// and `tempo_runtime_config_last_reload_successful` is 0.
pub struct Overrides {
    defaults: Limits,
    file: Option<String>,
    period: Duration,
    current: RwLock<Current>,
}

struct Current {
    overrides: Arc<vivace_config::Overrides>,
    /// What it was read from: an unchanged file is not parsed again.
    text: String,
    /// What was read after it and is not valid, by its hash, and what is wrong with it.
    refused: Option<(u64, String)>,
}

impl Overrides {
    /// Every tenant has the given limits, always. For tests and tools.
    #[must_use]
    pub fn fixed(defaults: Limits) -> Arc<Self> {
        let overrides = Arc::new(vivace_config::Overrides::new(defaults.clone()));
        let current = RwLock::new(Current { overrides, text: String::new(), refused: None });
        Arc::new(Self { defaults, file: None, period: Duration::MAX, current })
    }

    pub(crate) fn load(config: &Config) -> anyhow::Result<Self> {
        let OverrideKeys { defaults, per_tenant_override_config: file, per_tenant_override_period: period, .. } = &config.overrides;
        let overrides = Arc::new(vivace_config::Overrides::new(defaults.clone()));
        let this = Self {
            defaults: defaults.clone(),
            file: (!file.is_empty()).then(|| file.clone()),
            period: (*period).max(Duration::from_millis(10)),
            current: RwLock::new(Current { overrides, text: String::new(), refused: None }),
        };
        metrics::counter!(USER_OVERRIDES_FAILED.name).absolute(0);
        publish(&LIMITS_DEFAULTS, defaults, None);
        if let Some(file) = &this.file {
            this.reload(file).map_err(|error| anyhow::anyhow!("overrides.per_tenant_override_config: {error}"))?;
        }
        Ok(this)
    }

    /// A tenant's limits, complete.
    #[must_use]
    pub fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self.current.read().overrides.limits(tenant)
    }

    /// All limits that hold now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<vivace_config::Overrides> {
        self.current.read().overrides.clone()
    }

    pub(crate) async fn reload_until(self: Arc<Self>, stop: CancellationToken) {
        let Some(file) = self.file.clone() else { return };
        let mut last_error = String::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.period) => {}
                () = stop.cancelled() => return,
            }
            // Thousands of tenants take a while to read.
            let (this, file) = (self.clone(), file.clone());
            let reloaded = tokio::task::spawn_blocking(move || this.reload(&file)).await;
            match reloaded.unwrap_or_else(|panic| Err(panic.to_string())) {
                Ok(()) => last_error.clear(),
                // Said once per reason, not every few seconds.
                Err(error) if error == last_error => {}
                Err(error) => {
                    tracing::error!(error, "the per-tenant limits cannot be read; the last good ones stay");
                    last_error = error;
                }
            }
        }
    }

    fn reload(&self, file: &str) -> Result<(), String> {
        let result = self.read(file);
        metrics::gauge!(RUNTIME_CONFIG_LOADED.name, "config" => "overrides").set(if result.is_ok() { 1.0 } else { 0.0 });
        result
    }

    fn read(&self, file: &str) -> Result<(), String> {
        let text = load::read_overrides(file)?;
        if !text.is_empty() && self.current.read().text == text {
            self.current.write().refused = None;
            return Ok(());
        }
        let hash = hash(&text);
        if let Some((_, error)) = self.current.read().refused.as_ref().filter(|(refused, _)| *refused == hash) {
            return Err(error.clone());
        }
        let parsed = vivace_config::Overrides::parse(&self.defaults, &text, file).map_err(|errors| errors.to_string());
        let (overrides, warnings) = parsed.inspect_err(|error| self.current.write().refused = Some((hash, error.clone())))?;
        for warning in warnings {
            tracing::warn!(file, "{warning}");
        }
        for tenant in overrides.tenants() {
            publish(&LIMITS_OVERRIDES, &overrides.limits(&tenant), Some(&tenant));
        }
        tracing::info!(file, tenants = overrides.tenants().len(), "per-tenant limits read");
        *self.current.write() = Current { overrides: Arc::new(overrides), text, refused: None };
        Ok(())
    }

    /// YAML of the defaults and of every tenant with limits of its own; with `diff` only of the latter.
    pub(crate) fn render(&self, diff: bool) -> String {
        let overrides = self.snapshot();
        let mut out = String::new();
        if !diff {
            out.push_str("defaults:\n");
            indent(&mut out, &self.defaults.to_yaml(), 2);
        }
        out.push_str("overrides:\n");
        for tenant in overrides.tenants() {
            out.push_str(&format!("  {:?}:\n", tenant.as_str()));
            indent(&mut out, &overrides.limits(&tenant).to_yaml(), 4);
        }
        out
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn indent(out: &mut String, yaml: &str, spaces: usize) {
    for line in yaml.lines() {
        out.extend(std::iter::repeat_n(' ', spaces));
        out.push_str(line);
        out.push('\n');
    }
}

/// `limit_name` of the Tenants dashboard. Source: docs/facts/metrics.md, "Limits".
fn publish(metric: &Metric, limits: &Limits, tenant: Option<&TenantId>) {
    let values = [
        ("max_local_traces_per_user", limits.ingestion.max_traces_per_user as f64),
        ("max_global_traces_per_user", limits.ingestion.max_global_traces_per_user as f64),
        ("ingestion_rate_limit_bytes", limits.ingestion.rate_limit_bytes as f64),
        ("ingestion_burst_size_bytes", limits.ingestion.burst_size_bytes as f64),
        ("max_bytes_per_trace", limits.global.max_bytes_per_trace as f64),
        ("block_retention", limits.compaction.block_retention.as_nanos() as f64),
        ("metrics_generator_max_active_series", limits.metrics_generator.max_active_series as f64),
    ];
    let of_defaults_only = [
        ("max_bytes_per_tag_values_query", limits.read.max_bytes_per_tag_values_query as f64),
        ("max_blocks_per_tag_values_query", limits.read.max_blocks_per_tag_values_query as f64),
    ];
    match tenant {
        Some(tenant) => {
            for (name, value) in values {
                metrics::gauge!(metric.name, "limit_name" => name, "user" => tenant.to_string()).set(value);
            }
        }
        None => {
            for (name, value) in values.into_iter().chain(of_defaults_only) {
                metrics::gauge!(metric.name, "limit_name" => name).set(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_turns_bad_changes_nothing_and_is_read_once() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display().to_string();
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        let mut config = Config::default();
        config.overrides.per_tenant_override_config.clone_from(&path);
        write("overrides: {a: {ingestion: {max_traces_per_user: 7}}}");
        let overrides = Overrides::load(&config).expect("valid");
        let tenant = TenantId::new("a").expect("a tenant");
        let traces = || overrides.limits(&tenant).ingestion.max_traces_per_user;

        let huge = "x".repeat(65 << 20);
        for bad in ["overrides: [", "sever: {}", huge.as_str()] {
            write(bad);
            let error = overrides.reload(&path).expect_err("it is wrong");
            assert!(error.contains(&path) && error.len() < 1000, "{error:.2000}");
            assert_eq!(overrides.reload(&path), Err(error), "the same again");
            assert_eq!(traces(), 7);
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(overrides.reload(&path).expect_err("it is gone").contains("No such file"));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("it runs").success());
        assert!(overrides.reload(&path).expect_err("nobody writes to it").contains("no regular file"));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(traces(), 7);
        // Whether it is what it was or new, a file that is right is taken.
        write("overrides: {a: {ingestion: {max_traces_per_user: 7}}}");
        assert_eq!((overrides.reload(&path), traces()), (Ok(()), 7));
        write("overrides: {a: {ingestion: {max_traces_per_user: 8}}}");
        assert_eq!((overrides.reload(&path), traces()), (Ok(()), 8));
    }
}
