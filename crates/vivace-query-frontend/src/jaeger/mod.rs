//! Jaeger's query API, for its UI, Grafana's Jaeger data source and others: version 1 and 3 as JSON over HTTP, and version 3 over gRPC.
//!
//! It translates: a search becomes TraceQL, what is found becomes Jaeger's model. What may be asked, by whom, and how much at once,
//! are matters of the query API.

mod error;
mod grpc;
mod monitor;
mod otlp_json;
mod page;
mod prometheus;
mod request;
mod summary;
mod v1;
mod v1_json;
mod v3;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn;
use axum::routing::{any, get, post};
use http::{Method, StatusCode};
use vivace_config::JaegerQuery;
use vivace_core::TenantId;

use self::error::V1Error;
pub(crate) use self::grpc::service;
use self::prometheus::Prometheus;
use crate::conditions::{Conditions, KINDS};
use crate::error::QueryError;
use crate::finding::Found;
use crate::http::{QueryApi, vary};
use crate::refusal::Refusal;

/// What all handlers need.
#[derive(Clone)]
pub(crate) struct JaegerApi {
    api: QueryApi,
    config: Arc<JaegerQuery>,
    /// Where one is configured.
    prometheus: Option<Prometheus>,
}

impl FromRef<JaegerApi> for QueryApi {
    fn from_ref(jaeger: &JaegerApi) -> Self {
        jaeger.api.clone()
    }
}

/// A name of spans, and the kind they have; empty where it is none or not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    name: String,
    span_kind: &'static str,
}

impl JaegerApi {
    /// # Errors
    /// The client that asks Prometheus cannot be set up.
    pub(crate) fn new(api: QueryApi, config: &JaegerQuery) -> anyhow::Result<Self> {
        let prometheus = if config.prometheus_url.is_empty() { None } else { Some(Prometheus::new(&config.prometheus_url)?) };
        Ok(Self { api, config: Arc::new(config.clone()), prometheus })
    }

    /// The operations of a service, sorted; with their kinds, which takes a query for each of them, or of one kind.
    async fn operations(&self, tenants: &[TenantId], service: &str, kind: &str) -> Result<Found<Vec<Operation>>, QueryError> {
        let kinds = match request::kind(kind)? {
            Some(one) => vec![one],
            None => KINDS.to_vec(),
        };
        let of_kinds = kinds.into_iter().map(async |(name, kind)| {
            let mut conditions = Conditions::of_service(service);
            conditions.kind(kind);
            let Found { found, warnings } = self.api.span_names(tenants, &conditions, self.config.services_query_duration).await?;
            let span_kind = if name == "unspecified" { "" } else { name };
            let operations = found.into_iter().map(|name| Operation { name, span_kind }).collect::<Vec<_>>();
            Ok::<_, QueryError>((operations, warnings))
        });
        let (mut all, mut warnings) = (Vec::new(), Vec::new());
        for (operations, missing) in futures::future::try_join_all(of_kinds).await? {
            all.extend(operations);
            missing.into_iter().for_each(|text| {
                if !warnings.contains(&text) {
                    warnings.push(text);
                }
            });
        }
        all.sort_unstable();
        Ok(Found { found: all, warnings })
    }
}

/// All routes of HTTP.
pub(crate) fn routes(jaeger: JaegerApi) -> Router {
    let config = Arc::clone(&jaeger.config);
    let routes = Router::new()
        .route("/api/services", get(v1::services))
        // Names of services may hold slashes, which clients do not escape.
        .route("/api/services/{*service_operations}", get(v1::service_operations))
        .route("/api/operations", get(v1::operations))
        .route("/api/traces", get(v1::traces))
        .route("/api/traces/{id}", get(v1::trace))
        .route("/api/dependencies", get(v1::dependencies))
        .route("/api/metrics/{kind}", get(monitor::metrics))
        .route(
            "/api/archive/{id}",
            post(|| async { not_here("there is no archive: traces are kept as long as compactor.compaction.block_retention says") }),
        )
        .route("/api/transform", post(|| async { not_here("files are not shown: send their spans to an OTLP receiver") }))
        .route("/api/v3/services", get(v3::services))
        .route("/api/v3/operations", get(v3::operations))
        .route("/api/v3/traces", get(v3::traces))
        .route("/api/v3/traces/{id}", get(v3::trace))
        .route("/api/v3/trace-summaries", get(v3::summaries))
        .route("/api/{*path}", any(|| async { V1Error::from(Refusal::new(StatusCode::NOT_FOUND, "Jaeger's query API has no such path")) }))
        .route("/trace/{id}", get(page::trace))
        .route("/", get(page::start))
        .route("/search", get(page::start))
        .layer(from_fn(vary))
        .with_state(jaeger);
    vivace_server::cors(routes, &config.cors, &[Method::GET, Method::HEAD])
}

fn not_here(why: &str) -> V1Error {
    V1Error::from(Refusal::new(StatusCode::NOT_IMPLEMENTED, why))
}
