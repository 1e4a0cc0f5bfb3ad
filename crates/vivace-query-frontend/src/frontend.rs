//! Checks requests, plans them as jobs, and follows those to the answer. HTTP and streaming gRPC are two doors to this.

use std::sync::Arc;
use std::time::Duration;

use vivace_config::QueryFrontend;
use vivace_core::budget::Budget;
use vivace_core::{BlockId, TenantId};
use vivace_proto::tempopb::{SearchMetrics, SearchRequest, SearchTagValuesRequest, SearchTagsRequest, SearchTagsV2Scope};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_result::Outcome;
use vivace_server::Overrides;
use vivace_storage::Blocklist;
use vivace_traceql::{Attribute, SearchPlan, TagFilter, TagScope, search_limit};

use crate::admission::{Admission, Lane, Permit};
use crate::combine::{CombinedTrace, Limits, SearchResult, TagCombiner, TraceCombiner, ValueCombiner};
use crate::error::QueryError;
use crate::params::{RangeRules, SearchRange};
use crate::queue::Queue;
use crate::run::{Arrived, Named, Run};
use crate::split::{self, Lookup, Request, SplitRules};
use crate::whole::{Together, judge_whole_traces};

/// What all queries share.
pub(crate) struct Frontend {
    pub(crate) config: QueryFrontend,
    pub(crate) queue: Queue,
    pub(crate) admission: Admission,
    pub(crate) budget: Budget,
    pub(crate) blocklist: Blocklist,
    pub(crate) overrides: Arc<Overrides>,
    /// Unix nanoseconds.
    pub(crate) clock: fn() -> u64,
}

/// The jobs of a query over all its tenants.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) jobs: Vec<(TenantId, Work)>,
    /// Per job: no trace of it starts after this.
    newest_unix_nanos: Vec<u64>,
    pub(crate) blocks: u32,
    pub(crate) block_bytes: u64,
}

/// A query on its way, or in line. Dropped, its jobs are cancelled first, and then the next one begins.
pub(crate) struct Running<R> {
    pub(crate) run: Run,
    pub(crate) result: R,
    pub(crate) place: Place,
}

/// Where a query stands among the others.
pub(crate) struct Place {
    queue: Queue,
    admission: Admission,
    tenants: Vec<TenantId>,
    lane: Lane,
    /// Once it is begun.
    permit: Option<Permit>,
}

impl Place {
    async fn begin(&mut self) -> Result<(), QueryError> {
        if self.permit.is_none() {
            self.permit = Some(self.admission.enter(&self.tenants, self.lane).await?);
        }
        Ok(())
    }

    /// Where no other query ran it is not others that hold the memory: trying again is no use.
    fn blame(&self, error: QueryError) -> QueryError {
        match error {
            QueryError::OutOfMemory { reason, holds_much: true } if self.permit.as_ref().is_some_and(Permit::has_run_alone) => {
                QueryError::TooLarge(format!("{reason} (no other query ran: ask for less)"))
            }
            error => error,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.queue.sweep(&self.tenants);
        }
    }
}

/// A search on its way.
pub(crate) type Search = Running<SearchResult>;
/// Tag names on their way.
pub(crate) type Tags = Running<TagCombiner>;
/// Tag values on their way.
pub(crate) type TagValues = Running<ValueCombiner>;

/// Takes in what one job found.
pub(crate) trait Collect {
    /// Takes in some of what a job found that goes on.
    ///
    /// # Errors
    /// The outcome is not of this query's kind, or is not sent in pieces.
    fn collect_some(&mut self, _job: usize, outcome: Outcome) -> Result<(), QueryError> {
        Err(unexpected(&outcome))
    }

    /// Whether more jobs are needed.
    ///
    /// # Errors
    /// The outcome is not of this query's kind.
    fn collect(&mut self, job: usize, outcome: Outcome) -> Result<bool, QueryError>;

    /// Takes traces that a job has left to others, before what it found is collected.
    ///
    /// # Errors
    /// They make no sense.
    fn take_named(&mut self, _job: usize, _named: Named) -> Result<(), QueryError> {
        Ok(())
    }

    /// Whether what has been found is enough, so that jobs that still wait or run are not needed; true once.
    fn has_enough(&mut self) -> bool {
        false
    }

    /// Jobs that follow from what was collected; their places are behind those of all before. `all_ended`: none is left.
    fn more_jobs(&mut self, _all_ended: bool) -> Vec<(TenantId, Work)> {
        Vec::new()
    }
}

