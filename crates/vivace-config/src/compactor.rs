//! `compactor`: what is merged, and when blocks are deleted. A tenant's limits may name another retention and window, which win.

use std::time::Duration;

use crate::ring::KvStore;
use crate::section::section;
use crate::value::{default, hours, mins, secs, text};
use crate::{Kv, ServiceRing};

section! {
    /// `compactor`: merges blocks and deletes old ones.
    pub struct Compactor {
        /// Whether nothing is compacted and nothing deleted.
        used disabled: bool = false;
        /// The compactors that share the work.
        used ring: ServiceRing = ServiceRing { kvstore: Kv { store: KvStore::None, ..Kv::default() }, ..ServiceRing::default() };
        /// What is merged, and when blocks go.
        used compaction: Compaction = default();
        /// Name of the ring.
        idle override_ring_key: String = text("compactor");
    }
}

section! {
    /// `compactor.compaction`.
    pub struct Compaction {
        /// Age at which a block is deleted; per-tenant overrides win.
        used block_retention: Duration = hours(336);
        /// How long a merged block's inputs stay in the bucket.
        used compacted_block_retention: Duration = hours(1);
        /// Blocks whose ends fall into the same window of this length are merged.
        used compaction_window: Duration = hours(1);
        /// Traces in a merged block; deprecated in Tempo.
        used max_compaction_objects: u64 = 6_000_000;
        /// Bytes of a merged block.
        used max_block_bytes: u64 = 100 << 30;
        /// Tenants whose old blocks are deleted at once; 0 is the default.
        used retention_concurrency: usize = 10;
        /// Time given to one tenant before the next has its turn.
        used max_time_per_tenant: Duration = mins(5);
        /// Pause between rounds; 0 is the default.
        used compaction_cycle: Duration = secs(30);
        /// Buffer of Tempo's old block format, in bytes.
        idle v2_in_buffer_bytes: u64 = 5 << 20;
        /// Buffer of Tempo's old block format, in bytes.
        idle v2_out_buffer_bytes: u64 = 20 << 20;
        /// Buffer of Tempo's old block format, in traces.
        idle v2_prefetch_traces_count: usize = 1000;
    }
    renamed {
        "chunk_size_bytes" => v2_in_buffer_bytes;
        "flush_size_bytes" => v2_out_buffer_bytes;
        "iterator_buffer_size" => v2_prefetch_traces_count;
    }
}
