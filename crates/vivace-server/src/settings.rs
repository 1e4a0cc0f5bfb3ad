//! What a process takes from the configuration, in the form it uses.

use std::time::Duration;

use tracing::Level;
use vivace_config::{Config, LogFormat, LogLevel};

use crate::log::Format;
use crate::{GrpcLimits, Tenancy, listen};

/// Checked; see [`Config`] for the keys.
pub(crate) struct Settings {
    pub(crate) http: listen::Settings,
    pub(crate) grpc: listen::Settings,
    pub(crate) internal: Option<listen::Settings>,
    pub(crate) grpc_limits: GrpcLimits,
    /// Empty, or `/…` without a slash at the end. Before every path.
    pub(crate) path_prefix: String,
    /// The same, before the paths of the API.
    pub(crate) api_prefix: String,
    pub(crate) tenancy: Tenancy,
    pub(crate) shutdown_delay: Duration,
    pub(crate) graceful_shutdown_timeout: Duration,
    pub(crate) log_format: Format,
    pub(crate) log_level: Level,
}

impl Settings {
    /// # Errors
    /// A prefix that is no path.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Self> {
        let server = &config.server;
        let http = listen::Settings {
            protocol: "http",
            section: "server",
            address: server.http_listen_address.clone(),
            port: server.http_listen_port,
            max_connections: server.http_listen_conn_limit,
            max_concurrent_streams: streams(server.grpc_server_max_concurrent_streams),
            keepalive_time: server.grpc_server_keepalive_time,
            keepalive_timeout: server.grpc_server_keepalive_timeout,
            // As Go's server: the read timeout counts where there is none for the head.
            header_timeout: first_set(server.http_server_read_header_timeout, server.http_server_read_timeout),
            windows: None,
            sends_away_early: true,
        };
        let grpc = listen::Settings {
            protocol: "grpc",
            address: server.grpc_listen_address.clone(),
            port: server.grpc_listen_port,
            max_connections: server.grpc_listen_conn_limit,
            sends_away_early: false,
            ..http.clone()
        };
        let internal = config.internal_server.enable.then(|| listen::Settings {
            section: "internal_server",
            address: config.internal_server.http_listen_address.clone(),
            port: config.internal_server.http_listen_port,
            max_connections: config.internal_server.http_listen_conn_limit,
            ..http.clone()
        });
        Ok(Self {
            http,
            grpc,
            internal,
            grpc_limits: GrpcLimits {
                max_receive_bytes: usize::try_from(server.grpc_server_max_recv_msg_size).unwrap_or(usize::MAX),
                max_send_bytes: usize::try_from(server.grpc_server_max_send_msg_size).unwrap_or(usize::MAX),
            },
            path_prefix: prefix("server.http_path_prefix", &server.http_path_prefix)?,
            api_prefix: prefix("http_api_prefix", &config.http_api_prefix)?,
            tenancy: Tenancy { multitenancy: config.multitenancy_enabled },
            shutdown_delay: config.shutdown_delay,
            graceful_shutdown_timeout: server.graceful_shutdown_timeout,
            log_format: match server.log_format {
                LogFormat::Logfmt => Format::Logfmt,
                LogFormat::Json => Format::Json,
            },
            log_level: match server.log_level {
                LogLevel::Debug => Level::DEBUG,
                LogLevel::Info => Level::INFO,
                LogLevel::Warn => Level::WARN,
                LogLevel::Error => Level::ERROR,
            },
        })
    }
}

fn streams(configured: u32) -> u32 {
    if configured == 0 { u32::MAX } else { configured }
}

fn first_set(first: Duration, second: Duration) -> Option<Duration> {
    [first, second].into_iter().find(|d| !d.is_zero())
}

fn prefix(key: &str, text: &str) -> anyhow::Result<String> {
    let clean = text.trim_end_matches('/');
    anyhow::ensure!(clean.is_empty() || clean.starts_with('/'), "{key} is {text:?}; it must start with /");
    anyhow::ensure!(!clean.contains(['{', '}', '*']), "{key} is {text:?}; it must be a plain path");
    Ok(clean.to_owned())
}
