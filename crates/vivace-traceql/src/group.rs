//! When two values belong to one group.

use std::hash::{Hash, Hasher};

use crate::compare::Val;

/// A group's value; equal are values of the same type and the same bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupKey<'a>(pub(crate) Val<'a>);

impl PartialEq for GroupKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Val::Nil, Val::Nil) => true,
            (Val::Int(a), Val::Int(b)) | (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Float(a), Val::Float(b)) => a.to_bits() == b.to_bits(),
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => a == b,
            (Val::Hex(a), Val::Hex(b)) => a.as_str() == b.as_str(),
            (Val::Status(a), Val::Status(b)) => a == b,
            (Val::Kind(a), Val::Kind(b)) => a == b,
            (Val::Ints(a), Val::Ints(b)) => a == b,
            (Val::Floats(a), Val::Floats(b)) => a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())),
            (Val::Strs(a), Val::Strs(b)) => a == b,
            (Val::Bools(a), Val::Bools(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for GroupKey<'_> {}

impl Hash for GroupKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(&self.0).hash(state);
        match &self.0 {
            Val::Nil | Val::Opaque => {}
            Val::Int(v) | Val::Duration(v) => v.hash(state),
            Val::Float(v) => v.to_bits().hash(state),
            Val::Bool(v) => v.hash(state),
            Val::Str(v) => v.hash(state),
            Val::Hex(v) => v.as_str().hash(state),
            Val::Status(v) => v.hash(state),
            Val::Kind(v) => v.hash(state),
            Val::Ints(v) => v.hash(state),
            Val::Floats(v) => v.iter().for_each(|v| v.to_bits().hash(state)),
            Val::Strs(v) => v.hash(state),
            Val::Bools(v) => v.hash(state),
        }
    }
}
