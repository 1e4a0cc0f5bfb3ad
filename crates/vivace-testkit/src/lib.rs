//! Builders, strategies and process control for tests
