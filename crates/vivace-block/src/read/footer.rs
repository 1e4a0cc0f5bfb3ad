//! The footer and the offset index: what a file says of its columns, row groups and pages.
//!
//! Whatever it claims is held against the bytes there are before anything is reserved for it.

use std::ops::Range;

use super::fault::Fault;
use super::format::{codec, field, physical_type, repetition};
use super::thrift::{Kind, Reader};

/// Schemas have 103 or some more leaves; more than this is no block.
const MAX_SCHEMA_ELEMENTS: usize = 4096;

const MAX_GROUPS: usize = 64;

/// A row group of 100 MB has some ten thousand rows.
const MAX_ROWS: usize = 1 << 24;

/// Entries of a column that need no bytes to speak for them: one run says that there are millions. A trace of 75 MB that
/// is one short attribute over and over has as many.
const FREE_ENTRIES: u64 = 1 << 23;

/// The same for all columns of a row group together.
const FREE_GROUP_ENTRIES: u64 = 1 << 26;

/// Beyond that, every byte of a row group may stand for so many entries. Blocks have 1 or 2, since spans have ids, which no
/// codec makes smaller; 40 is possible when every span has the same hundred attributes.
const ENTRIES_PER_BYTE: u64 = 64;

/// Levels are kept in one byte each.
const MAX_LEVEL: u8 = 16;

/// What `data.parquet` says about itself.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) groups: Vec<RowGroup>,
    /// What wrote the file, as it says.
    pub(crate) created_by: String,
}

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// Names joined by dots, without the `list.element` that vParquet4's lists have in between.
    pub(crate) path: String,
    pub(crate) physical: Physical,
    /// How many lists it stands in.
    pub(crate) max_rep: u8,
    /// One more than `max_rep` where it is optional.
    pub(crate) max_def: u8,
    /// The innermost list it stands in. Required columns of one list have the same levels.
    pub(crate) list: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    Int32,
    Int64,
    Double,
    ByteArray,
    /// Its number; an error once it is read.
    Other(i64),
}

#[derive(Debug)]
pub(crate) struct RowGroup {
    pub(crate) rows: usize,
    /// Of all its columns together, as stored.
    pub(crate) bytes: u64,
    /// One per leaf, in the order of the leaves.
    pub(crate) chunks: Vec<Chunk>,
}

/// One column of one row group.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) codec: Codec,
    /// Entries, nulls included.
    pub(crate) entries: usize,
    /// Where the dictionary page is; empty without one.
    pub(crate) dictionary: Range<u64>,
    /// Where the data pages are.
    pub(crate) data: Range<u64>,
    pub(crate) offset_index: Option<Range<u64>>,
    /// Entries without a value, where the statistics say so.
    pub(crate) nulls: Option<usize>,
    /// Smallest and largest value where they are 16 bytes long: trace ids.
    pub(crate) id_bounds: Option<([u8; 16], [u8; 16])>,
    /// The number or truth value that all values are, where the statistics say so.
    pub(crate) constant: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Uncompressed,
    Snappy,
    Zstd,
    /// Its number; an error once it is read.
    Other(i64),
}

/// Parses the thrift part of the footer. `data_end` is where it starts in the file.
pub(crate) fn parse(bytes: &[u8], data_end: u64) -> Result<Footer, Fault> {
    let mut reader = Reader::new(bytes);
    let mut leaves = Vec::new();
    let mut groups = Vec::new();
    let mut created_by = String::new();
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match id {
            field::file_metadata::SCHEMA => leaves = schema(&mut reader, kind)?,
            field::file_metadata::ROW_GROUPS => {
                let count = reader.structs(kind)?;
                groups = (0..count).map(|_| row_group(&mut reader, leaves.len(), data_end)).collect::<Result<_, _>>()?;
            }
            field::file_metadata::CREATED_BY => created_by = String::from_utf8_lossy(reader.binary(kind)?).into_owned(),
            _ => reader.skip(kind)?,
        }
    }
    if leaves.is_empty() {
        return Err(Fault::corrupt("the footer has no schema"));
    }
    // Fields may come in any order, and twice.
    if groups.iter().any(|group: &RowGroup| group.chunks.len() != leaves.len()) {
        return Err(Fault::corrupt("the row groups stand before the schema"));
    }
    Ok(Footer { leaves, groups, created_by })
}

