//! `/<role>/ring` and `/memberlist`, for people and as JSON.

use axum::extract::{Form, State as AxumState};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{ACCEPT, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{Instance, Membership, Role};

/// The status pages of these rings and of the gossip. A `POST` with `forget=<id>` drops a dead member.
///
/// Source: docs/facts/http-api.md, "Operator's pages".
pub fn router(membership: &Membership, roles: &[Role]) -> Router {
    let mut router = Router::new().route("/memberlist", get(memberlist).with_state(membership.clone()));
    for role in roles {
        let state = (membership.clone(), *role);
        router = router.route(&format!("/{role}/ring"), get(ring).post(forget).with_state(state));
    }
    router
}

#[derive(Serialize)]
struct RingPage {
    shards: Vec<Shard>,
    now: String,
}

#[derive(Serialize)]
struct Shard {
    id: String,
    state: &'static str,
    address: String,
    timestamp: String,
    registered_timestamp: String,
    read_only: bool,
    read_only_updated_timestamp: String,
    zone: String,
    tokens: Vec<u32>,
}

impl From<&Instance> for Shard {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            state: if instance.alive { instance.state.as_str() } else { "UNHEALTHY" },
            address: instance.addr.clone(),
            timestamp: timestamp(instance.last_heartbeat_unix_nanos),
            registered_timestamp: timestamp(instance.registered_unix_seconds.saturating_mul(1_000_000_000)),
            read_only: false,
            read_only_updated_timestamp: String::new(),
            zone: instance.zone.clone(),
            tokens: instance.tokens().map(|t| t.0).collect(),
        }
    }
}

async fn ring(AxumState((membership, role)): AxumState<(Membership, Role)>, headers: HeaderMap) -> Response {
    let page = RingPage {
        shards: membership.instances(role).await.iter().map(Shard::from).collect(),
        now: timestamp(membership.now_unix_nanos()),
    };
    if wants_json(&headers) {
        return Json(page).into_response();
    }
    let rows: String = page
        .shards
        .iter()
        .map(|s| {
            let forget = match s.state {
                "UNHEALTHY" => format!("<form method=post><button name=forget value=\"{}\">Forget</button></form>", escape(&s.id)),
                _ => String::new(),
            };
            row(&[&s.id, &s.zone, s.state, &s.address, &s.registered_timestamp, &s.timestamp, &s.tokens.len().to_string()], &forget)
        })
        .collect();
    let head = ["Instance ID", "Availability Zone", "State", "Address", "Registered At", "Last Heartbeat", "Tokens"];
    html(&format!("Ring status: {role}"), &page.now, &head, &rows)
}

#[derive(Deserialize)]
struct Forget {
    forget: String,
}

async fn forget(AxumState((membership, role)): AxumState<(Membership, Role)>, Form(form): Form<Forget>) -> Response {
    if membership.forget(role, &form.forget).await {
        tracing::info!(%role, id = %form.forget, "member is forgotten on request");
        // Relative, so that it stays right below a path prefix.
        return (StatusCode::FOUND, [(LOCATION, "ring")]).into_response();
    }
    (StatusCode::NOT_FOUND, format!("{:?} is no unhealthy member of the {role} ring", form.forget)).into_response()
}

async fn memberlist(AxumState(membership): AxumState<Membership>, headers: HeaderMap) -> Response {
    let Some(members) = membership.processes().await else {
        return "This process does not gossip: it is a cluster of its own.".into_response();
    };
    let now = timestamp(membership.now_unix_nanos());
    if wants_json(&headers) {
        return Json(serde_json::json!({ "members": members, "now": now })).into_response();
    }
    let rows: String =
        members.iter().map(|m| row(&[&m.name, &m.address, if m.alive { "alive" } else { "dead" }, &m.roles.join(", ")], "")).collect();
    html("Memberlist status", &now, &["Name", "Address", "State", "Roles"], &rows)
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("application/json"))
}

fn timestamp(unix_nanos: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_nanos)).ok().and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_default()
}

fn html(title: &str, now: &str, head: &[&str], rows: &str) -> Response {
    let head: String = head.iter().map(|h| format!("<th>{h}</th>")).collect();
    Html(format!(
        "<!DOCTYPE html><html><head><meta charset=utf-8><title>{title}</title><style>body{{font-family:sans-serif}}\
         td,th{{padding:.3em .8em;text-align:left;border-bottom:1px solid #ccc}}</style></head>\
         <body><h1>{title}</h1><p>Current time: {now}</p><table><tr>{head}<th></th></tr>{rows}</table></body></html>"
    ))
    .into_response()
}

fn row(cells: &[&str], action: &str) -> String {
    let cells: String = cells.iter().map(|c| format!("<td>{}</td>", escape(c))).collect();
    format!("<tr>{cells}<td>{action}</td></tr>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
