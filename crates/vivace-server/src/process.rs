//! One process: its listeners, tasks, readiness and shutdown.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::middleware;
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use http::Request;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::SetOnce;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::body::Body as GrpcBody;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;
use vivace_config::Config;
use vivace_core::budget::Budget;
use vivace_core::metric::Metric;

use crate::listen::{self, ConnectionOptions, Ending, Services, Shared, Staged};
use crate::memory_limit::MemoryLimit;
use crate::one_protocol::grpc_only;
use crate::places::Places;
use crate::ready::Readiness;
use crate::request_budget::RequestBudget;
use crate::settings::Settings;
use crate::tls::Tls;
use crate::{Tenancy, admin, build, connection, descriptors, instrument, log, memory, reads, recorder};

/// How often histograms are folded and the memory between two scrapes is bounded.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

type Drain = Box<dyn FnOnce() -> BoxFuture<'static, anyhow::Result<()>> + Send>;

/// A process under construction; [`Process::run`] makes it serve.
pub struct Process {
    name: String,
    settings: Settings,
    shared: Shared,
    http_addr: SocketAddr,
    grpc_listener: TcpListener,
    http: Router,
    grpc: Routes,
    admin: admin::Pages,
    ready: Readiness,
    servers: Servers,
    /// What the HTTP listener serves once the process runs.
    built: Arc<SetOnce<Services>>,
    tasks: Tasks,
    drains: Vec<(String, Drain)>,
    /// Routes that read on listeners of other parts, by their protocol.
    reads: HashMap<&'static str, Router>,
    /// Tells tasks to end: after the drains.
    stop: CancellationToken,
    /// Begins the shutdown, as a signal does.
    shutdown: CancellationToken,
    /// Tells clients to move: the shutdown has begun.
    draining: CancellationToken,
    recorder: PrometheusHandle,
}

/// Begins the shutdown of a [`Process`], as SIGTERM does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Begins it. Again has no effect.
    pub fn begin(&self) {
        self.0.cancel();
    }
}

/// The largest gRPC messages, in bytes (`server.grpc_server_max_recv_msg_size`, `grpc_server_max_send_msg_size`).
#[derive(Debug, Clone, Copy)]
pub struct GrpcLimits {
    /// Taken.
    pub max_receive_bytes: usize,
    /// Sent.
    pub max_send_bytes: usize,
}

impl Process {
    /// Installs logs and metrics and binds the listeners of `server`. From here on the process' own pages are served;
    /// other HTTP requests wait until it runs, and so do gRPC connections. `name` is the binary's, such as `vivace-querier`;
    /// `metrics` has those of all its parts but this crate's, so that they are explained where they are served.
    ///
    /// # Errors
    /// An address that cannot be bound, with the keys it comes from.
    pub async fn start(config: &Config, name: &str, metrics: &[&[Metric]]) -> anyhow::Result<Self> {
        let mut process = Self::bind(config, name, metrics).await?;
        let watch = memory::watch(process.budget(), process.stop.clone());
        process.spawn("memory watch", async move {
            watch.await;
            Ok(())
        });
        Ok(process)
    }

