//! The answers of a search.

use std::collections::{HashMap, HashSet};

use vivace_core::budget::{Budget, Charge};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::{SearchMetrics, SearchResponse, TraceSearchMetadata};
use vivace_proto::vivace::v1::job::Work;
use vivace_traceql::{ROOT_NOT_YET_RECEIVED, SearchCombiner};

use crate::job_plan::PlannedJob;
use crate::run::{NamedTraces, ids};
use crate::split_traces::SplitTraces;

/// Traces that are looked at as a whole before the search is over: a stream can show them then.
const COMPLETED_AT_ONCE: usize = 20;

/// A search's traces so far, and how far it is.
///
/// Where one span decides, a trace is found by what one place has of it. Before it is answered it is looked at as a whole: what is
/// said of its root, its time and its spans is said of all of it.
pub(crate) struct SearchResult {
    combiner: SearchCombiner,
    limit: usize,
    most_recent: bool,
    metrics: SearchMetrics,
    jobs: Vec<SearchJob>,
    /// What jobs that ran on could have found when this was last looked at.
    newest_possible: u64,
    split_traces: SplitTraces,
    /// Where traces were found by a part, by their ids in the answer. Empty where they are judged as a whole.
    parts: HashMap<String, Vec<Part>>,
    /// Those of them that have been looked at as a whole.
    completed: HashSet<String>,
    /// What was seen of those that are in several places.
    wholes: SearchCombiner,
    /// How many of them have been asked for.
    asked: usize,
    /// Enough has been found; what is left is to look at it as a whole.
    has_enough: bool,
    sent: HashSet<String>,
}

/// A place that has found a trace.
struct Part {
    tenant: TenantId,
    /// The place of the block; none of what is live.
    block: Option<usize>,
    start_unix_nanos: u64,
    duration_ms: u32,
}

struct SearchJob {
    tenant: TenantId,
    block: Option<usize>,
    has_ended: bool,
    /// The start of the newest trace that it can have.
    newest_unix_nanos: u64,
    /// The traces that it looks at as a whole.
    completes: Vec<TraceId>,
    /// It brings split traces together.
    is_of_split_traces: bool,
}

impl SearchJob {
    fn of(job: &PlannedJob) -> Self {
        Self {
            tenant: job.tenant.clone(),
            block: job.block,
            has_ended: false,
            newest_unix_nanos: job.newest_unix_nanos,
            completes: Vec::new(),
            is_of_split_traces: false,
        }
    }
}

impl SearchResult {
    /// Nothing found. The jobs are those that the search begins with.
    pub(crate) fn new(
        budget: &Budget,
        limit: usize,
        most_recent: bool,
        metrics: SearchMetrics,
        jobs: &[PlannedJob],
        split_traces: SplitTraces,
    ) -> Self {
        Self {
            combiner: SearchCombiner::within(budget, limit, most_recent),
            limit,
            most_recent,
            metrics,
            jobs: jobs.iter().map(SearchJob::of).collect(),
            newest_possible: u64::MAX,
            split_traces,
            parts: HashMap::new(),
            completed: HashSet::new(),
            wholes: SearchCombiner::within(budget, 0, false),
            asked: 0,
            has_enough: false,
            sent: HashSet::new(),
        }
    }

    /// Adds the last of a job's answer.
    pub(crate) fn add(&mut self, job: usize, answer: SearchResponse) {
        self.add_traces(job, answer.traces);
        if let Some(metrics) = answer.metrics {
            self.metrics.inspected_traces += metrics.inspected_traces;
            self.metrics.inspected_bytes += metrics.inspected_bytes;
            self.metrics.inspected_spans += metrics.inspected_spans;
        }
        let job = &mut self.jobs[job];
        job.has_ended = true;
        if job.is_of_split_traces && !self.split_traces.needs_whole_traces {
            self.completed.extend(job.completes.drain(..).map(|id| id.trimmed_hex()));
        } else {
            self.metrics.completed_jobs += 1;
        }
    }

