//! S3 and what speaks its protocol, as an [`object_store::ObjectStore`] over AWS's own client.

mod error;
mod store;
mod tls;

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::meta::region::RegionProviderChain;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use base64::Engine;

use self::store::WriteOptions;
use crate::OpenError;
use crate::open::Environment;

pub(crate) use self::store::S3;

/// Where signatures need a region and nobody named one.
const DEFAULT_REGION: &str = "us-east-1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until an answer begins.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Which server is asked, and how the bucket is named to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// With its scheme; none: AWS, by region.
    pub(crate) url: Option<String>,
    /// In AWS's host names.
    pub(crate) region: Option<String>,
    /// The bucket stands in the path instead of the host name.
    pub(crate) path_style: bool,
}

impl Endpoint {
    pub(crate) fn of(config: &vivace_config::S3) -> Result<Self, OpenError> {
        let problem = |path: &str, problem: String| OpenError::Config { path: format!("s3.{path}"), problem };
        let text = config.endpoint.trim().trim_end_matches('/');
        let (scheme, host) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), host)) => (scheme, host),
            Some((scheme, _)) => return Err(problem("endpoint", format!("has the scheme {scheme:?}, expected http, https or none"))),
            None => (if config.insecure { "http" } else { "https" }, text),
        };
        if host.contains('/') {
            return Err(problem("endpoint", format!("is {text:?}, expected host or host:port; the bucket has a key of its own")));
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let aws = host.is_empty() || name == "amazonaws.com" || name.ends_with(".amazonaws.com") || name.ends_with(".amazonaws.com.cn");
        let region = name
            .strip_prefix("s3.")
            .and_then(|rest| rest.strip_suffix(".amazonaws.com"))
            .map(|region| region.trim_start_matches("dualstack.").to_owned())
            .filter(|region| !region.is_empty());
        let path_style = match config.bucket_lookup_type {
            _ if config.forcepathstyle => true,
            // Elsewhere than at AWS a bucket's host name seldom resolves; AWS's certificates do not cover names with dots.
            0 => !aws || config.bucket.contains('.'),
            1 => false,
            2 => true,
            other => return Err(problem("bucket_lookup_type", format!("is {other}, expected 0 (automatic), 1 (host name) or 2 (path)"))),
        };
        // AWS's one global name redirects to the region's: the client finds the region's name itself.
        let global = host.is_empty() || host == "s3.amazonaws.com";
        Ok(Self { url: (!global).then(|| format!("{scheme}://{host}")), region, path_style })
    }
}

/// The store, and the endpoint for people to read.
pub(crate) async fn open(config: &vivace_config::S3, env: Environment<'_>) -> Result<(S3, String), OpenError> {
    if config.bucket.is_empty() {
        return Err(OpenError::Config { path: "s3.bucket".to_owned(), problem: "is empty, expected the bucket's name".to_owned() });
    }
    let endpoint = Endpoint::of(config)?;
    let http_client = tls::client(config, CONNECT_TIMEOUT)?;
    let named_region = Some(config.region.clone()).filter(|r| !r.is_empty()).or_else(|| endpoint.region.clone());
    let region = match named_region.or_else(|| env("AWS_REGION")).or_else(|| env("AWS_DEFAULT_REGION")) {
        Some(region) => Region::new(region),
        // Asking the machine's metadata for the region makes sense at AWS only.
        None if endpoint.url.is_none() => {
            RegionProviderChain::default_provider().or_else(DEFAULT_REGION).region().await.unwrap_or(Region::from_static(DEFAULT_REGION))
        }
        None => Region::from_static(DEFAULT_REGION),
    };
    let retries = RetryConfig::standard()
        .with_max_attempts(u32::try_from(config.retry_max_attempts.max(1)).unwrap_or(u32::MAX))
        .with_initial_backoff(config.retry_backoff_initial)
        .with_max_backoff(config.retry_backoff_max);
    let mut builder = match static_credentials(config, env) {
        Some(credentials) => aws_sdk_s3::Config::builder().behavior_version(BehaviorVersion::latest()).credentials_provider(credentials),
        None => {
            let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
            if let Some(client) = &http_client {
                loader = loader.http_client(client.clone());
            }
            aws_sdk_s3::config::Builder::from(&loader.load().await)
        }
    };
    builder = builder
        .region(region.clone())
        .force_path_style(endpoint.path_style)
        .retry_config(retries)
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build())
        // Several S3-compatible servers do not know the newer checksums.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if config.enable_dual_stack {
        builder = builder.use_dual_stack(true);
    }
    if let Some(client) = http_client {
        builder = builder.http_client(client);
    }
    if let Some(url) = &endpoint.url {
        builder = builder.endpoint_url(url);
    }
    let place = endpoint.url.unwrap_or_else(|| format!("AWS S3 in {region}"));
    Ok((S3::new(Client::from_conf(builder.build()), config.bucket.clone(), write_options(config)?), place))
}

