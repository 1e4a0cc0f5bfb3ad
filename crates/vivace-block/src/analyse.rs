//! Which attributes of a block deserve a column of their own.
//!
//! Start with [`analyse`] and [`Analysis::recommended`].

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashSet};
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::{AnyValue, KeyValue};

use crate::dedicated::{VPARQUET4_RESOURCE_COLUMNS, VPARQUET4_SLOTS};
use crate::{BlockReader, DedicatedColumn, DedicatedScope, DedicatedType, ReadError};

/// Distinct values are counted up to this number per attribute.
pub const DISTINCT_MAX: usize = 1 << 17;

/// An attribute with a smaller share of its scope's bytes is not worth a column.
const SHARE_MIN: f64 = 0.01;

/// Traces between two reports of progress.
const PROGRESS_TRACES: u64 = 256;

/// What is known of one attribute in one scope.
#[derive(Debug, Clone, PartialEq)]
pub struct AttributeUse {
    /// Where it stands.
    pub scope: DedicatedScope,
    /// Its key.
    pub key: String,
    /// Spans that have it; of a resource's attribute, the spans below; of an event's, the events.
    pub spans: u64,
    /// Times it is stored: once per resource of a trace, per span, per event.
    pub stored: u64,
    /// Those whose value is text.
    pub texts: u64,
    /// Keys and values as in OTLP, without any encoding.
    pub plain_bytes: u64,
    /// What it takes in the file. Exact for an attribute with a column of its own; else its estimated share of the columns
    /// that it has in common with others: of each, in proportion to the values it has there, or the bytes of text.
    pub stored_bytes: u64,
    /// Distinct values; [`DISTINCT_MAX`] may stand for more.
    pub distinct: u64,
    /// The column of its own that it has in this block.
    pub column: OwnColumn,
}

/// Whether an attribute has a column of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnColumn {
    /// It shares the columns of generic attributes.
    None,
    /// By configuration.
    Dedicated,
    /// By the format.
    WellKnown,
}

/// What is known of the attributes of a block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Analysis {
    /// By scope, then the largest first.
    pub attributes: Vec<AttributeUse>,
    /// Traces of the block.
    pub traces: u64,
    /// Their spans.
    pub spans: u64,
}

/// Reads all traces of a block. `progress` is told how many, now and then. Holds one row group in memory.
///
/// # Errors
/// [`ReadError`], of the first row group that cannot be read.
pub fn analyse(block: &BlockReader, progress: &mut dyn FnMut(u64)) -> Result<Analysis, ReadError> {
    let mut counts = Counts::default();
    let mut analysis = Analysis::default();
    for trace in block.traces() {
        for of_resource in trace?.1 {
            let spans = of_resource.scope_spans.iter().map(|scope| scope.spans.len() as u64).sum();
            let attributes = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            counts.add(DedicatedScope::Resource, &attributes, spans);
            for span in of_resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                counts.add(DedicatedScope::Span, &span.attributes, 1);
                for event in &span.events {
                    counts.add(DedicatedScope::Event, &event.attributes, 1);
                }
            }
            analysis.spans += spans;
        }
        analysis.traces += 1;
        if analysis.traces.is_multiple_of(PROGRESS_TRACES) {
            progress(analysis.traces);
        }
    }
    let sizes = Sizes::of(block);
    for (scope, of_scope) in SCOPES.into_iter().zip(counts.by_scope) {
        let mut attributes = sizes.share_out(scope, of_scope);
        attributes.sort_by(|a, b| b.stored_bytes.cmp(&a.stored_bytes).then_with(|| a.key.cmp(&b.key)));
        analysis.attributes.append(&mut attributes);
    }
    Ok(analysis)
}

impl Analysis {
    /// The attributes of one scope, the largest first.
    pub fn of_scope(&self, scope: DedicatedScope) -> impl Iterator<Item = &AttributeUse> {
        self.attributes.iter().filter(move |attribute| attribute.scope == scope)
    }

    /// The columns that vParquet4 blocks should have for data like this: of resources and spans, at most ten attributes
    /// whose values are mostly text, that have no column by the format and at least 1 % of their scope's bytes.
    #[must_use]
    pub fn recommended(&self) -> Vec<DedicatedColumn> {
        let mut columns = Vec::new();
        for scope in [DedicatedScope::Resource, DedicatedScope::Span] {
            let total: u64 = self.of_scope(scope).map(|attribute| attribute.stored_bytes).sum();
            let worth_it = |attribute: &&AttributeUse| {
                attribute.column != OwnColumn::WellKnown
                    && !is_well_known(scope, &attribute.key)
                    && 2 * attribute.texts > attribute.stored
                    && attribute.stored_bytes as f64 >= total as f64 * SHARE_MIN
            };
            let chosen = self.of_scope(scope).filter(worth_it).take(VPARQUET4_SLOTS);
            columns.extend(chosen.map(|attribute| DedicatedColumn::new(scope, &attribute.key, DedicatedType::String)));
        }
        columns
    }
}

