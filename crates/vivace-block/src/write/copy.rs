//! Rows of a block that is read, taken over column by column: no text is hashed again, nothing becomes OTLP in between.

use std::ops::Range;
use std::rc::Rc;
use std::sync::LazyLock;

use memchr::{memchr, memchr_iter};
use vivace_core::TraceId;

use super::columns::{Columns, LISTS, List, list_of};
use super::estimate;
use super::values::{Renamed, Values};
use crate::read::{self, Column};
use crate::schema::Leaf;

/// A leaf of each list that has a value for every element, so that its levels are those of the list.
pub(super) const REPRESENTATIVES: [(List, Leaf); LISTS] = [
    (List::Root, Leaf::TRACE_ID),
    (List::Stats, Leaf::STATS_SERVICE),
    (List::Resources, Leaf::SERVICE_NAME),
    (List::ResourceAttrs, Leaf::RESOURCE_ATTRS.key),
    (List::Scopes, Leaf::SCOPE_NAME),
    (List::ScopeAttrs, Leaf::SCOPE_ATTRS.key),
    (List::Spans, Leaf::SPAN_ID),
    (List::SpanAttrs, Leaf::SPAN_ATTRS.key),
    (List::Events, Leaf::EVENT_NAME),
    (List::EventAttrs, Leaf::EVENT_ATTRS.key),
    (List::Links, Leaf::LINK_TRACE_ID),
    (List::LinkAttrs, Leaf::LINK_ATTRS.key),
];

/// Columns whose levels must be known even if they have no value.
pub(crate) fn is_representative(leaf: Leaf) -> bool {
    REPRESENTATIVES.iter().any(|(_, representative)| *representative == leaf)
}

/// The leaves whose innermost list of entries this is.
pub(super) fn leaves_of(list: List) -> &'static [Leaf] {
    static LEAVES: LazyLock<[Vec<Leaf>; LISTS]> = LazyLock::new(|| {
        let mut leaves: [Vec<Leaf>; LISTS] = Default::default();
        Leaf::all().for_each(|leaf| leaves[list_of(leaf) as usize].push(leaf));
        leaves
    });
    &LEAVES[list as usize]
}

/// One column disagrees with the others of its row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch(pub(crate) Leaf);

/// A decoded row group to take rows from, in ascending order.
pub(crate) struct RowSource {
    pub(super) sides: Vec<Option<Side>>,
}

/// One column of it, and where the current row is.
pub(super) struct Side {
    pub(super) column: Rc<Column>,
    pub(super) entries: Range<usize>,
    pub(super) values: Range<usize>,
    pub(super) max_definition: u8,
    list: List,
    pub(super) shares: Shares,
    /// By code of the column's dictionary what it is in the output's.
    renamed: Vec<Renamed>,
    /// The row group of the output that `renamed` is of.
    generation: u64,
}

/// What the levels of a column have in common with those of its list's representative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shares {
    /// Entries and values stand at the same places. So it is for all required columns.
    All,
    /// Every entry of the list is one of the column, with a value or without.
    Entries,
    /// Some entries have several values.
    Nothing,
}

/// What a row added.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Copied {
    pub(super) trace_id: TraceId,
    pub(super) start_unix_nanos: u64,
    pub(super) end_unix_nanos: u64,
    pub(super) spans: u64,
    /// About what the columns took in memory.
    pub(super) bytes: u64,
    /// In the unit of `parquet_row_group_size_bytes`.
    pub(super) estimate: u64,
}

impl RowSource {
    /// `columns` are those of all leaves, in their order; none for those without any value.
    pub(crate) fn new(columns: Vec<Option<Rc<Column>>>) -> Self {
        let shares: Vec<Shares> = Leaf::all()
            .map(|leaf| {
                let representative = REPRESENTATIVES[list_of(leaf) as usize].1;
                match (&columns[leaf.index()], &columns[representative.index()]) {
                    (Some(column), Some(other)) => Shares::between(leaf, column, representative, other),
                    _ => Shares::Nothing,
                }
            })
            .collect();
        let side = |(leaf, column): (Leaf, Option<Rc<Column>>)| {
            Some(Side {
                column: column?,
                entries: 0..0,
                values: 0..0,
                max_definition: leaf.column().max_def_level() as u8,
                list: list_of(leaf),
                shares: shares[leaf.index()],
                renamed: Vec::new(),
                generation: u64::MAX,
            })
        };
        Self { sides: Leaf::all().zip(columns).map(side).collect() }
    }

