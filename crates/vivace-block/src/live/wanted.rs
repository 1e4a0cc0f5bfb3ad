//! What a query wants of live spans.

use vivace_traceql::{Attribute, Fetch, Intrinsic, Scope, SpanFilter, TraceFilter};

use crate::row::Wanted;

impl Wanted {
    /// Nothing but ids, times and names.
    pub(super) fn least() -> Self {
        Self { span_keys: Some(Vec::new()), events: false, positions: false, services: false }
    }

    /// What a query wants of whole traces.
    pub(super) fn of_fetch(fetch: &Fetch) -> Self {
        let mut wanted = Self::least();
        wanted.positions = fetch.rows.positions || fetch.rows.child_counts;
        wanted.services = fetch.rows.summary;
        wanted.events = !fetch.event_attributes.is_empty();
        fetch.span_attributes.iter().for_each(|attribute| wanted.add(attribute));
        wanted.add_traces(&fetch.filter);
        wanted
    }

    pub(super) fn add_traces(&mut self, filter: &TraceFilter) {
        match filter {
            TraceFilter::All | TraceFilter::Nothing => {}
            TraceFilter::AnySpan(filter) => self.add_spans(filter),
            TraceFilter::And(filters) | TraceFilter::Or(filters) => filters.iter().for_each(|f| self.add_traces(f)),
        }
    }

    pub(super) fn add_spans(&mut self, filter: &SpanFilter) {
        match filter {
            SpanFilter::Maybe => {}
            SpanFilter::Leaf(condition) => self.add(&condition.attribute),
            SpanFilter::And(filters) | SpanFilter::Or(filters) => filters.iter().for_each(|f| self.add_spans(f)),
        }
    }

    pub(super) fn add(&mut self, attribute: &Attribute) {
        self.events |= attribute.is_of_events();
        match attribute {
            Attribute::Named { scope: Scope::Span | Scope::Unscoped, key } => {
                if let Some(keys) = &mut self.span_keys {
                    keys.push(key.as_bytes().into());
                }
            }
            Attribute::Intrinsic(
                Intrinsic::NestedSetLeft | Intrinsic::NestedSetRight | Intrinsic::NestedSetParent | Intrinsic::ChildCount,
            ) => self.positions = true,
            Attribute::Named { scope: Scope::Resource | Scope::Event | Scope::Link | Scope::Instrumentation, .. }
            | Attribute::Intrinsic(
                Intrinsic::Name
                | Intrinsic::Duration
                | Intrinsic::Status
                | Intrinsic::StatusMessage
                | Intrinsic::Kind
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::TraceId
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootService
                | Intrinsic::EventName
                | Intrinsic::EventTimeSinceStart
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
                | Intrinsic::ScopeName
                | Intrinsic::ScopeVersion,
            ) => {}
        }
    }
}
