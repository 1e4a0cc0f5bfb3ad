//! One trace as a row: OTLP bytes regrouped, rooted, numbered and sorted into columns. Blocks store it, live search reads it.
//!
//! Source: docs/facts/blocks.md, "OTLP to row rules".

mod any_value;
mod parse;
mod resources;

use std::ops::Range;

use rustc_hash::FxHashMap;
use vivace_core::wire::WireError;
use vivace_core::{SpanId, TraceId};

pub(crate) use any_value::{Attr, AttrValue, Scalar, any_value_json};
pub(crate) use resources::ResourceCache;

use crate::dedicated::{DedicatedColumn, DedicatedScope, VPARQUET4_RESOURCE_COLUMNS, vparquet4_slots};
use crate::nested_set::{self, Node, Position};
use crate::schema::Leaf;

/// A span in the client's own bytes, with the messages it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanRef<'a> {
    /// `Resource`; empty when there is none.
    pub resource: &'a [u8],
    /// `InstrumentationScope`; empty when there is none.
    pub scope: &'a [u8],
    /// `Span`.
    pub span: &'a [u8],
}

/// What is kept of spans when they are read. Blocks need all of it, queries little.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Keys of span attributes; none for all.
    pub(crate) span_keys: Option<Vec<Box<[u8]>>>,
    pub(crate) events: bool,
    /// Where spans stand in the tree, and how many children they have.
    pub(crate) positions: bool,
    /// The counts of services.
    pub(crate) services: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { span_keys: None, events: true, positions: true, services: true }
    }
}

impl Wanted {
    /// Whether a span attribute is kept.
    #[inline]
    fn wants(&self, key: &[u8]) -> bool {
        self.span_keys.as_ref().is_none_or(|keys| keys.iter().any(|wanted| **wanted == *key))
    }
}

/// Which attributes have a column of their own, and what is kept at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    resource: FxHashMap<Box<[u8]>, Leaf>,
    span: FxHashMap<Box<[u8]>, Leaf>,
    /// By [`mark_of`]: whether a key of `span` has it. Most keys have no column, and need not be looked up.
    span_marks: [u64; 4],
    wanted: Wanted,
}

/// Tells most keys apart.
#[inline]
fn mark_of(key: &[u8]) -> (usize, u64) {
    let last = key.last().copied().unwrap_or_default();
    let mark = (key.len() as u8).wrapping_mul(31).wrapping_add(last);
    (usize::from(mark >> 6), 1 << (mark & 63))
}

impl Layout {
    /// `dedicated` must have been filtered for vParquet4.
    pub(crate) fn vparquet4(dedicated: &[DedicatedColumn]) -> Self {
        let key = |name: &str| Box::from(name.as_bytes());
        let slots = |scope| vparquet4_slots(dedicated, scope).map(key).enumerate();
        // What has a column by name comes last, so that it wins over a slot of the same name.
        let mut resource: FxHashMap<_, _> = slots(DedicatedScope::Resource).map(|(i, name)| (name, Leaf::resource_dedicated(i))).collect();
        resource.extend(VPARQUET4_RESOURCE_COLUMNS.iter().enumerate().map(|(i, name)| (key(name), Leaf::resource_column(i))));
        resource.insert(key("service.name"), Leaf::SERVICE_NAME);
        let mut span: FxHashMap<_, _> = slots(DedicatedScope::Span).map(|(i, name)| (name, Leaf::span_dedicated(i))).collect();
        span.extend([
            (key("http.method"), Leaf::HTTP_METHOD),
            (key("http.url"), Leaf::HTTP_URL),
            (key("http.status_code"), Leaf::HTTP_STATUS_CODE),
        ]);
        let mut span_marks = [0; 4];
        for (word, bit) in span.keys().map(|key| mark_of(key)) {
            span_marks[word] |= bit;
        }
        Self { resource, span, span_marks, wanted: Wanted::default() }
    }

    /// The same, with no more kept than `wanted`.
    pub(crate) fn reading(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }

    /// The column of a resource attribute, if its value is text.
    pub(crate) fn resource_column(&self, key: &[u8]) -> Option<Leaf> {
        self.resource.get(key).copied()
    }

    /// The column of a span attribute, if its value has the column's type.
    #[inline]
    pub(crate) fn span_column(&self, key: &[u8]) -> Option<Leaf> {
        let (word, bit) = mark_of(key);
        if self.span_marks[word] & bit == 0 { None } else { self.span.get(key).copied() }
    }
}

