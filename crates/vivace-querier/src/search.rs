//! Searches, tag names and tag values over one block, and recent searches put together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Response;
use vivace_block::BlockMeta;
use vivace_core::TenantId;
use vivace_core::budget::{Account, Budget, Charge, OverBudget};
use vivace_proto::tempopb::{
    SearchMetrics, SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest,
    SearchTagsV2Response, TraceSearchMetadata,
};
use vivace_traceql::{
    QueryError, Scope, SearchCombiner, SearchPlan, TagFilter, TagScope, Value, search_limit, tag_limit, tag_names_answer, tag_values_answer,
};

use crate::JobError;
use crate::blocks::{Blocks, Found, skipped};
use crate::error::add_new;
use crate::querier::Querier;

/// What reading the values of a column takes, bytes, about: pages and dictionaries are decoded whole.
const VALUES_BYTES: u64 = 128 << 20;
/// How long that waits for memory.
const VALUES_PATIENCE: Duration = Duration::from_secs(10);

/// Matching traces, charged until they have been sent.
#[derive(Debug)]
pub(crate) struct Matches {
    pub(crate) traces: Vec<TraceSearchMetadata>,
    pub(crate) metrics: SearchMetrics,
    pub(crate) held: Charge,
}

/// Matching traces as several say of them, bit by bit.
pub(crate) struct Matching {
    pub(crate) combiner: SearchCombiner,
    pub(crate) metrics: SearchMetrics,
}

impl Matching {
    /// Keeps the newest `limit` (0: all).
    pub(crate) fn within(budget: &Budget, limit: usize) -> Self {
        Self { combiner: SearchCombiner::within(budget, limit, true), metrics: SearchMetrics::default() }
    }

    pub(crate) fn add(&mut self, some: SearchResponse) {
        some.traces.into_iter().for_each(|trace| self.combiner.add(trace));
        let (sum, metrics) = (&mut self.metrics, some.metrics.unwrap_or_default());
        sum.inspected_traces = sum.inspected_traces.saturating_add(metrics.inspected_traces);
        sum.inspected_spans += metrics.inspected_spans;
        sum.inspected_bytes += metrics.inspected_bytes;
    }

    pub(crate) fn finish(self) -> Found<Matches> {
        Found::of(self.combiner, self.metrics, Vec::new())
    }
}

impl Found<Matches> {
    pub(crate) fn of(combiner: SearchCombiner, metrics: SearchMetrics, mut warnings: Vec<String>) -> Self {
        add_new(&mut warnings, combiner.warning().into_iter().collect());
        let (traces, held) = combiner.finish_charged();
        Self { result: Matches { traces, metrics, held }, warnings }
    }
}

/// Names or values that a job gathers: charged, and ended by a number of bytes. The one that goes over it is still taken: from it
/// the query-frontend, which counts again, sees that there was more.
pub(crate) struct Gathered {
    charge: Charge,
    bytes: u64,
    max_bytes: u64,
    refused: Option<OverBudget>,
}

impl Gathered {
    /// What an entry of a set costs beside its text, about.
    const ENTRY_BYTES: u64 = 64;
    /// Charged at once.
    const STEP_BYTES: u64 = 64 << 10;

    /// Counts one more; breaks with the last.
    fn add(&mut self, text: &str) -> ControlFlow<()> {
        self.bytes += text.len() as u64;
        let step = (text.len() as u64 + Self::ENTRY_BYTES).max(Self::STEP_BYTES);
        let entries = self.bytes.saturating_mul(2);
        if entries > self.charge.bytes()
            && let Err(over) = self.charge.grow(step)
        {
            self.refused = Some(over);
        }
        stop_if(self.refused.is_some() || self.bytes > self.max_bytes)
    }

    fn check(&mut self) -> Result<(), OverBudget> {
        self.refused.take().map_or(Ok(()), Err)
    }
}

impl Querier {
    /// `max_bytes` 0: as many as fit.
    pub(crate) fn gathered(&self, max_bytes: u64) -> Gathered {
        let max_bytes = if max_bytes == 0 { u64::MAX } else { max_bytes };
        Gathered { charge: self.budget.open(Account::Queries), bytes: 0, max_bytes, refused: None }
    }

    /// What the ingesters have that matches, the newest traces of it.
    pub(crate) async fn search_recent(
        &self,
        tenant: &TenantId,
        request: SearchRequest,
        call: Duration,
    ) -> Result<Found<Matches>, JobError> {
        let matching = Arc::new(Mutex::new(Matching::within(&self.budget, search_limit(&request))));
        let answers = self.ingesters.ask_recent(tenant, request, call, |mut client, request| {
            let matching = matching.clone();
            async move {
                let response = client.search(request).await?;
                let (metadata, mut messages, extensions) = response.into_parts();
                while let Some(message) = messages.message().await? {
                    matching.lock().add(message);
                }
                Ok(Response::from_parts(metadata, (), extensions))
            }
        });
        let warnings = answers.await?.warnings;
        let matching = std::mem::replace(&mut *matching.lock(), Matching::within(&self.budget, 1));
        matching.combiner.check_any()?;
        let mut found = matching.finish();
        add_new(&mut found.warnings, warnings);
        Ok(found)
    }
}

