//! Spans of Jaeger's clients, agents and collectors: thrift over UDP and HTTP, protobuf over gRPC, single spans in messages.
//!
//! Source: docs/facts/http-api.md, "Jaeger"; docs/facts/grpc-api.md, "Jaeger's collector".

pub(crate) mod grpc;
pub(crate) mod http;
mod json;
mod model;
mod proto;
mod thrift;
pub(crate) mod udp;

#[cfg(test)]
mod tests;

pub(crate) use {json::span as json_span, proto::span};
#[cfg(feature = "fuzzing")]
pub(crate) use {proto::request, thrift::batch, thrift::packet};
