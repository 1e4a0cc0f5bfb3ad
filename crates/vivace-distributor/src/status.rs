//! `google.rpc.Status`, as gRPC details and as the body of HTTP errors. Source: googleapis `rpc/status.proto`, `rpc/error_details.proto`.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use serde_json::json;
use tonic::Code;

use crate::error::PushError;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProtoDuration {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl From<&PushError> for RpcStatus {
    fn from(error: &PushError) -> Self {
        let details = error.retry_after().map(|delay| Any { type_url: RETRY_INFO.to_owned(), value: retry_info(delay).encode_to_vec() });
        Self { code: error.code() as i32, message: error.to_string(), details: details.into_iter().collect() }
    }
}

fn retry_info(delay: Duration) -> RetryInfo {
    let seconds = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
    RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos: i32::try_from(delay.subsec_nanos()).unwrap_or(0) }) }
}

/// The error as a gRPC status; a retry hint travels in its details.
pub(crate) fn grpc(error: &PushError) -> tonic::Status {
    let details = match error.retry_after() {
        Some(_) => RpcStatus::from(error).encode_to_vec(),
        None => Vec::new(),
    };
    tonic::Status::with_details(error.code(), error.to_string(), Bytes::from(details))
}

/// The error as JSON, in the proto3 mapping.
pub(crate) fn json(error: &PushError) -> serde_json::Value {
    let mut status = json!({ "code": error.code() as i32, "message": error.to_string() });
    if let Some(delay) = error.retry_after() {
        let mut text = format!("{:.9}", delay.as_secs_f64());
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        status["details"] = json!([{ "@type": RETRY_INFO, "retryDelay": format!("{text}s") }]);
    }
    status
}

/// The HTTP status of a gRPC code. Source: docs/facts/http-api.md, "HTTP status of a gRPC code".
pub(crate) fn http(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => 503,
        Code::ResourceExhausted => 429,
        Code::InvalidArgument => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::Unimplemented => 404,
        Code::Unknown | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::Internal => 500,
    }
}