impl Blocks {
    /// The matching traces of some row groups.
    pub(crate) async fn search(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchRequest,
        budget: &Budget,
    ) -> Result<Found<Matches>, JobError> {
        let plan = plan(request)?;
        let (limit, spans_per_spanset) = (search_limit(request), request.spans_per_span_set as usize);
        let mut combiner = SearchCombiner::within(budget, limit, plan.most_recent());
        let searched = self
            .with_block(meta.clone(), move |block, cancelled| {
                let stats = block.search(plan.fetch(), row_groups, &mut |batch| {
                    plan.evaluate_each(&batch, spans_per_spanset, &|| cancelled.is_cancelled(), &mut |trace| {
                        combiner.add(trace);
                        stop_if(combiner.is_complete())
                    })
                })?;
                Ok((combiner, stats))
            })
            .await?;
        match searched {
            Ok(((combiner, stats), inspected_bytes)) => {
                combiner.check_any()?;
                let metrics = SearchMetrics {
                    inspected_traces: u32::try_from(stats.traces).unwrap_or(u32::MAX),
                    inspected_spans: stats.spans,
                    inspected_bytes,
                    ..Default::default()
                };
                Ok(Found::of(combiner, metrics, Vec::new()))
            }
            Err(fault) => {
                Ok(Found::of(SearchCombiner::within(budget, limit, true), SearchMetrics::default(), vec![skipped(&meta, fault)?]))
            }
        }
    }

    /// The names of attributes. With a filter, those that occur where it may pass, as far as the block's columns decide that.
    pub(crate) async fn tags(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchTagsRequest,
        mut gathered: Gathered,
    ) -> Result<Found<SearchTagsV2Response>, JobError> {
        let scope = match TagScope::of_request(&request.scope).map_err(invalid)? {
            TagScope::All => None,
            TagScope::Attributes(scope) => Some(scope),
            // Intrinsics are the language's, not the block's.
            TagScope::Intrinsics => return Ok(Found { result: SearchTagsV2Response::default(), warnings: Vec::new() }),
        };
        let filter = TagFilter::of_names_request(request).map_err(invalid)?;
        let most = tag_limit(request.max_tags_per_scope);
        let read = self
            .with_block(meta.clone(), move |block, cancelled| {
                let mut names: BTreeMap<Scope, BTreeSet<String>> = BTreeMap::new();
                if filter.passes_nothing() {
                    return Ok((names, gathered));
                }
                let spans = (!filter.passes_everything()).then(|| filter.span_filter());
                block.tag_names(scope, spans, row_groups, &mut |scope, name| {
                    let names = names.entry(scope).or_default();
                    if names.len() < most && !names.contains(name) {
                        names.insert(name.to_owned());
                        gathered.add(name)?;
                    }
                    stop_if(cancelled.is_cancelled())
                })?;
                Ok((names, gathered))
            })
            .await?;
        match read {
            Ok(((names, mut gathered), inspected_bytes)) => {
                gathered.check()?;
                Ok(Found { result: tag_names_answer(names, inspected_bytes), warnings: Vec::new() })
            }
            Err(fault) => Ok(Found { result: SearchTagsV2Response::default(), warnings: vec![skipped(&meta, fault)?] }),
        }
    }

    /// The values of an attribute in a block. With a filter, those of spans that may pass it, as far as the block's columns
    /// decide that: exactly for comparisons joined by `&&` and `||`.
    pub(crate) async fn tag_values(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchTagValuesRequest,
        mut gathered: Gathered,
    ) -> Result<Found<SearchTagValuesV2Response>, JobError> {
        let attribute = vivace_traceql::parse_attribute(&request.tag_name).map_err(|e| JobError::Invalid(e.to_string()))?;
        if let Some(fixed) = vivace_traceql::fixed_tag_values(&attribute) {
            let fixed: BTreeSet<_> = fixed.into_iter().collect();
            return Ok(Found { result: tag_values_answer(fixed, 0), warnings: Vec::new() });
        }
        let filter = TagFilter::of_values_request(request, &attribute).map_err(invalid)?;
        let most = tag_limit(request.max_tag_values);
        // A column of long values is read in large pieces: two at a time where there is little memory, with room for others.
        let piece = VALUES_BYTES.min(self.budget.limit_of(Account::Queries) / 5 * 2);
        let _until_it_is_read = vivace_server::room(&self.budget, Account::Queries, piece, VALUES_PATIENCE).await?;
        let read = self
            .with_block(meta.clone(), move |block, cancelled| {
                let mut values: BTreeSet<vivace_traceql::TagValue> =
                    filter.pinned().iter().flat_map(vivace_traceql::TagValue::of).collect();
                let mut take = |value: &Value| {
                    for value in vivace_traceql::TagValue::of(value) {
                        if !values.contains(&value) {
                            let flow = gathered.add(&value.value);
                            values.insert(value);
                            flow?;
                        }
                    }
                    stop_if(values.len() >= most || cancelled.is_cancelled())
                };
                if !filter.passes_nothing() {
                    let spans = (!filter.passes_everything()).then(|| filter.span_filter());
                    block.tag_values(&attribute, spans, row_groups, &mut |value| take(&value))?;
                }
                Ok((values, gathered))
            })
            .await?;
        match read {
            Ok(((values, mut gathered), inspected_bytes)) => {
                gathered.check()?;
                let values = values.into_iter().take(most);
                Ok(Found { result: tag_values_answer(values, inspected_bytes), warnings: Vec::new() })
            }
            Err(fault) => Ok(Found { result: SearchTagValuesV2Response::default(), warnings: vec![skipped(&meta, fault)?] }),
        }
    }
}

pub(crate) fn plan(request: &SearchRequest) -> Result<SearchPlan, JobError> {
    SearchPlan::of_request(request).map_err(invalid)
}

fn invalid(error: QueryError) -> JobError {
    JobError::Invalid(error.to_string())
}

pub(crate) fn stop_if(stop: bool) -> ControlFlow<()> {
    if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
