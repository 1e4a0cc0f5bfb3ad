use std::ops::Range;
use std::rc::Rc;

use super::bits::{Bits, Outcome};
use super::fault::ReadError;
use super::group::Group;
use super::layout::LeafId;

/// So many spans are believed whatever the size of a row group.
const FREE_SPANS: u64 = 1 << 16;

/// The lists that columns stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Trace,
    Resource,
    Scope,
    Span,
    Event,
    Link,
}

impl Node {
    /// How many lists deep its elements are.
    pub(crate) fn depth(self) -> u8 {
        match self {
            Self::Trace => 0,
            Self::Resource => 1,
            Self::Scope => 2,
            Self::Span => 3,
            Self::Event | Self::Link => 4,
        }
    }
}

/// Which spans belong to which scope, resource and trace.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    resources: Rc<Vec<u32>>,
    scopes: Rc<Vec<u32>>,
    spans: Rc<Vec<u32>>,
}

/// Element `index`'s part of a list.
pub(crate) fn part(offsets: &[u32], index: usize) -> Range<usize> {
    match (offsets.get(index), offsets.get(index + 1)) {
        (Some(start), Some(end)) => *start as usize..*end as usize,
        _ => 0..0,
    }
}

fn start(offsets: &[u32], index: usize) -> usize {
    offsets.get(index).or(offsets.last()).map_or(0, |offset| *offset as usize)
}

impl Shape {
    pub(crate) fn resources_of(&self, row: usize) -> Range<usize> {
        part(&self.resources, row)
    }

    pub(crate) fn scopes_of(&self, resource: usize) -> Range<usize> {
        part(&self.scopes, resource)
    }

    pub(crate) fn spans_of_scope(&self, scope: usize) -> Range<usize> {
        part(&self.spans, scope)
    }

    pub(crate) fn spans_of_resource(&self, resource: usize) -> Range<usize> {
        let scopes = self.scopes_of(resource);
        start(&self.spans, scopes.start)..start(&self.spans, scopes.end)
    }

    pub(crate) fn spans_of_row(&self, row: usize) -> Range<usize> {
        let resources = self.resources_of(row);
        let scopes = start(&self.scopes, resources.start)..start(&self.scopes, resources.end);
        start(&self.spans, scopes.start)..start(&self.spans, scopes.end)
    }

    /// How many elements there are. Events and links are not known here.
    pub(crate) fn count(&self, node: Node) -> usize {
        match node {
            Node::Trace => self.resources.len() - 1,
            Node::Resource => self.scopes.len() - 1,
            Node::Scope => self.spans.len() - 1,
            Node::Span | Node::Event | Node::Link => start(&self.spans, self.spans.len()),
        }
    }

    /// Spans below elements of a trace, resource or scope.
    pub(crate) fn spans_below(&self, node: Node, of: Outcome) -> Outcome {
        let Outcome::Some(bits) = of else { return of };
        let mut spans = Bits::none(self.count(Node::Span));
        for index in bits.iter() {
            spans.set_range(match node {
                Node::Trace => self.spans_of_row(index),
                Node::Resource => self.spans_of_resource(index),
                Node::Scope => self.spans_of_scope(index),
                Node::Span | Node::Event | Node::Link => index..index + 1,
            });
        }
        spans.into()
    }
}

impl Group<'_> {
    /// Read from the levels of a column of spans: one that is decoded already or else the shortest.
    pub(crate) fn shape(&mut self) -> Result<Shape, ReadError> {
        if let Some(shape) = &self.shape {
            return Ok(shape.clone());
        }
        let leaf = self.shortest_of_spans();
        let shape =
            Shape { resources: self.list_offsets(leaf, 0)?, scopes: self.list_offsets(leaf, 1)?, spans: self.list_offsets(leaf, 2)? };
        // The levels of one column cannot disagree with themselves, unless a list starts in the middle.
        let last = |offsets: &[u32]| offsets.last().map_or(0, |last| *last as usize);
        if shape.resources.len() != self.rows() + 1
            || last(&shape.resources) != shape.count(Node::Resource)
            || last(&shape.scopes) != shape.count(Node::Scope)
        {
            return Err(self.corrupt(leaf, "its levels do not form lists"));
        }
        self.check_spans(leaf, shape.count(Node::Span).max(shape.count(Node::Scope)).max(shape.count(Node::Resource)))?;
        self.shape = Some(shape.clone());
        Ok(shape)
    }

    fn shortest_of_spans(&self) -> LeafId {
        let layout = &self.block.layout;
        let of_spans = [layout.kind, layout.status, layout.nested_left, layout.nested_parent, layout.duration, layout.name, layout.span_id];
        of_spans.into_iter().min_by_key(|leaf| self.cost(*leaf)).unwrap_or(layout.kind)
    }

    /// Whether there can be so many spans, resources or scopes. Levels can claim millions in a few bytes, but a span has an
    /// id, which takes some, and the others have a span each.
    pub(crate) fn check_spans(&self, leaf: LeafId, count: usize) -> Result<(), ReadError> {
        let bytes = self.stored_bytes();
        if count as u64 > bytes.saturating_add(FREE_SPANS) {
            return Err(self.corrupt(leaf, format!("{count} elements in a row group of {bytes} bytes")));
        }
        Ok(())
    }

    /// Events or links of each span.
    pub(crate) fn children(&mut self, node: Node) -> Result<Rc<Vec<u32>>, ReadError> {
        let layout = &self.block.layout;
        let leaf = if node == Node::Link { layout.link_span } else { layout.event_name };
        let spans = self.shape()?.count(Node::Span);
        let offsets = self.list_offsets(leaf, 3)?;
        if offsets.len() == spans + 1 { Ok(offsets) } else { Err(self.miscounted(leaf, offsets.len() - 1, spans)) }
    }

    pub(crate) fn count(&mut self, node: Node) -> Result<usize, ReadError> {
        Ok(match node {
            Node::Trace => self.rows(),
            Node::Event | Node::Link => self.children(node)?.last().map_or(0, |last| *last as usize),
            // Counting takes less than seeing which span belongs where, and is often all that is needed.
            Node::Span if self.shape.is_none() => self.column(self.shortest_of_spans())?.values.len(),
            _ => self.shape()?.count(node),
        })
    }

    pub(crate) fn miscounted(&self, leaf: LeafId, got: usize, want: usize) -> ReadError {
        self.corrupt(leaf, format!("it has {got} elements where its neighbours have {want}"))
    }

    /// What a condition on elements says about spans: those below them, or those that have one of them.
    pub(crate) fn spans_of(&mut self, node: Node, outcome: Outcome) -> Result<Outcome, ReadError> {
        match (node, outcome) {
            (_, Outcome::None) => Ok(Outcome::None),
            (Node::Span, outcome) => Ok(outcome),
            (Node::Event | Node::Link, outcome) => {
                let of_span = self.children(node)?;
                let spans = of_span.len() - 1;
                Ok(match outcome {
                    Outcome::Some(bits) => Bits::where_true(spans, |span| bits.any_in(part(&of_span, span))).into(),
                    _ => Bits::where_true(spans, |span| !part(&of_span, span).is_empty()).into(),
                })
            }
            (_, Outcome::All) => Ok(Outcome::All),
            (_, outcome) => Ok(self.shape()?.spans_below(node, outcome)),
        }
    }
}