    /// Adds traces that a job has found.
    pub(crate) fn add_traces(&mut self, job: usize, traces: Vec<TraceSearchMetadata>) {
        let SearchJob { tenant, block, is_of_split_traces, .. } = &self.jobs[job];
        if *is_of_split_traces && !self.split_traces.needs_whole_traces {
            // Another tenant may have one of that id.
            traces.into_iter().for_each(|trace| self.wholes.add(trace));
            return;
        }
        for trace in traces {
            if !self.split_traces.needs_whole_traces {
                let (start_unix_nanos, duration_ms) = (trace.start_time_unix_nano, trace.duration_ms);
                let part = Part { tenant: tenant.clone(), block: *block, start_unix_nanos, duration_ms };
                self.parts.entry(trace.trace_id.clone()).or_default().push(part);
            }
            self.combiner.add(trace);
        }
    }

    /// Whether jobs that still run cannot change the answer.
    pub(crate) fn is_complete(&mut self) -> bool {
        (self.has_enough || self.is_found()) && (self.split_traces.needs_whole_traces || self.uncompleted().is_empty())
    }

    /// Whether jobs that still run cannot change which traces are returned.
    fn is_found(&mut self) -> bool {
        if !self.most_recent || self.combiner.is_complete() {
            return self.combiner.is_complete();
        }
        let running = self.jobs.iter().filter(|job| !job.has_ended && job.completes.is_empty()).map(|job| job.newest_unix_nanos);
        let waiting = self.split_traces.newest_unix_nanos().filter(|_| self.split_traces.needs_whole_traces);
        let Some(newest_possible) = running.chain(waiting).max() else { return true };
        if newest_possible == self.newest_possible || self.combiner.len() < self.limit {
            return false;
        }
        self.newest_possible = newest_possible;
        // As many as are asked for are newer than what may still come.
        self.combiner.iter().filter(|trace| trace.start_time_unix_nano > newest_possible).count() >= self.limit
    }

    /// Where enough has been found, all other jobs are to be forgotten, and what was found is to be looked at as a whole. True once.
    pub(crate) fn begin_completing(&mut self) -> bool {
        if self.split_traces.needs_whole_traces || self.has_enough || !self.is_found() {
            return false;
        }
        self.has_enough = true;
        for job in &mut self.jobs {
            job.has_ended = true;
            job.completes.drain(..).for_each(|id| self.split_traces.forget(&job.tenant, id));
        }
        true
    }

    /// Traces of the answer that have not been looked at as a whole.
    fn uncompleted(&self) -> Vec<String> {
        if self.parts.keys().all(|id| self.completed.contains(id)) {
            return Vec::new();
        }
        let mut newest: Vec<(u64, &String)> = self.combiner.iter().map(|trace| (trace.start_time_unix_nano, &trace.trace_id)).collect();
        newest.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        newest.truncate(self.limit.max(1));
        newest.into_iter().map(|(_, id)| id).filter(|id| !self.completed.contains(*id)).cloned().collect()
    }

    /// Takes traces that a job could not judge.
    pub(crate) fn add_named(&mut self, job: usize, named: NamedTraces) {
        let SearchJob { tenant, block, newest_unix_nanos, .. } = &self.jobs[job];
        let mut blocks: HashMap<TraceId, Vec<usize>> = HashMap::new();
        for in_block in &named.live_in_blocks {
            let Some(place) = self.split_traces.place(tenant, &in_block.block_id) else { continue };
            ids(&in_block.trace_ids).for_each(|id| blocks.entry(id).or_default().push(place));
        }
        for id in ids(&named.split) {
            let mut of_trace = blocks.remove(&id).unwrap_or_default();
            of_trace.extend(*block);
            self.split_traces.add(tenant, id, of_trace, *newest_unix_nanos);
        }
    }

