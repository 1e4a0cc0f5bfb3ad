//! The names of a block's objects in its folder `<tenant>/<block id>/`.

/// Says that the block exists; see [`crate::BlockMeta`].
pub const META: &str = "meta.json";
/// Takes the place of [`META`] when the block has been replaced.
pub const META_COMPACTED: &str = "meta.compacted.json";
/// The columns.
pub const DATA: &str = "data.parquet";
/// The last trace id of each row group; see [`crate::index::RowGroupIndex`].
pub const INDEX: &str = "index";
/// Present, with any content: the block must not be compacted.
pub const NO_COMPACT: &str = "nocompact.flg";

/// One shard of the bloom filter; see [`crate::bloom`].
#[must_use]
pub fn bloom(shard: u32) -> String {
    format!("bloom-{shard}")
}
