//! Columns read ahead: what several of them need in few, large ranges; and for few rows of columns with large dictionaries, of
//! the dictionary only the frames that hold what the rows refer to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::column::{AnyDictionary, Column, Dictionary, Values};
use super::encoding::{self, Strings};
use super::fault::{Fault, ReadError};
use super::footer::{Codec, Leaf, Physical};
use super::group::Group;
use super::layout::LeafId;
use super::page::PageHeader;
use crate::frames;

/// What is read of a dictionary to see its table of frames.
const HEAD_BYTES: u64 = 1 << 10;

/// A dictionary in frames.
struct Framed {
    entries: usize,
    frames: Vec<Frame>,
}

struct Frame {
    first_entry: usize,
    entries: usize,
    plain_bytes: usize,
    bytes: Range<u64>,
}

/// A column whose codes are known and whose dictionary is not.
struct Coded {
    leaf: LeafId,
    column: Column,
    framed: Framed,
    /// Code by code, ascending, what becomes of it.
    used: BTreeMap<u32, u32>,
}

impl Coded {
    fn frames(&self) -> impl Iterator<Item = (&Frame, Range<u32>)> {
        self.framed.frames.iter().filter_map(|frame| {
            let codes = frame.first_entry as u32..(frame.first_entry + frame.entries) as u32;
            self.used.range(codes.clone()).next().is_some().then_some((frame, codes))
        })
    }
}

