//! A tenant's blocks in one object, so that readers need not list the bucket.
//!
//! Source: block format description, "Tenant index".

use std::io::{Read, Write};

use prost::Message;
use serde::{Deserialize, Serialize};
use vivace_block::{BlockMeta, DedicatedColumn, parse_rfc3339, rfc3339};
use vivace_core::{BlockId, TenantId};

/// What the two index objects of a tenant say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TenantIndex {
    /// When it was made.
    pub created_unix_nanos: u64,
    /// Live blocks.
    pub live: Vec<BlockMeta>,
    /// Blocks marked compacted and not yet deleted.
    pub compacted: Vec<CompactedBlock>,
}

/// A block that has been replaced or has expired, and is still readable for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactedBlock {
    /// As it was when live.
    pub meta: BlockMeta,
    /// When it was marked.
    pub compacted_unix_nanos: u64,
}

/// An index larger than this once unpacked is refused, bytes: it would be some millions of blocks.
const UNPACKED_BYTES_MAX: u64 = 4 << 30;

impl TenantIndex {
    /// The bytes of `index.pb.zst`.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        let index = wire::TenantIndex {
            created_at: Some(wire::timestamp(self.created_unix_nanos)),
            meta: self.live.iter().map(wire::BlockMeta::from).collect(),
            compacted_meta: self
                .compacted
                .iter()
                .map(|block| wire::CompactedBlockMeta {
                    block_meta: Some((&block.meta).into()),
                    compacted_time: Some(wire::timestamp(block.compacted_unix_nanos)),
                })
                .collect(),
        };
        let mut out = Vec::new();
        let mut encoder = zstd::Encoder::new(&mut out, zstd::DEFAULT_COMPRESSION_LEVEL).expect("the default level exists");
        encoder.include_checksum(true).expect("a fresh encoder takes parameters");
        encoder.write_all(&index.encode_to_vec()).and_then(|()| encoder.finish()).expect("writing to memory succeeds");
        out
    }

    /// Reads `index.pb.zst`. A block that cannot be understood is left out and given to `bad`.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_protobuf(bytes: &[u8], mut bad: impl FnMut(&str)) -> Result<Self, String> {
        let decoder = zstd::Decoder::new(bytes).map_err(|e| e.to_string())?;
        let unpacked = unpack(decoder).map_err(|e| format!("zstd: {e}"))?;
        let index = wire::TenantIndex::decode(unpacked.as_slice()).map_err(|e| e.to_string())?;
        let mut read = |meta: wire::BlockMeta| meta.try_into().map_err(|e: String| bad(&e)).ok();
        Ok(Self {
            created_unix_nanos: wire::unix_nanos(index.created_at.as_ref()),
            live: index.meta.into_iter().filter_map(&mut read).collect(),
            compacted: index
                .compacted_meta
                .into_iter()
                .filter_map(|block| {
                    let compacted_unix_nanos = wire::unix_nanos(block.compacted_time.as_ref());
                    Some(CompactedBlock { meta: read(block.block_meta.unwrap_or_default())?, compacted_unix_nanos })
                })
                .collect(),
        })
    }

    /// The bytes of `index.json.gz`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let index = Json {
            created_at: rfc3339(self.created_unix_nanos),
            meta: Some(self.live.iter().map(|meta| serde_json::to_value(meta).expect("a meta is JSON")).collect()),
            compacted: Some(
                self.compacted
                    .iter()
                    .map(|block| {
                        let mut value = serde_json::to_value(&block.meta).expect("a meta is JSON");
                        value["compactedTime"] = rfc3339(block.compacted_unix_nanos).into();
                        value
                    })
                    .collect(),
            ),
        };
        let mut encoder = flate2::GzBuilder::new().filename("index.json").write(Vec::new(), flate2::Compression::default());
        serde_json::to_writer(&mut encoder, &index).expect("writing to memory succeeds");
        encoder.finish().expect("writing to memory succeeds")
    }

    /// Reads `index.json.gz`. A block that cannot be understood is left out and given to `bad`.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_json(bytes: &[u8], mut bad: impl FnMut(&str)) -> Result<Self, String> {
        let unpacked = unpack(flate2::read::GzDecoder::new(bytes)).map_err(|e| format!("gzip: {e}"))?;
        let index: Json = serde_json::from_slice(&unpacked).map_err(|e| e.to_string())?;
        let mut read = |value: serde_json::Value| BlockMeta::deserialize(value).map_err(|e| bad(&e.to_string())).ok();
        Ok(Self {
            created_unix_nanos: parse_rfc3339(&index.created_at).map_err(|e| format!("created_at: {e}"))?,
            live: index.meta.unwrap_or_default().into_iter().filter_map(&mut read).collect(),
            compacted: index
                .compacted
                .unwrap_or_default()
                .into_iter()
                .filter_map(|value| {
                    let time = value["compactedTime"].as_str().and_then(|text| parse_rfc3339(text).ok()).unwrap_or_default();
                    Some(CompactedBlock { meta: read(value)?, compacted_unix_nanos: time })
                })
                .collect(),
        })
    }
}

fn unpack(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    source.take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut out)?;
    if out.len() as u64 > UNPACKED_BYTES_MAX {
        return Err(std::io::Error::other(format!("unpacks to more than {UNPACKED_BYTES_MAX} bytes")));
    }
    Ok(out)
}

#[derive(Serialize, Deserialize)]
struct Json {
    created_at: String,
    meta: Option<Vec<serde_json::Value>>,
    compacted: Option<Vec<serde_json::Value>>,
}

