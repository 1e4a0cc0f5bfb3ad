//! Columns as they are once they are decoded, and the decoder that makes them of pages.
//!
//! Texts stay codes of a dictionary where the file has one, so that a condition is decided once per distinct text.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use memchr::memchr_iter;

use super::encoding::{self, Strings};
use super::fault::Fault;
use super::footer::{Codec, Leaf, Physical};
use super::format::encoding::{
    BIT_PACKED, BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, PLAIN, PLAIN_DICTIONARY, RLE,
    RLE_DICTIONARY,
};
use super::page::{Decompressor, PageHeader, PageKind};

/// A decoded column of some rows.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) levels: Rc<Levels>,
    pub(crate) values: Values,
}

/// Repetition and definition levels, one pair per entry.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Empty where the column stands in no list.
    pub(crate) rep: Vec<u8>,
    /// Empty where the column is required and stands in no list.
    pub(crate) def: Vec<u8>,
}

/// The values that are there; nulls and empty lists have none.
#[derive(Debug)]
pub(crate) enum Values {
    Codes { codes: Vec<u32>, dictionary: Rc<Dictionary> },
    Strings(Strings),
    I64(Vec<i64>),
    I32(Vec<i32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
}

/// The distinct strings of a column of a row group.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    pub(crate) strings: Strings,
    len: usize,
    shared: OnceCell<Vec<OnceCell<Arc<str>>>>,
}

impl Dictionary {
    pub(crate) fn new(strings: Strings) -> Self {
        Self { len: strings.len(), strings, shared: OnceCell::new() }
    }

    /// Stands for one of which nothing but the number of its entries is known.
    pub(crate) fn unread(len: usize) -> Self {
        Self { strings: Strings::default(), len, shared: OnceCell::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One allocation per distinct string, made when it is first asked for. Invalid UTF-8 becomes U+FFFD.
    pub(crate) fn shared(&self, code: u32) -> Arc<str> {
        let cells = self.shared.get_or_init(|| vec![OnceCell::new(); self.len()]);
        let text = || Arc::from(String::from_utf8_lossy(self.strings.get(code as usize)).as_ref());
        cells.get(code as usize).map_or_else(text, |cell| Arc::clone(cell.get_or_init(text)))
    }

    /// The codes of a string. A dictionary should have one; some writers repeat themselves.
    pub(crate) fn codes_of<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        self.strings.iter().zip(0u32..).filter(move |(entry, _)| *entry == text).map(|(_, code)| code)
    }
}

impl Values {
    /// One number or truth value, again and again. None for other columns.
    pub(crate) fn constant(physical: Physical, value: i64, count: usize) -> Option<Self> {
        match physical {
            Physical::Boolean => Some(Self::Bool(vec![value != 0; count])),
            Physical::Int32 => Some(Self::I32(vec![i32::try_from(value).ok()?; count])),
            Physical::Int64 => Some(Self::I64(vec![value; count])),
            Physical::Double | Physical::ByteArray | Physical::Other(_) => None,
        }
    }

    fn new(physical: Physical, dictionary: Option<&AnyDictionary>) -> Result<Self, Fault> {
        Ok(match (physical, dictionary) {
            (Physical::ByteArray, Some(AnyDictionary::Strings(dictionary))) => {
                Self::Codes { codes: Vec::new(), dictionary: Rc::clone(dictionary) }
            }
            (Physical::ByteArray, _) => Self::Strings(Strings::default()),
            (Physical::Int64, _) => Self::I64(Vec::new()),
            (Physical::Int32, _) => Self::I32(Vec::new()),
            (Physical::Double, _) => Self::F64(Vec::new()),
            (Physical::Boolean, _) => Self::Bool(Vec::new()),
            (Physical::Other(number), _) => return Err(Fault::Unsupported(format!("physical type {number}"))),
        })
    }

