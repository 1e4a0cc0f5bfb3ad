//! Translates gRPC to [`Ingester`] and back; decides nothing.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, Streaming};
use vivace_core::{Chain, TenantId, TraceId};
use vivace_proto::tempopb::querier_server::Querier;
use vivace_proto::tempopb::{
    SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response,
    TraceByIdRequest, TraceByIdResponse,
};
use vivace_proto::vivace::v1::handover_server::Handover;
use vivace_proto::vivace::v1::recent_server::Recent;
use vivace_proto::vivace::v1::segment_log_server::SegmentLog;
use vivace_proto::vivace::v1::{
    CountPlacesRequest, CountPlacesResponse, CoveredRequest, CoveredResponse, PushRequest, PushResponse, ReleaseRequest, ReleaseResponse,
    ResumeRequest, ResumeResponse, SearchPartsRequest, SearchPartsResponse, SequenceRanges, SeriesFromIngester, SeriesToIngester,
    ServeRequest, ServeResponse, SpansRequest, SpansResponse,
};
use vivace_server::{HeldUntilSent, Tenancy, clock, over_budget_status, tenant, warning};

use crate::ingester::Ingester;
use crate::log::LogError;
use crate::push::PushError;
use crate::recent::QueryError;
use crate::segment_set::SegmentSet;
use crate::succession::{Started, serve};

/// What a call gives piece by piece.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The services of an ingester.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) ingester: Arc<Ingester>,
    pub(crate) tenancy: Tenancy,
}

#[tonic::async_trait]
impl SegmentLog for Service {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        self.ingester.push(request.into_inner()).await.map(Response::new).map_err(|e| push_status(&e))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let ReleaseRequest { primary, covered } = request.into_inner();
        let covered = segment_set(&covered)?;
        let store = Arc::clone(&self.ingester.store);
        let released = spawn_blocking(move || store.release(&primary, &covered, clock::unix_seconds())).await;
        released.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn covered(&self, request: Request<CoveredRequest>) -> Result<Response<CoveredResponse>, Status> {
        let CoveredRequest { primary, held } = request.into_inner();
        let id = self.ingester.store.id();
        if *primary != **id {
            return Err(Status::failed_precondition(format!("this is {id}, not {primary}")));
        }
        let held = segment_set(&held)?;
        let store = Arc::clone(&self.ingester.store);
        let answer = spawn_blocking(move || store.covered(&held)).await;
        let (covered, pending) = answer.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(CoveredResponse { covered: covered.to_proto(), pending: pending.to_proto() }))
    }
}

#[tonic::async_trait]
impl Handover for Service {
    async fn serve(&self, request: Request<ServeRequest>) -> Result<Response<ServeResponse>, Status> {
        let ServeRequest { blocks } = request.into_inner();
        let store = Arc::clone(&self.ingester.store);
        let served = spawn_blocking(move || serve(&store, blocks)).await.map_err(|e| Status::internal(e.to_string()))?;
        served.map_err(|e| Status::invalid_argument(Chain(&e).to_string()))?;
        Ok(Response::new(ServeResponse {}))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        let ResumeRequest { primary, known, starts_empty, addr } = request.into_inner();
        if *primary == **self.ingester.store.id() {
            return Err(Status::failed_precondition(format!("this is {primary} itself")));
        }
        let started = Started { id: primary.into(), known: segment_set(&known)?, is_empty: starts_empty, addr };
        Ok(Response::new(self.ingester.succession.answer_resume(started).await))
    }
}

#[tonic::async_trait]
impl Querier for Service {
    async fn find_trace_by_id(&self, request: Request<TraceByIdRequest>) -> Result<Response<TraceByIdResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let TraceByIdRequest { trace_id, answering, .. } = request.into_inner();
        if trace_id.is_empty() || trace_id.len() > 16 {
            return Err(Status::invalid_argument(format!("the trace id has {} bytes, expected 1 to 16", trace_id.len())));
        }
        let found = self.ingester.recent.find_trace(&tenant, TraceId::from_slice(&trace_id), &answering).await;
        let (answer, charge) = found.map_err(|e| query_status(&e))?;
        let mut response = Response::new(answer);
        response.extensions_mut().insert(HeldUntilSent::from(charge));
        Ok(response)
    }

    async fn search_recent(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let found = self.ingester.recent.search(&tenant, request.into_inner()).await.map_err(|e| query_status(&e))?;
        let warning = found.warning;
        Ok(warned(Response::new(SearchResponse { traces: found.traces, metrics: Some(found.metrics) }), warning))
    }

    async fn search_tags_v2(&self, request: Request<SearchTagsRequest>) -> Result<Response<SearchTagsV2Response>, Status> {
        let tenant = self.tenant(&request)?;
        let (names, left_out) = self.ingester.recent.tag_names(&tenant, request.into_inner()).await.map_err(|e| query_status(&e))?;
        Ok(warned(Response::new(names), left_out.warning()))
    }

    async fn search_tag_values_v2(&self, request: Request<SearchTagValuesRequest>) -> Result<Response<SearchTagValuesV2Response>, Status> {
        let tenant = self.tenant(&request)?;
        let (values, left_out) = self.ingester.recent.tag_values(&tenant, request.into_inner()).await.map_err(|e| query_status(&e))?;
        Ok(warned(Response::new(values), left_out.warning()))
    }
}

