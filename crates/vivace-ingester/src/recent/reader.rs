//! Reads live segments for one query: keeps the last ones decompressed, and brings the spans of traces together.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_block::SpanRef;
use vivace_block::live::Candidates;
use vivace_core::TraceId;
use vivace_core::budget::{Account, Budget, Charge};
use vivace_core::otlp::walk_spans;
use vivace_traceql::TooLarge;

use super::left_out::LeftOut;
use crate::gather::Gathered;
use crate::segment::Segment;
use crate::store::{Contents, Head, View};

/// Decompressed segments that one query keeps at a time, bytes, at most, and as a part of what all queries may hold.
const KEPT_BYTES_MAX: usize = 64 << 20;
const KEPT_PART: u64 = 16;
/// Segments that a query looks at before it says what it has found, and traces that it brings together at once, in bytes once
/// decompressed. Larger pieces of memory would be given back to the system and taken anew each time.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;

/// The last segments that a query has read, decompressed: candidates are looked for and then gathered in the same ones.
pub(super) struct Reader {
    /// For what is kept and gathered.
    charge: Charge,
    kept_bytes_max: usize,
    gathered_bytes_max: u64,
    kept: FxHashMap<usize, (Arc<Segment>, Bytes)>,
    /// Oldest first.
    order: VecDeque<usize>,
    kept_bytes: usize,
    /// Memory of one that is not kept any more.
    used: Vec<u8>,
    gathered: Gathered,
    /// Of heads, by their addresses, how many of their segments are looked at. Of others all are.
    until: FxHashMap<usize, usize>,
    /// Bytes decompressed so far.
    pub(super) inspected_bytes: u64,
    /// What could not be read so far.
    pub(super) left_out: LeftOut,
}

impl Reader {
    /// One that has read nothing yet. Room for its first pieces is taken at once; what a large trace takes beyond that is entered
    /// in the budget as it comes.
    ///
    /// # Errors
    /// There is no such room.
    pub(super) fn within(budget: &Budget) -> Result<Self, TooLarge> {
        let part = budget.limit_of(Account::Queries) / KEPT_PART;
        let first = (2 * WINDOW_BYTES).min(part);
        let charge = budget.charge(Account::Queries, first).map_err(|over| TooLarge { held: 0, over })?;
        Ok(Self {
            charge,
            kept_bytes_max: usize::try_from(part).unwrap_or(usize::MAX).min(KEPT_BYTES_MAX),
            gathered_bytes_max: WINDOW_BYTES.min(part),
            kept: FxHashMap::default(),
            order: VecDeque::new(),
            kept_bytes: 0,
            used: Vec::new(),
            gathered: Gathered::default(),
            until: FxHashMap::default(),
            inspected_bytes: 0,
            left_out: LeftOut::default(),
        })
    }

    /// Keeps nothing of what was read, as long as nothing more is asked of it.
    pub(super) fn pause(&mut self) {
        (self.kept, self.order, self.kept_bytes) = (FxHashMap::default(), VecDeque::new(), 0);
        (self.used, self.gathered) = (Vec::new(), Gathered::default());
        self.charge.set_held(0);
    }

    fn enter_held(&mut self) {
        let held = (self.kept_bytes + self.gathered.capacity()) as u64;
        if held > self.charge.bytes() || held < self.charge.bytes() / 2 {
            self.charge.set_held(held);
        }
    }

    /// How many of these traces, the first ones, are brought together at once: as many as have about a window's bytes here, at most
    /// `most`, at least one.
    pub(super) fn at_once(&self, view: &View, traces: impl IntoIterator<Item = TraceId>, most: usize) -> usize {
        let bytes_of = |id: &TraceId| -> u64 {
            view.heads.iter().map(|head| head.read(|contents| contents.index.get(id).map_or(0, |entry| entry.bytes))).sum()
        };
        let mut bytes = 0;
        let fits = |id: &TraceId| {
            bytes += bytes_of(id);
            bytes <= self.gathered_bytes_max
        };
        traces.into_iter().take(most).take_while(fits).count().max(1)
    }