    /// As empty as a new one, for the same column.
    fn like(&self) -> Self {
        match self {
            Self::Codes { dictionary, .. } => Self::Codes { codes: Vec::new(), dictionary: Rc::clone(dictionary) },
            Self::Strings(_) => Self::Strings(Strings::default()),
            Self::I64(_) => Self::I64(Vec::new()),
            Self::I32(_) => Self::I32(Vec::new()),
            Self::F64(_) => Self::F64(Vec::new()),
            Self::Bool(_) => Self::Bool(Vec::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Codes { codes, .. } => codes.len(),
            Self::Strings(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// Bytes of a text column's value; empty for other columns.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        match self {
            Self::Codes { codes, dictionary } => codes.get(index).map_or(&[], |code| dictionary.strings.get(*code as usize)),
            Self::Strings(strings) => strings.get(index),
            _ => &[],
        }
    }

    pub(crate) fn text(&self, index: usize) -> Arc<str> {
        match self {
            Self::Codes { codes, dictionary } if index < codes.len() => dictionary.shared(codes[index]),
            _ => Arc::from(String::from_utf8_lossy(self.bytes(index)).as_ref()),
        }
    }

    pub(crate) fn i64(&self, index: usize) -> i64 {
        match self {
            Self::I64(v) => v.get(index).copied().unwrap_or_default(),
            Self::I32(v) => v.get(index).copied().map(i64::from).unwrap_or_default(),
            _ => 0,
        }
    }

    pub(crate) fn i32(&self, index: usize) -> i32 {
        match self {
            Self::I32(v) => v.get(index).copied().unwrap_or_default(),
            _ => 0,
        }
    }

    pub(crate) fn f64(&self, index: usize) -> f64 {
        match self {
            Self::F64(v) => v.get(index).copied().unwrap_or_default(),
            _ => 0.0,
        }
    }

    pub(crate) fn bool(&self, index: usize) -> bool {
        match self {
            Self::Bool(v) => v.get(index).copied().unwrap_or_default(),
            _ => false,
        }
    }

    /// Codes become the strings they stand for, where a chunk has dictionary pages and then plain ones.
    fn spell_out(&mut self) -> Result<&mut Strings, Fault> {
        if let Self::Codes { codes, dictionary } = self {
            let mut strings = Strings::default();
            for code in codes.iter() {
                strings.push_repeated(dictionary.strings.get(*code as usize))?;
            }
            *self = Self::Strings(strings);
        }
        match self {
            Self::Strings(strings) => Ok(strings),
            _ => Err(Fault::corrupt("a page of strings in a column of numbers")),
        }
    }

    fn extend(&mut self, other: &Self, range: Range<usize>) -> Result<(), Fault> {
        fn copy<T: Copy>(to: &mut Vec<T>, from: &[T], range: Range<usize>) {
            to.extend_from_slice(from.get(range).unwrap_or_default());
        }
        match (&mut *self, other) {
            (Self::Codes { codes, .. }, Self::Codes { codes: more, .. }) => copy(codes, more, range),
            (Self::Strings(to), Self::Strings(from)) => to.extend(from, range)?,
            (Self::I64(to), Self::I64(from)) => copy(to, from, range),
            (Self::I32(to), Self::I32(from)) => copy(to, from, range),
            (Self::F64(to), Self::F64(from)) => copy(to, from, range),
            (Self::Bool(to), Self::Bool(from)) => copy(to, from, range),
            // One of them met a plain page.
            _ => {
                let to = self.spell_out()?;
                for index in range {
                    to.push_repeated(other.bytes(index))?;
                }
            }
        }
        Ok(())
    }
}

/// A dictionary of any type. Numbers are looked up while decoding.
#[derive(Debug, Clone)]
pub(crate) enum AnyDictionary {
    Strings(Rc<Dictionary>),
    I64(Rc<Vec<i64>>),
    I32(Rc<Vec<i32>>),
    F64(Rc<Vec<f64>>),
}

impl AnyDictionary {
    /// Decodes the dictionary page that `bytes` starts with.
    pub(crate) fn decode(bytes: &[u8], leaf: &Leaf, codec: Codec, zip: &mut Decompressor) -> Result<Self, Fault> {
        let page = PageHeader::parse(bytes)?;
        if page.kind != PageKind::Dictionary {
            return Err(Fault::corrupt("there is no dictionary page where one should be"));
        }
        if !matches!(page.encoding, PLAIN | PLAIN_DICTIONARY) {
            return Err(Fault::Unsupported(format!("a dictionary in encoding {}", page.encoding)));
        }
        let body = zip.decompress(codec, page.body(bytes)?, page.size)?;
        let count = page.entries;
        Ok(match leaf.physical {
            Physical::ByteArray => {
                let mut strings = Strings::default();
                strings.plain(body, count)?;
                Self::Strings(Rc::new(Dictionary::new(strings)))
            }
            Physical::Int64 => Self::I64(Rc::new(numbers(body, count, i64::from_le_bytes)?)),
            Physical::Int32 => Self::I32(Rc::new(numbers(body, count, i32::from_le_bytes)?)),
            Physical::Double => Self::F64(Rc::new(numbers(body, count, f64::from_le_bytes)?)),
            Physical::Boolean | Physical::Other(_) => return Err(Fault::Unsupported(format!("a dictionary of {:?}", leaf.physical))),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Strings(d) => d.len(),
            Self::I64(d) => d.len(),
            Self::I32(d) => d.len(),
            Self::F64(d) => d.len(),
        }
    }
}

fn numbers<T, const W: usize>(bytes: &[u8], count: usize, from: fn([u8; W]) -> T) -> Result<Vec<T>, Fault> {
    let mut out = Vec::new();
    encoding::plain(bytes, count, from, &mut out)?;
    Ok(out)
}

/// Levels and values of consecutive rows, growing page by page.
pub(crate) struct Decoder<'a> {
    leaf: &'a Leaf,
    codec: Codec,
    dictionary: Option<AnyDictionary>,
    /// Whether repetition levels are wanted; without them, rows cannot be told apart.
    with_levels: bool,
    levels: Levels,
    values: Values,
    entries: usize,
    /// Pages may not have more together.
    entries_max: usize,
    scratch: Vec<u32>,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(leaf: &'a Leaf, codec: Codec, dictionary: Option<AnyDictionary>, with_levels: bool) -> Result<Self, Fault> {
        let values = Values::new(leaf.physical, dictionary.as_ref())?;
        Ok(Self {
            leaf,
            codec,
            dictionary,
            with_levels,
            levels: Levels::default(),
            values,
            entries: 0,
            entries_max: usize::MAX,
            scratch: Vec::new(),
        })
    }

    /// Makes pages that claim more entries than this together an error before they are decoded.
    pub(crate) fn at_most(self, entries: usize) -> Self {
        Self { entries_max: entries, ..self }
    }

    /// Entries so far.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Rows so far; only with levels.
    pub(crate) fn rows(&self) -> usize {
        if self.leaf.max_rep == 0 { self.entries } else { memchr_iter(0, &self.levels.rep).count() }
    }

    pub(crate) fn finish(self) -> Column {
        Column { levels: Rc::new(self.levels), values: self.values }
    }

    /// Decodes the page that `bytes` starts with and returns its length.
    pub(crate) fn page(&mut self, bytes: &[u8], zip: &mut Decompressor) -> Result<usize, Fault> {
        let page = PageHeader::parse(bytes)?;
        let body = page.body(bytes)?;
        let len = page.len + page.stored;
        if matches!(page.kind, PageKind::V1 | PageKind::V2 { .. }) && page.entries > self.entries_max - self.entries {
            return Err(Fault::corrupt(format!("a page claims {} entries, {} are left", page.entries, self.entries_max - self.entries)));
        }
        match page.kind {
            PageKind::Dictionary | PageKind::Other => {}
            PageKind::V1 => {
                let mut rest = zip.decompress(self.codec, body, page.size)?;
                let mut section = |max: u8| -> Result<&[u8], Fault> {
                    if max == 0 {
                        return Ok(&[]);
                    }
                    let cut =
                        rest.split_first_chunk::<4>().and_then(|(len, tail)| tail.split_at_checked(u32::from_le_bytes(*len) as usize));
                    let (levels, tail) = cut.ok_or_else(|| Fault::corrupt("the levels of a page are longer than the page"))?;
                    rest = tail;
                    Ok(levels)
                };
                let (rep, def) = (section(self.leaf.max_rep)?, section(self.leaf.max_def)?);
                self.data(&page, rep, def, rest)?;
            }
            PageKind::V2 { rep_len, def_len, compressed } => {
                let (levels, stored) = body.split_at(rep_len + def_len);
                let (rep, def) = levels.split_at(rep_len);
                let codec = if compressed { self.codec } else { Codec::Uncompressed };
                // An empty section may still be a compressed nothing.
                let size = page.size - rep_len - def_len;
                let values = if size == 0 { &[] } else { zip.decompress(codec, stored, size)? };
                self.data(&page, rep, def, values)?;
            }
        }
        Ok(len)
    }

    fn data(&mut self, page: &PageHeader, rep: &[u8], def: &[u8], values: &[u8]) -> Result<(), Fault> {
        let width = |max: u8| (8 - max.leading_zeros()) as usize;
        let (max_rep, max_def) = (self.leaf.max_rep, self.leaf.max_def);
        if max_rep > 0 && self.with_levels {
            encoding::hybrid(rep, width(max_rep), page.entries, &mut self.levels.rep)?;
        }
        let mut count = page.entries;
        if max_def > 0 {
            let first = self.levels.def.len();
            encoding::hybrid(def, width(max_def), page.entries, &mut self.levels.def)?;
            let here = &self.levels.def[first..];
            if here.iter().copied().max().is_some_and(|def| def > max_def) {
                return Err(Fault::corrupt(format!("a definition level above {max_def}")));
            }
            count = memchr_iter(max_def, here).count();
            if !self.with_levels {
                self.levels.def.clear();
            }
        }
        self.entries += page.entries;
        self.values(page.encoding, values, count)
    }

    fn values(&mut self, encoding: i64, bytes: &[u8], count: usize) -> Result<(), Fault> {
        let unsupported = || Err(Fault::Unsupported(format!("encoding {} of {:?}", encoding_name(encoding), self.leaf.physical)));
        if count == 0 {
            return Ok(());
        }
        if matches!(encoding, PLAIN_DICTIONARY | RLE_DICTIONARY) {
            return self.looked_up(bytes, count);
        }
        match (&mut self.values, encoding) {
            (Values::Codes { .. } | Values::Strings(_), PLAIN | DELTA_LENGTH_BYTE_ARRAY | DELTA_BYTE_ARRAY) => {
                let strings = self.values.spell_out()?;
                match encoding {
                    PLAIN => strings.plain(bytes, count),
                    DELTA_LENGTH_BYTE_ARRAY => strings.delta_length(bytes, count),
                    _ => strings.delta_shared(bytes, count),
                }
            }
            (Values::I64(out), PLAIN) => encoding::plain(bytes, count, i64::from_le_bytes, out),
            (Values::I64(out), DELTA_BINARY_PACKED) => encoding::delta(bytes, count, out).map(|_| ()),
            (Values::I32(out), PLAIN) => encoding::plain(bytes, count, i32::from_le_bytes, out),
            (Values::I32(out), DELTA_BINARY_PACKED) => {
                let mut wide = Vec::with_capacity(count.min(1 << 16));
                encoding::delta(bytes, count, &mut wide)?;
                out.extend(wide.into_iter().map(|value| value as i32));
                Ok(())
            }
            (Values::F64(out), PLAIN) => encoding::plain(bytes, count, f64::from_le_bytes, out),
            (Values::Bool(out), PLAIN) => encoding::plain_bool(bytes, count, out),
            (Values::Bool(out), RLE) => {
                let rest = bytes.get(4..).ok_or_else(|| Fault::corrupt("a page of booleans without its length"))?;
                encoding::hybrid(rest, 1, count, out)
            }
            _ => unsupported(),
        }
    }

    fn looked_up(&mut self, bytes: &[u8], count: usize) -> Result<(), Fault> {
        let Some(dictionary) = &self.dictionary else { return Err(Fault::corrupt("dictionary codes without a dictionary")) };
        let (width, packed) = bytes.split_first().ok_or_else(|| Fault::corrupt("a page of dictionary codes is empty"))?;
        let in_place = matches!(self.values, Values::Codes { .. });
        let mut codes = match &mut self.values {
            Values::Codes { codes, .. } => std::mem::take(codes),
            _ => std::mem::take(&mut self.scratch),
        };
        let first = if in_place { codes.len() } else { 0 };
        codes.truncate(if in_place { codes.len() } else { 0 });
        encoding::hybrid(packed, usize::from(*width), count, &mut codes)?;
        let largest = codes[first..].iter().copied().max().unwrap_or_default();
        if largest as usize >= dictionary.len() {
            return Err(Fault::corrupt(format!("dictionary code {largest}, the dictionary has {} entries", dictionary.len())));
        }
        let at = |code: &u32| *code as usize;
        match (&mut self.values, dictionary) {
            (Values::Codes { codes: own, .. }, _) => {
                *own = codes;
                return Ok(());
            }
            (Values::Strings(out), AnyDictionary::Strings(d)) => {
                for code in &codes {
                    out.push_repeated(d.strings.get(at(code)))?;
                }
            }
            (Values::I64(out), AnyDictionary::I64(d)) => out.extend(codes.iter().map(|code| d[at(code)])),
            (Values::I32(out), AnyDictionary::I32(d)) => out.extend(codes.iter().map(|code| d[at(code)])),
            (Values::F64(out), AnyDictionary::F64(d)) => out.extend(codes.iter().map(|code| d[at(code)])),
            _ => return Err(Fault::corrupt("a dictionary of another type than its column")),
        }
        self.scratch = codes;
        Ok(())
    }
}

fn encoding_name(number: i64) -> String {
    match number {
        BIT_PACKED => "BIT_PACKED".to_owned(),
        BYTE_STREAM_SPLIT => "BYTE_STREAM_SPLIT".to_owned(),
        _ => number.to_string(),
    }
}

impl Column {
    /// An empty column to collect rows of `self` in.
    fn like(&self) -> (Levels, Values) {
        (Levels::default(), self.values.like())
    }

    /// The given rows, ascending. `max_rep` and `max_def` are the column's.
    pub(crate) fn select(&self, rows: impl Iterator<Item = usize>, leaf: &Leaf) -> Result<Self, Fault> {
        let (mut levels, mut values) = self.like();
        let mut cursor = Cursor { column: self, leaf, row: 0, entry: 0, value: 0 };
        for row in rows {
            cursor.skip_to(row);
            let (entry, value) = (cursor.entry, cursor.value);
            cursor.skip_to(row + 1);
            levels.rep.extend_from_slice(self.levels.rep.get(entry..cursor.entry).unwrap_or_default());
            levels.def.extend_from_slice(self.levels.def.get(entry..cursor.entry).unwrap_or_default());
            values.extend(&self.values, value..cursor.value)?;
        }
        Ok(Self { levels: Rc::new(levels), values })
    }

    /// Appends another part of the same column.
    pub(crate) fn append(&mut self, other: &Self) -> Result<(), Fault> {
        let levels = Rc::make_mut(&mut self.levels);
        levels.rep.extend_from_slice(&other.levels.rep);
        levels.def.extend_from_slice(&other.levels.def);
        self.values.extend(&other.values, 0..other.values.len())
    }
}

/// Walks over rows.
struct Cursor<'a> {
    column: &'a Column,
    leaf: &'a Leaf,
    row: usize,
    entry: usize,
    value: usize,
}

impl Cursor<'_> {
    /// To the first entry of `row`, or to the end.
    fn skip_to(&mut self, row: usize) {
        let Levels { rep, def } = &*self.column.levels;
        let ahead = row.saturating_sub(self.row);
        if self.leaf.max_rep == 0 && self.leaf.max_def == 0 {
            self.entry = (self.entry + ahead).min(self.column.values.len());
            self.value = self.entry;
        } else {
            let first = self.entry;
            self.entry = match (rep.get(first + 1..), ahead) {
                (_, 0) => first,
                // Without lists every entry is a row.
                _ if self.leaf.max_rep == 0 => (first + ahead).min(def.len()),
                (Some(rest), _) => memchr_iter(0, rest).nth(ahead - 1).map_or(def.len(), |next| first + 1 + next),
                (None, _) => def.len(),
            };
            self.value += memchr_iter(self.leaf.max_def, &def[first..self.entry]).count();
        }
        self.row = row;
    }
}
