//! A `data.parquet` taken apart into footer, pages and page locations, and put together again with all offsets, sizes and
//! checksums right: what is then wrong is only what an input made wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, ReadError, SpanRef};
use vivace_core::otlp::{SpanContext, SpanHead, walk_spans};
use vivace_core::{BlockId, TenantId, TraceId};

use crate::thrift::Node;

/// Blocks that inputs start from: a small one of our own, and some of the test data.
pub(crate) static BLOCKS: LazyLock<Vec<File>> = LazyLock::new(|| {
    macro_rules! block {
        ($name:literal) => {
            File::parse(
                include_bytes!(concat!("../../crates/vivace-block/testdata/", $name, "/data.parquet")),
                include_bytes!(concat!("../../crates/vivace-block/testdata/", $name, "/meta.json")),
            )
            .expect("a block")
        };
    }
    let mut blocks =
        vec![small(), block!("v4-three-blocks-1"), block!("v5-edge-default"), block!("v4-bulk-rowgroups"), block!("v4-edge-dedicated")];
    // Two row groups say as much as many.
    blocks[3].keep_groups(2);
    blocks
});

/// Traces of the first block: one with every kind of value, one of several services with events, and one that came twice.
const SMALL: [&str; 3] = ["4e7e1fa916da4b9d2a8868fa593cf519", "edb7f1d5cbf15150c2b9546e0f0220f3", "9de6ea8cbd2e589a72b2e6434ce19654"];

/// A block of few traces, which takes little time to read.
fn small() -> File {
    let requests = include_bytes!("../../crates/vivace-block/testdata/edge-a/requests.otlp.pb");
    let mut wanted: BTreeMap<TraceId, Vec<SpanRef<'_>>> = SMALL.iter().map(|id| (id.parse().expect("an id"), Vec::new())).collect();
    // Each stands behind its length.
    let mut rest = &requests[..];
    while !rest.is_empty() {
        let request = length_delimited(&mut rest).expect("a request");
        let visit = |at: SpanContext<'static>, head: SpanHead<'static>| {
            if let Some(spans) = wanted.get_mut(&head.trace()) {
                spans.push(SpanRef { resource: at.resource, scope: at.scope, span: head.bytes });
            }
        };
        walk_spans(request, visit).expect("a request");
    }
    let mut writer =
        BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([7; 16]), Vec::new(), 3).expect("memory takes all");
    for (id, spans) in &wanted {
        writer.push_trace(*id, spans).expect("ids ascend");
    }
    let block = writer.finish().expect("memory takes all");
    File::parse(block.out.leak(), &block.meta.to_json()).expect("a block")
}

fn length_delimited(rest: &mut &'static [u8]) -> Option<&'static [u8]> {
    let mut len = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            let (part, after) = rest.split_at_checked(len)?;
            *rest = after;
            return Some(part);
        }
    }
    None
}

/// A block's file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) meta: BlockMeta,
    pub(crate) footer: Node,
    /// By row group and column.
    pub(crate) chunks: Vec<Vec<Chunk>>,
}

/// A column of a row group.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) codec: i64,
    /// The dictionary first, if there is one.
    pub(crate) pages: Vec<Page>,
    /// The offset index.
    pub(crate) index: Option<Node>,
}

/// A page.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) header: Node,
    /// What follows the header, as stored.
    pub(crate) body: Bytes,
    /// Whether the checksum is made right.
    pub(crate) is_sealed: bool,
}

pub(crate) const SNAPPY: i64 = 1;
pub(crate) const ZSTD: i64 = 6;

pub(crate) const DATA_V1: i64 = 0;
pub(crate) const DICTIONARY: i64 = 2;
pub(crate) const DATA_V2: i64 = 3;

