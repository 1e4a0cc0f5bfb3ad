//! The three requests that the charts' jobs need, made with the token of the pod's service account: too few to be worth a client
//! library.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::client::innermost;

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the cluster's API is, and who asks. The defaults are those of a pod.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Address of the API server.
    #[arg(long, default_value = "https://kubernetes.default.svc")]
    server: String,
    /// Folder with `token` and `ca.crt`, as every pod with a service account has it.
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    credentials: PathBuf,
}

/// The API of a cluster.
pub(crate) struct Api {
    http: reqwest::Client,
    server: String,
    token: String,
}

/// What the API says of a request that it does not carry out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
}

impl Place {
    /// # Errors
    /// The credentials cannot be read.
    pub(crate) fn open(&self) -> anyhow::Result<Api> {
        // An error means that one is installed already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (token, authority) = (self.credentials.join("token"), self.credentials.join("ca.crt"));
        let read = |path: &PathBuf| {
            let hint = "is this a pod whose service account's token is mounted?";
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}; {hint}", path.display()))
        };
        let certificates = Certificate::from_pem_bundle(read(&authority)?.as_bytes())
            .with_context(|| format!("{} has no certificates", authority.display()))?;
        let builder =
            certificates.into_iter().fold(reqwest::Client::builder().timeout(ANSWER), reqwest::ClientBuilder::add_root_certificate);
        let http = builder.build().context("cannot set up an HTTP client")?;
        let server = self.server.trim_end_matches('/').to_owned();
        Ok(Api { http, server, token: read(&token)?.trim().to_owned() })
    }
}

impl Api {
    /// Lays `patch` over an object. False when there is no such object.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> anyhow::Result<bool> {
        self.ask(Method::PATCH, path, Some(patch)).await
    }

    /// Deletes an object, but not what it owns. False when there is no such object.
    pub(crate) async fn delete_alone(&self, path: &str) -> anyhow::Result<bool> {
        self.ask(Method::DELETE, &format!("{path}?propagationPolicy=Orphan"), None).await
    }

    /// Whether there is an object.
    pub(crate) async fn exists(&self, path: &str) -> anyhow::Result<bool> {
        self.ask(Method::GET, path, None).await
    }

    async fn ask(&self, method: Method, path: &str, patch: Option<&Value>) -> anyhow::Result<bool> {
        let mut request = self.http.request(method, format!("{}{path}", self.server)).bearer_auth(&self.token);
        if let Some(patch) = patch {
            request = request.header(CONTENT_TYPE, "application/merge-patch+json").body(patch.to_string());
        }
        let answer = request.send().await.map_err(|error| anyhow!("cannot reach {}: {}", self.server, innermost(&error)))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            status => {
                let body = answer.bytes().await.unwrap_or_default();
                let said: Status = serde_json::from_slice(&body).unwrap_or_default();
                bail!("the cluster answered {status}: {}", said.message)
            }
        }
    }
}
