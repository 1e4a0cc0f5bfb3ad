//! A target of remote writes, with the keys and defaults that Prometheus has. Passwords, tokens and headers are sent. A process with
//! another way to authenticate, or with TLS of its own making, does not start; relabelling has no effect.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::section::section;
use crate::value::{default, millis, secs};
use crate::{Ignored, Secret, SecretUrl};

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
        refused tls_config: RemoteWriteTls = default();
        /// Whether exemplars are sent; they always are.
        always send_exemplars: bool = false;
        /// Whether native histograms are sent; those that a tenant has always are.
        always send_native_histograms: bool = false;
        /// Whether redirects are followed.
        idle follow_redirects: bool = true;
        /// Whether HTTP/2 is tried.
        idle enable_http2: bool = true;
        /// OAuth 2.
        refused oauth2: Ignored = default();
        /// AWS signatures.
        refused sigv4: Ignored = default();
        /// Azure AD.
        refused azuread: Ignored = default();
        /// Google IAM.
        refused google_iam: Ignored = default();
        /// Rules that change labels.
        idle write_relabel_configs: Ignored = default();
        /// Requests and when they are tried again.
        used queue_config: QueueConfig = default();
        /// Sending of metadata.
        idle metadata_config: Ignored = default();
        /// Version of the protocol.
        idle protobuf_message: String = String::new();
        /// Proxy.
        idle proxy_url: SecretUrl = default();
        /// Hosts that need no proxy.
        idle no_proxy: String = String::new();
        /// Whether the environment names the proxy.
        idle proxy_from_environment: bool = false;
        /// Headers for the proxy.
        idle proxy_connect_header: Ignored = default();
        /// Headers of another form.
        idle http_headers: Ignored = default();
        /// Whether every address of the name is used in turn.
        idle round_robin_dns: bool = false;
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
        used kind as "type": String = crate::value::text("Bearer");
        /// The rest of it.
        used credentials: Secret = default();
        /// File with the rest of it.
        used credentials_file: String = String::new();
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
        idle cert: String = String::new();
        /// File with it.
        idle cert_file: String = String::new();
        /// The client's key, PEM.
        idle key: Secret = default();
        /// File with it.
        idle key_file: String = String::new();
        /// Name expected in the server's certificate.
        idle server_name: String = String::new();
        /// Whether the server's certificate goes unchecked.
        used insecure_skip_verify: bool = false;
        /// Lowest TLS version.
        idle min_version: String = String::new();
        /// Highest TLS version.
        idle max_version: String = String::new();
    }
}

section! {
    /// `queue_config`: sending in parallel.
    pub struct QueueConfig {
        /// Samples waiting per sender.
        idle capacity: usize = 10000;
        /// Senders at least.
        idle min_shards: usize = 1;
        /// Senders at most.
        idle max_shards: usize = 50;
        /// Samples per request.
        used max_samples_per_send: usize = 2000;
        /// Longest wait of a sample.
        idle batch_send_deadline: Duration = secs(5);
        /// First pause after a failure.
        used min_backoff: Duration = millis(30);
        /// Longest pause after a failure.
        used max_backoff: Duration = secs(5);
        /// Whether a 429 is tried again.
        used retry_on_http_429: bool = true;
        /// Age at which a sample is dropped; 0 is never.
        idle sample_age_limit: Duration = Duration::ZERO;
    }
}
