//! What a resource adds to the columns, remembered: resources repeat in trace after trace of a row group.

use rustc_hash::FxHashMap;

use super::columns::{Column, Columns, List};
use super::values::Part;
use crate::schema::Leaf;

/// Resources to remember.
const STAMPS_MAX: usize = 4096;

/// By [`crate::row::Resource::content`]. Dictionary codes are those of the current row group.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    by_content: FxHashMap<u32, Stamp>,
}

#[derive(Debug)]
pub(super) struct Stamp {
    /// Entries in the list of attributes; an empty list has one entry too.
    entries: u32,
    has_attrs: bool,
    bytes: usize,
    parts: Vec<(Leaf, Vec<u32>, Part)>,
}

/// How far the columns of resources were filled before one was added.
pub(super) struct Mark {
    entries: usize,
    bytes: usize,
    values: Vec<(usize, usize)>,
}

/// Columns that depend on a resource's content alone.
pub(super) fn leaves() -> impl Iterator<Item = Leaf> {
    Leaf::all()
        .filter(|leaf| (Leaf::RESOURCE_ATTRS.key..=Leaf::resource_dedicated(9)).contains(leaf) && *leaf != Leaf::RESOURCE_DROPPED_ATTRS)
}

impl Mark {
    pub(super) fn of(columns: &Columns) -> Self {
        let fill = |column: &Column| (column.values.len(), column.present.as_ref().map_or(0, Vec::len));
        Self {
            entries: columns.entries(List::ResourceAttrs),
            bytes: columns.bytes(List::ResourceAttrs),
            values: leaves().map(|leaf| fill(&columns.columns[leaf.index()])).collect(),
        }
    }
}

impl Stamps {
    pub(super) fn get(&self, content: u32) -> Option<&Stamp> {
        self.by_content.get(&content)
    }

    /// Remembers what was added since `mark`: the resource at entry `at` of its list.
    pub(super) fn learn(&mut self, content: u32, columns: &Columns, mark: &Mark, at: u32) {
        if self.by_content.len() >= STAMPS_MAX {
            self.by_content.clear();
        }
        let mut parts = Vec::new();
        for (leaf, (values, present)) in leaves().zip(&mark.values) {
            let column = &columns.columns[leaf.index()];
            let part = column.values.part(*values);
            if part.is_empty() {
                continue;
            }
            let base = if column.list == List::Resources { at } else { mark.entries as u32 };
            let present = column.present.iter().flat_map(|all| &all[*present..]).map(|entry| entry - base).collect();
            parts.push((leaf, present, part));
        }
        let stamp = Stamp {
            entries: (columns.entries(List::ResourceAttrs) - mark.entries) as u32,
            has_attrs: columns.columns[Leaf::RESOURCE_ATTRS.key.index()].values.len() > mark.values[0].0,
            bytes: columns.bytes(List::ResourceAttrs) - mark.bytes,
            parts,
        };
        self.by_content.insert(content, stamp);
    }

    pub(super) fn clear(&mut self) {
        self.by_content.clear();
    }
}

impl Stamp {
    /// Adds the resource again, at entry `at` of its list.
    pub(super) fn press(&self, columns: &mut Columns, level: u8, at: u32) {
        let base = columns.extend_attrs(List::ResourceAttrs, level, self.entries, self.has_attrs, self.bytes);
        for (leaf, present, part) in &self.parts {
            let column = &mut columns.columns[leaf.index()];
            let base = if column.list == List::Resources { at } else { base };
            if let Some(all) = &mut column.present {
                all.extend(present.iter().map(|entry| entry + base));
            }
            column.values.extend(part);
        }
    }
}