/// The protobuf form.
mod wire {
    use super::{BlockId, DedicatedColumn, TenantId};

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TenantIndex {
        #[prost(message, optional, tag = "1")]
        pub(super) created_at: Option<Timestamp>,
        #[prost(message, repeated, tag = "2")]
        pub(super) meta: Vec<BlockMeta>,
        #[prost(message, repeated, tag = "3")]
        pub(super) compacted_meta: Vec<CompactedBlockMeta>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct CompactedBlockMeta {
        #[prost(message, optional, tag = "1")]
        pub(super) block_meta: Option<BlockMeta>,
        #[prost(message, optional, tag = "2")]
        pub(super) compacted_time: Option<Timestamp>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BlockMeta {
        #[prost(string, tag = "1")]
        version: String,
        #[prost(bytes = "vec", tag = "2")]
        block_id: Vec<u8>,
        #[prost(string, tag = "5")]
        tenant_id: String,
        #[prost(message, optional, tag = "6")]
        start_time: Option<Timestamp>,
        #[prost(message, optional, tag = "7")]
        end_time: Option<Timestamp>,
        #[prost(int64, tag = "8")]
        total_objects: i64,
        #[prost(uint64, tag = "9")]
        size: u64,
        #[prost(uint32, tag = "10")]
        compaction_level: u32,
        #[prost(bytes = "vec", tag = "11")]
        encoding: Vec<u8>,
        #[prost(uint32, tag = "12")]
        index_page_size: u32,
        #[prost(uint32, tag = "13")]
        total_records: u32,
        #[prost(string, tag = "14")]
        data_encoding: String,
        #[prost(uint32, tag = "15")]
        bloom_shard_count: u32,
        #[prost(uint32, tag = "16")]
        footer_size: u32,
        #[prost(bytes = "vec", tag = "17")]
        dedicated_columns: Vec<u8>,
        #[prost(uint32, tag = "18")]
        replication_factor: u32,
    }

    /// Seconds from the year 1, the reference's zero time, to 1970.
    const YEAR_ONE_SECONDS: i64 = -62_135_596_800;

    pub(super) fn timestamp(unix_nanos: u64) -> Timestamp {
        match unix_nanos {
            0 => Timestamp { seconds: YEAR_ONE_SECONDS, nanos: 0 },
            _ => Timestamp {
                seconds: i64::try_from(unix_nanos / 1_000_000_000).expect("seconds of 64 bits of nanoseconds"),
                nanos: i32::try_from(unix_nanos % 1_000_000_000).expect("below one thousand million"),
            },
        }
    }

    /// Times before 1970 are 0, the unknown time.
    pub(super) fn unix_nanos(time: Option<&Timestamp>) -> u64 {
        let Some(time) = time else { return 0 };
        let seconds = u64::try_from(time.seconds).unwrap_or_default();
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.nanos).unwrap_or_default())
    }

    impl From<&vivace_block::BlockMeta> for BlockMeta {
        fn from(meta: &vivace_block::BlockMeta) -> Self {
            Self {
                version: meta.format.as_str().to_owned(),
                block_id: meta.block_id.0.to_vec(),
                tenant_id: meta.tenant_id.to_string(),
                start_time: Some(timestamp(meta.start_unix_nanos)),
                end_time: Some(timestamp(meta.end_unix_nanos)),
                total_objects: i64::try_from(meta.total_objects).unwrap_or(i64::MAX),
                size: meta.size_bytes,
                compaction_level: meta.compaction_level,
                encoding: vec![0],
                index_page_size: 0,
                total_records: meta.row_groups,
                data_encoding: String::new(),
                bloom_shard_count: meta.bloom_shards,
                footer_size: meta.footer_bytes,
                dedicated_columns: match meta.dedicated_columns.as_slice() {
                    [] => Vec::new(),
                    columns => serde_json::to_vec(columns).expect("columns are JSON"),
                },
                replication_factor: meta.replication_factor,
            }
        }
    }

    impl TryFrom<BlockMeta> for vivace_block::BlockMeta {
        type Error = String;

        fn try_from(meta: BlockMeta) -> Result<Self, String> {
            let id: [u8; 16] =
                meta.block_id.as_slice().try_into().map_err(|_| format!("a block id has {} bytes, expected 16", meta.block_id.len()))?;
            let block_id = BlockId(id);
            let of_block = |what: &str, problem: &dyn std::fmt::Display| format!("{what} of block {block_id}: {problem}");
            let dedicated_columns: Vec<DedicatedColumn> = match meta.dedicated_columns.as_slice() {
                [] => Vec::new(),
                json => serde_json::from_slice(json).map_err(|e| of_block("dedicated columns", &e))?,
            };
            Ok(Self {
                format: meta.version.into(),
                block_id,
                tenant_id: TenantId::new(&meta.tenant_id).map_err(|e| of_block("tenant", &e))?,
                start_unix_nanos: unix_nanos(meta.start_time.as_ref()),
                end_unix_nanos: unix_nanos(meta.end_time.as_ref()),
                total_objects: u64::try_from(meta.total_objects).map_err(|_| of_block("total objects", &meta.total_objects))?,
                size_bytes: meta.size,
                compaction_level: meta.compaction_level,
                row_groups: meta.total_records,
                bloom_shards: if meta.bloom_shard_count == 0 { 10 } else { meta.bloom_shard_count },
                footer_bytes: meta.footer_size,
                dedicated_columns,
                replication_factor: meta.replication_factor,
            })
        }
    }
}

#[cfg(test)]
mod tests;
