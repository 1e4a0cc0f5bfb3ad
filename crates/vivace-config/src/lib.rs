//! Tempo's configuration: every key, its default and its check; no IO.
//!
//! [`Config`] is a tree of structs whose fields are Tempo's YAML keys. [`Config::load`] makes one from a file's text and the
//! command line ([`flags::Flags`]), and says everything that is wrong at once. [`Overrides`] answers a tenant's limits.
//! Reading files and the environment is left to the caller.

#![expect(deprecated, reason = "fields without effect are, for those who would read them; they are read and shown here")]

mod bucket;
mod cache;
mod check;
mod compactor;
mod dedicated_column;
mod distributor;
mod duration;
mod error;
mod expand;
pub mod flags;
mod grpc_client;
mod ingester;
mod kafka_receiver;
mod limits;
mod memberlist;
mod metrics_generator;
mod node;
pub mod ottl;
mod overrides;
mod querier;
mod query_frontend;
mod reader;
mod receivers;
mod relabel;
mod remote_write;
mod render;
mod ring;
mod section;
mod server;
mod storage;
mod suggest;
mod target;
mod value;

pub use bucket::{Azure, Gcs, S3, Sse};
pub use cache::{BackgroundCache, Cache, CacheEntry, CacheRole, Memcached, Redis};
pub use compactor::{Compaction, Compactor};
pub use dedicated_column::{ColumnOption, ColumnScope, ColumnType, DedicatedColumn};
pub use distributor::{
    CostAttribution, Distributor, Forwarder, ForwarderFilter, ForwarderFilterTraces, ForwarderOtlpGrpc, ForwarderTls, LogSpans,
    MetricReceivedSpans, Usage,
};
pub use duration::{format as format_duration, parse as parse_duration};
pub use error::{ConfigErrors, Problem, Warning, WarningKind};
pub use expand::{ExpandError, expand};
pub use grpc_client::{Backoff, ClientClusterValidation, CollectorTls, GrpcClient, GrpcCompression, PoolConfig, RingClient};
pub use ingester::Ingester;
pub use kafka_receiver::{
    KafkaAuth, KafkaAutocommit, KafkaBackoff, KafkaConsumer, KafkaEncoding, KafkaHeaders, KafkaMarking, KafkaMechanism, KafkaMetadata,
    KafkaMetadataRetry, KafkaOffset, KafkaPlain, KafkaReceiver, KafkaSasl, KafkaStrategy, KafkaTls, KafkaTraces,
};
pub use limits::{
    CompactionLimits, CostAttributionLimits, GeneratorForwarderLimits, GeneratorLimits, GlobalLimits, HistogramMode, HostInfoLimits,
    IngestionLimits, Limits, LocalBlocksLimits, ProcessorLimits, RateStrategy, ReadLimits, ServiceGraphLimits, SpanMetricsLimits,
    SpanNameSanitization, StorageLimits,
};
pub use memberlist::Memberlist;
pub use metrics_generator::{
    DimensionMapping, FilterPolicy, GeneratorStorage, HostInfo, IntrinsicDimensions, LimiterType, LocalBlocks, MatchType, MetricsGenerator,
    PolicyAttribute, PolicyMatch, Processor, Registry, ServiceGraphs, SpanMetrics,
};
pub use overrides::{Overrides, OverridesApi, OverridesClient, OverridesConfig, UserConfigurableOverrides};
pub use querier::{FrontendWorker, Querier, QuerierExternal, QuerierMetrics, QuerierSearch, QuerierTraceById};
pub use query_frontend::{
    FrontendMetrics, FrontendSearch, FrontendTraceById, JaegerQuery, McpServer, QueryFrontend, Slo, TraceqlRelease, Weights, ZipkinQuery,
};
pub use receivers::{
    Cors, Endpoint, GrpcReceiver, HttpReceiver, JaegerBlock, JaegerProtocols, JaegerReceiver, Keepalive, KeepaliveEnforcement,
    KeepaliveServer, OtlpBlock, OtlpHttpReceiver, OtlpProtocols, OtlpReceiver, Receivers, UdpReceiver, ZipkinHttp, ZipkinReceiver,
};
pub use relabel::{RelabelAction, RelabelConfig};
pub use remote_write::{
    Authorization, BasicAuth, HttpHeader, MetadataConfig, OAuth2, ProtobufMessage, QueueConfig, RemoteWrite, RemoteWriteTls, SigV4,
};
pub use render::reference;
pub use ring::{IngesterRing, Kv, KvStore, Lifecycler, ServiceRing};
pub use server::{ClusterValidation, ClusterValidationGrpc, ClusterValidationHttp, InternalServer, LogFormat, LogLevel, Server, ServerTls};
pub use storage::{Backend, Block, BlockSearch, BlockVersion, CacheControl, LocalBackend, Pool, Storage, TraceStorage, Wal};
pub use target::Target;
pub use value::{ByteString, CommaList, Ignored, Secret, SecretUrl};

