//! Signatures by AWS' rules, for its managed Prometheus.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::Url;
use reqwest::header::HeaderMap;
use tokio::sync::OnceCell;
use vivace_config::SigV4;
use vivace_server::clock;

use super::client::authority;
use super::set_header;

/// What AWS calls its managed Prometheus.
const SERVICE: &str = "aps";

/// Signs requests. Where credentials come from is looked at with the first one.
#[derive(Debug)]
pub(crate) struct Signer {
    options: SigV4,
    source: OnceCell<Source>,
}

#[derive(Debug)]
struct Source {
    region: String,
    credentials: SharedCredentialsProvider,
}

impl Signer {
    pub(crate) fn new(options: &SigV4) -> Self {
        Self { options: options.clone(), source: OnceCell::new() }
    }

    /// Adds a signature to the headers of a `POST`.
    ///
    /// # Errors
    /// There are no credentials, or no region.
    pub(crate) async fn sign(&self, url: &Url, body: &[u8], headers: &mut HeaderMap) -> anyhow::Result<()> {
        let source = self.source.get_or_try_init(|| self.source()).await?;
        let identity = source.credentials.provide_credentials().await.context("sigv4: there are no credentials")?.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&source.region)
            .name(SERVICE)
            .time(SystemTime::UNIX_EPOCH + Duration::from_nanos(clock::unix_nanos()))
            .settings(SigningSettings::default())
            .build()?;
        // Other headers may be changed on the way, and need no signature.
        let host = authority(url);
        let request = SignableRequest::new("POST", url.as_str(), [("host", host.as_str())].into_iter(), SignableBody::Bytes(body))?;
        let (instructions, _) = sign(request, &SigningParams::from(parameters))?.into_parts();
        for (name, value) in instructions.headers() {
            set_header(headers, name, value)?;
        }
        Ok(())
    }

    async fn source(&self) -> anyhow::Result<Source> {
        let SigV4 { region, access_key, secret_key, profile, role_arn, external_id, .. } = &self.options;
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if !region.is_empty() {
            loader = loader.region(Region::new(region.clone()));
        }
        if !profile.is_empty() {
            loader = loader.profile_name(profile);
            loader = loader.credentials_provider(ProfileFileCredentialsProvider::builder().profile_name(profile).build());
        }
        if !access_key.is_empty() {
            loader = loader.credentials_provider(Credentials::new(access_key, secret_key.expose(), None, None, "remote_write"));
        }
        let config = loader.load().await;
        let region = config.region().context("sigv4.region is not set, and the environment names none")?.to_string();
        let credentials = match role_arn.as_str() {
            "" => config.credentials_provider().context("sigv4: there are no credentials")?,
            role => SharedCredentialsProvider::new(assumed(role, external_id.expose(), &config).await),
        };
        Ok(Source { region, credentials })
    }
}

async fn assumed(role: &str, external_id: &str, config: &SdkConfig) -> AssumeRoleProvider {
    let builder = AssumeRoleProvider::builder(role).session_name("vivace").configure(config);
    let builder = if external_id.is_empty() { builder } else { builder.external_id(external_id) };
    builder.build().await
}
