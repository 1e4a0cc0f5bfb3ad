//! Resources are few and repeat in trace after trace: each distinct message is parsed once.

use rustc_hash::FxHashMap;
use vivace_core::wire::WireError;

use super::any_value::{Array, AttrValue, Scalar};
use super::{Attr, Layout, Resource, Row};
use crate::schema::Leaf;

/// What was learned from resource messages. Holds a copy of each; forgets all when there are too many.
#[derive(Debug, Default)]
pub(crate) struct ResourceCache {
    by_bytes: FxHashMap<Box<[u8]>, Known>,
    by_content: FxHashMap<Vec<u8>, u32>,
    next_content: u32,
}

/// Messages to remember.
const CACHE_MAX: usize = 4096;

/// A parsed message, as places in its bytes.
#[derive(Debug)]
struct Known {
    content: u32,
    dropped_attrs: i32,
    service_name: Place,
    root_service: Place,
    attrs: Vec<(Place, KnownValue)>,
    columns: Vec<(Leaf, Place)>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
enum KnownValue {
    Str(Place),
    Int(i64),
    Double(f64),
    Bool(bool),
    Array(Place, u32),
    Unsupported(Place),
}

impl Place {
    /// Where `part`, a slice of `message`, lies in it.
    fn of(part: &[u8], message: &[u8]) -> Self {
        let start = if part.is_empty() { 0 } else { part.as_ptr().addr() - message.as_ptr().addr() };
        Self { start: start as u32, len: part.len() as u32 }
    }

    fn get<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.start as usize..][..self.len as usize]
    }
}

impl KnownValue {
    fn of(value: AttrValue<'_>, message: &[u8]) -> Self {
        match value {
            AttrValue::Scalar(Scalar::Str(v)) => Self::Str(Place::of(v, message)),
            AttrValue::Scalar(Scalar::Int(v)) => Self::Int(v),
            AttrValue::Scalar(Scalar::Double(v)) => Self::Double(v),
            AttrValue::Scalar(Scalar::Bool(v)) => Self::Bool(v),
            AttrValue::Array(array) => Self::Array(Place::of(array.message, message), array.len as u32),
            AttrValue::Unsupported(v) => Self::Unsupported(Place::of(v, message)),
        }
    }

    fn get<'a>(&self, message: &'a [u8]) -> AttrValue<'a> {
        match self {
            Self::Str(v) => AttrValue::Scalar(Scalar::Str(v.get(message))),
            Self::Int(v) => AttrValue::Scalar(Scalar::Int(*v)),
            Self::Double(v) => AttrValue::Scalar(Scalar::Double(*v)),
            Self::Bool(v) => AttrValue::Scalar(Scalar::Bool(*v)),
            Self::Array(v, len) => AttrValue::Array(Array { message: v.get(message), len: *len as usize }),
            Self::Unsupported(v) => AttrValue::Unsupported(v.get(message)),
        }
    }
}

impl ResourceCache {
    /// To be called between traces.
    pub(super) fn make_room(&mut self) {
        if self.by_bytes.len() >= CACHE_MAX {
            self.by_bytes.clear();
            self.by_content.clear();
        }
    }

    /// Appends a resource's attributes and columns to the row's lists.
    pub(super) fn read<'a>(&mut self, row: &mut Row<'a>, layout: &Layout, message: &'a [u8]) -> Result<Resource<'a>, WireError> {
        let (attrs, columns) = (row.resource_attrs.len(), row.resource_columns.len());
        if let Some(known) = self.by_bytes.get(message) {
            let attr = |(key, value): &(Place, KnownValue)| Attr { key: key.get(message), value: value.get(message) };
            row.resource_attrs.extend(known.attrs.iter().map(attr));
            row.resource_columns.extend(known.columns.iter().map(|(leaf, value)| (*leaf, value.get(message))));
            return Ok(Resource {
                content: known.content,
                service_name: known.service_name.get(message),
                dropped_attrs: known.dropped_attrs,
                attrs: attrs..row.resource_attrs.len(),
                columns: columns..row.resource_columns.len(),
                scopes: 0..0,
                root_service: known.root_service.get(message),
            });
        }
        let mut resource = row.read_resource(layout, message)?;
        let next_content = &mut self.next_content;
        resource.content = *self.by_content.entry(row.resource_content(&resource)).or_insert_with(|| {
            *next_content = next_content.wrapping_add(1);
            *next_content
        });
        let place = |part: &[u8]| Place::of(part, message);
        let known = Known {
            content: resource.content,
            dropped_attrs: resource.dropped_attrs,
            service_name: place(resource.service_name),
            root_service: place(resource.root_service),
            attrs: row.resource_attrs[attrs..].iter().map(|a| (place(a.key), KnownValue::of(a.value, message))).collect(),
            columns: row.resource_columns[columns..].iter().map(|(leaf, value)| (*leaf, place(value))).collect(),
        };
        self.by_bytes.insert(message.into(), known);
        Ok(resource)
    }
}
