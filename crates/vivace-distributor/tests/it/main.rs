//! A distributor's public doors: OTLP over gRPC and HTTP in front, ingesters and generators behind.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod client;
mod cluster;
mod copies;
mod jaeger;
#[expect(dead_code, reason = "the other half is what tests of the converters use")]
mod jaeger_batch;
mod limits;
mod replication;
mod unusual;
mod wire;
mod zipkin;
mod zipkin_v1;
