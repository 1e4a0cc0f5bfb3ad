//! Search without TraceQL: tags and a range of durations.
//!
//! Source: docs/facts/traceql.md, "Legacy search".

use std::sync::Arc;

use rustc_hash::FxHashMap;
use vivace_core::TimeRange;

use crate::error::QueryError;
use crate::expr::{At, Columns, Operand};
use crate::need::{Need, all_of, any_need};
use crate::{
    Attribute, Batch, Comparison, Condition, Fetch, Intrinsic, Pattern, RowParts, Scope, SearchPlan, SpanFilter, Status, TraceFilter,
    TraceRow, Value,
};

/// Tags whose value may be part of the attribute's.
const SUBSTRING_TAGS: [&str; 11] = [
    "service.name",
    "cluster",
    "namespace",
    "pod",
    "container",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "http.method",
    "http.url",
];

/// What a search without `q` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LegacySearch {
    /// Key and value; all must be found in one resource of the trace or its spans.
    pub tags: Vec<(String, String)>,
    /// Shortest trace, in whole milliseconds.
    pub min_duration_ms: Option<u64>,
    /// Longest trace, in whole milliseconds.
    pub max_duration_ms: Option<u64>,
}

/// Reads tags in logfmt: `service.name=cart error=true k="a value"`. A key without a value is an empty one.
///
/// # Errors
/// [`QueryError::Invalid`] names a key that comes twice, a missing key or a quote that is not closed.
pub fn parse_tags(text: &str) -> Result<Vec<(String, String)>, QueryError> {
    let refuse = |message: String| Err(QueryError::Invalid(format!("invalid tags: {message}")));
    let mut tags: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let key_len = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = &rest[..key_len];
        if key.is_empty() || key.contains('"') {
            return refuse(format!("expected a key before {rest:?}"));
        }
        rest = &rest[key_len..];
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            rest = after;
            if let Some(quoted) = rest.strip_prefix('"') {
                let mut escaped = false;
                let mut end = None;
                for (at, c) in quoted.char_indices() {
                    match c {
                        _ if escaped => {
                            value.push(match c {
                                'n' => '\n',
                                'r' => '\r',
                                't' => '\t',
                                c => c,
                            });
                            escaped = false;
                        }
                        '\\' => escaped = true,
                        '"' => {
                            end = Some(at + 1);
                            break;
                        }
                        c => value.push(c),
                    }
                }
                let Some(end) = end else { return refuse(format!("the value of {key:?} has no closing quote")) };
                rest = &quoted[end..];
            } else {
                let len = rest.find(char::is_whitespace).unwrap_or(rest.len());
                rest[..len].clone_into(&mut value);
                rest = &rest[len..];
            }
        }
        if tags.iter().any(|(known, _)| known == key) {
            return refuse(format!("the key {key:?} comes twice"));
        }
        tags.push((key.to_owned(), value));
        rest = rest.trim_start();
    }
    Ok(tags)
}

impl LegacySearch {
    /// Plans the search over the traces that overlap a range of time, compared in whole seconds.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] when the shortest duration is above the longest.
    pub fn search_plan(&self, range: TimeRange) -> Result<SearchPlan, QueryError> {
        let nanos = |ms: u64| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let (min, max) = (self.min_duration_ms.unwrap_or(0), self.max_duration_ms.unwrap_or(u64::MAX));
        if min > max {
            return Err(QueryError::Invalid(format!("minDuration of {min}ms is above maxDuration of {max}ms")));
        }
        let mut columns = Columns::default();
        let tests: Vec<Test> = self.tags.iter().map(|(key, value)| Test::new(key, value)).collect();
        let mut filters: Vec<TraceFilter> = tests.iter().map(Test::filter).collect();
        let mut trace_duration = |comparison| {
            let condition = Condition { attribute: Attribute::Intrinsic(Intrinsic::TraceDuration), comparison };
            filters.push(TraceFilter::AnySpan(SpanFilter::Leaf(condition)));
        };
        if min > 0 {
            trace_duration(Comparison::GreaterEqual(Value::Duration(nanos(min))));
        }
        if let Some(max) = self.max_duration_ms {
            trace_duration(Comparison::LessEqual(Value::Duration(nanos(max))));
        }
        let program = LegacyProgram {
            tests: tests
                .into_iter()
                .map(|test| test.0.into_iter().map(|c| (columns.operand(&c.attribute), c.comparison)).collect())
                .collect(),
            duration_nanos: (min.saturating_mul(1_000_000), max.saturating_mul(1_000_000)),
        };
        let fetch = Fetch {
            range: range.in_whole_seconds(),
            filter: all_of(filters),
            span_attributes: columns.span,
            event_attributes: columns.event,
            link_attributes: columns.link,
            rows: RowParts { summary: true, ..columns.rows },
        };
        Ok(SearchPlan::legacy(fetch, program))
    }
}

