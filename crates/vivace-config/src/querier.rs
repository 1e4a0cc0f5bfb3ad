//! `querier`: where jobs come from, how many run at once, and how long one may take. What becomes a job is decided by
//! `query_frontend`.

use std::time::Duration;

use crate::section::section;
use crate::value::{default, millis, mins, secs};
use crate::{Backoff, GrpcClient, Ignored};

section! {
    /// `querier`: pulls jobs from query-frontends and runs them.
    pub struct Querier {
        /// Where jobs come from.
        used frontend_worker: FrontendWorker = default();
        /// Jobs run at once.
        used max_concurrent_queries: usize = 20;
        /// Search jobs.
        used search: QuerierSearch = default();
        /// Lookups by trace id.
        used trace_by_id: QuerierTraceById = default();
        /// Metrics jobs.
        idle metrics: QuerierMetrics = default();
        /// Whether only the ingesters of a tenant's shard are asked.
        idle shuffle_sharding_ingesters_enabled: bool = false;
        /// How far back a tenant's shard is remembered.
        idle shuffle_sharding_ingesters_lookback_period: Duration = mins(60);
        /// Whether only the ingesters that own a trace are asked for it.
        idle query_relevant_ingesters: bool = false;
        /// A second ring to ask.
        idle secondary_ingester_ring: String = crate::value::text("");
        /// Extra wait before a query.
        idle extra_query_delay: Duration = Duration::ZERO;
        /// Whether live-stores are asked (Kafka installations).
        idle query_live_store: bool = false;
        /// Ring of the partitions of a Kafka installation.
        idle partition_ring: Ignored = default();
    }
    dropped {
        "search_max_result_limit": "moved in Tempo 2.0: set query_frontend.search.max_result_limit";
        "search_default_result_limit": "moved in Tempo 2.0: set query_frontend.search.default_result_limit";
        "search_query_timeout": "moved in Tempo 2.0: set querier.search.query_timeout";
        "query_timeout": "moved in Tempo 2.0: set querier.trace_by_id.query_timeout";
    }
}

section! {
    /// `querier.frontend_worker`: the connection to the query-frontends.
    pub struct FrontendWorker {
        /// `host:port` of the query-frontends; the name is resolved again and again. Empty is this process (single binary).
        used frontend_address: String = String::new();
        /// Pause between resolutions of that name.
        used dns_lookup_duration: Duration = secs(10);
        /// Streams per query-frontend where `match_max_concurrent` is off.
        idle parallelism: usize = 2;
        /// Whether streams add up to `max_concurrent_queries`.
        idle match_max_concurrent: bool = true;
        /// Name told to the query-frontends; empty is the host's name.
        used id: String = String::new();
        /// The gRPC client.
        used grpc_client_config: GrpcClient = GrpcClient {
            max_send_msg_size: 16 << 20,
            backoff_config: Backoff { min_period: millis(100), max_period: secs(1), max_retries: 5 },
            ..GrpcClient::default()
        };
    }
    dropped {
        "scheduler_address": "removed after Tempo 1.x; set querier.frontend_worker.frontend_address";
    }
}

section! {
    /// `querier.search`.
    pub struct QuerierSearch {
        /// Longest time of one search job.
        used query_timeout: Duration = secs(30);
    }
    dropped {
        "prefer_self": "serverless search was removed in Tempo 2.8; remove it";
        "external_hedge_requests_at": "serverless search was removed in Tempo 2.8; remove it";
        "external_hedge_requests_up_to": "serverless search was removed in Tempo 2.8; remove it";
        "external_backend": "serverless search was removed in Tempo 2.8; remove it";
        "external_endpoints": "serverless search was removed in Tempo 2.8; remove it";
        "google_cloud_run": "serverless search was removed in Tempo 2.8; remove it";
    }
}

section! {
    /// `querier.trace_by_id`.
    pub struct QuerierTraceById {
        /// Longest time of one lookup.
        used query_timeout: Duration = secs(10);
        /// Another system that is asked too.
        idle external: QuerierExternal = default();
    }
}

section! {
    /// `querier.trace_by_id.external`: another system that is asked too.
    pub struct QuerierExternal {
        /// Its address.
        used endpoint: String = String::new();
        /// Longest wait for it.
        used timeout: Duration = secs(10);
    }
}

section! {
    /// `querier.metrics`.
    pub struct QuerierMetrics {
        /// Blocks read at once by a metrics job.
        used concurrent_blocks: usize = 2;
        /// Share of overlap below which a block is read without looking at times.
        used time_overlap_cutoff: f64 = 0.2;
    }
}
