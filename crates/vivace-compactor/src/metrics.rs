//! What the compactor counts. Source: docs/facts/metrics.md, "Buckets".

vivace_core::metrics! {
    /// Blocks that were merged into others; `level` is that of the new ones.
    counter COMPACTED_BLOCKS = "tempodb_compaction_blocks_total" by "level";
    /// Traces in merged blocks, as they were written.
    counter OBJECTS_WRITTEN = "tempodb_compaction_objects_written_total" by "level";
    /// Bytes of merged blocks, as they were written.
    counter BYTES_WRITTEN = "tempodb_compaction_bytes_written_total" in bytes by "level";
    /// Traces that had parts in several of the blocks that were merged.
    counter OBJECTS_COMBINED = "tempodb_compaction_objects_combined_total" by "level";
    /// Copies of spans that merging dropped.
    counter SPANS_COMBINED = "tempodb_compaction_spans_combined_total" by "replication_factor";
    /// Merges that failed; their blocks stay as they were.
    counter COMPACTION_ERRORS = "tempodb_compaction_errors_total";
    /// Blocks of a tenant that are to be merged by this instance and are not yet, after each round.
    gauge OUTSTANDING_BLOCKS = "tempodb_compaction_outstanding_blocks" by "tenant";
    /// How long a round of retention over all tenants took.
    histogram RETENTION_DURATION = "tempodb_retention_duration_seconds" in seconds at [0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
    /// Blocks that retention could not mark or delete, or whose age could not be found out.
    counter RETENTION_ERRORS = "tempodb_retention_errors_total";
    /// Blocks that were marked since they are older than their retention.
    counter RETENTION_MARKED = "tempodb_retention_marked_for_deletion_total";
    /// Blocks that were deleted, some time after they were marked or merged.
    counter RETENTION_DELETED = "tempodb_retention_deleted_total";
}
