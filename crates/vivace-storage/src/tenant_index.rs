//! A tenant's blocks in one object, so that readers need not list the bucket.
//!
//! Source: docs/facts/blocks.md, "Tenant index".

use std::borrow::Cow;
use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use prost::Message;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use vivace_block::{BlockMeta, DedicatedColumn, parse_rfc3339, rfc3339};
use vivace_core::{BlockId, TenantId};

/// What the two index objects of a tenant say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TenantIndex {
    /// When it was made.
    pub created_unix_nanos: u64,
    /// Live blocks.
    pub live: Arc<Vec<BlockMeta>>,
    /// Blocks marked compacted and not yet deleted.
    pub compacted: Arc<Vec<CompactedBlock>>,
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

/// And it unpacks to at most so many times its size: a block's entry has an id and times, which no codec makes smaller than
/// some 40 bytes, and some kilobytes of text at most. Compressed zeros would unpack to thousands of times theirs.
const UNPACKED_RATIO_MAX: u64 = 256;

/// What is unpacked whatever the ratio, bytes.
const UNPACKED_BYTES_FREE: u64 = 1 << 20;

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
        let (bytes, mut out) = (index.encode_to_vec(), Vec::new());
        let mut encoder = zstd::Encoder::new(&mut out, zstd::DEFAULT_COMPRESSION_LEVEL).expect("the default level exists");
        encoder.include_checksum(true).expect("a fresh encoder takes parameters");
        // Else tables for megabytes are made and cleared, for some hundred bytes of a small tenant.
        encoder.set_pledged_src_size(Some(bytes.len() as u64)).expect("a fresh encoder takes parameters");
        encoder.write_all(&bytes).and_then(|()| encoder.finish()).expect("writing to memory succeeds");
        out
    }

    /// Reads `index.pb.zst`. A block that cannot be understood is left out and given to `bad`.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_protobuf(bytes: &[u8], mut bad: impl FnMut(&str)) -> Result<Self, String> {
        let decoder = zstd::Decoder::new(bytes).map_err(|e| e.to_string())?;
        let unpacked = unpack(decoder, bytes.len()).map_err(|e| format!("zstd: {e}"))?;
        // Field by field: an entry of two bytes would become some hundred if the message were decoded as a whole.
        let (mut created_unix_nanos, mut live, mut compacted) = (0, Vec::new(), Vec::new());
        let mut read = |meta: wire::BlockMeta| meta.try_into().map_err(|e: String| bad(&e)).ok();
        let mut rest = unpacked.as_slice();
        while let Some((field, message)) = wire::next_message(&mut rest)? {
            let wrong = |e: prost::DecodeError| e.to_string();
            match field {
                1 => created_unix_nanos = wire::unix_nanos(Some(&wire::Timestamp::decode(message).map_err(wrong)?)),
                2 => live.extend(read(wire::BlockMeta::decode(message).map_err(wrong)?)),
                3 => {
                    let block = wire::CompactedBlockMeta::decode(message).map_err(wrong)?;
                    let compacted_unix_nanos = wire::unix_nanos(block.compacted_time.as_ref());
                    let meta = read(block.block_meta.unwrap_or_default());
                    compacted.extend(meta.map(|meta| CompactedBlock { meta, compacted_unix_nanos }));
                }
                _ => {}
            }
        }
        Ok(Self { created_unix_nanos, live: Arc::new(live), compacted: Arc::new(compacted) })
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
        let unpacked = unpack(flate2::read::GzDecoder::new(bytes), bytes.len()).map_err(|e| format!("gzip: {e}"))?;
        let mut json = serde_json::Deserializer::from_slice(&unpacked);
        let index = IndexVisitor { bad: &mut bad };
        let index = json.deserialize_map(index).and_then(|index| json.end().map(|()| index));
        index.map_err(|e| e.to_string())
    }
}

/// All that `source` gives, which was packed into so many bytes.
fn unpack(source: impl Read, packed: usize) -> std::io::Result<Vec<u8>> {
    let max = (packed as u64).saturating_mul(UNPACKED_RATIO_MAX).clamp(UNPACKED_BYTES_FREE, UNPACKED_BYTES_MAX);
    let mut out = Vec::new();
    source.take(max + 1).read_to_end(&mut out)?;
    if out.len() as u64 > max {
        return Err(std::io::Error::other(format!("{packed} bytes unpack to more than {max} bytes")));
    }
    Ok(out)
}

/// The JSON form as written.
#[derive(Serialize)]
struct Json {
    created_at: String,
    meta: Option<Vec<serde_json::Value>>,
    compacted: Option<Vec<serde_json::Value>>,
}

/// The JSON form as read: one entry after the other, since one that is held as a tree takes many times its text.
struct IndexVisitor<'b> {
    bad: &'b mut dyn FnMut(&str),
}

impl<'de> Visitor<'de> for IndexVisitor<'_> {
    type Value = TenantIndex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tenant index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TenantIndex, A::Error> {
        let mut created = None;
        let (mut live, mut compacted) = (Vec::new(), Vec::new());
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "created_at" => {
                    let text: Cow<'de, str> = map.next_value()?;
                    created = Some(parse_rfc3339(&text).map_err(|e| A::Error::custom(format!("created_at: {e}")))?);
                }
                "meta" => map.next_value_seed(Entries { bad: self.bad, push: &mut |block| live.push(block.meta) })?,
                "compacted" => map.next_value_seed(Entries { bad: self.bad, push: &mut |block| compacted.push(block) })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let created_unix_nanos = created.ok_or_else(|| A::Error::missing_field("created_at"))?;
        Ok(TenantIndex { created_unix_nanos, live: Arc::new(live), compacted: Arc::new(compacted) })
    }
}

/// A list of blocks, or null.
struct Entries<'b> {
    bad: &'b mut dyn FnMut(&str),
    push: &'b mut dyn FnMut(CompactedBlock),
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of blocks")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(value) = entries.next_element::<serde_json::Value>()? {
            let time = value["compactedTime"].as_str().and_then(|text| parse_rfc3339(text).ok()).unwrap_or_default();
            match BlockMeta::deserialize(value) {
                Ok(meta) => (self.push)(CompactedBlock { meta, compacted_unix_nanos: time }),
                Err(error) => (self.bad)(&error.to_string()),
            }
        }
        Ok(())
    }
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

    /// The next message of a `TenantIndex`, with its field; fields of later versions are passed over.
    pub(super) fn next_message<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, String> {
        use prost::encoding::{DecodeContext, WireType, check_wire_type, decode_key, skip_field};
        while !rest.is_empty() {
            let invalid = |e: prost::DecodeError| e.to_string();
            let (field, kind) = decode_key(rest).map_err(invalid)?;
            if !(1..=3).contains(&field) {
                skip_field(kind, field, rest, DecodeContext::default()).map_err(invalid)?;
                continue;
            }
            check_wire_type(WireType::LengthDelimited, kind).map_err(invalid)?;
            let len = prost::decode_length_delimiter(&mut *rest).map_err(invalid)?;
            let (message, after) =
                rest.split_at_checked(len).ok_or_else(|| format!("field {field} claims {len} bytes, {} are left", rest.len()))?;
            *rest = after;
            return Ok(Some((field, message)));
        }
        Ok(None)
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