    /// A process on free ports of the loopback interface, with Tempo's defaults, for tests. What nobody is charged with is not held
    /// against it: the allocator's books are those of all tests of a program.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn test(name: &str) -> anyhow::Result<Self> {
        Self::test_with(&Config::default(), name).await
    }

    /// [`Process::test`] with more of a configuration than its defaults.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn test_with(config: &Config, name: &str) -> anyhow::Result<Self> {
        let mut config = config.clone();
        for (address, port) in [
            (&mut config.server.http_listen_address, &mut config.server.http_listen_port),
            (&mut config.server.grpc_listen_address, &mut config.server.grpc_listen_port),
            (&mut config.internal_server.http_listen_address, &mut config.internal_server.http_listen_port),
        ] {
            "127.0.0.1".clone_into(address);
            *port = 0;
        }
        Self::bind(&config, name, &[]).await
    }

    async fn bind(config: &Config, name: &str, metrics: &[&[Metric]]) -> anyhow::Result<Self> {
        // Before anything is begun that would have to be ended in order.
        Tls::verify(config)?;
        let settings = Settings::of(config)?;
        log::install(settings.log_format, settings.log_level);
        let recorder = recorder::install(metrics)?;
        build::publish();
        memory::return_unused_pages();
        let budget = MemoryLimit::of_this_process(config.memory.limit.0).budget();
        let for_memory = usize::try_from(budget.limit() / connection::MEMORY_BYTES).unwrap_or(usize::MAX);
        let shared = Shared { places: Places::new(descriptors::raise_limit().min(for_memory)), budget };
        let http_listener = listen::bind(&settings.http).await?;
        let grpc_listener = listen::bind(&settings.grpc).await?;
        let internal_listener = match &settings.internal {
            Some(internal) => Some(listen::bind(internal).await?),
            None => None,
        };
        let ready = Readiness::default();
        let admin = admin::Pages::new(name, config, ready.clone(), recorder.clone(), shared.budget.clone());
        let http_addr = http_listener.local_addr().context("a bound listener has an address")?;
        let draining = CancellationToken::new();
        let (mut servers, built) = (Servers::new(draining.clone(), shared.clone()), Arc::new(SetOnce::new()));
        let early = Services { http: Some(early_routes(&admin, &built, &settings)), grpc: None };
        servers.serve(http_listener, Staged { first: early, then: built.clone() }, &settings.http);
        if let (Some(listener), Some(listen)) = (internal_listener, &settings.internal) {
            servers.serve(listener, Services { http: Some(admin.internal_routes()), grpc: None }.into(), listen);
        }
        let mut process = Self {
            name: name.to_owned(),
            admin,
            settings,
            shared,
            http_addr,
            grpc_listener,
            http: Router::new(),
            grpc: Routes::default(),
            ready,
            servers,
            built,
            tasks: Tasks::default(),
            drains: Vec::new(),
            reads: HashMap::new(),
            stop: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            draining,
            recorder,
        };
        tracing::info!(
            version = build::VERSION,
            http = %process.http_addr(),
            grpc = %process.grpc_addr(),
            "{} listens",
            process.name
        );
        process.keep_metrics_small();
        Ok(process)
    }

    /// Where HTTP is served. Port 0 in the configuration stands here as the port that was taken.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where gRPC is served.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_listener.local_addr().expect("a bound listener has an address")
    }

    /// Where this process reaches its own gRPC services: [`Process::grpc_addr`], on loopback where all interfaces are bound.
    #[must_use]
    pub fn grpc_loopback(&self) -> SocketAddr {
        let mut address = self.grpc_addr();
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        address
    }

    /// The gRPC services of this process, with all that is in front of them on its listener but the connection; none before it runs, and after.
    pub fn grpc_services(&self) -> impl Fn() -> Option<Router> + Send + Sync + use<> {
        // Services that hold this must not keep themselves alive by it.
        let built = Arc::downgrade(&self.built);
        move || built.upgrade()?.get()?.grpc.clone()
    }

    /// Cancelled when tasks shall end: after the drains of a shutdown.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Lets others end this process.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.shutdown.clone())
    }

    /// The bytes that all parts of this process may hold together.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.shared.budget.clone()
    }

    /// What of it requests may take that come from outside of the cluster.
    #[must_use]
    pub fn request_budget(&self) -> RequestBudget {
        RequestBudget::of_senders(&self.shared.budget)
    }

    /// How requests name their tenant.
    #[must_use]
    pub fn tenancy(&self) -> Tenancy {
        self.settings.tenancy
    }

    /// The largest messages, for services that are not added with [`crate::add_grpc!`].
    #[must_use]
    pub fn grpc_limits(&self) -> GrpcLimits {
        self.settings.grpc_limits
    }

    /// Serves routes under `server.http_path_prefix`.
    ///
    /// # Panics
    /// When a route exists already.
    pub fn add_http(&mut self, routes: Router) {
        self.http = std::mem::take(&mut self.http).merge(routes);
    }

    /// Serves routes under `http_api_prefix`: those of `/api`, `/querier` and `/generator`.
    ///
    /// # Panics
    /// When a route exists already.
    pub fn add_api(&mut self, routes: Router) {
        match self.settings.api_prefix.clone().as_str() {
            "" => self.add_http(routes),
            prefix => self.add_http(Router::new().nest(prefix, routes)),
        }
    }

    /// Serves a generated tonic server on the gRPC port, and on the HTTP port for requests of gRPC's content type.
    /// [`crate::add_grpc!`] sets the configured limits too.
    pub fn add_grpc<S>(&mut self, service: S)
    where
        S: Service<http::Request<GrpcBody>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.admin.add_service(S::NAME);
        self.grpc = std::mem::take(&mut self.grpc).add_service(service);
    }

    /// Serves requests that read (GET and HEAD) on the listener that another part has for `protocol`, and opens with
    /// [`Process::serve_on`] after this: Zipkin's clients send spans to the port that they read from.
    pub fn add_reads(&mut self, protocol: &'static str, routes: Router) {
        self.reads.insert(protocol, routes);
    }

    /// Serves routes on a listener of a part's own, until `stop`; then the requests in flight end, and with them the future.
    /// As soon as a shutdown begins, clients are told to move. `protocol` is a label of `tempo_tcp_connections`;
    /// without `tls` it is plain text.
    pub fn serve_on(
        &self,
        listener: TcpListener,
        protocol: &'static str,
        routes: Router,
        connections: ConnectionOptions,
        tls: Option<Arc<Tls>>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let routes = match self.reads.get(protocol) {
            Some(reads) => reads::beside(reads.clone(), routes),
            None => routes,
        };
        let settings = listen::Settings {
            protocol,
            section: "",
            address: String::new(),
            port: 0,
            max_connections: 0,
            connections,
            tls,
            is_for_members: false,
            sends_away_early: true,
        };
        let ending = Ending { draining: self.draining.clone(), stop };
        listen::serve(listener, Services::plain(routes).into(), settings, self.shared.clone(), ending)
    }

    /// The same until the process stops, with connections and TLS as the HTTP listener of `server` has them.
    pub fn serve_as_http(&self, listener: TcpListener, protocol: &'static str, routes: Router) -> impl Future<Output = ()> + Send + use<> {
        self.serve_as(&self.settings.http, listener, protocol, routes)
    }

    /// The same with those of the gRPC listener. `routes` are of gRPC only.
    pub fn serve_as_grpc(&self, listener: TcpListener, protocol: &'static str, routes: Router) -> impl Future<Output = ()> + Send + use<> {
        self.serve_as(&self.settings.grpc, listener, protocol, routes)
    }

    fn serve_as(
        &self,
        like: &listen::Settings,
        listener: TcpListener,
        protocol: &'static str,
        routes: Router,
    ) -> impl Future<Output = ()> + Send + use<> {
        let settings = listen::Settings { protocol, max_connections: 0, is_for_members: false, sends_away_early: true, ..like.clone() };
        let ending = Ending { draining: self.draining.clone(), stop: self.stop.clone() };
        listen::serve(listener, Services::plain(routes).into(), settings, self.shared.clone(), ending)
    }

    /// Adds a condition for `/ready`: an error is the reason that `/ready` answers with 503. Must not block.
    pub fn ready_check(&mut self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.ready.add(name, check);
    }

    /// Waits for something that this process cannot be built without, such as its bucket. Meanwhile `/ready` names it.
    pub async fn wait_for<T>(&mut self, part: &str, coming: impl Future<Output = T>) -> T {
        self.ready.set_awaited(Some(part.to_owned()));
        let come = coming.await;
        self.ready.set_awaited(None);
        come
    }

    /// Runs a task that lives as long as the process. Its error or panic ends the process with that error.
    pub fn spawn(&mut self, name: &str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(name, task);
    }

    /// Adds a step of the shutdown. Steps run one after the other, the last added first, while everything still serves;
    /// after them tasks and listeners are stopped.
    pub fn on_drain(&mut self, name: &str, drain: impl FnOnce() -> BoxFuture<'static, anyhow::Result<()>> + Send + 'static) {
        self.drains.push((name.to_owned(), Box::new(drain)));
    }

    /// Adds what `/status/runtime_config` shows; called at each request, `diff` asks for what is not default only.
    pub fn runtime_config(&mut self, render: impl Fn(bool) -> String + Send + Sync + 'static) {
        self.admin.runtime_config = Some(Arc::new(render));
    }

    /// Reads the per-tenant limits now and then again every `overrides.per_tenant_override_period`.
    /// See [`crate::Overrides`] for what happens to a file that is not valid.
    ///
    /// # Errors
    /// The file cannot be read or is not valid now.
    pub fn overrides(&mut self, config: &Config) -> anyhow::Result<Arc<crate::Overrides>> {
        let overrides = Arc::new(crate::Overrides::load(config)?);
        let shown = overrides.clone();
        self.runtime_config(move |diff| shown.render(diff));
        let (watched, stop) = (overrides.clone(), self.stop.clone());
        self.spawn("overrides", async move {
            watched.reload_until(stop).await;
            Ok(())
        });
        Ok(overrides)
    }

    /// Serves until SIGTERM, SIGINT, [`Shutdown::begin`] or the first failing task; then tells clients to move, waits
    /// `shutdown_delay`, unready, drains in reverse order, stops tasks and listeners. A second signal ends the process at once.
    ///
    /// # Errors
    /// Of the first task or drain that failed, or what did not end within `server.graceful_shutdown_timeout`.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        self.add_grpc(health_service);
        let mut signals = Signals::new()?;
        let Self {
            name,
            settings,
            grpc_listener,
            http,
            grpc,
            admin,
            ready,
            mut servers,
            built,
            mut tasks,
            drains,
            stop,
            shutdown,
            draining,
            ..
        } = self;
        let routes = Routers::new(http, grpc, admin, &settings);
        servers.serve(grpc_listener, Services { http: None, grpc: Some(routes.grpc.clone()) }.into(), &settings.grpc);
        ready.set_running();
        built.set(Services { http: Some(routes.http), grpc: Some(routes.grpc) }).expect("a process runs once");
        tracing::info!(version = build::VERSION, "{name} started");

        let mut signalled = false;
        let ended_by = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "received a signal");
                signalled = true;
                Ok(())
            }
            () = shutdown.cancelled() => Ok(()),
            failure = tasks.first_failure() => Err(failure),
        };

        ready.set_draining();
        draining.cancel();
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let delay = if ended_by.is_ok() { settings.shutdown_delay } else { Duration::ZERO };
        tracing::info!(delay_seconds = delay.as_secs_f64(), "shutting down");
        let orderly = async {
            tokio::time::sleep(delay).await;
            let mut result = ended_by;
            let within =
                Within { deadline: Instant::now() + settings.graceful_shutdown_timeout, timeout: settings.graceful_shutdown_timeout };
            for (part, drain) in drains.into_iter().rev() {
                tracing::info!(part, "draining");
                let drained =
                    within.run(&part, drain()).await.and_then(|drained| drained.with_context(|| format!("{part} could not drain")));
                result = result.and(drained);
            }
            stop.cancel();
            servers.ending.stop.cancel();
            if within.run("the last request", servers.ended()).await.is_err() {
                tracing::warn!("requests in flight are cut off after server.graceful_shutdown_timeout");
            }
            let tasks_ended = within.run("the last task", tasks.all_ended()).await;
            let tasks_ended = tasks_ended.map_err(|error| error.context(format!("still running: {}", tasks.names())));
            result.and(tasks_ended.and_then(|ended| ended))
        };
        let impatient = async {
            // Who asks over HTTP, as a hook before a container's end does, is followed by a first signal that is no impatience.
            if !signalled {
                let signal = signals.next().await;
                tracing::info!(signal, "received a signal, shutting down already");
            }
            signals.next().await
        };
        let result = tokio::select! {
            result = orderly => result,
            signal = impatient => {
                tracing::error!(signal, "a second signal: ending at once");
                std::process::exit(1);
            }
        };
        match &result {
            Ok(()) => tracing::info!("{name} stopped"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "{name} stopped"),
        }
        result
    }

    fn keep_metrics_small(&mut self) {
        let (recorder, stop) = (self.recorder.clone(), self.stop.clone());
        self.spawn("metrics upkeep", async move {
            let mut tick = tokio::time::interval(UPKEEP_PERIOD);
            loop {
                tokio::select! {
                    _ = tick.tick() => recorder.run_upkeep(),
                    () = stop.cancelled() => return Ok(()),
                }
            }
        });
    }
}

