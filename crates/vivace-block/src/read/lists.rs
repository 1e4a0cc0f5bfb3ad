//! The elements of a row group: how many there are, and which belong to which.

use std::rc::Rc;

use super::bits::{Bits, Outcome};
use super::fault::ReadError;
use super::group::Group;
use super::layout::LeafId;
use super::shape::{Node, Shape, part};

/// So many spans are believed whatever the size of a row group.
const FREE_SPANS: u64 = 1 << 16;

impl Group<'_> {
    /// Read from the levels of a column of spans: one that is decoded already or else the shortest.
    pub(crate) fn shape(&mut self) -> Result<Shape, ReadError> {
        if let Some(shape) = &self.shape {
            return Ok(shape.clone());
        }
        let leaf = self.shortest_of_spans();
        let shape = Shape::new(self.list_offsets(leaf, 0)?, self.list_offsets(leaf, 1)?, self.list_offsets(leaf, 2)?);
        // The levels of one column cannot disagree with themselves, unless a list starts in the middle.
        if !shape.is_whole(self.rows()) {
            return Err(self.corrupt(leaf, "its levels do not form lists"));
        }
        self.check_spans(leaf, shape.count(Node::Span).max(shape.count(Node::Scope)).max(shape.count(Node::Resource)))?;
        self.shape = Some(shape.clone());
        Ok(shape)
    }

    fn shortest_of_spans(&self) -> LeafId {
        let layout = &self.file.layout;
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
        let layout = &self.file.layout;
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