impl File {
    fn parse(file: &'static [u8], meta: &[u8]) -> Option<Self> {
        let meta = BlockMeta::from_json(meta, "meta.json").ok()?;
        let end = file.len() - 8;
        let (footer, _) = Node::parse(&file[end - meta.footer_bytes as usize..])?;
        let groups = footer.list(4).iter();
        let chunks = groups.map(|group| group.list(1).iter().map(|chunk| Chunk::parse(file, chunk)).collect::<Option<_>>());
        Some(Self { chunks: chunks.collect::<Option<_>>()?, meta, footer })
    }

    fn keep_groups(&mut self, count: usize) {
        self.chunks.truncate(count);
        if let Some(Node::List(_, groups)) = self.footer.get_mut(4) {
            groups.truncate(count);
        }
    }

    pub(crate) fn chunk_mut(&mut self, group: usize, leaf: usize) -> Option<&mut Chunk> {
        self.chunks.get_mut(group)?.get_mut(leaf)
    }

    /// The footer's entry for a column of a row group.
    pub(crate) fn column_mut(&mut self, group: usize, leaf: usize) -> Option<&mut Node> {
        let Node::List(_, groups) = self.footer.get_mut(4)? else { return None };
        let Node::List(_, columns) = groups.get_mut(group)?.get_mut(1)? else { return None };
        columns.get_mut(leaf)
    }

    /// The bytes of the file. `lie` changes the footer when all that it says is true.
    pub(crate) fn bytes(mut self, lie: impl FnOnce(&mut Node)) -> Vec<u8> {
        let mut out = b"PAR1".to_vec();
        let mut chunks = std::mem::take(&mut self.chunks);
        let leaves =
            chunks.iter_mut().enumerate().flat_map(|(group, chunks)| chunks.iter_mut().enumerate().map(move |(leaf, c)| (group, leaf, c)));
        let mut indexes = Vec::new();
        for (group, leaf, chunk) in leaves {
            let start = out.len();
            let mut data = start;
            let mut locations = Vec::new();
            for page in &mut chunk.pages {
                let at = out.len();
                page.put(&mut out);
                if page.header.int(1) == Some(DICTIONARY) {
                    data = out.len();
                } else {
                    locations.push((at, out.len() - at));
                }
            }
            let Some(column) = self.column_mut(group, leaf) else { continue };
            let number = |value: usize| Some(Node::i64(value as i64));
            column.set(2, number(0));
            [4, 5, 6, 7].into_iter().for_each(|field| column.set(field, None));
            if let Some(meta) = column.get_mut(3) {
                meta.set(7, number(out.len() - start));
                meta.set(9, number(data));
                meta.set(11, if data > start { number(start) } else { None });
                meta.set(14, None);
                meta.set(15, None);
            }
            if let Some(index) = &mut chunk.index {
                locate(index, &locations);
                indexes.push((group, leaf, index.bytes()));
            }
        }
        for (group, leaf, bytes) in indexes {
            let start = out.len();
            out.extend(&bytes);
            if let Some(column) = self.column_mut(group, leaf) {
                column.set(4, Some(Node::i64(start as i64)));
                column.set(5, Some(Node::i32(bytes.len() as i64)));
            }
        }
        lie(&mut self.footer);
        let footer = self.footer.bytes();
        out.extend(&footer);
        out.extend((footer.len() as u32).to_le_bytes());
        out.extend(b"PAR1");
        out
    }
}

/// Opens what [`File::bytes`] made, or any other bytes.
pub(crate) fn open(meta: &BlockMeta, bytes: Vec<u8>) -> Result<BlockReader, ReadError> {
    let meta = BlockMeta { size_bytes: 0, ..meta.clone() };
    BlockReader::open(meta, Arc::new(Bytes::from(bytes)))
}

/// Sets offset and length of every page, as far as there are pages.
fn locate(index: &mut Node, locations: &[(usize, usize)]) {
    let Some(Node::List(_, entries)) = index.get_mut(1) else { return };
    entries.truncate(locations.len());
    for (i, (at, len)) in locations.iter().enumerate() {
        if i >= entries.len() {
            let first_row = entries.last().and_then(|last| last.int(3)).map_or(0, |row| row.saturating_add(1));
            entries.push(Node::Struct(vec![(3, Node::i64(first_row))]));
        }
        entries[i].set(1, Some(Node::i64(*at as i64)));
        entries[i].set(2, Some(Node::i32(*len as i64)));
    }
}

