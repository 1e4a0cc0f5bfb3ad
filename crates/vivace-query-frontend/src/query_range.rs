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

use crate::admission::Lane;
use crate::counting::Counting;
use crate::error::QueryError;
use crate::frontend::{Collect, Frontend, Running, unexpected};
use crate::params::{Params, SearchRange};
use crate::run::{Named, Run};
use crate::split::Request;

/// A metrics query as it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
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

impl Asked {
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
        let (start, end) = message_range(request.start, request.end, now)?;
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
        let (start, end) = message_range(request.start, request.end, now)?;
        Ok(Self { query: request.query, start, end, step: None, is_instant: true, exemplars: 0, max_series: 0 })
    }
}

/// The times of a message, where 0 is none.
fn message_range(start: u64, end: u64, now: u64) -> Result<(u64, u64), QueryError> {
    match (start, end) {
        (0, 0) => Ok((now.saturating_sub(3600 * SECOND), now)),
        (0, _) => Err(QueryError::Invalid("start and end must be given together: start is missing".to_owned())),
        (_, 0) => Err(QueryError::Invalid("start and end must be given together: end is missing".to_owned())),
        times => Ok(times),
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

    fn take_named(&mut self, job: usize, named: Named) -> Result<(), QueryError> {
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
    pub(crate) fn series(&self, tenants: &[TenantId], asked: Asked) -> Result<Series, QueryError> {
        let config = &self.config.metrics;
        self.check_size(&asked.query)?;
        let (start, end) = (asked.start, asked.end);
        if start >= end {
            return Err(QueryError::Invalid(format!("http parameter start must be before end. received start={start} end={end}")));
        }
        let of_tenants = tenants.iter().map(|tenant| self.overrides.limits(tenant).read.max_metrics_duration).filter(|max| !max.is_zero());
        let max = of_tenants.min().unwrap_or(config.max_duration);
        if !max.is_zero() && u128::from(end - start) > max.as_nanos() {
            let max = format_duration(max);
            return Err(QueryError::Invalid(format!("metrics query time range exceeds the maximum allowed duration of {max}")));
        }
        if let Some(step) = asked.step.filter(|_| !asked.is_instant)
            && config.max_intervals > 0
            && (step == 0 || (end - start) / step > config.max_intervals as u64)
        {
            let least = format_duration(Duration::from_nanos((end - start).div_ceil(config.max_intervals as u64)));
            let step = format_duration(Duration::from_nanos(step));
            return Err(QueryError::Invalid(format!("step of {step} is too small, minimum step for given range is {least}")));
        }
        let at_most = |asked: u32, max: usize| match (asked as usize, max) {
            (0, max) | (max, 0) => max,
            (asked, max) => asked.min(max),
        };
        let max_series = at_most(asked.max_series, config.max_response_series);
        let exemplars = match asked.exemplars as usize {
            0 => config.max_exemplars,
            asked => asked.min(config.max_exemplars),
        };
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let request = SeriesRequest {
            query: asked.query,
            start,
            end,
            step: asked.step,
            instant: asked.is_instant,
            exemplars: number(exemplars),
            max_series: number(max_series),
            v3: config.release == TraceqlRelease::V3,
            ..Default::default()
        };
        let plan = MetricsPlan::of_request(&request).map_err(|error| match error {
            vivace_traceql::QueryError::Parse(_) => QueryError::Invalid(format!("compiling query: {error}")),
            error => QueryError::Invalid(error.to_string()),
        })?;
        let counted = plan.range();
        let seconds = |nanos: u64| u32::try_from(nanos).unwrap_or(u32::MAX);
        let range =
            SearchRange { start: seconds(counted.start_unix_nanos() / SECOND), end: seconds(counted.end_unix_nanos().div_ceil(SECOND)) };
        let rules = self.split_rules(&Request::Series(request.clone()));
        let counting = Counting::new(request, tenants, &self.blocklist, range, rules);
        let partial = plan.partial_within(&self.budget);
        let mut result = SeriesCombiner { partial, plan: Arc::new(plan), metrics: SearchMetrics::default(), counting };
        let jobs = result.more_jobs(true);
        let run = Run::new(&self.queue, jobs, config.concurrent_jobs).lacking(self.unlisted(tenants));
        Ok(Running { run, result, place: self.place(tenants, Lane::Scan) })
    }
}
