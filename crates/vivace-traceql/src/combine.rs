//! Putting the results of many places together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use vivace_core::budget::{Budget, Charge};
use vivace_proto::otlp::{AnyValue, KeyValue, any_value};
use vivace_proto::tempopb::{ServiceStats, Span, SpanSet, TraceSearchMetadata};

use crate::held::{Held, TooLarge};

/// Shown for a trace whose root is not known when the search is over.
pub const ROOT_NOT_YET_RECEIVED: &str = "<root span not yet received>";

/// Merges search results by trace; the order in which they come makes no difference to a trace. The old member for the first of
/// a trace's spansets is left to those who answer clients: it says nothing that the others do not.
///
/// Source: docs/facts/traceql.md, "How many, which, in what order".
#[derive(Debug, Clone)]
pub struct SearchCombiner {
    limit: usize,
    most_recent: bool,
    traces: HashMap<String, TraceSearchMetadata>,
    /// Traces that start at this time or earlier were dropped for newer ones.
    dropped_until_unix_nanos: Option<u64>,
    held: Held,
}

impl SearchCombiner {
    /// Keeps `limit` traces (0: all); with `most_recent` exactly the newest, else the first that come. Without limit to memory.
    #[must_use]
    pub fn new(limit: usize, most_recent: bool) -> Self {
        Self::within(&Budget::unlimited(), limit, most_recent)
    }

    /// The same with what is held charged to the budget's account for queries. Where no more fits it is complete, and says so
    /// ([`SearchCombiner::warning`]).
    #[must_use]
    pub fn within(budget: &Budget, limit: usize, most_recent: bool) -> Self {
        let limit = if limit == 0 { usize::MAX } else { limit };
        Self { limit, most_recent, traces: HashMap::new(), dropped_until_unix_nanos: None, held: Held::new(budget) }
    }

    /// Adds what one place knows of a trace.
    pub fn add(&mut self, trace: TraceSearchMetadata) {
        let complete = self.is_complete();
        let dropped_until = self.dropped_until_unix_nanos;
        match self.traces.entry(trace.trace_id.clone()) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                // All of it may have to be added; what was not is given back.
                let (before, more) = (bytes(known), bytes(&trace));
                if self.held.add(more) {
                    merge(known, trace);
                    self.held.remove((before + more).saturating_sub(bytes(known)));
                }
            }
            Entry::Vacant(_) if complete || dropped_until.is_some_and(|until| trace.start_time_unix_nano <= until) => {}
            Entry::Vacant(place) => {
                if self.held.add(bytes(&trace)) {
                    place.insert(trace);
                }
            }
        }
        // Twice the limit are held, so that what is dropped is dropped in bulk.
        if self.most_recent && self.traces.len() >= self.limit.saturating_mul(2).max(64) {
            self.drop_older();
        }
    }

    /// Whether more results cannot change which traces are returned, or no more of them fit into memory.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.held.is_over() || (!self.most_recent && self.traces.len() >= self.limit)
    }

    /// What is missing in the answer because it did not fit into memory, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.held.check().err().map(|error| format!("the search ended early with {} traces: {error}", self.traces.len()))
    }

    /// Whether anything was found, if there was no memory for all: an answer without any is none.
    ///
    /// # Errors
    /// Nothing was found, and something did not fit.
    pub fn check_any(&self) -> Result<(), TooLarge> {
        if self.traces.is_empty() { self.held.check() } else { Ok(()) }
    }

    /// What is known of a trace.
    #[must_use]
    pub fn get(&self, trace_id: &str) -> Option<&TraceSearchMetadata> {
        self.traces.get(trace_id)
    }

    /// Takes out what is known of a trace.
    pub fn remove(&mut self, trace_id: &str) -> Option<TraceSearchMetadata> {
        let removed = self.traces.remove(trace_id)?;
        self.held.remove(bytes(&removed));
        Some(removed)
    }

    /// Forgets the traces that are not wanted, and of the others the older ones where there are more than `limit` (0: none).
    pub fn retain(&mut self, limit: usize, wanted: impl Fn(&TraceSearchMetadata) -> bool) {
        let unwanted: Vec<String> = self.traces.values().filter(|trace| !wanted(trace)).map(|trace| trace.trace_id.clone()).collect();
        unwanted.iter().for_each(|id| drop(self.remove(id)));
        self.limit = if limit == 0 { usize::MAX } else { limit };
        if self.traces.len() > self.limit {
            self.drop_older();
        }
    }

    /// The traces known so far, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &TraceSearchMetadata> {
        self.traces.values()
    }

    /// Traces known so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traces.len().min(self.limit)
    }

    /// Whether no trace is known so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// The traces, newest first. Roots that are still unknown are said to be.
    #[must_use]
    pub fn finish(self) -> Vec<TraceSearchMetadata> {
        self.finish_charged().0
    }

    /// The same, and what is charged for them.
    #[must_use]
    pub fn finish_charged(self) -> (Vec<TraceSearchMetadata>, Charge) {
        let mut traces: Vec<_> = self.traces.into_values().collect();
        traces.sort_unstable_by(newest_first);
        traces.truncate(self.limit);
        for trace in &mut traces {
            if trace.root_service_name.is_empty() {
                ROOT_NOT_YET_RECEIVED.clone_into(&mut trace.root_service_name);
            }
        }
        (traces, self.held.into_charge())
    }

    fn drop_older(&mut self) {
        let mut traces: Vec<_> = self.traces.drain().map(|(_, trace)| trace).collect();
        traces.sort_unstable_by(newest_first);
        let dropped = traces.get(self.limit).map(|trace| trace.start_time_unix_nano);
        self.dropped_until_unix_nanos = self.dropped_until_unix_nanos.max(dropped);
        traces.drain(self.limit.min(traces.len())..).for_each(|dropped| self.held.remove(bytes(&dropped)));
        self.traces = traces.into_iter().map(|trace| (trace.trace_id.clone(), trace)).collect();
    }
}

