//! Version 3 over HTTP: searches of Jaeger's UI, and Grafana's data source where it is told so.
//! Source: docs/facts/clients.md, "Jaeger's query API".

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use super::error::{V3Error, not_found};
use super::otlp_json::TracesV3;
use super::request::Search;
use super::summary::{Summaries, Summary};
use super::{JaegerApi, Operation, v1};
use crate::asked::Asked;
use crate::error::QueryError;
use crate::finding::Found;

type Answered = Result<Response, V3Error>;

#[derive(Serialize)]
struct Services {
    services: Vec<String>,
}

#[derive(Serialize)]
struct Operations {
    operations: Vec<Operation>,
}

pub(crate) async fn services(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let Found { found, warnings } = jaeger.api.services(asked.tenants()?, jaeger.config.services_query_duration).await?;
    Ok(asked.answer(&jaeger.api, Services { services: found }, &warnings).await?)
}

pub(crate) async fn operations(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let Some(service) = asked.params.get("service") else { return Err(QueryError::Invalid("service is required".to_owned()).into()) };
    let kind = asked.params.get("span_kind").or_else(|| asked.params.get("spanKind")).unwrap_or_default();
    let Found { found, warnings } = jaeger.operations(asked.tenants()?, service, kind).await?;
    Ok(asked.answer(&jaeger.api, Operations { operations: found }, &warnings).await?)
}

pub(crate) async fn traces(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let wanted = Search::v3(&asked.params)?.wanted()?;
    let Found { found, warnings } = jaeger.api.find_whole(asked.tenants()?, wanted, jaeger.config.max_traces).await?;
    if found.is_empty() {
        return Err(not_found("No traces found").into());
    }
    Ok(asked.answer(&jaeger.api, TracesV3(found), &warnings).await?)
}

pub(crate) async fn trace(State(jaeger): State<JaegerApi>, Path(id): Path<String>, asked: Asked) -> Answered {
    let found = v1::one(&jaeger, &asked, &id).await?;
    let warnings: Vec<String> = Some(found.message.clone()).filter(|text| !text.is_empty()).into_iter().collect();
    Ok(asked.answer(&jaeger.api, TracesV3(vec![found]), &warnings).await?)
}

pub(crate) async fn summaries(State(jaeger): State<JaegerApi>, asked: Asked) -> Answered {
    let wanted = Search::v3(&asked.params)?.wanted()?;
    let Found { found, warnings } = jaeger.api.find_whole(asked.tenants()?, wanted, jaeger.config.max_traces).await?;
    let summaries = found.iter().map(|found| Summary::of(&found.trace)).collect();
    Ok(asked.answer(&jaeger.api, Summaries { summaries }, &warnings).await?)
}
