//! What a request for a search, for tag names or for tag values means, so that all who answer it answer the same.
//!
//! Source: docs/facts/http-api.md, "Query API".

use std::collections::{BTreeMap, BTreeSet};

use vivace_core::TimeRange;
use vivace_proto::tempopb::{
    self, MetadataMetrics, SearchRequest, SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response,
    SearchTagsV2Scope,
};

use crate::error::QueryError;
use crate::{Attribute, LegacySearch, Scope, SearchPlan, TagFilter, TagValue, parse};

/// Traces that a search returns when it names no limit.
pub const DEFAULT_SEARCH_LIMIT: usize = 20;

/// Scopes whose attributes are tags, by their names in requests and answers, in the order of an answer.
const TAG_SCOPES: [(&str, Scope); 5] = [
    ("resource", Scope::Resource),
    ("span", Scope::Span),
    ("event", Scope::Event),
    ("link", Scope::Link),
    ("instrumentation", Scope::Instrumentation),
];

/// The most traces that a search wants; a limit of 0 is [`DEFAULT_SEARCH_LIMIT`].
#[must_use]
pub fn search_limit(request: &SearchRequest) -> usize {
    if request.limit == 0 { DEFAULT_SEARCH_LIMIT } else { request.limit as usize }
}

/// The most names (in a scope) or values that a tags request wants; a limit of 0 is none.
#[must_use]
pub fn tag_limit(asked: u32) -> usize {
    if asked == 0 { usize::MAX } else { asked as usize }
}

impl SearchPlan {
    /// The plan of a request, which asks in TraceQL or by tags and durations: the same wherever it is made.
    ///
    /// # Errors
    /// What is wrong with the query; [`QueryError::Request`] if the request contradicts itself.
    pub fn of_request(request: &SearchRequest) -> Result<Self, QueryError> {
        let refuse = |what: &str| Err(QueryError::Request(what.to_owned()));
        if request.max_duration_ms > 0 && request.max_duration_ms < request.min_duration_ms {
            return refuse("invalid maxDuration: must be greater than minDuration");
        }
        if !request.query.is_empty() && !request.tags.is_empty() {
            return refuse("invalid request: can't specify tags and q in the same query");
        }
        let range = TimeRange::of_request(request.start, request.end);
        if !request.query.is_empty() {
            return parse(&request.query)?.search_plan(range);
        }
        let tags = request.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let duration = |ms: u32| (ms > 0).then_some(u64::from(ms));
        let (min_duration_ms, max_duration_ms) = (duration(request.min_duration_ms), duration(request.max_duration_ms));
        LegacySearch { tags, min_duration_ms, max_duration_ms }.search_plan(range)
    }
}

/// Which tag names a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagScope {
    /// Attributes of all scopes, and intrinsics.
    All,
    /// Intrinsics, which need no data: see [`crate::intrinsic_tags`].
    Intrinsics,
    /// Attributes of one scope.
    Attributes(Scope),
}

impl TagScope {
    /// From its name in a request.
    ///
    /// # Errors
    /// [`QueryError::Request`] if no scope has this name.
    pub fn of_request(name: &str) -> Result<Self, QueryError> {
        match name {
            "" | "none" => Ok(Self::All),
            "intrinsic" => Ok(Self::Intrinsics),
            name => match TAG_SCOPES.iter().find(|(known, _)| *known == name) {
                Some((_, scope)) => Ok(Self::Attributes(*scope)),
                None => Err(QueryError::Request(format!("invalid scope: {name}"))),
            },
        }
    }

    /// Whether intrinsics are among the names.
    #[must_use]
    pub fn has_intrinsics(self) -> bool {
        matches!(self, Self::All | Self::Intrinsics)
    }
}

impl TagFilter {
    /// Which spans' attributes a request for names asks about.
    ///
    /// # Errors
    /// As [`TagFilter::parse`].
    pub fn of_names_request(request: &SearchTagsRequest) -> Result<Self, QueryError> {
        let range = TimeRange::of_request(request.start, request.end);
        Self::parse(&request.query, None, range)
    }

    /// Which spans' values a request for values of `requested`, the attribute that it names, asks about.
    ///
    /// # Errors
    /// As [`TagFilter::parse`].
    pub fn of_values_request(request: &SearchTagValuesRequest, requested: &Attribute) -> Result<Self, QueryError> {
        let range = TimeRange::of_request(request.start, request.end);
        Self::parse(&request.query, Some(requested), range)
    }
}

/// The answer to a request for names.
#[must_use]
pub fn tag_names_answer(mut names: BTreeMap<Scope, BTreeSet<String>>, inspected_bytes: u64) -> SearchTagsV2Response {
    let scopes = TAG_SCOPES.iter().filter_map(|(name, scope)| Some((name, names.remove(scope)?)));
    let scopes = scopes.map(|(name, tags)| SearchTagsV2Scope { name: (*name).to_owned(), tags: tags.into_iter().collect() });
    SearchTagsV2Response { scopes: scopes.collect(), metrics: Some(MetadataMetrics { inspected_bytes, ..Default::default() }) }
}

/// The answer to a request for values.
#[must_use]
pub fn tag_values_answer(values: impl IntoIterator<Item = TagValue>, inspected_bytes: u64) -> SearchTagValuesV2Response {
    let tag_values = values.into_iter().map(|v| tempopb::TagValue { r#type: v.kind.to_owned(), value: v.value }).collect();
    SearchTagValuesV2Response { tag_values, metrics: Some(MetadataMetrics { inspected_bytes, ..Default::default() }) }
}
