//! `storage.trace`: the bucket that is used, how blocks are written, and how the list of them is kept. The keys of each kind of
//! bucket but folders are in `bucket`.

use std::time::Duration;

use crate::section::{choice, section};
use crate::value::{default, mins, text};
use crate::{Azure, DedicatedColumn, Gcs, Ignored, S3};

choice! {
    /// Where blocks are stored.
    pub enum Backend {
        /// Not said; starting a service that needs the bucket is then an error.
        Unset = "";
        /// A folder of this machine; for one process only.
        Local = "local";
        /// S3 and what speaks its protocol.
        S3 = "s3";
        /// Google Cloud Storage.
        Gcs = "gcs";
        /// Azure Blob Storage.
        Azure = "azure";
    }
}

choice! {
    /// Format of blocks. Only vParquet4 is written here; vParquet4 and vParquet5 are read.
    pub enum BlockVersion {
        /// Parquet, as Tempo 2.4 to 3.x read and write it.
        VParquet4 = "vParquet4";
        /// Tempo's format before Parquet.
        V2 = "v2";
        /// Parquet, as Tempo 2.0 reads and writes it.
        VParquet = "vParquet";
        /// Parquet, as Tempo 2.1 to 2.5 read and write it.
        VParquet2 = "vParquet2";
        /// Parquet, as Tempo up to 2.10 reads and writes it.
        VParquet3 = "vParquet3";
        /// Parquet, as Tempo from 2.10 on reads and writes it.
        VParquet5 = "vParquet5";
    }
}

section! {
    /// `storage`.
    pub struct Storage {
        /// Blocks: the bucket, the local folders, and how blocks are written and found.
        used trace: TraceStorage = default();
    }
}

section! {
    /// `storage.trace`: the bucket, the local folders, and how blocks are written and found.
    pub struct TraceStorage {
        /// Where blocks are stored: `local`, `s3`, `gcs` or `azure`.
        used backend: Backend = default();
        /// Backend `local`.
        used local: LocalBackend = default();
        /// Backend `s3`.
        used s3: S3 = default();
        /// Backend `gcs`.
        used gcs: Gcs = default();
        /// Backend `azure`.
        used azure: Azure = default();
        /// The ingesters' log.
        used wal: Wal = default();
        /// How blocks are written.
        used block: Block = default();
        /// How blocks are searched.
        idle search: BlockSearch = default();
        /// Requests to the bucket at once.
        used pool: Pool = default();
        /// Pause between looks for new blocks.
        used blocklist_poll: Duration = mins(5);
        /// Reads of `meta.json` at once, of all tenants together; 0 is the default.
        used blocklist_poll_concurrency: usize = 50;
        /// Tenants polled at once; 0 is 32.
        used blocklist_poll_tenant_concurrency: usize = 0;
        /// Whether a process lists blocks itself when the tenant's index is missing.
        used blocklist_poll_fallback: bool = true;
        /// Processes that write a tenant's index.
        used blocklist_poll_tenant_index_builders: usize = 2;
        /// Age at which a tenant's index is not used any more; 0 is never.
        used blocklist_poll_stale_tenant_index: Duration = Duration::ZERO;
        /// Random wait before each tenant is polled, in milliseconds.
        used blocklist_poll_jitter_ms: u64 = 0;
        /// Failed tenants in a row that a poll lives with.
        used blocklist_poll_tolerate_consecutive_errors: usize = 1;
        /// Tries for one tenant in a poll.
        idle blocklist_poll_tolerate_tenant_failures: usize = 1;
        /// Whether the folder of a tenant without blocks is deleted.
        used empty_tenant_deletion_enabled: bool = false;
        /// Age at which such a folder is deleted; 0 is 12h.
        used empty_tenant_deletion_age: Duration = Duration::ZERO;
        /// Tempo's older form of the cache: `memcached` or `redis`.
        idle cache: String = String::new();
        /// Writes to the cache.
        idle background_cache: Ignored = default();
        /// memcached of that older form.
        idle memcached: Ignored = default();
        /// redis of that older form.
        idle redis: Ignored = default();
        /// Compaction level from which blocks are cached.
        idle cache_min_compaction_level: u32 = 0;
        /// Age up to which blocks are cached; 0 is any.
        idle cache_max_block_age: Duration = Duration::ZERO;
    }
}

