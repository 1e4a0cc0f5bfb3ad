//! What every process counts. Source: docs/facts/metrics.md, "Requests" and "Limits".
//!
//! Those named after Go carry their honest equivalents, so that Tempo's dashboards keep working.

vivace_core::metrics! {
    /// How long requests took, those of receivers not among them. `route` is the path's template or gRPC's full method, `other` where
    /// there is none; `status_code` is `success`, `error` or `cancel` for gRPC.
    histogram REQUEST_DURATION = "tempo_request_duration_seconds" in seconds by "method", "route", "status_code", "ws"
        at [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];
    /// Requests that are being answered now.
    gauge INFLIGHT_REQUESTS = "tempo_inflight_requests" by "method", "route";
    /// Connections that are open now; `protocol` is the listener's.
    gauge CONNECTIONS = "tempo_tcp_connections" by "protocol";
    /// How many connections a listener takes at once, as configured; 0 where only open files bound it.
    gauge CONNECTIONS_LIMIT = "tempo_tcp_connections_limit" by "protocol";
    /// Connections that were closed as soon as they came, since each open one was at work.
    counter CONNECTIONS_REFUSED = "vivace_connections_refused_total" by "protocol";
    /// Connections that were closed on their clients: `place` for another one that came, `timeout` since too little moved.
    counter CONNECTIONS_CUT = "vivace_connections_cut_total" by "protocol", "reason";
    /// Always 1. Its labels say which Tempo this program is compatible with and what it was built from.
    gauge TEMPO_BUILD_INFO = "tempo_build_info" by "version", "revision", "branch", "goversion", "goos", "goarch", "tags";
    /// Always 1. `version` is Vivace's own.
    gauge BUILD_INFO = "vivace_build_info" by "version";
    /// Limits of tenants that have none of their own; `block_retention` in nanoseconds.
    gauge LIMITS_DEFAULTS = "tempo_limits_defaults" by "limit_name";
    /// Limits of each tenant that the file of limits names; `user` is the tenant.
    gauge LIMITS_OVERRIDES = "tempo_limits_overrides" by "limit_name", "user";
    /// 1 while the file of limits per tenant could be read at the last look, else 0. Absent where there is no such file.
    gauge RUNTIME_CONFIG_LOADED = "tempo_runtime_config_last_reload_successful" by "config";
    /// Always 0: tenants cannot change their limits over HTTP here. It is there for alerts that look for it.
    counter USER_OVERRIDES_FAILED = "tempo_overrides_user_configurable_overrides_reload_failed_total";
    /// What was refused since it did not fit into the memory of its account.
    counter MEMORY_REFUSED = "vivace_memory_refused_total" by "account";
    /// Bytes that an account of the memory budget holds.
    gauge MEMORY = "vivace_memory_bytes" in bytes by "account";
    /// Bytes that all accounts together may hold.
    gauge MEMORY_LIMIT = "vivace_memory_limit_bytes" in bytes;
    /// Bytes that the program asked the allocator for and has not given back.
    gauge ALLOCATED = "vivace_allocator_allocated_bytes" in bytes;
    /// Bytes of the pages that those stand in.
    gauge ALLOCATOR_ACTIVE = "vivace_allocator_active_bytes" in bytes;
    /// Bytes of the pages that the allocator has from the system, with those that it keeps for later.
    gauge ALLOCATOR_RESIDENT = "vivace_allocator_resident_bytes" in bytes;
    /// Processor time that the process has used, in the system's calls too.
    counter PROCESS_CPU = "process_cpu_seconds_total" in seconds;
    /// Bytes of the process that are in memory.
    gauge PROCESS_RESIDENT = "process_resident_memory_bytes" in bytes;
    /// Bytes of the process' address space.
    gauge PROCESS_VIRTUAL = "process_virtual_memory_bytes" in bytes;
    /// When the process began, since 1970.
    gauge PROCESS_START = "process_start_time_seconds" in seconds;
    /// Threads of the process.
    gauge PROCESS_THREADS = "process_threads";
    /// Files and sockets that are open.
    gauge PROCESS_OPEN_FDS = "process_open_fds";
    /// How many files and sockets may be open.
    gauge PROCESS_MAX_FDS = "process_max_fds";
    /// The same as `vivace_allocator_active_bytes`, by the name that dashboards made for Go look for.
    gauge GO_HEAP_INUSE = "go_memstats_heap_inuse_bytes" in bytes;
    /// Tasks of the asynchronous runtime that have not ended, which are what goroutines are in Go.
    gauge GO_GOROUTINES = "go_goroutines";
    /// Always 0: there is no garbage collector.
    counter GO_GC_COUNT = "go_gc_duration_seconds_count";
}
