//! The HTTP API: parameters in, answers out. Source: docs/facts/http-api.md, "Query API".

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use vivace_core::budget::Charge;
use vivace_core::{TenantError, TenantId};
use vivace_proto::tempopb::{
    MetadataMetrics, PartialStatus, SearchRequest, SearchTagValuesRequest, SearchTagValuesResponse, SearchTagValuesV2Response,
    SearchTagsRequest, SearchTagsResponse, SearchTagsV2Response, SearchTagsV2Scope, TagValue, TraceByIdMetrics, TraceByIdResponse,
};
use vivace_server::{Tenancy, tenant};
use vivace_traceql::TagScope;

use crate::combine::{CombinedTrace, TagCombiner, ValueCombiner, ValueTypes, flat, untyped};
use crate::error::QueryError;
use crate::frontend::{Frontend, attribute_of_v1, intrinsics, intrinsics_v1};
use crate::lookup::{ALL_BLOCKS, Lookup, LookupMode};
use crate::metrics::{Op, QueryTimer};
use crate::metrics_query::{Counted, MetricsQuery};
use crate::params::{self, Params};
use crate::render::{Accepts, Answer, respond};

/// The query API over HTTP and gRPC: what handlers of both need.
#[derive(Clone)]
pub(crate) struct QueryApi {
    pub(crate) frontend: Arc<Frontend>,
    pub(crate) tenancy: Tenancy,
    /// Largest message of a stream, bytes.
    pub(crate) max_message_bytes: usize,
}

/// All routes of the API. Every method is taken; only the query string counts.
pub(crate) fn routes(api: QueryApi) -> Router {
    Router::new()
        .route("/api/traces/{traceID}", any(trace_v1))
        .route("/api/v2/traces/{traceID}", any(trace_v2))
        .route("/api/search", any(search))
        .route("/api/search/tags", any(tags_v1))
        .route("/api/v2/search/tags", any(tags_v2))
        // Tag names may hold slashes, which clients do not escape: everything up to the last part belongs to the name.
        .route("/api/search/tag/{*tagName_values}", any(tag_values_v1))
        .route("/api/v2/search/tag/{*tagName_values}", any(tag_values_v2))
        .route("/api/metrics/query_range", any(metrics_range))
        .route("/api/metrics/query", any(metrics_instant))
        .layer(from_fn(vary))
        .with_state(api)
        .route("/api/echo", any(|| async { "echo\n" }))
}

/// Answers differ by what a client can uncompress.
pub(crate) async fn vary(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Who asks, what they accept, and their parameters.
struct QueryContext {
    tenants: Vec<TenantId>,
    accepts: Accepts,
    params: Params,
}

impl FromRequestParts<QueryApi> for QueryContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &QueryApi) -> Result<Self, Response> {
        let tenants = api.tenants(&parts.headers).map_err(|error| tenant::http_error(&error))?;
        Ok(Self { tenants, accepts: Accepts::of(&parts.headers), params: Params::of(parts.uri.query()) })
    }
}

impl QueryApi {
    pub(crate) fn tenants(&self, headers: &HeaderMap) -> Result<Vec<TenantId>, TenantError> {
        match self.frontend.config.multi_tenant_queries_enabled {
            true => self.tenancy.many(headers),
            false => self.tenancy.one(headers).map(|tenant| vec![tenant]),
        }
    }

    async fn respond(&self, answer: Answer, held: Option<Charge>, accepts: Accepts, warnings: &[String]) -> Response {
        respond(&self.frontend.budget, answer, held, accepts, warnings).await
    }

    /// Runs a query within `api_timeout` and counts it.
    pub(crate) async fn timed<T>(
        &self,
        tenants: &[TenantId],
        op: Op,
        inspected: impl FnOnce(&T) -> u64,
        query: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let timer = QueryTimer::start(tenants, op);
        let result = match self.frontend.timeout() {
            Some(timeout) => tokio::time::timeout(timeout, query).await.unwrap_or(Err(QueryError::Timeout)),
            None => query.await,
        };
        match &result {
            Ok(answer) => timer.end(inspected(answer), true),
            Err(error) => timer.end(0, !error.http_status().is_server_error()),
        }
        result
    }
}

async fn trace_v1(State(api): State<QueryApi>, Path(id): Path<String>, context: QueryContext) -> Response {
    match lookup(&api, &context, &id).await {
        Err(error) => error.into_response(),
        Ok(CombinedTrace { too_large_for: Some(max_bytes), .. }) => QueryError::TraceTooLarge { max_bytes }.into_response(),
        Ok(found) if found.trace.resource_spans.is_empty() => {
            let mut response = StatusCode::NOT_FOUND.into_response();
            // It may be in what could not be looked at.
            crate::render::warn(response.headers_mut(), &said(&found.message));
            response
        }
        Ok(found) => {
            let warnings = said(&found.message);
            api.respond(Answer::TraceV1(found.trace), Some(found.held), context.accepts, &warnings).await
        }
    }
}