    /// Goes to the row after the current one; to the first at first.
    pub(crate) fn next_row(&mut self) {
        let mut places = [(0, 0, 0, 0); LISTS];
        for (list, leaf) in REPRESENTATIVES {
            if let Some(side) = &mut self.sides[leaf.index()] {
                side.next_row();
                places[list as usize] = (side.entries.start, side.entries.end, side.values.start, side.values.end);
            }
        }
        for (side, leaf) in self.sides.iter_mut().zip(Leaf::all()) {
            let Some(side) = side else { continue };
            let (entry, entry_end, value, value_end) = places[side.list as usize];
            match side.shares {
                _ if REPRESENTATIVES[side.list as usize].1 == leaf => {}
                Shares::All => (side.entries, side.values) = (entry..entry_end, value..value_end),
                Shares::Entries => side.go_to(entry..entry_end),
                Shares::Nothing => side.next_row(),
            }
        }
    }

    /// Spans in the current row.
    pub(crate) fn spans(&self) -> u64 {
        self.sides[Leaf::SPAN_ID.index()].as_ref().map_or(0, |side| side.values.len() as u64)
    }

    pub(super) fn side(&self, leaf: Leaf) -> Result<&Side, Mismatch> {
        self.sides[leaf.index()].as_ref().ok_or(Mismatch(leaf))
    }

    pub(super) fn i64(&self, leaf: Leaf) -> Result<u64, Mismatch> {
        let side = self.side(leaf)?;
        Ok(side.column.values.i64(side.values.start).cast_unsigned())
    }
}

impl Shares {
    fn between(leaf: Leaf, column: &Column, representative: Leaf, other: &Column) -> Self {
        let same_depth = leaf.column().max_def_level() == representative.column().max_def_level();
        let (own, list) = (&column.levels, &other.levels);
        match () {
            () if same_depth && (Rc::ptr_eq(own, list) || own == list) => Self::All,
            () if own.def.len() == list.def.len() && own.rep == list.rep => Self::Entries,
            () => Self::Nothing,
        }
    }
}

impl Side {
    fn next_row(&mut self) {
        let levels = &*self.column.levels;
        let entry = self.entries.end;
        if levels.def.is_empty() {
            (self.entries, self.values) = (entry..entry + 1, self.values.end..self.values.end + 1);
            return;
        }
        let len = levels.def.len();
        let end = match levels.rep.get(entry + 1..) {
            Some(rest) => memchr(0, rest).map_or(len, |at| entry + 1 + at),
            None => len,
        };
        self.go_to(entry.min(len)..end);
    }

    /// To the entries of the next row.
    fn go_to(&mut self, entries: Range<usize>) {
        let value = self.values.end;
        let here = self.column.levels.def.get(entries.clone()).unwrap_or_default();
        self.values = value..value + memchr_iter(self.max_definition, here).count();
        self.entries = entries;
    }

    pub(super) fn levels(&self, entries: Range<usize>) -> (&[u8], &[u8]) {
        let levels = &*self.column.levels;
        (levels.rep.get(entries.clone()).unwrap_or_default(), levels.def.get(entries).unwrap_or_default())
    }
}

