//! TraceQL metrics: series over a range of time, or one value each.
//!
//! Source: docs/facts/http-api.md, "Range metrics" and "Instant metrics"; docs/facts/traceql.md, "Range of a metrics query".

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vivace_config::{TraceqlRelease, format_duration};
use vivace_core::budget::Charge;
use vivace_core::{SECOND, TenantId};
use vivace_proto::tempopb::{
    PartialStatus, QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse, SearchMetrics,
};
use vivace_proto::vivace::v1::SeriesRequest;
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_result::Outcome;
use vivace_traceql::{Answer, Halted, MetricsPlan, Partial, TooLarge};

use crate::counting::Counting;
use crate::error::QueryError;
use crate::frontend::Frontend;
use crate::params::{Params, SearchRange, message_nanos_range, start_after_end};
use crate::run::NamedTraces;
use crate::running::{Collect, Running, unexpected};
use crate::view::View;

/// A metrics query as it is asked.
#[derive(Debug, Clone)]
pub(crate) struct MetricsQuery {
    query: String,
    /// Unix nanoseconds.
    start: u64,
    end: u64,
    /// Nanoseconds; without one the range decides.
    step: Option<u64>,
    is_instant: bool,
    /// 0: as many as the server allows.
    exemplars: u32,
    /// 0: as many as the server allows.
    max_series: u32,
}

impl MetricsQuery {
    /// A range query as parameters of a URL.
    pub(crate) fn range(params: &Params, now: u64) -> Result<Self, QueryError> {
        let (start, end) = params.nanos_range(now)?;
        Ok(Self {
            query: params.get("q").or_else(|| params.get("query")).unwrap_or_default().to_owned(),
            start,
            end,
            step: params.step()?,
            is_instant: matches!(params.get("instant"), Some("true" | "1")),
            exemplars: params.lenient_u32("exemplars"),
            max_series: params.lenient_u32("maxSeries"),
        })
    }

    /// An instant query as parameters of a URL.
    pub(crate) fn instant(params: &Params, now: u64) -> Result<Self, QueryError> {
        let range = Self::range(params, now)?;
        Ok(Self { step: None, is_instant: true, exemplars: 0, ..range })
    }

    /// A range query as a message. Source: docs/facts/grpc-api.md, "Metrics messages".
    pub(crate) fn range_message(request: QueryRangeRequest, now: u64) -> Result<Self, QueryError> {
        let (start, end) = message_nanos_range(request.start, request.end, now)?;
        Ok(Self {
            query: request.query,
            start,
            end,
            step: Some(request.step).filter(|step| *step > 0),
            is_instant: request.instant.unwrap_or(false),
            exemplars: request.exemplars,
            max_series: request.max_series,
        })
    }

    /// An instant query as a message.
    pub(crate) fn instant_message(request: QueryInstantRequest, now: u64) -> Result<Self, QueryError> {
        let (start, end) = message_nanos_range(request.start, request.end, now)?;
        Ok(Self { query: request.query, start, end, step: None, is_instant: true, exemplars: 0, max_series: 0 })
    }
}

/// A metrics query on its way.
pub(crate) type Series = Running<SeriesCombiner>;

/// The series so far.
pub(crate) struct SeriesCombiner {
    plan: Arc<MetricsPlan>,
    partial: Partial,
    metrics: SearchMetrics,
    counting: Counting,
}

