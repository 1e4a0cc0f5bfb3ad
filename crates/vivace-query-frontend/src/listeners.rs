//! The ports of other systems' APIs: whether they are opened, and what they serve.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use vivace_config::Config;
use vivace_server::Process;

use crate::http::QueryApi;
use crate::jaeger::{self, JaegerApi};
use crate::zipkin::{self, ZipkinApi};

/// Where other systems' APIs are served; none where they are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listening {
    /// Jaeger's query API over HTTP.
    pub jaeger_http: Option<SocketAddr>,
    /// Jaeger's query API over gRPC.
    pub jaeger_grpc: Option<SocketAddr>,
    /// Zipkin's query API, unless it is served where a Zipkin receiver listens.
    pub zipkin: Option<SocketAddr>,
}

/// # Errors
/// A port that is asked for cannot be opened.
pub(crate) async fn listen(config: &Config, api: &QueryApi, process: &mut Process) -> anyhow::Result<Listening> {
    let mut listening = Listening::default();
    let server = &config.server;
    let jaeger = &config.query_frontend.jaeger;
    if let Some(wish) = Wish::of(jaeger.enabled, config) {
        let routes = JaegerApi::new(api.clone(), jaeger)?;
        let key = "query_frontend.jaeger.http_listen_port";
        if let Some(listener) = wish.bind(config, &server.http_listen_address, jaeger.http_listen_port, key).await? {
            listening.jaeger_http = Some(listener.local_addr()?);
            let served = process.serve_as_http(listener, "jaeger_query_http", jaeger::routes(routes.clone()));
            run("Jaeger's query API, HTTP", served, process);
        }
        let key = "query_frontend.jaeger.grpc_listen_port";
        if let Some(listener) = wish.bind(config, &server.grpc_listen_address, jaeger.grpc_listen_port, key).await? {
            listening.jaeger_grpc = Some(listener.local_addr()?);
            let service = jaeger::service(routes, process.grpc_limits());
            let served = process.serve_as_grpc(listener, "jaeger_query_grpc", service);
            run("Jaeger's query API, gRPC", served, process);
        }
    }
    let zipkin = &config.query_frontend.zipkin;
    if let Some(wish) = Wish::of(zipkin.enabled, config) {
        let routes = zipkin::routes(ZipkinApi { api: api.clone(), config: Arc::new(zipkin.clone()) });
        let key = "query_frontend.zipkin.http_listen_port";
        if config.zipkin_receiver_has(zipkin.http_listen_port) {
            // Clients send spans to the port that they read from.
            process.add_reads("zipkin", routes);
        } else if let Some(listener) = wish.bind(config, &server.http_listen_address, zipkin.http_listen_port, key).await? {
            listening.zipkin = Some(listener.local_addr()?);
            let served = process.serve_as_http(listener, "zipkin_query", routes);
            run("Zipkin's query API", served, process);
        }
    }
    Ok(listening)
}

/// How much a listener is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// The configuration asks for it: the process does not start without.
    Asked,
    /// It is on by itself: another program may have the port, such as the one that is to be replaced.
    Welcome,
}

impl Wish {
    fn of(enabled: Option<bool>, config: &Config) -> Option<Self> {
        match enabled {
            Some(true) => Some(Self::Asked),
            Some(false) => None,
            None => config.target.is_single_binary().then_some(Self::Welcome),
        }
    }

    async fn bind(self, config: &Config, address: &str, port: u16, key: &str) -> anyhow::Result<Option<TcpListener>> {
        // Receivers listen later, and nobody may take their place.
        if self == Self::Welcome && config.receiver_has(port) {
            tracing::warn!(key, port, "a receiver has this port, and queries are not answered there");
            return Ok(None);
        }
        let host = if address.is_empty() { "0.0.0.0" } else { address.trim_start_matches('[').trim_end_matches(']') };
        match (TcpListener::bind((host, port)).await, self) {
            (Ok(listener), _) => {
                tracing::info!(key, addr = %listener.local_addr()?, "answers queries");
                Ok(Some(listener))
            }
            (Err(error), Self::Asked) => Err(error).with_context(|| format!("cannot listen on {host}:{port} ({key})")),
            (Err(error), Self::Welcome) => {
                tracing::warn!(key, %error, "cannot listen on {host}:{port}, and goes on without");
                Ok(None)
            }
        }
    }
}

fn run(name: &str, served: impl Future<Output = ()> + Send + 'static, process: &mut Process) {
    process.spawn(name, async move {
        served.await;
        Ok(())
    });
}
