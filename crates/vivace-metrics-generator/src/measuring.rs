//! A door for the program that measures (`examples/load.rs`): one tenant's spans and series, without a network.

use std::sync::Arc;

use vivace_config::{Config, Limits, MetricsGenerator};

use crate::collection::Collection;
use crate::remote_write::encode;
use crate::tenant::Tenant;

/// A tenant by itself.
#[derive(Debug)]
pub struct Measured {
    tenant: Tenant,
    section: MetricsGenerator,
    limits: Arc<Limits>,
}

/// What one collection made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collected {
    /// Time series.
    pub series: usize,
    /// Bodies of requests, bytes.
    pub bytes: usize,
}

impl Measured {
    /// A tenant by this configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let (section, limits) = (config.metrics_generator.clone(), Arc::new(config.overrides.defaults.clone()));
        let constant = vec![("__metrics_gen_instance".to_owned(), "generator-0".to_owned())];
        Self { tenant: Tenant::new(&section, constant), section, limits }
    }

    /// Counts the spans of a push; how many.
    ///
    /// # Panics
    /// The bytes are no `TracesData`.
    pub fn push(&mut self, traces_data: &[u8], now_unix_nanos: u64) -> u64 {
        self.tenant.follow(&self.section, &self.limits);
        self.tenant.push(traces_data, now_unix_nanos, u64::MAX).expect("valid").spans
    }

    /// Collects as a running generator does.
    pub fn collect(&mut self, now_unix_nanos: u64) -> Collected {
        let mut collection = Collection::new(&mut self.tenant.registry, now_unix_nanos, 0, "", 2000);
        let mut collected = Collected::default();
        while let Some(mut series) = collection.part(&mut self.tenant.registry) {
            while !series.is_empty() {
                let rest = series.split_off(series.len().min(2000));
                collected.series += series.len();
                collected.bytes += encode(std::mem::replace(&mut series, rest), Vec::new()).len();
            }
        }
        collected
    }

    /// Series as limits count them.
    #[must_use]
    pub fn active_series(&self) -> usize {
        self.tenant.registry.active_series()
    }
}
