//! The reading half of Zipkin's API, version 2, for its UI and Grafana's Zipkin data source.
//! Source: docs/facts/clients.md, "Zipkin's query API".
//!
//! It translates, as the API of Jaeger does: a search becomes TraceQL, what is found becomes Zipkin's spans.

mod request;
mod span;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Path, State};
use axum::middleware::from_fn;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::{Method, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use vivace_config::ZipkinQuery;

use self::request::{Search, range_of};
use self::span::TraceV2;
use crate::asked::Asked;
use crate::combine::CombinedTrace;
use crate::conditions::{Conditions, kind_is};
use crate::error::QueryError;
use crate::finding::Found;
use crate::http::{QueryApi, vary};
use crate::refusal::Refusal;
use vivace_core::TraceId;
use vivace_traceql::{Attribute, Kind, Scope};

/// Keys whose values the UI completes, at most.
const KEYS: usize = 1000;

/// What all handlers need.
#[derive(Clone)]
pub(crate) struct ZipkinApi {
    pub(crate) api: QueryApi,
    pub(crate) config: Arc<ZipkinQuery>,
}

impl FromRef<ZipkinApi> for QueryApi {
    fn from_ref(zipkin: &ZipkinApi) -> Self {
        zipkin.api.clone()
    }
}

/// An error of Zipkin's: a text.
struct ZipkinError(Refusal);

impl<E: Into<Refusal>> From<E> for ZipkinError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ZipkinError {
    fn into_response(self) -> Response {
        let text = ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.0.message.clone());
        self.0.complete(text.into_response())
    }
}

type Answered = Result<Response, ZipkinError>;

/// All routes, also below `/zipkin`, where the UI asks.
pub(crate) fn routes(zipkin: ZipkinApi) -> Router {
    let allowed = zipkin.config.cors.clone();
    let api = Router::new()
        .route("/api/v2/services", get(services))
        .route("/api/v2/spans", get(spans))
        .route("/api/v2/remoteServices", get(remote_services))
        .route("/api/v2/traces", get(traces))
        .route("/api/v2/trace/{id}", get(trace))
        .route("/api/v2/traceMany", get(trace_many))
        .route("/api/v2/dependencies", get(dependencies))
        .route("/api/v2/autocompleteKeys", get(autocomplete_keys))
        .route("/api/v2/autocompleteValues", get(autocomplete_values))
        .route("/config.json", get(config))
        .route("/health", get(|| async { axum::Json(json!({"status": "UP"})) }));
    let page = || async {
        Html(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Vivace: Zipkin's query API</title></head><body>\
             <h1>Vivace: Zipkin's query API</h1><p>This port answers what Zipkin's UI and Grafana's Zipkin data source ask: \
             <a href=\"/api/v2/services\"><code>/api/v2</code></a>. It has no UI of its own.</p></body></html>\n",
        )
    };
    let pages = Router::new().route("/", get(page)).route("/zipkin", get(page)).route("/zipkin/", get(page));
    let routes = Router::new().nest("/zipkin", api.clone()).merge(api).merge(pages).layer(from_fn(vary)).with_state(zipkin);
    vivace_server::cors(routes, &allowed, &[Method::GET, Method::HEAD])
}

async fn services(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let found = zipkin.api.services(asked.tenants()?, zipkin.config.services_query_duration).await?;
    listed(&zipkin, &asked, found).await
}

async fn spans(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let service = needed(&asked, "serviceName")?;
    let of = Conditions::of_service(service);
    let found = zipkin.api.span_names(asked.tenants()?, &of, zipkin.config.services_query_duration).await?;
    listed(&zipkin, &asked, found).await
}

/// What the service's own spans say about whom it calls.
async fn remote_services(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let mut of = Conditions::of_service(needed(&asked, "serviceName")?);
    of.any_of(&[kind_is(Kind::Client), kind_is(Kind::Producer)]);
    let peer = span_attribute(request::PEER_SERVICE);
    let found = zipkin.api.values(asked.tenants()?, &peer, &of, zipkin.config.services_query_duration).await?;
    listed(&zipkin, &asked, found).await
}

