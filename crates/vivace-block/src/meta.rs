//! `meta.json`, and the times in it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vivace_core::{BlockId, TenantId};

use crate::DedicatedColumn;

/// `meta.json`: what is known of a block without opening it. Written last; without it there is no block.
///
/// Source: docs/facts/blocks.md, "`meta.json`".
#[derive(Debug, Clone, PartialEq)]
pub struct BlockMeta {
    /// Layout of `data.parquet`.
    pub format: Format,
    /// Also the name of the block's folder.
    pub block_id: BlockId,
    /// Owner; also the name of the folder above.
    pub tenant_id: TenantId,
    /// Earliest span start, nanoseconds since the epoch; 0 is unknown.
    pub start_unix_nanos: u64,
    /// Latest span end, nanoseconds since the epoch; 0 is unknown.
    pub end_unix_nanos: u64,
    /// Rows of the file: traces.
    pub total_objects: u64,
    /// Bytes of `data.parquet`.
    pub size_bytes: u64,
    /// 0 for fresh blocks, one more than its highest input after compaction.
    pub compaction_level: u32,
    /// Row groups. Blocks of the original may say one more than there are.
    pub row_groups: u32,
    /// Number of bloom filter objects. Never 0.
    pub bloom_shards: u32,
    /// Bytes of the Parquet footer without the last eight bytes of the file.
    pub footer_bytes: u32,
    /// The dedicated columns of the file, in the order of their slots.
    pub dedicated_columns: Vec<DedicatedColumn>,
    /// 0: written by one of several replicas of the original 2.x; 1: the only copy.
    pub replication_factor: u32,
}

/// The layouts of `data.parquet`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Read only.
    VParquet3,
    /// Read and written.
    VParquet4,
    /// Read only.
    VParquet5,
    /// One this release does not know; such a block is listed and kept, never opened.
    Other(String),
}

/// The bytes of an object that should be a `meta.json` are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid block meta in {object_key}: {reason}")]
pub struct CorruptMeta {
    /// The object.
    pub object_key: String,
    /// What is wrong, with the place.
    pub reason: String,
}

impl Format {
    /// As `meta.json` spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::VParquet3 => "vParquet3",
            Self::VParquet4 => "vParquet4",
            Self::VParquet5 => "vParquet5",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for Format {
    fn from(name: String) -> Self {
        match name.as_str() {
            "vParquet3" => Self::VParquet3,
            "vParquet4" => Self::VParquet4,
            "vParquet5" => Self::VParquet5,
            _ => Self::Other(name),
        }
    }
}

impl BlockMeta {
    /// When the first span starts and the last one ends, Unix nanoseconds; none if that is unknown or contradicts itself.
    #[must_use]
    pub fn times(&self) -> Option<(u64, u64)> {
        let (start, end) = (self.start_unix_nanos, self.end_unix_nanos);
        (end > 0 && start <= end).then_some((start, end))
    }

    /// Reads a `meta.json` or `meta.compacted.json`. Unknown fields are skipped, missing ones are zero.
    ///
    /// # Errors
    /// [`CorruptMeta`] names the object and what is wrong with it.
    pub fn from_json(json: &[u8], object_key: &str) -> Result<Self, CorruptMeta> {
        serde_json::from_slice(json).map_err(|e| CorruptMeta { object_key: object_key.to_owned(), reason: e.to_string() })
    }

    /// The bytes of `meta.json`, with all fields that any release of the original wants.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of texts and numbers is JSON")
    }
}

/// RFC 3339 with a fraction only when there is one. 0, the unknown time, is the year 1.
#[must_use]
pub fn rfc3339(unix_nanos: u64) -> String {
    if unix_nanos == 0 {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_nanos))
        .expect("64 bits of nanoseconds end in the year 2554")
        .format(&Rfc3339)
        .expect("a year of four digits has this form")
}

/// Nanoseconds since the epoch of an RFC 3339 text with any offset. What lies before 1970 is 0, the unknown time; what lies
/// after the year 2554 is the end of time, `u64::MAX`.
///
/// # Errors
/// A text that says what the input should have been.
pub fn parse_rfc3339(text: &str) -> Result<u64, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|e| format!("{text:?} is no RFC 3339 time: {e}"))?;
    Ok(u64::try_from(time.unix_timestamp_nanos().max(0)).unwrap_or(u64::MAX))
}

/// The exact keys and their order.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    #[serde(default)]
    format: String,
    #[serde(rename = "blockID")]
    block_id: BlockId,
    #[serde(rename = "tenantID")]
    tenant_id: String,
    #[serde(default)]
    start_time: String,
    #[serde(default)]
    end_time: String,
    #[serde(default)]
    total_objects: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default)]
    compaction_level: u32,
    #[serde(default)]
    encoding: String,
    #[serde(default)]
    index_page_size: u32,
    #[serde(default)]
    total_records: u32,
    #[serde(default)]
    data_encoding: String,
    #[serde(default)]
    bloom_shards: u32,
    #[serde(default)]
    footer_size: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dedicated_columns: Option<Vec<DedicatedColumn>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    replication_factor: u32,
}

