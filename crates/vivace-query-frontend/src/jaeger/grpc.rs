//! Version 3 over gRPC: `jaeger.api_v3.QueryService`. Source: docs/facts/clients.md, "Jaeger's query API".

use std::pin::Pin;

use futures::stream::{self, Stream};
use http::HeaderMap;
use prost::Message as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use vivace_core::TenantId;
use vivace_proto::jaeger::api_v3::query_service_server::{QueryService, QueryServiceServer};
use vivace_proto::jaeger::api_v3::{
    FindTracesRequest, GetOperationsRequest, GetOperationsResponse, GetServicesRequest, GetServicesResponse, GetTraceRequest, Operation,
};
use vivace_proto::otlp::{ResourceSpans, ScopeSpans, TracesData};
use vivace_server::{GrpcLimits, grpc_only, tenant};

use super::JaegerApi;
use super::request::{self, Search};
use crate::combine::CombinedTrace;
use crate::error::QueryError;
use crate::finding::Found;

/// Clients refuse messages above 4 MiB.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The listener's routes.
pub(crate) fn service(jaeger: JaegerApi, limits: GrpcLimits) -> axum::Router {
    let service = QueryServiceServer::new(jaeger)
        .max_decoding_message_size(limits.max_receive_bytes)
        .max_encoding_message_size(limits.max_send_bytes);
    let routes = Routes::new(service).prepare().into_axum_router();
    grpc_only(routes, "this port has Jaeger's query API over gRPC; over HTTP it is on query_frontend.jaeger.http_listen_port")
}

type Chunks = Pin<Box<dyn Stream<Item = Result<TracesData, Status>> + Send>>;

#[tonic::async_trait]
impl QueryService for JaegerApi {
    type GetTraceStream = Chunks;
    type FindTracesStream = Chunks;

    async fn get_trace(&self, request: Request<GetTraceRequest>) -> Result<Response<Chunks>, Status> {
        let tenants = self.asking(request.metadata().as_ref())?;
        let id = request::trace_id(&request.get_ref().trace_id).map_err(|error| error.grpc_status())?;
        let found = self.api.whole_trace(&tenants, id).await.map_err(|error| error.grpc_status())?;
        if let Some(max_bytes) = found.too_large_for {
            return Err(QueryError::TraceTooLarge { max_bytes }.grpc_status());
        }
        if found.trace.resource_spans.is_empty() {
            return Err(Status::not_found("trace not found"));
        }
        Ok(chunks(vec![found]))
    }

    async fn find_traces(&self, request: Request<FindTracesRequest>) -> Result<Response<Chunks>, Status> {
        let tenants = self.asking(request.metadata().as_ref())?;
        let query = request.into_inner().query.ok_or_else(|| Status::invalid_argument("query is required"))?;
        let wanted = Search::message(query).and_then(|search| search.wanted()).map_err(|error| error.grpc_status())?;
        let Found { found, .. } =
            self.api.find_whole(&tenants, wanted, self.config.max_traces).await.map_err(|error| error.grpc_status())?;
        Ok(chunks(found))
    }

    async fn get_services(&self, request: Request<GetServicesRequest>) -> Result<Response<GetServicesResponse>, Status> {
        let tenants = self.asking(request.metadata().as_ref())?;
        let found = self.api.services(&tenants, self.config.services_query_duration).await.map_err(|error| error.grpc_status())?;
        Ok(Response::new(GetServicesResponse { services: found.found }))
    }

    async fn get_operations(&self, request: Request<GetOperationsRequest>) -> Result<Response<GetOperationsResponse>, Status> {
        let tenants = self.asking(request.metadata().as_ref())?;
        let GetOperationsRequest { service, span_kind } = request.into_inner();
        if service.is_empty() {
            return Err(Status::invalid_argument("service is required"));
        }
        let found = self.operations(&tenants, &service, &span_kind).await.map_err(|error| error.grpc_status())?;
        let operations = found.found.into_iter().map(|of| Operation { name: of.name, span_kind: of.span_kind.to_owned() });
        Ok(Response::new(GetOperationsResponse { operations: operations.collect() }))
    }
}

