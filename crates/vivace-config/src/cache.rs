//! `cache`: read and checked so that Tempo's files load, but without effect as a whole. Vivace keeps its caches in its processes.

use std::time::Duration;

use crate::Secret;
use crate::section::{choice, section};
use crate::value::{default, millis, mins};

choice! {
    /// What a cache holds.
    pub enum CacheRole {
        /// Bloom filters.
        Bloom = "bloom";
        /// Footers of blocks.
        ParquetFooter = "parquet-footer";
        /// Column indexes of blocks.
        ParquetColumnIdx = "parquet-column-idx";
        /// Offset indexes of blocks.
        ParquetOffsetIdx = "parquet-offset-idx";
        /// Pages of blocks.
        ParquetPage = "parquet-page";
        /// Results of search jobs.
        FrontendSearch = "frontend-search";
        /// Indexes of trace ids.
        TraceIdIndex = "trace-id-index";
    }
}

section! {
    /// `cache`: caches beside the processes.
    pub struct Cache {
        /// Writes to the caches.
        used background: BackgroundCache = default();
        /// The caches.
        used caches: Vec<CacheEntry> = vec![];
    }
}

section! {
    /// `cache.background`: writes to the caches.
    pub struct BackgroundCache {
        /// Writes at once.
        used writeback_goroutines: usize = 10;
        /// Writes waiting.
        used writeback_buffer: usize = 10000;
    }
}

section! {
    /// `cache.caches[]`.
    pub struct CacheEntry {
        /// What it holds.
        used roles: Vec<CacheRole> = vec![];
        /// It is a memcached.
        used memcached: Option<Memcached> = None;
        /// It is a redis.
        used redis: Option<Redis> = None;
    }
}

section! {
    /// `cache.caches[].memcached`.
    pub struct Memcached {
        /// Name whose `SRV` entries list the servers.
        used host: String = String::new();
        /// Service of those entries.
        used service: String = String::new();
        /// The servers, comma-separated.
        used addresses: String = String::new();
        /// Longest wait for an answer.
        used timeout: Duration = millis(100);
        /// Idle connections per server.
        used max_idle_conns: usize = 16;
        /// Pause between looks for servers.
        used update_interval: Duration = mins(1);
        /// Whether keys stay on their server when others come and go.
        used consistent_hash: bool = false;
        /// Largest entry, in bytes; 0 is any.
        used max_item_size: u64 = 0;
        /// Failures in a row after which the server is left alone.
        used circuit_breaker_consecutive_failures: usize = 0;
        /// For how long.
        used circuit_breaker_timeout: Duration = Duration::ZERO;
        /// Time over which failures are counted.
        used circuit_breaker_interval: Duration = Duration::ZERO;
        /// Life of an entry; 0 is for ever.
        used ttl: Duration = Duration::ZERO;
        /// Whether TLS is spoken.
        used tls_enabled: bool = false;
        /// File with the client's certificate, PEM.
        used tls_cert_path: String = String::new();
        /// File with the client's key, PEM.
        used tls_key_path: String = String::new();
        /// File with the authorities trusted, PEM.
        used tls_ca_path: String = String::new();
        /// Name expected in the server's certificate.
        used tls_server_name: String = String::new();
        /// Whether the server's certificate goes unchecked.
        used tls_insecure_skip_verify: bool = false;
        /// Cipher suites allowed, comma-separated.
        used tls_cipher_suites: String = String::new();
        /// Lowest TLS version.
        used tls_min_version: String = String::new();
    }
}

section! {
    /// `cache.caches[].redis`.
    pub struct Redis {
        /// The servers, comma-separated.
        used endpoint: String = String::new();
        /// Name of the master, with sentinels.
        used master_name: String = String::new();
        /// Longest wait for an answer; 0 is 100ms.
        used timeout: Duration = Duration::ZERO;
        /// Life of an entry; 0 is for ever.
        used expiration: Duration = Duration::ZERO;
        /// Number of the database.
        used db: usize = 0;
        /// Connections.
        used pool_size: usize = 0;
        /// User.
        used username: String = String::new();
        /// Password.
        used password: Secret = default();
        /// User of the sentinels.
        used sentinel_username: String = String::new();
        /// Password of the sentinels.
        used sentinel_password: Secret = default();
        /// Whether TLS is spoken.
        used tls_enabled: bool = false;
        /// Whether the server's certificate goes unchecked.
        used tls_insecure_skip_verify: bool = false;
        /// How long a connection may idle; 0 is for ever.
        used idle_timeout: Duration = Duration::ZERO;
        /// How old a connection may become; 0 is any age.
        used max_connection_age: Duration = Duration::ZERO;
        /// Life of an entry; 0 is for ever.
        used ttl: Duration = Duration::ZERO;
    }
}
