//! `query_frontend`: how queries are bounded, split into jobs and tried again. Where a tenant has a limit of its own, that wins.

use std::time::Duration;

use crate::Cors;
use crate::SecretUrl;
use crate::section::{choice, section};
use crate::value::{default, hours, mins, secs, text};

section! {
    /// `query_frontend`: the query API; splits queries into jobs and combines their results.
    pub struct QueryFrontend {
        /// Jobs a tenant may have waiting; more are refused with 429.
        used max_outstanding_per_tenant: usize = 2000;
        /// Longest wait of a query for others to end before it begins; what would wait longer is refused with 429 and a hint when to come back. 0: nobody waits. Vivace's own key.
        used max_wait: Duration = secs(20);
        /// Jobs given to a querier at once.
        idle max_batch_size: usize = 7;
        /// Tries of a job, the first included.
        used max_retries: usize = 2;
        /// Workers that combine results.
        idle response_consumers: usize = 10;
        /// Whether a query may name several tenants, joined by `|`.
        used multi_tenant_queries_enabled: bool = true;
        /// Request headers that are logged with a query, comma-separated.
        idle log_query_request_headers: String = String::new();
        /// Longest time of a request; 0 is no limit.
        used api_timeout: Duration = Duration::ZERO;
        /// Patterns of paths that are refused with 400.
        idle url_deny_list: Vec<String> = vec![];
        /// Request headers passed on to queriers.
        idle allowed_headers: Vec<String> = vec![];
        /// Longest query text, in bytes.
        used max_query_expression_size_bytes: usize = 128 << 10;
        /// How far before now a query ends at the latest; 0 is now.
        idle query_end_cutoff: Duration = Duration::ZERO;
        /// Time from which blocks are read that Tempo writes once only.
        idle rf1_after: String = String::new();
        /// The tool server for language models.
        used mcp_server: McpServer = default();
        /// Weights of jobs in the queue.
        idle weights: Weights = default();
        /// Search.
        used search: FrontendSearch = default();
        /// Lookups by trace id.
        used trace_by_id: FrontendTraceById = default();
        /// TraceQL metrics.
        used metrics: FrontendMetrics = default();
        /// Jaeger's query API. Vivace's own block.
        used jaeger: JaegerQuery = default();
        /// The reading half of Zipkin's API. Vivace's own block.
        used zipkin: ZipkinQuery = default();
        /// Largest message of a streamed answer, in bytes (3.x).
        idle max_grpc_streaming_packet_size: u64 = 1 << 20;
    }
    dropped {
        "query_shards": "moved in Tempo 2.0: set query_frontend.trace_by_id.query_shards";
        "tolerate_failed_blocks": "removed in Tempo 2.4, a block that cannot be read is skipped and named in the log; remove it";
        "querier_forget_delay": "removed in Tempo 2.5; remove it";
        "log_queries_longer_than": "removed after Tempo 1.x; remove it";
    }
}

section! {
    /// `query_frontend.mcp_server`.
    pub struct McpServer {
        /// Whether it is served.
        idle enabled: bool = false;
    }
}

section! {
    /// `query_frontend.weights`: weights of jobs in the queue.
    pub struct Weights {
        /// Whether queries are weighed.
        used request_with_weights: bool = true;
        /// Whether failed jobs weigh more.
        used retry_with_weights: bool = true;
        /// Conditions from which a query weighs more.
        used max_traceql_conditions: usize = 4;
        /// Patterns from which a query weighs more.
        used max_regex_conditions: usize = 1;
    }
}

section! {
    /// An aim for the speed of queries.
    pub struct Slo {
        /// A query answered within this time is in time; 0 is off.
        used duration_slo: Duration = Duration::ZERO;
        /// A query that reads this many bytes a second is in time; 0 is off.
        used throughput_bytes_slo: f64 = 0.0;
    }
}

section! {
    /// `query_frontend.search`.
    pub struct FrontendSearch {
        /// Jobs of one search in flight.
        used concurrent_jobs: usize = 1000;
        /// Bytes of a block that one job reads.
        used target_bytes_per_job: u64 = 100 << 20;
        /// Traces in an answer where the query names no limit.
        used default_result_limit: usize = 20;
        /// Largest limit a query may name; 0 is any.
        used max_result_limit: usize = 0;
        /// Longest range of a search; 0 is any.
        used max_duration: Duration = hours(168);
        /// Age from which blocks are searched.
        used query_backend_after: Duration = mins(15);
        /// Age up to which ingesters are searched.
        used query_ingesters_until: Duration = mins(30);
        /// Parts the search of the ingesters is split into.
        idle ingester_shards: usize = 3;
        /// Newest parts of the bucket that a newest-first search waits for.
        idle most_recent_shards: usize = 200;
        /// Spans per spanset where the query names no number.
        used default_spans_per_span_set: usize = 3;
        /// Most spans per spanset a query may ask for; 0 is any.
        used max_spans_per_span_set: usize = 100;
        /// A search answered within this time is in time; 0 is off.
        idle duration_slo: Duration = Duration::ZERO;
        /// A search that reads this many bytes a second is in time; 0 is off.
        idle throughput_bytes_slo: f64 = 0.0;
        /// The same for tag queries.
        idle metadata_slo: Slo = default();
        /// Longest time of a search; 0 is no limit.
        idle timeout: Duration = Duration::ZERO;
    }
}

