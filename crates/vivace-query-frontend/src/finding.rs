//! Whole traces, names and services as other systems' APIs ask for them: in steps of the query API's own, for a tenant's own part of
//! the process.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use vivace_core::budget::Charge;
use vivace_core::{SECOND, TenantId, TraceId};
use vivace_proto::otlp::{Resource, any_value};
use vivace_proto::tempopb::{SearchRequest, SearchTagValuesRequest, SearchTagsRequest, TraceSearchMetadata};
use vivace_traceql::{Attribute, Intrinsic};

use crate::combine::{CombinedTrace, TagCombiner, ValueCombiner};
use crate::conditions::{Conditions, service_name};
use crate::error::QueryError;
use crate::http::QueryApi;
use crate::lookup::{ALL_BLOCKS, Lookup, LookupMode};
use crate::metrics::Op;
use crate::params::SearchRange;

/// A time that is later was meant in another unit: nanoseconds since 1970, in the year 2106.
pub(crate) const TIME_MAX: u64 = u32::MAX as u64 * SECOND;
/// Traces of one search that are looked up at once.
const LOOKUPS: usize = 8;

/// Traces that are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// TraceQL.
    pub(crate) query: String,
    pub(crate) range: SearchRange,
    /// 0: as many as a search without a limit.
    pub(crate) limit: u32,
    /// Spans of a trace that are told.
    pub(crate) spans_per_trace: u32,
}

/// What was found, and what could not be looked at.
pub(crate) struct Found<T> {
    pub(crate) found: T,
    pub(crate) warnings: Vec<String>,
}

impl QueryApi {
    /// A trace with all its spans; empty where there is none.
    ///
    /// # Errors
    /// A job failed for good, or there is no room for it.
    pub(crate) async fn whole_trace(&self, tenants: &[TenantId], trace_id: TraceId) -> Result<CombinedTrace, QueryError> {
        // A search knows when spans of it were found, not when its other spans are.
        let lookup = Lookup { trace_id, mode: LookupMode::All, start: 0, end: 0, blocks: ALL_BLOCKS };
        let inspected = |trace: &CombinedTrace| trace.inspected_bytes;
        self.timed(tenants, Op::Traces, inspected, self.frontend.trace(tenants, lookup)).await
    }

    /// Those of some traces that are there, in the same order.
    ///
    /// # Errors
    /// As [`QueryApi::whole_trace`].
    pub(crate) async fn whole_traces(&self, tenants: &[TenantId], ids: Vec<TraceId>) -> Result<Vec<CombinedTrace>, QueryError> {
        let lookups = futures::stream::iter(ids.into_iter().map(|id| self.whole_trace(tenants, id)));
        let found: Vec<CombinedTrace> = lookups.buffered(LOOKUPS).try_collect().await?;
        Ok(found.into_iter().filter(|found| !found.trace.resource_spans.is_empty()).collect())
    }

    /// The traces that a search finds, with all their spans: at most `max_traces`, since each is looked up.
    ///
    /// # Errors
    /// What is wrong with the search, or why it could not be answered.
    pub(crate) async fn find_whole(
        &self,
        tenants: &[TenantId],
        wanted: Wanted,
        max_traces: u32,
    ) -> Result<Found<Vec<CombinedTrace>>, QueryError> {
        let wanted = Wanted { limit: wanted.limit.min(max_traces.max(1)), ..wanted };
        let (Found { found, warnings }, _held) = self.find(tenants, wanted).await?;
        let ids: Vec<TraceId> = found.iter().filter_map(|trace| trace.trace_id.parse().ok()).collect();
        Ok(Found { found: self.whole_traces(tenants, ids).await?, warnings })
    }

    /// The newest traces that a search finds, and what is charged for that. A client of another system that asks for twenty means those.
    ///
    /// # Errors
    /// As [`QueryApi::find_whole`].
    pub(crate) async fn find(&self, tenants: &[TenantId], wanted: Wanted) -> Result<(Found<Vec<TraceSearchMetadata>>, Charge), QueryError> {
        let Wanted { range, .. } = wanted;
        let mut start = range.start;
        // A range that is allowed may be longer once its ends are whole seconds.
        if let Some(first) = self.first_allowed(tenants, range.end)
            && (first..first.saturating_add(2)).contains(&start.saturating_add(2))
        {
            start = first;
        }
        let max = self.frontend.config.search.max_result_limit;
        let request = SearchRequest {
            query: format!("{} with (most_recent=true)", wanted.query),
            start,
            end: range.end,
            // A client of another system names no limit of this one's.
            limit: u32::try_from(max).ok().filter(|max| *max > 0).map_or(wanted.limit, |max| max.min(wanted.limit)),
            spans_per_span_set: wanted.spans_per_trace,
            ..Default::default()
        };
        let query = async {
            let (result, mut warnings) = self.frontend.search(tenants, request)?.finish().await?;
            warnings.extend(result.warning());
            let (answer, held) = result.finish();
            Ok((answer, warnings, held))
        };
        let inspected = |(answer, ..): &(vivace_proto::tempopb::SearchResponse, _, _)| answer.metrics.map_or(0, |m| m.inspected_bytes);
        let (answer, warnings, held) = self.timed(tenants, Op::Search, inspected, query).await?;
        Ok((Found { found: answer.traces, warnings }, held))
    }

