//! The file of a block: its bytes, what its footer says of them, and where its pages are. What is decoded is above:
//! a [`super::group::Group`] holds the columns of one row group, [`super::reader::BlockReader`] answers for the whole.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::fault::{Fault, ReadError};
use super::footer::{self, Codec, Footer, PageLocation, Physical};
use super::ids::{GroupIds, GroupOrder};
use super::layout::Layout;
use super::source::ReadAt;
use crate::schema::Leaf;
use crate::write::CREATED_BY;
use crate::{BlockMeta, Format};

/// A footer of this size belongs to a file of several hundred GB.
const MAX_FOOTER_BYTES: u64 = 256 << 20;

/// A `data.parquet` whose footer has been read. Keeps page locations and trace ids once they are known.
pub(crate) struct BlockFile {
    pub(crate) meta: BlockMeta,
    pub(crate) source: Arc<dyn ReadAt>,
    pub(crate) footer: Footer,
    pub(crate) layout: Layout,
    /// Per row group and column, where the file has an offset index.
    pages: Vec<OnceLock<Vec<Option<Vec<PageLocation>>>>>,
    /// Per row group; see [`BlockFile::group_ids`].
    pub(super) ids: Vec<OnceLock<GroupIds>>,
    pub(super) group_order: GroupOrder,
}

impl BlockFile {
    /// Reads the footer.
    pub(crate) fn open(meta: BlockMeta, source: Arc<dyn ReadAt>) -> Result<Self, ReadError> {
        if !matches!(meta.format, Format::VParquet4 | Format::VParquet5) {
            return Err(ReadError::Format { block: meta.block_id, format: meta.format.as_str().to_owned() });
        }
        let corrupt = |what: String| Fault::corrupt(what).at(meta.block_id, "footer");
        let len = source.len();
        if len < 12 || (meta.size_bytes != 0 && meta.size_bytes != len) {
            return Err(corrupt(format!("the file has {len} bytes, meta.json says {}", meta.size_bytes)));
        }
        let read = |range: Range<u64>| {
            let bytes = source.read(range.clone()).map_err(|e| ReadError::io(meta.block_id, &range, e))?;
            checked(&meta, &range, bytes)
        };
        // One read when meta.json is right about the footer.
        let guess = len.min(u64::from(meta.footer_bytes) + 8);
        let mut tail = read(len - guess..len)?;
        let last = tail.len() - 8;
        if &tail[last + 4..] != b"PAR1" {
            return Err(corrupt("the file does not end with PAR1".to_owned()));
        }
        let footer_len = tail[last..last + 4].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        if footer_len > MAX_FOOTER_BYTES || footer_len > len - 12 {
            return Err(corrupt(format!("a footer of {footer_len} bytes in a file of {len}")));
        }
        if footer_len + 8 > guess {
            tail = read(len - 8 - footer_len..len)?;
        }
        let end = tail.len() - 8;
        let start = end.saturating_sub(usize::try_from(footer_len).unwrap_or(usize::MAX));
        let footer = footer::parse(&tail[start..end], len - 8 - footer_len).map_err(|fault| fault.at(meta.block_id, "footer"))?;
        let layout = Layout::new(&meta, &footer).map_err(|fault| fault.at(meta.block_id, "footer"))?;
        let groups = footer.groups.len();
        let (pages, ids) = ((0..groups).map(|_| OnceLock::new()).collect(), (0..groups).map(|_| OnceLock::new()).collect());
        let group_order = GroupOrder::of(&footer, layout.trace_id);
        Ok(Self { meta, source, footer, layout, pages, ids, group_order })
    }

    /// Row groups in the file.
    pub(crate) fn row_groups(&self) -> usize {
        self.footer.groups.len()
    }

    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes, ReadError> {
        let bytes = self.source.read(range.clone()).map_err(|e| ReadError::io(self.meta.block_id, &range, e))?;
        checked(&self.meta, &range, bytes)
    }

