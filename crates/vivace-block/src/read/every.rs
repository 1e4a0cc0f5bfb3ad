//! All attributes of the spans of a row group, whatever their names: each is looked at once.

use std::mem;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use vivace_traceql::{Attribute, Scope, SpanAttributes, Value};

use super::attrs::Lists;
use super::column::{Column, Values};
use super::fault::ReadError;
use super::group::Group;
use super::layout::LeafId;
use super::shape::{Node, part};

/// Attributes by the numbers of their names.
type Entries = Vec<(u32, Value)>;

/// Gives the attributes of spans, of their resources and of their scopes.
pub(crate) struct Every {
    service_name: Rc<Column>,
    service: u32,
    resource: OfNode,
    scope: OfNode,
    span: OfNode,
    names: Vec<Attribute>,
    /// Of each name, the number of the last element that was seen to have it.
    last: Vec<usize>,
    elements: usize,
}

/// The attributes of one kind of element.
struct OfNode {
    of: Scope,
    /// Those with a column of their own, by the place of their name.
    own: Vec<(u32, Lists)>,
    others: Option<Others>,
}

/// Those among others.
struct Others {
    of_parent: Rc<Vec<u32>>,
    key: Rc<Column>,
    values: Vec<Lists>,
    /// The place of a name, by the code of the key.
    by_code: Vec<Option<u32>>,
    by_key: FxHashMap<Box<[u8]>, u32>,
}

impl Every {
    /// Decodes everything that is needed.
    pub(crate) fn new(group: &mut Group<'_>) -> Result<Self, ReadError> {
        let nodes = [Node::Resource, Node::Scope, Node::Span];
        let mut leaves: Vec<LeafId> = vec![group.file.layout.service_name];
        for node in nodes {
            let of = group.attr_leaves(node);
            leaves.extend([of.key, of.text, of.int, of.double, of.boolean]);
            leaves.extend(group.own_columns(node).iter().map(|own| own.leaf));
        }
        leaves.retain(|leaf| !group.is_empty(*leaf));
        group.prefetch(&leaves)?;
        let (leaf, count) = (group.file.layout.service_name, group.count(Node::Resource)?);
        let service_name = group.column(leaf)?;
        if service_name.values.len() != count {
            return Err(group.miscounted(leaf, service_name.values.len(), count));
        }
        let mut names = vec![Attribute::Named { scope: Scope::Resource, key: "service.name".into() }];
        let [resource, scope, span] =
            [(Scope::Resource, nodes[0]), (Scope::Instrumentation, nodes[1]), (Scope::Span, nodes[2])].map(|(of, node)| {
                let mut name = |key: &str| {
                    names.push(Attribute::Named { scope: of, key: key.into() });
                    (names.len() - 1) as u32
                };
                OfNode::new(group, of, node, &mut name)
            });
        let last = vec![0; names.len()];
        Ok(Self { service_name, service: 0, resource: resource?, scope: scope?, span: span?, names, last, elements: 0 })
    }

    /// Those of these spans; of each its resource, its scope and itself.
    pub(crate) fn of(&mut self, spans: impl Iterator<Item = (usize, usize, usize)>) -> SpanAttributes {
        let mut found = SpanAttributes::default();
        // Neighbours share their resource and scope.
        let mut shared: Option<((usize, usize), Entries)> = None;
        for (resource, scope, span) in spans {
            found.offsets.push(found.entries.len() as u32);
            if shared.as_ref().is_none_or(|(of, _)| *of != (resource, scope)) {
                let mut entries = Vec::new();
                self.add(resource, |every| &mut every.resource, &mut entries);
                self.add(scope, |every| &mut every.scope, &mut entries);
                shared = Some(((resource, scope), entries));
            }
            found.entries.extend(shared.iter().flat_map(|(_, entries)| entries).cloned());
            self.add(span, |every| &mut every.span, &mut found.entries);
        }
        found.offsets.push(found.entries.len() as u32);
        found.names.clone_from(&self.names);
        found
    }

    /// Of several attributes with one key the first counts.
    fn add(&mut self, element: usize, of: fn(&mut Self) -> &mut OfNode, entries: &mut Entries) {
        self.elements += 1;
        let this = self.elements;
        let mut node = mem::replace(of(self), OfNode { of: Scope::Span, own: Vec::new(), others: None });
        if node.of == Scope::Resource && !self.service_name.values.bytes(element).is_empty() {
            entries.push((self.service, Value::Str(self.service_name.values.text(element))));
            self.last[self.service as usize] = this;
        }
        for (name, lists) in &node.own {
            let value = lists.value(element);
            if value != Value::Nil {
                entries.push((*name, value));
                self.last[*name as usize] = this;
            }
        }
        if let Some(others) = &mut node.others {
            for index in part(&others.of_parent, element) {
                let name = others.name(index, node.of, &mut self.names);
                self.last.resize(self.names.len(), 0);
                if mem::replace(&mut self.last[name as usize], this) != this {
                    let value = others.values.iter().map(|lists| lists.value(index)).find(|value| *value != Value::Nil);
                    entries.push((name, value.unwrap_or(Value::Opaque)));
                }
            }
        }
        *of(self) = node;
    }
}

impl OfNode {
    fn new(group: &mut Group<'_>, of: Scope, node: Node, name: &mut dyn FnMut(&str) -> u32) -> Result<Self, ReadError> {
        let parents = group.count(node)?;
        let columns: Vec<(LeafId, String)> = group.own_columns(node).iter().map(|own| (own.leaf, own.key.clone())).collect();
        let mut own = Vec::new();
        for (leaf, key) in columns {
            if let Some(lists) = group.lists(leaf, node.depth(), parents)? {
                own.push((name(&key), lists));
            }
        }
        let leaves = group.attr_leaves(node);
        if group.is_empty(leaves.key) {
            return Ok(Self { of, own, others: None });
        }
        let (of_parent, key) = (group.keys_of(node)?, group.column(leaves.key)?);
        let mut values = Vec::new();
        for leaf in [leaves.text, leaves.int, leaves.double, leaves.boolean] {
            values.extend(group.lists(leaf, node.depth() + 1, key.values.len())?);
        }
        let by_code = match &key.values {
            Values::Codes { dictionary, .. } => vec![None; dictionary.len()],
            _ => Vec::new(),
        };
        Ok(Self { of, own, others: Some(Others { of_parent, key, values, by_code, by_key: FxHashMap::default() }) })
    }
}

impl Others {
    /// The place of an attribute's name. A key that has a column of its own too is the same name.
    fn name(&mut self, index: usize, of: Scope, names: &mut Vec<Attribute>) -> u32 {
        let code = match &self.key.values {
            Values::Codes { codes, .. } => codes.get(index).map(|code| *code as usize),
            _ => None,
        };
        if let Some(known) = code.and_then(|code| self.by_code.get(code).copied().flatten()) {
            return known;
        }
        let key = self.key.values.bytes(index);
        let known = self.by_key.get(key).copied().unwrap_or_else(|| {
            let attribute = Attribute::Named { scope: of, key: String::from_utf8_lossy(key).into() };
            // Few have a column; all others are new.
            let place = names.iter().take(OWN_MAX).position(|name| *name == attribute).unwrap_or_else(|| {
                names.push(attribute);
                names.len() - 1
            });
            self.by_key.insert(key.into(), place as u32);
            place as u32
        });
        if let Some(place) = code.and_then(|code| self.by_code.get_mut(code)) {
            *place = Some(known);
        }
        known
    }
}

/// More columns of their own than any format has.
const OWN_MAX: usize = 256;
