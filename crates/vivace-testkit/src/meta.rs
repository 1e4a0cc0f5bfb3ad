//! A block's meta that is right in everything, so that a test changes only what it is about.

use vivace_block::{BlockMeta, Format};
use vivace_core::{BlockId, TenantId};

/// What `meta.json` says of a block with one small trace, whose time is not known. `number` makes its id.
///
/// A test says what matters to it: `BlockMeta { end_unix_nanos, ..block_meta(1) }`.
#[must_use]
pub fn block_meta(number: u8) -> BlockMeta {
    BlockMeta {
        format: Format::VParquet4,
        block_id: BlockId([number; 16]),
        tenant_id: TenantId::single(),
        start_unix_nanos: 0,
        end_unix_nanos: 0,
        total_objects: 1,
        size_bytes: 1,
        compaction_level: 0,
        row_groups: 1,
        bloom_shards: 1,
        footer_bytes: 0,
        dedicated_columns: Vec::new(),
        replication_factor: 0,
    }
}
