//! One row group, decoded column by column as it is asked for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use memchr::memchr_iter;
use rustc_hash::FxHashMap;

use super::column::{AnyDictionary, Column, Decoder, Dictionary, Levels, Values};
use super::fault::{Fault, ReadError};
use super::file::BlockFile;
use super::footer::{Chunk, Leaf, PageLocation};
use super::layout::LeafId;
use super::page::Decompressor;
use super::shape::Shape;

/// All rows of a row group, or some of them, with the columns that have been decoded so far. Nothing is decoded twice.
pub(crate) struct Group<'a> {
    pub(crate) file: &'a BlockFile,
    index: usize,
    /// Ascending rows of the row group; none: all of them.
    pub(super) rows: Option<Vec<usize>>,
    pub(super) columns: FxHashMap<LeafId, Rc<Column>>,
    /// Columns of the whole row group, to take rows from.
    pub(super) whole: FxHashMap<LeafId, Rc<Column>>,
    pub(super) dictionaries: FxHashMap<LeafId, Option<AnyDictionary>>,
    /// Levels by list, of required columns of the whole row group.
    levels: FxHashMap<usize, Rc<Levels>>,
    offsets: FxHashMap<(LeafId, u8, u8), Rc<Vec<u32>>>,
    pub(super) shape: Option<Shape>,
    /// By where they start; of several that start there, the longest.
    fetched: BTreeMap<u64, Bytes>,
    pub(super) zip: Decompressor,
    /// Bytes read from the source.
    pub(crate) bytes_read: u64,
}

impl<'a> Group<'a> {
    pub(crate) fn new(file: &'a BlockFile, index: usize) -> Self {
        Self {
            file,
            index,
            rows: None,
            columns: FxHashMap::default(),
            whole: FxHashMap::default(),
            dictionaries: FxHashMap::default(),
            levels: FxHashMap::default(),
            offsets: FxHashMap::default(),
            shape: None,
            fetched: BTreeMap::new(),
            zip: Decompressor::default(),
            bytes_read: 0,
        }
    }

    /// These rows alone, ascending. What is decoded already is taken over; `self` must have all rows.
    pub(crate) fn narrow(self, rows: Vec<usize>) -> Self {
        let bytes_read = self.bytes_read;
        Self {
            rows: Some(rows),
            whole: self.columns,
            dictionaries: self.dictionaries,
            fetched: self.fetched,
            bytes_read,
            ..Self::new(self.file, self.index)
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.as_ref().map_or(self.row_group_rows(), Vec::len)
    }

    fn row_group_rows(&self) -> usize {
        self.file.footer.groups[self.index].rows
    }

    /// Bytes of all columns as stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.file.footer.groups[self.index].bytes
    }

