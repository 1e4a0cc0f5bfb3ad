//! `jaeger.api_v2.CollectorService`. Source: docs/facts/grpc-api.md, "Jaeger's collector".

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use vivace_server::Tenancy;

use super::proto;
use crate::error::PushError;
use crate::metrics::Receiver;
use crate::push::{Distributor, Incoming};
use crate::receiver::body::{Conversion, worked_on};
use crate::receiver::tags::Dialect;
use crate::receiver::{NO_METRICS, grpc};
use crate::status;

const CONVERSION: Conversion = Conversion { dialect: Dialect::Jaeger, read: proto::request };

/// Takes `PostSpans`.
#[derive(Clone)]
pub(crate) struct CollectorService {
    pub(crate) distributor: Arc<Distributor>,
    pub(crate) tenancy: Tenancy,
    pub(crate) message_bytes_max: usize,
}

impl NamedService for CollectorService {
    const NAME: &'static str = "jaeger.api_v2.CollectorService";
}

impl tower_service::Service<Request<Body>> for CollectorService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/jaeger.api_v2.CollectorService/PostSpans" {
                return Ok(Status::unimplemented("CollectorService has the method PostSpans only").into_http());
            }
            let message_bytes_max = this.message_bytes_max;
            Ok(grpc::unary(this, message_bytes_max, request).await)
        })
    }
}

impl UnaryService<Bytes> for CollectorService {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let this = self.clone();
        // `PostSpansResponse` has no fields.
        Box::pin(
            async move { this.store(request).await.map(|()| tonic::Response::new(Bytes::new())).map_err(|error| status::grpc(&error)) },
        )
    }
}

impl CollectorService {
    async fn store(&self, request: tonic::Request<Bytes>) -> Result<(), PushError> {
        let tenant = self.tenancy.one_of_metadata(request.metadata());
        let skip_metrics = request.metadata().contains_key(NO_METRICS);
        let (message, charge) = (request.into_inner(), self.distributor.requests.open());
        let (body, charge) = worked_on(message.len(), move || CONVERSION.of(&message, &charge)).await?;
        let incoming = Incoming { receiver: Receiver::JaegerGrpc, tenant, skip_metrics, body, charge };
        self.distributor.push(incoming).await?.or_refused()
    }
}
