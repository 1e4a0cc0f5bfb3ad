//! What a query wants of the rows that passed its filter, as batches for evaluation.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use vivace_core::{SpanId, TraceId};
use vivace_traceql::{Attribute, Batch, ChildRows, Fetch, Intrinsic, Kind, RowParts, Scope, ServiceStat, SpanRow, Status, TraceRow, Value};

use super::attrs::Attr;
use super::column::{Column, Values};
use super::fault::ReadError;
use super::group::Group;
use super::layout::LeafId;
use super::shape::{Node, Shape, part};

/// Fills batches from decoded columns.
pub(crate) struct Gather {
    shape: Shape,
    trace_id: Rc<Column>,
    start: Rc<Column>,
    end: Rc<Column>,
    summary: Option<Summary>,
    span_id: Rc<Column>,
    span_start: Rc<Column>,
    duration: Rc<Column>,
    positions: Option<Positions>,
    children: Option<Children>,
    spans: Vec<Source>,
    events: Option<Rows>,
    links: Option<Rows>,
}

/// Roots, and counts of services.
struct Summary {
    root_name: Rc<Column>,
    root_service: Rc<Column>,
    stats_of: Rc<Vec<u32>>,
    stat_service: Rc<Column>,
    stat_spans: Rc<Column>,
    stat_errors: Rc<Column>,
}

/// Positions of spans in the tree.
struct Positions {
    left: Rc<Column>,
    right: Rc<Column>,
    parent: Rc<Column>,
}

/// Where the number of a span's children comes from.
enum Children {
    Column(Rc<Column>),
    /// From the positions in the tree, and from the ids of what has no position.
    Count {
        parent_id: Rc<Column>,
        kind: Rc<Column>,
    },
}

/// Events or links, with what was asked for.
struct Rows {
    of_span: Rc<Vec<u32>>,
    columns: Vec<Source>,
}

/// Gives the values of one attribute or intrinsic.
enum Source {
    /// Nothing of the kind is here.
    Nil,
    /// One value per element.
    Required(Node, Rc<Column>, fn(&Values, usize) -> Value),
    Attr(Node, Attr),
    /// The name of a service: a text that every resource has, be it empty, or what it has under that name instead.
    Service(Rc<Column>, Attr),
    /// Of the span, else of the resource.
    Unscoped(Attr, Box<Source>),
}

/// Where a span stands.
#[derive(Clone, Copy)]
struct Place {
    resource: usize,
    scope: usize,
    span: usize,
}