impl Collect for SeriesCombiner {
    fn collect(&mut self, _: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::Series(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.metrics.completed_jobs += 1;
        let metrics = answer.metrics.unwrap_or_default();
        self.metrics.inspected_traces = self.metrics.inspected_traces.saturating_add(metrics.inspected_traces);
        self.metrics.inspected_bytes += metrics.inspected_bytes;
        self.metrics.inspected_spans += metrics.inspected_spans;
        let partial = answer.partial.unwrap_or_default();
        let merged = self.plan.merge_message(&mut self.partial, partial);
        merged.map_err(|error| QueryError::Job(format!("a querier's answer makes no sense: {error}")))?;
        self.partial.check()?;
        Ok(true)
    }

    fn take_named(&mut self, job: usize, named: NamedTraces) -> Result<(), QueryError> {
        self.counting.take_named(job, named)
    }

    fn more_jobs(&mut self, all_ended: bool) -> Vec<(TenantId, Work)> {
        let jobs = self.counting.more_jobs(all_ended);
        self.metrics.total_jobs = self.metrics.total_jobs.saturating_add(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        (self.metrics.total_blocks, self.metrics.total_block_bytes) = (self.counting.blocks, self.counting.block_bytes);
        jobs
    }
}

/// What the series have come to, for the form of either kind of query.
pub(crate) struct Counted {
    answer: Answer,
    metrics: SearchMetrics,
    plan: Arc<MetricsPlan>,
}

impl SeriesCombiner {
    pub(crate) fn inspected_bytes(&self) -> u64 {
        self.metrics.inspected_bytes
    }

    /// The series of what has been counted so far. Made off the async threads: later stages over many series take a while. Dropped
    /// midway, the work ends soon, and with it the query.
    ///
    /// # Errors
    /// The series do not fit into memory.
    pub(crate) async fn counted(&mut self) -> Result<Counted, QueryError> {
        let stop = CancellationToken::new();
        let _stops_with_the_client = stop.clone().drop_guard();
        let (plan, partial) = (Arc::clone(&self.plan), std::mem::replace(&mut self.partial, self.plan.partial()));
        let finish = move || {
            let answer = plan.finish(&partial, &|| stop.is_cancelled());
            (partial, answer)
        };
        let (partial, answer) = tokio::task::spawn_blocking(finish).await.map_err(|error| QueryError::Job(error.to_string()))?;
        // What was counted is held beside the answer, by the same query.
        let counted = partial.bytes();
        self.partial = partial;
        let answer = answer.map_err(|error| match error {
            Halted::TooLarge(TooLarge { held, over }) => Halted::TooLarge(TooLarge { held: held + counted, over }),
            halted @ Halted::Stopped => halted,
        });
        Ok(Counted { answer: answer?, metrics: self.metrics, plan: Arc::clone(&self.plan) })
    }
}

impl Counted {
    /// Whether something is missing, and why.
    fn status(&self) -> (i32, String) {
        match self.answer.is_truncated {
            false => (PartialStatus::Complete as i32, String::new()),
            true => (PartialStatus::Partial as i32, self.plan.truncation_message()),
        }
    }

    /// As range queries answer it, and what is charged for that.
    pub(crate) fn into_range(self) -> (QueryRangeResponse, Charge) {
        let (status, message) = self.status();
        let (series, held) = self.answer.into_time_series();
        (QueryRangeResponse { series, metrics: Some(self.metrics), status, message }, held)
    }

    /// As instant queries answer it, and what is charged for that.
    pub(crate) fn into_instant(self) -> (QueryInstantResponse, Charge) {
        let (status, message) = self.status();
        let (series, held) = self.answer.into_instant_series();
        (QueryInstantResponse { series, metrics: Some(self.metrics), status, message }, held)
    }
}

impl Frontend {
    /// Begins a metrics query.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn series(&self, tenants: &[TenantId], query: MetricsQuery) -> Result<Series, QueryError> {
        let config = &self.config.metrics;
        let request = self.series_request(tenants, query)?;
        let plan = MetricsPlan::of_request(&request).map_err(|error| match error {
            vivace_traceql::QueryError::Parse(_) => QueryError::Invalid(format!("compiling query: {error}")),
            error => error.into(),
        })?;
        let counted = plan.range();
        let seconds = |nanos: u64| u32::try_from(nanos).unwrap_or(u32::MAX);
        let range =
            SearchRange { start: seconds(counted.start_unix_nanos() / SECOND), end: seconds(counted.end_unix_nanos().div_ceil(SECOND)) };
        let views = View::of_tenants(&self.blocklist, tenants);
        let counting = Counting::new(request, views, range, self.plan_rules(config.target_bytes_per_job));
        let partial = plan.partial_within(&self.budget);
        let mut result = SeriesCombiner { partial, plan: Arc::new(plan), metrics: SearchMetrics::default(), counting };
        let jobs = result.more_jobs(true);
        Ok(self.scan(tenants, jobs, config.concurrent_jobs, result))
    }

    /// The query as queriers are asked it, within what is allowed.
    fn series_request(&self, tenants: &[TenantId], query: MetricsQuery) -> Result<SeriesRequest, QueryError> {
        let config = &self.config.metrics;
        self.check_size(&query.query)?;
        let (start, end) = (query.start, query.end);
        if start >= end {
            return Err(start_after_end(start, end));
        }
        let of_tenants = tenants.iter().map(|tenant| self.overrides.limits(tenant).read.max_metrics_duration).filter(|max| !max.is_zero());
        let max = of_tenants.min().unwrap_or(config.max_duration);
        if !max.is_zero() && u128::from(end - start) > max.as_nanos() {
            let max = format_duration(max);
            return Err(QueryError::Invalid(format!("metrics query time range exceeds the maximum allowed duration of {max}")));
        }
        if let Some(step) = query.step.filter(|_| !query.is_instant)
            && config.max_intervals > 0
            && (step == 0 || (end - start) / step > config.max_intervals as u64)
        {
            let least = format_duration(Duration::from_nanos((end - start).div_ceil(config.max_intervals as u64)));
            let step = format_duration(Duration::from_nanos(step));
            return Err(QueryError::Invalid(format!("step of {step} is too small, minimum step for given range is {least}")));
        }
        let at_most = |wanted: u32, max: usize| match (wanted as usize, max) {
            (0, max) | (max, 0) => max,
            (wanted, max) => wanted.min(max),
        };
        let exemplars = match query.exemplars as usize {
            0 => config.max_exemplars,
            wanted => wanted.min(config.max_exemplars),
        };
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(SeriesRequest {
            query: query.query,
            start,
            end,
            step: query.step,
            instant: query.is_instant,
            exemplars: number(exemplars),
            max_series: number(at_most(query.max_series, config.max_response_series)),
            v3: config.release == TraceqlRelease::V3,
            ..Default::default()
        })
    }
}