    pub(crate) fn read_many(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, ReadError> {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(Vec::new()) };
        let span = first.start..last.end;
        let read = self.source.read_many(ranges).map_err(|e| ReadError::io(self.meta.block_id, &span, e))?;
        ranges.iter().zip(read).map(|(range, bytes)| checked(&self.meta, range, bytes)).collect()
    }

    /// Sorted, and joined where they are close.
    pub(crate) fn coalesce(&self, mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
        let gap = self.source.gap_bytes();
        ranges.sort_unstable_by_key(|range| range.start);
        let mut out: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match out.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(gap) => last.end = last.end.max(range.end),
                _ => out.push(range),
            }
        }
        out
    }

    /// Page locations of every column of a row group. Read once.
    pub(crate) fn pages(&self, group: usize) -> Result<&Vec<Option<Vec<PageLocation>>>, ReadError> {
        if let Some(pages) = self.pages[group].get() {
            return Ok(pages);
        }
        let chunks = &self.footer.groups[group].chunks;
        let ranges = self.coalesce(chunks.iter().filter_map(|chunk| chunk.offset_index.clone()).collect());
        let read = self.read_many(&ranges)?;
        let find = |range: &Range<u64>| {
            ranges.iter().zip(&read).find(|(r, _)| r.start <= range.start && range.end <= r.end).and_then(|(r, bytes)| {
                let from = usize::try_from(range.start - r.start).ok()?;
                let to = usize::try_from(range.end - r.start).ok()?;
                bytes.get(from..to)
            })
        };
        let mut pages = Vec::with_capacity(chunks.len());
        for (chunk, leaf) in chunks.iter().zip(&self.footer.leaves) {
            let bytes = chunk.offset_index.as_ref().and_then(find);
            let parsed = bytes.map(|bytes| footer::offset_index(bytes, chunk)).transpose();
            let parsed =
                parsed.map_err(|fault| fault.at(self.meta.block_id, format!("offset index of row group {group}, column {}", leaf.path)))?;
            pages.push(parsed);
        }
        Ok(self.pages[group].get_or_init(|| pages))
    }

    /// Whether the file says that [`crate::BlockWriter`] wrote it, which takes rows in the order of their ids alone.
    pub(crate) fn is_written_in_order(&self) -> bool {
        self.footer.created_by.starts_with(CREATED_BY)
    }

    /// Whether the columns are those that [`crate::BlockWriter`] writes with the same dedicated columns.
    pub(crate) fn is_like_written(&self) -> bool {
        self.meta.format == Format::VParquet4
            && self.footer.leaves.len() == Leaf::COUNT
            && self.footer.leaves.iter().zip(Leaf::all()).all(|(own, leaf)| {
                let column = leaf.column();
                own.path == column.path().string().replace(".list.element", "")
                    && i16::from(own.max_rep) == column.max_rep_level()
                    && i16::from(own.max_def) == column.max_def_level()
            })
    }

    /// Whether a row group may stay as it is: compressed throughout as [`crate::BlockWriter`] does it, and without what it did
    /// once and Tempo misreads.
    pub(crate) fn is_packed(&self, group: usize) -> bool {
        let chunks = self.footer.groups[group].chunks.iter();
        chunks.zip(&self.footer.leaves).all(|(chunk, leaf)| {
            let is_misread = leaf.physical == Physical::Int32 && !chunk.dictionary.is_empty();
            chunk.codec == Codec::Zstd && chunk.nulls.is_some() && !is_misread
        })
    }
}

/// The bytes, if they are as many as were asked for.
fn checked(meta: &BlockMeta, range: &Range<u64>, bytes: Bytes) -> Result<Bytes, ReadError> {
    if bytes.len() as u64 == range.end - range.start {
        return Ok(bytes);
    }
    let short = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("only {} bytes came", bytes.len()));
    Err(ReadError::io(meta.block_id, range, short))
}