use std::time::Duration;

use reader::Reader;
use section::section;
use value::{Value, default, millis, secs};

section! {
    /// `memory`: what the process may take together. Requests, live traces, queries, answers and caches share it, and what does
    /// not fit is refused by name.
    pub struct Memory {
        /// The limit, with a unit; 0B takes `GOMEMLIMIT`. The limits of control groups and the machine's memory lower either.
        used limit: ByteString = ByteString(0);
        /// Whether Go's limit follows the control group's (3.x); always so here.
        always automemlimit_enabled: bool = false;
        /// Share of the control group's limit that Go takes (3.x).
        idle automemlimit_ratio: f64 = 0.8;
    }
}

section! {
    /// The whole configuration of a process.
    pub struct Config {
        /// Services of this process: `all`, or one of them.
        used target: Target = default();
        /// Whether requests name their tenant in `X-Scope-OrgID`.
        used multitenancy_enabled: bool = false;
        /// Older name of `multitenancy_enabled`; either switches it on.
        used auth_enabled: bool = false;
        /// Prefix of the API's HTTP paths, such as `/tempo`.
        used http_api_prefix: String = String::new();
        /// Whether streaming queries are served on the HTTP port too.
        always stream_over_http_enabled: bool = false;
        /// How long a stopping process says that it is not ready before it stops.
        used shutdown_delay: Duration = Duration::ZERO;
        /// Metrics of Go's runtime.
        idle enable_go_runtime_metrics: bool = false;
        /// Kafka installations.
        idle partition_ring_live_store: bool = false;
        /// Profiles by span (3.x).
        idle span_profiling: bool = false;
        /// How much memory the process may take.
        used memory: Memory = default();
        /// Listeners, their limits, and the log.
        used server: Server = default();
        /// A second HTTP listener for `/ready` and `/metrics`.
        used internal_server: InternalServer = default();
        /// Receives spans and gives them to ingesters.
        used distributor: Distributor = default();
        /// Calls to ingesters.
        used ingester_client: RingClient = default();
        /// Live traces, the blocks they become, and the ring they arrive by.
        used ingester: Ingester = default();
        /// Calls to metrics-generators.
        used metrics_generator_client: RingClient = default();
        /// Makes metrics from spans and sends them to Prometheus.
        used metrics_generator: MetricsGenerator = default();
        /// Pulls jobs from query-frontends and runs them.
        used querier: Querier = default();
        /// The query API; splits queries into jobs and combines their results.
        used query_frontend: QueryFrontend = default();
        /// Merges blocks and deletes old ones.
        used compactor: Compactor = default();
        /// The bucket, the local folders, and how blocks are written and found.
        used storage: Storage = default();
        /// Limits of tenants.
        used overrides: OverridesConfig = default();
        /// Gossip between the processes.
        used memberlist: Memberlist = default();
        /// Reports to Tempo's authors; Vivace sends none.
        used usage_report: UsageReport = default();
        /// Caches beside the processes.
        idle cache: Cache = default();
        /// Kafka installations.
        idle live_store_client: Ignored = default();
        /// Kafka installations.
        idle live_store: Ignored = default();
        /// Kafka installations.
        idle ingest: Ignored = default();
        /// Kafka installations.
        idle block_builder: Ignored = default();
        /// Kafka installations.
        idle backend_scheduler: Ignored = default();
        /// Kafka installations.
        idle backend_scheduler_client: Ignored = default();
        /// Kafka installations.
        idle backend_worker: Ignored = default();
    }
    dropped {
        "search_enabled": "removed in Tempo 2.0, search is always on; remove it";
        "metrics_generator_enabled": "removed in Tempo 2.0; set metrics_generator.storage.path, which switches the generator on";
        "use_otel_tracer": "removed in Tempo 2.7; remove it";
        "autocomplete_filtering_enabled": "removed after Tempo 2.5, suggestions are always filtered; remove it";
    }
}

section! {
    /// `usage_report`: reports to Tempo's authors; Vivace sends none.
    pub struct UsageReport {
        /// Whether they are sent.
        used reporting_enabled: bool = false;
        /// Pauses between tries.
        idle backoff: Backoff = Backoff { min_period: millis(100), max_period: secs(10), max_retries: 0 };
    }
}

