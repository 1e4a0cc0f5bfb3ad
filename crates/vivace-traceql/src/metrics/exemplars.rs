//! Which spans are shown as exemplars. A fixed order of all spans that looks random decides, so that the choice does
//! not depend on which span came first or where it was seen.

use std::cmp::Ordering;

use vivace_core::{SpanId, TraceId};

use super::groups::Key;
use super::range::MetricsRange;
use super::series::Label;
use crate::Value;
use crate::held::Held;

/// Spans per slot of time.
const PER_SLOT: usize = 2;

/// A span that may be shown.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) rank: Rank,
    /// The span's own value, where the function looks at one.
    pub(crate) value: f64,
    /// Of its group.
    pub(crate) key: Key,
    pub(crate) labels: Vec<Label>,
}

/// A span's place in the order of all spans: by trace, then within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    trace: (u64, TraceId),
    span: (u64, SpanId),
    pub(crate) start_unix_nanos: u64,
}

impl Rank {
    pub(crate) fn new(trace_id: TraceId, trace_hash: u64, span_id: SpanId, start_unix_nanos: u64) -> Self {
        let span_hash = mixed(u64::from_be_bytes(span_id.0) ^ start_unix_nanos);
        Self { trace: (trace_hash, trace_id), span: (span_hash, span_id), start_unix_nanos }
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.trace.1
    }

    pub(crate) fn span_id(&self) -> SpanId {
        self.span.1
    }
}

pub(crate) fn trace_hash(trace_id: TraceId) -> u64 {
    let id = u128::from_be_bytes(trace_id.0);
    #[allow(clippy::cast_possible_truncation)]
    mixed(mixed(id as u64) ^ (id >> 64) as u64)
}

/// The finaliser of splitmix64.
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The candidates of each slot of time: the first spans of the first traces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    /// By rank, each of another trace.
    slots: Vec<Vec<Candidate>>,
    start: u64,
    slot_nanos: u64,
}

impl Slots {
    /// For at most `max` exemplars; 0 is none.
    pub(crate) fn new(max: usize, range: &MetricsRange) -> Self {
        if max == 0 || range.is_instant() {
            return Self::default();
        }
        let count = (max / PER_SLOT).max(1);
        let length = range.end_unix_nanos() - range.start_unix_nanos();
        Self { slots: vec![Vec::new(); count], start: range.start_unix_nanos(), slot_nanos: length.div_ceil(count as u64).max(1) }
    }

    pub(crate) fn are_wanted(&self) -> bool {
        !self.slots.is_empty()
    }

    fn slot(&self, unix_nanos: u64) -> usize {
        let slot = unix_nanos.saturating_sub(self.start).saturating_sub(1) / self.slot_nanos.max(1);
        usize::try_from(slot).unwrap_or(usize::MAX)
    }

    /// The slot in which a span of the trace would be a candidate now, if in any.
    pub(crate) fn open_slot(&self, trace_hash: u64, trace_id: TraceId, unix_nanos: u64) -> Option<usize> {
        let slot = self.slot(unix_nanos);
        let held = self.slots.get(slot)?;
        match held.last() {
            Some(last) if held.len() == PER_SLOT && (trace_hash, trace_id) > last.rank.trace => None,
            _ => Some(slot),
        }
    }

    /// Whether a span would be held in an open slot.
    pub(crate) fn accepts(&self, slot: usize, rank: &Rank) -> bool {
        let Some(held) = self.slots.get(slot) else { return false };
        held.iter().find(|other| other.rank.trace == rank.trace).is_none_or(|same_trace| *rank <= same_trace.rank)
    }

    /// Holds it if it comes before others of its slot, and there is room for it.
    pub(crate) fn offer(&mut self, slot: usize, candidate: Candidate, room: &mut Held) {
        let Some(held) = self.slots.get_mut(slot) else { return };
        match held.iter_mut().find(|other| other.rank.trace == candidate.rank.trace) {
            Some(same_trace) if same_trace.order(&candidate) == Ordering::Greater => {
                room.remove(same_trace.bytes());
                if room.add(candidate.bytes()) {
                    *same_trace = candidate;
                }
            }
            Some(_) => {}
            None if room.add(candidate.bytes()) => {
                held.push(candidate);
                held.sort_by(Candidate::order);
                held.drain(PER_SLOT.min(held.len())..).for_each(|dropped| room.remove(dropped.bytes()));
            }
            None => {}
        }
    }

    /// Takes a candidate of another place.
    pub(crate) fn merge(&mut self, candidate: Candidate, room: &mut Held) {
        let start = candidate.rank.start_unix_nanos;
        self.offer(self.slot(start), candidate, room);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.slots.iter().flatten()
    }

    /// At most `max`, each of another trace, by time.
    pub(crate) fn chosen(&self, max: usize) -> Vec<Candidate> {
        let mut all: Vec<_> = self.slots.iter().flatten().cloned().collect();
        all.sort_by(Candidate::order);
        all.dedup_by_key(|candidate| candidate.rank.trace);
        all.truncate(max);
        all.sort_by_key(|candidate| (candidate.rank.start_unix_nanos, candidate.rank));
        all
    }
}

impl Candidate {
    fn bytes(&self) -> u64 {
        let texts = self.labels.iter().map(|label| if let Value::Str(text) = &label.value { text.len() + 16 } else { 0 });
        (size_of::<Self>() + self.labels.len() * size_of::<Label>() + texts.sum::<usize>()) as u64
    }

    /// Two of the same rank are copies of one span, or pretend to be.
    fn order(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank).then_with(|| self.value.total_cmp(&other.value))
    }
}
