//! OTLP over gRPC. The request stays the bytes that it arrived in. Source: docs/facts/grpc-api.md, "OTLP/gRPC receiver".

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, EnabledCompressionEncodings};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Status};
use vivace_server::Tenancy;

use super::{NO_METRICS, response};
use crate::metrics::Receiver;
use crate::push::{Distributor, Incoming};
use crate::raw_codec::RawCodec;
use crate::status;

/// `opentelemetry.proto.collector.trace.v1.TraceService`.
#[derive(Clone)]
pub(crate) struct TraceService {
    pub(crate) distributor: Arc<Distributor>,
    pub(crate) tenancy: Tenancy,
    pub(crate) message_bytes_max: usize,
}

impl NamedService for TraceService {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower_service::Service<Request<Body>> for TraceService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/opentelemetry.proto.collector.trace.v1.TraceService/Export" {
                return Ok(Status::unimplemented("TraceService has the method Export only").into_http());
            }
            let message_bytes_max = this.message_bytes_max;
            Ok(unary(this, message_bytes_max, request).await)
        })
    }
}

/// Calls a method whose messages stay bytes.
pub(super) async fn unary<S>(service: S, message_bytes_max: usize, request: Request<Body>) -> Response<Body>
where
    S: UnaryService<Bytes, Response = Bytes>,
{
    let mut accepted = EnabledCompressionEncodings::default();
    accepted.enable(CompressionEncoding::Gzip);
    accepted.enable(CompressionEncoding::Zstd);
    let mut grpc = Grpc::new(RawCodec)
        .apply_compression_config(accepted, EnabledCompressionEncodings::default())
        .apply_max_message_size_config(Some(message_bytes_max), None);
    let mut response = grpc.unary(service, request).await;
    // The library calls a message over the limit OUT_OF_RANGE, which clients would try again.
    if response.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == code_value(Code::OutOfRange)) {
        response.headers_mut().insert(Status::GRPC_STATUS, code_value(Code::ResourceExhausted));
    }
    response
}

fn code_value(code: Code) -> HeaderValue {
    HeaderValue::from(code as i32)
}

impl UnaryService<Bytes> for TraceService {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let incoming = Incoming {
                receiver: Receiver::OtlpGrpc,
                tenant: this.tenancy.one_of_metadata(request.metadata()),
                skip_metrics: request.metadata().contains_key(NO_METRICS),
                body: request.into_inner(),
                charge: this.distributor.requests.open(),
            };
            match this.distributor.push(incoming).await {
                Ok(accepted) => Ok(tonic::Response::new(response(&accepted))),
                Err(error) => Err(status::grpc(&error)),
            }
        })
    }
}
