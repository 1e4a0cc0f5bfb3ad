//! What the metrics-generator counts of itself. What it makes of spans is not among it.

vivace_core::metrics! {
    /// Spans that came from distributors.
    counter SPANS_RECEIVED = "tempo_metrics_generator_spans_received_total" by "tenant";
    /// Bytes of spans that came from distributors.
    counter BYTES_RECEIVED = "tempo_metrics_generator_bytes_received_total" in bytes by "tenant";
    /// Spans that are in no metric; `outside_metrics_ingestion_slack` ended too far from now, `unreadable` are broken inside, `span_metrics_filtered` are left out by a policy.
    counter SPANS_DISCARDED = "tempo_metrics_generator_spans_discarded_total" by "tenant", "reason", "processor";
    /// Requests that were not counted, as their senders asked.
    counter SKIPPED = "tempo_metrics_generator_metrics_generation_skipped_processor_pushes_total" by "tenant";
    /// 1 for each processor that a tenant has.
    gauge ACTIVE_PROCESSORS = "tempo_metrics_generator_active_processors" by "tenant", "processor";
    /// Series of a tenant that are kept now.
    gauge ACTIVE_SERIES = "tempo_metrics_generator_registry_active_series" by "tenant";
    /// Series that a tenant may have; 0 is any number.
    gauge MAX_ACTIVE_SERIES = "tempo_metrics_generator_registry_max_active_series" by "tenant";
    /// Series that began.
    counter SERIES_ADDED = "tempo_metrics_generator_registry_series_added_total" by "tenant";
    /// Series that ended, since nothing came for them or nothing makes them any more.
    counter SERIES_REMOVED = "tempo_metrics_generator_registry_series_removed_total" by "tenant";
    /// Additions to series that were not made since the tenant has as many as it may; they are in the overflow series.
    counter SERIES_LIMITED = "tempo_metrics_generator_registry_series_limited_total" by "tenant";
    /// Sets of labels of a tenant that are kept now.
    gauge ACTIVE_ENTITIES = "tempo_metrics_generator_registry_active_entities" by "tenant";
    /// Sets of labels that a tenant may have; 0 is any number.
    gauge MAX_ACTIVE_ENTITIES = "tempo_metrics_generator_registry_max_active_entities" by "tenant";
    /// Sets of labels that began.
    counter ENTITIES_ADDED = "tempo_metrics_generator_registry_entities_added_total" by "tenant";
    /// Sets of labels that ended.
    counter ENTITIES_REMOVED = "tempo_metrics_generator_registry_entities_removed_total" by "tenant";
    /// Additions to sets of labels that were not made since the tenant has as many as it may; they are in the overflow series.
    counter ENTITIES_LIMITED = "tempo_metrics_generator_registry_entities_limited_total" by "tenant";
    /// Series that a tenant would have without a limit; an estimate, some 3 % off.
    gauge SERIES_DEMAND = "tempo_metrics_generator_registry_active_series_demand_estimate" by "tenant";
    /// Sets of labels that a tenant would have without a limit; an estimate, some 3 % off.
    gauge ENTITY_DEMAND = "tempo_metrics_generator_registry_entity_demand_estimate" by "tenant";
    /// Labels whose value was replaced, since there are as many values of that label as may be.
    counter VALUES_LIMITED = "vivace_metrics_generator_label_values_limited_total" by "tenant";
    /// Spans whose name has become a pattern; with `span_name_sanitization: dry_run`, would have.
    counter NAMES_PATTERNED = "vivace_metrics_generator_span_names_sanitized_total" by "tenant";
    /// Times that a tenant's series were gathered to be sent.
    counter COLLECTIONS = "tempo_metrics_generator_registry_collections_total" by "tenant";
    /// Calls between services that were counted.
    counter GRAPH_EDGES = "tempo_metrics_generator_processor_service_graphs_edges" by "tenant";
    /// Calls of which only one side came within `wait`, and that name nobody as the other one; those whose other side comes later are in the edges too.
    counter GRAPH_EXPIRED = "tempo_metrics_generator_processor_service_graphs_expired_edges" by "tenant";
    /// Spans of calls that were not kept, since as many wait for their other side as may.
    counter GRAPH_DROPPED = "tempo_metrics_generator_processor_service_graphs_dropped_spans" by "tenant";
    /// Series that were gathered and then dropped, since too much waits for the receiver, they are older than `sample_age_limit`, or the folder cannot be written; the next ones have their sums.
    counter SAMPLES_DROPPED = "prometheus_remote_storage_samples_dropped_total" by "tenant";
    /// Series in requests that wait for a receiver.
    gauge SAMPLES_PENDING = "prometheus_remote_storage_samples_pending" by "tenant", "url";
    /// Series in requests that a receiver took.
    counter SAMPLES_SENT = "prometheus_remote_storage_samples_total" by "tenant", "url";
    /// Series in requests that a receiver refused for good.
    counter SAMPLES_FAILED = "prometheus_remote_storage_samples_failed_total" by "tenant", "url";
    /// Series in requests that failed and are sent again, once for each time.
    counter SAMPLES_RETRIED = "prometheus_remote_storage_samples_retried_total" by "tenant", "url";
}