async fn trace_v2(State(api): State<QueryApi>, Path(id): Path<String>, context: QueryContext) -> Response {
    match lookup(&api, &context, &id).await {
        Err(error) => error.into_response(),
        Ok(found) => {
            let status = if found.message.is_empty() { PartialStatus::Complete } else { PartialStatus::Partial };
            let metrics = Some(TraceByIdMetrics { inspected_bytes: found.inspected_bytes });
            let warnings = said(&found.message);
            // Not found is an empty trace, not 404: clients would ask the first version again.
            let answer = TraceByIdResponse { trace: Some(found.trace), metrics, status: status as i32, message: found.message };
            api.respond(Answer::Trace(answer), Some(found.held), context.accepts, &warnings).await
        }
    }
}

/// What a look-up could not look at.
fn said(message: &str) -> Vec<String> {
    Some(message).filter(|message| !message.is_empty()).map(str::to_owned).into_iter().collect()
}

async fn lookup(api: &QueryApi, context: &QueryContext, id: &str) -> Result<CombinedTrace, QueryError> {
    let lookup = async {
        let (start, end) = context.params.open_range()?;
        let lookup = Lookup {
            trace_id: params::trace_id(id)?,
            mode: lookup_mode(context.params.get("mode"))?,
            start,
            end,
            blocks: (
                context.params.block_id("blockStart")?.unwrap_or(ALL_BLOCKS.0),
                context.params.block_id("blockEnd")?.unwrap_or(ALL_BLOCKS.1),
            ),
        };
        api.frontend.trace(&context.tenants, lookup).await
    };
    api.timed(&context.tenants, Op::Traces, |trace: &CombinedTrace| trace.inspected_bytes, lookup).await
}

fn lookup_mode(mode: Option<&str>) -> Result<LookupMode, QueryError> {
    match mode {
        None | Some("all") => Ok(LookupMode::All),
        Some("ingesters") => Ok(LookupMode::Ingesters),
        Some("blocks") => Ok(LookupMode::Blocks),
        Some(other) => Err(QueryError::Invalid(format!("invalid mode {other:?}: there are all, ingesters and blocks"))),
    }
}

async fn search(State(api): State<QueryApi>, context: QueryContext) -> Response {
    let query = async {
        let request = search_request(&api, &context)?;
        let (result, mut warnings) = api.frontend.search(&context.tenants, request)?.finish().await?;
        warnings.extend(result.warning());
        let (mut answer, held) = result.finish();
        ValueTypes::default().reconcile(&mut answer.traces);
        Ok((answer, held, warnings))
    };
    let inspected = |(answer, ..): &(_, _, _)| inspected_by_search(answer);
    match api.timed(&context.tenants, Op::Search, inspected, query).await {
        Err(error) => error.into_response(),
        Ok((answer, held, warnings)) => api.respond(Answer::Search(answer), Some(held), context.accepts, &warnings).await,
    }
}

fn inspected_by_search(answer: &vivace_proto::tempopb::SearchResponse) -> u64 {
    answer.metrics.map_or(0, |metrics| metrics.inspected_bytes)
}

fn search_request(api: &QueryApi, context: &QueryContext) -> Result<SearchRequest, QueryError> {
    let params = &context.params;
    let limit = params.int("limit")?;
    if limit.is_some_and(|limit| limit <= 0) {
        return Err(QueryError::Invalid("invalid limit: must be a positive number".to_owned()));
    }
    let spss = params.int("spss")?;
    if spss.is_some_and(|spss| spss < 0) {
        return Err(QueryError::Invalid("invalid spss: must be a non-negative number".to_owned()));
    }
    let number = |value: Option<i64>| u32::try_from(value.unwrap_or(0)).unwrap_or(u32::MAX);
    let (start, end) = params.seconds_range(api.frontend.now())?;
    let query = params.get("q").unwrap_or_default().to_owned();
    let tags = params.get("tags").map(vivace_traceql::parse_tags).transpose().map_err(|error| QueryError::Invalid(error.to_string()))?;
    Ok(SearchRequest {
        tags: tags.into_iter().flatten().collect(),
        min_duration_ms: params.millis("minDuration")?,
        max_duration_ms: params.millis("maxDuration")?,
        limit: number(limit),
        start,
        end,
        query,
        spans_per_span_set: number(spss),
        answering: Vec::new(),
    })
}

async fn tags_v1(State(api): State<QueryApi>, context: QueryContext) -> Response {
    tags(&api, context, |scope, mut scopes, metrics| {
        scopes.extend(intrinsics_v1(scope));
        Answer::Tags(SearchTagsResponse { tag_names: flat(scopes), metrics })
    })
    .await
}

async fn tags_v2(State(api): State<QueryApi>, context: QueryContext) -> Response {
    tags(&api, context, |scope, mut scopes, metrics| {
        scopes.extend(intrinsics(scope));
        Answer::TagsV2(SearchTagsV2Response { scopes, metrics })
    })
    .await
}