impl Columns {
    /// Adds the current row of `rows` as it is.
    pub(super) fn copy_row(&mut self, rows: &mut RowSource) -> Result<Copied, Mismatch> {
        let start_unix_nanos = rows.i64(Leaf::START)?;
        let end_unix_nanos = rows.i64(Leaf::END)?;
        let ids = rows.side(Leaf::TRACE_ID)?;
        let trace_id = TraceId::from_slice(ids.column.values.bytes(ids.values.start));
        let spans = rows.side(Leaf::SPAN_ID)?.values.len() as u64;
        let mut copied = Copied { trace_id, start_unix_nanos, end_unix_nanos, spans, bytes: 0, estimate: estimate::unit(List::Root) };

        let mut bases = [0u32; LISTS];
        let mut elements = [0; LISTS];
        for (list, leaf) in REPRESENTATIVES {
            bases[list as usize] = self.entries(list) as u32;
            let side = rows.side(leaf)?;
            elements[list as usize] = side.values.len();
            if list == List::Root {
                self.entry(list, 0, 0);
                continue;
            }
            let (repetition, definition) = side.levels(side.entries.clone());
            if definition.is_empty() {
                return Err(Mismatch(leaf));
            }
            self.extend_levels(list, repetition, definition);
            copied.estimate += estimate::unit(list) * side.values.len() as u64;
        }
        let generation = self.generation();
        for (index, leaf) in Leaf::all().enumerate() {
            let column = &mut self.columns[index];
            let wanted = elements[column.list as usize];
            let Some(side) = &mut rows.sides[index] else {
                // Statistics that claim of a required column that it has no value.
                if column.present.is_none() && wanted > 0 {
                    return Err(Mismatch(leaf));
                }
                continue;
            };
            if column.present.is_none() && side.values.len() != wanted {
                return Err(Mismatch(leaf));
            }
            if side.values.is_empty() {
                continue;
            }
            let base = bases[column.list as usize];
            if let Some(present) = &mut column.present {
                let (repetition, definition) = side.levels(side.entries.clone());
                let in_list = self.lists[column.list as usize].definition.len() - base as usize;
                if !mark_present(present, base, repetition, definition, column.max_repetition, column.max_definition, in_list) {
                    return Err(Mismatch(leaf));
                }
            }
            let bytes = side.copy_values(side.values.clone(), &mut column.values, generation).ok_or(Mismatch(leaf))?;
            self.lists[column.list as usize].bytes += bytes;
            copied.bytes += (bytes + 8 * side.values.len()) as u64;
        }
        self.end_row();
        Ok(copied)
    }
}

/// Adds the entries that have a value, several times where they have several. False if there are not `in_list` entries.
pub(super) fn mark_present(
    present: &mut Vec<u32>,
    base: u32,
    repetition: &[u8],
    definition: &[u8],
    max_repetition: u8,
    max_definition: u8,
    in_list: usize,
) -> bool {
    if definition.len() == in_list {
        present.extend(memchr_iter(max_definition, definition).map(|at| base + at as u32));
        return true;
    }
    // Arrays: further elements are no entries of the list.
    let mut next = 0;
    for (repetition, definition) in repetition.iter().zip(definition) {
        next += u32::from(*repetition < max_repetition || next == 0);
        if *definition == max_definition {
            present.push(base + next - 1);
        }
    }
    next as usize == in_list
}

impl Side {
    /// Appends values and returns how many bytes of text they have. None if they are of another type or not there.
    pub(super) fn copy_values(&mut self, range: Range<usize>, out: &mut Values, generation: u64) -> Option<usize> {
        use read::Values as From;
        match (&self.column.values, out) {
            (From::Codes { codes, dictionary }, Values::Text(text)) => {
                if self.generation != generation {
                    self.generation = generation;
                    self.renamed.clear();
                    self.renamed.resize(dictionary.len(), Renamed::default());
                }
                let codes = codes.get(range)?;
                return Some(text.extend_renamed(codes, &mut self.renamed, |code| dictionary.strings.get(code as usize)));
            }
            (From::Strings(from), Values::Ids(ids)) => {
                let (bytes, offsets) = from.part(range)?;
                ids.extend(bytes, offsets);
                return Some(bytes.len());
            }
            (From::Strings(_), Values::Text(text)) => {
                return self.each_text(range, |value| text.push(value));
            }
            (From::Codes { .. }, Values::Ids(ids)) => {
                return self.each_text(range, |value| ids.push(value));
            }
            (From::I64(from), Values::I64(to)) => to.extend_from_slice(from.get(range)?),
            (From::I32(from), Values::I32(to)) => to.extend_from_slice(from.get(range)?),
            (From::F64(from), Values::F64(to)) => to.extend_from_slice(from.get(range)?),
            (From::Bool(from), Values::Bool(to)) => to.extend_from_slice(from.get(range)?),
            _ => return None,
        }
        Some(0)
    }