#[tonic::async_trait]
impl Recent for Service {
    type SearchStream = Messages<SearchResponse>;

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let tenant = self.tenant(&request)?;
        let mut found = self.ingester.recent.search(&tenant, request.into_inner()).await.map_err(|e| query_status(&e))?;
        let warning = found.warning.take();
        Ok(warned(Response::new(messages(found.into_messages())), warning))
    }

    type SearchPartsStream = Messages<SearchPartsResponse>;

    async fn search_parts(&self, request: Request<SearchPartsRequest>) -> Result<Response<Self::SearchPartsStream>, Status> {
        let tenant = self.tenant(&request)?;
        let mut parts = self.ingester.recent.search_parts(&tenant, request.into_inner()).await.map_err(|e| query_status(&e))?;
        let warning = parts.found.warning.take();
        Ok(warned(Response::new(messages(parts.into_messages())), warning))
    }

    async fn count_places(&self, request: Request<CountPlacesRequest>) -> Result<Response<CountPlacesResponse>, Status> {
        let tenant = self.tenant(&request)?;
        let (counts, left_out) = self.ingester.recent.count_places(&tenant, request.into_inner()).await.map_err(|e| query_status(&e))?;
        Ok(warned(Response::new(counts), left_out.warning()))
    }

    type SeriesStream = Messages<SeriesFromIngester>;

    async fn series(&self, request: Request<Streaming<SeriesToIngester>>) -> Result<Response<Self::SeriesStream>, Status> {
        let tenant = self.tenant(&request)?;
        Ok(Response::new(Box::pin(self.ingester.recent.series(tenant, request.into_inner(), query_status))))
    }

    type SpansStream = Messages<SpansResponse>;

    async fn spans(&self, request: Request<SpansRequest>) -> Result<Response<Self::SpansStream>, Status> {
        let tenant = self.tenant(&request)?;
        let spans = self.ingester.recent.spans(&tenant, &request.into_inner(), query_status).map_err(|e| query_status(&e))?;
        Ok(Response::new(Box::pin(spans)))
    }
}

impl Service {
    fn tenant<T>(&self, request: &Request<T>) -> Result<TenantId, Status> {
        self.tenancy.one_of_metadata(request.metadata()).map_err(|e| tenant::grpc_error(&e))
    }
}

fn segment_set(ranges: &[SequenceRanges]) -> Result<SegmentSet, Status> {
    SegmentSet::from_proto(ranges).ok_or_else(|| Status::invalid_argument("an incarnation has not 16 bytes"))
}

fn push_status(error: &PushError) -> Status {
    let message = Chain(error).to_string();
    match error {
        PushError::Invalid(_) => Status::invalid_argument(message),
        PushError::Joining | PushError::ShuttingDown | PushError::Log(LogError::Io { .. } | LogError::Closed) => {
            Status::unavailable(message)
        }
        PushError::Memory { .. } | PushError::Log(LogError::Full { .. }) => Status::resource_exhausted(message),
        PushError::Panicked => Status::internal(message),
    }
}

/// The messages of answers have no place for what is missing in them.
fn warned<T>(mut response: Response<T>, warning: Option<String>) -> Response<T> {
    if let Some(warning) = warning {
        warning::insert(response.metadata_mut(), &warning);
    }
    response
}

/// One after another, as they are asked for.
fn messages<T: Send + 'static>(messages: impl Iterator<Item = T> + Send + 'static) -> Messages<T> {
    Box::pin(futures::stream::iter(messages.map(Ok)))
}

fn query_status(error: &QueryError) -> Status {
    let message = Chain(error).to_string();
    match error {
        QueryError::TooLarge(too_large) if !too_large.never_fits() => {
            let mut status = over_budget_status(&too_large.over);
            if too_large.holds_much() {
                warning::insert_holds_much(status.metadata_mut());
            }
            status
        }
        QueryError::Invalid(_) => Status::invalid_argument(message),
        QueryError::Joining | QueryError::Unavailable(_) => Status::unavailable(message),
        QueryError::TooLarge(_) => Status::resource_exhausted(message),
        QueryError::Internal(_) => Status::internal(message),
    }
}
