//! Version 1 over HTTP: Grafana's data source, and what Jaeger's own UI has left of it.
//! Source: docs/facts/clients.md, "Jaeger's query API".

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::JaegerApi;
use super::error::{V1Error, not_found};
use super::request::{self, TracesV1, looking_back};
use super::v1_json::{Envelope, TraceV1};
use crate::asked::Asked;
use crate::combine::CombinedTrace;
use crate::conditions::Conditions;
use crate::error::QueryError;
use crate::finding::{Found, range};
use crate::refusal::Refusal;

type Answered = Result<Response, V1Error>;

/// What the dependencies of no time are of.
const DEPENDENCIES: Duration = Duration::from_secs(24 * 3600);

pub(crate) async fn services(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let Found { found, warnings } = jaeger.api.services(asked.tenants()?, jaeger.config.services_query_duration).await?;
    listed(&jaeger, &asked, found, &warnings).await
}

pub(crate) async fn service_operations(State(jaeger): State<JaegerApi>, Path(path): Path<String>, asked: Asked) -> Answered {
    let Some(service) = path.strip_suffix("/operations") else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "a service has operations only: /api/services/{service}/operations").into());
    };
    let (tenants, of) = (asked.tenants()?, Conditions::of_service(service));
    let Found { found, warnings } = jaeger.api.span_names(tenants, &of, jaeger.config.services_query_duration).await?;
    listed(&jaeger, &asked, found, &warnings).await
}

pub(crate) async fn operations(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let Some(service) = asked.params.get("service") else {
        return Err(QueryError::Invalid("parameter 'service' is required".to_owned()).into());
    };
    let kind = asked.params.get("spanKind").unwrap_or_default();
    let Found { found, warnings } = jaeger.operations(asked.tenants()?, service, kind).await?;
    listed(&jaeger, &asked, found, &warnings).await
}

pub(crate) async fn traces(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let (tenants, api) = (asked.tenants()?, &jaeger.api);
    let Found { found, warnings } = match TracesV1::of(&asked.params, api.frontend.now())? {
        TracesV1::Ids(ids) => Found { found: api.whole_traces(tenants, ids).await?, warnings: Vec::new() },
        TracesV1::Search(search) => api.find_whole(tenants, search.wanted()?, jaeger.config.max_traces).await?,
    };
    listed(&jaeger, &asked, found.into_iter().map(TraceV1).collect(), &warnings).await
}

pub(crate) async fn trace(State(jaeger): State<JaegerApi>, Path(id): Path<String>, asked: Asked) -> Answered {
    let found = one(&jaeger, &asked, &id).await?;
    let warnings: Vec<String> = Some(found.message.clone()).filter(|text| !text.is_empty()).into_iter().collect();
    listed(&jaeger, &asked, vec![TraceV1(found)], &warnings).await
}

/// The trace of an id, which is there.
pub(crate) async fn one(jaeger: &JaegerApi, asked: &Asked, id: &str) -> Result<CombinedTrace, Refusal> {
    let found = jaeger.api.whole_trace(asked.tenants()?, request::trace_id(id)?).await?;
    if let Some(max_bytes) = found.too_large_for {
        return Err(QueryError::TraceTooLarge { max_bytes }.into());
    }
    match (found.trace.resource_spans.is_empty(), found.message.as_str()) {
        (false, _) => Ok(found),
        (true, "") => Err(not_found("trace not found")),
        (true, why) => Err(not_found(&format!("trace not found; not everything could be looked at: {why}"))),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    parent: String,
    child: String,
    call_count: u64,
}

pub(crate) async fn dependencies(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let (start, end) = looking_back(&asked.params, jaeger.api.frontend.now(), DEPENDENCIES)?;
    let calls = jaeger.api.calls(asked.tenants()?, range(start, end), jaeger.config.dependencies_max_traces);
    let Found { found, warnings } = calls.await?;
    let found = found.into_iter().map(|calls| Dependency { parent: calls.parent, child: calls.child, call_count: calls.count });
    listed(&jaeger, &asked, found.collect(), &warnings).await
}

async fn listed<T>(jaeger: &JaegerApi, asked: &Asked, list: Vec<T>, warnings: &[String]) -> Answered
where
    T: Serialize + Send + Sync + 'static,
{
    let total = list.len();
    Ok(asked.answer(&jaeger.api, Envelope::of(list, total), warnings).await?)
}