impl<R: Collect> Running<R> {
    /// Waits in line if the query has not begun, and then for one more job; false when the answer is complete.
    ///
    /// # Errors
    /// A job failed for good, there is too much to do to begin the query, or no room for its first job.
    pub(crate) async fn step(&mut self) -> Result<bool, QueryError> {
        let stepped = self.one_step().await;
        stepped.map_err(|error| self.place.blame(error))
    }

    async fn one_step(&mut self) -> Result<bool, QueryError> {
        // What needs no job needs not wait.
        if !self.run.is_idle() {
            self.place.begin().await?;
        }
        match self.next().await? {
            Some(Arrived { job, outcome, is_last: false, _held }) => {
                let result = &mut self.result;
                if is_large(&outcome) {
                    off_async(|| result.collect_some(job, outcome))?
                } else {
                    result.collect_some(job, outcome)?
                }
                Ok(true)
            }
            Some(Arrived { job, outcome, is_last: true, _held }) => {
                self.result.take_named(job, self.run.take_named())?;
                let result = &mut self.result;
                let more = if is_large(&outcome) { off_async(|| result.collect(job, outcome))? } else { result.collect(job, outcome)? };
                if more {
                    if self.result.has_enough() {
                        self.run.forget_rest();
                    }
                    let jobs = self.result.more_jobs(self.run.is_idle());
                    self.run.add(jobs);
                }
                Ok(more)
            }
            None => Ok(false),
        }
    }

    /// What was found. Others may begin from now on.
    pub(crate) fn into_result(self) -> R {
        self.result
    }

    /// The next job's outcome. Jobs that nobody could take for a while fail.
    async fn next(&mut self) -> Result<Option<Arrived>, QueryError> {
        let mut without_queriers = Duration::ZERO;
        loop {
            match tokio::time::timeout(QUERIERS_LOOK, self.run.next()).await {
                Ok(next) => return next,
                Err(_) if self.place.queue.has_queriers() => without_queriers = Duration::ZERO,
                Err(_) => without_queriers += QUERIERS_LOOK,
            }
            if without_queriers >= QUERIERS_MISSING {
                return Err(QueryError::Unavailable(format!("no querier has been connected for {} s", QUERIERS_MISSING.as_secs())));
            }
        }
    }

    /// Waits for the answer, with what is missing in it.
    ///
    /// # Errors
    /// As [`Running::step`].
    pub(crate) async fn finish(mut self) -> Result<(R, Vec<String>), QueryError> {
        while self.step().await? {}
        Ok((self.result, self.run.take_warnings()))
    }
}

/// Between two looks whether there are queriers at all.
const QUERIERS_LOOK: Duration = Duration::from_secs(1);
/// A query waits so long for the first querier.
const QUERIERS_MISSING: Duration = Duration::from_secs(30);

/// Whether taking it in keeps a thread busy for more than a moment.
fn is_large(outcome: &Outcome) -> bool {
    const MANY: usize = 1000;
    match outcome {
        Outcome::Series(answer) => answer.partial.iter().flat_map(|partial| &partial.stages).any(|stage| stage.groups.len() > MANY),
        Outcome::Search(answer) => answer.traces.len() > MANY,
        Outcome::TagValues(answer) => answer.tag_values.len() > MANY,
        Outcome::Tags(answer) => answer.scopes.iter().any(|scope| scope.tags.len() > MANY),
        Outcome::Trace(_) | Outcome::Failure(_) => false,
    }
}

