//! `server` and `internal_server`: listeners, their limits and times, and the log. Listeners do not speak TLS yet, and a process
//! that is told to use it does not start.

use std::time::Duration;

use crate::section::{choice, section};
use crate::value::{CommaList, INFINITE, default, mins, secs, text};

choice! {
    /// How much a process logs.
    pub enum LogLevel {
        /// State changes.
        Info = "info";
        /// Each request.
        Debug = "debug";
        /// What is degraded.
        Warn = "warn" | "warning";
        /// What someone must look at.
        Error = "error";
    }
}

choice! {
    /// The form of a log line.
    pub enum LogFormat {
        /// `key=value` pairs.
        Logfmt = "logfmt";
        /// One JSON object a line.
        Json = "json";
    }
}

section! {
    /// `server`: the listeners of a process, their limits, and its log.
    pub struct Server {
        /// Address the HTTP listener binds; empty is every interface.
        used http_listen_address: String = String::new();
        /// Port of the HTTP listener; 0 takes a free one.
        used http_listen_port: u16 = 3200;
        /// Network of the HTTP listener.
        idle http_listen_network: String = text("tcp");
        /// Open HTTP connections at most; 0 is no limit.
        used http_listen_conn_limit: usize = 0;
        /// Address the gRPC listener binds; empty is every interface.
        used grpc_listen_address: String = String::new();
        /// Port of the gRPC listener; 0 takes a free one.
        used grpc_listen_port: u16 = 9095;
        /// Network of the gRPC listener.
        idle grpc_listen_network: String = text("tcp");
        /// Open gRPC connections at most; 0 is no limit.
        used grpc_listen_conn_limit: usize = 0;
        /// Whether the most streams of a connection are measured.
        idle grpc_collect_max_streams_by_conn: bool = true;
        /// Whether the PROXY protocol is read.
        idle proxy_protocol_enabled: bool = false;
        /// Cipher suites allowed for TLS, comma-separated.
        used tls_cipher_suites: String = String::new();
        /// Lowest TLS version, as in `VersionTLS12`.
        used tls_min_version: String = String::new();
        /// TLS of the HTTP listener.
        used http_tls_config: ServerTls = default();
        /// TLS of the gRPC listener.
        refused grpc_tls_config: ServerTls = default();
        /// Whether `/metrics` is served.
        always register_instrumentation: bool = true;
        /// Whether gRPC codes are a label of the request metrics.
        idle report_grpc_codes_in_instrumentation_label_enabled: bool = false;
        /// Longest wait for open requests when the process stops.
        used graceful_shutdown_timeout: Duration = secs(30);
        /// Longest time to read an HTTP request.
        used http_server_read_timeout: Duration = secs(30);
        /// Longest time to read the headers of an HTTP request; 0 is no limit of its own.
        used http_server_read_header_timeout: Duration = Duration::ZERO;
        /// How long an HTTP client may take nothing of its answer; 0 is no limit.
        used http_server_write_timeout: Duration = secs(30);
        /// How long an HTTP connection may idle; 0 is no limit.
        used http_server_idle_timeout: Duration = mins(2);
        /// Whether connections closed before the answer are logged.
        idle http_log_closed_connections_without_response_enabled: bool = false;
        /// Largest gRPC message accepted, in bytes.
        used grpc_server_max_recv_msg_size: u64 = 16 << 20;
        /// Largest gRPC message sent, in bytes.
        used grpc_server_max_send_msg_size: u64 = 16 << 20;
        /// Open streams per gRPC connection at most; 0 is no limit.
        used grpc_server_max_concurrent_streams: u32 = 100;
        /// How long a gRPC connection may idle.
        used grpc_server_max_connection_idle: Duration = INFINITE;
        /// How old a gRPC connection may become.
        used grpc_server_max_connection_age: Duration = INFINITE;
        /// Time for open calls once a gRPC connection is too old.
        used grpc_server_max_connection_age_grace: Duration = INFINITE;
        /// Pause before an idle gRPC connection is pinged.
        used grpc_server_keepalive_time: Duration = mins(120);
        /// Longest wait for the answer to such a ping.
        used grpc_server_keepalive_timeout: Duration = secs(20);
        /// Shortest pause a client must leave between pings.
        idle grpc_server_min_time_between_pings: Duration = secs(10);
        /// Whether clients may ping without an open call.
        always grpc_server_ping_without_stream_allowed: bool = true;
        /// Workers of the gRPC server; 0 is one per call.
        idle grpc_server_num_workers: usize = 0;
        /// Whether message statistics are kept.
        idle grpc_server_stats_tracking_enabled: bool = true;
        /// Whether receive buffers are pooled.
        idle grpc_server_recv_buffer_pools_enabled: bool = false;
        /// Read buffer of a gRPC connection, in bytes (3.x).
        idle grpc_server_read_buffer_size: u64 = 32768;
        /// Write buffer of a gRPC connection, in bytes (3.x).
        idle grpc_server_write_buffer_size: u64 = 32768;
        /// Form of a log line.
        used log_format: LogFormat = default();
        /// How much is logged.
        used log_level: LogLevel = default();
        /// Whether addresses of clients are logged.
        idle log_source_ips_enabled: bool = false;
        /// Whether every address of the forwarding headers is logged.
        idle log_source_ips_full: bool = false;
        /// Header that carries the client's address.
        idle log_source_ips_header: String = String::new();
        /// Pattern that finds the address in that header.
        idle log_source_ips_regex: String = String::new();
        /// Whether request headers are logged.
        idle log_request_headers: bool = false;
        /// Whether requests are logged at level info.
        idle log_request_at_info_level_enabled: bool = false;
        /// Headers that are never logged, comma-separated.
        idle log_request_exclude_headers_list: String = String::new();
        /// Whether request headers become attributes of own traces.
        idle trace_request_headers: bool = false;
        /// Headers that never become attributes, comma-separated.
        idle trace_request_exclude_headers_list: String = String::new();
        /// Whether requests without a trace context start one (3.x).
        idle create_new_traces: bool = false;
        /// Prefix of every HTTP path.
        used http_path_prefix: String = String::new();
        /// Refusal of calls that come from another cluster.
        used cluster_validation: ClusterValidation = default();
    }
}

