//! An open block, as those see it who ask it: the door of everything in this module.

use std::rc::Rc;
use std::sync::Arc;

use vivace_core::TraceId;
use vivace_core::combine::combine;
use vivace_proto::otlp::ResourceSpans;

use super::assemble::Assembler;
use super::column::Column;
use super::fault::ReadError;
use super::file::BlockFile;
use super::group::Group;
use super::source::ReadAt;
use crate::BlockMeta;
use crate::index::RowGroupIndex;
use crate::schema::Leaf;
use crate::write::is_representative;

/// An open block. Holds its footer and what has been read of its page locations and trace ids; share it between threads.
///
/// All calls block on reading and decoding: they belong on threads that may.
pub struct BlockReader {
    pub(crate) file: BlockFile,
}

impl std::fmt::Debug for BlockReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockReader").field("block", &self.file.meta.block_id).finish_non_exhaustive()
    }
}

impl BlockReader {
    /// Reads the footer.
    ///
    /// # Errors
    /// Another format than vParquet4 and vParquet5, a file that is none, or bytes that cannot be had.
    pub fn open(meta: BlockMeta, source: Arc<dyn ReadAt>) -> Result<Self, ReadError> {
        Ok(Self { file: BlockFile::open(meta, source)? })
    }

    /// What `meta.json` says.
    #[must_use]
    pub fn meta(&self) -> &BlockMeta {
        &self.file.meta
    }

    /// Row groups in the file.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.file.row_groups()
    }

    /// All columns of a row group by leaf; none for those without a value. Only where [`BlockFile::is_like_written`].
    pub(crate) fn row_group(&self, index: usize) -> Result<Vec<Option<Rc<Column>>>, ReadError> {
        let mut group = Group::new(&self.file, index);
        let is_read = |group: &Group<'_>, leaf: Leaf| is_representative(leaf) || !group.is_empty(leaf.index());
        let leaves: Vec<usize> = Leaf::all().filter(|leaf| is_read(&group, *leaf)).map(Leaf::index).collect();
        group.prefetch(&leaves)?;
        Leaf::all().map(|leaf| if is_read(&group, leaf) { group.column(leaf.index()).map(Some) } else { Ok(None) }).collect()
    }

    /// The trace in a row of a row group.
    pub(crate) fn trace_at(&self, group: usize, row: usize) -> Result<Option<(TraceId, Vec<ResourceSpans>)>, ReadError> {
        Ok(Assembler::new(Group::new(&self.file, group).narrow(vec![row]))?.trace(0))
    }

    /// Whether all rows ascend by id, each id once. Reads the ids of blocks that others wrote.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn is_in_order(&self) -> Result<bool, ReadError> {
        self.file.is_in_order()
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
        for (group, rows) in self.file.rows_of(id, index)? {
            let count = rows.len();
            let rows = Assembler::new(Group::new(&self.file, group).narrow(rows))?;
            parts.extend((0..count).filter_map(|row| rows.trace(row)).map(|(_, spans)| spans));
        }
        Ok(match parts.len() {
            0 | 1 => parts.pop(),
            _ => Some(combine(parts)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::{ControlFlow, Range};

    use bytes::Bytes;
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
            range: vivace_core::TimeRange::between(1, u64::MAX),
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
        let pages = block.file.pages(0).expect("reads").iter().flatten().flatten();
        let dictionaries = block.file.footer.groups[0].chunks.iter().map(|chunk| chunk.dictionary.clone());
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
