//! A distributor's public doors: OTLP over gRPC and HTTP in front, ingesters and generators behind.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod client;
mod cluster;
mod copies;
mod limits;
mod replication;
mod wire;