    /// Jobs for traces that wait to be brought together; all of them when all other jobs have ended.
    pub(crate) fn split_trace_jobs(&mut self, all: bool) -> Vec<(TenantId, Work)> {
        if !self.split_traces.needs_whole_traces {
            // More and more at a time, so that long answers are not looked through again and again.
            if !all && (self.most_recent || self.parts.len() < self.asked + self.asked.max(COMPLETED_AT_ONCE)) {
                return Vec::new();
            }
            self.asked = self.parts.len();
            for text in self.uncompleted() {
                let Ok(id) = text.parse::<TraceId>() else { continue };
                let mut blocks: HashMap<&TenantId, Vec<usize>> = HashMap::new();
                for part in self.parts.get(&text).into_iter().flatten() {
                    let end = part.start_unix_nanos.saturating_add((u64::from(part.duration_ms) + 1) * 1_000_000);
                    let near = || self.split_traces.near_live(&part.tenant, part.start_unix_nanos, end);
                    blocks.entry(&part.tenant).or_default().extend(part.block.map_or_else(near, |block| vec![block]));
                }
                blocks.into_iter().for_each(|(tenant, blocks)| self.split_traces.add(tenant, id, blocks, u64::MAX));
            }
        }
        let mut jobs = Vec::new();
        let needs_whole_traces = self.split_traces.needs_whole_traces;
        for (job, traces) in self.split_traces.take_jobs(all || !needs_whole_traces) {
            let completes = if needs_whole_traces { Vec::new() } else { traces };
            self.jobs.push(SearchJob { completes, is_of_split_traces: true, ..SearchJob::of(&job) });
            // What only looks once more at what was found is no part of the search that its client is told of.
            self.metrics.total_jobs += u32::from(needs_whole_traces);
            jobs.push((job.tenant, job.work));
        }
        jobs
    }

    pub(crate) fn metrics(&self) -> SearchMetrics {
        self.metrics
    }

    /// Traces that a stream can show before the search is over: clients keep the first copy they get, so only those that are known
    /// as a whole and whose root is known, once each; of the newest only none, since which ones those are is known at the end.
    ///
    /// Source: docs/facts/clients.md, "A stream's first copy of a trace stays".
    pub(crate) fn take_presentable(&mut self) -> Vec<TraceSearchMetadata> {
        if self.most_recent {
            return Vec::new();
        }
        let has_root = |trace: &&TraceSearchMetadata| !matches!(&*trace.root_service_name, "" | ROOT_NOT_YET_RECEIVED);
        let known = self.combiner.iter().filter(|trace| self.split_traces.needs_whole_traces || self.completed.contains(&trace.trace_id));
        let known = known.map(|trace| self.wholes.get(&trace.trace_id).unwrap_or(trace));
        let unsent = known.filter(has_root).filter(|trace| !self.sent.contains(&trace.trace_id));
        let mut traces: Vec<TraceSearchMetadata> = unsent.map(with_first_set).collect();
        traces.sort_unstable_by_key(|trace| std::cmp::Reverse(trace.start_time_unix_nano));
        self.sent.extend(traces.iter().map(|trace| trace.trace_id.clone()));
        traces
    }

    /// The ids of the traces that [`SearchResult::take_presentable`] has given.
    pub(crate) fn take_sent(&mut self) -> HashSet<String> {
        std::mem::take(&mut self.sent)
    }

    /// What is missing because it did not fit into memory.
    pub(crate) fn warning(&self) -> Option<String> {
        self.combiner.warning().or_else(|| self.wholes.warning())
    }

    /// All traces, newest first, and what is charged for them. Without the old member for the first spanset: see
    /// [`with_first_set`].
    pub(crate) fn finish(self) -> (SearchResponse, Charge) {
        let mut wholes = self.wholes;
        let (mut traces, held) = self.combiner.finish_charged();
        // What is known of the whole in place of what is known of a part.
        for trace in &mut traces {
            if let Some(mut whole) = wholes.remove(&trace.trace_id) {
                if whole.root_service_name.is_empty() {
                    ROOT_NOT_YET_RECEIVED.clone_into(&mut whole.root_service_name);
                }
                *trace = whole;
            }
        }
        traces.sort_by(|a, b| b.start_time_unix_nano.cmp(&a.start_time_unix_nano).then_with(|| a.trace_id.cmp(&b.trace_id)));
        (SearchResponse { traces, metrics: Some(self.metrics) }, held)
    }
}