impl Source {
    fn new(group: &mut Group<'_>, attribute: &Attribute) -> Result<Self, ReadError> {
        let layout = &group.file.layout;
        let (node, leaf, read): (Node, LeafId, fn(&Values, usize) -> Value) = match attribute {
            Attribute::Named { scope, key } => return Self::named(group, *scope, key),
            Attribute::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Name => (Node::Span, layout.name, text),
                Intrinsic::StatusMessage => (Node::Span, layout.status_message, text),
                Intrinsic::Status => (Node::Span, layout.status, |v, i| Value::Status(Status::from_otlp(v.i64(i)))),
                Intrinsic::Kind => (Node::Span, layout.kind, |v, i| Value::Kind(Kind::from_otlp(v.i64(i)))),
                Intrinsic::ParentId => (Node::Span, layout.parent_span_id, span_id),
                Intrinsic::ScopeName => (Node::Scope, layout.scope_name, text),
                Intrinsic::ScopeVersion => (Node::Scope, layout.scope_version, text),
                Intrinsic::EventName => (Node::Event, layout.event_name, text),
                Intrinsic::EventTimeSinceStart => (Node::Event, layout.event_time, |v, i| Value::Duration(v.i64(i))),
                Intrinsic::LinkTraceId => (Node::Link, layout.link_trace, trace_id),
                Intrinsic::LinkSpanId => (Node::Link, layout.link_span, span_id),
                // In every row already.
                Intrinsic::Duration
                | Intrinsic::SpanId
                | Intrinsic::ChildCount
                | Intrinsic::TraceId
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootService
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent => return Ok(Self::Nil),
            },
        };
        Ok(Self::Required(node, required(group, leaf, node)?, read))
    }

    fn named(group: &mut Group<'_>, scope: Scope, key: &str) -> Result<Self, ReadError> {
        let node = match scope {
            Scope::Unscoped => {
                let of_resource = Self::named(group, Scope::Resource, key)?;
                return Ok(Self::Unscoped(group.attr(Node::Span, key)?, Box::new(of_resource)));
            }
            Scope::Resource if key == "service.name" => {
                let leaf = group.file.layout.service_name;
                return Ok(Self::Service(required(group, leaf, Node::Resource)?, group.attr(Node::Resource, key)?));
            }
            Scope::Span => Node::Span,
            Scope::Resource => Node::Resource,
            Scope::Event => Node::Event,
            Scope::Link => Node::Link,
            Scope::Instrumentation => Node::Scope,
        };
        Ok(Self::Attr(node, group.attr(node, key)?))
    }

    fn value(&self, element: impl Fn(Node) -> usize + Copy) -> Value {
        match self {
            Self::Nil => Value::Nil,
            Self::Required(node, column, read) => read(&column.values, element(*node)),
            Self::Attr(node, attr) => attr.value(element(*node)),
            Self::Service(column, attr) => {
                let resource = element(Node::Resource);
                match column.values.bytes(resource) {
                    [] => match attr.value(resource) {
                        Value::Nil => text(&column.values, resource),
                        value => value,
                    },
                    _ => text(&column.values, resource),
                }
            }
            Self::Unscoped(attr, of_resource) => match attr.value(element(Node::Span)) {
                Value::Nil => of_resource.value(element),
                value => value,
            },
        }
    }

    fn of_spans(&self, places: &[Place]) -> Vec<Value> {
        let at = |place: &Place, node| match node {
            Node::Resource => place.resource,
            Node::Scope => place.scope,
            _ => place.span,
        };
        // Neighbours share their resource and scope; the value is looked up once for all of them.
        let shared = match self {
            Self::Required(node @ (Node::Resource | Node::Scope), ..) | Self::Attr(node @ (Node::Resource | Node::Scope), _) => Some(*node),
            Self::Service(..) => Some(Node::Resource),
            _ => None,
        };
        if let Some(node) = shared {
            let mut last: Option<(usize, Value)> = None;
            let value = |place: &Place| {
                let index = at(place, node);
                match &last {
                    Some((same, value)) if *same == index => value.clone(),
                    _ => last.insert((index, self.value(|node| at(place, node)))).1.clone(),
                }
            };
            return places.iter().map(value).collect();
        }
        places.iter().map(|place| self.value(|node| at(place, node))).collect()
    }
}

fn text(values: &Values, index: usize) -> Value {
    Value::Str(values.text(index))
}

fn span_id(values: &Values, index: usize) -> Value {
    Value::Str(SpanId::from_slice(values.bytes(index)).to_string().into())
}

fn trace_id(values: &Values, index: usize) -> Value {
    Value::Str(TraceId::from_slice(values.bytes(index)).trimmed_hex().into())
}

fn required(group: &mut Group<'_>, leaf: LeafId, node: Node) -> Result<Rc<Column>, ReadError> {
    let (column, count) = (group.column(leaf)?, group.count(node)?);
    if column.values.len() == count { Ok(column) } else { Err(group.miscounted(leaf, column.values.len(), count)) }
}

impl Summary {
    fn new(group: &mut Group<'_>) -> Result<Self, ReadError> {
        let layout = &group.file.layout;
        let stats_of = group.list_offsets(layout.stat_service, 0)?;
        let stats = stats_of.last().map_or(0, |last| *last as usize);
        let stat = |group: &mut Group<'_>, leaf| {
            let column = group.column(leaf)?;
            if column.values.len() == stats { Ok(column) } else { Err(group.miscounted(leaf, column.values.len(), stats)) }
        };
        Ok(Self {
            root_name: required(group, layout.root_name, Node::Trace)?,
            root_service: required(group, layout.root_service, Node::Trace)?,
            stat_service: stat(group, layout.stat_service)?,
            stat_spans: stat(group, layout.stat_spans)?,
            stat_errors: stat(group, layout.stat_errors)?,
            stats_of,
        })
    }

    fn services(&self, row: usize) -> Vec<ServiceStat> {
        let service = |index| ServiceStat {
            service: self.stat_service.values.text(index),
            spans: self.stat_spans.values.i32(index).cast_unsigned(),
            errors: self.stat_errors.values.i32(index).cast_unsigned(),
        };
        part(&self.stats_of, row).map(service).collect()
    }
}

