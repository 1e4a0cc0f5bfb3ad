//! The values of one column of one row group, nulls left out.

use hashbrown::{DefaultHashBuilder, HashTable};
use parquet::basic::Encoding;
use std::hash::BuildHasher;
use std::ops::Range;

use super::encode;

/// Values by physical type.
#[derive(Debug)]
pub(super) enum Values {
    /// Ids: never in a dictionary.
    Ids(Strings),
    /// Text: in a dictionary where that pays.
    Text(Text),
    I64(Vec<i64>),
    I32(Vec<i32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
}

/// Byte strings in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

/// Text, each distinct one kept once.
#[derive(Debug, Default)]
pub(super) struct Text {
    distinct: Strings,
    codes: Vec<u32>,
    by_text: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Strings {
    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(u32::try_from(self.bytes.len()).expect("a row group is cut long before 4 GiB"));
    }

    pub(super) fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[start..self.ends[i] as usize]
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn range(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> + Clone {
        range.map(|i| self.get(i))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl Text {
    pub(super) fn push(&mut self, value: &[u8]) {
        // Neighbours are often equal, and many columns hold nothing but empty texts.
        if let Some(last) = self.codes.last().filter(|last| self.distinct.get(**last as usize) == value) {
            self.codes.push(*last);
            return;
        }
        let hash = self.hasher.hash_one(value);
        let distinct = &mut self.distinct;
        let entry = self.by_text.entry(
            hash,
            |code| distinct.get(*code as usize) == value,
            |code| self.hasher.hash_one(distinct.get(*code as usize)),
        );
        let code = match entry {
            hashbrown::hash_table::Entry::Occupied(entry) => *entry.get(),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let code = distinct.ends.len() as u32;
                entry.insert(code);
                distinct.push(value);
                code
            }
        };
        self.codes.push(code);
    }

    /// Whether a dictionary is smaller than the values one after the other, for the whole chunk: pages of both kinds in one
    /// chunk would make Tempo overlook values. Mostly unique texts compress as well without, and are read without loading
    /// a large dictionary first.
    fn pays(&self) -> bool {
        let unique = 2 * self.distinct.len() > self.codes.len();
        !(unique && self.distinct.bytes.len() > DICTIONARY_FREE_BYTES)
    }
}

/// A dictionary up to this size is always worth its price: it says what a chunk does not contain.
const DICTIONARY_FREE_BYTES: usize = 16 * 1024;

/// Values taken out of a column, to be added to it again before it is cleared.
#[derive(Debug)]
pub(super) enum Part {
    Codes(Vec<u32>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    /// No column of resources is of another type.
    Other,
}

impl Part {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Codes(v) => v.is_empty(),
            Self::I64(v) => v.is_empty(),
            Self::F64(v) => v.is_empty(),
            Self::Bool(v) => v.is_empty(),
            Self::Other => true,
        }
    }
}

impl Values {
    /// The values from position `from` on.
    pub(super) fn part(&self, from: usize) -> Part {
        match self {
            Self::Text(v) => Part::Codes(v.codes[from..].to_vec()),
            Self::I64(v) => Part::I64(v[from..].to_vec()),
            Self::F64(v) => Part::F64(v[from..].to_vec()),
            Self::Bool(v) => Part::Bool(v[from..].to_vec()),
            Self::I32(_) | Self::Ids(_) => Part::Other,
        }
    }

    pub(super) fn extend(&mut self, part: &Part) {
        match (self, part) {
            (Self::Text(v), Part::Codes(part)) => v.codes.extend_from_slice(part),
            (Self::I64(v), Part::I64(part)) => v.extend_from_slice(part),
            (Self::F64(v), Part::F64(part)) => v.extend_from_slice(part),
            (Self::Bool(v), Part::Bool(part)) => v.extend_from_slice(part),
            (values, part) => unreachable!("{part:?} was taken from another column than {values:?}"),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ids(v) => v.len(),
            Self::Text(v) => v.codes.len(),
            Self::I64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Ids(v) => v.clear(),
            Self::Text(v) => {
                v.distinct.clear();
                v.codes.clear();
                v.by_text.clear();
            }
            Self::I64(v) => v.clear(),
            Self::I32(v) => v.clear(),
            Self::F64(v) => v.clear(),
            Self::Bool(v) => v.clear(),
        }
    }

    /// The number and the `PLAIN` bytes of the dictionary's entries, if the chunk is to have one.
    pub(super) fn dictionary(&self, always: bool) -> Option<(u32, Vec<u8>)> {
        match self {
            Self::Text(text) if !text.codes.is_empty() && (always || text.pays()) => {
                let mut out = Vec::with_capacity(text.distinct.bytes.len() + 4 * text.distinct.len());
                encode::plain_bytes(text.distinct.range(0..text.distinct.len()), &mut out);
                Some((text.distinct.len() as u32, out))
            }
            _ => None,
        }
    }

    /// How [`Self::encode`] writes.
    pub(super) fn encoding(&self, with_dictionary: bool) -> Encoding {
        match self {
            Self::Text(_) if with_dictionary => Encoding::RLE_DICTIONARY,
            Self::Ids(_) | Self::Text(_) => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            Self::I64(_) | Self::I32(_) => Encoding::DELTA_BINARY_PACKED,
            Self::F64(_) | Self::Bool(_) => Encoding::PLAIN,
        }
    }

    /// Appends the values of one page.
    pub(super) fn encode(&self, range: Range<usize>, with_dictionary: bool, out: &mut Vec<u8>) {
        match self {
            Self::Ids(v) => encode::delta_length_bytes(v.range(range), out),
            Self::Text(v) if with_dictionary => {
                // Some readers stumble over codes of zero bits.
                let width = encode::bit_width(v.distinct.len() as u64 - 1).max(1);
                out.push(width as u8);
                encode::hybrid(&v.codes[range], width, out);
            }
            Self::Text(v) => encode::delta_length_bytes(v.codes[range].iter().map(|code| v.distinct.get(*code as usize)), out),
            Self::I64(v) => encode::delta_i64(&v[range], out),
            Self::I32(v) => encode::delta_i32(&v[range], out),
            Self::F64(v) => encode::plain_f64(&v[range], out),
            Self::Bool(v) => encode::plain_bools(&v[range], out),
        }
    }
}