/// One tag: some of these conditions must hold for some span of the resource.
struct Test(Vec<Condition>);

impl Test {
    fn new(key: &str, value: &str) -> Self {
        let intrinsic = |intrinsic, comparison| Self(vec![Condition { attribute: Attribute::Intrinsic(intrinsic), comparison }]);
        let attribute = |comparison: Comparison| {
            let of = |scope| Condition { attribute: Attribute::Named { scope, key: key.into() }, comparison: comparison.clone() };
            Self(vec![of(Scope::Resource), of(Scope::Span)])
        };
        let contains = || Comparison::Regex(Arc::new(Pattern::of_part(value)));
        match key {
            "root.name" => intrinsic(Intrinsic::RootName, contains()),
            "root.service.name" => intrinsic(Intrinsic::RootService, contains()),
            "name" => intrinsic(Intrinsic::Name, contains()),
            "status.code" => match Status::from_text(value) {
                Some(status) => intrinsic(Intrinsic::Status, Comparison::Equal(Value::Status(status))),
                None => Self(Vec::new()),
            },
            "http.status_code" => match value.parse() {
                Ok(code) => attribute(Comparison::Equal(Value::Int(code))),
                Err(_) => attribute(Comparison::Equal(Value::Str(value.into()))),
            },
            key if SUBSTRING_TAGS.contains(&key) => attribute(contains()),
            _ => attribute(Comparison::Equal(Value::Str(value.into()))),
        }
    }

    fn filter(&self) -> TraceFilter {
        match any_need(self.0.iter().map(|condition| Need::Span(SpanFilter::Leaf(condition.clone())))) {
            Need::Never => TraceFilter::Nothing,
            Need::Unknown => TraceFilter::All,
            Need::Span(filter) => TraceFilter::AnySpan(filter),
        }
    }
}

/// The tests of a legacy search, ready to run.
#[derive(Debug, Clone)]
pub(crate) struct LegacyProgram {
    tests: Vec<Vec<(Operand, Comparison)>>,
    /// Shortest and longest trace, both allowed.
    duration_nanos: (u64, u64),
}

impl LegacyProgram {
    pub(crate) fn matches(&self, batch: &Batch, trace: &TraceRow) -> bool {
        let duration_nanos = trace.end_unix_nanos.saturating_sub(trace.start_unix_nanos);
        if duration_nanos < self.duration_nanos.0 || duration_nanos > self.duration_nanos.1 {
            return false;
        }
        if self.tests.is_empty() {
            return true;
        }
        let mut found: FxHashMap<u32, Vec<bool>> = FxHashMap::default();
        for span in trace.spans.clone() {
            let Some(row) = batch.spans.get(span) else { break };
            let at = At { batch, trace, span, event: None, link: None };
            let found = found.entry(row.resource).or_insert_with(|| vec![false; self.tests.len()]);
            for (test, found) in self.tests.iter().zip(found.iter_mut()).filter(|(_, found)| !**found) {
                *found = test.iter().any(|(operand, comparison)| comparison.accepts(operand.get(&at)));
            }
            if found.iter().all(|found| *found) {
                return true;
            }
        }
        false
    }
}
