//! The `index` object: which row group holds a trace.
//!
//! Source: docs/facts/blocks.md, "`index` object".

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use vivace_core::TraceId;

/// The last trace id of each row group, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowGroupIndex {
    /// One entry per row group.
    pub last_ids: Vec<TraceId>,
}

/// The bytes of an object that should be an `index` are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid row group index: {reason}")]
pub struct CorruptIndex {
    /// What is wrong, with the place.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(rename = "rowGroups")]
    row_groups: Option<Vec<String>>,
}

impl RowGroupIndex {
    /// Reads the object.
    ///
    /// # Errors
    /// [`CorruptIndex`] if it is no such JSON, or the ids do not ascend.
    pub fn from_json(json: &[u8]) -> Result<Self, CorruptIndex> {
        let json: Json = serde_json::from_slice(json).map_err(|e| CorruptIndex { reason: e.to_string() })?;
        let mut last_ids: Vec<TraceId> = Vec::new();
        for (i, text) in json.row_groups.unwrap_or_default().iter().enumerate() {
            let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            let id = TraceId(bytes.ok_or_else(|| CorruptIndex { reason: format!("entry {i}, {text:?}, is no base64 of 16 bytes") })?);
            if last_ids.last().is_some_and(|last| *last >= id) {
                return Err(CorruptIndex { reason: format!("entry {i}, {id}, is not above the one before") });
            }
            last_ids.push(id);
        }
        Ok(Self { last_ids })
    }

    /// The bytes of the object.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let row_groups = (!self.last_ids.is_empty()).then(|| self.last_ids.iter().map(|id| STANDARD.encode(id.0)).collect());
        serde_json::to_vec(&Json { row_groups }).expect("texts are JSON")
    }

    /// The only row group that can hold the trace.
    #[must_use]
    pub fn row_group_of(&self, id: TraceId) -> Option<usize> {
        let at = self.last_ids.partition_point(|last| *last < id);
        (at < self.last_ids.len()).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_the_first_row_group_that_does_not_end_before_it() {
        let id = |n: u8| TraceId::from_slice(&[n]);
        let index = RowGroupIndex { last_ids: vec![id(10), id(20)] };
        assert_eq!([1, 10, 11, 20, 21].map(|n| index.row_group_of(id(n))), [Some(0), Some(0), Some(1), Some(1), None]);
        assert_eq!(RowGroupIndex::from_json(&index.to_json()), Ok(index));
    }

    #[test]
    fn an_empty_index_is_null() {
        assert_eq!(RowGroupIndex::default().to_json(), br#"{"rowGroups":null}"#);
        assert_eq!(RowGroupIndex::from_json(br#"{"rowGroups":null}"#), Ok(RowGroupIndex::default()));
        assert!(RowGroupIndex::from_json(br#"{"rowGroups":["AAAA"]}"#).is_err());
    }
}
