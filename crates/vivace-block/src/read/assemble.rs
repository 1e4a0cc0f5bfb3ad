//! Rows become OTLP again, for those who want whole traces.

use std::rc::Rc;

use bytes::Bytes;
use vivace_core::TraceId;
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::span::{Event, Link};
use vivace_proto::otlp::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status};

use super::attrs::Lists;
use super::column::{Column, Values};
use super::fault::ReadError;
use super::group::Group;
use super::layout::{AttrLeaves, Layout, LeafId, OwnColumn};
use super::shape::part;
use crate::dedicated::put_column_value;

/// Turns decoded rows back into OTLP.
///
/// Source: docs/facts/blocks.md, "Row → OTLP".
pub(crate) struct Assembler {
    rows: usize,
    keeps_unset: bool,
    trace_id: Rc<Column>,
    /// Resources of a row, scopes of a resource, spans of a scope.
    resources: Rc<Vec<u32>>,
    scopes: Rc<Vec<u32>>,
    spans: Rc<Vec<u32>>,
    resource: ResourceColumns,
    scope: ScopeColumns,
    span: SpanColumns,
    event: EventColumns,
    link: LinkColumns,
}

struct ResourceColumns {
    attrs: Attrs,
    dropped: Rc<Column>,
    service_name: Rc<Column>,
    own: Vec<Own>,
    before_service_name: usize,
}

struct ScopeColumns {
    name: Rc<Column>,
    version: Rc<Column>,
    attrs: Attrs,
    dropped: Rc<Column>,
}

struct SpanColumns {
    id: Rc<Column>,
    parent_id: Rc<Column>,
    name: Rc<Column>,
    kind: Rc<Column>,
    trace_state: Rc<Column>,
    start: Rc<Column>,
    duration: Rc<Column>,
    status: Rc<Column>,
    status_message: Rc<Column>,
    attrs: Attrs,
    dropped: Rc<Column>,
    dropped_events: Rc<Column>,
    dropped_links: Rc<Column>,
    own: Vec<Own>,
}

struct EventColumns {
    of_span: Rc<Vec<u32>>,
    time: Rc<Column>,
    name: Rc<Column>,
    attrs: Attrs,
    dropped: Rc<Column>,
    own: Vec<Own>,
}

struct LinkColumns {
    of_span: Rc<Vec<u32>>,
    trace_id: Rc<Column>,
    span_id: Rc<Column>,
    trace_state: Rc<Column>,
    attrs: Attrs,
    dropped: Rc<Column>,
}

/// Generic attributes of one kind of element.
struct Attrs {
    of_parent: Rc<Vec<u32>>,
    key: Rc<Column>,
    is_array: Rc<Column>,
    text: Option<Lists>,
    int: Option<Lists>,
    double: Option<Lists>,
    boolean: Option<Lists>,
    unsupported: Option<Lists>,
}

struct Own {
    key: String,
    values: Lists,
}

/// Loads columns and checks that they have one value per element.
struct Loader<'a> {
    group: Group<'a>,
    /// Of the texts in the columns so far, each as often as it occurs.
    text_bytes: u64,
}

/// A row group's texts written out may take this, bytes. A dictionary lets a few bytes repeat a long text millions of times,
/// and traces are handed out with every text in full. Row groups are of 100 MB before they are encoded.
const TEXT_BYTES_MAX: u64 = 1 << 30;

