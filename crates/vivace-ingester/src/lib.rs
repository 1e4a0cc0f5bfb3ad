//! Holds live traces, logs them before the acknowledgement, builds and flushes blocks, answers queries on recent data
