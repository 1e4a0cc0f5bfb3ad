//! What the query-frontend counts. Source: docs/facts/metrics.md, "Queries" and "Buckets"; docs/facts/components.md, "Counters of queries".

use std::time::{Duration, Instant};

use vivace_core::TenantId;

vivace_core::metrics! {
    /// Queries that ended; `op` is `traces`, `search`, `metadata` or `metrics`, `result` is `completed` or `canceled`.
    counter QUERIES = "tempo_query_frontend_queries_total" by "tenant", "op", "result";
    /// Those of them within their objective: quick enough where one is set, and no failure of the server.
    counter QUERIES_WITHIN_SLO = "tempo_query_frontend_queries_within_slo_total" by "tenant", "op", "result";
    /// Bytes that completed queries looked at.
    counter BYTES_INSPECTED = "tempo_query_frontend_bytes_inspected_total" in bytes by "tenant", "op";
    /// Sum over completed queries of the bytes that each looked at in a second. A counter, whatever its name says.
    counter BYTES_PER_SECOND = "tempo_query_frontend_bytes_processed_per_second" in bytes by "tenant", "op";
    /// Jobs of a tenant that wait for a querier; `user` is the tenant.
    gauge QUEUE_LENGTH = "tempo_query_frontend_queue_length" by "user";
    /// How long jobs waited for a querier.
    histogram QUEUE_DURATION = "tempo_query_frontend_queue_duration_seconds" in seconds;
    /// Queries that were refused since too many of the tenant wait, or they would have waited too long; `user` is the tenant.
    counter DISCARDED_REQUESTS = "tempo_query_frontend_discarded_requests_total" by "user";
    /// Queriers' streams that take jobs now.
    gauge CONNECTED_CLIENTS = "tempo_query_frontend_connected_clients";
    /// How many times a job was tried again.
    histogram RETRIES = "tempo_query_frontend_retries" at [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
}

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
        metrics::counter!(BYTES_INSPECTED.name, "tenant" => tenant.clone(), "op" => op).increment(inspected_bytes);
        let seconds = self.start.elapsed().max(Duration::from_micros(1)).as_secs_f64();
        metrics::counter!(BYTES_PER_SECOND.name, "tenant" => tenant, "op" => op).increment((inspected_bytes as f64 / seconds) as u64);
    }

    fn count(&self, result: &'static str, in_time: bool) {
        let labels = [("tenant", self.tenant.clone()), ("op", self.op.as_str().to_owned()), ("result", result.to_owned())];
        metrics::counter!(QUERIES.name, &labels).increment(1);
        metrics::counter!(QUERIES_WITHIN_SLO.name, &labels).increment(u64::from(in_time));
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
    metrics::gauge!(CONNECTED_CLIENTS.name).set(0.0);
}