/// Keys from the config, else MinIO's variables where AWS's own are not set. None: AWS's usual chain.
fn static_credentials(config: &vivace_config::S3, env: Environment<'_>) -> Option<Credentials> {
    let token = config.session_token.expose();
    if !config.access_key.is_empty() {
        let token = (!token.is_empty()).then(|| token.to_owned());
        return Some(Credentials::new(&config.access_key, config.secret_key.expose(), token, None, "config"));
    }
    if env("AWS_ACCESS_KEY_ID").is_some() {
        return None;
    }
    let pairs = [("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"), ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")];
    pairs.into_iter().find_map(|(id, secret)| Some(Credentials::new(env(id)?, env(secret)?, None, None, "environment")))
}

fn write_options(config: &vivace_config::S3) -> Result<WriteOptions, OpenError> {
    let mut write = WriteOptions::default();
    match config.sse.kind.as_str() {
        "" => {}
        "SSE-S3" => write.sse = Some(ServerSideEncryption::Aes256),
        "SSE-KMS" => {
            write.sse = Some(ServerSideEncryption::AwsKms);
            write.sse_kms_key_id = Some(config.sse.kms_key_id.clone()).filter(|id| !id.is_empty());
            let context = Some(&config.sse.kms_encryption_context).filter(|c| !c.is_empty());
            write.sse_kms_context = context.map(|json| base64::engine::general_purpose::STANDARD.encode(json));
        }
        other => {
            let problem = format!("is {other:?}, expected SSE-S3, SSE-KMS or nothing");
            return Err(OpenError::Config { path: "s3.sse.type".to_owned(), problem });
        }
    }
    write.storage_class = Some(&config.storage_class).filter(|c| !c.is_empty()).map(|c| StorageClass::from(c.as_str()));
    if !config.tags.is_empty() {
        let encoded = |text: &str| store::url_encoded(text).replace('/', "%2F");
        let pairs: Vec<String> = config.tags.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
        write.tagging = Some(pairs.join("&"));
    }
    if !config.metadata.is_empty() {
        write.metadata = Some(config.metadata.clone().into_iter().collect());
    }
    Ok(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn endpoint(text: &str, insecure: bool, want_url: Option<&str>, want_path_style: bool) {
        let config = vivace_config::S3 { endpoint: text.to_owned(), insecure, bucket: "tempo".to_owned(), ..Default::default() };
        let got = Endpoint::of(&config).expect("valid");
        assert_eq!((got.url.as_deref(), got.path_style), (want_url, want_path_style), "{text}");
    }

    #[test]
    fn endpoints_as_people_write_them() {
        endpoint("minio:9000", true, Some("http://minio:9000"), true);
        endpoint("minio:9000", false, Some("https://minio:9000"), true);
        endpoint("http://minio.local:9000/", false, Some("http://minio.local:9000"), true);
        endpoint("10.0.0.1:9000", true, Some("http://10.0.0.1:9000"), true);
        endpoint("", false, None, false);
        endpoint("s3.amazonaws.com", false, None, false);
        endpoint("s3.eu-west-1.amazonaws.com", false, Some("https://s3.eu-west-1.amazonaws.com"), false);
        let of = |endpoint: &str| Endpoint::of(&vivace_config::S3 { endpoint: endpoint.to_owned(), ..Default::default() });
        assert_eq!(of("s3.dualstack.eu-west-1.amazonaws.com").expect("valid").region.as_deref(), Some("eu-west-1"));
        assert!(of("ftp://minio").expect_err("no such scheme").to_string().contains("s3.endpoint: has the scheme \"ftp\""));
        assert!(of("minio:9000/bucket").is_err());
    }

    #[test]
    fn keys_come_from_the_config_then_the_environment() {
        let config = |key: &str| vivace_config::S3 { access_key: key.to_owned(), ..Default::default() };
        let minio = |name: &str| name.starts_with("MINIO_ROOT").then(|| "m".to_owned());
        let both = |name: &str| Some(name.to_owned());
        assert_eq!(static_credentials(&config("k"), &minio).expect("static").access_key_id(), "k");
        assert_eq!(static_credentials(&config(""), &minio).expect("MinIO's").access_key_id(), "m");
        assert!(static_credentials(&config(""), &both).is_none(), "AWS's own variables go first");
    }
}
