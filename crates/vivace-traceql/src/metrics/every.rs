//! The attributes of spans whatever their names, for `compare`: its cost follows the attributes that are there.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::compare::Val;
use crate::group::GroupKey;
use crate::{Attribute, Value};

/// All attributes of the spans of a batch, of their resources and of their scopes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanAttributes {
    /// The names that occur, with their scopes: span, resource or instrumentation.
    pub names: Vec<Attribute>,
    /// The attributes of span `i` of the batch are `offsets[i]..offsets[i + 1]` of the entries. One longer than the spans.
    pub offsets: Vec<u32>,
    /// The place of a name, and the value, which is not nil. Each name at most once per span.
    pub entries: Vec<(u32, Value)>,
}

impl SpanAttributes {
    /// What a span has.
    #[must_use]
    pub fn of_span(&self, span: usize) -> &[(u32, Value)] {
        match (self.offsets.get(span), self.offsets.get(span + 1)) {
            (Some(first), Some(end)) => self.entries.get(*first as usize..*end as usize).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// Groups of the values of one batch, by side.
pub(crate) struct Every<'a> {
    pub(crate) attributes: &'a SpanAttributes,
    pub(crate) groups: FxHashMap<(u32, GroupKey<'a>), [Option<u32>; 2]>,
    /// By the place of the name.
    pub(crate) names: Vec<Name>,
}

#[derive(Default, Clone)]
pub(crate) struct Name {
    /// Once it is needed.
    pub(crate) label: Option<Arc<str>>,
    pub(crate) totals: [Option<u32>; 2],
    pub(crate) distinct: [u32; 2],
}

impl<'a> Every<'a> {
    pub(crate) fn new(attributes: &'a SpanAttributes) -> Self {
        Self { attributes, groups: FxHashMap::default(), names: vec![Name::default(); attributes.names.len()] }
    }
}

/// How `compare` shows a value: none if it does not compare it, nil for what no label can show.
pub(crate) fn shown(value: Val<'_>) -> Option<Val<'_>> {
    match value {
        Val::Nil | Val::Opaque | Val::Duration(_) => None,
        Val::Ints(_) | Val::Floats(_) | Val::Strs(_) | Val::Bools(_) => Some(Val::Nil),
        Val::Float(v) if v.is_nan() => Some(Val::Float(f64::NAN)),
        value => Some(value),
    }
}