/// In the order of tables.
const SCOPES: [DedicatedScope; 3] = [DedicatedScope::Resource, DedicatedScope::Span, DedicatedScope::Event];

/// Whether vParquet4 gives an attribute a column without being told to.
fn is_well_known(scope: DedicatedScope, key: &str) -> bool {
    match scope {
        DedicatedScope::Resource => key == "service.name" || VPARQUET4_RESOURCE_COLUMNS.contains(&key),
        DedicatedScope::Span => matches!(key, "http.method" | "http.url" | "http.status_code"),
        DedicatedScope::Event => false,
    }
}

/// The columns that the generic attributes of a scope share.
const SHARED: [&str; 7] = ["Key", "IsArray", "Value", "ValueInt", "ValueDouble", "ValueBool", "ValueUnsupported"];

/// Of each of [`SHARED`]: bytes where it holds texts, else values.
type Weights = [u64; SHARED.len()];

#[derive(Default)]
struct Counts {
    by_scope: [BTreeMap<String, Count>; SCOPES.len()],
}

#[derive(Default)]
struct Count {
    spans: u64,
    stored: u64,
    texts: u64,
    plain_bytes: u64,
    weights: Weights,
    /// Hashes of values.
    distinct: FxHashSet<u64>,
}

impl Counts {
    fn add(&mut self, scope: DedicatedScope, attributes: &[KeyValue], spans: u64) {
        let of_scope = &mut self.by_scope[scope as usize];
        for KeyValue { key, value } in attributes {
            let count = match of_scope.get_mut(key) {
                Some(count) => count,
                None => of_scope.entry(key.clone()).or_default(),
            };
            count.add(key, value.as_ref(), spans);
        }
    }
}

impl Count {
    fn add(&mut self, key: &str, value: Option<&AnyValue>, spans: u64) {
        self.spans += spans;
        self.stored += 1;
        self.plain_bytes += key.len() as u64;
        // A key is a reference to a dictionary, so it weighs the same whatever its length.
        self.weights[0] += 1;
        self.weights[1] += 1;
        let kind = value.and_then(|value| value.value.as_ref());
        self.texts += u64::from(matches!(kind, Some(AnyKind::StringValue(_))));
        match kind {
            Some(AnyKind::ArrayValue(array)) => array.values.iter().for_each(|element| self.weigh(element.value.as_ref())),
            other => self.weigh(other),
        }
        if self.distinct.len() < DISTINCT_MAX {
            // Floats have no hash; their text has.
            let hash = match kind {
                Some(AnyKind::StringValue(text)) => FxBuildHasher.hash_one(text),
                Some(AnyKind::IntValue(number)) => FxBuildHasher.hash_one(number),
                other => FxBuildHasher.hash_one(format!("{other:?}")),
            };
            self.distinct.insert(hash);
        }
    }

    fn weigh(&mut self, value: Option<&AnyKind>) {
        let (column, weight, bytes) = match value {
            Some(AnyKind::StringValue(text)) => (2, text.len() as u64 + 1, text.len() as u64),
            Some(AnyKind::IntValue(_)) => (3, 1, 8),
            Some(AnyKind::DoubleValue(_)) => (4, 1, 8),
            Some(AnyKind::BoolValue(_)) => (5, 1, 1),
            Some(other) => {
                let len = prost::Message::encoded_len(&AnyValue { value: Some(other.clone()) }) as u64;
                (6, len, len)
            }
            None => (6, 2, 0),
        };
        self.weights[column] += weight;
        self.plain_bytes += bytes;
    }
}

/// The stored bytes of columns that hold attributes.
struct Sizes {
    /// By scope.
    shared: [Weights; SCOPES.len()],
    /// Of attributes with a column of their own.
    own: BTreeMap<(usize, String), (u64, OwnColumn)>,
}

impl Sizes {
    fn of(block: &BlockReader) -> Self {
        let leaves = &block.file.footer.leaves;
        let mut bytes = vec![0u64; leaves.len()];
        for group in &block.file.footer.groups {
            for (chunk, bytes) in group.chunks.iter().zip(&mut bytes) {
                *bytes += (chunk.data.end - chunk.data.start) + (chunk.dictionary.end - chunk.dictionary.start);
            }
        }
        let size = |path: &str| leaves.iter().zip(&bytes).find(|(leaf, _)| leaf.path == path).map_or(0, |(_, bytes)| *bytes);
        let parents = ["rs.Resource", "rs.ss.Spans", "rs.ss.Spans.Events"];
        let shared = parents.map(|parent| SHARED.map(|column| size(&format!("{parent}.Attrs.{column}"))));
        let layout = &block.file.layout;
        let mut own = BTreeMap::new();
        for (scope, columns) in [&layout.resource_own, &layout.span_own, &layout.event_own].into_iter().enumerate() {
            for column in columns {
                let kind = if column.dedicated { OwnColumn::Dedicated } else { OwnColumn::WellKnown };
                own.insert((scope, column.key.clone()), (bytes[column.leaf], kind));
            }
        }
        own.insert((0, "service.name".to_owned()), (size("rs.Resource.ServiceName"), OwnColumn::WellKnown));
        Self { shared, own }
    }

