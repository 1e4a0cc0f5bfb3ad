//! A target of remote writes, with the keys and defaults that Prometheus has. A process does not start with a way to authenticate
//! that is not built.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::reader::Reader;
use crate::section::{choice, section};
use crate::value::{default, millis, mins, secs, text};
use crate::{Ignored, RelabelConfig, Secret, SecretUrl};

section! {
    /// `remote_write[]`: a Prometheus remote-write target, in Prometheus' own form.
    pub struct RemoteWrite {
        /// Where to write.
        used url: SecretUrl = default();
        /// Name of the target.
        used name: String = String::new();
        /// Longest wait for an answer.
        used remote_timeout: Duration = secs(30);
        /// Headers added to requests.
        used headers: BTreeMap<String, Secret> = default();
        /// User and password.
        used basic_auth: Option<BasicAuth> = None;
        /// `Authorization` header.
        used authorization: Option<Authorization> = None;
        /// Token of a `Bearer` header.
        used bearer_token: Secret = default();
        /// File with that token.
        used bearer_token_file: String = String::new();
        /// TLS.
        used tls_config: RemoteWriteTls = default();
        /// Whether exemplars are sent; they always are.
        always send_exemplars: bool = false;
        /// Whether native histograms are sent; those that a tenant has always are.
        always send_native_histograms: bool = false;
        /// Whether redirects are followed.
        used follow_redirects: bool = true;
        /// Whether HTTP/2 is spoken where TLS agrees on it.
        used enable_http2: bool = true;
        /// OAuth 2.
        used oauth2: Option<OAuth2> = None;
        /// AWS signatures.
        used sigv4: Option<SigV4> = None;
        /// Azure AD.
        refused azuread: Ignored = default();
        /// Google IAM.
        refused google_iam: Ignored = default();
        /// Rules that change labels, or leave series out.
        used write_relabel_configs: Vec<RelabelConfig> = vec![];
        /// Requests and when they are tried again.
        used queue_config: QueueConfig = default();
        /// Sending of what metrics are.
        used metadata_config: MetadataConfig = default();
        /// Version of the protocol; there is the first one.
        always protobuf_message: ProtobufMessage = default();
        /// Proxy.
        used proxy_url: SecretUrl = default();
        /// Hosts that need no proxy, with commas.
        used no_proxy: String = String::new();
        /// Whether `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` of the environment name the proxy.
        used proxy_from_environment: bool = false;
        /// Headers for the proxy.
        used proxy_connect_header: BTreeMap<String, Vec<Secret>> = default();
        /// Headers of another form.
        used http_headers: BTreeMap<String, HttpHeader> = default();
        /// Whether each connection goes to another address of the name, chosen by chance.
        used round_robin_dns: bool = false;
    }
}

choice! {
    /// A version of the protocol.
    pub enum ProtobufMessage {
        /// 1.0.
        V1 = "prometheus.WriteRequest" | "";
    }
}

section! {
    /// `basic_auth`: user and password.
    pub struct BasicAuth {
        /// User.
        used username: String = String::new();
        /// File with the user.
        used username_file: String = String::new();
        /// Password.
        used password: Secret = default();
        /// File with the password.
        used password_file: String = String::new();
    }
}

section! {
    /// `authorization`: another `Authorization` header.
    pub struct Authorization {
        /// Its first word.
        used kind as "type": String = text("Bearer");
        /// The rest of it.
        used credentials: Secret = default();
        /// File with the rest of it.
        used credentials_file: String = String::new();
    }
}

section! {
    /// `http_headers`: the values of one header.
    pub struct HttpHeader {
        /// Plain ones.
        used values: Vec<String> = vec![];
        /// Ones that are not shown.
        used secrets: Vec<Secret> = vec![];
        /// Files with one each.
        used files: Vec<String> = vec![];
    }
}

section! {
    /// `oauth2`: a token for the client itself, fetched and renewed.
    pub struct OAuth2 {
        /// Name of the client.
        used client_id: String = String::new();
        /// Its secret.
        used client_secret: Secret = default();
        /// File with its secret.
        used client_secret_file: String = String::new();
        /// What is asked for.
        used scopes: Vec<String> = vec![];
        /// Where tokens are.
        used token_url: SecretUrl = default();
        /// Parameters that are sent along.
        used endpoint_params: BTreeMap<String, Secret> = default();
        /// TLS.
        used tls_config: RemoteWriteTls = default();
        /// Proxy.
        used proxy_url: SecretUrl = default();
        /// Hosts that need no proxy, with commas.
        used no_proxy: String = String::new();
        /// Whether the environment names the proxy.
        used proxy_from_environment: bool = false;
        /// Headers for the proxy.
        used proxy_connect_header: BTreeMap<String, Vec<Secret>> = default();
    }
}

section! {
    /// `sigv4`: AWS signatures. Without keys, a profile or a role, credentials come from where AWS' tools look for them.
    pub struct SigV4 {
        /// Region; empty is that of the environment.
        used region: String = String::new();
        /// Key.
        used access_key: String = String::new();
        /// Its secret.
        used secret_key: Secret = default();
        /// Profile of AWS' files.
        used profile: String = String::new();
        /// Role that is taken on.
        used role_arn: String = String::new();
        /// What the role's owner asks for.
        used external_id: Secret = default();
        /// Whether the role is asked for at an endpoint by FIPS.
        refused use_fips_sts_endpoint: bool = false;
    }
}