section! {
    /// `query_frontend.trace_by_id`.
    pub struct FrontendTraceById {
        /// Jobs one lookup is split into, the ingesters' job included.
        used query_shards: usize = 50;
        /// Of them in flight; 0 is all.
        used concurrent_shards: usize = 0;
        /// Whether another system is asked too.
        idle external_enabled: bool = false;
        /// A lookup answered within this time is in time; 0 is off.
        idle duration_slo: Duration = Duration::ZERO;
        /// A lookup that reads this many bytes a second is in time; 0 is off.
        idle throughput_bytes_slo: f64 = 0.0;
        /// Blocks per job (3.x).
        idle blocks_per_shard: usize = 30;
    }
    dropped {
        "hedge_requests_at": "removed after Tempo 2.4, lookups are not hedged; remove it";
        "hedge_requests_up_to": "removed after Tempo 2.4, lookups are not hedged; remove it";
    }
}

choice! {
    /// A release of Tempo, by its rules.
    pub enum TraceqlRelease {
        /// 2.10
        V2 = "v2";
        /// 3.x
        V3 = "v3";
    }
}

section! {
    /// `query_frontend.metrics`.
    pub struct FrontendMetrics {
        /// Jobs of one query in flight.
        used concurrent_jobs: usize = 1000;
        /// Bytes of a block that one job reads.
        used target_bytes_per_job: u64 = 100 << 20;
        /// Longest range of a query; 0 is any.
        used max_duration: Duration = hours(3);
        /// Age from which blocks are read.
        idle query_backend_after: Duration = mins(30);
        /// Range of one job.
        idle interval: Duration = mins(5);
        /// Exemplars in an answer.
        used max_exemplars: usize = 100;
        /// Series in an answer; 0 is any number.
        used max_response_series: usize = 0;
        /// Parts a streamed answer is split into.
        idle streaming_shards: usize = 200;
        /// Steps of a query.
        used max_intervals: usize = 10000;
        /// Whose rules hold where releases of Tempo differ: the default step, a step as long as the range, quotes in labels. Vivace's own key.
        used release: TraceqlRelease = TraceqlRelease::V2;
        /// A query answered within this time is in time; 0 is off.
        idle duration_slo: Duration = Duration::ZERO;
        /// A query that reads this many bytes a second is in time; 0 is off.
        idle throughput_bytes_slo: f64 = 0.0;
    }
}

section! {
    /// `query_frontend.jaeger`: Jaeger's query API on ports of its own, for its UI, Grafana's Jaeger data source and others. It answers from the same data as the rest of the query API. Vivace's own block.
    pub struct JaegerQuery {
        /// Whether it is served. Left out: by a single binary, as far as its ports are free; not by a query-frontend of its own.
        used enabled: Option<bool> = None;
        /// Port of HTTP, on `server.http_listen_address`.
        used http_listen_port: u16 = 16686;
        /// Port of gRPC, on `server.grpc_listen_address`.
        used grpc_listen_port: u16 = 16685;
        /// How far back services and operations are looked for.
        used services_query_duration: Duration = hours(24);
        /// Traces of one search, at most; who asks for more gets so many.
        used max_traces: u32 = 1500;
        /// Traces of the asked time whose calls `/api/dependencies` counts, at most.
        used dependencies_max_traces: u32 = 1000;
        /// Where a Prometheus answers that has the span metrics of the metrics-generators, such as `http://prometheus:9090`: `/api/metrics` asks it. Empty: TraceQL metrics answer.
        used prometheus_url: SecretUrl = default();
        /// Requests from web pages of other origins.
        used cors: Cors = of_this_machine();
    }
}

section! {
    /// `query_frontend.zipkin`: the reading half of Zipkin's API, version 2, for its UI and Grafana's Zipkin data source. Vivace's own block.
    pub struct ZipkinQuery {
        /// Whether it is served. Left out: by a single binary, as far as its port is free; not by a query-frontend of its own.
        used enabled: Option<bool> = None;
        /// Port of HTTP, on `server.http_listen_address`. Where a Zipkin receiver of the same process has this port, both are served there.
        used http_listen_port: u16 = 9411;
        /// How far back services, spans and tags are looked for.
        used services_query_duration: Duration = hours(24);
        /// Traces of one search, at most; who asks for more gets so many.
        used max_traces: u32 = 1500;
        /// Traces of the asked time whose calls `/api/v2/dependencies` counts, at most.
        used dependencies_max_traces: u32 = 1000;
        /// Requests from web pages of other origins.
        used cors: Cors = of_this_machine();
    }
}

/// Pages that this machine serves: a Grafana or UI beside Vivace, and no page of the internet.
fn of_this_machine() -> Cors {
    Cors { allowed_origins: vec![text("http://localhost:*"), text("http://127.0.0.1:*")], ..Cors::default() }
}