    pub(super) fn chunk(&self, leaf: LeafId) -> &'a Chunk {
        &self.file.footer.groups[self.index].chunks[leaf]
    }

    pub(super) fn leaf(&self, leaf: LeafId) -> &'a Leaf {
        &self.file.footer.leaves[leaf]
    }

    pub(super) fn at(&self, leaf: LeafId, fault: Fault) -> ReadError {
        fault.at(self.file.meta.block_id, format!("row group {}, column {}", self.index, self.leaf(leaf).path))
    }

    /// An error about a column.
    pub(crate) fn corrupt(&self, leaf: LeafId, what: impl Into<String>) -> ReadError {
        self.at(leaf, Fault::corrupt(what.into()))
    }

    /// Whether the statistics say that no value is there, so that the column need not be read.
    pub(crate) fn is_empty(&self, leaf: LeafId) -> bool {
        let chunk = self.chunk(leaf);
        chunk.nulls.is_some_and(|nulls| nulls >= chunk.entries)
    }

    /// Whether [`Group::is_empty`] knows.
    pub(crate) fn has_statistics(&self, leaf: LeafId) -> bool {
        self.chunk(leaf).nulls.is_some()
    }

    /// What it takes to have a column: nothing if it is decoded, else about its bytes.
    pub(crate) fn cost(&self, leaf: LeafId) -> u64 {
        if self.columns.contains_key(&leaf) || self.whole.contains_key(&leaf) {
            return 0;
        }
        let chunk = self.chunk(leaf);
        chunk.data.end - chunk.dictionary.start
    }

    /// The pages to read for the wanted rows; none when they are not known or all are needed.
    pub(super) fn pages(&self, leaf: LeafId) -> Result<Option<Vec<&'a PageLocation>>, ReadError> {
        let Some(rows) = &self.rows else { return Ok(None) };
        let Some(pages) = &self.file.pages(self.index)?[leaf] else { return Ok(None) };
        let end = |i: usize| pages.get(i + 1).map_or(usize::MAX, |next| next.first_row);
        let hit = |(i, page): &(usize, &PageLocation)| {
            let at = rows.partition_point(|row| *row < page.first_row);
            rows.get(at).is_some_and(|row| *row < end(*i))
        };
        Ok(Some(pages.iter().enumerate().filter(hit).map(|(_, page)| page).collect()))
    }

    /// The column without reading it, if all its values are said to be one number. It has no levels.
    pub(crate) fn constant(&self, leaf: LeafId, values: usize) -> Option<Column> {
        let constant = self.chunk(leaf).constant?;
        let values = Values::constant(self.leaf(leaf).physical, constant, values)?;
        Some(Column { levels: Rc::default(), values })
    }

    pub(super) fn fetch(&mut self, mut ranges: Vec<Range<u64>>) -> Result<(), ReadError> {
        ranges.retain(|range| !range.is_empty() && self.cached(range).is_none());
        let ranges = self.file.coalesce(ranges);
        let read = self.file.read_many(&ranges)?;
        for (range, bytes) in ranges.iter().zip(read) {
            self.bytes_read += bytes.len() as u64;
            let known = self.fetched.entry(range.start).or_default();
            if known.len() < bytes.len() {
                *known = bytes;
            }
        }
        Ok(())
    }

    pub(super) fn cached(&self, range: &Range<u64>) -> Option<Bytes> {
        // Nearly always in the nearest; one that is longer may start before.
        self.fetched.range(..=range.start).rev().take(4).find_map(|(start, bytes)| {
            let from = usize::try_from(range.start - start).ok()?;
            let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
            (to <= bytes.len()).then(|| bytes.slice(from..to))
        })
    }

    pub(super) fn read(&mut self, range: &Range<u64>) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.cached(range) {
            return Ok(bytes);
        }
        let bytes = self.file.read(range.clone())?;
        self.bytes_read += bytes.len() as u64;
        Ok(bytes)
    }

    fn any_dictionary(&mut self, leaf: LeafId) -> Result<Option<AnyDictionary>, ReadError> {
        if let Some(dictionary) = self.dictionaries.get(&leaf) {
            return Ok(dictionary.clone());
        }
        let chunk = self.chunk(leaf);
        let dictionary = if chunk.dictionary.is_empty() {
            None
        } else {
            let bytes = self.read(&chunk.dictionary)?;
            let decoded = AnyDictionary::decode(&bytes, self.leaf(leaf), chunk.codec, &mut self.zip);
            Some(decoded.map_err(|fault| self.at(leaf, fault))?)
        };
        self.dictionaries.insert(leaf, dictionary.clone());
        Ok(dictionary)
    }

    /// The dictionary of a text column: all its values, when there is one. Only the dictionary page is read.
    ///
    /// Writers exist that give up on a dictionary half way; see [`Group::column`] for what is in the rows.
    pub(crate) fn dictionary(&mut self, leaf: LeafId) -> Result<Option<Rc<Dictionary>>, ReadError> {
        Ok(match self.any_dictionary(leaf)? {
            Some(AnyDictionary::Strings(dictionary)) => Some(dictionary),
            _ => None,
        })
    }

    /// Whether some entry of a column's dictionary of 64-bit numbers satisfies a test; none without such a dictionary.
    pub(crate) fn any_number(&mut self, leaf: LeafId, test: impl FnMut(&i64) -> bool) -> Result<Option<bool>, ReadError> {
        Ok(match self.any_dictionary(leaf)? {
            Some(AnyDictionary::I64(dictionary)) => Some(dictionary.iter().any(test)),
            _ => None,
        })
    }

    /// The decoded column.
    pub(crate) fn column(&mut self, leaf: LeafId) -> Result<Rc<Column>, ReadError> {
        if let Some(column) = self.columns.get(&leaf) {
            return Ok(Rc::clone(column));
        }
        let column = match (&self.rows, self.whole.get(&leaf)) {
            (Some(rows), Some(whole)) => whole.select(rows.iter().copied(), self.leaf(leaf)).map_err(|fault| self.at(leaf, fault))?,
            (Some(rows), None) => {
                let rows = rows.clone();
                self.decode_rows(leaf, &rows)?
            }
            (None, _) => self.decode_all(leaf)?,
        };
        let column = Rc::new(column);
        self.columns.insert(leaf, Rc::clone(&column));
        Ok(column)
    }

    fn decode_all(&mut self, id: LeafId) -> Result<Column, ReadError> {
        let (chunk, leaf) = (self.chunk(id), self.leaf(id));
        let dictionary = self.any_dictionary(id)?;
        let bytes = self.read(&chunk.data)?;
        let known = self.levels.get(&leaf.list).filter(|_| leaf.max_rep > 0 && leaf.max_def == leaf.max_rep).cloned();
        let decode = |zip: &mut Decompressor| {
            let mut decoder = Decoder::new(leaf, chunk.codec, dictionary, known.is_none())?.at_most(chunk.entries);
            let mut at = 0;
            while at < bytes.len() && decoder.entries() < chunk.entries {
                at += decoder.page(&bytes[at..], zip)?;
            }
            if decoder.entries() != chunk.entries {
                return Err(Fault::corrupt(format!("pages hold {} entries, the footer says {}", decoder.entries(), chunk.entries)));
            }
            Ok(decoder.finish())
        };
        let mut column = decode(&mut self.zip).map_err(|fault| self.at(id, fault))?;
        if let Some(known) = known {
            let values = memchr_iter(leaf.max_def, &known.def).count();
            if known.def.len() != chunk.entries || values != column.values.len() {
                return Err(self.corrupt(id, format!("{} values where its neighbours have {values}", column.values.len())));
            }
            column.levels = known;
        } else if leaf.max_rep > 0 {
            let rows = memchr_iter(0, &column.levels.rep).count();
            if rows != self.row_group_rows() {
                return Err(self.corrupt(id, format!("{rows} rows, the row group has {}", self.row_group_rows())));
            }
            if leaf.max_def == leaf.max_rep {
                self.levels.insert(leaf.list, Rc::clone(&column.levels));
            }
        } else if chunk.entries != self.row_group_rows() {
            return Err(self.corrupt(id, format!("{} rows, the row group has {}", chunk.entries, self.row_group_rows())));
        }
        Ok(column)
    }

    fn decode_rows(&mut self, id: LeafId, rows: &[usize]) -> Result<Column, ReadError> {
        let leaf = self.leaf(id);
        let Some(pages) = self.pages(id)? else {
            let mut whole = Self { fetched: std::mem::take(&mut self.fetched), ..Self::new(self.file, self.index) };
            let column = whole.decode_all(id);
            self.fetched = whole.fetched;
            self.bytes_read += whole.bytes_read;
            let selected = column?.select(rows.iter().copied(), leaf);
            return selected.map_err(|fault| self.at(id, fault));
        };
        let dictionary = self.any_dictionary(id)?;
        self.decode_pages(id, leaf, rows, pages, dictionary)
    }

    /// These rows, all of which are in these pages.
    pub(super) fn decode_pages(
        &mut self,
        id: LeafId,
        leaf: &Leaf,
        rows: &[usize],
        pages: Vec<&PageLocation>,
        dictionary: Option<AnyDictionary>,
    ) -> Result<Column, ReadError> {
        let chunk = self.chunk(id);
        let mut out: Option<Column> = None;
        let mut left = chunk.entries;
        for page in pages {
            let bytes = self.read(&page.bytes)?;
            let first = rows.partition_point(|row| *row < page.first_row);
            let mut decode = |zip: &mut Decompressor| {
                let mut decoder = Decoder::new(leaf, chunk.codec, dictionary.clone(), true)?.at_most(left);
                decoder.page(&bytes, zip)?;
                left -= decoder.entries();
                let end = page.first_row + decoder.rows();
                let wanted = rows[first..].iter().take_while(|row| **row < end).map(|row| row - page.first_row);
                let part = decoder.finish().select(wanted, leaf)?;
                match &mut out {
                    Some(out) => out.append(&part)?,
                    none => *none = Some(part),
                }
                Ok(())
            };
            decode(&mut self.zip).map_err(|fault| self.at(id, fault))?;
        }
        let column = match out {
            Some(column) => column,
            None => Decoder::new(leaf, chunk.codec, dictionary, true).map_err(|fault| self.at(id, fault))?.finish(),
        };
        let got = match leaf.max_rep {
            0 => column.values.len(),
            _ => memchr_iter(0, &column.levels.rep).count(),
        };
        if got == rows.len() { Ok(column) } else { Err(self.corrupt(id, format!("{got} of {} rows are in the pages", rows.len()))) }
    }

    /// For every element `parent` lists deep, where its part of the column's values starts; one more at the end.
    pub(crate) fn value_offsets(&mut self, leaf: LeafId, parent: u8) -> Result<Rc<Vec<u32>>, ReadError> {
        let (max_rep, max_def) = (self.leaf(leaf).max_rep, self.leaf(leaf).max_def);
        self.offsets(leaf, parent, max_rep, max_def)
    }

    /// For every element `parent` lists deep, where its elements one list deeper start; one more at the end.
    pub(crate) fn list_offsets(&mut self, leaf: LeafId, parent: u8) -> Result<Rc<Vec<u32>>, ReadError> {
        self.offsets(leaf, parent, parent + 1, parent + 1)
    }

    fn offsets(&mut self, leaf: LeafId, parent: u8, child_rep: u8, child_def: u8) -> Result<Rc<Vec<u32>>, ReadError> {
        if let Some(offsets) = self.offsets.get(&(leaf, parent, child_def)) {
            return Ok(Rc::clone(offsets));
        }
        let column = self.column(leaf)?;
        let Levels { rep, def } = &*column.levels;
        // Written always and kept sometimes: branches would be guessed wrong too often.
        let mut offsets = vec![0u32; rep.len() + 1];
        let (mut parents, mut children) = (0, 0u32);
        for (rep, def) in rep.iter().zip(def) {
            offsets[parents] = children;
            parents += usize::from((*rep <= parent) & (*def >= parent));
            children += u32::from((*rep <= child_rep) & (*def >= child_def));
        }
        offsets[parents] = children;
        offsets.truncate(parents + 1);
        let offsets = Rc::new(offsets);
        self.offsets.insert((leaf, parent, child_def), Rc::clone(&offsets));
        Ok(offsets)
    }
}
