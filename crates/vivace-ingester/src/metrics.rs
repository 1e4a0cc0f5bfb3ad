//! What the ingester counts. Source: docs/facts/metrics.md, "Buckets".

vivace_core::metrics! {
    /// Bytes of spans in segments that came as their primary's, decompressed.
    counter BYTES_RECEIVED = "tempo_ingester_bytes_received_total" in bytes by "tenant", "data_type";
    /// Traces that became live: spans of them came, and none of them was live before.
    counter TRACES_CREATED = "tempo_ingester_traces_created_total" by "tenant";
    /// Traces that are live now.
    gauge LIVE_TRACES = "tempo_ingester_live_traces" by "tenant";
    /// Bytes of live segments, decompressed.
    gauge LIVE_TRACE_BYTES = "tempo_ingester_live_trace_bytes" in bytes by "tenant";
    /// Traces in segments that something is odd about; `outside_ingestion_time_slack` says that spans are too far from now.
    counter WARNINGS = "tempo_warnings_total" by "tenant", "reason";
    /// Blocks that were built and are in the bucket.
    counter BLOCKS_FLUSHED = "tempo_ingester_blocks_flushed_total";
    /// Flushed blocks that are not served any more, since queriers know them.
    counter BLOCKS_CLEARED = "tempo_ingester_blocks_cleared_total";
    /// Spans that are in no block since another one of their trace has the same id and kind, and other content.
    counter CONFLICTING_SPANS = "vivace_ingester_conflicting_spans_total" by "tenant";
    /// Tries to bring a block into the bucket that failed.
    counter FAILED_FLUSHES = "tempo_ingester_failed_flushes_total";
    /// Tries that were begun for blocks whose try before had failed.
    counter FLUSH_RETRIES = "tempo_ingester_flush_retries_total";
    /// Those of the failed tries that were not a block's first.
    counter FAILED_FLUSH_RETRIES = "tempo_ingester_flush_failed_retries_total";
    /// How long the last try of a flush took.
    histogram FLUSH_DURATION = "tempo_ingester_flush_duration_seconds" in seconds
        at [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
    /// How large flushed blocks are.
    histogram FLUSH_SIZE = "tempo_ingester_flush_size_bytes" in bytes
        at [1_048_576.0, 2_097_152.0, 4_194_304.0, 8_388_608.0, 16_777_216.0, 33_554_432.0, 67_108_864.0, 134_217_728.0, 268_435_456.0,
            536_870_912.0];
    /// Heads that are cut and not in the bucket yet.
    gauge FLUSH_QUEUE_LENGTH = "tempo_ingester_flush_queue_length";
    /// Places of the log that could not be replayed at start. `tenant` is empty where it cannot be read either.
    counter REPLAY_ERRORS = "tempo_ingester_replay_errors_total" by "tenant";
    /// Bytes that were appended to the log and synced.
    counter LOG_BYTES = "vivace_ingester_log_bytes_total" in bytes;
    /// Syncs of the log; each is for all segments that waited.
    counter LOG_SYNCS = "vivace_ingester_log_syncs_total";
    /// Batches of segments that were refused since the log could not be written, as when its volume is full.
    counter LOG_FAILURES = "vivace_ingester_log_failures_total";
    /// Bytes of the log that were damaged at start, and are left out.
    counter LOG_LOST_BYTES = "vivace_ingester_log_lost_bytes_total" in bytes;
    /// Bytes of the log's files.
    gauge LOG_SIZE = "vivace_ingester_log_size_bytes" in bytes;
    /// Segments that are kept in case their primaries cannot flush them.
    gauge HELD_SEGMENTS = "vivace_ingester_held_segments";
    /// Segments that were held for another instance and are live here now.
    counter ADOPTED_SEGMENTS = "vivace_ingester_adopted_segments_total";
    /// Segments that have fewer copies than they were acknowledged with, and are not in the bucket yet.
    gauge UNDER_REPLICATED_SEGMENTS = "vivace_ingester_under_replicated_segments";
    /// What could not be read and is missing in an answer; `what` is `segment` or `block`.
    counter LEFT_OUT = "vivace_ingester_left_out_total" by "what";
}