impl Chunk {
    fn parse(file: &'static [u8], column: &Node) -> Option<Self> {
        let meta = column.get(3)?;
        let data = meta.int(9)?;
        let start = meta.int(11).filter(|at| *at > 0 && *at < data).unwrap_or(data);
        let mut rest = file.get(start as usize..(start + meta.int(7)?) as usize)?;
        let mut pages = Vec::new();
        while !rest.is_empty() {
            let (header, len) = Node::parse(rest)?;
            let end = len + header.int(3)? as usize;
            pages.push(Page { body: Bytes::from_static(rest.get(len..end)?), header, is_sealed: true });
            rest = &rest[end..];
        }
        let index = column.int(4).and_then(|at| Node::parse(file.get(at as usize..)?)).map(|(index, _)| index);
        Some(Self { codec: meta.int(4)?, pages, index })
    }
}

impl Page {
    /// A page from its parts; `body` is not yet compressed.
    pub(crate) fn new(kind: i64, details: Node, codec: i64, body: &[u8]) -> Self {
        let mut header = Node::Struct(vec![(1, Node::i32(kind))]);
        let field = match kind {
            DICTIONARY => 7,
            DATA_V2 => 8,
            _ => 5,
        };
        header.set(field, Some(details));
        let mut page = Self { header, body: Bytes::new(), is_sealed: true };
        page.set_plain(codec, body);
        page
    }

    /// Levels of a data page of the second version.
    #[cfg(test)]
    pub(crate) fn level_lens(&self) -> (usize, usize) {
        let len = |field| self.header.get(8).and_then(|v2| v2.int(field)).unwrap_or_default() as usize;
        (len(6), len(5))
    }

    /// How many bytes in front of the body are never compressed.
    fn levels(&self) -> usize {
        let len = |field| self.header.get(8).and_then(|v2| v2.int(field)).unwrap_or_default();
        usize::try_from(len(5).saturating_add(len(6))).unwrap_or_default()
    }

    fn is_plain(&self, codec: i64) -> bool {
        codec == 0 || self.header.get(8).and_then(|v2| v2.get(7)) == Some(&Node::Bool(false))
    }

    /// The body without compression.
    pub(crate) fn plain(&self, codec: i64) -> Option<Vec<u8>> {
        let (levels, values) = self.body.split_at_checked(self.levels())?;
        let values = match codec {
            _ if self.is_plain(codec) || values.is_empty() => values.to_vec(),
            SNAPPY => snap::raw::Decoder::new().decompress_vec(values).ok()?,
            ZSTD => zstd::decode_all(values).ok()?,
            _ => return None,
        };
        Some([levels, &values].concat())
    }

    /// Compresses a new body and says so in the header.
    pub(crate) fn set_plain(&mut self, codec: i64, body: &[u8]) {
        let (levels, values) = body.split_at(self.levels().min(body.len()));
        let values = match codec {
            _ if self.is_plain(codec) => values.to_vec(),
            SNAPPY => snap::raw::Encoder::new().compress_vec(values).unwrap_or_default(),
            ZSTD => zstd::encode_all(values, 1).unwrap_or_default(),
            _ => values.to_vec(),
        };
        self.header.set(2, Some(Node::i32(body.len() as i64)));
        self.body = [levels, &values].concat().into();
        self.header.set(3, Some(Node::i32(self.body.len() as i64)));
    }

    fn put(&mut self, out: &mut Vec<u8>) {
        if self.is_sealed {
            let crc = crc32fast::hash(&self.body).cast_signed();
            self.header.set(4, Some(Node::i32(i64::from(crc))));
        }
        out.extend(self.header.bytes());
        out.extend(&self.body);
    }
}
