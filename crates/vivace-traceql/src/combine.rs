//! Putting the results of many places together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use vivace_proto::otlp::KeyValue;
use vivace_proto::tempopb::{ServiceStats, SpanSet, TraceSearchMetadata};

/// Shown for a trace whose root is not known when the search is over.
pub const ROOT_NOT_YET_RECEIVED: &str = "<root span not yet received>";

/// Merges search results by trace; the order in which they come makes no difference to a trace.
///
/// Source: TraceQL description, "How many, which, in what order".
#[derive(Debug, Clone)]
pub struct SearchCombiner {
    limit: usize,
    most_recent: bool,
    traces: HashMap<String, TraceSearchMetadata>,
    /// Traces that start at this time or earlier were dropped for newer ones.
    dropped_until_unix_nanos: Option<u64>,
}

impl SearchCombiner {
    /// Keeps `limit` traces (0: all); with `most_recent` exactly the newest, else the first that come.
    #[must_use]
    pub fn new(limit: usize, most_recent: bool) -> Self {
        let limit = if limit == 0 { usize::MAX } else { limit };
        Self { limit, most_recent, traces: HashMap::new(), dropped_until_unix_nanos: None }
    }

    /// Adds what one place knows of a trace.
    pub fn add(&mut self, trace: TraceSearchMetadata) {
        let complete = self.is_complete();
        let dropped_until = self.dropped_until_unix_nanos;
        match self.traces.entry(trace.trace_id.clone()) {
            Entry::Occupied(mut known) => merge(known.get_mut(), trace),
            Entry::Vacant(_) if complete || dropped_until.is_some_and(|until| trace.start_time_unix_nano <= until) => {}
            Entry::Vacant(place) => {
                place.insert(trace);
            }
        }
        // Twice the limit are held, so that what is dropped is dropped in bulk.
        if self.most_recent && self.traces.len() >= self.limit.saturating_mul(2).max(64) {
            self.drop_older();
        }
    }

    /// Whether more results cannot change which traces are returned.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.most_recent && self.traces.len() >= self.limit
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
        let mut traces: Vec<_> = self.traces.into_values().collect();
        traces.sort_unstable_by(newest_first);
        traces.truncate(self.limit);
        for trace in &mut traces {
            if trace.root_service_name.is_empty() {
                ROOT_NOT_YET_RECEIVED.clone_into(&mut trace.root_service_name);
            }
        }
        traces
    }

    fn drop_older(&mut self) {
        let mut traces: Vec<_> = self.traces.drain().map(|(_, trace)| trace).collect();
        traces.sort_unstable_by(newest_first);
        let dropped = traces.get(self.limit).map(|trace| trace.start_time_unix_nano);
        self.dropped_until_unix_nanos = self.dropped_until_unix_nanos.max(dropped);
        traces.truncate(self.limit);
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
    known.span_set = known.span_sets.first().cloned();
}

/// Whether two spansets of one trace are the same group: equal in what they are grouped by.
fn same_group(a: &SpanSet, b: &SpanSet) -> bool {
    fn by(set: &SpanSet) -> impl Iterator<Item = &KeyValue> {
        set.attributes.iter().filter(|attribute| attribute.key.starts_with("by("))
    }
    by(a).eq(by(b))
}