impl Loader<'_> {
    fn column(&mut self, leaf: LeafId) -> Result<Rc<Column>, ReadError> {
        let column = self.group.column(leaf)?;
        self.count_text(leaf, &column)?;
        Ok(column)
    }

    fn lists(&mut self, leaf: LeafId, depth: u8, parents: usize) -> Result<Option<Lists>, ReadError> {
        let lists = self.group.lists(leaf, depth, parents)?;
        if let Some(lists) = &lists {
            self.count_text(leaf, &lists.column)?;
        }
        Ok(lists)
    }

    fn count_text(&mut self, leaf: LeafId, column: &Column) -> Result<(), ReadError> {
        if let Values::Codes { codes, dictionary } = &column.values {
            self.text_bytes += codes.iter().map(|code| dictionary.strings.get(*code as usize).len() as u64).sum::<u64>();
        }
        if self.text_bytes > TEXT_BYTES_MAX {
            return Err(self.group.corrupt(leaf, format!("texts of {} bytes in one row group", self.text_bytes)));
        }
        Ok(())
    }

    fn required(&mut self, leaf: LeafId, elements: usize) -> Result<Rc<Column>, ReadError> {
        if let Some(column) = self.group.constant(leaf, elements) {
            return Ok(Rc::new(column));
        }
        let column = self.column(leaf)?;
        match column.values.len() {
            len if len == elements => Ok(column),
            len => Err(self.group.corrupt(leaf, format!("{len} values for {elements} elements"))),
        }
    }

    fn child_lists(&mut self, leaf: LeafId, depth: u8, parents: usize) -> Result<Rc<Vec<u32>>, ReadError> {
        let offsets = self.group.list_offsets(leaf, depth)?;
        match offsets.len() {
            len if len == parents + 1 => Ok(offsets),
            len => Err(self.group.corrupt(leaf, format!("lists of {} elements, there are {parents}", len - 1))),
        }
    }

    fn attrs(&mut self, leaves: &AttrLeaves, depth: u8, parents: usize) -> Result<Attrs, ReadError> {
        let of_parent = self.child_lists(leaves.key, depth, parents)?;
        let key = self.column(leaves.key)?;
        let count = key.values.len();
        Ok(Attrs {
            of_parent,
            key,
            is_array: self.required(leaves.is_array, count)?,
            text: self.lists(leaves.text, depth + 1, count)?,
            int: self.lists(leaves.int, depth + 1, count)?,
            double: self.lists(leaves.double, depth + 1, count)?,
            boolean: self.lists(leaves.boolean, depth + 1, count)?,
            unsupported: self.lists(leaves.unsupported, depth + 1, count)?,
        })
    }

    fn own(&mut self, columns: &[OwnColumn], depth: u8, parents: usize) -> Result<Vec<Own>, ReadError> {
        let mut own = Vec::with_capacity(columns.len());
        for column in columns {
            if let Some(values) = self.lists(column.leaf, depth, parents)? {
                own.push(Own { key: column.key.clone(), values });
            }
        }
        Ok(own)
    }
}

impl Assembler {
    pub(crate) fn new(mut group: Group<'_>) -> Result<Self, ReadError> {
        let layout = &group.file.layout;
        let is_read = |leaf: &LeafId| !group.is_empty(*leaf) && group.constant(*leaf, 0).is_none();
        let wanted: Vec<LeafId> = all_leaves(layout).into_iter().filter(is_read).collect();
        group.prefetch(&wanted)?;
        let rows = group.rows();
        let mut load = Loader { group, text_bytes: 0 };
        let resources = load.child_lists(layout.span_id, 0, rows)?;
        let resource_count = resources.last().map_or(0, |n| *n as usize);
        let scopes = load.child_lists(layout.span_id, 1, resource_count)?;
        let scope_count = scopes.last().map_or(0, |n| *n as usize);
        let spans = load.child_lists(layout.span_id, 2, scope_count)?;
        let span_count = spans.last().map_or(0, |n| *n as usize);
        load.group.check_spans(layout.span_id, resource_count.max(scope_count).max(span_count))?;
        let events = load.child_lists(layout.event_time, 3, span_count)?;
        let event_count = events.last().map_or(0, |n| *n as usize);
        let links = load.child_lists(layout.link_trace, 3, span_count)?;
        let link_count = links.last().map_or(0, |n| *n as usize);
        Ok(Self {
            rows,
            keeps_unset: layout.keeps_unset,
            trace_id: load.required(layout.trace_id, rows)?,
            resource: ResourceColumns {
                attrs: load.attrs(&layout.resource, 1, resource_count)?,
                dropped: load.required(layout.resource_dropped, resource_count)?,
                service_name: load.required(layout.service_name, resource_count)?,
                // The empty columns among those before it are left out.
                before_service_name: layout.resource_own[..layout.before_service_name]
                    .iter()
                    .filter(|own| !load.group.is_empty(own.leaf))
                    .count(),
                own: load.own(&layout.resource_own, 1, resource_count)?,
            },
            scope: ScopeColumns {
                name: load.required(layout.scope_name, scope_count)?,
                version: load.required(layout.scope_version, scope_count)?,
                attrs: load.attrs(&layout.scope, 2, scope_count)?,
                dropped: load.required(layout.scope_dropped, scope_count)?,
            },
            span: SpanColumns {
                id: load.required(layout.span_id, span_count)?,
                parent_id: load.required(layout.parent_span_id, span_count)?,
                name: load.required(layout.name, span_count)?,
                kind: load.required(layout.kind, span_count)?,
                trace_state: load.required(layout.trace_state, span_count)?,
                start: load.required(layout.span_start, span_count)?,
                duration: load.required(layout.duration, span_count)?,
                status: load.required(layout.status, span_count)?,
                status_message: load.required(layout.status_message, span_count)?,
                attrs: load.attrs(&layout.span, 3, span_count)?,
                dropped: load.required(layout.span_dropped, span_count)?,
                dropped_events: load.required(layout.dropped_events, span_count)?,
                dropped_links: load.required(layout.dropped_links, span_count)?,
                own: load.own(&layout.span_own, 3, span_count)?,
            },
            event: EventColumns {
                time: load.required(layout.event_time, event_count)?,
                name: load.required(layout.event_name, event_count)?,
                attrs: load.attrs(&layout.event, 4, event_count)?,
                dropped: load.required(layout.event_dropped, event_count)?,
                own: load.own(&layout.event_own, 4, event_count)?,
                of_span: events,
            },
            link: LinkColumns {
                trace_id: load.required(layout.link_trace, link_count)?,
                span_id: load.required(layout.link_span, link_count)?,
                trace_state: load.required(layout.link_state, link_count)?,
                attrs: load.attrs(&layout.link, 4, link_count)?,
                dropped: load.required(layout.link_dropped, link_count)?,
                of_span: links,
            },
            resources,
            scopes,
            spans,
        })
    }

