//! Which segments and traces of a view a query looks at, and in which order.

use std::ops::ControlFlow;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;
use vivace_block::TracePart;
use vivace_block::live::Candidates;
use vivace_core::{TimeRange, TraceId};
use vivace_traceql::{Fetch, TraceFilter};

use super::reader::{Reader, WINDOW_BYTES};
use crate::segment::Segment;
use crate::store::{Contents, Head, TraceEntry, View};
use crate::summary::summarize;

/// A trace that may match together with spans from elsewhere, and whether it may by itself.
pub(super) type Candidate = (TraceId, bool);

impl View {
    /// Brings what is held among the live segments, as one more head. Some of it, when the client has gone away.
    pub(super) fn index_held(&mut self, reader: &mut Reader, stop: &CancellationToken) {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return;
        }
        let some = held.into_iter().take_while(|_| !stop.is_cancelled());
        let readable = some.filter_map(|segment| {
            let traces = summarize(&reader.read(&segment)?).ok()?;
            Some((segment, traces))
        });
        self.heads.insert(0, Arc::new(Head::of(readable)));
    }

    /// Gives `each` the traces that may match, by themselves or together with spans from elsewhere, and whether they may by
    /// themselves; those that came last first, in groups of about a window's size, until it breaks or the client has gone away.
    pub(super) fn candidates(
        &self,
        fetch: &Fetch,
        stop: &CancellationToken,
        reader: &mut Reader,
        each: &mut dyn FnMut(&mut Reader, Vec<Candidate>) -> ControlFlow<()>,
    ) {
        let mut give = |reader: &mut Reader, traces| if stop.is_cancelled() { ControlFlow::Break(()) } else { each(reader, traces) };
        if fetch.filter == TraceFilter::All {
            let windows = self.trace_windows(|_| true).into_iter();
            let _ = windows.map(|ids| ids.into_iter().map(|id| (id, true)).collect()).try_for_each(|traces| give(reader, traces));
            return;
        }
        let mut seen: FxHashMap<TraceId, bool> = FxHashMap::default();
        let by_window = is_decided_by_one_span(&fetch.filter);
        // What several spans decide together cannot be told from some of the segments.
        for window in if by_window { self.windows() } else { vec![self.windows().concat()] } {
            let mut candidates = Candidates::new(fetch);
            for segment in &window {
                if stop.is_cancelled() {
                    return;
                }
                reader.look_at(segment, &mut candidates);
            }
            let mut traces = candidates.finish_parts();
            traces.retain(|(id, alone)| seen.insert(*id, *alone).is_none());
            let groups = if by_window {
                vec![traces]
            } else {
                let windows = self.trace_windows(|id| seen.contains_key(id)).into_iter();
                windows.map(|ids| ids.into_iter().filter_map(|id| Some((id, *seen.get(&id)?))).collect()).collect()
            };
            if groups.into_iter().try_for_each(|traces| give(reader, traces)).is_break() {
                return;
            }
        }
    }

    /// What there is live of these traces, where that overlaps the range: when the first span started and the last one ended.
    pub(super) fn parts(&self, ids: impl Iterator<Item = TraceId> + Clone, range: TimeRange) -> Vec<TracePart> {
        let mut parts: FxHashMap<TraceId, TracePart> = FxHashMap::default();
        for head in &self.heads {
            head.read(|contents| {
                for trace_id in ids.clone() {
                    let Some(entry) = contents.index.get(&trace_id) else { continue };
                    let (start_unix_nanos, end_unix_nanos) = (entry.start_unix_nanos, entry.end_unix_nanos);
                    let part = parts.entry(trace_id).or_insert(TracePart { trace_id, start_unix_nanos, end_unix_nanos });
                    part.start_unix_nanos = part.start_unix_nanos.min(start_unix_nanos);
                    part.end_unix_nanos = part.end_unix_nanos.max(end_unix_nanos);
                }
            });
        }
        parts.into_values().filter(|part| range.overlaps(part.start_unix_nanos, part.end_unix_nanos)).collect()
    }

    /// The same, those first whose last span ended last.
    pub(super) fn newest_parts(&self, ids: impl Iterator<Item = TraceId> + Clone, range: TimeRange) -> Vec<TracePart> {
        let mut parts = self.parts(ids, range);
        parts.sort_unstable_by_key(|part| (std::cmp::Reverse(part.end_unix_nanos), part.trace_id));
        parts
    }

    /// The traces that are wanted, those that came last first, in groups of a window's size.
    pub(super) fn trace_windows(&self, wanted: impl Fn(&TraceId) -> bool) -> Vec<Vec<TraceId>> {
        let mut seen: FxHashSet<TraceId> = FxHashSet::default();
        let mut windows = Vec::new();
        let (mut window, mut bytes) = (Vec::new(), 0);
        for head in self.heads.iter().rev() {
            let last = |(id, entry): (&TraceId, &TraceEntry)| (entry.segments().last().copied(), entry.bytes, *id);
            let of_head = |contents: &Contents| contents.index.iter().filter(|(id, _)| wanted(id)).map(last).collect();
            let mut traces: Vec<(Option<u32>, u64, TraceId)> = head.read(of_head);
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

    /// All segments, newest first, in groups of a window's size.
    pub(super) fn windows(&self) -> Vec<Vec<Arc<Segment>>> {
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

/// Whether a trace that passes has a span that makes it pass, so that looking at that span's segment is enough.
fn is_decided_by_one_span(filter: &TraceFilter) -> bool {
    match filter {
        TraceFilter::All | TraceFilter::Nothing | TraceFilter::AnySpan(_) => true,
        TraceFilter::And(filters) => filters.len() < 2 && filters.iter().all(is_decided_by_one_span),
        TraceFilter::Or(filters) => filters.iter().all(is_decided_by_one_span),
    }
}