/// As clients get it: the first spanset stands in a member of its own too, for the older ones of them.
pub(crate) fn with_first_set(trace: &TraceSearchMetadata) -> TraceSearchMetadata {
    TraceSearchMetadata { span_set: trace.span_sets.first().cloned(), ..trace.clone() }
}

#[cfg(test)]
mod tests {
    use vivace_proto::tempopb::SearchRequest;

    use super::*;
    use crate::view::tests::view;

    fn answer(traces: &[(&str, u64, &str)]) -> SearchResponse {
        let trace = |(id, start, root): &(&str, u64, &str)| TraceSearchMetadata {
            trace_id: (*id).to_owned(),
            start_time_unix_nano: *start,
            root_service_name: (*root).to_owned(),
            ..Default::default()
        };
        SearchResponse { traces: traces.iter().map(trace).collect(), metrics: None }
    }

    /// A search of which nothing is known but how new its jobs' traces can be.
    fn search(limit: usize, most_recent: bool, needs_whole_traces: bool, newest_unix_nanos: &[u64]) -> SearchResult {
        let job = |newest: &u64| PlannedJob {
            tenant: TenantId::single(),
            work: Work::SearchRecent(SearchRequest::default()),
            block: None,
            newest_unix_nanos: *newest,
        };
        let jobs: Vec<PlannedJob> = newest_unix_nanos.iter().map(job).collect();
        let split_traces = SplitTraces::new(SearchRequest::default(), needs_whole_traces, true, view(Vec::new()), 0);
        SearchResult::new(&Budget::unlimited(), limit, most_recent, SearchMetrics::default(), &jobs, split_traces)
    }

    #[test]
    fn a_trace_without_root_is_held_back_until_the_end() {
        let mut result = search(10, false, true, &[u64::MAX, 5]);
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
        let mut result = search(1, true, true, &[u64::MAX, 50, 40]);
        result.add(1, answer(&[("b", 45, "x")]));
        assert!(!result.is_complete());
        result.add(0, answer(&[("a", 44, "x")]));
        assert!(result.is_complete());
        assert_eq!(result.finish().0.traces[0].trace_id, "b");
    }

    #[test]
    fn traces_that_wait_may_be_among_the_most_recent() {
        let mut result = search(1, true, true, &[50, 46]);
        result.add_named(1, NamedTraces { split: vec![1; 16].into(), ..NamedTraces::default() });
        result.add(1, answer(&[]));
        result.add(0, answer(&[("b", 45, "x")]));
        assert!(!result.is_complete());
        assert_eq!(result.split_trace_jobs(true).len(), 1);
        assert!(!result.is_complete());
        result.add(2, answer(&[("a", 46, "x")]));
        assert!(result.is_complete());
        assert_eq!(result.metrics().total_jobs, 1);
        assert_eq!(result.finish().0.traces[0].trace_id, "a");
    }

    #[test]
    fn what_a_part_has_found_is_shown_as_a_whole() {
        let hex = |n: u8| TraceId([n; 16]).trimmed_hex();
        let mut result = search(2, false, false, &[50, 40, 30]);
        result.add(0, answer(&[(&hex(1), 5, "part"), (&hex(2), 6, "alone")]));
        assert!(!result.is_complete() && result.take_presentable().is_empty(), "found, and not yet known as a whole");
        assert!(result.begin_completing() && !result.begin_completing(), "the other jobs are not needed");
        let jobs = result.split_trace_jobs(true);
        assert_eq!(jobs.len(), 1);
        result.add(3, answer(&[(&hex(1), 2, "whole")]));
        assert!(result.is_complete() && result.split_trace_jobs(true).is_empty());
        let shown = |traces: Vec<TraceSearchMetadata>| -> Vec<(u64, String)> {
            traces.into_iter().map(|trace| (trace.start_time_unix_nano, trace.root_service_name)).collect()
        };
        let want = [(6, "alone".to_owned()), (2, "whole".to_owned())];
        assert_eq!(shown(result.take_presentable()), want);
        assert_eq!(shown(result.finish().0.traces), want);
    }
}
