//! The segments that become one block, and the index from their traces to them: grows until it is cut, and is then sealed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use vivace_core::TraceId;

use crate::segment::Segment;
use crate::summary::{BlockRange, TraceSummary};

/// What a segment takes in memory, about, bytes. Its payload is in the log.
const SEGMENT_OVERHEAD_BYTES: u64 = 256;
/// What a trace takes in the index, about, bytes.
const TRACE_OVERHEAD_BYTES: u64 = 128;

/// A segment and the traces in it.
pub(crate) type Summarized = (Arc<Segment>, Vec<TraceSummary>);

/// Segments that become one block. It grows until it is cut.
#[derive(Debug, Default)]
pub(crate) struct Head {
    contents: RwLock<Contents>,
    /// Its segments have fewer copies than they were acknowledged with.
    is_under_replicated: AtomicBool,
}

/// What a head holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// In the order of their arrival.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) index: FxHashMap<TraceId, TraceEntry>,
    /// Payloads once decompressed.
    pub(crate) uncompressed_bytes: u64,
    memory_bytes: u64,
    /// When the oldest segment arrived.
    oldest_unix_seconds: u64,
    /// For the block.
    pub(crate) range: BlockRange,
}

impl Contents {
    /// The traces that it has spans of.
    pub(crate) fn traces(&self) -> Vec<TraceId> {
        self.index.keys().copied().collect()
    }
}

/// A trace within a head.
#[derive(Debug, Clone)]
pub(crate) struct TraceEntry {
    places: Places,
    pub(crate) bytes: u64,
    pub(crate) start_unix_nanos: u64,
    pub(crate) end_unix_nanos: u64,
}

/// Indexes of segments. Most traces come in one piece, so that one is held without a list.
#[derive(Debug, Clone)]
enum Places {
    One(u32),
    Many(Vec<u32>),
}

impl TraceEntry {
    /// Indexes into [`Contents::segments`], ascending.
    pub(crate) fn segments(&self) -> &[u32] {
        match &self.places {
            Places::One(place) => std::slice::from_ref(place),
            Places::Many(places) => places,
        }
    }

    fn of(place: u32, trace: &TraceSummary) -> Self {
        Self {
            places: Places::One(place),
            bytes: trace.bytes,
            start_unix_nanos: trace.start_unix_nanos,
            end_unix_nanos: trace.end_unix_nanos,
        }
    }

    fn add(&mut self, place: u32, trace: &TraceSummary) {
        match &mut self.places {
            Places::One(first) => self.places = Places::Many(vec![*first, place]),
            Places::Many(places) => places.push(place),
        }
        self.bytes += trace.bytes;
        self.start_unix_nanos = self.start_unix_nanos.min(trace.start_unix_nanos);
        self.end_unix_nanos = self.end_unix_nanos.max(trace.end_unix_nanos);
    }
}

/// What stands beside a head's decision to be cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HeadSize {
    pub(crate) segments: usize,
    pub(crate) uncompressed_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) oldest_unix_seconds: u64,
}

impl Head {
    /// Looks at the contents; writers wait meanwhile.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Contents) -> T) -> T {
        look(&self.contents.read())
    }

    /// The segments now, oldest first.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.contents.read().segments.clone()
    }

    /// The segments with spans of this trace.
    pub(crate) fn segments_of(&self, trace: &TraceId) -> Vec<Arc<Segment>> {
        let contents = self.contents.read();
        let places = contents.index.get(trace).map_or(&[][..], TraceEntry::segments);
        places.iter().map(|place| Arc::clone(&contents.segments[*place as usize])).collect()
    }

    /// The segments with spans of any of these traces, each once, oldest first.
    pub(crate) fn segments_of_all(&self, traces: &[TraceId]) -> Vec<Arc<Segment>> {
        let contents = self.contents.read();
        let mut places: Vec<u32> = traces.iter().filter_map(|t| contents.index.get(t)).flat_map(TraceEntry::segments).copied().collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| Arc::clone(&contents.segments[place as usize])).collect()
    }

    pub(crate) fn size(&self) -> HeadSize {
        let contents = self.contents.read();
        HeadSize {
            segments: contents.segments.len(),
            uncompressed_bytes: contents.uncompressed_bytes,
            memory_bytes: contents.memory_bytes,
            oldest_unix_seconds: contents.oldest_unix_seconds,
        }
    }

    /// Its segments have fewer copies than they were acknowledged with.
    pub(crate) fn is_under_replicated(&self) -> bool {
        self.is_under_replicated.load(Ordering::Relaxed)
    }

    /// Says that they do.
    pub(super) fn lose_copies(&self) {
        self.is_under_replicated.store(true, Ordering::Relaxed);
    }

    /// One that holds these segments, and grows no more.
    pub(crate) fn of(segments: impl IntoIterator<Item = Summarized>) -> Self {
        let head = Self::default();
        for (segment, traces) in segments {
            head.insert(segment, &traces);
        }
        head
    }

    /// Adds a segment; returns the memory that this took, and how large the head is once decompressed, both in bytes.
    pub(super) fn insert(&self, segment: Arc<Segment>, traces: &[TraceSummary]) -> (u64, u64) {
        let mut contents = self.contents.write();
        let contents = &mut *contents;
        let place = u32::try_from(contents.segments.len()).expect("a head is cut long before it has four billion segments");
        let traces_before = contents.index.len();
        for trace in traces.iter().filter(|t| !segment.header.refuses(&t.trace)) {
            contents.range.widen(trace.range);
            let new = || TraceEntry::of(place, trace);
            contents.index.entry(trace.trace).and_modify(|entry| entry.add(place, trace)).or_insert_with(new);
        }
        if place == 0 {
            contents.oldest_unix_seconds = segment.header.received_unix_seconds;
        }
        contents.oldest_unix_seconds = contents.oldest_unix_seconds.min(segment.header.received_unix_seconds);
        contents.uncompressed_bytes += u64::from(segment.header.uncompressed_bytes);
        let new_traces = (contents.index.len() - traces_before) as u64;
        let memory = SEGMENT_OVERHEAD_BYTES + new_traces * TRACE_OVERHEAD_BYTES;
        contents.memory_bytes += memory;
        contents.segments.push(segment);
        (memory, contents.uncompressed_bytes)
    }
}