/// `answer` is made of the requested scope, the scopes found, and the metrics.
async fn tags(
    api: &QueryApi,
    context: QueryContext,
    answer: impl FnOnce(TagScope, Vec<SearchTagsV2Scope>, Option<MetadataMetrics>) -> Answer,
) -> Response {
    let query = async {
        let (start, end) = context.params.seconds_range(api.frontend.now())?;
        let request = SearchTagsRequest {
            scope: context.params.get("scope").unwrap_or_default().to_owned(),
            query: context.params.get("q").unwrap_or_default().to_owned(),
            start,
            end,
            max_tags_per_scope: context.params.lenient_u32("limit"),
            stale_values_threshold: context.params.lenient_u32("maxStaleValues"),
            answering: Vec::new(),
        };
        let (scope, tags) = api.frontend.tags(&context.tenants, request)?;
        let (found, warnings) = tags.finish().await?;
        Ok((scope, found, warnings))
    };
    match api.timed(&context.tenants, Op::Metadata, |(_, found, _): &(_, TagCombiner, _)| found.inspected_bytes, query).await {
        Err(error) => error.into_response(),
        Ok((scope, found, mut warnings)) => {
            warnings.extend(found.warning());
            api.respond(answer(scope, found.scopes(), inspected(found.inspected_bytes)), None, context.accepts, &warnings).await
        }
    }
}

async fn tag_values_v1(State(api): State<QueryApi>, Path(path): Path<String>, context: QueryContext) -> Response {
    let Some(name) = tag_name(&path) else { return StatusCode::NOT_FOUND.into_response() };
    let (identifier, added) = attribute_of_v1(name);
    tag_values(&api, context, identifier, |values, metrics| {
        Answer::TagValues(SearchTagValuesResponse { tag_values: untyped(values, added), metrics })
    })
    .await
}

async fn tag_values_v2(State(api): State<QueryApi>, Path(path): Path<String>, context: QueryContext) -> Response {
    let Some(name) = tag_name(&path) else { return StatusCode::NOT_FOUND.into_response() };
    tag_values(&api, context, name.to_owned(), |tag_values, metrics| Answer::TagValuesV2(SearchTagValuesV2Response { tag_values, metrics }))
        .await
}

/// What stands before `/values`. The name `.` is cleaned away by clients; what they mean is an empty name.
fn tag_name(path: &str) -> Option<&str> {
    if path == "values" { Some("") } else { path.strip_suffix("/values") }
}

async fn tag_values(
    api: &QueryApi,
    context: QueryContext,
    tag_name: String,
    answer: impl FnOnce(Vec<TagValue>, Option<MetadataMetrics>) -> Answer,
) -> Response {
    let query = async {
        let (start, end) = context.params.seconds_range(api.frontend.now())?;
        let request = SearchTagValuesRequest {
            tag_name,
            query: context.params.get("q").unwrap_or_default().to_owned(),
            start,
            end,
            max_tag_values: context.params.lenient_u32("limit"),
            stale_value_threshold: context.params.lenient_u32("maxStaleValues"),
            answering: Vec::new(),
        };
        api.frontend.tag_values(&context.tenants, request)?.finish().await
    };
    match api.timed(&context.tenants, Op::Metadata, |(found, _): &(ValueCombiner, _)| found.inspected_bytes, query).await {
        Err(error) => error.into_response(),
        Ok((found, mut warnings)) => {
            warnings.extend(found.warning());
            let answer = answer(found.values(), inspected(found.inspected_bytes));
            api.respond(answer, Some(found.into_held()), context.accepts, &warnings).await
        }
    }
}

fn inspected(inspected_bytes: u64) -> Option<MetadataMetrics> {
    Some(MetadataMetrics { inspected_bytes, ..Default::default() })
}

async fn metrics_range(State(api): State<QueryApi>, context: QueryContext) -> Response {
    let query = MetricsQuery::range(&context.params, api.frontend.now());
    let answer = |counted: Counted| {
        let (answer, held) = counted.into_range();
        (Answer::Range(answer), held)
    };
    metrics(&api, context, query, answer).await
}

async fn metrics_instant(State(api): State<QueryApi>, context: QueryContext) -> Response {
    let query = MetricsQuery::instant(&context.params, api.frontend.now());
    let answer = |counted: Counted| {
        let (answer, held) = counted.into_instant();
        (Answer::Instant(answer), held)
    };
    metrics(&api, context, query, answer).await
}

async fn metrics(
    api: &QueryApi,
    context: QueryContext,
    query: Result<MetricsQuery, QueryError>,
    answer: impl FnOnce(Counted) -> (Answer, Charge),
) -> Response {
    let query = async {
        let mut series = api.frontend.series(&context.tenants, query?)?;
        while series.step().await? {}
        // The query keeps its place until its series are made.
        let counted = series.result.counted().await?;
        Ok((series.result.inspected_bytes(), counted, series.run.take_warnings()))
    };
    match api.timed(&context.tenants, Op::Metrics, |(inspected, _, _): &(u64, _, _)| *inspected, query).await {
        Err(error) => error.into_response(),
        // These are answered as JSON whatever the client accepts.
        Ok((_, counted, warnings)) => {
            let (answer, held) = answer(counted);
            api.respond(answer, Some(held), context.accepts.json(), &warnings).await
        }
    }
}