    /// The services of a time, sorted.
    ///
    /// # Errors
    /// Why they could not be found.
    pub(crate) async fn services(&self, tenants: &[TenantId], back: Duration) -> Result<Found<Vec<String>>, QueryError> {
        self.values(tenants, &service_name(), &Conditions::default(), back).await
    }

    /// Names of the spans for which conditions hold, sorted.
    ///
    /// # Errors
    /// As [`QueryApi::services`].
    pub(crate) async fn span_names(&self, tenants: &[TenantId], of: &Conditions, back: Duration) -> Result<Found<Vec<String>>, QueryError> {
        self.values(tenants, &Attribute::Intrinsic(Intrinsic::Name), of, back).await
    }

    /// The values of an attribute of the spans for which conditions hold, sorted.
    ///
    /// # Errors
    /// As [`QueryApi::services`].
    pub(crate) async fn values(
        &self,
        tenants: &[TenantId],
        attribute: &Attribute,
        of: &Conditions,
        back: Duration,
    ) -> Result<Found<Vec<String>>, QueryError> {
        let SearchRange { start, end } = self.last(tenants, back);
        let request = SearchTagValuesRequest { tag_name: attribute.to_string(), query: of.filter(), start, end, ..Default::default() };
        let query = async { self.frontend.tag_values(tenants, request)?.finish().await };
        let inspected = |(found, _): &(ValueCombiner, _)| found.inspected_bytes;
        let (found, mut warnings) = self.timed(tenants, Op::Metadata, inspected, query).await?;
        warnings.extend(found.warning());
        let mut values: Vec<String> = found.values().into_iter().map(|value| value.value).filter(|value| !value.is_empty()).collect();
        values.sort_unstable();
        values.dedup();
        Ok(Found { found: values, warnings })
    }

    /// Names of attributes of spans, sorted.
    ///
    /// # Errors
    /// As [`QueryApi::services`].
    pub(crate) async fn span_attributes(&self, tenants: &[TenantId], back: Duration) -> Result<Found<Vec<String>>, QueryError> {
        let SearchRange { start, end } = self.last(tenants, back);
        let request = SearchTagsRequest { scope: "span".to_owned(), start, end, ..Default::default() };
        let query = async { self.frontend.tags(tenants, request)?.1.finish().await };
        let inspected = |(found, _): &(TagCombiner, _)| found.inspected_bytes;
        let (found, mut warnings) = self.timed(tenants, Op::Metadata, inspected, query).await?;
        warnings.extend(found.warning());
        let mut names: Vec<String> = found.scopes().into_iter().flat_map(|scope| scope.tags).collect();
        names.sort_unstable();
        Ok(Found { found: names, warnings })
    }

    /// The first second that a search may have which ends at a given one; none where any is allowed.
    pub(crate) fn first_allowed(&self, tenants: &[TenantId], end: u32) -> Option<u32> {
        let max = self.frontend.max_search_duration(tenants);
        (!max.is_zero()).then(|| end.saturating_sub(u32::try_from(max.as_secs()).unwrap_or(u32::MAX)))
    }

    /// A time that ends now, as long as is allowed.
    fn last(&self, tenants: &[TenantId], back: Duration) -> SearchRange {
        let now = self.frontend.now();
        self.allowed(tenants, range(now.saturating_sub(u64::try_from(back.as_nanos()).unwrap_or(u64::MAX)), now))
    }

    /// As much of a range as a search may have: its end.
    pub(crate) fn allowed(&self, tenants: &[TenantId], SearchRange { start, end }: SearchRange) -> SearchRange {
        SearchRange { start: self.first_allowed(tenants, end).map_or(start, |first| first.max(start)), end }
    }
}

/// Unix nanoseconds as the seconds of a search, rounded outwards.
pub(crate) fn range(start: u64, end: u64) -> SearchRange {
    let seconds = |nanos: u64| u32::try_from(nanos / SECOND).unwrap_or(u32::MAX);
    // 0 would be open.
    let start = seconds(start).max(1);
    SearchRange { start, end: seconds(end.saturating_add(SECOND - 1)).max(start.saturating_add(1)) }
}

/// The name of a resource's service, where it has a text.
pub(crate) fn service_of(resource: Option<&Resource>) -> Option<&str> {
    let attributes = resource.map(|resource| &resource.attributes[..]).unwrap_or_default();
    let name = attributes.iter().find(|attribute| attribute.key == "service.name")?;
    match &name.value.as_ref()?.value {
        Some(any_value::Value::StringValue(text)) => Some(text),
        _ => None,
    }
}
