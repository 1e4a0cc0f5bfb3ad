//! The answers of a search.

use std::collections::HashSet;

use vivace_core::TenantId;
use vivace_core::budget::{Budget, Charge};
use vivace_proto::tempopb::{SearchMetrics, SearchResponse, TraceSearchMetadata};
use vivace_proto::vivace::v1::TracePart;
use vivace_proto::vivace::v1::job::Work;
use vivace_traceql::{ROOT_NOT_YET_RECEIVED, SearchCombiner};

use crate::whole::Together;

/// A search's traces so far, and how far it is.
pub(crate) struct SearchResult {
    combiner: SearchCombiner,
    limit: usize,
    most_recent: bool,
    metrics: SearchMetrics,
    /// Per job whether it has ended, and the start of the newest trace it can have.
    jobs: Vec<SearchJob>,
    /// What jobs that ran on could have found when this was last looked at.
    newest_possible: u64,
    /// Where traces are judged as a whole.
    together: Option<Together>,
    sent: HashSet<String>,
}

struct SearchJob {
    tenant: TenantId,
    has_ended: bool,
    newest_unix_nanos: u64,
}

impl SearchResult {
    /// `jobs`: of each its tenant and the start of the newest trace it can have. `together`: where traces are judged as a whole.
    pub(crate) fn new(
        budget: &Budget,
        limit: usize,
        most_recent: bool,
        metrics: SearchMetrics,
        jobs: impl Iterator<Item = (TenantId, u64)>,
        together: Option<Together>,
    ) -> Self {
        let job = |(tenant, newest_unix_nanos)| SearchJob { tenant, has_ended: false, newest_unix_nanos };
        Self {
            combiner: SearchCombiner::within(budget, limit, most_recent),
            limit,
            most_recent,
            metrics,
            jobs: jobs.map(job).collect(),
            newest_possible: u64::MAX,
            together,
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
        self.jobs[job].has_ended = true;
    }

    /// Whether jobs that still run cannot change which traces are returned.
    pub(crate) fn is_complete(&mut self) -> bool {
        if !self.most_recent || self.combiner.is_complete() {
            return self.combiner.is_complete();
        }
        let running = self.jobs.iter().filter(|job| !job.has_ended).map(|job| job.newest_unix_nanos);
        let waiting = self.together.iter().filter_map(Together::newest_unix_nanos);
        let Some(newest_possible) = running.chain(waiting).max() else { return true };
        if newest_possible == self.newest_possible || self.combiner.len() < self.limit {
            return false;
        }
        self.newest_possible = newest_possible;
        // As many as are asked for are newer than what may still come.
        self.combiner.iter().filter(|trace| trace.start_time_unix_nano > newest_possible).count() >= self.limit
    }

    /// Takes traces that a job could not judge.
    pub(crate) fn add_split(&mut self, job: usize, traces: Vec<TracePart>) {
        if let Some(together) = &mut self.together {
            together.add(&self.jobs[job].tenant, traces);
        }
    }

    /// Jobs for traces that wait to be brought together; all of them when all other jobs have ended.
    pub(crate) fn jobs_together(&mut self, all: bool) -> Vec<(TenantId, Work)> {
        let Some(together) = &mut self.together else { return Vec::new() };
        let mut jobs = Vec::new();
        for (tenant, work, newest_unix_nanos) in together.take_jobs(all) {
            self.jobs.push(SearchJob { tenant: tenant.clone(), has_ended: false, newest_unix_nanos });
            self.metrics.total_jobs += 1;
            jobs.push((tenant, work));
        }
        jobs
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
        let has_root = |trace: &&TraceSearchMetadata| !matches!(&*trace.root_service_name, "" | ROOT_NOT_YET_RECEIVED);
        let unsent = self.combiner.iter().filter(has_root).filter(|trace| !self.sent.contains(&trace.trace_id));
        let mut traces: Vec<TraceSearchMetadata> = unsent.cloned().collect();
        traces.sort_unstable_by_key(|trace| std::cmp::Reverse(trace.start_time_unix_nano));
        self.sent.extend(traces.iter().map(|trace| trace.trace_id.clone()));
        traces
    }

    /// What is missing because it did not fit into memory.
    pub(crate) fn warning(&self) -> Option<String> {
        self.combiner.warning()
    }

    /// All traces, newest first, and what is charged for them.
    pub(crate) fn finish(self) -> (SearchResponse, Charge) {
        let (mut traces, held) = self.combiner.finish_charged();
        for trace in &mut traces {
            trace.span_set = trace.span_sets.first().cloned();
        }
        (SearchResponse { traces, metrics: Some(self.metrics) }, held)
    }
}

#[cfg(test)]
mod tests {
    use vivace_proto::tempopb::SearchRequest;

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

    fn jobs(newest_unix_nanos: &[u64]) -> impl Iterator<Item = (TenantId, u64)> {
        newest_unix_nanos.iter().map(|newest| (TenantId::single(), *newest))
    }

    #[test]
    fn a_trace_without_root_is_held_back_until_the_end() {
        let mut result = SearchResult::new(&Budget::unlimited(), 10, false, SearchMetrics::default(), jobs(&[u64::MAX, 5]), None);
        result.add(0, answer(&[("a", 1, ""), ("b", 2, "shop")]));
        let ids = |traces: Vec<TraceSearchMetadata>| traces.into_iter().map(|t| t.trace_id).collect::<Vec<_>>();
        assert_eq!(ids(result.take_presentable()), ["b"]);
        result.add(1, answer(&[("a", 1, "cart")]));
        assert_eq!(ids(result.take_presentable()), ["a"]);
        assert_eq!(ids(result.take_presentable()), [""; 0]);
        assert_eq!(ids(result.finish().0.traces), ["b", "a"]);
    }

    #[test]
    fn the_most_recent_are_known_once_older_jobs_cannot_beat_them() {
        let mut result = SearchResult::new(&Budget::unlimited(), 1, true, SearchMetrics::default(), jobs(&[u64::MAX, 50, 40]), None);
        result.add(1, answer(&[("b", 45, "x")]));
        assert!(!result.is_complete());
        result.add(0, answer(&[("a", 44, "x")]));
        assert!(result.is_complete());
        assert_eq!(result.finish().0.traces[0].trace_id, "b");
    }

    #[test]
    fn traces_that_wait_may_be_among_the_most_recent() {
        let together = Together::of_search(SearchRequest::default(), false);
        let mut result = SearchResult::new(&Budget::unlimited(), 1, true, SearchMetrics::default(), jobs(&[50, 40]), Some(together));
        let part = TracePart { trace_id: vec![1; 16].into(), start_unix_nanos: 46, end_unix_nanos: 46 };
        result.add_split(1, vec![part]);
        result.add(1, answer(&[]));
        result.add(0, answer(&[("b", 45, "x")]));
        assert!(!result.is_complete());
        assert_eq!(result.jobs_together(true).len(), 1);
        assert!(!result.is_complete());
        result.add(2, answer(&[("a", 46, "x")]));
        assert!(result.is_complete());
        assert_eq!(result.metrics().total_jobs, 1);
        assert_eq!(result.finish().0.traces[0].trace_id, "a");
    }
}