/// Runs what burns CPU without holding up other tasks, where the runtime can do that.
fn off_async<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Collect for SearchResult {
    fn collect_some(&mut self, job: usize, outcome: Outcome) -> Result<(), QueryError> {
        let Outcome::Search(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add_traces(job, answer.traces);
        Ok(())
    }

    fn collect(&mut self, job: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::Search(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(job, answer);
        Ok(!self.is_complete())
    }

    fn take_named(&mut self, job: usize, named: Named) -> Result<(), QueryError> {
        self.add_named(job, named);
        Ok(())
    }

    fn has_enough(&mut self) -> bool {
        self.begin_completing()
    }

    fn more_jobs(&mut self, all_ended: bool) -> Vec<(TenantId, Work)> {
        self.jobs_together(all_ended)
    }
}

impl Collect for TagCombiner {
    fn collect(&mut self, _: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::Tags(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(answer);
        Ok(!self.is_full())
    }
}

impl Collect for ValueCombiner {
    fn collect(&mut self, _: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::TagValues(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(answer);
        Ok(!self.is_full())
    }
}

impl Collect for TraceCombiner {
    fn collect(&mut self, _: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::Trace(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(answer)?;
        // Parts may be anywhere: only a trace that is too large anyhow needs no more.
        Ok(!self.is_full())
    }
}

pub(crate) fn unexpected(outcome: &Outcome) -> QueryError {
    let kind = match outcome {
        Outcome::Failure(_) => "a failure",
        Outcome::Trace(_) => "a trace",
        Outcome::Search(_) => "search results",
        Outcome::Tags(_) => "tag names",
        Outcome::TagValues(_) => "tag values",
        Outcome::Series(_) => "series",
    };
    QueryError::Job(format!("a querier answered with {kind}, which was not asked for"))
}

impl Frontend {
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The rules of searches and tag queries; of several tenants the strictest.
    pub(crate) fn range_rules(&self, tenants: &[TenantId]) -> RangeRules {
        let of_tenants = tenants.iter().map(|tenant| self.overrides.limits(tenant).read.max_search_duration).filter(|max| !max.is_zero());
        RangeRules {
            default_look_back: self.config.search.query_backend_after,
            max: of_tenants.min().unwrap_or(self.config.search.max_duration),
        }
    }

    /// Begins a search. Zero fields of the request have their defaults.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn search(&self, tenants: &[TenantId], mut request: SearchRequest) -> Result<Search, QueryError> {
        let search = &self.config.search;
        let range = self.range_rules(tenants).check(request.start, request.end, self.now())?;
        (request.start, request.end) = (range.start, range.end);
        if request.limit == 0 {
            request.limit = u32::try_from(search.default_result_limit).unwrap_or(u32::MAX);
        }
        if search.max_result_limit > 0 && request.limit as usize > search.max_result_limit {
            return Err(QueryError::Invalid(format!("limit {} exceeds max limit {}", request.limit, search.max_result_limit)));
        }
        if search.max_spans_per_span_set > 0 && request.spans_per_span_set as usize > search.max_spans_per_span_set {
            let (max, got) = (search.max_spans_per_span_set, request.spans_per_span_set);
            return Err(QueryError::Invalid(format!("spans per span set exceeds {max}. received {got}")));
        }
        if request.spans_per_span_set == 0 {
            request.spans_per_span_set = u32::try_from(search.default_spans_per_span_set).unwrap_or(u32::MAX);
        }
        self.check_size(&request.query)?;
        let asked = SearchPlan::of_request(&request).map_err(|error| match error {
            vivace_traceql::QueryError::Request(text) => QueryError::Invalid(text),
            error => QueryError::Invalid(format!("invalid TraceQL query: {error}")),
        })?;
        let (most_recent, whole) = (asked.most_recent(), asked.needs_whole_traces());
        let limit = search_limit(&request);
        let mut plan = self.plan(tenants, &Request::Search(request.clone()), range);
        let together = Together::new(request, whole, &plan.jobs, &self.blocklist, tenants, self.now());
        if whole {
            judge_whole_traces(&mut plan.jobs, &together, range);
        }
        let metrics = SearchMetrics {
            total_blocks: plan.blocks,
            total_block_bytes: plan.block_bytes,
            total_jobs: u32::try_from(plan.jobs.len()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let of_job = |(tenant, work): &(TenantId, Work)| (tenant.clone(), together.block_of(tenant, work));
        let of_jobs: Vec<_> = plan.jobs.iter().map(of_job).zip(plan.newest_unix_nanos).collect();
        let result = SearchResult::new(&self.budget, limit, most_recent, metrics, of_jobs.into_iter(), together);
        let run = Run::new(&self.queue, plan.jobs, search.concurrent_jobs).lacking(self.unlisted(tenants));
        Ok(Running { run, result, place: self.place(tenants, Lane::Scan) })
    }

    /// Begins a query for tag names. The scope `intrinsic` needs no data: see [`intrinsics`].
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn tags(&self, tenants: &[TenantId], mut request: SearchTagsRequest) -> Result<Tags, QueryError> {
        let scope = TagScope::of_request(&request.scope)?;
        let range = self.tag_range(tenants, request.start, request.end)?;
        (request.start, request.end) = (range.start, range.end);
        self.check_size(&request.query)?;
        let limits = self.tag_limits(tenants, request.max_tags_per_scope, request.stale_values_threshold);
        let jobs = match scope {
            TagScope::Intrinsics => Vec::new(),
            TagScope::All | TagScope::Attributes(_) => self.plan(tenants, &Request::Tags(request, limits.max_bytes as u64), range).jobs,
        };
        let run = Run::new(&self.queue, jobs, self.config.search.concurrent_jobs).lacking(self.unlisted(tenants));
        let result = TagCombiner::new(&self.budget, limits);
        Ok(Running { run, result, place: self.place(tenants, Lane::Scan) })
    }

    /// Begins a query for the values of the attribute that `request.tag_name` names in TraceQL's form.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn tag_values(&self, tenants: &[TenantId], mut request: SearchTagValuesRequest) -> Result<TagValues, QueryError> {
        let range = self.tag_range(tenants, request.start, request.end)?;
        (request.start, request.end) = (range.start, range.end);
        self.check_size(&request.query)?;
        let limits = self.tag_limits(tenants, request.max_tag_values, request.stale_value_threshold);
        let mut result = ValueCombiner::new(&self.budget, limits);
        let mut jobs = Vec::new();
        match vivace_traceql::parse_attribute(&request.tag_name) {
            Ok(attribute) => {
                if !self.answer_without_data(&attribute, &request, &mut result)? {
                    jobs = self.plan(tenants, &Request::TagValues(request, limits.max_bytes as u64), range).jobs;
                }
            }
            // Editors ask while a name is being typed; it has no values yet.
            Err(_) if request.tag_name.is_empty() || request.tag_name.ends_with('.') => {}
            Err(error) => {
                let name = request.tag_name;
                return Err(QueryError::Invalid(format!("please provide a valid tagName: failed to parse identifier {name}: {error}")));
            }
        }
        let run = Run::new(&self.queue, jobs, self.config.search.concurrent_jobs).lacking(self.unlisted(tenants));
        Ok(Running { run, result, place: self.place(tenants, Lane::Scan) })
    }

    /// Whether the values follow from the request alone; then they are added.
    fn answer_without_data(
        &self,
        attribute: &Attribute,
        request: &SearchTagValuesRequest,
        result: &mut ValueCombiner,
    ) -> Result<bool, QueryError> {
        if let Some(values) = vivace_traceql::fixed_tag_values(attribute) {
            values.into_iter().for_each(|value| result.add_value(value.kind.to_owned(), value.value));
            return Ok(true);
        }
        let filter = TagFilter::of_values_request(request, attribute)?;
        if filter.passes_nothing() {
            let pinned = filter.pinned().iter().flat_map(vivace_traceql::TagValue::of);
            pinned.for_each(|value| result.add_value(value.kind.to_owned(), value.value));
            return Ok(true);
        }
        Ok(false)
    }

    /// Looks a trace up.
    ///
    /// # Errors
    /// A job failed for good, or there is no room for it.
    pub(crate) async fn trace(&self, tenants: &[TenantId], lookup: Lookup) -> Result<CombinedTrace, QueryError> {
        let max_jobs = self.config.trace_by_id.query_shards;
        let mut jobs = Vec::new();
        for tenant in tenants {
            let split = split::by_id(&lookup, self.blocklist.live(tenant).len(), max_jobs);
            jobs.extend(split.jobs.into_iter().map(|job| (tenant.clone(), job.work)));
        }
        let limits = tenants.iter().map(|tenant| self.overrides.limits(tenant).global.max_bytes_per_trace).filter(|max| *max > 0);
        let result = TraceCombiner::new(&self.budget, limits.min().unwrap_or(0));
        let run = Run::new(&self.queue, jobs, self.config.trace_by_id.concurrent_shards);
        let running = Running { run, result, place: self.place(tenants, Lane::Lookup) };
        let (mut combiner, warnings) = running.finish().await?;
        warnings.into_iter().for_each(|warning| combiner.missing(warning));
        // Sorting and comparing the spans of a large trace takes a while.
        tokio::task::spawn_blocking(move || combiner.finish()).await.map_err(|error| QueryError::Job(error.to_string()))
    }

    /// At the end of the line.
    pub(crate) fn place(&self, tenants: &[TenantId], lane: Lane) -> Place {
        let (queue, admission) = (self.queue.clone(), self.admission.clone());
        Place { queue, admission, tenants: tenants.to_vec(), lane, permit: None }
    }

    pub(crate) fn split_rules(&self, request: &Request) -> SplitRules {
        let seconds = self.now() / 1_000_000_000;
        let target_bytes_per_job = match request {
            Request::Series(_) => self.config.metrics.target_bytes_per_job,
            _ => self.config.search.target_bytes_per_job,
        };
        let ingesters_since = seconds.saturating_sub(self.config.search.query_ingesters_until.as_secs());
        SplitRules { target_bytes_per_job, ingesters_since }
    }

    /// The jobs of all tenants, newest data first.
    pub(crate) fn plan(&self, tenants: &[TenantId], request: &Request, range: SearchRange) -> Plan {
        let rules = self.split_rules(request);
        let mut plan = Plan::default();
        let mut jobs = Vec::new();
        for tenant in tenants {
            let split = split::by_range(request, range, &self.blocklist.live(tenant), rules);
            plan.blocks += split.blocks;
            plan.block_bytes += split.block_bytes;
            jobs.extend(split.jobs.into_iter().map(|job| (tenant.clone(), job)));
        }
        jobs.sort_by_key(|(_, job)| std::cmp::Reverse(job.newest_unix_nanos));
        for (tenant, job) in jobs {
            plan.newest_unix_nanos.push(job.newest_unix_nanos);
            plan.jobs.push((tenant, job.work));
        }
        plan
    }

    /// What is said of tenants whose blocks nobody knows: what is stored of them is missing in an answer.
    pub(crate) fn unlisted(&self, tenants: &[TenantId]) -> Vec<String> {
        let list = &self.blocklist;
        let why = |tenant: &TenantId| match list.why_unknown(tenant) {
            Some(why) => Some(why),
            None if !list.is_polled() && list.blocks(tenant).is_none() => Some("the bucket has not been listed yet".to_owned()),
            None => None,
        };
        tenants.iter().filter_map(|tenant| Some(format!("the blocks of tenant {tenant} are not known: {}", why(tenant)?))).collect()
    }

    fn tag_range(&self, tenants: &[TenantId], start: u32, end: u32) -> Result<SearchRange, QueryError> {
        self.range_rules(tenants).check(start, end, self.now())
    }

    fn tag_limits(&self, tenants: &[TenantId], max_items: u32, max_stale: u32) -> Limits {
        let bytes = tenants.iter().map(|tenant| self.overrides.limits(tenant).read.max_bytes_per_tag_values_query).filter(|max| *max > 0);
        Limits { max_bytes: bytes.min().unwrap_or(0), max_items: max_items as usize, max_stale: max_stale as usize }
    }

    pub(crate) fn check_size(&self, query: &str) -> Result<(), QueryError> {
        let max = self.config.max_query_expression_size_bytes;
        if max > 0 && query.len() > max {
            let bytes = query.len();
            return Err(QueryError::Invalid(format!("query expression of {bytes} bytes exceeds the maximum of {max} bytes")));
        }
        Ok(())
    }

    /// `query_frontend.api_timeout`; none: no limit.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        Some(self.config.api_timeout).filter(|timeout| !timeout.is_zero())
    }
}

/// The scope `intrinsic`, where the request asks for it or for every scope.
pub(crate) fn intrinsics(scope: TagScope) -> Option<SearchTagsV2Scope> {
    scope.has_intrinsics().then(|| SearchTagsV2Scope {
        name: "intrinsic".to_owned(),
        tags: vivace_traceql::intrinsic_tags().into_iter().map(str::to_owned).collect(),
    })
}

/// The attribute that a bare tag name of the first version means, and values that are added to what is stored.
///
/// Source: docs/facts/traceql.md, "Tag names and values".
pub(crate) fn attribute_of_v1(name: &str) -> (String, &'static [&'static str]) {
    let known: (&str, &[&str]) = match name {
        "name" => ("name", &[]),
        "status.code" => ("status", &["error", "ok", "unset"]),
        "error" => (".error", &["true"]),
        "rootName" | "root.name" => ("rootName", &[]),
        "rootServiceName" | "root.service.name" => ("rootServiceName", &[]),
        "service.name" => ("resource.service.name", &[]),
        _ => {
            let plain = name.chars().all(|c| c.is_alphanumeric() || "._-/:".contains(c));
            let identifier = if plain { format!(".{name}") } else { format!(".{name:?}") };
            return (identifier, &[]);
        }
    };
    (known.0.to_owned(), known.1)
}

/// All block ids.
pub(crate) const ALL_BLOCKS: (BlockId, BlockId) = (BlockId([0; 16]), BlockId([0xff; 16]));
