//! `tempopb.MetricsGenerator`: translates, decides nothing.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vivace_core::Chain;
use vivace_proto::tempopb::metrics_generator_server::MetricsGenerator;
use vivace_proto::tempopb::{PushSpansRequest, PushSpansResponse};
use vivace_server::{Tenancy, clock, tenant};

use crate::metrics::SKIPPED;
use crate::tenants::{PushError, Tenants};

pub(crate) struct Generator {
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) tenancy: Tenancy,
}

#[tonic::async_trait]
impl MetricsGenerator for Generator {
    async fn push_spans(&self, request: Request<PushSpansRequest>) -> Result<Response<PushSpansResponse>, Status> {
        let tenant = self.tenancy.one_of_metadata(request.metadata()).map_err(|error| tenant::grpc_error(&error))?;
        let request = request.into_inner();
        if request.skip_metrics_generation {
            metrics::counter!(SKIPPED.name, "tenant" => tenant.to_string()).increment(1);
            return Ok(Response::new(PushSpansResponse {}));
        }
        let tenants = self.tenants.clone();
        // Counting takes time and may wait for a collection, neither of which the async threads have.
        let work = move || tenants.push(&tenant, &request.traces_data, clock::unix_nanos());
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => Ok(Response::new(PushSpansResponse {})),
            Ok(Err(PushError::Invalid(error))) => Err(Status::invalid_argument(format!("traces_data is no valid message: {error}"))),
            Ok(Err(error @ PushError::Folder { .. })) => {
                tracing::error!(error = %Chain(&error), "spans are missing in metrics");
                Err(Status::internal(Chain(&error).to_string()))
            }
            Err(error) => {
                tracing::error!(%error, "counting spans panicked");
                Err(Status::internal(format!("a fault in this program, not in the request: {error}")))
            }
        }
    }
}