/// A group of the schema whose children are being read.
struct Group {
    path: Vec<String>,
    rep: u8,
    def: u8,
    list: usize,
    /// Still to come.
    children: usize,
}

struct Element {
    name: String,
    physical: Option<Physical>,
    repetition: i64,
    children: usize,
}

fn schema(reader: &mut Reader<'_>, kind: Kind) -> Result<Vec<Leaf>, Fault> {
    let count = reader.structs(kind)?;
    if count > MAX_SCHEMA_ELEMENTS {
        return Err(Fault::corrupt(format!("the schema has {count} elements, more than {MAX_SCHEMA_ELEMENTS}")));
    }
    let mut leaves = Vec::new();
    let mut open: Vec<Group> = Vec::new();
    for index in 0..count {
        let element = schema_element(reader)?;
        while open.last().is_some_and(|group| group.children == 0) {
            open.pop();
        }
        if index == 0 {
            open.push(Group { path: Vec::new(), rep: 0, def: 0, list: 0, children: element.children });
            continue;
        }
        let Some(parent) = open.last_mut() else { return Err(Fault::corrupt("the schema has more than one root")) };
        parent.children -= 1;
        let mut path = parent.path.clone();
        path.push(element.name);
        let repeated = element.repetition == repetition::REPEATED;
        let (rep, def) = (parent.rep + u8::from(repeated), parent.def + u8::from(element.repetition != repetition::REQUIRED));
        let list = if repeated { index } else { parent.list };
        if def > MAX_LEVEL {
            return Err(Fault::corrupt(format!("the schema is nested more than {MAX_LEVEL} lists deep")));
        }
        match element.physical {
            Some(physical) if element.children == 0 => {
                leaves.push(Leaf { path: normal_path(&path), physical, max_rep: rep, max_def: def, list });
            }
            _ if open.len() > MAX_GROUPS => return Err(Fault::corrupt(format!("the schema is nested more than {MAX_GROUPS} groups deep"))),
            _ => open.push(Group { path, rep, def, list, children: element.children }),
        }
    }
    if open.iter().any(|group| group.children > 0) {
        return Err(Fault::corrupt("the schema ends inside a group"));
    }
    Ok(leaves)
}

fn schema_element(reader: &mut Reader<'_>) -> Result<Element, Fault> {
    let mut element = Element { name: String::new(), physical: None, repetition: repetition::REQUIRED, children: 0 };
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match id {
            field::schema_element::TYPE => {
                element.physical = Some(match reader.int(kind)? {
                    physical_type::BOOLEAN => Physical::Boolean,
                    physical_type::INT32 => Physical::Int32,
                    physical_type::INT64 => Physical::Int64,
                    physical_type::DOUBLE => Physical::Double,
                    physical_type::BYTE_ARRAY => Physical::ByteArray,
                    other => Physical::Other(other),
                });
            }
            field::schema_element::REPETITION_TYPE => element.repetition = reader.int(kind)?,
            field::schema_element::NAME => element.name = String::from_utf8_lossy(reader.binary(kind)?).into_owned(),
            field::schema_element::NUM_CHILDREN => element.children = reader.size(kind)?,
            _ => reader.skip(kind)?,
        }
    }
    Ok(element)
}

fn normal_path(path: &[String]) -> String {
    let mut names: Vec<&str> = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        names.push(first);
        rest = match tail {
            [list, element, tail @ ..] if list == "list" && element == "element" => tail,
            tail => tail,
        };
    }
    names.join(".")
}

