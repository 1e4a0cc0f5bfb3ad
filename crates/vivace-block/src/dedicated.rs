//! Attributes that have a column of their own, as configured per tenant and listed in `meta.json`.

use serde::{Deserialize, Serialize};
use vivace_proto::otlp::KeyValue;
use xxhash_rust::xxh64::Xxh64;

/// An attribute that has a column of its own.
///
/// Its serde form is the one of `meta.json`: `{"s":scope,"n":name,"t":type,"o":[options]}` without what is default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DedicatedColumn {
    /// Where the attribute stands.
    #[serde(rename = "s", default, skip_serializing_if = "DedicatedScope::is_default")]
    pub scope: DedicatedScope,
    /// Its key.
    #[serde(rename = "n")]
    pub name: String,
    /// Which values go to the column; others stay generic attributes.
    #[serde(rename = "t", default, skip_serializing_if = "DedicatedType::is_default")]
    pub kind: DedicatedType,
    /// In the configured order.
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<DedicatedOption>,
}

/// Where a dedicated attribute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedicatedScope {
    /// On the resource.
    Resource,
    /// On the span.
    #[default]
    Span,
    /// On events; vParquet5 only.
    Event,
}

/// The type of a dedicated column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedicatedType {
    /// Text.
    #[default]
    String,
    /// A signed number; vParquet5 only.
    Int,
}

/// How a dedicated column is stored; vParquet5 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedicatedOption {
    /// Meant for arrays. Has no effect on the file.
    Array,
    /// Long values: no dictionary.
    Blob,
}

/// String slots per scope in vParquet4.
pub const VPARQUET4_SLOTS: usize = 10;

/// Resource attributes (texts) that vParquet4 gives a column by name, in the order of the file.
pub const VPARQUET4_RESOURCE_COLUMNS: [&str; 8] =
    ["cluster", "namespace", "pod", "container", "k8s.cluster.name", "k8s.namespace.name", "k8s.pod.name", "k8s.container.name"];

impl DedicatedScope {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As configured and hashed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Span => "span",
            Self::Event => "event",
        }
    }
}

impl DedicatedType {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As configured and hashed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
        }
    }
}

impl DedicatedOption {
    /// As configured and hashed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Blob => "blob",
        }
    }
}

impl DedicatedColumn {
    /// A column without options.
    #[must_use]
    pub fn new(scope: DedicatedScope, name: &str, kind: DedicatedType) -> Self {
        Self { scope, name: name.to_owned(), kind, options: Vec::new() }
    }
}

/// Puts the value of a column among attributes that have none: behind them, but before any of the same key, since of equal keys the
/// first counts.
pub(crate) fn put_column_value(attributes: &mut Vec<KeyValue>, value: KeyValue) {
    let at = attributes.iter().position(|other| other.key == value.key).unwrap_or(attributes.len());
    attributes.insert(at, value);
}

/// What is configured when nothing is.
///
/// Source: docs/facts/blocks.md, "Dedicated columns".
#[must_use]
pub fn default_columns() -> Vec<DedicatedColumn> {
    use DedicatedScope::{Resource, Span};
    use DedicatedType::{Int, String};
    [
        (Resource, "k8s.cluster.name", String),
        (Resource, "k8s.namespace.name", String),
        (Resource, "k8s.pod.name", String),
        (Resource, "k8s.container.name", String),
        (Span, "http.request.method", String),
        (Span, "http.response.status_code", Int),
        (Span, "url.path", String),
        (Span, "url.route", String),
        (Span, "server.address", String),
        (Span, "server.port", Int),
        (Span, "http.method", String),
        (Span, "http.url", String),
        (Span, "http.route", String),
        (Span, "http.status_code", Int),
    ]
    .map(|(scope, name, kind)| DedicatedColumn::new(scope, name, kind))
    .to_vec()
}

/// The columns a vParquet4 block has out of the configured ones. This list goes to `meta.json` and assigns slots.
///
/// Entries beyond [`VPARQUET4_SLOTS`] of a scope stay in the list, without effect.
#[must_use]
pub fn for_vparquet4(configured: &[DedicatedColumn]) -> Vec<DedicatedColumn> {
    let has_column = |column: &DedicatedColumn| match column.scope {
        DedicatedScope::Resource => column.name == "service.name" || VPARQUET4_RESOURCE_COLUMNS.contains(&column.name.as_str()),
        DedicatedScope::Span => matches!(column.name.as_str(), "http.method" | "http.url"),
        DedicatedScope::Event => true,
    };
    configured.iter().filter(|c| c.options.is_empty() && c.kind == DedicatedType::String && !has_column(c)).cloned().collect()
}

/// The names of one scope's string columns in vParquet4, in the order of their slots.
pub fn vparquet4_slots(columns: &[DedicatedColumn], scope: DedicatedScope) -> impl Iterator<Item = &str> {
    columns.iter().filter(move |c| c.scope == scope && c.kind == DedicatedType::String).map(|c| c.name.as_str()).take(VPARQUET4_SLOTS)
}

/// Blocks are compacted together only when this is equal. 0 for an empty list.
#[must_use]
pub fn hash(columns: &[DedicatedColumn]) -> u64 {
    if columns.is_empty() {
        return 0;
    }
    let mut hash = Xxh64::new(0);
    for column in columns {
        hash.update(column.scope.as_str().as_bytes());
        hash.update(&[0xff]);
        hash.update(column.name.as_bytes());
        hash.update(&[0xff]);
        hash.update(column.kind.as_str().as_bytes());
        for option in &column.options {
            hash.update(&[0xff]);
            hash.update(option.as_str().as_bytes());
        }
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: docs/facts/blocks.md, "Test vectors".
    #[test]
    fn hashes_are_the_originals() {
        assert_eq!(hash(&[]), 0);
        assert_eq!(hash(&for_vparquet4(&default_columns())), 0x26fe_f3a6_9ad5_4823);
        assert_eq!(hash(&default_columns()), 0x14e2_6523_8ee5_4f28);
        let mut blob = DedicatedColumn::new(DedicatedScope::Span, "db.statement", DedicatedType::String);
        blob.options.push(DedicatedOption::Blob);
        assert_eq!(hash(&[blob]), 0xa53b_f91c_89b3_5dbf);
    }

    #[test]
    fn five_of_the_defaults_have_a_slot_in_vparquet4() {
        let columns = for_vparquet4(&default_columns());
        let names: Vec<_> = vparquet4_slots(&columns, DedicatedScope::Span).collect();
        assert_eq!(names, ["http.request.method", "url.path", "url.route", "server.address", "http.route"]);
        assert_eq!(vparquet4_slots(&columns, DedicatedScope::Resource).count(), 0);
    }
}
