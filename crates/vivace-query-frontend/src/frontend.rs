//! Checks requests, plans them as jobs, and sends those on their way. HTTP and streaming gRPC are two ways in.

use std::sync::Arc;
use std::time::Duration;

use vivace_config::QueryFrontend;
use vivace_core::TenantId;
use vivace_core::budget::Budget;
use vivace_proto::tempopb::{SearchMetrics, SearchRequest, SearchTagValuesRequest, SearchTagsRequest, SearchTagsV2Scope};
use vivace_proto::vivace::v1::job::Work;
use vivace_server::Overrides;
use vivace_storage::Blocklist;
use vivace_traceql::{Attribute, Scope, SearchPlan, TagFilter, TagScope, search_limit};

use crate::admission::{Admission, Lane};
use crate::combine::{CombinedTrace, Limits, SearchResult, TagCombiner, TraceCombiner, ValueCombiner};
use crate::error::QueryError;
use crate::job_plan::{JobPlan, PlanRules, Request};
use crate::lookup::Lookup;
use crate::params::{RangeRules, SearchRange};
use crate::queue::Queue;
use crate::run::Run;
use crate::running::{Running, Turn};
use crate::split_traces::SplitTraces;
use crate::view::View;

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

/// A search on its way.
pub(crate) type Search = Running<SearchResult>;
/// Tag names on their way.
pub(crate) type Tags = Running<TagCombiner>;
/// Tag values on their way.
pub(crate) type TagValues = Running<ValueCombiner>;

impl Frontend {
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The range of a search or a tag query, by the rules that of several tenants are the strictest.
    fn checked_range(&self, tenants: &[TenantId], start: u32, end: u32) -> Result<SearchRange, QueryError> {
        let rules = RangeRules { default_look_back: self.config.search.query_backend_after, max: self.max_search_duration(tenants) };
        rules.check(start, end, self.now())
    }

    /// Longest range of a search; zero is any.
    pub(crate) fn max_search_duration(&self, tenants: &[TenantId]) -> Duration {
        let of_tenants = tenants.iter().map(|tenant| self.overrides.limits(tenant).read.max_search_duration).filter(|max| !max.is_zero());
        of_tenants.min().unwrap_or(self.config.search.max_duration)
    }