    /// A segment's `TracesData`. None for one that cannot be read: it is noted and left out of the answer.
    pub(super) fn read(&mut self, segment: &Arc<Segment>) -> Option<Bytes> {
        let key = Arc::as_ptr(segment) as usize;
        if let Some((_, data)) = self.kept.get(&key) {
            return Some(data.clone());
        }
        let data = match segment.traces_data_in(std::mem::take(&mut self.used)) {
            Ok(data) => data,
            Err(error) => {
                self.left_out.segment(segment, &error);
                return None;
            }
        };
        self.inspected_bytes += data.len() as u64;
        self.kept_bytes += data.len();
        self.kept.insert(key, (Arc::clone(segment), data.clone()));
        self.order.push_back(key);
        while self.kept_bytes > self.kept_bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            let Some((_, data)) = self.kept.remove(&oldest) else { continue };
            self.kept_bytes -= data.len();
            if data.is_unique() {
                self.used = data.into();
            }
        }
        self.enter_held();
        Some(data)
    }

    /// Lets candidates look at a segment.
    pub(super) fn look_at(&mut self, segment: &Arc<Segment>, candidates: &mut Candidates<'_>) {
        if let Some(data) = self.read(segment)
            && let Err(error) = candidates.add(&data)
        {
            self.left_out.segment(segment, &error.into());
        }
    }

    /// From now on gathers nothing that comes later.
    pub(super) fn look_no_further(&mut self, view: &View) {
        self.until = view.heads.iter().map(|head| (Arc::as_ptr(head) as usize, head.read(|contents| contents.segments.len()))).collect();
    }

    /// The segments of a head that are looked at and have spans of any of these traces, each once, oldest first.
    fn segments_of(&self, head: &Arc<Head>, traces: &[TraceId]) -> Vec<Arc<Segment>> {
        let mut segments = head.segments_of_all(traces);
        if let Some(until) = self.until.get(&(Arc::as_ptr(head) as usize)) {
            let later: FxHashSet<*const Segment> = head.read(|contents| contents.segments.iter().skip(*until).map(Arc::as_ptr).collect());
            segments.retain(|segment| !later.contains(&Arc::as_ptr(segment)));
        }
        segments
    }

    /// All spans of these traces, wherever they lie.
    pub(super) fn gather(&mut self, heads: &[Arc<Head>], traces: &[TraceId]) -> &mut Gathered {
        let wanted: FxHashSet<TraceId> = traces.iter().copied().collect();
        let bytes_in = |contents: &Contents| -> u64 { traces.iter().filter_map(|id| contents.index.get(id)).map(|t| t.bytes).sum() };
        let bytes: u64 = heads.iter().map(|head| head.read(bytes_in)).sum();
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.clear(usize::try_from(bytes).unwrap_or(0).min(KEPT_BYTES_MAX));
        for head in heads {
            for segment in self.segments_of(head, traces) {
                if let Some(data) = self.read(&segment)
                    && let Err(error) = gathered.take_from(&segment, &data, |trace| wanted.contains(trace))
                {
                    self.left_out.segment(&segment, &error);
                }
            }
        }
        self.gathered = gathered;
        self.enter_held();
        &mut self.gathered
    }

    /// The spans of a segment that were not refused, in the bytes that [`Reader::read`] gave.
    pub(super) fn spans<'a>(segment: &Segment, data: &'a Bytes) -> Vec<SpanRef<'a>> {
        let mut spans = Vec::with_capacity(segment.header.spans as usize % (1 << 20));
        // Walked over before it was acknowledged, so it cannot fail.
        let _ = walk_spans(data, |at, span| {
            if !segment.header.refuses(&span.trace()) {
                spans.push(SpanRef { resource: at.resource, scope: at.scope, span: span.bytes });
            }
        });
        spans
    }
}
