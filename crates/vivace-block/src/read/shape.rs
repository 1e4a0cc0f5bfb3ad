//! Which elements stand in which: what the levels of a row group's columns say, as ranges.

use std::ops::Range;
use std::rc::Rc;

use super::bits::{Bits, Outcome};

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
    /// By row, resource and scope: where its part of the next list starts; one more at the end.
    pub(crate) fn new(resources: Rc<Vec<u32>>, scopes: Rc<Vec<u32>>, spans: Rc<Vec<u32>>) -> Self {
        Self { resources, scopes, spans }
    }

    /// Whether every list ends where the next begins, in so many rows.
    pub(crate) fn is_whole(&self, rows: usize) -> bool {
        let last = |offsets: &[u32]| offsets.last().map_or(0, |last| *last as usize);
        self.resources.len() == rows + 1
            && last(&self.resources) == self.count(Node::Resource)
            && last(&self.scopes) == self.count(Node::Scope)
    }

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