/// A trace. Lists of attributes and such are kept in one place per kind; owners have ranges of them.
#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    pub(crate) trace_id: TraceId,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) root_service: &'a [u8],
    pub(crate) root_name: &'a [u8],
    /// Ascending by service.
    pub(crate) stats: Vec<ServiceCount<'a>>,
    /// In the order of the file. Own ranges of `scopes`.
    pub(crate) resources: Vec<Resource<'a>>,
    /// In the order of the file. Own ranges of `spans`.
    pub(crate) scopes: Vec<Scope<'a>>,
    /// In the order of the file.
    pub(crate) spans: Vec<Span<'a>>,
    pub(crate) events: Vec<Event<'a>>,
    pub(crate) links: Vec<Link<'a>>,
    pub(crate) resource_attrs: Vec<Attr<'a>>,
    pub(crate) scope_attrs: Vec<Attr<'a>>,
    pub(crate) span_attrs: Vec<Attr<'a>>,
    pub(crate) event_attrs: Vec<Attr<'a>>,
    pub(crate) link_attrs: Vec<Attr<'a>>,
    /// Resource attributes that have a column.
    pub(crate) resource_columns: Vec<(Leaf, &'a [u8])>,
    /// Span attributes that have a text column.
    pub(crate) span_columns: Vec<(Leaf, &'a [u8])>,
    /// Spans, by their position in the input, that are left out because their bytes are no message.
    pub(crate) invalid: Vec<(usize, WireError)>,
    /// Spans that are left out because another one with their id and kind came before, with other bytes.
    pub(crate) conflicting: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServiceCount<'a> {
    pub(crate) service: &'a [u8],
    pub(crate) spans: u32,
    pub(crate) errors: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resource<'a> {
    /// Equal for equal content, as far as the [`ResourceCache`] remembers; never equal for different content.
    pub(crate) content: u32,
    pub(crate) service_name: &'a [u8],
    pub(crate) dropped_attrs: i32,
    pub(crate) attrs: Range<usize>,
    pub(crate) columns: Range<usize>,
    pub(crate) scopes: Range<usize>,
    /// Of the first `service.name` if that is text, for when the trace's root is below.
    root_service: &'a [u8],
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scope<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) version: &'a [u8],
    pub(crate) dropped_attrs: i32,
    pub(crate) attrs: Range<usize>,
    pub(crate) spans: Range<usize>,
    resource: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Span<'a> {
    pub(crate) id: &'a [u8],
    /// Empty for a root.
    pub(crate) parent_id: &'a [u8],
    pub(crate) name: &'a [u8],
    pub(crate) trace_state: &'a [u8],
    pub(crate) status_message: &'a [u8],
    pub(crate) status_code: i64,
    pub(crate) kind: i64,
    pub(crate) start: u64,
    /// End minus start. Wraps for a span that ends before it starts, so that its end is kept. Its column has no bounds then, or
    /// Tempo would take the whole chunk for one without long spans.
    pub(crate) duration: u64,
    pub(crate) dropped_attrs: i32,
    pub(crate) dropped_events: i32,
    pub(crate) dropped_links: i32,
    pub(crate) http_status_code: Option<i64>,
    pub(crate) attrs: Range<usize>,
    pub(crate) columns: Range<usize>,
    pub(crate) events: Range<usize>,
    pub(crate) links: Range<usize>,
    pub(crate) position: Position,
    scope: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Event<'a> {
    /// Wraps for an event before its span.
    pub(crate) time_since_start: u64,
    pub(crate) name: &'a [u8],
    pub(crate) dropped_attrs: i32,
    pub(crate) attrs: Range<usize>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Link<'a> {
    pub(crate) trace_id: &'a [u8],
    pub(crate) span_id: &'a [u8],
    pub(crate) trace_state: &'a [u8],
    pub(crate) dropped_attrs: i32,
    pub(crate) attrs: Range<usize>,
}

/// The bytes of the spans that a row has, by what tells them apart.
type Seen<'a> = FxHashMap<(SpanId, i64), &'a [u8]>;

