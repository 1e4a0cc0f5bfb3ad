//! Searches, tag names and tag values over one block, and recent searches put together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use vivace_block::{BlockMeta, BlockReader};
use vivace_proto::tempopb::{
    MetadataMetrics, SearchMetrics, SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest,
    SearchTagsV2Response, SearchTagsV2Scope, TagValue,
};
use vivace_traceql::{
    Attribute, Batch, Intrinsic, LegacySearch, QueryError, Scope, SearchCombiner, SearchPlan, TagFilter, TraceFilter, TraceRow, Value,
};

use crate::JobError;
use crate::blocks::{Blocks, Found, skipped};
use crate::error::BlockFault;

/// The names of scopes in requests and answers.
const SCOPES: [(&str, Scope); 5] = [
    ("resource", Scope::Resource),
    ("span", Scope::Span),
    ("event", Scope::Event),
    ("link", Scope::Link),
    ("instrumentation", Scope::Instrumentation),
];

const SECOND: u64 = 1_000_000_000;

impl Blocks {
    /// The matching traces of some row groups.
    pub(crate) async fn search(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchRequest,
    ) -> Result<Found<SearchResponse>, JobError> {
        let plan = plan(request)?;
        let (limit, spans_per_spanset) = (request.limit as usize, request.spans_per_span_set as usize);
        let searched = self
            .with_block(meta.clone(), move |block, cancelled| {
                let mut combiner = SearchCombiner::new(limit, plan.most_recent());
                let stats = block.search(plan.fetch(), row_groups, &mut |batch| {
                    plan.evaluate(&batch, spans_per_spanset).into_iter().for_each(|trace| combiner.add(trace));
                    stop_if(cancelled.is_cancelled() || combiner.is_complete())
                })?;
                Ok((combiner.finish(), stats))
            })
            .await?;
        match searched {
            Ok(((traces, stats), inspected_bytes)) => {
                let metrics = SearchMetrics {
                    inspected_traces: u32::try_from(stats.traces).unwrap_or(u32::MAX),
                    inspected_spans: stats.spans,
                    inspected_bytes,
                    ..Default::default()
                };
                Ok(Found { result: SearchResponse { traces, metrics: Some(metrics) }, warnings: Vec::new() })
            }
            Err(fault) => Ok(Found { result: SearchResponse::default(), warnings: vec![skipped(&meta, fault)?] }),
        }
    }

    /// The names of attributes. With a filter, those that occur where it may pass, as far as the block's columns decide that.
    pub(crate) async fn tags(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchTagsRequest,
    ) -> Result<Found<SearchTagsV2Response>, JobError> {
        let scope = match request.scope.as_str() {
            "" | "all" | "none" => None,
            // Intrinsics are the language's, not the block's.
            "intrinsic" => return Ok(Found { result: SearchTagsV2Response::default(), warnings: Vec::new() }),
            name => {
                let known = SCOPES.iter().find(|(known, _)| *known == name).map(|(_, scope)| *scope);
                Some(known.ok_or_else(|| JobError::Invalid(format!("{name:?} is no scope of tags")))?)
            }
        };
        let (start, end) = nanos(request.start, request.end);
        let filter = TagFilter::parse(&request.query, None, start, end).map_err(invalid)?;
        let most = limit(request.max_tags_per_scope);
        let read = self
            .with_block(meta.clone(), move |block, cancelled| {
                let mut names: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
                let spans = match &filter.fetch().filter {
                    TraceFilter::Nothing => return Ok(names),
                    TraceFilter::AnySpan(spans) => Some(spans),
                    _ => None,
                };
                block.tag_names(scope, spans, row_groups, &mut |scope, name| {
                    if let Some((of, _)) = SCOPES.iter().find(|(_, known)| *known == scope) {
                        let names = names.entry(*of).or_default();
                        if names.len() < most {
                            names.insert(name.to_owned());
                        }
                    }
                    stop_if(cancelled.is_cancelled())
                })?;
                Ok(names)
            })
            .await?;
        match read {
            Ok((names, inspected_bytes)) => {
                let scopes =
                    names.into_iter().map(|(name, tags)| SearchTagsV2Scope { name: name.to_owned(), tags: tags.into_iter().collect() });
                let metrics = Some(MetadataMetrics { inspected_bytes, ..Default::default() });
                Ok(Found { result: SearchTagsV2Response { scopes: scopes.collect(), metrics }, warnings: Vec::new() })
            }
            Err(fault) => Ok(Found { result: SearchTagsV2Response::default(), warnings: vec![skipped(&meta, fault)?] }),
        }
    }

