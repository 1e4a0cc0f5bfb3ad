//! The row group that is being written: its columns, what helps to fill them, and how full it is.
//!
//! A row comes in one of three ways: made of spans, taken over from a block that is read, or combined from several such.

use super::BlockOptions;
use super::columns::{Columns, List};
use super::combine::{Combined, Combiner};
use super::copy::{Copied, Mismatch, RowSource};
use super::stamp::{Mark, Stamps};
use crate::row::{Resource, Row};
use crate::schema::Leaf;

#[derive(Debug)]
pub(super) struct RowGroup {
    pub(super) columns: Columns,
    stamps: Stamps,
    combiner: Combiner,
    fill: Fill,
}

/// What is in a row group so far.
#[derive(Debug, Default)]
struct Fill {
    traces: u32,
    /// Of copied rows about what the columns took.
    otlp_bytes: u64,
    /// See [`super::estimate`].
    estimate: u64,
}

impl RowGroup {
    pub(super) fn new() -> Self {
        Self { columns: Columns::new(), stamps: Stamps::default(), combiner: Combiner::default(), fill: Fill::default() }
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.columns.clear();
        self.stamps.clear();
        self.fill = Fill::default();
    }

    /// Adds a row that is made of spans.
    pub(super) fn push_row(&mut self, row: &Row<'_>) {
        self.columns.trace(row.trace_id, row.start, row.end, row.root_service, row.root_name);
        for (i, stat) in row.stats.iter().enumerate() {
            self.columns.service_stat(i, stat.service, stat.spans as i32, stat.errors as i32);
        }
        for (i, resource) in row.resources.iter().enumerate() {
            let level = u8::from(i > 0);
            let at = self.columns.entry(List::Resources, level, 1);
            self.resource(row, resource, level, at);
            for (i, scope) in row.scopes[resource.scopes.clone()].iter().enumerate() {
                let level = if i > 0 { 2 } else { level };
                self.columns.entry(List::Scopes, level, 2);
                self.columns.text(Leaf::SCOPE_NAME, scope.name);
                self.columns.text(Leaf::SCOPE_VERSION, scope.version);
                self.columns.attrs(List::ScopeAttrs, &Leaf::SCOPE_ATTRS, level, &row.scope_attrs[scope.attrs.clone()]);
                self.columns.i32(Leaf::SCOPE_DROPPED_ATTRS, scope.dropped_attrs);
                for (i, at) in scope.spans.clone().enumerate() {
                    self.span(row, at, if i > 0 { 3 } else { level });
                }
            }
        }
        self.columns.end_row();
    }

    /// Adds the trace that is the current row of each of `parts`, combined where there are several. None: nothing was added,
    /// since the rows need to be combined as OTLP.
    pub(super) fn copy_rows(&mut self, parts: &mut [&mut RowSource]) -> Result<Option<Copied>, Mismatch> {
        if let [part] = parts {
            return self.columns.copy_row(part).map(Some);
        }
        match self.combiner.combine(&mut self.columns, parts)? {
            Combined::Same(part) => self.columns.copy_row(parts[part]).map(Some),
            Combined::Copied(copied) => Ok(Some(copied)),
            Combined::Unusual => Ok(None),
        }
    }

    /// Counts a row that was added.
    pub(super) fn count(&mut self, row: &Copied) {
        self.fill.traces += 1;
        self.fill.otlp_bytes += row.bytes;
        self.fill.estimate += row.estimate;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fill.traces == 0
    }

    pub(super) fn is_full(&self, options: &BlockOptions) -> bool {
        self.fill.estimate > options.row_group_size_bytes
            || self.fill.otlp_bytes >= options.row_group_otlp_bytes
            || (self.fill.traces >= options.row_group_traces && !self.is_small(options))
    }

    /// Whether so little is in it that the number of its rows alone does not end it.
    pub(super) fn is_small(&self, options: &BlockOptions) -> bool {
        self.fill.otlp_bytes < options.row_group_otlp_bytes / 8
    }

