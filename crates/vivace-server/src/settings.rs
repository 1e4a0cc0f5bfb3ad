//! What a process takes from the configuration, in the form it uses.

use std::sync::Arc;
use std::time::Duration;

use tracing::Level;
use vivace_config::{Config, LogFormat, LogLevel, set_or};

use crate::activity::Timeouts;
use crate::listen::ConnectionOptions;
use crate::log::Format;
use crate::tls::Tls;
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
    /// TLS that cannot be set up, by key.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Self> {
        let server = &config.server;
        let message_bytes_max = usize::try_from(server.grpc_server_max_recv_msg_size).unwrap_or(usize::MAX);
        let http_timeouts = Timeouts {
            // As Go's server: the read timeout counts where there is none for the head.
            header: set_or(server.http_server_read_header_timeout, server.http_server_read_timeout),
            body: server.http_server_read_timeout,
            write: server.http_server_write_timeout,
            idle: server.http_server_idle_timeout,
            ..Timeouts::NONE
        };
        let http = listen::Settings {
            protocol: "http",
            section: "server",
            address: server.http_listen_address.clone(),
            port: server.http_listen_port,
            max_connections: server.http_listen_conn_limit,
            connections: ConnectionOptions {
                timeouts: http_timeouts,
                max_concurrent_streams: set_or(server.grpc_server_max_concurrent_streams, u32::MAX),
                ping_after: server.grpc_server_keepalive_time,
                ping_timeout: server.grpc_server_keepalive_timeout,
                keep_alive: true,
                message_bytes_max,
            },
            tls: Tls::of_http(server)?.map(Arc::new),
            is_for_members: false,
            sends_away_early: true,
        };
        let grpc = listen::Settings {
            protocol: "grpc",
            address: server.grpc_listen_address.clone(),
            port: server.grpc_listen_port,
            max_connections: server.grpc_listen_conn_limit,
            connections: ConnectionOptions {
                timeouts: Timeouts {
                    idle: server.grpc_server_max_connection_idle,
                    age: server.grpc_server_max_connection_age,
                    age_grace: server.grpc_server_max_connection_age_grace,
                    ..http_timeouts
                },
                ..http.connections.clone()
            },
            tls: None,
            is_for_members: true,
            sends_away_early: false,
            ..http.clone()
        };
        let own = &config.internal_server;
        let internal = own.enable.then(|| listen::Settings {
            section: "internal_server",
            address: config.internal_server.http_listen_address.clone(),
            port: config.internal_server.http_listen_port,
            max_connections: config.internal_server.http_listen_conn_limit,
            connections: ConnectionOptions {
                timeouts: Timeouts {
                    header: set_or(own.http_server_read_header_timeout, own.http_server_read_timeout),
                    body: own.http_server_read_timeout,
                    write: own.http_server_write_timeout,
                    idle: own.http_server_idle_timeout,
                    ..Timeouts::NONE
                },
                ..http.connections.clone()
            },
            tls: None,
            ..http.clone()
        });
        Ok(Self {
            http,
            grpc,
            internal,
            grpc_limits: GrpcLimits {
                max_receive_bytes: message_bytes_max,
                max_send_bytes: usize::try_from(server.grpc_server_max_send_msg_size).unwrap_or(usize::MAX),
            },
            path_prefix: server.http_path_prefix.trim_end_matches('/').to_owned(),
            api_prefix: config.http_api_prefix.trim_end_matches('/').to_owned(),
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
