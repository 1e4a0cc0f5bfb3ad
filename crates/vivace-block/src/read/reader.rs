use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use vivace_core::TraceId;
use vivace_core::combine::combine;
use vivace_proto::otlp::ResourceSpans;

use super::assemble::Assembler;
use super::column::Column;
use super::fault::{Fault, ReadError};
use super::footer::{self, Codec, Footer, PageLocation, Physical};
use super::group::Group;
use super::layout::Layout;
use super::order::{GroupIds, GroupOrder};
use super::source::ReadAt;
use crate::index::RowGroupIndex;
use crate::schema::Leaf;
use crate::write::{CREATED_BY, is_representative};
use crate::{BlockMeta, Format};

/// A footer of this size belongs to a file of several hundred GB.
const MAX_FOOTER_BYTES: u64 = 256 << 20;

/// An open block. Holds its footer and what has been read of its page locations and trace ids; share it between threads.
///
/// All calls block on reading and decoding: they belong on threads that may.
pub struct BlockReader {
    pub(crate) meta: BlockMeta,
    source: Arc<dyn ReadAt>,
    pub(crate) footer: Footer,
    pub(crate) layout: Layout,
    /// Per row group and column, where the file has an offset index.
    pages: Vec<OnceLock<Vec<Option<Vec<PageLocation>>>>>,
    pub(super) ids: Vec<OnceLock<GroupIds>>,
    pub(super) group_order: GroupOrder,
}

impl std::fmt::Debug for BlockReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockReader").field("block", &self.meta.block_id).finish_non_exhaustive()
    }
}

