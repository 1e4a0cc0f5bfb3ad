//! One job from its request to its result: each kind of work goes to the module that does it, under the deadline of its kind.
//! What ingesters say of a trace or of tags is put together here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vivace_core::TenantId;
use vivace_core::budget::{Budget, Charge};
use vivace_proto::tempopb::{
    MetadataMetrics, PartialStatus, SearchResponse, SearchTagValuesV2Response, SearchTagsV2Response, SearchTagsV2Scope, TagValue, Trace,
    TraceByIdMetrics, TraceByIdRequest, TraceByIdResponse,
};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::{Job, JobResult, job_result::Outcome};

use crate::JobError;
use crate::blocks::{self, Blocks, Found};
use crate::ingesters::Ingesters;
use crate::metrics::JOB_DURATION;
use crate::search::Matches;
use crate::series::Counted;
use crate::whole_traces::SearchedParts;
use crate::wire::packed;

/// How long jobs may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// `querier.trace_by_id.query_timeout`
    pub(crate) trace_by_id: Duration,
    /// `querier.search.query_timeout`, for tags and series too.
    pub(crate) search: Duration,
    /// `ingester_client.remote_timeout`
    pub(crate) ingester: Duration,
}

impl Timeouts {
    /// What the kind of job is called in metrics, and how long it may take by which setting.
    fn of_kind(&self, work: &Work) -> (&'static str, (&'static str, Duration)) {
        let lookup = ("querier.trace_by_id.query_timeout", self.trace_by_id);
        let search = ("querier.search.query_timeout", self.search);
        match work {
            Work::FindRecent(_) => ("find_recent", lookup),
            Work::FindInBlocks(_) => ("find_in_blocks", lookup),
            Work::SearchRecent(_) => ("search_recent", search),
            Work::SearchBlock(_) => ("search_block", search),
            Work::SearchRecentTraces(_) => ("search_recent_traces", search),
            Work::SearchTraces(_) => ("search_traces", search),
            Work::TagsRecent(_) => ("tags_recent", search),
            Work::TagsBlock(_) => ("tags_block", search),
            Work::TagValuesRecent(_) => ("tag_values_recent", search),
            Work::TagValuesBlock(_) => ("tag_values_block", search),
            Work::SeriesRecent(_) => ("series_recent", search),
            Work::SeriesBlock(_) => ("series_block", search),
            Work::SeriesTraces(_) => ("series_traces", search),
        }
    }
}

/// What a job came to.
pub(crate) struct JobOutput {
    /// Without its id, and without the traces.
    pub(crate) result: JobResult,
    /// Of a search, to be sent in pieces.
    pub(crate) matches: Option<Matches>,
    /// For the result, until it is sent.
    pub(crate) held: Vec<Charge>,
}

impl JobOutput {
    fn new(outcome: Outcome, warnings: Vec<String>) -> Self {
        let result = JobResult { outcome: Some(outcome), warnings, ..JobResult::default() };
        Self { result, matches: None, held: Vec::new() }
    }

    fn of_trace(found: Found<TraceByIdResponse>, held: Vec<Charge>) -> Self {
        Self { held, ..Self::new(Outcome::Trace(found.result), found.warnings) }
    }

    fn of_search(found: Found<Matches>) -> Self {
        let answer = SearchResponse { traces: Vec::new(), metrics: Some(found.result.metrics) };
        Self { matches: Some(found.result), ..Self::new(Outcome::Search(answer), found.warnings) }
    }

    fn of_parts(searched: SearchedParts) -> Self {
        let mut output = Self::of_search(searched.found);
        output.result.split = packed(&searched.split).into();
        output.result.live_in_blocks = searched.live_in_blocks;
        output
    }

    fn of_series(counted: Counted) -> Self {
        let mut output = Self::new(Outcome::Series(counted.found.result), counted.found.warnings);
        output.result.split = packed(&counted.split).into();
        output.result.live_in_blocks = counted.live_in_blocks;
        output.result.served = counted.served.iter().map(|meta| meta.to_json().into()).collect();
        output
    }
}