async fn traces(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let wanted = Search::of(&asked.params, zipkin.api.frontend.now())?.wanted()?;
    let Found { found, warnings } = zipkin.api.find_whole(asked.tenants()?, wanted, zipkin.config.max_traces).await?;
    whole(&zipkin, &asked, found, warnings).await
}

async fn trace(State(zipkin): State<ZipkinApi>, Path(id): Path<String>, asked: Asked) -> Answered {
    let found = zipkin.api.whole_trace(asked.tenants()?, trace_id(&id)?).await?;
    if let Some(max_bytes) = found.too_large_for {
        return Err(QueryError::TraceTooLarge { max_bytes }.into());
    }
    if found.trace.resource_spans.is_empty() {
        let why = Some(&found.message).filter(|text| !text.is_empty());
        let more = why.map(|why| format!("; not everything could be looked at: {why}")).unwrap_or_default();
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("{id} not found{more}")).into());
    }
    let warnings: Vec<String> = Some(found.message.clone()).filter(|text| !text.is_empty()).into_iter().collect();
    Ok(asked.answer(&zipkin.api, TraceV2(found), &warnings).await?)
}

async fn trace_many(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let ids: Vec<TraceId> = needed(&asked, "traceIds")?.split(',').map(trace_id).collect::<Result<_, _>>()?;
    let found = zipkin.api.whole_traces(asked.tenants()?, ids).await?;
    whole(&zipkin, &asked, found, Vec::new()).await
}

async fn dependencies(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Link {
        parent: String,
        child: String,
        call_count: u64,
        error_count: u64,
    }
    needed(&asked, "endTs")?;
    let range = range_of(&asked.params, zipkin.api.frontend.now())?;
    let Found { found, warnings } = zipkin.api.calls(asked.tenants()?, range, zipkin.config.dependencies_max_traces).await?;
    let links = found.into_iter().map(|of| Link { parent: of.parent, child: of.child, call_count: of.count, error_count: of.errors });
    Ok(asked.answer(&zipkin.api, links.collect::<Vec<_>>(), &warnings).await?)
}

async fn autocomplete_keys(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let mut found = zipkin.api.span_attributes(asked.tenants()?, zipkin.config.services_query_duration).await?;
    found.found.truncate(KEYS);
    listed(&zipkin, &asked, found).await
}

async fn autocomplete_values(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let attribute = span_attribute(needed(&asked, "key")?);
    let any = Conditions::default();
    let found = zipkin.api.values(asked.tenants()?, &attribute, &any, zipkin.config.services_query_duration).await?;
    listed(&zipkin, &asked, found).await
}

async fn config(State(zipkin): State<ZipkinApi>, asked: Asked) -> Answered {
    let config = json!({
        "environment": "",
        "queryLimit": request::DEFAULT_LIMIT,
        "defaultLookback": 900_000,
        "searchEnabled": true,
        "logsUrl": null,
        "supportUrl": null,
        "archivePostUrl": null,
        "archiveUrl": null,
        "dependency": {"enabled": true, "lowErrorRate": 0.5, "highErrorRate": 0.75},
    });
    Ok(asked.answer(&zipkin.api, config, &[]).await?)
}

async fn listed(zipkin: &ZipkinApi, asked: &Asked, Found { found, warnings }: Found<Vec<String>>) -> Answered {
    Ok(asked.answer(&zipkin.api, found, &warnings).await?)
}

async fn whole(zipkin: &ZipkinApi, asked: &Asked, found: Vec<CombinedTrace>, mut warnings: Vec<String>) -> Answered {
    for text in found.iter().map(|trace| &trace.message).filter(|text| !text.is_empty()) {
        if !warnings.contains(text) {
            warnings.push(text.clone());
        }
    }
    Ok(asked.answer(&zipkin.api, found.into_iter().map(TraceV2).collect::<Vec<_>>(), &warnings).await?)
}

fn needed<'a>(asked: &'a Asked, name: &str) -> Result<&'a str, QueryError> {
    asked.params.get(name).ok_or_else(|| QueryError::Invalid(format!("required parameter {name} is missing")))
}

fn trace_id(text: &str) -> Result<TraceId, QueryError> {
    crate::params::trace_id(text.trim())
}

fn span_attribute(key: &str) -> Attribute {
    Attribute::Named { scope: Scope::Span, key: key.into() }
}
