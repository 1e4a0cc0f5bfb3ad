//! Whether what is sent can be found: writes a trace, reads it by its id, and searches for it, all under one deadline. What may
//! pass is tried again and its reason shown at once; what will not pass ends the check, with a hint.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use prost::Message;
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use vivace_core::TraceId;
use vivace_proto::tempopb::{PartialStatus, TraceByIdResponse};

use super::otlp::Receiver;
use super::spans::Probe;
use crate::Ending;
use crate::client::{Answer, Client, Refusal, first_line};
use crate::text::duration;
use crate::tls::Tls;

/// Between two tries of the same step.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// What is searched before and after the trace's time.
const AROUND_SECONDS: u64 = 60;

/// Write a small trace, and read it back by its id and by a search.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// OTLP receiver of `vivace`, a distributor or a collector: http://host:4318, or grpc://host:4317 for gRPC; https and grpcs are TLS.
    #[arg(long, default_value = "http://127.0.0.1:4318")]
    write: String,
    /// HTTP listener of `vivace` or of a query-frontend.
    #[arg(long, default_value = "http://127.0.0.1:3200")]
    read: String,
    /// Tenant. Needed where multitenancy is on.
    #[arg(long)]
    org_id: Option<String>,
    /// Longest time for all of it, such as 30s or 2m.
    #[arg(long, default_value = "60s")]
    within: String,
    #[command(flatten)]
    tls: Tls,
}

/// What one try of a step came to.
enum Tried {
    Done(String),
    /// Not yet; the reason.
    Again(String),
    /// Never; the reason.
    Failed(String),
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let within = vivace_config::parse_duration(&command.within)
        .map_err(|why| anyhow!("--within {:?}, {why}: expected 30s or 2m", command.within))
        .and_then(|within| (!within.is_zero()).then_some(within).context("--within is no time at all: expected 30s or 2m"))?;
    let receiver = Receiver::new(&command.write, command.org_id.clone(), &command.tls, ANSWER)?;
    let client = Client::of_option("--read", &command.read, command.org_id.clone(), &command.tls, ANSWER)?;
    let now = vivace_server::clock::unix_nanos();
    let probe = Probe::new(uuid::Uuid::new_v4().into_bytes(), now);
    let tenant = command.org_id.as_ref().map_or_else(String::new, |tenant| format!(" for tenant {tenant}"));
    writeln!(out, "Trace {} of {} spans{tenant}, within {}", probe.id, probe.len(), command.within)?;
    let began = Instant::now();
    let mut steps = Steps { out, began, deadline: began + within, within: command.within };

    let (to, from) = (receiver.address(), client.address());
    let sent = async || match receiver.send(&probe.spans).await {
        Ok(()) => Tried::Done(format!("{to} took it")),
        Err(not) if not.again => Tried::Again(not.reason),
        Err(not) => Tried::Failed(not.reason),
    };
    let hint = "Is an OTLP receiver there, and ready? --write names it; grpc://host:port is one for gRPC.";
    steps.take("write", hint, sent).await?;

    let by_id = async || match client.protobuf(&format!("/api/v2/traces/{}", probe.id)).await {
        Ok(answer) => whole(&probe, answer),
        Err(error) => Tried::Again(first_line(&error)),
    };
    let hint = format!("{to} took the trace. Is {from}, of --read, a query-frontend of the same installation, and is it ready?");
    steps.take("read by id", &hint, by_id).await?;

    let query = probe.query();
    let seconds = now / 1_000_000_000;
    let parameters = [
        ("q", query.clone()),
        ("start", (seconds - AROUND_SECONDS.min(seconds)).to_string()),
        ("end", (seconds + AROUND_SECONDS).to_string()),
        ("limit", "20".to_owned()),
    ];
    let search = async || match client.json("/api/search", &parameters).await {
        Ok(answer) => found(probe.id, &query, answer),
        Err(error) => Tried::Again(first_line(&error)),
    };
    let hint =
        format!("{from} gives the trace by its id, so it is there. Are its clock and this machine's the same? What do its queriers log?");
    steps.take("search", &hint, search).await?;
    writeln!(steps.out, "The trace was written and read back in {}.", took(began))?;
    Ok(Ending::Good)
}