impl Gather {
    /// Decodes everything that batches of this group need.
    pub(crate) fn new(group: &mut Group<'_>, fetch: &Fetch) -> Result<Self, ReadError> {
        let layout = &group.file.layout;
        let RowParts { positions, child_counts, summary } = fetch.rows;
        let mut base = vec![layout.trace_id, layout.start, layout.end, layout.span_id, layout.span_start, layout.duration];
        if summary {
            base.extend([layout.root_name, layout.root_service, layout.stat_service, layout.stat_spans, layout.stat_errors]);
        }
        // Children are counted by the positions of their parents.
        if positions || child_counts {
            base.extend([layout.nested_left, layout.nested_right, layout.nested_parent]);
        }
        base.extend(layout.child_count.filter(|_| child_counts));
        group.prefetch(&base)?;
        let summary = if summary { Some(Summary::new(group)?) } else { None };
        let positions = match positions || child_counts {
            true => Some(Positions {
                left: required(group, layout.nested_left, Node::Span)?,
                right: required(group, layout.nested_right, Node::Span)?,
                parent: required(group, layout.nested_parent, Node::Span)?,
            }),
            false => None,
        };
        let children = match layout.child_count {
            _ if !child_counts => None,
            Some(leaf) => Some(Children::Column(required(group, leaf, Node::Span)?)),
            None => Some(Children::Count {
                parent_id: required(group, layout.parent_span_id, Node::Span)?,
                kind: required(group, layout.kind, Node::Span)?,
            }),
        };
        let mut sources = |attributes: &[Attribute]| -> Result<Vec<Source>, ReadError> {
            attributes.iter().map(|attribute| Source::new(group, attribute)).collect()
        };
        let (spans, events, links) =
            (sources(&fetch.span_attributes)?, sources(&fetch.event_attributes)?, sources(&fetch.link_attributes)?);
        let mut rows = |node, columns: Vec<Source>| -> Result<Option<Rows>, ReadError> {
            Ok(if columns.is_empty() { None } else { Some(Rows { of_span: group.children(node)?, columns }) })
        };
        let (events, links) = (rows(Node::Event, events)?, rows(Node::Link, links)?);
        Ok(Self {
            shape: group.shape()?,
            trace_id: required(group, layout.trace_id, Node::Trace)?,
            start: required(group, layout.start, Node::Trace)?,
            end: required(group, layout.end, Node::Trace)?,
            summary,
            span_id: required(group, layout.span_id, Node::Span)?,
            span_start: required(group, layout.span_start, Node::Span)?,
            duration: required(group, layout.duration, Node::Span)?,
            positions,
            children,
            spans,
            events,
            links,
        })
    }

    /// The traces in these rows.
    pub(crate) fn batch(&self, rows: &[usize]) -> Batch {
        let mut batch = Batch::default();
        let mut places = Vec::new();
        for row in rows {
            let first = places.len();
            for resource in self.shape.resources_of(*row) {
                for scope in self.shape.scopes_of(resource) {
                    places.extend(self.shape.spans_of_scope(scope).map(|span| Place { resource, scope, span }));
                }
            }
            batch.traces.push(self.trace(*row, first..places.len()));
            let spans = self.shape.spans_of_row(*row);
            let resources = self.shape.resources_of(*row);
            batch.spans.extend(places[first..].iter().map(|place| self.span(place.span, place.resource - resources.start)));
            self.count_children(spans, &mut batch.spans[first..]);
        }
        batch.columns = self.spans.iter().map(|source| source.of_spans(&places)).collect();
        let children = |rows: &Option<Rows>| rows.as_ref().map(|rows| rows.gather(&places)).unwrap_or_default();
        (batch.events, batch.links) = (children(&self.events), children(&self.links));
        batch
    }

    /// Resource, scope and span of each span of these rows, in the order of their batch.
    pub(crate) fn elements(&self, rows: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
        rows.iter().flat_map(move |row| {
            self.shape.resources_of(*row).flat_map(move |resource| {
                let scopes = self.shape.scopes_of(resource);
                scopes.flat_map(move |scope| self.shape.spans_of_scope(scope).map(move |span| (resource, scope, span)))
            })
        })
    }