impl JaegerApi {
    fn asking(&self, metadata: &HeaderMap) -> Result<Vec<TenantId>, Status> {
        self.api.tenants(metadata).map_err(|error| tenant::grpc_error(&error))
    }
}

/// The spans of traces in messages that clients take. What is charged for a trace is given back with its last message.
fn chunks(traces: Vec<CombinedTrace>) -> Response<Chunks> {
    let messages = traces.into_iter().flat_map(|CombinedTrace { trace, held, .. }| {
        let held = std::sync::Arc::new(held);
        cut(trace.resource_spans, MAX_MESSAGE_BYTES).into_iter().map(move |resource_spans| {
            let _held = std::sync::Arc::clone(&held);
            Ok(TracesData { resource_spans })
        })
    });
    Response::new(Box::pin(stream::iter(messages)))
}

/// Spans in lists of about so many bytes, each with its resource and scope. A span that is larger stands alone.
fn cut(resources: Vec<ResourceSpans>, max_bytes: usize) -> Vec<Vec<ResourceSpans>> {
    let (mut lists, mut bytes) = (vec![Vec::<ResourceSpans>::new()], 0);
    for ResourceSpans { resource, scope_spans, schema_url } in resources {
        let mut is_new_resource = true;
        for ScopeSpans { scope, spans, schema_url: scope_schema_url } in scope_spans {
            let mut is_new_scope = true;
            for span in spans {
                let len = span.encoded_len();
                if bytes > 0 && bytes + len > max_bytes {
                    lists.push(Vec::new());
                    bytes = 0;
                    is_new_resource = true;
                }
                let list = lists.last_mut().expect("there is always one");
                if is_new_resource {
                    list.push(ResourceSpans { resource: resource.clone(), scope_spans: Vec::new(), schema_url: schema_url.clone() });
                    bytes += resource.as_ref().map_or(0, prost::Message::encoded_len);
                }
                let of_resource = list.last_mut().expect("it was pushed");
                if is_new_resource || is_new_scope {
                    of_resource.scope_spans.push(ScopeSpans {
                        scope: scope.clone(),
                        spans: Vec::new(),
                        schema_url: scope_schema_url.clone(),
                    });
                }
                (is_new_resource, is_new_scope) = (false, false);
                of_resource.scope_spans.last_mut().expect("it was pushed").spans.push(span);
                bytes += len;
            }
        }
    }
    lists.retain(|list| !list.is_empty());
    lists
}

#[cfg(test)]
mod tests {
    use vivace_proto::otlp::{Resource, Span};

    use super::*;

    #[test]
    fn messages_are_small_and_hold_every_span_with_its_resource() {
        let span = |id: u8| Span { span_id: vec![id; 8].into(), name: "x".repeat(40), ..Default::default() };
        let resource = |count: u32, spans: [u8; 4]| ResourceSpans {
            resource: Some(Resource { dropped_attributes_count: count, ..Default::default() }),
            scope_spans: spans
                .chunks(2)
                .map(|ids| ScopeSpans { spans: ids.iter().copied().map(span).collect(), ..Default::default() })
                .collect(),
            ..Default::default()
        };
        let all = vec![resource(1, [1, 2, 3, 4]), resource(2, [5, 6, 7, 8])];
        assert_eq!(cut(all.clone(), 1 << 20), vec![all.clone()]);
        let lists = cut(all, 130);
        assert!(lists.len() > 3 && lists.iter().all(|list| !list.is_empty()));
        let flat = lists.iter().flatten().flat_map(|resource| {
            let of = resource.resource.as_ref().map_or(0, |resource| resource.dropped_attributes_count);
            resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |span| (of, span.span_id[0]))
        });
        assert_eq!(flat.collect::<Vec<_>>(), [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (2, 7), (2, 8)]);
        assert!(cut(Vec::new(), 10).is_empty());
    }
}
