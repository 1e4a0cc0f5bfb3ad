//! Spans of Jaeger's clients and agents: thrift over UDP and HTTP, protobuf over gRPC.
//!
//! Source: docs/facts/http-api.md, "Jaeger"; docs/facts/grpc-api.md, "Jaeger's collector".

pub(crate) mod grpc;
pub(crate) mod http;
mod model;
mod proto;
mod thrift;
pub(crate) mod udp;

#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
pub(crate) use {proto::request, thrift::batch, thrift::packet};