    fn trace(&self, row: usize, spans: Range<usize>) -> TraceRow {
        let summary = self.summary.as_ref();
        let text = |column: fn(&Summary) -> &Rc<Column>| summary.map_or_else(|| Arc::from(""), |s| column(s).values.text(row));
        TraceRow {
            trace_id: TraceId::from_slice(self.trace_id.values.bytes(row)),
            start_unix_nanos: self.start.values.i64(row).cast_unsigned(),
            end_unix_nanos: self.end.values.i64(row).cast_unsigned(),
            root_name: text(|s| &s.root_name),
            root_service: text(|s| &s.root_service),
            services: summary.map(|s| s.services(row)).unwrap_or_default(),
            spans,
        }
    }

    fn span(&self, span: usize, resource: usize) -> SpanRow {
        let position = |column: fn(&Positions) -> &Rc<Column>| self.positions.as_ref().map_or(0, |p| column(p).values.i32(span));
        SpanRow {
            id: SpanId::from_slice(self.span_id.values.bytes(span)),
            start_unix_nanos: self.span_start.values.i64(span).cast_unsigned(),
            duration_nanos: self.duration.values.i64(span).cast_unsigned(),
            nested_set_left: position(|p| &p.left),
            nested_set_right: position(|p| &p.right),
            nested_set_parent: position(|p| &p.parent),
            child_count: 0,
            resource: u32::try_from(resource).unwrap_or(u32::MAX),
        }
    }

    /// Direct children of the spans of one trace.
    ///
    /// Source: docs/facts/blocks.md, "Nested set numbering"; docs/facts/traceql.md, "The tree, roots and nested sets".
    fn count_children(&self, spans: Range<usize>, rows: &mut [SpanRow]) {
        let Some(children) = &self.children else { return };
        // Without a root there is no tree; what vParquet5 blocks say then is left over from other traces.
        if !rows.iter().any(|row| row.nested_set_parent == -1) {
            return;
        }
        let (parent_id, kind) = match children {
            Children::Column(column) => {
                for (row, span) in rows.iter_mut().zip(spans) {
                    row.child_count = column.values.i32(span);
                }
                return;
            }
            Children::Count { parent_id, kind } => (&parent_id.values, &kind.values),
        };
        let by_left: FxHashMap<i32, usize> =
            rows.iter().enumerate().filter(|(_, row)| row.nested_set_left > 0).map(|(i, row)| (row.nested_set_left, i)).collect();
        let mut parents: Vec<Option<usize>> = rows.iter().map(|row| by_left.get(&row.nested_set_parent).copied()).collect();
        if rows.iter().any(|row| row.nested_set_parent == 0) {
            let mut by_id: FxHashMap<SpanId, Vec<usize>> = FxHashMap::default();
            for (index, row) in rows.iter().enumerate() {
                by_id.entry(row.id).or_default().push(index);
            }
            for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.nested_set_parent == 0) {
                let parent = parent_id.bytes(spans.start + index);
                let kind_of = |index: usize| Kind::from_otlp(kind.i64(spans.start + index));
                parents[index] = match by_id.get(&SpanId::from_slice(parent)).map(Vec::as_slice) {
                    _ if parent.is_empty() || row.nested_set_left > 0 => parents[index],
                    Some([one]) => Some(*one),
                    Some([a, b]) => {
                        let wanted = if kind_of(index) == Kind::Server { Kind::Client } else { Kind::Server };
                        [*a, *b].into_iter().find(|twin| kind_of(*twin) == wanted)
                    }
                    _ => None,
                };
            }
        }
        for parent in parents.into_iter().flatten() {
            rows[parent].child_count += 1;
        }
    }
}

impl Rows {
    fn gather(&self, places: &[Place]) -> ChildRows {
        let mut offsets = Vec::with_capacity(places.len() + 1);
        let mut indexes = Vec::new();
        for place in places {
            offsets.push(u32::try_from(indexes.len()).unwrap_or(u32::MAX));
            indexes.extend(part(&self.of_span, place.span));
        }
        offsets.push(u32::try_from(indexes.len()).unwrap_or(u32::MAX));
        let columns = self.columns.iter().map(|source| indexes.iter().map(|index| source.value(|_| *index)).collect());
        ChildRows { columns: columns.collect(), offsets }
    }
}