fn is_zero<T: PartialEq + Default>(number: &T) -> bool {
    *number == T::default()
}

impl Serialize for BlockMeta {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json {
            format: self.format.as_str().to_owned(),
            block_id: self.block_id,
            tenant_id: self.tenant_id.as_str().to_owned(),
            start_time: rfc3339(self.start_unix_nanos),
            end_time: rfc3339(self.end_unix_nanos),
            total_objects: i64::try_from(self.total_objects).unwrap_or(i64::MAX),
            size: self.size_bytes,
            compaction_level: self.compaction_level,
            encoding: "none".to_owned(),
            index_page_size: 0,
            total_records: self.row_groups,
            data_encoding: String::new(),
            bloom_shards: self.bloom_shards,
            footer_size: self.footer_bytes,
            dedicated_columns: (!self.dedicated_columns.is_empty()).then(|| self.dedicated_columns.clone()),
            replication_factor: self.replication_factor,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BlockMeta {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let json = Json::deserialize(deserializer)?;
        let time = |field, text: &str| match text {
            "" => Ok(0),
            _ => parse_rfc3339(text).map_err(|e| D::Error::custom(format!("{field}: {e}"))),
        };
        Ok(Self {
            start_unix_nanos: time("startTime", &json.start_time)?,
            end_unix_nanos: time("endTime", &json.end_time)?,
            format: json.format.into(),
            block_id: json.block_id,
            tenant_id: TenantId::new(&json.tenant_id).map_err(|e| D::Error::custom(format!("tenantID: {e}")))?,
            total_objects: u64::try_from(json.total_objects)
                .map_err(|_| D::Error::custom(format!("totalObjects is {}, expected at least 0", json.total_objects)))?,
            size_bytes: json.size,
            compaction_level: json.compaction_level,
            row_groups: json.total_records,
            // Blocks from before the field existed have ten.
            bloom_shards: if json.bloom_shards == 0 { 10 } else { json.bloom_shards },
            footer_bytes: json.footer_size,
            dedicated_columns: json.dedicated_columns.unwrap_or_default(),
            replication_factor: json.replication_factor,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = r#"{"format":"vParquet4","blockID":"de945769-96b5-4aa7-85d1-1a56b38513e9","tenantID":"single-tenant","startTime":"2026-11-20T12:00:00Z","endTime":"2026-11-20T12:13:02Z","totalObjects":86,"size":113631,"compactionLevel":0,"encoding":"none","indexPageSize":0,"totalRecords":1,"dataEncoding":"","bloomShards":1,"footerSize":21502,"dedicatedColumns":[{"n":"http.request.method"},{"n":"url.path"},{"n":"url.route"},{"n":"server.address"},{"n":"http.route"}]}"#;

    #[test]
    fn a_real_meta_round_trips_byte_for_byte() {
        let meta = BlockMeta::from_json(REAL.as_bytes(), "single-tenant/x/meta.json").expect("valid");
        assert_eq!((meta.total_objects, meta.footer_bytes, meta.dedicated_columns.len()), (86, 21502, 5));
        assert_eq!(meta.start_unix_nanos, 1_795_176_000_000_000_000);
        assert_eq!(String::from_utf8(meta.to_json()).expect("text"), REAL);
    }

    #[test]
    fn missing_and_unknown_fields_are_fine() {
        let json = r#"{"format":"v2","blockID":"de945769-96b5-4aa7-85d1-1a56b38513e9","tenantID":"a","new":{},"startTime":"0001-01-01T00:00:00Z","endTime":"2026-11-20T13:00:00.000000001+01:00"}"#;
        let meta = BlockMeta::from_json(json.as_bytes(), "k").expect("valid");
        assert_eq!((meta.format, meta.start_unix_nanos, meta.bloom_shards), (Format::Other("v2".to_owned()), 0, 10));
        assert_eq!(meta.end_unix_nanos, 1_795_176_000_000_000_001);
        assert_eq!(rfc3339(meta.end_unix_nanos), "2026-11-20T12:00:00.000000001Z");
        assert_eq!(rfc3339(0), "0001-01-01T00:00:00Z");
        // A block of the year 9999 is a block.
        let json = json.replace("2026-11-20T13:00:00.000000001+01:00", "9999-12-31T23:59:59Z");
        let meta = BlockMeta::from_json(json.as_bytes(), "k").expect("valid");
        assert_eq!((meta.end_unix_nanos, &rfc3339(meta.end_unix_nanos)[..4]), (u64::MAX, "2554"));
    }

    #[test]
    fn errors_name_object_and_place() {
        let error = |json: &str| BlockMeta::from_json(json.as_bytes(), "t/b/meta.json").expect_err("invalid").to_string();
        assert!(error("{").starts_with("invalid block meta in t/b/meta.json: EOF"));
        assert!(error(&REAL.replace("2026-11-20T12:00:00Z", "yesterday")).contains("startTime: \"yesterday\" is no RFC 3339 time"));
        assert!(error(&REAL.replace("single-tenant", "../x")).contains("tenantID"));
        assert!(error(&REAL.replace(":86,", ":-1,")).contains("totalObjects is -1"));
    }
}
