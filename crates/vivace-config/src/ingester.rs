//! `ingester`: when live spans become a block, and how long its writer answers from it. The ring that it takes part in is in
//! `ring`.

use std::time::Duration;

use crate::section::section;
use crate::value::{default, mins, secs, text};
use crate::{Ignored, Lifecycler};

section! {
    /// `ingester`: live traces, the blocks they become, and the ring they arrive by.
    pub struct Ingester {
        /// How it takes part in the ring.
        used lifecycler: Lifecycler = default();
        /// Blocks built and uploaded at once.
        used concurrent_flushes: usize = 4;
        /// Pause between looks for blocks to cut.
        used flush_check_period: Duration = secs(10);
        /// Longest time to build and upload a block.
        used flush_op_timeout: Duration = mins(5);
        /// How long a trace may be quiet before it counts as done.
        used trace_idle_period: Duration = secs(5);
        /// How long a trace counts as live at most.
        used trace_live_period: Duration = secs(30);
        /// How old the spans of a block may become before it is cut.
        used max_block_duration: Duration = mins(30);
        /// How large a block may become before it is cut, in bytes of spans.
        used max_block_bytes: u64 = 500 << 20;
        /// How long a flushed block is still served by its writer.
        used complete_block_timeout: Duration = mins(15);
        /// Whether everything held is flushed when the process stops.
        used flush_all_on_shutdown: bool = false;
        /// Whether finished blocks go to the bucket.
        used flush_object_storage: bool = true;
        /// Name of the ring.
        idle override_ring_key: String = text("ring");
        /// Ring of the partitions of a Kafka installation.
        idle partition_ring: Ignored = default();
    }
    dropped {
        "use_flatbuffer_search": "removed in Tempo 2.0, search reads the blocks themselves; remove it";
    }
}