/// Steps under one deadline. Each says how it went, and why it goes on where it does.
struct Steps<'o> {
    out: &'o mut dyn Write,
    began: Instant,
    deadline: Instant,
    within: String,
}

impl Steps<'_> {
    /// Tries until a step is done.
    ///
    /// # Errors
    /// The step, the last reason why it was not done, and the hint.
    async fn take(&mut self, name: &str, hint: &str, mut attempt: impl AsyncFnMut() -> Tried) -> anyhow::Result<()> {
        let mut last = "there was no answer".to_owned();
        loop {
            match timeout_at(self.deadline, attempt()).await {
                Ok(Tried::Done(what)) => {
                    return self.say(name, &format!("{what}, {} after the start", took(self.began)));
                }
                Ok(Tried::Failed(reason)) => bail!("{name} failed: {reason}\n{hint}"),
                Ok(Tried::Again(reason)) => {
                    if reason != last {
                        self.say(name, &format!("not yet: {reason}"))?;
                        last = reason;
                    }
                }
                Err(_) => {}
            }
            if Instant::now() + PAUSE >= self.deadline {
                bail!("{name} failed, {} are over: {last}\n{hint}", self.within);
            }
            sleep(PAUSE).await;
        }
    }

    /// A line at once, for whoever waits.
    fn say(&mut self, name: &str, what: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{name:<10}  {what}")?;
        Ok(self.out.flush()?)
    }
}

fn took(began: Instant) -> String {
    duration(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn whole(probe: &Probe, answer: Answer) -> Tried {
    let body = match taken(answer) {
        Ok(body) => body,
        Err(tried) => return tried,
    };
    let Ok(answer) = TraceByIdResponse::decode(body) else {
        return Tried::Failed("the answer is no trace".to_owned());
    };
    let resources = answer.trace.unwrap_or_default().resource_spans;
    let there = probe.count_in(&resources);
    if answer.status == PartialStatus::Partial as i32 {
        return Tried::Again(format!("{there} of {} spans, and this is not all of it: {}", probe.len(), answer.message));
    }
    let spans = format!("{there} of {} spans", probe.len());
    if there == probe.len() { Tried::Done(spans) } else { Tried::Again(spans) }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    traces: Vec<FoundTrace>,
}

#[derive(Debug, Deserialize)]
struct FoundTrace {
    #[serde(rename = "traceID")]
    trace_id: String,
}

fn found(id: TraceId, query: &str, answer: Answer) -> Tried {
    let body = match taken(answer) {
        Ok(body) => body,
        Err(tried) => return tried,
    };
    let Ok(answer) = serde_json::from_slice::<Found>(&body) else {
        return Tried::Failed("the answer is no search result".to_owned());
    };
    // Answers may leave out leading zeros.
    if answer.traces.iter().any(|trace| trace.trace_id.parse() == Ok(id)) {
        Tried::Done(format!("{query} finds it"))
    } else {
        Tried::Again("no trace matches".to_owned())
    }
}

/// The body of an answer. What a server is to blame for may pass; what the request is to blame for does not.
fn taken(answer: Answer) -> Result<Bytes, Tried> {
    match answer {
        Ok(body) => Ok(body),
        Err(Refusal { status: StatusCode::NOT_FOUND, .. }) => Err(Tried::Again("not found (404)".to_owned())),
        Err(Refusal { status: StatusCode::UNAUTHORIZED, text }) => {
            Err(Tried::Failed(format!("the server wants to know the tenant ({text}): name it with --org-id")))
        }
        Err(Refusal { status, text }) => {
            let reason = format!("the answer was {status}: {text}");
            let again = status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
            Err(if again { Tried::Again(reason) } else { Tried::Failed(reason) })
        }
    }
}
