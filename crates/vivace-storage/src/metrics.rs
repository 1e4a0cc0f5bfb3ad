//! What is counted about the bucket and the list of its blocks.

vivace_core::metrics! {
    /// Blocks of a tenant that are live, by the last look into the bucket.
    gauge BLOCKLIST_LENGTH = "tempodb_blocklist_length" by "tenant";
    /// How long a look at all tenants took.
    histogram POLL_DURATION = "tempodb_blocklist_poll_duration_seconds" in seconds;
    /// Looks at a tenant's blocks that failed, and blocks whose `meta.json` could not be read.
    counter POLL_ERRORS = "tempodb_blocklist_poll_errors_total" by "tenant";
    /// 1 where this process lists the tenant's blocks and writes the index of them, 0 where it reads the index.
    gauge INDEX_BUILDER = "tempodb_blocklist_tenant_index_builder" by "tenant";
    /// How old the index of a tenant was when it was read.
    gauge INDEX_AGE = "tempodb_blocklist_tenant_index_age_seconds" in seconds by "tenant";
    /// Indexes of a tenant that could not be written or read, or were too old to be used.
    counter INDEX_ERRORS = "tempodb_blocklist_tenant_index_errors_total" by "tenant";
    /// Traces in the blocks of a tenant, one in two blocks counted twice; `status` is `live` or `compacted`.
    gauge BACKEND_OBJECTS = "tempodb_backend_objects_total" by "tenant", "status";
    /// Bytes of the blocks of a tenant; `status` is `live` or `compacted`.
    gauge BACKEND_BYTES = "tempodb_backend_bytes_total" in bytes by "tenant", "status";
    /// Bytes of blocks that were read from the bucket, what caches answered not among them.
    counter READ_BYTES = "vivace_storage_read_bytes_total" in bytes;
    /// Bytes of blocks that were written into the bucket.
    counter WRITTEN_BYTES = "vivace_storage_written_bytes_total" in bytes;
    /// What caches were asked for; `role` is what a cache keeps, `status` whether it had it.
    counter CACHE_REQUESTS = "vivace_storage_cache_requests_total" by "role", "status";
    /// Bytes that a cache keeps.
    gauge CACHE_BYTES = "vivace_storage_cache_bytes" in bytes by "role";
    /// Objects that are damaged or no block, each time that one was met.
    counter BAD_OBJECTS = "vivace_storage_bad_objects_total" by "tenant";
}
