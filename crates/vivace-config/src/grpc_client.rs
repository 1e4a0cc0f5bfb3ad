//! How services call each other, and TLS in the form of the collector's receivers. Most of the client's keys tune
//! Go's library or TLS, and have no effect here.

use std::time::Duration;

use crate::Secret;
use crate::section::{choice, section};
use crate::value::{ByteString, default, millis, secs, text};

choice! {
    /// Compression of gRPC messages.
    pub enum GrpcCompression {
        /// Tempo's default; messages here are then sent plain, payloads of spans being compressed already.
        Snappy = "snappy";
        /// None.
        None = "";
        /// gzip.
        Gzip = "gzip";
        /// Zstandard.
        Zstd = "zstd";
    }
}

section! {
    /// `grpc_client_config`: how a service calls others.
    pub struct GrpcClient {
        /// Largest message received, in bytes.
        used max_recv_msg_size: u64 = 100 << 20;
        /// Largest message sent, in bytes.
        used max_send_msg_size: u64 = 100 << 20;
        /// Compression of messages.
        idle grpc_compression: GrpcCompression = default();
        /// Calls a second at most; 0 is no limit.
        idle rate_limit: f64 = 0.0;
        /// Calls at once at most.
        idle rate_limit_burst: usize = 0;
        /// Whether calls over the rate wait instead of failing.
        idle backoff_on_ratelimits: bool = false;
        /// Pauses between tries.
        used backoff_config: Backoff = default();
        /// First HTTP/2 window of a stream.
        idle initial_stream_window_size: ByteString = ByteString(65535);
        /// First HTTP/2 window of a connection.
        idle initial_connection_window_size: ByteString = ByteString(65535);
        /// Whether TLS is spoken.
        refused tls_enabled: bool = false;
        /// File with the client's certificate, PEM.
        idle tls_cert_path: String = String::new();
        /// File with the client's key, PEM.
        idle tls_key_path: String = String::new();
        /// File with the authorities trusted, PEM.
        idle tls_ca_path: String = String::new();
        /// Name expected in the server's certificate.
        idle tls_server_name: String = String::new();
        /// Whether the server's certificate goes unchecked.
        idle tls_insecure_skip_verify: bool = false;
        /// Cipher suites allowed, comma-separated.
        idle tls_cipher_suites: String = String::new();
        /// Lowest TLS version.
        idle tls_min_version: String = String::new();
        /// Longest time to connect.
        idle connect_timeout: Duration = secs(5);
        /// First pause after a failed connect.
        idle connect_backoff_base_delay: Duration = secs(1);
        /// Longest pause after a failed connect.
        idle connect_backoff_max_delay: Duration = secs(5);
        /// Cluster name sent along.
        idle cluster_validation: ClientClusterValidation = default();
    }
}

section! {
    /// `cluster_validation` of a client.
    pub struct ClientClusterValidation {
        /// Name of this cluster.
        used label: String = String::new();
    }
}

section! {
    /// `backoff_config`: pauses between tries.
    pub struct Backoff {
        /// First pause.
        used min_period: Duration = millis(100);
        /// Longest pause.
        used max_period: Duration = secs(10);
        /// Tries at most.
        idle max_retries: usize = 10;
    }
}

section! {
    /// `ingester_client`, `metrics_generator_client`: calls to the instances of a ring.
    pub struct RingClient {
        /// Connections kept per instance.
        idle pool_config: PoolConfig = default();
        /// Longest time of one call.
        used remote_timeout: Duration = secs(5);
        /// The gRPC client.
        used grpc_client_config: GrpcClient = default();
    }
}

section! {
    /// `pool_config`: connections kept per instance.
    pub struct PoolConfig {
        /// Pause between clean-ups.
        used checkinterval: Duration = secs(15);
        /// Whether connections are probed.
        used healthcheckenabled: bool = true;
        /// Longest wait for a probe.
        used healthchecktimeout: Duration = secs(1);
        /// Probes at once; 0 is no limit.
        used maxconcurrenthealthchecks: usize = 0;
    }
}

section! {
    /// `tls` of receivers, in the collector's form.
    pub struct CollectorTls {
        /// Whether plain text is spoken (clients only).
        idle insecure: bool = false;
        /// Whether the server's certificate goes unchecked (clients only).
        idle insecure_skip_verify: bool = false;
        /// Name expected in the server's certificate (clients only).
        idle server_name_override: String = String::new();
        /// File with the certificate chain, PEM.
        used cert_file: String = String::new();
        /// File with the private key, PEM.
        used key_file: String = String::new();
        /// File with the authorities trusted, PEM (clients only).
        idle ca_file: String = String::new();
        /// File with the authorities that sign client certificates, PEM.
        used client_ca_file: String = String::new();
        /// Whether that file is read again when it changes.
        used client_ca_file_reload: bool = false;
        /// The certificate chain itself, PEM.
        used cert_pem: String = String::new();
        /// The private key itself, PEM.
        used key_pem: Secret = default();
        /// The authorities themselves, PEM (clients only).
        idle ca_pem: String = String::new();
        /// Lowest TLS version.
        used min_version: String = text("1.2");
        /// Highest TLS version; empty is the newest.
        used max_version: String = String::new();
        /// Cipher suites allowed.
        used cipher_suites: Vec<String> = vec![];
        /// Pause between reloads of the certificate; 0 is never.
        used reload_interval: Duration = Duration::ZERO;
        /// Whether the system's authorities are trusted besides (clients only).
        idle include_system_ca_certs_pool: bool = false;
        /// Curves preferred.
        used curve_preferences: Vec<String> = vec![];
    }
}