fn row_group(reader: &mut Reader<'_>, leaves: usize, data_end: u64) -> Result<RowGroup, Fault> {
    let mut group = RowGroup { rows: 0, bytes: 0, chunks: Vec::new() };
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match id {
            field::row_group::COLUMNS => {
                let count = reader.structs(kind)?;
                if count != leaves {
                    return Err(Fault::corrupt(format!("a row group has {count} columns, the schema {leaves}")));
                }
                group.chunks = (0..count).map(|_| column_chunk(reader, data_end)).collect::<Result<_, _>>()?;
            }
            field::row_group::NUM_ROWS => group.rows = reader.size(kind)?,
            _ => reader.skip(kind)?,
        }
    }
    if group.chunks.len() != leaves {
        return Err(Fault::corrupt("a row group has no columns"));
    }
    if group.rows > MAX_ROWS {
        return Err(Fault::corrupt(format!("a row group claims {} rows, more than {MAX_ROWS}", group.rows)));
    }
    let bytes = group.chunks.iter().map(|chunk| chunk.data.end - chunk.dictionary.start).fold(0, u64::saturating_add);
    group.bytes = bytes.min(data_end);
    let possible = group.bytes.saturating_mul(ENTRIES_PER_BYTE);
    let mut all = 0u64;
    for chunk in &group.chunks {
        let entries = chunk.entries as u64;
        all = all.saturating_add(entries);
        if entries > possible.max(FREE_ENTRIES) || all > possible.max(FREE_GROUP_ENTRIES) {
            return Err(Fault::corrupt(format!(
                "a row group of {} bytes claims {entries} entries in one column, {all} with those before it",
                group.bytes
            )));
        }
    }
    // Every row has one trace id, so no row group has more rows than entries in its first column.
    if group.chunks.first().is_some_and(|chunk| chunk.entries < group.rows) {
        return Err(Fault::corrupt(format!("a row group claims {} rows, more than its first column has entries", group.rows)));
    }
    Ok(group)
}

fn column_chunk(reader: &mut Reader<'_>, data_end: u64) -> Result<Chunk, Fault> {
    let mut chunk = None;
    let mut index = (None, None);
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match id {
            field::column_chunk::FILE_PATH => return Err(Fault::Unsupported("a column in another file".to_owned())),
            field::column_chunk::META_DATA if kind == Kind::STRUCT => chunk = Some(column_metadata(reader, data_end)?),
            field::column_chunk::OFFSET_INDEX_OFFSET => index.0 = Some(reader.unsigned(kind)?),
            field::column_chunk::OFFSET_INDEX_LENGTH => index.1 = Some(reader.unsigned(kind)?),
            _ => reader.skip(kind)?,
        }
    }
    let mut chunk = chunk.ok_or_else(|| Fault::corrupt("a column of a row group has no metadata"))?;
    if let (Some(start), Some(len)) = index
        && len > 0
    {
        let range = start..start.saturating_add(len);
        if range.end > data_end {
            return Err(Fault::corrupt(format!("an offset index lies at {}..{}, beyond the end at {data_end}", range.start, range.end)));
        }
        chunk.offset_index = Some(range);
    }
    Ok(chunk)
}

fn column_metadata(reader: &mut Reader<'_>, data_end: u64) -> Result<Chunk, Fault> {
    let mut chunk = Chunk {
        codec: Codec::Uncompressed,
        entries: 0,
        dictionary: 0..0,
        data: 0..0,
        offset_index: None,
        nulls: None,
        id_bounds: None,
        constant: None,
    };
    let (mut len, mut data, mut dictionary) = (0, 0, None);
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match id {
            field::column_metadata::CODEC => {
                chunk.codec = match reader.int(kind)? {
                    codec::UNCOMPRESSED => Codec::Uncompressed,
                    codec::SNAPPY => Codec::Snappy,
                    codec::ZSTD => Codec::Zstd,
                    other => Codec::Other(other),
                };
            }
            field::column_metadata::NUM_VALUES => chunk.entries = reader.size(kind)?,
            field::column_metadata::TOTAL_COMPRESSED_SIZE => len = reader.unsigned(kind)?,
            field::column_metadata::DATA_PAGE_OFFSET => data = reader.unsigned(kind)?,
            field::column_metadata::DICTIONARY_PAGE_OFFSET => dictionary = Some(reader.unsigned(kind)?),
            field::column_metadata::STATISTICS if kind == Kind::STRUCT => statistics(reader, &mut chunk)?,
            _ => reader.skip(kind)?,
        }
    }
    let start = dictionary.filter(|d| *d > 0 && *d < data).unwrap_or(data);
    let end = start.saturating_add(len);
    if end > data_end || data > end {
        return Err(Fault::corrupt(format!("a column lies at {start}..{end}, beyond the end of the data at {data_end}")));
    }
    chunk.dictionary = start..data;
    chunk.data = data..end;
    Ok(chunk)
}

