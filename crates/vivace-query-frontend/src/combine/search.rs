//! The answers of a search.

use std::collections::HashSet;

use vivace_proto::tempopb::{SearchMetrics, SearchResponse, TraceSearchMetadata};
use vivace_traceql::{ROOT_NOT_YET_RECEIVED, SearchCombiner};

/// A search's traces so far, and how far it is.
pub(crate) struct SearchResult {
    combiner: SearchCombiner,
    limit: usize,
    most_recent: bool,
    metrics: SearchMetrics,
    /// Per job, newest first: whether it has ended, and the start of the newest trace it can have.
    jobs: Vec<(bool, u64)>,
    first_running: usize,
    sent: HashSet<String>,
}

impl SearchResult {
    /// `newest_unix_nanos`: per job, newest first.
    pub(crate) fn new(limit: usize, most_recent: bool, metrics: SearchMetrics, newest_unix_nanos: impl Iterator<Item = u64>) -> Self {
        Self {
            combiner: SearchCombiner::new(limit, most_recent),
            limit,
            most_recent,
            metrics,
            jobs: newest_unix_nanos.map(|newest| (false, newest)).collect(),
            first_running: 0,
            sent: HashSet::new(),
        }
    }

    /// Adds a job's answer.
    pub(crate) fn add(&mut self, job: usize, answer: SearchResponse) {
        self.metrics.completed_jobs += 1;
        if let Some(metrics) = answer.metrics {
            self.metrics.inspected_traces += metrics.inspected_traces;
            self.metrics.inspected_bytes += metrics.inspected_bytes;
            self.metrics.inspected_spans += metrics.inspected_spans;
        }
        for trace in answer.traces {
            self.combiner.add(trace);
        }
        self.jobs[job].0 = true;
    }

    /// Whether jobs that still run cannot change which traces are returned.
    pub(crate) fn is_complete(&mut self) -> bool {
        if !self.most_recent {
            return self.combiner.is_complete();
        }
        let before = self.first_running;
        while self.jobs.get(self.first_running).is_some_and(|(ended, _)| *ended) {
            self.first_running += 1;
        }
        if self.first_running == before || self.combiner.len() < self.limit {
            return false;
        }
        let Some((_, newest_possible)) = self.jobs.get(self.first_running) else { return true };
        self.combiner.clone().finish().last().is_some_and(|oldest| oldest.start_time_unix_nano > *newest_possible)
    }

    pub(crate) fn metrics(&self) -> SearchMetrics {
        self.metrics
    }

    /// Traces that a stream can show before the search is over: clients keep the first copy they get, so only those whose root
    /// is known, once each; of the newest only none, since which ones those are is known at the end.
    ///
    /// Source: client facts, trap 6.
    pub(crate) fn take_presentable(&mut self) -> Vec<TraceSearchMetadata> {
        if self.most_recent {
            return Vec::new();
        }
        let mut traces = self.combiner.clone().finish();
        traces.retain(|trace| trace.root_service_name != ROOT_NOT_YET_RECEIVED && !self.sent.contains(&trace.trace_id));
        self.sent.extend(traces.iter().map(|trace| trace.trace_id.clone()));
        traces
    }

    /// All traces, newest first.
    pub(crate) fn finish(self) -> SearchResponse {
        let mut traces = self.combiner.finish();
        for trace in &mut traces {
            trace.span_set = trace.span_sets.first().cloned();
        }
        SearchResponse { traces, metrics: Some(self.metrics) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(traces: &[(&str, u64, &str)]) -> SearchResponse {
        let trace = |(id, start, root): &(&str, u64, &str)| TraceSearchMetadata {
            trace_id: (*id).to_owned(),
            start_time_unix_nano: *start,
            root_service_name: (*root).to_owned(),
            ..Default::default()
        };
        SearchResponse { traces: traces.iter().map(trace).collect(), metrics: None }
    }

    #[test]
    fn a_trace_without_root_is_held_back_until_the_end() {
        let mut result = SearchResult::new(10, false, SearchMetrics::default(), [u64::MAX, 5].into_iter());
        result.add(0, answer(&[("a", 1, ""), ("b", 2, "shop")]));
        let ids = |traces: Vec<TraceSearchMetadata>| traces.into_iter().map(|t| t.trace_id).collect::<Vec<_>>();
        assert_eq!(ids(result.take_presentable()), ["b"]);
        result.add(1, answer(&[("a", 1, "cart")]));
        assert_eq!(ids(result.take_presentable()), ["a"]);
        assert_eq!(ids(result.take_presentable()), [""; 0]);
        assert_eq!(ids(result.finish().traces), ["b", "a"]);
    }

    #[test]
    fn the_most_recent_are_known_once_older_jobs_cannot_beat_them() {
        let mut result = SearchResult::new(1, true, SearchMetrics::default(), [u64::MAX, 50, 40].into_iter());
        result.add(1, answer(&[("b", 45, "x")]));
        assert!(!result.is_complete());
        result.add(0, answer(&[("a", 44, "x")]));
        assert!(result.is_complete());
        assert_eq!(result.finish().traces[0].trace_id, "b");
    }
}
