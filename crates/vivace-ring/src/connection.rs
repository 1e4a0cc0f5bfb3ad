//! How a member is called: over a connection, or, where it is this process itself, without one. Both take the same requests.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use futures::FutureExt as _;
use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The gRPC services of this process, once they are served.
#[derive(Clone)]
pub struct OwnServices(Arc<dyn Fn() -> Option<Router> + Send + Sync>);

impl OwnServices {
    /// `services` is asked at each call until it knows.
    pub fn new(services: impl Fn() -> Option<Router> + Send + Sync + 'static) -> Self {
        Self(Arc::new(services))
    }

    pub(crate) fn now(&self) -> Option<Router> {
        (self.0)()
    }
}

impl fmt::Debug for OwnServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnServices").finish_non_exhaustive()
    }
}

/// What gRPC clients send their calls through. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Connection {
    /// To another process.
    Remote(Channel),
    /// To this one.
    Own(Router),
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self {
            Self::Remote(channel) => channel.poll_ready(context).map_err(Error::from),
            Self::Own(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Remote(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
            Self::Own(services) => {
                let answer = services.call(request);
                Box::pin(async move {
                    // As a connection would break: who calls goes on.
                    let answered = AssertUnwindSafe(answer).catch_unwind().await.map_err(|_| Error::from("the call panicked"))?;
                    Ok(answered.unwrap_or_else(|never| match never {}).map(Body::new))
                })
            }
        }
    }
}
