//! Spans of Zipkin's clients over HTTP: version 2 in JSON and protobuf, version 1 in JSON and thrift.
//!
//! Source: docs/facts/http-api.md, "Zipkin (HTTP)".

mod http;
mod json;
mod proto;
mod span;
mod thrift;

#[cfg(test)]
mod tests;

pub(crate) use http::router;
#[cfg(feature = "fuzzing")]
pub(crate) use json::spans_v1;
pub(crate) use {json::spans_v2, proto::spans as spans_proto, thrift::spans as spans_thrift};
