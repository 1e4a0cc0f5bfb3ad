//! Everything that blocks and live spans can be asked. The answers do not matter, only that there are some.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use vivace_block::{BlockReader, ReadError};
use vivace_core::TimeRange;
use vivace_traceql::{Attribute, Fetch, Scope, SpanFilter, TraceFilter};

use crate::input::Input;

const QUERIES: &[&str] = &[
    r#"{ }"#,
    r#"{ span.http.method != "x" }"#,
    r#"{ .http.status_code >= 200 } | select(span.http.url, resource.cluster, .db.system)"#,
    r#"{ resource.service.name =~ "f.*" && name != "y" }"#,
    r#"{ resource.k8s.pod.name != nil || span.http.url < "m" }"#,
    r#"{ event.exception.type = nil }"#,
    r#"{ event:name = "exception" && event:timeSinceStart > 1us }"#,
    r#"{ link:spanID != "0000000000000001" } | select(link.why, event.attempt)"#,
    r#"{ duration > 1ms && status = error } | select(statusMessage, span:parentID)"#,
    r#"{ kind = server } >> { span.thread.id > 7 }"#,
    r#"{ rootName =~ ".*" && rootServiceName != "z" && traceDuration > 1ns }"#,
    r#"{ nestedSetParent < 0 && span:childCount >= 1 }"#,
    r#"{ instrumentation.scope.tier = "edge" || instrumentation:name != "" }"#,
    r#"{ span.arr.i = 2 || span.arr.s = "a" || span.f > 1.5 || span.b = true }"#,
    r#"{ trace:id = "4e7e1fa916da4b9d2a8868fa593cf519" } | count() > 1"#,
];

const TAGS: &[&str] = &[
    "span.http.method",
    "span.http.status_code",
    "span.arr.i",
    "span.thread.id",
    "resource.service.name",
    "resource.cluster",
    "resource.k8s.pod.name",
    ".http.url",
    "event.exception.type",
    "link.why",
    "instrumentation.scope.tier",
    "name",
    "statusMessage",
    "rootName",
    "rootServiceName",
    "event:name",
    "instrumentation:version",
    "status",
    "duration",
];

static FETCHES: LazyLock<Vec<Fetch>> =
    LazyLock::new(|| QUERIES.iter().flat_map(|text| [fetch(text, TimeRange::ALL), fetch(text, TimeRange::between(1, u64::MAX))]).collect());

static ATTRIBUTES: LazyLock<Vec<Attribute>> =
    LazyLock::new(|| TAGS.iter().map(|text| vivace_traceql::parse_attribute(text).expect("an attribute")).collect());

fn fetch(text: &str, range: TimeRange) -> Fetch {
    let query = vivace_traceql::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    query.search_plan(range).unwrap_or_else(|e| panic!("{text}: {e}")).fetch().clone()
}

/// What one input asks.
pub(crate) struct Question {
    pub(crate) fetch: &'static Fetch,
    pub(crate) attribute: &'static Attribute,
    pub(crate) scope: Option<Scope>,
    is_filtered: bool,
    /// Search, tags, whole traces, or all of these; one takes a third of the time.
    part: u8,
}

impl Question {
    pub(crate) fn read(input: &mut Input<'_>) -> Self {
        let scopes = [None, Some(Scope::Unscoped), Some(Scope::Resource), Some(Scope::Span), Some(Scope::Event), Some(Scope::Link)];
        let (fetch, attribute) = (input.index(FETCHES.len()), input.index(ATTRIBUTES.len()));
        let (scope, flags) = (input.index(scopes.len()), input.u8());
        Self {
            fetch: &FETCHES[fetch],
            attribute: &ATTRIBUTES[attribute],
            scope: scopes[scope],
            is_filtered: flags & 1 == 1,
            part: flags >> 1 & 3,
        }
    }

    /// The first condition on a span.
    pub(crate) fn span_filter(&self) -> SpanFilter {
        fn first(filter: &TraceFilter) -> Option<&SpanFilter> {
            match filter {
                TraceFilter::AnySpan(filter) => Some(filter),
                TraceFilter::And(filters) | TraceFilter::Or(filters) => filters.iter().find_map(first),
                TraceFilter::All | TraceFilter::Nothing => None,
            }
        }
        first(&self.fetch.filter).cloned().unwrap_or(SpanFilter::Maybe)
    }

    /// Asks a block; every answer may be an error, which names the object.
    pub(crate) fn ask(&self, block: &BlockReader) {
        let asks = |part| self.part == part || self.part == 3;
        let filter = self.span_filter();
        let filter = self.is_filtered.then_some(&filter);
        if asks(0) {
            checked(block.search(self.fetch, 0..usize::MAX, &mut |_| ControlFlow::Continue(())));
        }
        if asks(1) {
            checked(block.tag_names(self.scope, filter, 0..usize::MAX, &mut |_, _| ControlFlow::Continue(())));
            checked(block.tag_values(self.attribute, filter, 0..usize::MAX, &mut |_| ControlFlow::Continue(())));
        }
        if asks(2) {
            let mut some = vivace_core::TraceId([0x80; 16]);
            for trace in block.traces() {
                if let Some((id, _)) = checked(trace) {
                    some = id;
                }
            }
            checked(block.find(some, None));
        }
    }
}

/// The answer. An error must say which object is wrong and where.
pub(crate) fn checked<T>(result: Result<T, ReadError>) -> Option<T> {
    result.map_err(|error| assert!(error.to_string().contains(", data.parquet, "), "{error}")).ok()
}
