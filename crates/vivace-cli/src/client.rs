//! HTTP to one running process. A server that cannot be reached is an error, which names the option that its address came from; a
//! refusal is a value, since what a 404 or 400 means depends on the question.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE};

use crate::tls::Tls;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

/// Longest wait for an answer; a search over a week takes its time.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Talks to the HTTP listener of one process.
pub(crate) struct Client {
    http: reqwest::Client,
    address: String,
    /// The option that the address came from, for what is said about it.
    option: &'static str,
    timeout: Duration,
    org_id: Option<String>,
}

/// A refusal of the server, kept apart so that a caller may explain it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

pub(crate) type Answer = Result<Bytes, Refusal>;

impl Client {
    /// For questions to the query API, at the address that `--address` gave.
    pub(crate) fn new(address: &str, org_id: Option<String>, tls: &Tls) -> anyhow::Result<Self> {
        Self::of_option("--address", address, org_id, tls, TIMEOUT)
    }

    /// For the address that some option gave. A request is given up after `timeout`.
    pub(crate) fn of_option(
        option: &'static str,
        address: &str,
        org_id: Option<String>,
        tls: &Tls,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        // An error means that one is installed already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let url = reqwest::Url::parse(&address).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        if url.is_none() {
            bail!("{option} {address} is no address: expected http://host:port");
        }
        let mut http = reqwest::Client::builder().timeout(timeout);
        if address.starts_with("https:") {
            http = http.use_preconfigured_tls(tls.http()?);
        }
        let http = http.build().context("cannot set up an HTTP client")?;
        Ok(Self { http, address: address.trim_end_matches('/').to_owned(), option, timeout, org_id })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks for JSON.
    pub(crate) async fn json(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Answer> {
        self.get(path, query, JSON).await
    }

    /// Asks for protobuf.
    pub(crate) async fn protobuf(&self, path: &str) -> anyhow::Result<Answer> {
        self.get(path, &[], PROTOBUF).await
    }

    /// Asks for whatever there is.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<Answer> {
        self.get(path, &[], "*/*").await
    }

    async fn get(&self, path: &str, query: &[(&str, String)], accept: &str) -> anyhow::Result<Answer> {
        self.send(self.http.get(format!("{}{path}", self.address)).query(query).header(ACCEPT, accept)).await
    }

    /// Sends a protobuf message.
    pub(crate) async fn post(&self, path: &str, message: Vec<u8>) -> anyhow::Result<Answer> {
        self.send(self.http.post(format!("{}{path}", self.address)).header(CONTENT_TYPE, "application/x-protobuf").body(message)).await
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        if let Some(org_id) = &self.org_id {
            request = request.header("X-Scope-OrgID", org_id);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.unreachable(&error)),
        };
        let status = response.status();
        let body = response.bytes().await.with_context(|| format!("the answer of {} broke off", self.address))?;
        if status.is_success() {
            return Ok(Ok(body));
        }
        Ok(Err(Refusal { status, text: String::from_utf8_lossy(&body).trim().to_owned() }))
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let Self { address, option, .. } = self;
        if error.is_timeout() {
            return anyhow!("{address} did not answer within {} seconds", self.timeout.as_secs());
        }
        let reason = innermost(error);
        if error.is_connect() {
            return anyhow!(
                "cannot reach {address}: {reason}\nIs Vivace running there? Start `vivace`, or name its HTTP address with {option}."
            );
        }
        anyhow!("{address}: {reason}")
    }
}

/// What an error says that others have wrapped.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// What an error is, without the lines that say what to do about it.
pub(crate) fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

/// The answer, or the refusal as an error that says what to do.
pub(crate) fn accepted(answer: Answer) -> anyhow::Result<Bytes> {
    match answer {
        Ok(body) => Ok(body),
        Err(Refusal { status: StatusCode::UNAUTHORIZED, text }) => {
            bail!("the server wants to know the tenant ({text}): name it with --org-id")
        }
        Err(Refusal { status, text }) if text.is_empty() => bail!("the server answered {status}"),
        Err(Refusal { status, text }) => bail!("the server answered {status}: {text}"),
    }
}