fn statistics(reader: &mut Reader<'_>, chunk: &mut Chunk) -> Result<(), Fault> {
    let (mut min, mut max): (&[u8], &[u8]) = (&[], &[]);
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match id {
            field::statistics::NULL_COUNT => chunk.nulls = Some(reader.size(kind)?),
            field::statistics::MAX_VALUE => max = reader.binary(kind)?,
            field::statistics::MIN_VALUE => min = reader.binary(kind)?,
            _ => reader.skip(kind)?,
        }
    }
    chunk.id_bounds = min.try_into().ok().zip(max.try_into().ok());
    if min == max {
        chunk.constant = match *min {
            [bit] => Some(i64::from(bit)),
            [a, b, c, d] => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
            [a, b, c, d, e, f, g, h] => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        };
    }
    Ok(())
}

/// Where one data page is, header included, and the first row in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageLocation {
    pub(crate) bytes: Range<u64>,
    pub(crate) first_row: usize,
}

/// Parses an offset index: the pages of `chunk` in order.
pub(crate) fn offset_index(bytes: &[u8], chunk: &Chunk) -> Result<Vec<PageLocation>, Fault> {
    let mut reader = Reader::new(bytes);
    let mut pages: Vec<PageLocation> = Vec::new();
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        if id != field::offset_index::PAGE_LOCATIONS {
            reader.skip(kind)?;
            continue;
        }
        for _ in 0..reader.structs(kind)? {
            let page = page_location(&mut reader)?;
            let after_last = match pages.last() {
                Some(last) => page.first_row > last.first_row && page.bytes.start >= last.bytes.end,
                None => page.first_row == 0,
            };
            if !after_last || page.bytes.start < chunk.data.start || page.bytes.end > chunk.data.end {
                return Err(Fault::corrupt("pages of the offset index are out of order or outside their column"));
            }
            pages.push(page);
        }
    }
    Ok(pages)
}

fn page_location(reader: &mut Reader<'_>) -> Result<PageLocation, Fault> {
    let (mut offset, mut len, mut first_row) = (0, 0, 0);
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match id {
            field::page_location::OFFSET => offset = reader.unsigned(kind)?,
            field::page_location::COMPRESSED_PAGE_SIZE => len = reader.unsigned(kind)?,
            field::page_location::FIRST_ROW_INDEX => first_row = reader.size(kind)?,
            _ => reader.skip(kind)?,
        }
    }
    Ok(PageLocation { bytes: offset..offset.saturating_add(len), first_row })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        match parse(bytes, 1000) {
            Err(Fault::Corrupt(what)) => what.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn row_groups_before_the_schema_are_refused() {
        // Field 4 has one row group with an empty list of columns, which is right as long as there is no schema.
        // Field 2, behind it, has a root with one leaf of bytes, `a`.
        let groups = [0x49, 0x1c, 0x19, 0x0c, 0x00];
        let schema = [0x09, 0x04, 0x2c, 0x55, 0x02, 0x00, 0x15, 0x0c, 0x38, 0x01, b'a', 0x00];
        assert_eq!(message(&[&groups[..], &schema, &[0]].concat()), "the row groups stand before the schema");
    }

    #[test]
    fn entries_need_bytes_to_speak_for_them() {
        let group = |entries: &[u8], bytes: &[u8]| {
            let schema = [0x29, 0x2c, 0x55, 0x02, 0x00, 0x15, 0x0c, 0x38, 0x01, b'a', 0x00];
            let chunk =
                [&[0x29, 0x1c, 0x19, 0x1c, 0x3c, 0x56][..], entries, &[0x26], bytes, &[0x26, 0x08, 0x00, 0x00, 0x00, 0x00]].concat();
            [&schema[..], &chunk].concat()
        };
        // 2^23 entries in 100 bytes, and one more.
        assert_eq!(parse(&group(&[0x80, 0x80, 0x80, 0x08], &[0xc8, 0x01]), 1000).expect("is possible").groups[0].bytes, 100);
        let error = message(&group(&[0x82, 0x80, 0x80, 0x08], &[0xc8, 0x01]));
        assert!(error.contains("100 bytes claims 8388609 entries"), "{error}");
    }
}