fn port_of(endpoint: &str) -> Option<u16> {
    endpoint.rsplit_once(':')?.1.parse().ok()
}

impl Config {
    /// What runs without any file: everything in one process, all data in `./vivace-data`.
    #[must_use]
    pub fn local() -> Self {
        let mut config = Self::default();
        config.storage.trace.backend = Backend::Local;
        "./vivace-data/blocks".clone_into(&mut config.storage.trace.local.path);
        "./vivace-data/wal".clone_into(&mut config.storage.trace.wal.path);
        "./vivace-data/generator".clone_into(&mut config.metrics_generator.storage.path);
        config
    }

    /// Whether this process has a Zipkin receiver on a port.
    #[must_use]
    pub fn zipkin_receiver_has(&self, port: u16) -> bool {
        let is_there = |endpoint: &str| port_of(endpoint) == Some(port);
        self.target.includes(Target::Distributor) && self.distributor.receivers.zipkin.iter().any(|zipkin| is_there(&zipkin.http.endpoint))
    }

    /// Whether this process has a receiver of any kind on a TCP port.
    #[must_use]
    pub fn receiver_has(&self, port: u16) -> bool {
        let mut endpoints = self.distributor.receivers.endpoints().into_iter();
        self.target.includes(Target::Distributor) && endpoints.any(|endpoint| !endpoint.is_udp && port_of(endpoint.address) == Some(port))
    }

    /// Reads a file's text over the defaults. Relations that depend on the target are checked by [`Config::load`] only.
    ///
    /// # Errors
    /// Everything that is wrong with it, with lines. `source` names the file in the error.
    pub fn parse(yaml: &str, source: &str) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let mut reader = Reader::new();
        let mut config = Self::default();
        config.read_text(yaml, &mut reader);
        finish(reader, source).map(|warnings| (config, warnings))
    }

    /// Makes the configuration of a process: the file's text (expanded already) over the defaults, the flags over both, then all checks.
    /// Without a file it starts from [`Config::local`].
    ///
    /// # Errors
    /// Everything that is wrong, with lines.
    pub fn load(file: Option<(&str, &str)>, flags: &flags::Flags) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let mut reader = Reader::new();
        let mut config = if file.is_some() { Self::default() } else { Self::local() };
        let is_read = file.is_none_or(|(yaml, _)| config.read_text(yaml, &mut reader));
        flags.apply(&mut config, &mut reader);
        config.settle();
        if is_read {
            check::relations(&config, &mut reader);
        }
        finish(reader, file.map_or("command line", |(_, source)| source)).map(|warnings| (config, warnings))
    }

    /// Whether requests name their tenant.
    #[must_use]
    pub fn is_multitenant(&self) -> bool {
        self.multitenancy_enabled || self.auth_enabled
    }

    /// Whether the text is YAML; where it is not, all else would be missing for that reason alone.
    fn read_text(&mut self, yaml: &str, reader: &mut Reader) -> bool {
        let Some(node) = node::parse(yaml, reader) else { return false };
        self.read(&node, reader);
        check::values(self, reader);
        true
    }

    /// Values that follow from others.
    fn settle(&mut self) {
        self.multitenancy_enabled = self.is_multitenant();
        if self.target == Target::All {
            self.ingester.lifecycler.ring.replication_factor = 1;
        }
        let compaction = &mut self.compactor.compaction;
        compaction.retention_concurrency = set_or(compaction.retention_concurrency, 10);
        compaction.compaction_cycle = set_or(compaction.compaction_cycle, secs(30));
        let trace = &mut self.storage.trace;
        trace.blocklist_poll_concurrency = set_or(trace.blocklist_poll_concurrency, 50);
        trace.pool.max_workers = set_or(trace.pool.max_workers, 400);
    }
}

/// A setting in which zero (or nothing) stands for another value, and what it stands for: the general setting for a tenant without
/// one of its own, say. Defaults that are always the same are in the configuration itself by the time that a service reads it.
pub fn set_or<T: Default + PartialEq>(configured: T, otherwise: T) -> T {
    if configured == T::default() { otherwise } else { configured }
}

/// Everything the reader found: warnings if nothing is wrong.
fn finish(reader: Reader, source: &str) -> Result<Vec<Warning>, ConfigErrors> {
    let Reader { problems, mut warnings, more_warnings, .. } = reader;
    if let Some(errors) = problems.into_errors(source) {
        return Err(errors);
    }
    if more_warnings > 0 {
        let message = format!("there are {more_warnings} more remarks of this kind");
        warnings.push(Warning { kind: WarningKind::NoEffect, path: source.to_owned(), line: 0, message });
    }
    Ok(warnings)
}