impl BlockReader {
    /// Reads the footer.
    ///
    /// # Errors
    /// Another format than vParquet4 and vParquet5, a file that is none, or bytes that cannot be had.
    pub fn open(meta: BlockMeta, source: Arc<dyn ReadAt>) -> Result<Self, ReadError> {
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

    /// What `meta.json` says.
    #[must_use]
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Row groups in the file.
    #[must_use]
    pub fn row_groups(&self) -> usize {
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

    /// All columns of a row group by leaf; none for those without a value. Only where [`Self::is_like_written`].
    pub(crate) fn row_group(&self, index: usize) -> Result<Vec<Option<Rc<Column>>>, ReadError> {
        let mut group = Group::new(self, index);
        let is_read = |group: &Group<'_>, leaf: Leaf| is_representative(leaf) || !group.is_empty(leaf.index());
        let leaves: Vec<usize> = Leaf::all().filter(|leaf| is_read(&group, *leaf)).map(Leaf::index).collect();
        group.prefetch(&leaves)?;
        Leaf::all().map(|leaf| if is_read(&group, leaf) { group.column(leaf.index()).map(Some) } else { Ok(None) }).collect()
    }

    /// The trace in a row of a row group.
    pub(crate) fn trace_at(&self, group: usize, row: usize) -> Result<Option<(TraceId, Vec<ResourceSpans>)>, ReadError> {
        Ok(Assembler::new(Group::new(self, group).narrow(vec![row]))?.trace(0))
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

    /// Where the bytes come from.
    pub(crate) fn source(&self) -> &Arc<dyn ReadAt> {
        &self.source
    }

    /// The trace with this id, combined where it has several rows. Reads the ids of one row group, then the pages that hold
    /// the row; of row groups that overlap, all that may have the id.
    ///
    /// `index`, where the block has one, says which row group to look into if the footer does not.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn find(&self, id: TraceId, index: Option<&RowGroupIndex>) -> Result<Option<Vec<ResourceSpans>>, ReadError> {
        let mut parts = Vec::new();
        for (group, rows) in self.rows_of(id, index)? {
            let count = rows.len();
            let rows = Assembler::new(Group::new(self, group).narrow(rows))?;
            parts.extend((0..count).filter_map(|row| rows.trace(row)).map(|(_, spans)| spans));
        }
        Ok(match parts.len() {
            0 | 1 => parts.pop(),
            _ => Some(combine(parts)),
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

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use vivace_traceql::{Attribute, Comparison, Condition, Fetch, Intrinsic, RowParts, Scope, SpanFilter, TraceFilter, Value};

    use super::*;
    use crate::read::page::{PageHeader, reseal};

    fn use_all(block: &BlockReader) -> Result<(), ReadError> {
        let named = |scope, key: &str| Attribute::Named { scope, key: key.into() };
        let leaf = |attribute, comparison| TraceFilter::AnySpan(SpanFilter::Leaf(Condition { attribute, comparison }));
        let keys = ["http.method", "http.status_code", "service.name", "thread.id", "db.system"];
        let every_scope = |key| [Scope::Unscoped, Scope::Span, Scope::Resource, Scope::Instrumentation].map(|scope| named(scope, key));
        let mut fetch = Fetch {
            start_unix_nanos: 1,
            end_unix_nanos: u64::MAX,
            filter: TraceFilter::All,
            span_attributes: keys.into_iter().flat_map(every_scope).collect(),
            event_attributes: vec![Attribute::Intrinsic(Intrinsic::EventName), named(Scope::Event, "exception.type")],
            link_attributes: vec![Attribute::Intrinsic(Intrinsic::LinkSpanId), named(Scope::Link, "why")],
            rows: RowParts::ALL,
        };
        let x = || Value::Str("x".into());
        let mut results = Vec::new();
        for filter in [
            TraceFilter::All,
            leaf(named(Scope::Unscoped, "http.method"), Comparison::NotEqual(x())),
            leaf(named(Scope::Span, "thread.id"), Comparison::Greater(Value::Int(7))),
            leaf(named(Scope::Event, "exception.type"), Comparison::NotExists),
            leaf(Attribute::Intrinsic(Intrinsic::Name), Comparison::LessEqual(x())),
        ] {
            fetch.filter = filter;
            results.push(block.search(&fetch, 0..9, &mut |_| ControlFlow::Continue(())).map(|_| ()));
        }
        results.push(block.tag_names(None, None, 0..9, &mut |_, _| ControlFlow::Continue(())).map(|_| ()));
        results.push(block.tag_values(&named(Scope::Span, "thread.id"), None, 0..9, &mut |_| ControlFlow::Continue(())).map(|_| ()));
        results.push(block.traces().try_for_each(|trace| trace.map(|_| ())));
        let id = block.ids_of(0).ok().and_then(|ids| ids.first().copied()).unwrap_or_default();
        results.push(block.find(id, None).map(|_| ()));
        results.into_iter().collect()
    }

    /// Pages that lie, under checksums that are right: what the decoders alone have to notice.
    #[test]
    fn lying_pages_are_errors_or_harmless_but_never_panics() {
        let whole = include_bytes!("../../testdata/v4-edge-default/data.parquet");
        let meta = include_bytes!("../../testdata/v4-edge-default/meta.json");
        let meta = BlockMeta::from_json(meta, "meta.json").expect("a meta");
        let open = |bytes: Vec<u8>| BlockReader::open(meta.clone(), Arc::new(Bytes::from(bytes))).expect("opens");
        let block = open(whole.to_vec());
        let pages = block.pages(0).expect("reads").iter().flatten().flatten();
        let dictionaries = block.footer.groups[0].chunks.iter().map(|chunk| chunk.dictionary.clone());
        let pages: Vec<Range<u64>> = pages.map(|page| page.bytes.clone()).chain(dictionaries.filter(|range| !range.is_empty())).collect();
        let mut random = StdRng::seed_from_u64(6);
        let (mut changed, mut failed) = (0, 0);
        for round in 0..600 {
            let mut bytes = whole.to_vec();
            let page = pages[round % pages.len()].clone();
            let page = &mut bytes[page.start as usize..page.end as usize];
            let header = PageHeader::parse(page).expect("a header");
            if header.stored == 0 {
                continue;
            }
            for _ in 0..random.random_range(1..6) {
                let at = header.len + random.random_range(0..header.stored);
                page[at] = if random.random() { page[at] ^ 1 << random.random_range(0..8) } else { random.random() };
            }
            if reseal(page) {
                changed += 1;
                failed += usize::from(use_all(&open(bytes)).is_err());
            }
        }
        assert!(changed > 200 && failed > 50, "{changed} changed, {failed} noticed");
    }
}
