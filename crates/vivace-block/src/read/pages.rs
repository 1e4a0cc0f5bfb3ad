//! The pages of a block one after the other, wanted or not: for those who check a block, or look into it.

use super::fault::{Fault, ReadError};
use super::footer::Codec;
use super::format::encoding::{PLAIN_DICTIONARY, RLE_DICTIONARY};
use super::group::Group;
use super::layout::LeafId;
use super::page::{Decompressor, PageHeader, PageKind};
use super::reader::BlockReader;

/// Encodings of data pages that refer to a dictionary.
const DICTIONARY_ENCODINGS: [i64; 2] = [PLAIN_DICTIONARY, RLE_DICTIONARY];

/// The dictionaries of one column over all row groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DictionaryUse {
    /// Row groups that have one.
    pub row_groups: u64,
    /// Distinct values, summed over the row groups.
    pub entries: u64,
    /// Bytes after decompression, each value's length of four bytes included.
    pub bytes: u64,
}

/// What the pages of one column of one row group are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChunkPages {
    pub(crate) pages: u64,
    pub(crate) with_checksum: u64,
    pub(crate) has_dictionary: bool,
    /// Data pages that refer to the dictionary.
    pub(crate) dictionary_coded: u64,
    /// Data pages that hold their values themselves.
    pub(crate) plain: u64,
    /// Entries that are no nulls.
    pub(crate) values: usize,
}

impl BlockReader {
    /// The dictionaries of all columns, in the order of the file. Reads dictionary pages and nothing else.
    ///
    /// # Errors
    /// Bytes that are no dictionary page, or cannot be had.
    pub fn dictionaries(&self) -> Result<Vec<DictionaryUse>, ReadError> {
        let mut uses = vec![DictionaryUse::default(); self.file.footer.leaves.len()];
        for (group, row_group) in self.file.footer.groups.iter().enumerate() {
            for (leaf, (chunk, used)) in row_group.chunks.iter().zip(&mut uses).enumerate() {
                if chunk.dictionary.is_empty() {
                    continue;
                }
                let bytes = self.file.read(chunk.dictionary.clone())?;
                let page = PageHeader::parse(&bytes).map_err(|fault| self.in_column(group, leaf, fault))?;
                used.row_groups += 1;
                used.entries += page.entries as u64;
                used.bytes += page.size as u64;
            }
        }
        Ok(uses)
    }

    /// Reads all pages of one column of one row group: compares checksums, decompresses, decodes, counts entries, and
    /// compares the places of the pages with the offset index.
    ///
    /// # Errors
    /// The first page that is not what it should be, or bytes that cannot be had.
    pub(crate) fn walk_pages(&self, group: usize, leaf: LeafId) -> Result<ChunkPages, ReadError> {
        let chunk = &self.file.footer.groups[group].chunks[leaf];
        let fail = |fault| self.in_column(group, leaf, fault);
        let mut zip = Decompressor::default();
        let mut found = ChunkPages::default();
        if !chunk.dictionary.is_empty() {
            let bytes = self.file.read(chunk.dictionary.clone())?;
            let page = one_page(&bytes, chunk.codec, &mut zip).map_err(fail)?;
            if page.kind != PageKind::Dictionary {
                return Err(fail(Fault::corrupt("the page where the dictionary should be is none")));
            }
            found.has_dictionary = true;
            found.count(&page);
        }
        let bytes = self.file.read(chunk.data.clone())?;
        let mut places = Vec::new();
        let (mut at, mut entries) = (0, 0usize);
        while at < bytes.len() {
            let page = one_page(&bytes[at..], chunk.codec, &mut zip).map_err(fail)?;
            let len = page.len + page.stored;
            found.count(&page);
            if matches!(page.kind, PageKind::V1 | PageKind::V2 { .. }) {
                entries = entries.saturating_add(page.entries);
                places.push(chunk.data.start + at as u64..chunk.data.start + (at + len) as u64);
                match DICTIONARY_ENCODINGS.contains(&page.encoding) {
                    true => found.dictionary_coded += 1,
                    false => found.plain += 1,
                }
            }
            at += len;
        }
        if entries != chunk.entries {
            return Err(fail(Fault::corrupt(format!("pages hold {entries} entries, the footer says {}", chunk.entries))));
        }
        if let Some(index) = &self.file.pages(group)?[leaf]
            && !index.iter().map(|page| &page.bytes).eq(&places)
        {
            return Err(fail(Fault::corrupt(format!("{} pages are not where the offset index says", places.len()))));
        }
        // Levels and values must make sense too.
        found.values = Group::new(&self.file, group).column(leaf)?.values.len();
        Ok(found)
    }

    /// An error about a column.
    fn in_column(&self, group: usize, leaf: LeafId, fault: Fault) -> ReadError {
        fault.at(self.file.meta.block_id, format!("row group {group}, column {}", self.file.footer.leaves[leaf].path))
    }
}

impl ChunkPages {
    fn count(&mut self, page: &PageHeader) {
        self.pages += 1;
        self.with_checksum += u64::from(page.has_checksum());
    }
}

/// The page that `bytes` starts with, its checksum compared and its body decompressed.
fn one_page(bytes: &[u8], codec: Codec, zip: &mut Decompressor) -> Result<PageHeader, Fault> {
    let page = PageHeader::parse(bytes)?;
    let body = page.body(bytes)?;
    match page.kind {
        PageKind::V2 { rep_len, def_len, compressed } => {
            let codec = if compressed { codec } else { Codec::Uncompressed };
            let size = page.size - rep_len - def_len;
            // An empty section may still be a compressed nothing.
            if size > 0 {
                zip.decompress(codec, &body[rep_len + def_len..], size)?;
            }
        }
        // So may an empty dictionary.
        PageKind::Dictionary | PageKind::V1 if page.size > 0 => {
            zip.decompress(codec, body, page.size)?;
        }
        PageKind::Dictionary | PageKind::V1 | PageKind::Other => {}
    }
    Ok(page)
}