/// The one deadline of a shutdown.
struct Within {
    deadline: Instant,
    timeout: Duration,
}

impl Within {
    async fn run<T>(&self, what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
        timeout_at(self.deadline, future)
            .await
            .map_err(|_| anyhow::anyhow!("{what} did not end within server.graceful_shutdown_timeout ({:?})", self.timeout))
    }
}

/// Tasks that live as long as the process, by name.
#[derive(Default)]
struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    fn spawn(&mut self, name: &str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name.to_owned());
    }

    /// Ends with the first error or panic; never where there is none. May be dropped midway.
    async fn first_failure(&mut self) -> anyhow::Error {
        loop {
            match self.running.join_next_with_id().await {
                Some(ended) => {
                    if let Err(error) = self.outcome(ended) {
                        return error;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// The first failure of those that were still running. May be dropped midway.
    async fn all_ended(&mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next_with_id().await {
            result = result.and(self.outcome(ended));
        }
        result
    }

    fn outcome(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) -> anyhow::Result<()> {
        match ended {
            Ok((id, result)) => {
                let name = self.names.remove(&id).unwrap_or_default();
                result.with_context(|| format!("{name} failed"))
            }
            Err(error) => {
                let name = self.names.remove(&error.id()).unwrap_or_default();
                Err(anyhow::anyhow!("{name} failed: {error}"))
            }
        }
    }

    fn names(&self) -> String {
        let mut names: Vec<&str> = self.names.values().map(String::as_str).collect();
        names.sort_unstable();
        names.join(", ")
    }
}

/// Listeners that serve.
struct Servers {
    running: JoinSet<()>,
    shared: Shared,
    ending: Ending,
}

impl Servers {
    fn new(draining: CancellationToken, shared: Shared) -> Self {
        Self { running: JoinSet::new(), shared, ending: Ending { draining, stop: CancellationToken::new() } }
    }

    fn serve(&mut self, listener: TcpListener, services: Staged, settings: &listen::Settings) {
        self.running.spawn(listen::serve(listener, services, settings.clone(), self.shared.clone(), self.ending.clone()));
    }

    async fn ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// What the HTTP listener serves before the process runs: its pages, so that probes are answered. All else waits for the
/// rest.
fn early_routes(admin: &admin::Pages, built: &Arc<SetOnce<Services>>, settings: &Settings) -> Router {
    let built = built.clone();
    let wait = move |request: Request<Body>| {
        let built = built.clone();
        async move { built.wait().await.clone().call(request).await }
    };
    prefixed(admin.clone().routes(), &settings.path_prefix).fallback(wait)
}

fn prefixed(routes: Router, prefix: &str) -> Router {
    if prefix.is_empty() { routes } else { Router::new().nest(prefix, routes) }
}

/// What the listeners serve.
struct Routers {
    http: Router,
    grpc: Router,
}

impl Routers {
    fn new(http: Router, grpc: Routes, admin: admin::Pages, settings: &Settings) -> Self {
        let buildinfo = prefixed(admin::buildinfo_routes(), &settings.api_prefix);
        let grpc = grpc.prepare().into_axum_router();
        let elsewhere = format!("this port speaks gRPC; HTTP is served on port {}", settings.http.port);
        let routes = prefixed(http.merge(buildinfo).merge(admin.routes()), &settings.path_prefix);
        Self {
            http: routes.fallback(admin::not_found).layer(middleware::from_fn(instrument::http)),
            grpc: grpc_only(grpc, &elsewhere).layer(middleware::from_fn(instrument::grpc)),
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