/// Runs jobs, one call each.
pub(crate) struct Querier {
    pub(crate) ingesters: Ingesters,
    pub(crate) blocks: Blocks,
    pub(crate) timeouts: Timeouts,
    /// What queries hold is charged to it.
    pub(crate) budget: Budget,
}

impl Querier {
    /// Runs one job to its end. Dropping the future stops it.
    pub(crate) async fn run(&self, job: Job) -> Result<JobOutput, JobError> {
        let begun = Instant::now();
        let tenant = TenantId::new(&job.tenant).map_err(|e| JobError::Invalid(e.to_string()))?;
        let work = job.work.ok_or_else(|| JobError::Invalid("the job has no work that this version knows".to_owned()))?;
        let (kind, (setting, limit)) = self.timeouts.of_kind(&work);
        // Half: what a failing ingester leaves is enough to ask the others once more.
        let call = self.timeouts.ingester.max(limit / 2);
        let result =
            tokio::time::timeout(limit, self.work(&tenant, work, call)).await.unwrap_or(Err(JobError::TimedOut { setting, limit }));
        let status = if result.is_ok() { "ok" } else { "error" };
        metrics::histogram!(JOB_DURATION.name, "job" => kind, "status" => status).record(begun.elapsed().as_secs_f64());
        result
    }

    async fn work(&self, tenant: &TenantId, work: Work, call: Duration) -> Result<JobOutput, JobError> {
        Ok(match work {
            Work::FindRecent(request) => {
                let (found, charge) = self.find_recent(tenant, request, call).await?;
                JobOutput::of_trace(found, vec![charge])
            }
            Work::FindInBlocks(job) => {
                let (found, charges) = self.blocks.find(tenant, &job).await?;
                JobOutput::of_trace(found, charges)
            }
            Work::SearchRecent(request) => JobOutput::of_search(self.search_recent(tenant, request, call).await?),
            Work::SearchBlock(job) => {
                let (meta, row_groups) = blocks::part(tenant, job.part.as_ref())?;
                let request = job.request.unwrap_or_default();
                match &job.places {
                    None => JobOutput::of_search(self.blocks.search(meta, row_groups, &request, &self.budget).await?),
                    Some(places) => JobOutput::of_parts(self.search_block_parts(meta, row_groups, &request, places, call).await?),
                }
            }
            Work::SearchRecentTraces(job) => {
                let (request, places) = (job.request.unwrap_or_default(), job.places.unwrap_or_default());
                JobOutput::of_parts(self.search_recent_parts(tenant, request, &places, call).await?)
            }
            Work::SearchTraces(job) => JobOutput::of_search(self.search_traces(tenant, job, call).await?),
            Work::TagsRecent(request) => {
                let answers = self.ingesters.ask(tenant, request, call, |mut c, r| async move { c.search_tags_v2(r).await }).await?;
                JobOutput::new(Outcome::Tags(combined_tags(answers.parts)), answers.warnings)
            }
            Work::TagsBlock(job) => {
                let (meta, row_groups) = blocks::part(tenant, job.part.as_ref())?;
                let request = job.request.unwrap_or_default();
                let found = self.blocks.tags(meta, row_groups, &request, self.gathered(job.max_bytes)).await?;
                JobOutput::new(Outcome::Tags(found.result), found.warnings)
            }
            Work::TagValuesRecent(request) => {
                let answers = self.ingesters.ask(tenant, request, call, |mut c, r| async move { c.search_tag_values_v2(r).await }).await?;
                JobOutput::new(Outcome::TagValues(combined_tag_values(answers.parts)), answers.warnings)
            }
            Work::TagValuesBlock(job) => {
                let (meta, row_groups) = blocks::part(tenant, job.part.as_ref())?;
                let request = job.request.unwrap_or_default();
                let found = self.blocks.tag_values(meta, row_groups, &request, self.gathered(job.max_bytes)).await?;
                JobOutput::new(Outcome::TagValues(found.result), found.warnings)
            }
            Work::SeriesRecent(job) => {
                let (request, places) = (job.request.unwrap_or_default(), job.places.unwrap_or_default());
                JobOutput::of_series(self.series_recent(tenant, request, &places, call).await?)
            }
            Work::SeriesBlock(job) => {
                let (meta, row_groups) = blocks::part(tenant, job.part.as_ref())?;
                JobOutput::of_series(self.series_block(meta, row_groups, job).await?)
            }
            Work::SeriesTraces(job) => {
                let found = self.series_traces(tenant, job, call).await?;
                JobOutput::new(Outcome::Series(found.result), found.warnings)
            }
        })
    }