impl<'a> Row<'a> {
    /// The row of one trace from its spans in the order of their arrival.
    ///
    /// Copies of a span (same id and kind) are dropped: the first stays, also where the others have other content. Spans that are no message are left out and listed in `invalid`:
    /// one bad client must not keep a block from being built.
    pub(crate) fn build(layout: &Layout, cache: &mut ResourceCache, trace_id: TraceId, spans: &[SpanRef<'a>]) -> Self {
        let mut row = Self { trace_id, ..Self::default() };
        cache.make_room();
        let mut groups = Groups::default();
        let mut seen: Seen<'_> = Seen::default();
        seen.reserve(spans.len());
        row.spans.reserve(spans.len());
        if layout.wanted.span_keys.is_none() {
            row.span_attrs.reserve(8 * spans.len());
        }
        for (i, span) in spans.iter().enumerate() {
            if let Err(error) = row.push(layout, cache, &mut groups, &mut seen, span) {
                row.invalid.push((i, error));
            }
        }
        row.arrange();
        if layout.wanted.services {
            row.count_services();
        }
        if layout.wanted.positions {
            row.place();
        }
        row
    }

    /// The scope and the resource of a span.
    pub(crate) fn context(&self, span: &Span<'a>) -> (&Scope<'a>, &Resource<'a>) {
        let scope = &self.scopes[span.scope];
        (scope, &self.resources[scope.resource])
    }

    /// Counts the trace's resources.
    pub(crate) fn resource_index(&self, span: &Span<'a>) -> usize {
        self.scopes[span.scope].resource
    }

    fn push(
        &mut self,
        layout: &Layout,
        cache: &mut ResourceCache,
        groups: &mut Groups<'a>,
        seen: &mut Seen<'a>,
        span_ref: &SpanRef<'a>,
    ) -> Result<(), WireError> {
        let scope = groups.scope_of(self, layout, cache, span_ref)?;
        let parsed = self.read_span(layout, span_ref.span)?;
        let identity = (SpanId::from_slice(parsed.span.id), if (0..=7).contains(&parsed.span.kind) { parsed.span.kind } else { 0 });
        if let Some(first) = seen.get(&identity) {
            self.conflicting += u64::from(*first != span_ref.span);
            parsed.mark.roll_back(self);
            return Ok(());
        }
        seen.insert(identity, span_ref.span);
        let span = Span { scope, ..parsed.span };
        if self.start == 0 || span.start < self.start {
            self.start = span.start;
        }
        self.end = self.end.max(parsed.end);
        // The last root wins.
        if span.parent_id.is_empty() && !parsed.is_child_of_own_trace {
            self.root_name = span.name;
            self.root_service = self.resources[self.scopes[scope].resource].root_service;
        }
        self.spans.push(span);
        Ok(())
    }

    /// Brings resources, scopes and spans into the order of the file and drops those that became empty.
    /// Attributes of scopes keep the client's order where a resource has a single scope, and are sorted elsewhere.
    fn arrange(&mut self) {
        let mut first_span = vec![0usize; self.scopes.len()];
        for span in &self.spans {
            first_span[span.scope] += 1;
        }
        let mut order: Vec<usize> = (0..self.scopes.len()).filter(|scope| first_span[*scope] > 0).collect();
        order.sort_by_key(|scope| self.scopes[*scope].resource);
        let mut rank = vec![0usize; self.scopes.len()];
        let mut scopes = Vec::with_capacity(order.len());
        let mut at = 0;
        for (new, old) in order.iter().enumerate() {
            rank[*old] = new;
            scopes.push(Scope { spans: at..at + first_span[*old], ..self.scopes[*old].clone() });
            at += first_span[*old];
        }
        self.spans.iter_mut().for_each(|span| span.scope = rank[span.scope]);
        self.spans.sort_by_key(|span| span.scope);
        let mut resources: Vec<Resource<'a>> = Vec::with_capacity(self.resources.len());
        let mut last_old = None;
        for (new, scope) in scopes.iter_mut().enumerate() {
            match resources.last_mut() {
                Some(last) if last_old == Some(scope.resource) => last.scopes.end = new + 1,
                _ => resources.push(Resource { scopes: new..new + 1, ..self.resources[scope.resource].clone() }),
            }
            last_old = Some(scope.resource);
            scope.resource = resources.len() - 1;
        }
        for scope in resources.iter().filter(|resource| resource.scopes.len() > 1).flat_map(|resource| &scopes[resource.scopes.clone()]) {
            self.scope_attrs[scope.attrs.clone()].sort_by_key(|attr| attr.key);
        }
        self.scopes = scopes;
        self.resources = resources;
    }

    fn count_services(&mut self) {
        for resource in &self.resources {
            let scopes = &self.scopes[resource.scopes.clone()];
            let spans = scopes.first().map_or(0, |s| s.spans.start)..scopes.last().map_or(0, |s| s.spans.end);
            let errors = self.spans[spans.clone()].iter().filter(|span| span.status_code == 2).count() as u32;
            self.stats.push(ServiceCount { service: resource.service_name, spans: spans.len() as u32, errors });
        }
        // Sorted once, since a trace may have as many services as spans.
        self.stats.sort_by_key(|count| count.service);
        self.stats.dedup_by(|count, first| {
            let is_same = count.service == first.service;
            if is_same {
                first.spans += count.spans;
                first.errors += count.errors;
            }
            is_same
        });
    }

    fn place(&mut self) {
        let node = |span: &Span<'_>| Node {
            id: SpanId::from_slice(span.id),
            parent: (!span.parent_id.is_empty()).then(|| SpanId::from_slice(span.parent_id)),
            kind: span.kind,
        };
        let nodes: Vec<Node> = self.spans.iter().map(node).collect();
        for (span, position) in self.spans.iter_mut().zip(nested_set::number(&nodes)) {
            span.position = position;
        }
    }
}

