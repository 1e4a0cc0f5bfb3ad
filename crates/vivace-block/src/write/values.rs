//! The values of one column of one row group, nulls left out.

use hashbrown::{DefaultHashBuilder, HashTable};
use parquet::basic::Encoding;
use rustc_hash::FxHashMap;
use std::hash::BuildHasher;
use std::ops::Range;

use super::encode;
use crate::schema::Leaf;

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
    /// For each code the one that followed it last: columns repeat what stands side by side.
    followers: Vec<u32>,
    by_text: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// What a text of another dictionary is in this one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Renamed {
    /// One more than the code; 0 where it is not known yet.
    next: u32,
    /// Bytes of the text.
    len: u32,
}

impl Strings {
    /// Adds strings that lie side by side; each ends where the next starts. The last offset is the end of the last.
    pub(super) fn extend(&mut self, bytes: &[u8], offsets: &[u32]) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        assert!(u32::try_from(self.bytes.len()).is_ok(), "a row group is cut long before 4 GiB");
        let first = offsets.first().copied().unwrap_or_default();
        self.ends.extend(offsets.iter().skip(1).map(|offset| base as u32 + (offset - first)));
    }

    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(u32::try_from(self.bytes.len()).expect("a row group is cut long before 4 GiB"));
    }

    #[inline]
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
        let last = self.codes.last().copied();
        if let Some(last) = last {
            let follower = self.followers[last as usize];
            for guess in [follower, last] {
                if is_same(self.distinct.get(guess as usize), value) {
                    self.followers[last as usize] = guess;
                    self.codes.push(guess);
                    return;
                }
            }
        }
        let code = self.intern(value);
        if let Some(last) = last {
            self.followers[last as usize] = code;
        }
        self.codes.push(code);
    }

    /// The code of a text, without adding the text to the column.
    pub(super) fn intern(&mut self, value: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(value);
        let distinct = &mut self.distinct;
        let entry = self.by_text.entry(
            hash,
            |code| is_same(distinct.get(*code as usize), value),
            |code| self.hasher.hash_one(distinct.get(*code as usize)),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(entry) => *entry.get(),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let code = distinct.ends.len() as u32;
                entry.insert(code);
                distinct.push(value);
                self.followers.push(code);
                code
            }
        }
    }

    /// The code of a text that has another in another dictionary.
    #[inline]
    pub(super) fn rename<'a>(&mut self, code: u32, renamed: &mut [Renamed], text: impl FnOnce(u32) -> &'a [u8]) -> u32 {
        let known = &mut renamed[code as usize];
        if known.next == 0 {
            let text = text(code);
            *known = Renamed { next: self.intern(text) + 1, len: text.len() as u32 };
        }
        known.next - 1
    }

    /// Adds texts by their codes in another dictionary and returns how many bytes they have.
    pub(super) fn extend_renamed<'a>(&mut self, codes: &[u32], renamed: &mut [Renamed], text: impl Fn(u32) -> &'a [u8]) -> usize {
        let mut bytes = 0;
        self.codes.reserve(codes.len());
        for code in codes {
            let new = self.rename(*code, renamed, &text);
            bytes += renamed[*code as usize].len as usize;
            self.codes.push(new);
        }
        bytes
    }

    /// Whether a dictionary is smaller than the values one after the other, for the whole chunk: pages of both kinds in one
    /// chunk would make Tempo overlook values. Mostly unique texts compress as well without, and are read without loading
    /// a large dictionary first.
    fn pays(&self) -> bool {
        let unique = 2 * self.distinct.len() > self.codes.len();
        !(unique && self.distinct.bytes.len() > DICTIONARY_FREE_BYTES)
    }
}