    pub(crate) async fn find_recent(
        &self,
        tenant: &TenantId,
        request: TraceByIdRequest,
        call: Duration,
    ) -> Result<(Found<TraceByIdResponse>, Charge), JobError> {
        blocks::trace_id(&request.trace_id)?;
        let mut charge = vivace_server::room_for_lookup(&self.budget, 0, true).await?;
        let answers = self.ingesters.ask(tenant, request, call, |mut c, r| async move { c.find_trace_by_id(r).await }).await?;
        let mut messages: BTreeSet<String> = answers.warnings.iter().cloned().collect();
        let mut inspected_bytes = 0;
        let mut parts = Vec::with_capacity(answers.parts.len());
        for answer in answers.parts {
            if answer.status() == PartialStatus::Partial {
                messages.insert(answer.message);
            }
            inspected_bytes += answer.metrics.map_or(0, |m| m.inspected_bytes);
            parts.extend(answer.trace.map(|t| t.resource_spans));
        }
        let status = if messages.is_empty() { PartialStatus::Complete } else { PartialStatus::Partial };
        let result = TraceByIdResponse {
            trace: Some(Trace { resource_spans: vivace_core::combine::combine(parts) }),
            metrics: Some(TraceByIdMetrics { inspected_bytes }),
            status: status.into(),
            message: messages.into_iter().collect::<Vec<_>>().join("; "),
        };
        charge.resize(vivace_server::lookup_bytes(
            result.trace.iter().flat_map(|trace| &trace.resource_spans).map(prost::Message::encoded_len),
        ))?;
        Ok((Found { result, warnings: answers.warnings }, charge))
    }
}

fn combined_tags(parts: Vec<SearchTagsV2Response>) -> SearchTagsV2Response {
    let mut scopes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut metrics = MetadataMetrics::default();
    for part in parts {
        add_metrics(&mut metrics, part.metrics);
        for scope in part.scopes {
            scopes.entry(scope.name).or_default().extend(scope.tags);
        }
    }
    let scopes = scopes.into_iter().map(|(name, tags)| SearchTagsV2Scope { name, tags: tags.into_iter().collect() }).collect();
    SearchTagsV2Response { scopes, metrics: Some(metrics) }
}

fn combined_tag_values(parts: Vec<SearchTagValuesV2Response>) -> SearchTagValuesV2Response {
    let mut values: BTreeSet<(String, String)> = BTreeSet::new();
    let mut metrics = MetadataMetrics::default();
    for part in parts {
        add_metrics(&mut metrics, part.metrics);
        values.extend(part.tag_values.into_iter().map(|v| (v.r#type, v.value)));
    }
    let tag_values = values.into_iter().map(|(r#type, value)| TagValue { r#type, value }).collect();
    SearchTagValuesV2Response { tag_values, metrics: Some(metrics) }
}

fn add_metrics(sum: &mut MetadataMetrics, part: Option<MetadataMetrics>) {
    let part = part.unwrap_or_default();
    sum.inspected_bytes += part.inspected_bytes;
    sum.total_jobs += part.total_jobs;
    sum.completed_jobs += part.completed_jobs;
    sum.total_blocks += part.total_blocks;
    sum.total_block_bytes += part.total_block_bytes;
}