    /// The id in a row.
    pub(crate) fn id(&self, row: usize) -> TraceId {
        TraceId::from_slice(self.trace_id.values.bytes(row))
    }

    /// The trace in a row; none beyond the last.
    pub(crate) fn trace(&self, row: usize) -> Option<(TraceId, Vec<ResourceSpans>)> {
        if row >= self.rows {
            return None;
        }
        let id = self.id(row);
        let id_bytes = Bytes::copy_from_slice(&id.0);
        let resources = part(&self.resources, row).map(|resource| ResourceSpans {
            resource: Some(self.resource(resource)),
            scope_spans: part(&self.scopes, resource)
                .map(|scope| ScopeSpans {
                    scope: Some(self.scope(scope)),
                    spans: part(&self.spans, scope).map(|span| self.span(span, &id_bytes)).collect(),
                    schema_url: String::new(),
                })
                .collect(),
            schema_url: String::new(),
        });
        Some((id, resources.collect()))
    }

    fn resource(&self, index: usize) -> Resource {
        let columns = &self.resource;
        let mut attributes = self.attributes(&columns.attrs, index);
        let (before, after) = columns.own.split_at(columns.before_service_name);
        own(before, index, &mut attributes);
        let service_name = text(&columns.service_name, index);
        if !service_name.is_empty() {
            put_column_value(&mut attributes, key_value("service.name".to_owned(), Some(AnyKind::StringValue(service_name))));
        }
        own(after, index, &mut attributes);
        Resource { attributes, dropped_attributes_count: count(&columns.dropped, index) }
    }

    fn scope(&self, index: usize) -> InstrumentationScope {
        let columns = &self.scope;
        InstrumentationScope {
            name: text(&columns.name, index),
            version: text(&columns.version, index),
            attributes: self.attributes(&columns.attrs, index),
            dropped_attributes_count: count(&columns.dropped, index),
        }
    }

    fn span(&self, index: usize, trace_id: &Bytes) -> Span {
        let columns = &self.span;
        let start = columns.start.values.i64(index).cast_unsigned();
        let mut attributes = self.attributes(&columns.attrs, index);
        own(&columns.own, index, &mut attributes);
        Span {
            trace_id: trace_id.clone(),
            span_id: bytes(&columns.id, index),
            trace_state: text(&columns.trace_state, index),
            parent_span_id: bytes(&columns.parent_id, index),
            name: text(&columns.name, index),
            kind: narrow(columns.kind.values.i64(index)),
            start_time_unix_nano: start,
            end_time_unix_nano: start.wrapping_add(columns.duration.values.i64(index).cast_unsigned()),
            attributes,
            dropped_attributes_count: count(&columns.dropped, index),
            events: part(&self.event.of_span, index).map(|event| self.event(event, start)).collect(),
            dropped_events_count: count(&columns.dropped_events, index),
            links: part(&self.link.of_span, index).map(|link| self.link(link)).collect(),
            dropped_links_count: count(&columns.dropped_links, index),
            status: Some(Status { message: text(&columns.status_message, index), code: narrow(columns.status.values.i64(index)) }),
            flags: 0,
        }
    }

    fn event(&self, index: usize, span_start: u64) -> Event {
        let columns = &self.event;
        let mut attributes = self.attributes(&columns.attrs, index);
        own(&columns.own, index, &mut attributes);
        Event {
            time_unix_nano: span_start.wrapping_add(columns.time.values.i64(index).cast_unsigned()),
            name: text(&columns.name, index),
            attributes,
            dropped_attributes_count: count(&columns.dropped, index),
        }
    }

