//! What an operator can ask for: that heads are flushed now, or that the process ends once all of them are. Neither waits until
//! it is done.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;
use serde::Deserialize;
use vivace_core::TenantId;
use vivace_server::Shutdown;

use crate::ingester::Ingester;

#[derive(Clone)]
struct Parts {
    ingester: Arc<Ingester>,
    shutdown: Shutdown,
}

#[derive(Deserialize)]
struct FlushQuery {
    tenant: Option<String>,
}

/// `/flush` and `/shutdown`. Source: docs/facts/http-api.md, "Operator's pages".
pub(crate) fn router(ingester: Arc<Ingester>, shutdown: Shutdown) -> Router {
    Router::new().route("/flush", any(flush)).route("/shutdown", any(shut_down)).with_state(Parts { ingester, shutdown })
}

/// Closes the heads; what they hold is in the bucket soon after.
async fn flush(State(parts): State<Parts>, Query(query): Query<FlushQuery>) -> Response {
    let tenant = match query.tenant.as_deref().map(TenantId::new).transpose() {
        Ok(tenant) => tenant,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    if parts.ingester.store.cut(tenant.as_ref()) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let name = tenant.map(|t| t.to_string()).unwrap_or_default();
    (StatusCode::NOT_FOUND, format!("tenant {name} is not known here\n")).into_response()
}

/// Ends the process after everything is in the bucket.
async fn shut_down(State(parts): State<Parts>) -> &'static str {
    parts.ingester.lifecycle.flush_on_drain();
    parts.shutdown.begin();
    "shutdown job acknowledged"
}
