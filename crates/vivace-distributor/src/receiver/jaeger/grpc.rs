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
use vivace_server::{RequestCharge, Tenancy};

use super::proto;
use crate::error::PushError;
use crate::metrics::Receiver;
use crate::push::{Distributor, Incoming};
use crate::receiver::http::INLINE_BYTES_MAX;
use crate::receiver::spans::Spans;
use crate::receiver::tags::Dialect;
use crate::receiver::{NO_METRICS, grpc};
use crate::status;

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
        let (body, charge) = self.converted(request.into_inner()).await?;
        self.distributor.push(Incoming { receiver: Receiver::JaegerGrpc, tenant, skip_metrics, body, charge }).await.map(drop)
    }

    /// The message as OTLP, and what is charged for it. Larger ones are worked on off the async threads.
    async fn converted(&self, message: Bytes) -> Result<(Bytes, RequestCharge), PushError> {
        let charge = self.distributor.requests.open();
        let small = message.len() <= INLINE_BYTES_MAX;
        let work = move || {
            let mut spans = Spans::new(&charge, Dialect::Jaeger, message.len())?;
            proto::request(&message, &mut spans)?;
            Ok(spans.finish()?)
        };
        if small {
            return work();
        }
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "converting a request panicked");
            Err(PushError::Fault(format!("could not convert the message: {error}")))
        })
    }
}