    /// Begins a search. Zero fields of the request have their defaults.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn search(&self, tenants: &[TenantId], request: SearchRequest) -> Result<Search, QueryError> {
        let config = &self.config.search;
        let (request, range) = self.checked_search(tenants, request)?;
        let search = SearchPlan::of_request(&request).map_err(|error| match error {
            vivace_traceql::QueryError::Request(text) => QueryError::Invalid(text),
            error @ vivace_traceql::QueryError::Busy(_) => error.into(),
            error => QueryError::Invalid(format!("invalid TraceQL query: {error}")),
        })?;
        let (limit, needs_whole_traces) = (search_limit(&request), search.needs_whole_traces());
        let views = View::of_tenants(&self.blocklist, tenants);
        let to_plan = Request::Search { request: request.clone(), needs_whole_traces };
        let plan = JobPlan::new(&to_plan, range, &views, self.plan_rules(config.target_bytes_per_job));
        let metrics = SearchMetrics {
            total_blocks: plan.blocks,
            total_block_bytes: plan.block_bytes,
            total_jobs: u32::try_from(plan.jobs.len()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let split_traces = SplitTraces::new(request, needs_whole_traces, plan.asks_ingesters, views, self.now());
        let result = SearchResult::new(&self.budget, limit, search.most_recent(), metrics, &plan.jobs, split_traces);
        Ok(self.scan(tenants, plan.into_jobs(), config.concurrent_jobs, result))
    }

    /// The request with what it leaves open filled in.
    fn checked_search(&self, tenants: &[TenantId], mut request: SearchRequest) -> Result<(SearchRequest, SearchRange), QueryError> {
        let config = &self.config.search;
        let range = self.checked_range(tenants, request.start, request.end)?;
        (request.start, request.end) = (range.start, range.end);
        if request.limit == 0 {
            request.limit = u32::try_from(config.default_result_limit).unwrap_or(u32::MAX);
        }
        if config.max_result_limit > 0 && request.limit as usize > config.max_result_limit {
            return Err(QueryError::Invalid(format!("limit {} exceeds max limit {}", request.limit, config.max_result_limit)));
        }
        if config.max_spans_per_span_set > 0 && request.spans_per_span_set as usize > config.max_spans_per_span_set {
            let (max, got) = (config.max_spans_per_span_set, request.spans_per_span_set);
            return Err(QueryError::Invalid(format!("spans per span set exceeds {max}. received {got}")));
        }
        if request.spans_per_span_set == 0 {
            request.spans_per_span_set = u32::try_from(config.default_spans_per_span_set).unwrap_or(u32::MAX);
        }
        self.check_size(&request.query)?;
        Ok((request, range))
    }

    /// Begins a query for tag names, and says of which scope. The scope `intrinsic` needs no data: see [`intrinsics`].
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn tags(&self, tenants: &[TenantId], mut request: SearchTagsRequest) -> Result<(TagScope, Tags), QueryError> {
        let scope = TagScope::of_request(&request.scope)?;
        let range = self.checked_range(tenants, request.start, request.end)?;
        (request.start, request.end) = (range.start, range.end);
        self.check_size(&request.query)?;
        let limits = self.tag_limits(tenants, request.max_tags_per_scope, request.stale_values_threshold);
        let jobs = match scope {
            TagScope::Intrinsics => Vec::new(),
            TagScope::All | TagScope::Attributes(_) => {
                self.tag_jobs(tenants, &Request::Tags { request, max_bytes: limits.max_bytes as u64 }, range)
            }
        };
        let result = TagCombiner::new(&self.budget, limits);
        Ok((scope, self.scan(tenants, jobs, self.config.search.concurrent_jobs, result)))
    }

    /// Begins a query for the values of the attribute that `request.tag_name` names in TraceQL's form.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn tag_values(&self, tenants: &[TenantId], mut request: SearchTagValuesRequest) -> Result<TagValues, QueryError> {
        let range = self.checked_range(tenants, request.start, request.end)?;
        (request.start, request.end) = (range.start, range.end);
        self.check_size(&request.query)?;
        let limits = self.tag_limits(tenants, request.max_tag_values, request.stale_value_threshold);
        let mut result = ValueCombiner::new(&self.budget, limits);
        let mut jobs = Vec::new();
        match vivace_traceql::parse_attribute(&request.tag_name) {
            Ok(attribute) => {
                if !self.answer_without_data(&attribute, &request, &mut result)? {
                    jobs = self.tag_jobs(tenants, &Request::TagValues { request, max_bytes: limits.max_bytes as u64 }, range);
                }
            }
            // Editors ask while a name is being typed; it has no values yet.
            Err(_) if request.tag_name.is_empty() || request.tag_name.ends_with('.') => {}
            Err(error) => {
                let name = request.tag_name;
                return Err(QueryError::Invalid(format!("please provide a valid tagName: failed to parse identifier {name}: {error}")));
            }
        }
        Ok(self.scan(tenants, jobs, self.config.search.concurrent_jobs, result))
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
            let of_tenant = lookup.jobs(self.blocklist.live(tenant).len(), max_jobs);
            jobs.extend(of_tenant.into_iter().map(|work| (tenant.clone(), work)));
        }
        let limits = tenants.iter().map(|tenant| self.overrides.limits(tenant).global.max_bytes_per_trace).filter(|max| *max > 0);
        let result = TraceCombiner::new(&self.budget, limits.min().unwrap_or(0));
        let run = Run::new(&self.queue, jobs, self.config.trace_by_id.concurrent_shards);
        let running = Running { run, result, turn: self.turn(tenants, Lane::Lookup) };
        let (mut combiner, warnings) = running.finish().await?;
        warnings.into_iter().for_each(|warning| combiner.missing(warning));
        // Sorting and comparing the spans of a large trace takes a while.
        tokio::task::spawn_blocking(move || combiner.finish()).await.map_err(|error| QueryError::Job(error.to_string()))
    }

    /// A query over a range of time on its way.
    pub(crate) fn scan<R>(&self, tenants: &[TenantId], jobs: Vec<(TenantId, Work)>, concurrency: usize, result: R) -> Running<R> {
        let run = Run::new(&self.queue, jobs, concurrency).lacking(self.unlisted(tenants));
        Running { run, result, turn: self.turn(tenants, Lane::Scan) }
    }

    fn turn(&self, tenants: &[TenantId], lane: Lane) -> Turn {
        Turn::new(self.queue.clone(), self.admission.clone(), tenants, lane)
    }

    pub(crate) fn plan_rules(&self, target_bytes_per_job: u64) -> PlanRules {
        let seconds = self.now() / 1_000_000_000;
        let ingesters_since = seconds.saturating_sub(self.config.search.query_ingesters_until.as_secs());
        PlanRules { target_bytes_per_job, ingesters_since }
    }

    fn tag_jobs(&self, tenants: &[TenantId], request: &Request, range: SearchRange) -> Vec<(TenantId, Work)> {
        let views = View::of_tenants(&self.blocklist, tenants);
        JobPlan::new(request, range, &views, self.plan_rules(self.config.search.target_bytes_per_job)).into_jobs()
    }

    /// What is said of tenants whose blocks nobody knows: what is stored of them is missing in an answer.
    fn unlisted(&self, tenants: &[TenantId]) -> Vec<String> {
        let list = &self.blocklist;
        let why = |tenant: &TenantId| match list.why_unknown(tenant) {
            Some(why) => Some(why),
            None if !list.is_polled() && list.blocks(tenant).is_none() => Some("the bucket has not been listed yet".to_owned()),
            None => None,
        };
        tenants.iter().filter_map(|tenant| Some(format!("the blocks of tenant {tenant} are not known: {}", why(tenant)?))).collect()
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

/// The same for the flat list of the first version, which has them only where they are asked for.
pub(crate) fn intrinsics_v1(scope: TagScope) -> Option<SearchTagsV2Scope> {
    intrinsics(scope).filter(|_| scope == TagScope::Intrinsics)
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
        // Still being typed.
        "" => (".", &[]),
        // A name is any text here, also one that begins with a digit.
        _ => return (Attribute::Named { scope: Scope::Unscoped, key: name.into() }.to_string(), &[]),
    };
    (known.0.to_owned(), known.1)
}