    /// Gives every attribute its part of the columns.
    fn share_out(&self, scope: DedicatedScope, counts: BTreeMap<String, Count>) -> Vec<AttributeUse> {
        let mut totals = Weights::default();
        for (_, count) in counts.iter().filter(|(key, _)| !self.own.contains_key(&(scope as usize, (*key).clone()))) {
            totals.iter_mut().zip(count.weights).for_each(|(total, weight)| *total += weight);
        }
        let shared = &self.shared[scope as usize];
        let mut attributes = Vec::with_capacity(counts.len());
        for (key, count) in counts {
            let (stored_bytes, column) = self.own.get(&(scope as usize, key.clone())).copied().unwrap_or_else(|| {
                let parts = shared.iter().zip(totals).zip(count.weights).filter(|((_, total), _)| *total > 0);
                let bytes: f64 = parts.map(|((size, total), weight)| *size as f64 * weight as f64 / total as f64).sum();
                (bytes.round() as u64, OwnColumn::None)
            });
            attributes.push(AttributeUse {
                scope,
                key,
                spans: count.spans,
                stored: count.stored,
                texts: count.texts,
                plain_bytes: count.plain_bytes,
                stored_bytes,
                distinct: count.distinct.len() as u64,
                column,
            });
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::BlockMeta;

    fn of(set: &str) -> Analysis {
        let file = |name: &str| std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(set).join(name)).expect(name);
        let meta = BlockMeta::from_json(&file("meta.json"), set).expect("a meta");
        let block = BlockReader::open(meta, Arc::new(Bytes::from(file("data.parquet")))).expect("opens");
        analyse(&block, &mut |_| {}).expect("reads")
    }

    fn find<'a>(analysis: &'a Analysis, scope: DedicatedScope, key: &str) -> &'a AttributeUse {
        analysis.of_scope(scope).find(|attribute| attribute.key == key).expect("the attribute is there")
    }

    #[test]
    fn attributes_are_counted_where_they_stand() {
        let analysis = of("v4-edge-default");
        assert_eq!((analysis.traces, analysis.spans), (86, 537));
        let service = find(&analysis, DedicatedScope::Resource, "service.name");
        assert_eq!(service.column, OwnColumn::WellKnown);
        assert!(service.spans > service.stored && service.stored > 86, "{service:?}");
        let method = find(&analysis, DedicatedScope::Span, "http.method");
        assert_eq!((method.column, method.spans), (OwnColumn::WellKnown, method.stored));
        assert!(method.distinct > 1 && method.distinct < 10, "{method:?}");
        assert_eq!(find(&analysis, DedicatedScope::Span, "http.request.method").column, OwnColumn::Dedicated);
        assert_eq!(find(&analysis, DedicatedScope::Event, "exception.type").column, OwnColumn::None);
    }

    #[test]
    fn the_shares_add_up_to_the_shared_columns() {
        for set in ["v4-edge-default", "v5-edge-dedicated", "v4-bulk-rowgroups"] {
            let analysis = of(set);
            for scope in SCOPES {
                let shared: u64 = analysis.of_scope(scope).filter(|a| a.column == OwnColumn::None).map(|a| a.stored_bytes).sum();
                assert!(shared > 500, "{set}: {shared}");
            }
            let sizes: Vec<u64> = analysis.of_scope(DedicatedScope::Span).map(|attribute| attribute.stored_bytes).collect();
            assert!(sizes.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn large_texts_without_a_column_are_recommended() {
        let analysis = of("v4-bulk-rowgroups");
        let recommended = analysis.recommended();
        assert!(!recommended.is_empty() && recommended.len() <= 2 * VPARQUET4_SLOTS);
        for column in &recommended {
            let attribute = find(&analysis, column.scope, &column.name);
            assert!(2 * attribute.texts > attribute.stored && attribute.column != OwnColumn::WellKnown, "{attribute:?}");
        }
        // What vParquet4 cannot hold never is, even if vParquet5 does.
        let of_v5 = of("v5-edge-dedicated");
        for column in of_v5.recommended() {
            assert!(column.kind == DedicatedType::String && !is_well_known(column.scope, &column.name), "{column:?}");
        }
        assert_eq!(crate::dedicated::for_vparquet4(&recommended), recommended);
    }
}
