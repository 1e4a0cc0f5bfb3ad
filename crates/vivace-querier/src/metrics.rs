//! What the querier counts.

vivace_core::metrics! {
    /// How long jobs took, by the kind of job; `status` is `ok` or `error`.
    histogram JOB_DURATION = "vivace_querier_job_duration_seconds" in seconds by "job", "status";
    /// Calls of ingesters that failed, whether or not others answered in their place.
    counter INGESTER_FAILURES = "vivace_querier_ingester_failures_total";
    /// Query-frontends that this querier takes jobs from now.
    gauge CONNECTED_FRONTENDS = "vivace_querier_connected_frontends";
    /// Bytes of trace ids of row groups that are kept for the next look-up.
    gauge TRACE_IDS_CACHE = "vivace_querier_trace_ids_cache_bytes" in bytes;
}