section! {
    /// `storage.trace.local`: a folder of this machine.
    pub struct LocalBackend {
        /// The folder.
        used path: String = String::new();
    }
}

section! {
    /// `storage.trace.wal`: the ingesters' log.
    pub struct Wal {
        /// Folder of the log and of blocks being built.
        used path: String = text("/var/tempo/wal");
        /// Encoding of Tempo's old log.
        idle v2_encoding: String = text("snappy");
        /// Encoding of Tempo's old search data.
        idle search_encoding: String = text("none");
        /// How far a span's times may be off before they are not believed for a block's range.
        used ingestion_time_range_slack: Duration = mins(2);
        /// Format of Tempo's log.
        idle version: String = String::new();
    }
    renamed {
        "encoding" => v2_encoding;
    }
    dropped {
        "completedfilepath": "removed after Tempo 2.5; remove it, set storage.trace.wal.path alone";
        "blocksfilepath": "removed after Tempo 2.5; remove it, set storage.trace.wal.path alone";
    }
}

section! {
    /// `storage.trace.block`: how blocks are written.
    pub struct Block {
        /// Format of blocks; `vParquet4` is written here.
        used version: BlockVersion = default();
        /// Share of lookups that a bloom filter lets through wrongly.
        used bloom_filter_false_positive: f64 = 0.01;
        /// Largest part of a bloom filter, in bytes.
        used bloom_filter_shard_size_bytes: u64 = 100 << 10;
        /// Row groups are closed at about this many bytes.
        used parquet_row_group_size_bytes: u64 = 100_000_000;
        /// Attributes that get columns of their own.
        used parquet_dedicated_columns: Vec<DedicatedColumn> = DedicatedColumn::defaults();
        /// Tempo's old block format.
        idle v2_index_downsample_bytes: u64 = 1 << 20;
        /// Tempo's old block format.
        idle v2_index_page_size_bytes: u64 = 250 << 10;
        /// Tempo's old block format.
        idle v2_encoding: String = text("zstd");
        /// Tempo's old search data.
        idle search_encoding: String = text("snappy");
        /// Tempo's old search data.
        idle search_page_size_bytes: u64 = 1 << 20;
    }
    renamed {
        "index_downsample_bytes" => v2_index_downsample_bytes;
        "index_page_size_bytes" => v2_index_page_size_bytes;
        "encoding" => v2_encoding;
        "row_group_size_bytes" => parquet_row_group_size_bytes;
    }
}

section! {
    /// `storage.trace.search`: how blocks are searched.
    pub struct BlockSearch {
        /// Tempo's old block format.
        used chunk_size_bytes: u64 = 1_000_000;
        /// Traces read ahead.
        used prefetch_trace_count: usize = 1000;
        /// Buffers of a reader.
        used read_buffer_count: usize = 32;
        /// Size of such a buffer.
        used read_buffer_size_bytes: u64 = 1 << 20;
        /// Which parts of a block are cached (older form).
        used cache_control: CacheControl = default();
    }
}

section! {
    /// `storage.trace.search.cache_control`.
    pub struct CacheControl {
        /// Footers.
        used footer: bool = false;
        /// Column indexes.
        used column_index: bool = false;
        /// Offset indexes.
        used offset_index: bool = false;
    }
}

section! {
    /// `storage.trace.pool`: requests to the bucket at once.
    pub struct Pool {
        /// Requests of this process to a bucket that is no folder at once, each a connection; others wait. 0 is the default.
        used max_workers: usize = 400;
        /// Requests waiting.
        idle queue_depth: usize = 20000;
    }
}