    fn resource(&mut self, row: &Row<'_>, resource: &Resource<'_>, level: u8, at: u32) {
        self.columns.i32(Leaf::RESOURCE_DROPPED_ATTRS, resource.dropped_attrs);
        match self.stamps.get(resource.content) {
            Some(stamp) => stamp.press(&mut self.columns, level, at),
            None => {
                let mark = Mark::of(&self.columns);
                self.columns.attrs(List::ResourceAttrs, &Leaf::RESOURCE_ATTRS, level, &row.resource_attrs[resource.attrs.clone()]);
                self.columns.text(Leaf::SERVICE_NAME, resource.service_name);
                for (leaf, value) in &row.resource_columns[resource.columns.clone()] {
                    self.columns.present(*leaf, at);
                    self.columns.text(*leaf, value);
                }
                self.stamps.learn(resource.content, &self.columns, &mark, at);
            }
        }
    }

    fn span(&mut self, row: &Row<'_>, index: usize, level: u8) {
        let span = &row.spans[index];
        let at = self.columns.entry(List::Spans, level, 3);
        self.columns.ids(Leaf::SPAN_ID, span.id);
        self.columns.ids(Leaf::PARENT_SPAN_ID, span.parent_id);
        self.columns.position(span.position);
        self.columns.text(Leaf::SPAN_NAME, span.name);
        self.columns.i64(Leaf::SPAN_KIND, span.kind);
        self.columns.text(Leaf::SPAN_TRACE_STATE, span.trace_state);
        self.columns.i64(Leaf::SPAN_START, span.start as i64);
        self.columns.i64(Leaf::SPAN_DURATION, span.duration as i64);
        self.columns.i64(Leaf::STATUS_CODE, span.status_code);
        self.columns.text(Leaf::STATUS_MESSAGE, span.status_message);
        self.columns.attrs(List::SpanAttrs, &Leaf::SPAN_ATTRS, level, &row.span_attrs[span.attrs.clone()]);
        self.columns.i32(Leaf::SPAN_DROPPED_ATTRS, span.dropped_attrs);
        self.columns.i32(Leaf::DROPPED_EVENTS, span.dropped_events);
        self.columns.i32(Leaf::DROPPED_LINKS, span.dropped_links);
        for (leaf, value) in &row.span_columns[span.columns.clone()] {
            self.columns.present(*leaf, at);
            self.columns.text(*leaf, value);
        }
        if let Some(code) = span.http_status_code {
            self.columns.present(Leaf::HTTP_STATUS_CODE, at);
            self.columns.i64(Leaf::HTTP_STATUS_CODE, code);
        }
        for (i, event) in row.events[span.events.clone()].iter().enumerate() {
            let level = if i > 0 { 4 } else { level };
            self.columns.entry(List::Events, level, 4);
            self.columns.i64(Leaf::EVENT_TIME_SINCE_START, event.time_since_start as i64);
            self.columns.text(Leaf::EVENT_NAME, event.name);
            self.columns.attrs(List::EventAttrs, &Leaf::EVENT_ATTRS, level, &row.event_attrs[event.attrs.clone()]);
            self.columns.i32(Leaf::EVENT_DROPPED_ATTRS, event.dropped_attrs);
        }
        if span.events.is_empty() {
            self.columns.entry(List::Events, level, 3);
            self.columns.entry(List::EventAttrs, level, 3);
        }
        for (i, link) in row.links[span.links.clone()].iter().enumerate() {
            let level = if i > 0 { 4 } else { level };
            self.columns.entry(List::Links, level, 4);
            self.columns.ids(Leaf::LINK_TRACE_ID, link.trace_id);
            self.columns.ids(Leaf::LINK_SPAN_ID, link.span_id);
            self.columns.text(Leaf::LINK_TRACE_STATE, link.trace_state);
            self.columns.attrs(List::LinkAttrs, &Leaf::LINK_ATTRS, level, &row.link_attrs[link.attrs.clone()]);
            self.columns.i32(Leaf::LINK_DROPPED_ATTRS, link.dropped_attrs);
        }
        if span.links.is_empty() {
            self.columns.entry(List::Links, level, 3);
            self.columns.entry(List::LinkAttrs, level, 3);
        }
    }
}
