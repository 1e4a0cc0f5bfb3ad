//! Names and values of attributes, from dictionaries where nothing else need be looked at.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use rustc_hash::FxHashSet;
use vivace_traceql::{Attribute, Intrinsic, Scope, SpanFilter, Value};

use super::bits::{Bits, Outcome};
use super::column::{Column, Values};
use super::fault::ReadError;
use super::group::Group;
use super::layout::LeafId;
use super::reader::BlockReader;
use super::search::ScanStats;
use super::shape::{Node, part};

/// Scopes whose attributes have names of their own, and where their elements are.
const SCOPES: [(Scope, Node); 5] = [
    (Scope::Resource, Node::Resource),
    (Scope::Span, Node::Span),
    (Scope::Event, Node::Event),
    (Scope::Link, Node::Link),
    (Scope::Instrumentation, Node::Scope),
];

impl BlockReader {
    /// Attribute names of one scope, or of all, in these row groups; each once. With a filter, only names that occur on a
    /// span which may pass it, or on its resource, scope, events or links. `sink` may stop it.
    ///
    /// Without a filter little more than dictionaries is read.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn tag_names(
        &self,
        scope: Option<Scope>,
        filter: Option<&SpanFilter>,
        row_groups: Range<usize>,
        sink: &mut dyn FnMut(Scope, &str) -> ControlFlow<()>,
    ) -> Result<ScanStats, ReadError> {
        let mut seen: FxHashSet<(Scope, Box<str>)> = FxHashSet::default();
        let wanted = |of: Scope| scope.is_none_or(|scope| scope == of || scope == Scope::Unscoped);
        self.each_group(filter, row_groups, |group, spans| {
            for (scope, node) in SCOPES.into_iter().filter(|(scope, _)| wanted(*scope)) {
                for name in group.names(node, spans)? {
                    if seen.insert((scope, name.clone())) && sink(scope, &name).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The values of an attribute, or of an intrinsic that has stored text, in these row groups; each once. Arrays give their
    /// elements. An unscoped attribute is looked for on resources, spans and instrumentation scopes. With a filter, only
    /// values that occur on a span which may pass it, or on its resource, scope, events or links. `sink` may stop it.
    ///
    /// Intrinsics whose values are not data (ids, durations) or fixed words (status, kind) give nothing.
    ///
    /// # Errors
    /// Bytes that are not what the format says, or cannot be had.
    pub fn tag_values(
        &self,
        attribute: &Attribute,
        filter: Option<&SpanFilter>,
        row_groups: Range<usize>,
        sink: &mut dyn FnMut(Value) -> ControlFlow<()>,
    ) -> Result<ScanStats, ReadError> {
        let mut distinct = Distinct::new(sink);
        self.each_group(filter, row_groups, |group, spans| group.values(attribute, spans, &mut distinct))
    }

    /// Calls `each` with the spans that may pass, for row groups that have any, until it breaks.
    fn each_group(
        &self,
        filter: Option<&SpanFilter>,
        row_groups: Range<usize>,
        mut each: impl FnMut(&mut Group<'_>, &Outcome) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<ScanStats, ReadError> {
        let mut stats = ScanStats::default();
        for index in row_groups.start..row_groups.end.min(self.row_groups()) {
            let mut group = Group::new(&self.file, index);
            stats.traces += group.rows() as u64;
            let stop = match filter.map_or(Ok(Outcome::All), |filter| group.span_filter(filter))? {
                Outcome::None => ControlFlow::Continue(()),
                spans => each(&mut group, &spans)?,
            };
            stats.bytes += group.bytes_read;
            if stop.is_break() {
                break;
            }
        }
        Ok(stats)
    }
}

/// Values that have been handed out.
struct Distinct<'a> {
    sink: &'a mut dyn FnMut(Value) -> ControlFlow<()>,
    texts: FxHashSet<Arc<str>>,
    ints: FxHashSet<i64>,
    doubles: FxHashSet<u64>,
    bools: FxHashSet<bool>,
}

impl<'a> Distinct<'a> {
    fn new(sink: &'a mut dyn FnMut(Value) -> ControlFlow<()>) -> Self {
        let (texts, ints, doubles, bools) = Default::default();
        Self { sink, texts, ints, doubles, bools }
    }

    fn text(&mut self, text: &Arc<str>) -> ControlFlow<()> {
        if self.texts.insert(Arc::clone(text)) { (self.sink)(Value::Str(Arc::clone(text))) } else { ControlFlow::Continue(()) }
    }

    /// Values of a column, by their indexes.
    fn values(&mut self, column: &Column, indexes: impl Iterator<Item = usize>) -> ControlFlow<()> {
        match &column.values {
            Values::Codes { codes, dictionary } => {
                let mut given = vec![false; dictionary.len()];
                for index in indexes {
                    let code = codes[index];
                    if !std::mem::replace(&mut given[code as usize], true) {
                        self.text(&dictionary.shared(code))?;
                    }
                }
            }
            Values::Strings(_) => {
                for index in indexes {
                    self.text(&column.values.text(index))?;
                }
            }
            Values::I64(_) | Values::I32(_) => {
                for value in indexes.map(|index| column.values.i64(index)) {
                    if self.ints.insert(value) {
                        (self.sink)(Value::Int(value))?;
                    }
                }
            }
            Values::F64(values) => {
                for value in indexes.map(|index| values[index]) {
                    if self.doubles.insert(value.to_bits()) {
                        (self.sink)(Value::Float(value))?;
                    }
                }
            }
            Values::Bool(values) => {
                for value in indexes.map(|index| values[index]) {
                    if self.bools.insert(value) {
                        (self.sink)(Value::Bool(value))?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl Group<'_> {
    fn names(&mut self, node: Node, spans: &Outcome) -> Result<Vec<Box<str>>, ReadError> {
        let mut names = self.keys(node, spans)?;
        if node == Node::Resource {
            let leaf = self.file.layout.service_name;
            let named = match (spans, self.dictionary(leaf)?) {
                (Outcome::All, Some(dictionary)) => dictionary.strings.iter().any(|name| !name.is_empty()),
                _ => {
                    let elements = self.elements(node, spans)?;
                    let column = self.column(leaf)?;
                    elements.iter().any(|index| !column.values.bytes(index).is_empty())
                }
            };
            names.extend(named.then(|| "service.name".into()));
        }
        let own: Vec<(LeafId, Box<str>)> = self.own_columns(node).iter().map(|own| (own.leaf, own.key.as_str().into())).collect();
        for (leaf, key) in own {
            let occurs = match spans {
                _ if self.is_empty(leaf) => false,
                Outcome::All if self.has_statistics(leaf) => true,
                _ => {
                    let elements = self.elements(node, spans)?;
                    let parents = self.count(node)?;
                    self.lists(leaf, node.depth(), parents)?.is_some_and(|lists| elements.iter().any(|index| !lists.of(index).is_empty()))
                }
            };
            names.extend(occurs.then_some(key));
        }
        Ok(names)
    }

    /// Names of attributes without columns of their own.
    fn keys(&mut self, node: Node, spans: &Outcome) -> Result<Vec<Box<str>>, ReadError> {
        let leaf = self.attr_leaves(node).key;
        if self.is_empty(leaf) {
            return Ok(Vec::new());
        }
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
        if *spans == Outcome::All
            && let Some(dictionary) = self.dictionary(leaf)?
        {
            return Ok(dictionary.strings.iter().map(name).collect());
        }
        let elements = self.elements(node, spans)?;
        let keys_of = self.keys_of(node)?;
        let column = self.column(leaf)?;
        let indexes = elements.iter().flat_map(|index| part(&keys_of, index));
        Ok(match &column.values {
            Values::Codes { codes, dictionary } => {
                let mut occurs = vec![false; dictionary.len()];
                indexes.for_each(|index| occurs[codes[index] as usize] = true);
                dictionary.strings.iter().zip(occurs).filter(|(_, occurs)| *occurs).map(|(bytes, _)| name(bytes)).collect()
            }
            values => indexes.map(|index| values.bytes(index)).collect::<FxHashSet<&[u8]>>().into_iter().map(name).collect(),
        })
    }

    fn values(&mut self, attribute: &Attribute, spans: &Outcome, distinct: &mut Distinct<'_>) -> Result<ControlFlow<()>, ReadError> {
        let layout = &self.file.layout;
        let (node, leaf) = match attribute {
            Attribute::Named { scope, key } => return self.named_values(*scope, key, spans, distinct),
            Attribute::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Name => (Node::Span, layout.name),
                Intrinsic::StatusMessage => (Node::Span, layout.status_message),
                Intrinsic::RootName => (Node::Trace, layout.root_name),
                Intrinsic::RootService => (Node::Trace, layout.root_service),
                Intrinsic::EventName => (Node::Event, layout.event_name),
                Intrinsic::EventTimeSinceStart => (Node::Event, layout.event_time),
                Intrinsic::ScopeName => (Node::Scope, layout.scope_name),
                Intrinsic::ScopeVersion => (Node::Scope, layout.scope_version),
                // Answered without data, or not listed.
                Intrinsic::Duration
                | Intrinsic::Status
                | Intrinsic::Kind
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::ChildCount
                | Intrinsic::TraceId
                | Intrinsic::TraceDuration
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent => return Ok(ControlFlow::Continue(())),
            },
        };
        if *spans == Outcome::All
            && let Some(dictionary) = self.dictionary(leaf)?
        {
            return Ok((0u32..).take(dictionary.len()).try_for_each(|code| distinct.text(&dictionary.shared(code))));
        }
        let column = self.column(leaf)?;
        let count = self.count(node)?;
        if column.values.len() != count {
            return Err(self.miscounted(leaf, column.values.len(), count));
        }
        let elements = self.elements(node, spans)?;
        Ok(distinct.values(&column, elements.iter()))
    }

    fn named_values(
        &mut self,
        scope: Scope,
        key: &str,
        spans: &Outcome,
        distinct: &mut Distinct<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        for (of, node) in SCOPES {
            let unscoped = scope == Scope::Unscoped && matches!(node, Node::Resource | Node::Span | Node::Scope);
            if (of == scope || unscoped) && self.values_at(node, key, spans, distinct)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn values_at(&mut self, node: Node, key: &str, spans: &Outcome, distinct: &mut Distinct<'_>) -> Result<ControlFlow<()>, ReadError> {
        if node == Node::Resource && key == "service.name" {
            let leaf = self.file.layout.service_name;
            let column = self.column(leaf)?;
            let count = self.count(node)?;
            if column.values.len() != count {
                return Err(self.miscounted(leaf, column.values.len(), count));
            }
            let elements = self.elements(node, spans)?;
            // A name that is no text is among the other attributes, and the text is empty then.
            let others = match self.key_test(node, key)? {
                Some(_) => Some(self.attr(node, key)?),
                None => None,
            };
            let is_text = |index: &usize| {
                !column.values.bytes(*index).is_empty() || others.as_ref().is_none_or(|others| others.value(*index) == Value::Nil)
            };
            if distinct.values(&column, elements.iter().filter(is_text)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let mut flow = ControlFlow::Continue(());
        for leaf in self.own_leaves(node, key) {
            flow = match (spans, self.dictionary(leaf)?) {
                (Outcome::All, Some(dictionary)) => {
                    (0u32..).take(dictionary.len()).try_for_each(|code| distinct.text(&dictionary.shared(code)))
                }
                _ => {
                    let elements = self.elements(node, spans)?;
                    let parents = self.count(node)?;
                    match self.lists(leaf, node.depth(), parents)? {
                        Some(lists) => distinct.values(&lists.column, elements.iter().flat_map(|index| lists.of(index))),
                        None => ControlFlow::Continue(()),
                    }
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        let Some(is_key) = self.key_test(node, key)? else { return Ok(flow) };
        let leaves = self.attr_leaves(node);
        let elements = self.elements(node, spans)?;
        let keys_of = self.keys_of(node)?;
        let keys = self.column(leaves.key)?;
        let attrs: Vec<usize> =
            elements.iter().flat_map(|index| part(&keys_of, index)).filter(|index| is_key.holds(&keys.values, *index)).collect();
        for leaf in [leaves.text, leaves.int, leaves.double, leaves.boolean] {
            if let Some(lists) = self.lists(leaf, node.depth() + 1, keys.values.len())?
                && flow.is_continue()
            {
                flow = distinct.values(&lists.column, attrs.iter().flat_map(|index| lists.of(*index)));
            }
        }
        Ok(flow)
    }

    /// Elements that belong to these spans, or that these spans belong to.
    fn elements(&mut self, node: Node, spans: &Outcome) -> Result<Bits, ReadError> {
        let count = self.count(node)?;
        let Outcome::Some(spans) = spans else { return Ok(spans.clone().bits(count)) };
        let shape = self.shape()?;
        Ok(match node {
            Node::Span => spans.clone(),
            Node::Trace => Bits::where_true(count, |row| spans.any_in(shape.spans_of_row(row))),
            Node::Resource => Bits::where_true(count, |resource| spans.any_in(shape.spans_of_resource(resource))),
            Node::Scope => Bits::where_true(count, |scope| spans.any_in(shape.spans_of_scope(scope))),
            Node::Event | Node::Link => {
                let of_span = self.children(node)?;
                let mut elements = Bits::none(count);
                for span in spans.iter() {
                    elements.set_range(part(&of_span, span));
                }
                elements
            }
        })
    }
}