    /// Appends values as words that are equal for equal values of this column and of others that go into `out`.
    /// None if they are of another type or not there.
    pub(super) fn put_words(&mut self, range: Range<usize>, out: &mut Values, generation: u64, words: &mut Vec<u32>) -> Option<()> {
        use read::Values as From;
        let halves = |bits: u64| [bits as u32, (bits >> 32) as u32];
        match (&self.column.values, out) {
            (From::Codes { codes, dictionary }, Values::Text(text)) => {
                if self.generation != generation {
                    self.generation = generation;
                    self.renamed.clear();
                    self.renamed.resize(dictionary.len(), Renamed::default());
                }
                for code in codes.get(range)? {
                    words.push(text.rename(*code, &mut self.renamed, |code| dictionary.strings.get(code as usize)));
                }
            }
            (From::Strings(strings), Values::Text(text)) => words.extend(range.map(|index| text.intern(strings.get(index)))),
            (From::I64(from), Values::I64(_)) => words.extend(from.get(range)?.iter().flat_map(|v| halves(v.cast_unsigned()))),
            (From::I32(from), Values::I32(_)) => words.extend(from.get(range)?.iter().map(|v| v.cast_unsigned())),
            (From::F64(from), Values::F64(_)) => words.extend(from.get(range)?.iter().flat_map(|v| halves(v.to_bits()))),
            (From::Bool(from), Values::Bool(_)) => words.extend(from.get(range)?.iter().map(|v| u32::from(*v))),
            _ => return None,
        }
        Some(())
    }

    fn each_text(&self, range: Range<usize>, mut push: impl FnMut(&[u8])) -> Option<usize> {
        let values = &self.column.values;
        if range.end > values.len() {
            return None;
        }
        Some(
            range
                .map(|index| {
                    let value = values.bytes(index);
                    push(value);
                    value.len()
                })
                .sum(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::combine::Combiner;
    use super::*;
    use crate::{BlockMeta, BlockReader};

    fn rows(without: Option<Leaf>) -> RowSource {
        let object = |name: &str| std::fs::read(format!("{}/testdata/v4-pages/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name);
        let meta = BlockMeta::from_json(&object("meta.json"), "v4-pages").expect("a meta");
        let block = BlockReader::open(meta, Arc::new(Bytes::from(object("data.parquet")))).expect("opens");
        let mut columns = block.row_group(0).expect("reads");
        without.into_iter().for_each(|leaf| columns[leaf.index()] = None);
        let mut rows = RowSource::new(columns);
        rows.next_row();
        rows
    }

    #[test]
    fn a_required_column_without_its_values_is_noticed() {
        assert!(Columns::new().copy_row(&mut rows(None)).is_ok());
        for leaf in [Leaf::SPAN_KIND, Leaf::RESOURCE_DROPPED_ATTRS, Leaf::SPAN_ATTRS.is_array, Leaf::SCOPE_VERSION] {
            let copied = Columns::new().copy_row(&mut rows(Some(leaf)));
            assert_eq!(copied.map(|_| ()), Err(Mismatch(leaf)));
        }
        let leaf = Leaf::SPAN_DROPPED_ATTRS;
        let (mut first, mut second) = (rows(Some(leaf)), rows(None));
        second.next_row();
        assert!(
            matches!(Combiner::default().combine(&mut Columns::new(), &mut [&mut first, &mut second]), Err(Mismatch(at)) if at == leaf)
        );
    }
}
