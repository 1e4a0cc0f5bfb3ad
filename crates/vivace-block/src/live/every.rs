//! All attributes of live spans, whatever their names.

use rustc_hash::FxHashMap;
use vivace_traceql::{Attribute, Scope, SpanAttributes, Value};

use super::lookup::Lookup;
use super::tags::column_name;
use crate::row::{Row, Span};

/// Collects the attributes of one span after the other.
#[derive(Default)]
pub(super) struct Every<'a> {
    names: FxHashMap<(Scope, &'a [u8]), usize>,
    /// Of each name, one more than the last span that has it.
    last: Vec<usize>,
    attributes: SpanAttributes,
}

impl<'a> Every<'a> {
    pub(super) fn push(&mut self, lookup: &mut Lookup<'a, '_>, row: &Row<'a>, span: &Span<'a>) {
        self.attributes.offsets.push(self.end());
        let (scope, resource) = row.context(span);
        if !resource.service_name.is_empty() {
            self.add(Scope::Resource, b"service.name", Value::Str(lookup.text(resource.service_name)));
        }
        for (leaf, text) in &row.resource_columns[resource.columns.clone()] {
            self.add(Scope::Resource, column_name(*leaf).as_bytes(), Value::Str(lookup.text(text)));
        }
        for (leaf, text) in &row.span_columns[span.columns.clone()] {
            self.add(Scope::Span, column_name(*leaf).as_bytes(), Value::Str(lookup.text(text)));
        }
        if let Some(code) = span.http_status_code {
            self.add(Scope::Span, b"http.status_code", Value::Int(code));
        }
        let generic = [
            (Scope::Resource, &row.resource_attrs[resource.attrs.clone()]),
            (Scope::Instrumentation, &row.scope_attrs[scope.attrs.clone()]),
            (Scope::Span, &row.span_attrs[span.attrs.clone()]),
        ];
        for (scope, attrs) in generic {
            attrs.iter().for_each(|attr| self.add(scope, attr.key, lookup.value(&attr.value)));
        }
    }

    /// Of several attributes with one key the first counts.
    fn add(&mut self, scope: Scope, key: &'a [u8], value: Value) {
        let attributes = &mut self.attributes;
        let name = *self.names.entry((scope, key)).or_insert_with(|| {
            attributes.names.push(Attribute::Named { scope, key: String::from_utf8_lossy(key).into() });
            self.last.push(0);
            attributes.names.len() - 1
        });
        if std::mem::replace(&mut self.last[name], attributes.offsets.len()) != attributes.offsets.len() {
            attributes.entries.push((u32::try_from(name).unwrap_or(u32::MAX), value));
        }
    }

    fn end(&self) -> u32 {
        u32::try_from(self.attributes.entries.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn finish(mut self) -> SpanAttributes {
        self.attributes.offsets.push(self.end());
        self.attributes
    }
}
