//! Receives spans, enforces limits, regroups by trace and writes to the replication set
