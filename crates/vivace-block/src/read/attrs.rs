//! Attributes by their keys, wherever a block keeps them: in a column of their own or among others.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use vivace_traceql::Value;

use super::column::{Column, Values};
use super::fault::ReadError;
use super::group::Group;
use super::layout::{AttrLeaves, LeafId, OwnColumn};
use super::shape::{Node, part};

/// Zero or more values per element.
pub(crate) struct Lists {
    pub(crate) column: Rc<Column>,
    pub(crate) of_parent: Rc<Vec<u32>>,
}

impl Lists {
    pub(crate) fn of(&self, parent: usize) -> Range<usize> {
        part(&self.of_parent, parent)
    }

    /// Nil without values, an array with several.
    pub(crate) fn value(&self, parent: usize) -> Value {
        let at = self.of(parent);
        match at.len() {
            0 => Value::Nil,
            1 => scalar(&self.column.values, at.start),
            _ => array(&self.column.values, at),
        }
    }
}

/// One value as queries see it.
pub(crate) fn scalar(values: &Values, index: usize) -> Value {
    match values {
        Values::Codes { .. } | Values::Strings(_) => Value::Str(values.text(index)),
        Values::I64(_) | Values::I32(_) => Value::Int(values.i64(index)),
        Values::F64(_) => Value::Float(values.f64(index)),
        Values::Bool(_) => Value::Bool(values.bool(index)),
    }
}

fn array(values: &Values, at: Range<usize>) -> Value {
    match values {
        Values::Codes { .. } | Values::Strings(_) => Value::StrArray(at.map(|i| values.text(i)).collect()),
        Values::I64(_) | Values::I32(_) => Value::IntArray(at.map(|i| values.i64(i)).collect()),
        Values::F64(_) => Value::FloatArray(at.map(|i| values.f64(i)).collect()),
        Values::Bool(_) => Value::BoolArray(at.map(|i| values.bool(i)).collect()),
    }
}

/// One attribute by its key, wherever it is stored.
pub(crate) struct Attr {
    own: Vec<Lists>,
    generic: Option<Generic>,
}

/// An attribute among others.
struct Generic {
    of_parent: Rc<Vec<u32>>,
    key: Rc<Column>,
    is_key: KeyTest,
    values: Vec<Lists>,
}

/// Tells an attribute's key among the entries of a key column.
pub(crate) struct KeyTest {
    /// By dictionary code.
    is_key: Vec<bool>,
    key: Arc<str>,
}

impl KeyTest {
    pub(crate) fn holds(&self, keys: &Values, index: usize) -> bool {
        match keys {
            Values::Codes { codes, .. } => self.is_key.get(codes[index] as usize).copied().unwrap_or_default(),
            _ => keys.bytes(index) == self.key.as_bytes(),
        }
    }
}

impl Attr {
    /// Nil where it is absent, opaque where queries cannot see its value. Of several with the key, the first.
    pub(crate) fn value(&self, parent: usize) -> Value {
        for own in &self.own {
            let value = own.value(parent);
            if value != Value::Nil {
                return value;
            }
        }
        let Some(generic) = &self.generic else { return Value::Nil };
        let found = part(&generic.of_parent, parent).find(|index| generic.is_key.holds(&generic.key.values, *index));
        found.map_or(Value::Nil, |index| {
            generic.values.iter().map(|lists| lists.value(index)).find(|value| *value != Value::Nil).unwrap_or(Value::Opaque)
        })
    }
}

impl Group<'_> {
    pub(crate) fn attr_leaves(&self, node: Node) -> AttrLeaves {
        let layout = &self.file.layout;
        match node {
            Node::Resource => layout.resource,
            Node::Scope => layout.scope,
            Node::Event => layout.event,
            Node::Link => layout.link,
            Node::Span | Node::Trace => layout.span,
        }
    }

    /// Columns of their own that an attribute may be in.
    pub(crate) fn own_columns(&self, node: Node) -> &[OwnColumn] {
        let layout = &self.file.layout;
        match node {
            Node::Resource => &layout.resource_own,
            Node::Span => &layout.span_own,
            Node::Event => &layout.event_own,
            Node::Scope | Node::Link | Node::Trace => &[],
        }
    }

    pub(crate) fn own_leaves(&self, node: Node, key: &str) -> Vec<LeafId> {
        let named = self.own_columns(node).iter().filter(|own| own.key == key);
        named.map(|own| own.leaf).filter(|leaf| !self.is_empty(*leaf)).collect()
    }

    /// None when no attribute of these elements has the key. Reads the dictionary of keys only, if there is one.
    pub(crate) fn key_test(&mut self, node: Node, key: &str) -> Result<Option<KeyTest>, ReadError> {
        let leaf = self.attr_leaves(node).key;
        if self.is_empty(leaf) {
            return Ok(None);
        }
        let dictionary = self.dictionary(leaf)?;
        let mut is_key = vec![false; dictionary.as_ref().map_or(0, |dictionary| dictionary.len())];
        for code in dictionary.iter().flat_map(|dictionary| dictionary.codes_of(key.as_bytes())) {
            is_key[code as usize] = true;
        }
        let absent = dictionary.is_some() && !is_key.contains(&true);
        Ok((!absent).then(|| KeyTest { is_key, key: key.into() }))
    }

    /// Values per element of `depth` lists, of which there are `parents`; none when the column is empty.
    pub(crate) fn lists(&mut self, leaf: LeafId, depth: u8, parents: usize) -> Result<Option<Lists>, ReadError> {
        if self.is_empty(leaf) {
            return Ok(None);
        }
        let of_parent = self.value_offsets(leaf, depth)?;
        if of_parent.len() != parents + 1 {
            return Err(self.miscounted(leaf, of_parent.len() - 1, parents));
        }
        Ok(Some(Lists { column: self.column(leaf)?, of_parent }))
    }

    /// Everything that is needed to give an attribute's values.
    pub(crate) fn attr(&mut self, node: Node, key: &str) -> Result<Attr, ReadError> {
        let parents = self.count(node)?;
        let mut own = Vec::new();
        for leaf in self.own_leaves(node, key) {
            own.extend(self.lists(leaf, node.depth(), parents)?);
        }
        let generic = match self.key_test(node, key)? {
            None => None,
            Some(is_key) => {
                let leaves = self.attr_leaves(node);
                let of_parent = self.keys_of(node)?;
                let key = self.column(leaves.key)?;
                let mut values = Vec::new();
                for leaf in [leaves.text, leaves.int, leaves.double, leaves.boolean] {
                    values.extend(self.lists(leaf, node.depth() + 1, key.values.len())?);
                }
                Some(Generic { of_parent, key, is_key, values })
            }
        };
        Ok(Attr { own, generic })
    }

    /// Attributes of each element.
    pub(crate) fn keys_of(&mut self, node: Node) -> Result<Rc<Vec<u32>>, ReadError> {
        let leaf = self.attr_leaves(node).key;
        let parents = self.count(node)?;
        let of_parent = self.list_offsets(leaf, node.depth())?;
        if of_parent.len() == parents + 1 { Ok(of_parent) } else { Err(self.miscounted(leaf, of_parent.len() - 1, parents)) }
    }
}
