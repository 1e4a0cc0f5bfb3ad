//! The ingester.
mod log;
mod ranges;
mod segment;