section! {
    /// `server.*_tls_config`: TLS of a listener.
    pub struct ServerTls {
        /// File with the certificate chain, PEM.
        used cert_file: String = String::new();
        /// File with the private key, PEM.
        used key_file: String = String::new();
        /// File with the authorities that sign client certificates, PEM.
        used client_ca_file: String = String::new();
        /// Whether clients must show a certificate, as in `RequireAndVerifyClientCert`.
        used client_auth_type: String = String::new();
        /// The certificate chain itself, PEM.
        used cert: String = String::new();
        /// The private key itself, PEM.
        used key: crate::Secret = default();
        /// The authorities themselves, PEM.
        used client_ca: String = String::new();
    }
}

section! {
    /// `server.cluster_validation`: refusal of calls that come from another cluster.
    pub struct ClusterValidation {
        /// Name of this cluster.
        idle label: String = String::new();
        /// Other names that are accepted too.
        idle additional_labels: CommaList = default();
        /// Validation of gRPC calls.
        used grpc: ClusterValidationGrpc = default();
        /// Validation of HTTP requests.
        used http: ClusterValidationHttp = default();
    }
}

section! {
    /// `server.cluster_validation.grpc`.
    pub struct ClusterValidationGrpc {
        /// Whether calls are checked.
        refused enabled: bool = false;
        /// Whether a mismatch is only logged.
        idle soft_validation: bool = false;
    }
}

section! {
    /// `server.cluster_validation.http`.
    pub struct ClusterValidationHttp {
        /// Whether requests are checked.
        refused enabled: bool = false;
        /// Whether a mismatch is only logged.
        idle soft_validation: bool = false;
        /// Paths that are not checked, comma-separated.
        idle excluded_paths: String = String::new();
        /// Clients that are not checked, comma-separated.
        idle excluded_user_agents: String = String::new();
    }
}