/// Reads spans one by one, each with its resource and scope, as if each were alone in its trace.
pub(crate) struct SpanScan<'a, 'l> {
    layout: &'l Layout,
    cache: ResourceCache,
    row: Row<'a>,
    groups: Groups<'a>,
}

impl<'a, 'l> SpanScan<'a, 'l> {
    pub(crate) fn new(layout: &'l Layout) -> Self {
        Self { layout, cache: ResourceCache::default(), row: Row::default(), groups: Groups::default() }
    }

    /// Reads one span. Its position in its trace and all that is the trace's own are unknown.
    ///
    /// # Errors
    /// The bytes of the span, its scope or its resource are no message.
    pub(crate) fn visit<T>(
        &mut self,
        trace_id: TraceId,
        span_ref: &SpanRef<'a>,
        visit: impl FnOnce(&Row<'a>, &Span<'a>) -> T,
    ) -> Result<T, WireError> {
        self.row.trace_id = trace_id;
        let scope = self.groups.scope_of(&mut self.row, self.layout, &mut self.cache, span_ref)?;
        let parsed = self.row.read_span(self.layout, span_ref.span)?;
        let result = visit(&self.row, &Span { scope, ..parsed.span });
        parsed.mark.roll_back(&mut self.row);
        Ok(result)
    }

    /// Reads the resource and scope of a span. All else of the span that is given is empty.
    ///
    /// # Errors
    /// Their bytes are no message.
    pub(crate) fn visit_scope<T>(&mut self, span_ref: &SpanRef<'a>, visit: impl FnOnce(&Row<'a>, &Span<'a>) -> T) -> Result<T, WireError> {
        let scope = self.groups.scope_of(&mut self.row, self.layout, &mut self.cache, span_ref)?;
        Ok(visit(&self.row, &Span { scope, ..Span::default() }))
    }
}

/// Finds the resource and scope of a span: by address, by bytes, by content.
#[derive(Default)]
struct Groups<'a> {
    last: Option<(&'a [u8], &'a [u8], usize)>,
    resource_by_address: FxHashMap<(usize, usize), usize>,
    resource_by_content: FxHashMap<u32, usize>,
    scope_by_bytes: FxHashMap<(usize, &'a [u8]), usize>,
    scope_by_content: FxHashMap<(usize, Vec<u8>), usize>,
}

impl<'a> Groups<'a> {
    fn scope_of(&mut self, row: &mut Row<'a>, layout: &Layout, cache: &mut ResourceCache, span: &SpanRef<'a>) -> Result<usize, WireError> {
        if let Some((resource, scope, index)) = self.last
            && std::ptr::eq(resource, span.resource)
            && std::ptr::eq(scope, span.scope)
        {
            return Ok(index);
        }
        let resource = self.resource_of(row, layout, cache, span.resource)?;
        let scope = match self.scope_by_bytes.get(&(resource, span.scope)) {
            Some(index) => *index,
            None => {
                let scope = Scope { resource, ..row.read_scope(span.scope)? };
                let content = (resource, row.scope_content(&scope));
                let index = *self.scope_by_content.entry(content).or_insert(row.scopes.len());
                if index == row.scopes.len() {
                    row.scopes.push(scope);
                } else {
                    row.scope_attrs.truncate(scope.attrs.start);
                }
                self.scope_by_bytes.insert((resource, span.scope), index);
                index
            }
        };
        self.last = Some((span.resource, span.scope, scope));
        Ok(scope)
    }

    fn resource_of(
        &mut self,
        row: &mut Row<'a>,
        layout: &Layout,
        cache: &mut ResourceCache,
        message: &'a [u8],
    ) -> Result<usize, WireError> {
        // All messages outlive the row, so an address stands for one content.
        let address = (message.as_ptr().addr(), message.len());
        if let Some(index) = self.resource_by_address.get(&address) {
            return Ok(*index);
        }
        let resource = cache.read(row, layout, message)?;
        let index = *self.resource_by_content.entry(resource.content).or_insert(row.resources.len());
        if index == row.resources.len() {
            row.resources.push(resource);
        } else {
            row.resource_attrs.truncate(resource.attrs.start);
            row.resource_columns.truncate(resource.columns.start);
        }
        self.resource_by_address.insert(address, index);
        Ok(index)
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod model;
