//! What the metrics-generator counts of itself. What it makes of spans is not among it.

vivace_core::metrics! {
    /// Spans that came from distributors.
    counter SPANS_RECEIVED = "tempo_metrics_generator_spans_received_total" by "tenant";
    /// Bytes of spans that came from distributors.
    counter BYTES_RECEIVED = "tempo_metrics_generator_bytes_received_total" in bytes by "tenant";
    /// Spans that are in no metric; `outside_metrics_ingestion_slack` ended too far from now, `unreadable` are broken inside.
    counter SPANS_DISCARDED = "tempo_metrics_generator_spans_discarded_total" by "tenant", "reason", "processor";
    /// Series of a tenant that are kept now.
    gauge ACTIVE_SERIES = "tempo_metrics_generator_registry_active_series" by "tenant";
    /// Series that were not made since the tenant has as many as it may.
    counter SERIES_LIMITED = "tempo_metrics_generator_registry_series_limited_total" by "tenant";
    /// Times that a tenant's series were gathered to be sent.
    counter COLLECTIONS = "tempo_metrics_generator_registry_collections_total" by "tenant";
    /// Series that were gathered and then dropped, since the receiver lags by the whole queue; the next ones have their sums.
    counter SAMPLES_DROPPED = "prometheus_remote_storage_samples_dropped_total" by "tenant";
    /// Series in requests that a receiver took.
    counter SAMPLES_SENT = "prometheus_remote_storage_samples_total" by "tenant", "url";
    /// Series in requests that a receiver refused for good.
    counter SAMPLES_FAILED = "prometheus_remote_storage_samples_failed_total" by "tenant", "url";
    /// Series in requests that failed and are sent again, once for each time.
    counter SAMPLES_RETRIED = "prometheus_remote_storage_samples_retried_total" by "tenant", "url";
}