    /// The values of an attribute in a block; with a filter, exactly those of spans that pass it.
    pub(crate) async fn tag_values(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SearchTagValuesRequest,
    ) -> Result<Found<SearchTagValuesV2Response>, JobError> {
        let attribute = vivace_traceql::parse_attribute(&request.tag_name).map_err(|e| JobError::Invalid(e.to_string()))?;
        if let Some(fixed) = vivace_traceql::fixed_tag_values(&attribute) {
            let values = fixed.into_iter().collect();
            return Ok(Found { result: response(values, 0), warnings: Vec::new() });
        }
        let (start, end) = nanos(request.start, request.end);
        let filter = TagFilter::parse(&request.query, Some(&attribute), start, end).map_err(invalid)?;
        let most = limit(request.max_tag_values);
        let read = self
            .with_block(meta.clone(), move |block, cancelled| {
                let mut values: BTreeSet<vivace_traceql::TagValue> =
                    filter.pinned().iter().flat_map(vivace_traceql::TagValue::of).collect();
                let mut take = |value: &Value| {
                    values.extend(vivace_traceql::TagValue::of(value));
                    stop_if(values.len() >= most || cancelled.is_cancelled())
                };
                if filter.passes_everything() {
                    block.tag_values(&attribute, None, row_groups, &mut |value| take(&value))?;
                } else if !filter.passes_nothing() {
                    values_of_spans(block, row_groups, &attribute, &filter, &mut take)?;
                }
                Ok(values)
            })
            .await?;
        match read {
            Ok((values, inspected_bytes)) => {
                let values = values.into_iter().take(most).collect();
                Ok(Found { result: response(values, inspected_bytes), warnings: Vec::new() })
            }
            Err(fault) => Ok(Found { result: SearchTagValuesV2Response::default(), warnings: vec![skipped(&meta, fault)?] }),
        }
    }
}

/// What a search request asks for: TraceQL, or tags and durations.
fn plan(request: &SearchRequest) -> Result<SearchPlan, JobError> {
    let (start, end) = nanos(request.start, request.end);
    let planned = if request.query.is_empty() {
        let mut tags: Vec<(String, String)> = request.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        tags.sort();
        let duration = |ms: u32| (ms > 0).then_some(u64::from(ms));
        let (min_duration_ms, max_duration_ms) = (duration(request.min_duration_ms), duration(request.max_duration_ms));
        LegacySearch { tags, min_duration_ms, max_duration_ms }.search_plan(start, end)
    } else {
        vivace_traceql::parse(&request.query).and_then(|query| query.search_plan(start, end))
    };
    planned.map_err(invalid)
}

/// Hands out the attribute's value of every span that passes the filter, copies included.
fn values_of_spans(
    block: &BlockReader,
    row_groups: Range<usize>,
    attribute: &Attribute,
    filter: &TagFilter,
    take: &mut dyn FnMut(&Value) -> ControlFlow<()>,
) -> Result<(), BlockFault> {
    let mut fetch = filter.fetch().clone();
    // Behind the filter's own columns, whose places it knows.
    let column = if attribute.is_of_events() {
        fetch.event_attributes.push(attribute.clone());
        fetch.event_attributes.len() - 1
    } else if attribute.is_of_links() {
        fetch.link_attributes.push(attribute.clone());
        fetch.link_attributes.len() - 1
    } else {
        if !attribute.is_in_every_row() {
            fetch.span_attributes.push(attribute.clone());
        }
        fetch.span_attributes.len().saturating_sub(1)
    };
    block.search(&fetch, row_groups, &mut |batch| {
        for trace in &batch.traces {
            for span in trace.spans.clone().filter(|span| filter.matches(&batch, trace, *span)) {
                values_of_span(&batch, trace, span, attribute, column, take)?;
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
}

fn values_of_span(
    batch: &Batch,
    trace: &TraceRow,
    span: usize,
    attribute: &Attribute,
    column: usize,
    take: &mut dyn FnMut(&Value) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let children = if attribute.is_of_events() { &batch.events } else { &batch.links };
    match attribute {
        Attribute::Intrinsic(Intrinsic::RootName) => take(&Value::Str(trace.root_name.clone())),
        Attribute::Intrinsic(Intrinsic::RootService) => take(&Value::Str(trace.root_service.clone())),
        _ if attribute.is_in_every_row() => ControlFlow::Continue(()),
        _ if attribute.is_of_events() || attribute.is_of_links() => children.of_span(span).try_for_each(|row| {
            children.columns.get(column).and_then(|values| values.get(row)).map_or(ControlFlow::Continue(()), &mut *take)
        }),
        _ => batch.columns.get(column).and_then(|values| values.get(span)).map_or(ControlFlow::Continue(()), take),
    }
}

/// What several ingesters found, the newest traces of it.
pub(crate) fn combined(parts: Vec<SearchResponse>, limit: usize) -> SearchResponse {
    let mut combiner = SearchCombiner::new(limit, true);
    let mut sum = SearchMetrics::default();
    for part in parts {
        part.traces.into_iter().for_each(|trace| combiner.add(trace));
        let metrics = part.metrics.unwrap_or_default();
        sum.inspected_traces = sum.inspected_traces.saturating_add(metrics.inspected_traces);
        sum.inspected_spans += metrics.inspected_spans;
        sum.inspected_bytes += metrics.inspected_bytes;
    }
    SearchResponse { traces: combiner.finish(), metrics: Some(sum) }
}

fn response(values: BTreeSet<vivace_traceql::TagValue>, inspected_bytes: u64) -> SearchTagValuesV2Response {
    let tag_values = values.into_iter().map(|v| TagValue { r#type: v.kind.to_owned(), value: v.value }).collect();
    SearchTagValuesV2Response { tag_values, metrics: Some(MetadataMetrics { inspected_bytes, ..Default::default() }) }
}

fn invalid(error: QueryError) -> JobError {
    JobError::Invalid(error.to_string())
}

/// A limit of 0 is none.
fn limit(wanted: u32) -> usize {
    if wanted == 0 { usize::MAX } else { wanted as usize }
}

fn nanos(start_seconds: u32, end_seconds: u32) -> (u64, u64) {
    (u64::from(start_seconds) * SECOND, u64::from(end_seconds) * SECOND)
}

fn stop_if(stop: bool) -> ControlFlow<()> {
    if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