impl Group<'_> {
    /// Reads what these columns need in few, large ranges.
    pub(crate) fn prefetch(&mut self, leaves: &[LeafId]) -> Result<(), ReadError> {
        let unread = |leaf: &&LeafId| !self.columns.contains_key(*leaf) && !self.whole.contains_key(*leaf);
        let leaves: Vec<LeafId> = leaves.iter().filter(unread).copied().collect();
        let mut ranges = Vec::new();
        for leaf in &leaves {
            self.ranges(*leaf, &mut ranges)?;
        }
        self.fetch(ranges)?;
        if self.rows.is_some() { self.decode_with_few_entries(&leaves) } else { Ok(()) }
    }

    fn ranges(&self, leaf: LeafId, out: &mut Vec<Range<u64>>) -> Result<(), ReadError> {
        let chunk = self.chunk(leaf);
        let dictionary = !chunk.dictionary.is_empty() && !self.dictionaries.contains_key(&leaf);
        match self.pages(leaf)? {
            None if dictionary => out.push(chunk.dictionary.start..chunk.data.end),
            None => out.push(chunk.data.clone()),
            Some(pages) => {
                if dictionary {
                    out.push(self.dictionary_head(leaf).unwrap_or_else(|| chunk.dictionary.clone()));
                }
                out.extend(pages.into_iter().map(|page| page.bytes.clone()));
            }
        }
        Ok(())
    }

    /// Where the table of a dictionary must be, if it may have one.
    fn dictionary_head(&self, leaf: LeafId) -> Option<Range<u64>> {
        let chunk = self.chunk(leaf);
        let range = &chunk.dictionary;
        let large = range.end - range.start > 4 * HEAD_BYTES;
        let may_be_framed = matches!(self.leaf(leaf).physical, Physical::ByteArray | Physical::Int64) && chunk.codec == Codec::Zstd;
        (large && may_be_framed).then(|| range.start..range.start + HEAD_BYTES)
    }

    /// Decodes those of the columns whose dictionary has frames; the others are left as they are.
    fn decode_with_few_entries(&mut self, leaves: &[LeafId]) -> Result<(), ReadError> {
        let Some(rows) = self.rows.clone() else { return Ok(()) };
        let mut coded = Vec::new();
        let mut ranges = Vec::new();
        for leaf in leaves.iter().copied() {
            if self.dictionary_head(leaf).is_none() || self.dictionaries.contains_key(&leaf) {
                continue;
            }
            let Some(pages) = self.pages(leaf)? else { continue };
            let framed = match self.framed(leaf)? {
                Some(framed) => framed,
                None => {
                    ranges.push(self.chunk(leaf).dictionary.clone());
                    continue;
                }
            };
            let unread = AnyDictionary::Strings(Rc::new(Dictionary::unread(framed.entries)));
            // The codes of numbers are decoded as those of texts are.
            let codes_of = Leaf { physical: Physical::ByteArray, ..self.leaf(leaf).clone() };
            let column = self.decode_pages(leaf, &codes_of, &rows, pages, Some(unread))?;
            let Values::Codes { codes, .. } = &column.values else {
                // Some of its pages do without the dictionary.
                ranges.push(self.chunk(leaf).dictionary.clone());
                continue;
            };
            let mut used: BTreeMap<u32, u32> = codes.iter().map(|code| (*code, 0)).collect();
            used.values_mut().zip(0..).for_each(|(new, number)| *new = number);
            let column = Coded { leaf, column, framed, used };
            ranges.extend(column.frames().map(|(frame, _)| frame.bytes.clone()));
            coded.push(column);
        }
        self.fetch(ranges)?;
        for coded in coded {
            let leaf = coded.leaf;
            let column = self.resolve(coded)?;
            self.columns.insert(leaf, Rc::new(column));
        }
        Ok(())
    }

    /// The frames of a dictionary whose head has been fetched.
    fn framed(&mut self, leaf: LeafId) -> Result<Option<Framed>, ReadError> {
        let Some(head) = self.dictionary_head(leaf) else { return Ok(None) };
        let bytes = self.read(&head)?;
        let range = self.chunk(leaf).dictionary.clone();
        let parse = || {
            let page = PageHeader::parse(&bytes)?;
            let Some((table_bytes, parts)) = frames::read_table(bytes.get(page.len..).unwrap_or_default()) else { return Ok(None) };
            let mut at = range.start + (page.len + table_bytes) as u64;
            let mut framed = Framed { entries: 0, frames: Vec::with_capacity(parts.len()) };
            for part in parts {
                let frame = Frame {
                    first_entry: framed.entries,
                    entries: part.entries as usize,
                    plain_bytes: part.plain_bytes as usize,
                    bytes: at..at + u64::from(part.bytes),
                };
                at = frame.bytes.end;
                framed.entries += frame.entries;
                framed.frames.push(frame);
            }
            let right = framed.entries == page.entries && at == range.end;
            if right { Ok(Some(framed)) } else { Err(Fault::corrupt("the frames of a dictionary are not those of its table")) }
        };
        parse().map_err(|fault| self.at(leaf, fault))
    }

    /// Gives a column of texts a dictionary of just the entries that its codes refer to, and one of numbers its numbers.
    fn resolve(&mut self, coded: Coded) -> Result<Column, ReadError> {
        let is_text = self.leaf(coded.leaf).physical == Physical::ByteArray;
        let mut strings = Strings::default();
        let mut numbers: Vec<i64> = Vec::new();
        for (frame, codes) in coded.frames() {
            let bytes = self.read(&frame.bytes)?;
            let mut add = || {
                let plain = self.zip.decompress(Codec::Zstd, &bytes, frame.plain_bytes)?;
                let used = coded.used.range(codes.clone()).map(|(code, _)| *code as usize - frame.first_entry);
                if !is_text {
                    let mut entries = Vec::new();
                    encoding::plain(plain, frame.entries, i64::from_le_bytes, &mut entries)?;
                    numbers.extend(used.map(|entry| entries[entry]));
                    return Ok(());
                }
                let mut entries = Strings::default();
                entries.plain(plain, frame.entries)?;
                used.into_iter().try_for_each(|entry| strings.push(entries.get(entry)))
            };
            add().map_err(|fault| self.at(coded.leaf, fault))?;
        }
        let Values::Codes { mut codes, .. } = coded.column.values else {
            return Err(self.corrupt(coded.leaf, "a dictionary of another type than its column"));
        };
        for code in &mut codes {
            *code = coded.used[code];
        }
        let values = if is_text {
            Values::Codes { codes, dictionary: Rc::new(Dictionary::new(strings)) }
        } else {
            Values::I64(codes.iter().map(|code| numbers[*code as usize]).collect())
        };
        Ok(Column { levels: coded.column.levels, values })
    }
}
