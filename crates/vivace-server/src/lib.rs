//! What every process has: config loading, listeners, tenant header, admin routes, telemetry, drain