    fn link(&self, index: usize) -> Link {
        let columns = &self.link;
        Link {
            trace_id: bytes(&columns.trace_id, index),
            span_id: bytes(&columns.span_id, index),
            trace_state: text(&columns.trace_state, index),
            attributes: self.attributes(&columns.attrs, index),
            dropped_attributes_count: count(&columns.dropped, index),
            flags: 0,
        }
    }

    fn attributes(&self, attrs: &Attrs, parent: usize) -> Vec<KeyValue> {
        let mut out = Vec::new();
        for index in part(&attrs.of_parent, parent) {
            let value = attrs.value(index);
            if value.is_some() || self.keeps_unset {
                out.push(key_value(text(&attrs.key, index), value.flatten()));
            }
        }
        out
    }
}

impl Attrs {
    /// The value of an attribute: none when no column has one; none inside when it is stored as an unset value.
    fn value(&self, index: usize) -> Option<Option<AnyKind>> {
        if let Some(json) =
            self.unsupported.as_ref().and_then(|lists| part(&lists.of_parent, index).next().map(|at| text(&lists.column, at)))
        {
            // What is nested too deep to be parsed is at least shown.
            return Some(match serde_json::from_str::<AnyValue>(&json) {
                Ok(value) => value.value,
                Err(_) => Some(AnyKind::StringValue(json)),
            });
        }
        let lists = [&self.text, &self.int, &self.double, &self.boolean];
        let values = lists.into_iter().flatten().find_map(|lists| {
            let at = part(&lists.of_parent, index);
            (!at.is_empty()).then_some((lists, at))
        });
        match values {
            Some((lists, at)) if self.is_array.values.bool(index) => Some(Some(array(&lists.column.values, at))),
            Some((lists, at)) => Some(Some(scalar(&lists.column.values, at.start))),
            None if self.is_array.values.bool(index) => Some(Some(AnyKind::ArrayValue(ArrayValue::default()))),
            None => None,
        }
    }
}

fn own(columns: &[Own], parent: usize, out: &mut Vec<KeyValue>) {
    for own in columns {
        let at = part(&own.values.of_parent, parent);
        let value = match at.len() {
            0 => continue,
            1 => scalar(&own.values.column.values, at.start),
            _ => array(&own.values.column.values, at),
        };
        put_column_value(out, key_value(own.key.clone(), Some(value)));
    }
}

fn scalar(values: &Values, index: usize) -> AnyKind {
    match values {
        Values::Codes { .. } | Values::Strings(_) => AnyKind::StringValue(String::from_utf8_lossy(values.bytes(index)).into_owned()),
        Values::I64(_) | Values::I32(_) => AnyKind::IntValue(values.i64(index)),
        Values::F64(_) => AnyKind::DoubleValue(values.f64(index)),
        Values::Bool(_) => AnyKind::BoolValue(values.bool(index)),
    }
}

fn array(values: &Values, range: std::ops::Range<usize>) -> AnyKind {
    AnyKind::ArrayValue(ArrayValue { values: range.map(|index| AnyValue { value: Some(scalar(values, index)) }).collect() })
}

fn key_value(key: String, value: Option<AnyKind>) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value }) }
}

fn text(column: &Column, index: usize) -> String {
    String::from_utf8_lossy(column.values.bytes(index)).into_owned()
}

fn bytes(column: &Column, index: usize) -> Bytes {
    Bytes::copy_from_slice(column.values.bytes(index))
}

fn count(column: &Column, index: usize) -> u32 {
    column.values.i32(index).cast_unsigned()
}

/// Kind and status code are 32 bits in OTLP.
fn narrow(number: i64) -> i32 {
    i32::try_from(number).unwrap_or_default()
}

fn all_leaves(layout: &Layout) -> Vec<LeafId> {
    let mut leaves = vec![
        layout.trace_id,
        layout.service_name,
        layout.resource_dropped,
        layout.scope_name,
        layout.scope_version,
        layout.scope_dropped,
        layout.span_id,
        layout.parent_span_id,
        layout.name,
        layout.kind,
        layout.trace_state,
        layout.span_start,
        layout.duration,
        layout.status,
        layout.status_message,
        layout.span_dropped,
        layout.dropped_events,
        layout.dropped_links,
        layout.event_time,
        layout.event_name,
        layout.event_dropped,
        layout.link_trace,
        layout.link_span,
        layout.link_state,
        layout.link_dropped,
    ];
    for attrs in [&layout.resource, &layout.scope, &layout.span, &layout.event, &layout.link] {
        leaves.extend(attrs.all());
    }
    leaves.extend(layout.resource_own.iter().chain(&layout.span_own).chain(&layout.event_own).map(|own| own.leaf));
    leaves
}
