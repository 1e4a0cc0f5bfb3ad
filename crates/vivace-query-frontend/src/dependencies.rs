//! Which services call which: counted from the spans of a time, for the dependency graphs of Jaeger and Zipkin.
//!
//! A call is a span whose parent is a span of another service. What is counted is bounded: by a number of traces, by
//! `query_frontend.search.max_spans_per_span_set` spans of each that take part in calls, and by the time that a search may have.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vivace_core::TenantId;
use vivace_proto::otlp::any_value::Value;
use vivace_proto::tempopb::{Span, TraceSearchMetadata};

use crate::error::QueryError;
use crate::finding::{Found, Wanted};
use crate::http::QueryApi;
use crate::params::SearchRange;

/// Both ends of calls. Spans of clients and of a service's own work never begin in another service.
const ENDS_OF_CALLS: &str = "{ } &> { kind = server || kind = consumer || kind = unspecified } | \
                             select(span:parentID, resource.service.name, status)";
/// Spans of a trace where the configuration has no limit.
const SPANS_PER_TRACE: u32 = 1000;

/// Calls of one service by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) parent: String,
    pub(crate) child: String,
    pub(crate) count: u64,
    /// Those of them that failed.
    pub(crate) errors: u64,
}

impl QueryApi {
    /// The calls of a time, by the names of the services.
    ///
    /// # Errors
    /// Why they could not be found.
    pub(crate) async fn calls(&self, tenants: &[TenantId], range: SearchRange, max_traces: u32) -> Result<Found<Vec<Calls>>, QueryError> {
        let wanted = Wanted {
            query: ENDS_OF_CALLS.to_owned(),
            // Clients ask for a week, whatever is allowed.
            range: self.allowed(tenants, range),
            limit: max_traces.max(1),
            spans_per_trace: match u32::try_from(self.frontend.config.search.max_spans_per_span_set) {
                Ok(0) | Err(_) => SPANS_PER_TRACE,
                Ok(max) => max,
            },
        };
        let (Found { found, warnings }, _held) = self.find(tenants, wanted).await?;
        Ok(Found { found: count(&found), warnings })
    }
}

/// The calls in what was found, sorted.
fn count(traces: &[TraceSearchMetadata]) -> Vec<Calls> {
    let mut calls: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for trace in traces {
        let spans: Vec<&Span> = trace.span_sets.iter().flat_map(|set| &set.spans).collect();
        let services: FxHashMap<&str, &str> =
            spans.iter().filter_map(|span| Some((span.span_id.as_str(), attribute(span, "service.name")?))).collect();
        for span in spans {
            let Some(child) = attribute(span, "service.name") else { continue };
            let Some(parent) = attribute(span, "span:parentID").and_then(|id| services.get(id)) else { continue };
            if *parent != child {
                let (count, errors) = calls.entry(((*parent).to_owned(), child.to_owned())).or_default();
                *count += 1;
                *errors += u64::from(attribute(span, "status") == Some("error"));
            }
        }
    }
    calls.into_iter().map(|((parent, child), (count, errors))| Calls { parent, child, count, errors }).collect()
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value.as_ref()?.value {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}
