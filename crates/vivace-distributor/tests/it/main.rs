//! A distributor's public doors: OTLP over gRPC and HTTP in front, ingesters and generators behind.

mod client;
mod cluster;
mod limits;
mod replication;
mod wire;
