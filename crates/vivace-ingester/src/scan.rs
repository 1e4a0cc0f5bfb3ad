//! Reading live segments for queries.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_block::SpanRef;
use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;

use crate::gather::Gathered;
use crate::live::{Contents, Head, TraceEntry, View};
use crate::segment::Segment;
use crate::summary::summarize;

/// Decompressed segments that one query keeps at a time, bytes.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Segments that a query looks at before it says what it has found, in bytes once decompressed.
const WINDOW_BYTES: u64 = 32 << 20;

/// The last segments that a query has read, decompressed: candidates are looked for and then gathered in the same ones.
#[derive(Default)]
pub(crate) struct Reader {
    kept: FxHashMap<usize, (Arc<Segment>, Bytes)>,
    /// Oldest first.
    order: VecDeque<usize>,
    kept_bytes: usize,
    /// Bytes decompressed so far.
    pub(crate) inspected_bytes: u64,
}

impl Reader {
    /// A segment's `TracesData`. None for one that cannot be read: it is logged and left out of the answer.
    pub(crate) fn read(&mut self, segment: &Arc<Segment>) -> Option<Bytes> {
        let key = Arc::as_ptr(segment) as usize;
        if let Some((_, data)) = self.kept.get(&key) {
            return Some(data.clone());
        }
        let data = match segment.traces_data() {
            Ok(data) => data,
            Err(error) => {
                tracing::error!(tenant = %segment.header.tenant, segment = ?segment.header.id, %error, "segment left out of an answer");
                return None;
            }
        };
        self.inspected_bytes += data.len() as u64;
        self.kept_bytes += data.len();
        self.kept.insert(key, (Arc::clone(segment), data.clone()));
        self.order.push_back(key);
        while self.kept_bytes > KEPT_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept_bytes -= self.kept.remove(&oldest).map_or(0, |(_, data)| data.len());
        }
        Some(data)
    }

    /// All spans of these traces, wherever they lie.
    pub(crate) fn gather(&mut self, heads: &[Arc<Head>], traces: &[TraceId]) -> Gathered {
        let wanted: FxHashSet<TraceId> = traces.iter().copied().collect();
        let bytes_in = |contents: &Contents| -> u64 { traces.iter().filter_map(|id| contents.index.get(id)).map(|t| t.bytes).sum() };
        let bytes: u64 = heads.iter().map(|head| head.read(bytes_in)).sum();
        let mut gathered = Gathered::with_capacity(usize::try_from(bytes).unwrap_or(0).min(KEPT_BYTES_MAX));
        for head in heads {
            for segment in head.segments_of_all(traces) {
                if let Some(data) = self.read(&segment)
                    && let Err(error) = gathered.take_from(&segment, &data, |trace| wanted.contains(trace))
                {
                    tracing::error!(tenant = %segment.header.tenant, segment = ?segment.header.id, %error, "segment left out of an answer");
                }
            }
        }
        gathered
    }

    /// The spans of a segment that were not refused, in the bytes that [`Reader::read`] gave.
    pub(crate) fn spans<'a>(segment: &Segment, data: &'a Bytes) -> Vec<SpanRef<'a>> {
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

impl View {
    /// Takes held segments into the view, as one more head.
    pub(crate) fn add_held(&mut self, held: &[Arc<Segment>], reader: &mut Reader) {
        let head = Head::default();
        for segment in held {
            if let Some(Ok(traces)) = reader.read(segment).map(|data| summarize(&data)) {
                head.insert(Arc::clone(segment), &traces);
            }
        }
        self.heads.insert(0, Arc::new(head));
    }

    /// All traces, those that came last first, in groups whose segments fit into a reader.
    pub(crate) fn trace_windows(&self) -> Vec<Vec<TraceId>> {
        let mut seen: FxHashSet<TraceId> = FxHashSet::default();
        let mut windows = Vec::new();
        let (mut window, mut bytes) = (Vec::new(), 0);
        for head in self.heads.iter().rev() {
            let last = |(id, entry): (&TraceId, &TraceEntry)| (entry.segments().last().copied(), entry.bytes, *id);
            let mut traces: Vec<(Option<u32>, u64, TraceId)> = head.read(|contents| contents.index.iter().map(last).collect());
            traces.sort_unstable_by(|a, b| b.cmp(a));
            for (_, size, id) in traces {
                if seen.insert(id) {
                    window.push(id);
                    bytes += size;
                }
                if bytes >= WINDOW_BYTES {
                    windows.push(std::mem::take(&mut window));
                    bytes = 0;
                }
            }
        }
        windows.push(window);
        windows
    }

    /// All segments, newest first, in groups that fit into a reader.
    pub(crate) fn windows(&self) -> Vec<Vec<Arc<Segment>>> {
        let mut windows = Vec::new();
        let mut window = Vec::new();
        let mut bytes = 0;
        for segment in self.heads.iter().rev().flat_map(|head| head.segments().into_iter().rev()) {
            bytes += u64::from(segment.header.uncompressed_bytes);
            window.push(segment);
            if bytes >= WINDOW_BYTES {
                windows.push(std::mem::take(&mut window));
                bytes = 0;
            }
        }
        windows.push(window);
        windows
    }
}