/// Equality of short texts without a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    if a.len() != b.len() {
        return false;
    }
    match (a.first_chunk(), a.last_chunk(), b.first_chunk(), b.last_chunk()) {
        (Some(a_first), Some(a_last), Some(b_first), Some(b_last)) => {
            word(a_first) == word(b_first) && word(a_last) == word(b_last) && (a.len() <= 16 || a[8..a.len() - 8] == b[8..b.len() - 8])
        }
        _ => a.iter().zip(b).all(|(a, b)| a == b),
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

    /// Whether all values are one, of a type whose statistics say so.
    pub(super) fn is_constant(&self) -> bool {
        match self {
            Self::I32(v) => constant(v).is_some(),
            Self::Bool(v) => constant(v).is_some(),
            Self::Ids(_) | Self::Text(_) | Self::I64(_) | Self::F64(_) => false,
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Ids(v) => v.clear(),
            Self::Text(v) => {
                v.distinct.clear();
                v.codes.clear();
                v.followers.clear();
                v.by_text.clear();
            }
            Self::I64(v) => v.clear(),
            Self::I32(v) => v.clear(),
            Self::F64(v) => v.clear(),
            Self::Bool(v) => v.clear(),
        }
    }

    /// The distinct values, if the chunk is to have a dictionary.
    pub(super) fn dictionary(&self, leaf: Leaf, always: bool) -> Option<Dictionary> {
        match self {
            Self::Text(text) if !text.codes.is_empty() && (always || text.pays()) => {
                let (order, codes) = by_frequency(&text.codes, text.distinct.len());
                let mut plain = Vec::with_capacity(text.distinct.bytes.len() + 4 * text.distinct.len());
                encode::plain_bytes(order.iter().map(|code| text.distinct.get(*code as usize)), &mut plain);
                Some(Dictionary { len: order.len(), plain, number_bytes: None, codes })
            }
            Self::I64(values) if has_few_values(leaf) => Dictionary::of_numbers(values),
            // Tempo's filters take a negative number of 32 bits for a large one where it stands in a dictionary: no root would
            // be found by `nestedSetParent < 0`.
            _ => None,
        }
    }

    /// How [`Self::encode`] writes.
    pub(super) fn encoding(&self, leaf: Leaf, with_dictionary: bool) -> Encoding {
        match self {
            _ if with_dictionary => Encoding::RLE_DICTIONARY,
            Self::Ids(_) | Self::Text(_) => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            // Differences between neighbours are as large as the numbers; zstd finds what they share.
            Self::I64(_) if has_few_values(leaf) || is_scattered(leaf) => Encoding::PLAIN,
            Self::I64(_) | Self::I32(_) => Encoding::DELTA_BINARY_PACKED,
            Self::F64(_) | Self::Bool(_) => Encoding::PLAIN,
        }
    }

    /// Appends the values of one page. `encoding` is what [`Self::encoding`] says.
    pub(super) fn encode(&self, range: Range<usize>, dictionary: Option<&Dictionary>, encoding: Encoding, out: &mut Vec<u8>) {
        if let Some(dictionary) = dictionary {
            // Whole bytes cost some space and give zstd the repetitions of the codes to find.
            let width = encode::bit_width(dictionary.len as u64 - 1).max(1).next_multiple_of(8);
            out.push(width as u8);
            return encode::hybrid(&dictionary.codes[range], width, out);
        }
        match self {
            Self::Ids(v) => encode::delta_length_bytes(v.range(range), out),
            Self::Text(v) => encode::delta_length_bytes(v.codes[range].iter().map(|code| v.distinct.get(*code as usize)), out),
            Self::I64(v) if encoding == Encoding::PLAIN => encode::plain_i64(&v[range], out),
            Self::I64(v) => encode::delta_i64(&v[range], out),
            Self::I32(v) => encode::delta_i32(&v[range], out),
            Self::F64(v) => encode::plain_f64(&v[range], out),
            Self::Bool(v) => encode::plain_bools(&v[range], out),
        }
    }
}

/// What all values are.
pub(super) fn constant<T: Copy + PartialEq>(values: &[T]) -> Option<T> {
    values.first().copied().filter(|first| values.iter().all(|value| value == first))
}