fn newest_first(a: &TraceSearchMetadata, b: &TraceSearchMetadata) -> std::cmp::Ordering {
    b.start_time_unix_nano.cmp(&a.start_time_unix_nano).then_with(|| a.trace_id.cmp(&b.trace_id))
}

fn merge(known: &mut TraceSearchMetadata, other: TraceSearchMetadata) {
    // Of two different names the smaller one, so that the order of results makes no difference.
    let name = |known: &mut String, other: String| {
        if !other.is_empty() && other != ROOT_NOT_YET_RECEIVED && (known.is_empty() || known == ROOT_NOT_YET_RECEIVED || other < *known) {
            *known = other;
        }
    };
    name(&mut known.root_service_name, other.root_service_name);
    name(&mut known.root_trace_name, other.root_trace_name);
    known.start_time_unix_nano = known.start_time_unix_nano.min(other.start_time_unix_nano);
    known.duration_ms = known.duration_ms.max(other.duration_ms);
    for (service, stats) in other.service_stats {
        let entry = known.service_stats.entry(service).or_insert(ServiceStats { span_count: 0, error_count: 0 });
        entry.span_count = entry.span_count.max(stats.span_count);
        entry.error_count = entry.error_count.max(stats.error_count);
    }
    for set in other.span_sets {
        match known.span_sets.iter_mut().find(|known| same_group(known, &set)) {
            Some(known) if set.matched > known.matched => *known = set,
            Some(_) => {}
            None => known.span_sets.push(set),
        }
    }
}

/// Memory of a trace among the results.
fn bytes(trace: &TraceSearchMetadata) -> u64 {
    /// Of an entry of a map or list, with its slack.
    const ENTRY_BYTES: usize = 64;
    fn value(of: &AnyValue) -> usize {
        match &of.value {
            Some(any_value::Value::StringValue(text)) => text.len(),
            Some(any_value::Value::BytesValue(bytes)) => bytes.len(),
            Some(any_value::Value::ArrayValue(array)) => array.values.iter().map(|of| size_of::<AnyValue>() + value(of)).sum(),
            _ => 0,
        }
    }
    let attributes =
        |list: &[KeyValue]| list.iter().map(|kv| size_of::<KeyValue>() + kv.key.len() + kv.value.as_ref().map_or(0, value)).sum::<usize>();
    let span = |span: &Span| size_of::<Span>() + span.span_id.len() + span.name.len() + attributes(&span.attributes);
    let set = |set: &SpanSet| size_of::<SpanSet>() + attributes(&set.attributes) + set.spans.iter().map(span).sum::<usize>();
    let stats = trace.service_stats.keys().map(|service| size_of::<(String, ServiceStats)>() + ENTRY_BYTES + service.len());
    let texts = 2 * trace.trace_id.len() + trace.root_service_name.len() + trace.root_trace_name.len();
    let sets = trace.span_sets.iter().map(set).sum::<usize>();
    (size_of::<TraceSearchMetadata>() + ENTRY_BYTES + texts + stats.sum::<usize>() + sets) as u64
}

/// Whether two spansets of one trace are the same group: equal in what they are grouped by.
fn same_group(a: &SpanSet, b: &SpanSet) -> bool {
    fn by(set: &SpanSet) -> impl Iterator<Item = &KeyValue> {
        set.attributes.iter().filter(|attribute| attribute.key.starts_with("by("))
    }
    by(a).eq(by(b))
}
