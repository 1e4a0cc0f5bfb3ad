//! What the configuration allows a tenant, read anew each time, since it may change while the process runs.

use std::sync::Arc;

use vivace_block::{BlockOptions, DedicatedColumn, DedicatedOption, DedicatedScope, DedicatedType};
use vivace_config::{Block, ColumnOption, ColumnScope, ColumnType, Limits, ReadLimits};
use vivace_core::TenantId;
use vivace_ring::Ring;

/// Resolves a tenant's limits as they are now.
pub(crate) type LimitsOf = Arc<dyn Fn(&TenantId) -> Arc<Limits> + Send + Sync>;

/// A tenant's limits on traces. 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceLimits {
    /// Live traces of this tenant in this ingester.
    pub(crate) live_traces_max: u64,
    /// Span bytes of a trace while it is remembered.
    pub(crate) trace_bytes_max: u64,
}

/// What each tenant may do, as it is now.
#[derive(Clone)]
pub(crate) struct TenantLimits {
    of: LimitsOf,
    /// What all ingesters allow together is shared among those in it.
    ring: Ring,
    /// `storage.trace.block`, for what a tenant does not say.
    block: Block,
}

impl TenantLimits {
    pub(crate) fn new(of: LimitsOf, ring: Ring, block: Block) -> Self {
        Self { of, ring, block }
    }

    /// On traces.
    pub(crate) fn traces(&self, tenant: &TenantId) -> TraceLimits {
        let limits = (self.of)(tenant);
        let local = limits.ingestion.max_traces_per_user as u64;
        let global = limits.ingestion.max_global_traces_per_user as u64;
        // Each trace is live in one ingester only, its primary.
        let of_global = global.div_ceil((self.ring.snapshot().writable().count() as u64).max(1));
        let live_traces_max = [local, of_global].into_iter().filter(|max| *max > 0).min().unwrap_or(0);
        TraceLimits { live_traces_max, trace_bytes_max: limits.global.max_bytes_per_trace }
    }

    /// On answers.
    pub(crate) fn read(&self, tenant: &TenantId) -> ReadLimits {
        (self.of)(tenant).read.clone()
    }

    /// How a tenant's blocks are written.
    pub(crate) fn block_options(&self, tenant: &TenantId) -> BlockOptions {
        let limits = (self.of)(tenant);
        let columns = &limits.storage.parquet_dedicated_columns;
        let columns = if columns.is_empty() { &self.block.parquet_dedicated_columns } else { columns };
        BlockOptions {
            dedicated_columns: columns.iter().map(dedicated_column).collect(),
            bloom_false_positive: self.block.bloom_filter_false_positive,
            bloom_shard_size_bytes: self.block.bloom_filter_shard_size_bytes,
            row_group_size_bytes: self.block.parquet_row_group_size_bytes,
            ..BlockOptions::default()
        }
    }
}

fn dedicated_column(column: &vivace_config::DedicatedColumn) -> DedicatedColumn {
    let scope = match column.scope {
        ColumnScope::Span => DedicatedScope::Span,
        ColumnScope::Resource => DedicatedScope::Resource,
        ColumnScope::Event => DedicatedScope::Event,
    };
    let kind = match column.column_type {
        ColumnType::String => DedicatedType::String,
        ColumnType::Int => DedicatedType::Int,
    };
    let options = column.options.iter().map(|option| match option {
        ColumnOption::Array => DedicatedOption::Array,
        ColumnOption::Blob => DedicatedOption::Blob,
    });
    let mut dedicated = DedicatedColumn::new(scope, &column.name, kind);
    dedicated.options = options.collect();
    dedicated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_block_are_the_configurations_where_neither_is_told() {
        let configured: Vec<_> = vivace_config::DedicatedColumn::defaults().iter().map(dedicated_column).collect();
        assert_eq!(configured, BlockOptions::default().dedicated_columns);
    }
}