/// Numbers of 64 bits that come again and again.
fn has_few_values(leaf: Leaf) -> bool {
    let attrs = [Leaf::RESOURCE_ATTRS, Leaf::SCOPE_ATTRS, Leaf::SPAN_ATTRS, Leaf::EVENT_ATTRS, Leaf::LINK_ATTRS];
    attrs.iter().any(|attrs| attrs.int == leaf) || [Leaf::SPAN_KIND, Leaf::STATUS_CODE, Leaf::HTTP_STATUS_CODE].contains(&leaf)
}

/// Numbers of which a neighbour says little but the highest bytes.
fn is_scattered(leaf: Leaf) -> bool {
    [Leaf::SPAN_START, Leaf::EVENT_TIME_SINCE_START].contains(&leaf)
}

/// The distinct values of a chunk: those that come often first, else in the order of their first appearance. What a trace
/// refers to lies close together then, and the high bytes of most codes are zero.
#[derive(Debug)]
pub(super) struct Dictionary {
    pub(super) len: usize,
    /// The entries in `PLAIN` encoding.
    pub(super) plain: Vec<u8>,
    /// Bytes of an entry; none: each stands behind its length.
    number_bytes: Option<usize>,
    codes: Vec<u32>,
}

impl Dictionary {
    /// None when most numbers come once.
    fn of_numbers(values: &[i64]) -> Option<Self> {
        /// Numbers below it are found without hashing.
        const SMALL: usize = 2048;
        let small_number = |value: i64| usize::try_from(value).unwrap_or(SMALL);
        let mut by_value: FxHashMap<i64, u32> = FxHashMap::default();
        // One more than the code of each small number.
        let mut small = [0u32; SMALL];
        let mut distinct = Vec::new();
        let mut codes = Vec::with_capacity(values.len());
        for value in values {
            let next = distinct.len() as u32;
            let mut add = || {
                distinct.push(*value);
                next
            };
            codes.push(match small.get_mut(small_number(*value)) {
                Some(known @ 0) => {
                    *known = next + 1;
                    add()
                }
                Some(known) => *known - 1,
                None => *by_value.entry(*value).or_insert_with(add),
            });
        }
        let len = distinct.len();
        let pays = 2 * len <= values.len() || len * size_of::<i64>() <= DICTIONARY_FREE_BYTES;
        if len == 0 || !pays {
            return None;
        }
        let (order, codes) = by_frequency(&codes, len);
        let plain = order.iter().flat_map(|code| distinct[*code as usize].to_le_bytes()).collect();
        Some(Self { len, plain, number_bytes: Some(size_of::<i64>()), codes })
    }

    /// Cuts the entries into parts of about so many bytes; each is its bytes and how many entries are in them.
    pub(super) fn cut(&self, part_bytes: usize) -> Vec<(Range<usize>, u32)> {
        let mut parts = Vec::new();
        let (mut start, mut end, mut entries) = (0, 0, 0);
        while end < self.plain.len() {
            end += self.number_bytes.unwrap_or_else(|| {
                let len = self.plain[end..].first_chunk().map_or(0, |len| u32::from_le_bytes(*len));
                4 + len as usize
            });
            entries += 1;
            if end - start >= part_bytes || end == self.plain.len() {
                parts.push((start..end, entries));
                (start, entries) = (end, 0);
            }
        }
        parts
    }
}

/// The codes in their new order, and the given ones renamed after it.
fn by_frequency(codes: &[u32], len: usize) -> (Vec<u32>, Vec<u32>) {
    let mut count = vec![0u32; len];
    codes.iter().for_each(|code| count[*code as usize] += 1);
    // Powers of two are order enough, and need no sorting.
    let class = |code: usize| count[code].leading_zeros() as usize;
    let mut starts = [0u32; 34];
    (0..len).for_each(|code| starts[class(code) + 1] += 1);
    (1..starts.len()).for_each(|class| starts[class] += starts[class - 1]);
    let (mut order, mut renamed) = (vec![0; len], vec![0; len]);
    for code in 0..len {
        let at = &mut starts[class(code)];
        order[*at as usize] = code as u32;
        renamed[code] = *at;
        *at += 1;
    }
    (order, codes.iter().map(|code| renamed[*code as usize]).collect())
}