section! {
    /// `internal_server`: a second HTTP listener for `/ready` and `/metrics`. It has no gRPC and no log of its own.
    pub struct InternalServer {
        /// Whether it is started.
        used enable: bool = false;
        /// Address it binds; empty is every interface.
        used http_listen_address: String = String::new();
        /// Its port.
        used http_listen_port: u16 = 3101;
        /// Its network.
        idle http_listen_network: String = text("tcp");
        /// Open connections at most; 0 is no limit.
        used http_listen_conn_limit: usize = 0;
        /// Its TLS.
        refused http_tls_config: ServerTls = default();
        /// Longest wait for open requests when the process stops.
        idle graceful_shutdown_timeout: Duration = secs(30);
        /// Longest time to read a request; 0 is no limit.
        used http_server_read_timeout: Duration = secs(30);
        /// Longest time to read the headers of a request; 0 is no limit of its own.
        used http_server_read_header_timeout: Duration = Duration::ZERO;
        /// How long a client may take nothing of its answer; 0 is no limit.
        used http_server_write_timeout: Duration = secs(30);
        /// How long a connection may idle; 0 is no limit.
        used http_server_idle_timeout: Duration = mins(2);
        /// Form of a log line.
        idle log_format: LogFormat = default();
        /// How much is logged.
        idle log_level: LogLevel = default();
        /// Address the gRPC listener binds; empty is every interface.
        idle grpc_listen_address: String = String::new();
        /// Port of the gRPC listener; 0 takes a free one.
        idle grpc_listen_port: u16 = 9095;
        /// Network of the gRPC listener.
        idle grpc_listen_network: String = text("tcp");
        /// Open gRPC connections at most; 0 is no limit.
        idle grpc_listen_conn_limit: usize = 0;
        /// Whether the most streams of a connection are measured.
        idle grpc_collect_max_streams_by_conn: bool = true;
        /// Whether the PROXY protocol is read.
        idle proxy_protocol_enabled: bool = false;
        /// Cipher suites allowed for TLS, comma-separated.
        idle tls_cipher_suites: String = String::new();
        /// Lowest TLS version, as in `VersionTLS12`.
        idle tls_min_version: String = String::new();
        /// TLS of the gRPC listener.
        idle grpc_tls_config: ServerTls = default();
        /// Whether `/metrics` is served.
        always register_instrumentation: bool = true;
        /// Whether gRPC codes are a label of the request metrics.
        idle report_grpc_codes_in_instrumentation_label_enabled: bool = false;
        /// Whether connections closed before the answer are logged.
        idle http_log_closed_connections_without_response_enabled: bool = false;
        /// Largest gRPC message accepted, in bytes.
        idle grpc_server_max_recv_msg_size: u64 = 16 << 20;
        /// Largest gRPC message sent, in bytes.
        idle grpc_server_max_send_msg_size: u64 = 16 << 20;
        /// Open streams per gRPC connection at most; 0 is no limit.
        idle grpc_server_max_concurrent_streams: u32 = 100;
        /// How long a gRPC connection may idle.
        idle grpc_server_max_connection_idle: Duration = INFINITE;
        /// How old a gRPC connection may become.
        idle grpc_server_max_connection_age: Duration = INFINITE;
        /// Time for open calls once a gRPC connection is too old.
        idle grpc_server_max_connection_age_grace: Duration = INFINITE;
        /// Pause before an idle gRPC connection is pinged.
        idle grpc_server_keepalive_time: Duration = mins(120);
        /// Longest wait for the answer to such a ping.
        idle grpc_server_keepalive_timeout: Duration = secs(20);
        /// Shortest pause a client must leave between pings.
        idle grpc_server_min_time_between_pings: Duration = secs(10);
        /// Whether clients may ping without an open call.
        always grpc_server_ping_without_stream_allowed: bool = true;
        /// Workers of the gRPC server; 0 is one per call.
        idle grpc_server_num_workers: usize = 0;
        /// Whether message statistics are kept.
        idle grpc_server_stats_tracking_enabled: bool = true;
        /// Whether receive buffers are pooled.
        idle grpc_server_recv_buffer_pools_enabled: bool = false;
        /// Read buffer of a gRPC connection, in bytes (3.x).
        idle grpc_server_read_buffer_size: u64 = 32768;
        /// Write buffer of a gRPC connection, in bytes (3.x).
        idle grpc_server_write_buffer_size: u64 = 32768;
        /// Whether addresses of clients are logged.
        idle log_source_ips_enabled: bool = false;
        /// Whether every address of the forwarding headers is logged.
        idle log_source_ips_full: bool = false;
        /// Header that carries the client's address.
        idle log_source_ips_header: String = String::new();
        /// Pattern that finds the address in that header.
        idle log_source_ips_regex: String = String::new();
        /// Whether request headers are logged.
        idle log_request_headers: bool = false;
        /// Whether requests are logged at level info.
        idle log_request_at_info_level_enabled: bool = false;
        /// Headers that are never logged, comma-separated.
        idle log_request_exclude_headers_list: String = String::new();
        /// Whether request headers become attributes of own traces.
        idle trace_request_headers: bool = false;
        /// Headers that never become attributes, comma-separated.
        idle trace_request_exclude_headers_list: String = String::new();
        /// Whether requests without a trace context start one (3.x).
        idle create_new_traces: bool = false;
        /// Prefix of every HTTP path.
        idle http_path_prefix: String = String::new();
        /// Refusal of calls that come from another cluster.
        used cluster_validation: ClusterValidation = default();
    }
}
