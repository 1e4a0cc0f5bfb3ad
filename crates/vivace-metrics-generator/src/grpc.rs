//! `tempopb.MetricsGenerator`: translates, decides nothing.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vivace_proto::tempopb::metrics_generator_server::MetricsGenerator;
use vivace_proto::tempopb::{PushSpansRequest, PushSpansResponse};
use vivace_server::{Tenancy, clock, tenant};

use crate::tenants::Tenants;

pub(crate) struct Generator {
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) tenancy: Tenancy,
}

#[tonic::async_trait]
impl MetricsGenerator for Generator {
    async fn push_spans(&self, request: Request<PushSpansRequest>) -> Result<Response<PushSpansResponse>, Status> {
        let tenant = self.tenancy.one_of_metadata(request.metadata()).map_err(|error| tenant::grpc_error(&error))?;
        let request = request.into_inner();
        if !request.skip_metrics_generation {
            self.tenants
                .push(&tenant, &request.traces_data, clock::unix_nanos())
                .map_err(|error| Status::invalid_argument(format!("traces_data is no valid message: {error}")))?;
        }
        Ok(Response::new(PushSpansResponse {}))
    }
}
