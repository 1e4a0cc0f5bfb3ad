use std::error::Error;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::ACCEPT;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

/// Longest wait for an answer; a search over a week takes its time.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Talks to the query API.
pub(crate) struct Client {
    http: reqwest::Client,
    address: String,
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
    pub(crate) fn new(address: &str, org_id: Option<String>) -> anyhow::Result<Self> {
        // An error means that one is installed already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(TIMEOUT).build().context("cannot set up an HTTP client")?;
        let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Ok(Self { http, address: address.trim_end_matches('/').to_owned(), org_id })
    }

    /// Asks for JSON.
    pub(crate) async fn json(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Answer> {
        self.get(path, query, JSON).await
    }

    /// Asks for protobuf.
    pub(crate) async fn protobuf(&self, path: &str) -> anyhow::Result<Answer> {
        self.get(path, &[], PROTOBUF).await
    }

    async fn get(&self, path: &str, query: &[(&str, String)], accept: &str) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.address);
        let mut request = self.http.get(&url).query(query).header(ACCEPT, accept);
        if let Some(org_id) = &self.org_id {
            request = request.header("X-Scope-OrgID", org_id);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.unreachable(&error)),
        };
        let status = response.status();
        let body = response.bytes().await.with_context(|| format!("the answer of {url} broke off"))?;
        if status.is_success() {
            return Ok(Ok(body));
        }
        Ok(Err(Refusal { status, text: String::from_utf8_lossy(&body).trim().to_owned() }))
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let address = &self.address;
        if error.is_builder() {
            return anyhow!("--address {address} is no address: expected http://host:port");
        }
        if error.is_timeout() {
            return anyhow!("{address} did not answer within {} seconds", TIMEOUT.as_secs());
        }
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            reason = inner.to_string();
            source = inner.source();
        }
        if error.is_connect() {
            return anyhow!(
                "cannot reach {address}: {reason}\nIs Vivace running there? Start `vivace`, or name its HTTP address with --address."
            );
        }
        anyhow!("{address}: {reason}")
    }
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