section! {
    /// `tls_config`: TLS of a remote-write target.
    pub struct RemoteWriteTls {
        /// Authorities trusted, PEM.
        used ca: String = String::new();
        /// File with them.
        used ca_file: String = String::new();
        /// The client's certificate, PEM.
        used cert: String = String::new();
        /// File with it.
        used cert_file: String = String::new();
        /// The client's key, PEM.
        used key: Secret = default();
        /// File with it.
        used key_file: String = String::new();
        /// Name expected in the server's certificate.
        used server_name: String = String::new();
        /// Whether the server's certificate goes unchecked.
        used insecure_skip_verify: bool = false;
        /// Lowest TLS version.
        used min_version: String = String::new();
        /// Highest TLS version.
        used max_version: String = String::new();
    }
}

section! {
    /// `queue_config`: sending in parallel.
    pub struct QueueConfig {
        /// Samples waiting for which one more sender is used.
        used capacity: usize = 10000;
        /// Senders at least.
        used min_shards: usize = 1;
        /// Senders at most.
        used max_shards: usize = 50;
        /// Samples per request.
        used max_samples_per_send: usize = 2000;
        /// Longest wait of a sample; they are sent at once.
        idle batch_send_deadline: Duration = secs(5);
        /// First pause after a failure.
        used min_backoff: Duration = millis(30);
        /// Longest pause after a failure.
        used max_backoff: Duration = secs(5);
        /// Whether a 429 is tried again.
        used retry_on_http_429: bool = true;
        /// Age at which a sample is dropped; 0 is never.
        used sample_age_limit: Duration = Duration::ZERO;
    }
}

section! {
    /// `metadata_config`: types and descriptions of metrics.
    pub struct MetadataConfig {
        /// Whether they are sent.
        used send: bool = true;
        /// Pause between.
        used send_interval: Duration = mins(1);
        /// Metrics per request; there are not as many.
        idle max_samples_per_send: usize = 500;
    }
}

/// Checks a target, which is at `path`.
pub(crate) fn check(target: &RemoteWrite, path: &str, reader: &mut Reader) {
    let RemoteWrite { basic_auth, authorization, bearer_token, bearer_token_file, oauth2, sigv4, .. } = target;
    let ways = [
        ("basic_auth", basic_auth.is_some()),
        ("authorization", authorization.is_some()),
        ("bearer_token", !bearer_token.is_empty() || !bearer_token_file.is_empty()),
        ("oauth2", oauth2.is_some()),
        ("sigv4", sigv4.is_some()),
    ];
    let named: Vec<&str> = ways.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect();
    if named.len() > 1 {
        reader.problem_at(path, format!("expected one way to authenticate; got {}", named.join(", ")));
    }
    tls(&target.tls_config, &format!("{path}.tls_config"), reader);
    proxy(&target.proxy_url, &target.no_proxy, target.proxy_from_environment, path, reader);
    if let Some(oauth2) = oauth2 {
        let path = format!("{path}.oauth2");
        if oauth2.client_id.is_empty() || oauth2.token_url.is_empty() {
            reader.problem_at(&path, "expected client_id and token_url".to_owned());
        }
        tls(&oauth2.tls_config, &format!("{path}.tls_config"), reader);
        proxy(&oauth2.proxy_url, &oauth2.no_proxy, oauth2.proxy_from_environment, &path, reader);
    }
    if let Some(sigv4) = sigv4
        && sigv4.access_key.is_empty() != sigv4.secret_key.is_empty()
    {
        reader.problem_at(&format!("{path}.sigv4"), "expected both access_key and secret_key, or neither".to_owned());
    }
    for (index, rule) in target.write_relabel_configs.iter().enumerate() {
        rule.check(&format!("{path}.write_relabel_configs[{index}]"), reader);
    }
}

fn tls(tls: &RemoteWriteTls, path: &str, reader: &mut Reader) {
    for (text, file, key) in
        [(tls.ca.is_empty(), &tls.ca_file, "ca"), (tls.cert.is_empty(), &tls.cert_file, "cert"), (tls.key.is_empty(), &tls.key_file, "key")]
    {
        if !text && !file.is_empty() {
            reader.problem_at(path, format!("expected {key} or {key}_file; got both"));
        }
    }
    if (tls.cert.is_empty() && tls.cert_file.is_empty()) != (tls.key.is_empty() && tls.key_file.is_empty()) {
        reader.problem_at(path, "expected both a certificate and its key, or neither".to_owned());
    }
    for (key, version) in [("min_version", &tls.min_version), ("max_version", &tls.max_version)] {
        if !matches!(version.as_str(), "" | "TLS10" | "TLS11" | "TLS12" | "TLS13") {
            reader.problem_at(&format!("{path}.{key}"), format!("expected TLS12 or TLS13; got {version:?}"));
        }
    }
    if matches!(tls.max_version.as_str(), "TLS10" | "TLS11") || (tls.min_version == "TLS13" && tls.max_version == "TLS12") {
        reader.problem_at(&format!("{path}.max_version"), "leaves no version that is spoken; there are TLS12 and TLS13".to_owned());
    }
}

fn proxy(url: &SecretUrl, no_proxy: &str, from_environment: bool, path: &str, reader: &mut Reader) {
    if from_environment && !(url.is_empty() && no_proxy.is_empty()) {
        reader.problem_at(path, "expected proxy_from_environment, or proxy_url and no_proxy; got both".to_owned());
    }
    if url.is_empty() && !no_proxy.is_empty() {
        reader.problem_at(&format!("{path}.no_proxy"), "without proxy_url there is no proxy to go around".to_owned());
    }
}
