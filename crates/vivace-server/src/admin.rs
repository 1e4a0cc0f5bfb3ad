//! What every process answers about itself. Source: docs/facts/http-api.md, "Operator's pages".

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use vivace_config::Config;
use vivace_core::budget::Budget;

use crate::build::{self, BuildInfo};
use crate::memory;
use crate::outgoing::AlwaysSent;
use crate::ready::Readiness;

pub(crate) type RuntimeConfig = Arc<dyn Fn(bool) -> String + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub(crate) struct Pages {
    name: String,
    config: Arc<Config>,
    ready: Readiness,
    recorder: PrometheusHandle,
    budget: Budget,
    grpc_services: Vec<&'static str>,
    pub(crate) runtime_config: Option<RuntimeConfig>,
}

impl Pages {
    pub(crate) fn new(name: &str, config: &Config, ready: Readiness, recorder: PrometheusHandle, budget: Budget) -> Self {
        let config = Arc::new(config.clone());
        Self { name: name.to_owned(), config, ready, recorder, budget, grpc_services: Vec::new(), runtime_config: None }
    }

    pub(crate) fn add_service(&mut self, name: &'static str) {
        self.grpc_services.push(name);
    }

    /// The pages of the main listener.
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/ready", any(ready))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/status/{page}", get(page))
            .with_state(self)
    }

    /// The pages of the internal listener.
    pub(crate) fn internal_routes(&self) -> Router {
        Router::new().route("/ready", any(ready)).route("/metrics", get(metrics)).fallback(not_found).with_state(self.clone())
    }

    fn section(&self, page: &str, mode: &str) -> Option<Result<String, String>> {
        let text = match page {
            "version" => build::text(&self.name),
            "services" => self.services(),
            "endpoints" => self.endpoints(),
            "config" => match mode {
                "" => self.config.to_yaml(),
                "diff" => self.config.to_yaml_diff(),
                "defaults" => Config::defaults_yaml(),
                other => return Some(Err(format!("unknown mode {other:?}: there are diff and defaults\n"))),
            },
            "runtime_config" => match (&self.runtime_config, mode) {
                (None, _) => return None,
                (Some(render), "") => render(false),
                (Some(render), "diff") => render(true),
                (Some(_), other) => return Some(Err(format!("unknown mode {other:?}: there is diff\n"))),
            },
            _ => return None,
        };
        Some(Ok(text))
    }

    fn services(&self) -> String {
        let mut rows =
            vec![("listeners".to_owned(), if self.ready.is_draining() { "Stopping" } else { "Running" }.to_owned(), String::new())];
        for (name, state) in self.ready.services() {
            let (state, failure) = match state {
                Ok(()) => ("Running", String::new()),
                Err(reason) => ("Starting", reason),
            };
            rows.push((name, state.to_owned(), failure));
        }
        table(&["service name", "status", "failure case"], rows.into_iter().map(|(a, b, c)| [a, b, c]))
    }

    fn endpoints(&self) -> String {
        let pages =
            ["/ready", "/metrics", "/status", "/status/{version|services|endpoints|config|runtime_config}", "/api/status/buildinfo"];
        let http = pages.map(|path| ["HTTP".to_owned(), path.to_owned()]);
        let grpc = self.grpc_services.iter().map(|service| ["gRPC".to_owned(), format!("/{service}/*")]);
        table(&["protocol", "path"], http.into_iter().chain(grpc))
    }
}

/// The pages that stand under `http_api_prefix`.
pub(crate) fn buildinfo_routes() -> Router {
    Router::new().route("/api/status/buildinfo", get(|| async { ([("content-type", "application/json")], buildinfo()) }))
}

fn buildinfo() -> String {
    let mut text = serde_json::to_string(&BuildInfo::of_this_build()).expect("a struct of texts is JSON");
    text.push('\n');
    text
}

/// The answer to a path that nothing serves.
pub(crate) async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

async fn ready(State(pages): State<Pages>) -> Response {
    match pages.ready.check() {
        Ok(()) => plain(StatusCode::OK, "ready\n".to_owned()),
        Err(reasons) => plain(StatusCode::SERVICE_UNAVAILABLE, reasons),
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let mut text = pages.recorder.render();
    text.push_str(&memory::render(&pages.budget));
    always_sent(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

#[derive(Deserialize)]
struct Mode {
    #[serde(default)]
    mode: String,
}

async fn status(State(pages): State<Pages>) -> Response {
    let mut out = String::new();
    for page in ["version", "services", "endpoints", "runtime_config", "config"] {
        if let Some(Ok(text)) = pages.section(page, "") {
            writeln!(out, "---\n/status/{page}\n{text}").expect("writing to a string does not fail");
        }
    }
    plain(StatusCode::OK, out)
}

async fn page(State(pages): State<Pages>, Path(page): Path<String>, Query(Mode { mode }): Query<Mode>) -> Response {
    match pages.section(&page, &mode) {
        Some(Ok(text)) => plain(StatusCode::OK, text),
        Some(Err(error)) => plain(StatusCode::BAD_REQUEST, error),
        None => not_found().await,
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    always_sent((status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// What tells how a process is doing is told most of all when it has no memory left.
fn always_sent(mut response: Response) -> Response {
    response.extensions_mut().insert(AlwaysSent);
    response
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(head: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(str::to_uppercase)];
    lines.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
    let mut out = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
