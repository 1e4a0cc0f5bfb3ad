//! What the query-frontend counts. Source: docs/facts/metrics.md, "Queries"; docs/facts/components.md, "Counters of queries".

use std::time::{Duration, Instant};

use vivace_core::TenantId;

/// The kinds of query that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Traces,
    Search,
    Metadata,
    Metrics,
}

impl Op {
    fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Search => "search",
            Self::Metadata => "metadata",
            Self::Metrics => "metrics",
        }
    }
}

/// Counts one query from its begin: as canceled, unless [`QueryTimer::end`] is reached.
pub(crate) struct QueryTimer {
    tenant: String,
    op: Op,
    start: Instant,
    ended: bool,
}

impl QueryTimer {
    pub(crate) fn start(tenants: &[TenantId], op: Op) -> Self {
        let tenant = tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join("|");
        Self { tenant, op, start: Instant::now(), ended: false }
    }

    /// The query has been answered after looking at so many bytes; `in_time` is false where that was the server's fault.
    pub(crate) fn end(mut self, inspected_bytes: u64, in_time: bool) {
        self.ended = true;
        self.count("completed", in_time);
        let (tenant, op) = (self.tenant.clone(), self.op.as_str());
        metrics::counter!("tempo_query_frontend_bytes_inspected_total", "tenant" => tenant.clone(), "op" => op).increment(inspected_bytes);
        let seconds = self.start.elapsed().max(Duration::from_micros(1)).as_secs_f64();
        metrics::counter!("tempo_query_frontend_bytes_processed_per_second", "tenant" => tenant, "op" => op)
            .increment((inspected_bytes as f64 / seconds) as u64);
    }

    fn count(&self, result: &'static str, in_time: bool) {
        let labels = [("tenant", self.tenant.clone()), ("op", self.op.as_str().to_owned()), ("result", result.to_owned())];
        metrics::counter!("tempo_query_frontend_queries_total", &labels).increment(1);
        metrics::counter!("tempo_query_frontend_queries_within_slo_total", &labels).increment(u64::from(in_time));
    }
}

impl Drop for QueryTimer {
    fn drop(&mut self) {
        if !self.ended {
            self.count("canceled", true);
        }
    }
}

/// Series without labels that exist from the start.
pub(crate) fn register() {
    metrics::gauge!("tempo_query_frontend_connected_clients").set(0.0);
}
