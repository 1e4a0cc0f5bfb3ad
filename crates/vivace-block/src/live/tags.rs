//! Tag names and values of live spans.
//!
//! Source: docs/facts/traceql.md, "Tag names and values".

use std::ops::ControlFlow;

use rustc_hash::FxHashSet;
use vivace_core::TraceId;
use vivace_core::wire::{self, Reader, WireError};
use vivace_traceql::{Attribute, Intrinsic, Scope, SpanFilter, Value};

use super::filter::{Known, is_of_scope, span_passes};
use super::lookup::Lookup;
use crate::dedicated::VPARQUET4_RESOURCE_COLUMNS;
use crate::row::{Attr, AttrValue, Layout, Resource, Row, Scalar, Span, SpanRef, SpanScan, Wanted};
use crate::schema::Leaf;

/// Gives `sink` the keys of all attributes of spans that pass `filter`, each once, until it breaks.
///
/// `scope`: only these; none or unscoped for all. Conditions of the filter on whole traces pass.
/// Spans that are no message are skipped.
pub fn tag_names<'a>(
    spans: &[SpanRef<'a>],
    scope: Option<Scope>,
    filter: &SpanFilter,
    sink: &mut dyn FnMut(Scope, &str) -> ControlFlow<()>,
) {
    let wanted = |s: Scope| matches!(scope, None | Some(Scope::Unscoped)) || scope == Some(s);
    let mut read = Wanted { events: wanted(Scope::Event), ..Wanted::least() };
    read.add_spans(filter);
    if wanted(Scope::Span) {
        read.span_keys = None;
    }
    let mut given: FxHashSet<(Scope, &[u8])> = FxHashSet::default();
    let one_per_scope = matches!(scope, Some(Scope::Resource | Scope::Instrumentation)) && says_one_per_scope(filter);
    visit(&Layout::vparquet4(&[]).reading(read), spans, filter, one_per_scope, |_, row, span| {
        let (scope, resource) = row.context(span);
        let mut give = |of: Scope, names: &mut dyn Iterator<Item = &'a [u8]>| {
            if !wanted(of) {
                return ControlFlow::Continue(());
            }
            let mut new = names.filter(|name| given.insert((of, name)));
            new.try_for_each(|name| sink(of, &String::from_utf8_lossy(name)))
        };
        fn keys<'a>(attrs: &[Attr<'a>]) -> impl Iterator<Item = &'a [u8]> {
            attrs.iter().map(|attr| attr.key)
        }
        fn columns<'a>(columns: &[(Leaf, &[u8])]) -> impl Iterator<Item = &'a [u8]> {
            columns.iter().map(|(leaf, _)| column_name(*leaf).as_bytes())
        }
        let service = (!resource.service_name.is_empty()).then_some(&b"service.name"[..]);
        give(Scope::Resource, &mut service.into_iter())?;
        give(Scope::Resource, &mut columns(&row.resource_columns[resource.columns.clone()]))?;
        give(Scope::Resource, &mut keys(&row.resource_attrs[resource.attrs.clone()]))?;
        give(Scope::Instrumentation, &mut keys(&row.scope_attrs[scope.attrs.clone()]))?;
        give(Scope::Span, &mut columns(&row.span_columns[span.columns.clone()]))?;
        give(Scope::Span, &mut span.http_status_code.map(|_| &b"http.status_code"[..]).into_iter())?;
        give(Scope::Span, &mut keys(&row.span_attrs[span.attrs.clone()]))?;
        // A scan holds one span at a time, so all events and links are its own.
        give(Scope::Event, &mut keys(&row.event_attrs))?;
        give(Scope::Link, &mut keys(&row.link_attrs))
    });
}

/// Gives `sink` the values of an attribute or intrinsic on spans that pass `filter`, texts once, until it breaks. Arrays give their elements. An unscoped attribute is looked for on resource, span and instrumentation scope.
///
/// Intrinsics whose answer does not depend on data (status, kind) or is always empty (ids, durations) give nothing, and
/// so do the trace's own (root name and service): [`super::batch`] has these.
pub fn tag_values<'a>(spans: &[SpanRef<'a>], attribute: &Attribute, filter: &SpanFilter, sink: &mut dyn FnMut(&Value) -> ControlFlow<()>) {
    let mut read = Wanted::least();
    read.add_spans(filter);
    read.add(attribute);
    let layout = Layout::vparquet4(&[]).reading(read);
    let mut given: FxHashSet<&[u8]> = FxHashSet::default();
    let mut give = |lookup: &mut Lookup<'a, '_>, scalar: Scalar<'a>| match scalar {
        Scalar::Str(text) if !given.insert(text) => ControlFlow::Continue(()),
        scalar => sink(&lookup.scalar(scalar)),
    };
    let one_per_scope = is_of_scope(attribute) && says_one_per_scope(filter);
    visit(&layout, spans, filter, one_per_scope, |lookup, row, span| values(&layout, lookup, row, span, attribute, &mut give));
}

/// The attribute that has this column in every vParquet4 block.
pub(super) fn column_name(leaf: Leaf) -> &'static str {
    match leaf {
        Leaf::HTTP_METHOD => "http.method",
        Leaf::HTTP_URL => "http.url",
        _ => VPARQUET4_RESOURCE_COLUMNS[leaf.index() - Leaf::resource_column(0).index()],
    }
}

fn values<'a>(
    layout: &Layout,
    lookup: &mut Lookup<'a, '_>,
    row: &Row<'a>,
    span: &Span<'a>,
    attribute: &Attribute,
    sink: &mut impl FnMut(&mut Lookup<'a, '_>, Scalar<'a>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let (scope, resource) = row.context(span);
    match attribute {
        Attribute::Intrinsic(Intrinsic::EventName) => row.events.iter().try_for_each(|event| sink(lookup, Scalar::Str(event.name))),
        Attribute::Intrinsic(Intrinsic::EventTimeSinceStart) => {
            row.events.iter().try_for_each(|event| sink(lookup, Scalar::Int(event.time_since_start as i64)))
        }
        Attribute::Intrinsic(Intrinsic::Name) => sink(lookup, Scalar::Str(span.name)),
        Attribute::Intrinsic(Intrinsic::StatusMessage) => sink(lookup, Scalar::Str(span.status_message)),
        Attribute::Intrinsic(Intrinsic::ScopeName) => sink(lookup, Scalar::Str(scope.name)),
        Attribute::Intrinsic(Intrinsic::ScopeVersion) => sink(lookup, Scalar::Str(scope.version)),
        // Those of the whole trace are asked for in another way; the others are answered without data, or not listed.
        Attribute::Intrinsic(
            Intrinsic::Duration
            | Intrinsic::Status
            | Intrinsic::Kind
            | Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::ChildCount
            | Intrinsic::TraceId
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootService
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent,
        ) => ControlFlow::Continue(()),
        Attribute::Named { scope: of, key } => {
            let key = key.as_bytes();
            let mut give = |column: Option<Scalar<'a>>, attrs: &[Attr<'a>]| {
                column.map_or(ControlFlow::Continue(()), |value| sink(lookup, value))?;
                for attr in attrs.iter().filter(|attr| attr.key == key) {
                    match attr.value {
                        AttrValue::Scalar(scalar) => sink(lookup, scalar)?,
                        AttrValue::Array(array) => array.elements().try_for_each(|scalar| sink(lookup, scalar))?,
                        AttrValue::Unsupported(_) => {}
                    }
                }
                ControlFlow::Continue(())
            };
            let resource_attrs = &row.resource_attrs[resource.attrs.clone()];
            let span_attrs = &row.span_attrs[span.attrs.clone()];
            let scope_attrs = &row.scope_attrs[scope.attrs.clone()];
            match of {
                Scope::Resource => give(resource_column(layout, row, resource, key), resource_attrs),
                Scope::Span => give(span_column(layout, row, span, key), span_attrs),
                Scope::Instrumentation => give(None, scope_attrs),
                Scope::Event => give(None, &row.event_attrs),
                Scope::Link => give(None, &row.link_attrs),
                Scope::Unscoped => {
                    give(resource_column(layout, row, resource, key), resource_attrs)?;
                    give(span_column(layout, row, span, key), span_attrs)?;
                    give(None, scope_attrs)
                }
            }
        }
    }
}

fn resource_column<'a>(layout: &Layout, row: &Row<'a>, resource: &Resource<'a>, key: &[u8]) -> Option<Scalar<'a>> {
    match layout.resource_column(key)? {
        // A resource without one has the empty text, as in blocks, unless it has a name that is no text.
        Leaf::SERVICE_NAME => {
            let attrs = &row.resource_attrs[resource.attrs.clone()];
            let is_text = !resource.service_name.is_empty() || attrs.iter().all(|attr| attr.key != key);
            is_text.then_some(Scalar::Str(resource.service_name))
        }
        leaf => text_of(&row.resource_columns[resource.columns.clone()], leaf),
    }
}

fn span_column<'a>(layout: &Layout, row: &Row<'a>, span: &Span<'a>, key: &[u8]) -> Option<Scalar<'a>> {
    match layout.span_column(key)? {
        Leaf::HTTP_STATUS_CODE => span.http_status_code.map(Scalar::Int),
        leaf => text_of(&row.span_columns[span.columns.clone()], leaf),
    }
}

fn text_of<'a>(columns: &[(Leaf, &'a [u8])], leaf: Leaf) -> Option<Scalar<'a>> {
    columns.iter().find(|(l, _)| *l == leaf).map(|(_, text)| Scalar::Str(text))
}

/// Whether all spans of a scope pass, or none.
fn says_one_per_scope(filter: &SpanFilter) -> bool {
    match filter {
        SpanFilter::Maybe => true,
        SpanFilter::Leaf(condition) => is_of_scope(&condition.attribute),
        SpanFilter::And(filters) | SpanFilter::Or(filters) => filters.iter().all(says_one_per_scope),
    }
}

/// As sent first in the message, which every client does.
fn trace_id(span: &[u8]) -> Result<TraceId, WireError> {
    let mut reader = Reader::new(span);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (1, wire::Value::Bytes(id)) => return Ok(TraceId::from_slice(id)),
            (1, _) => return Err(reader.wrong_type(field)),
            _ => {}
        }
    }
    Ok(TraceId::default())
}

/// Calls `each` for every span that passes, or for the first span of each scope where all say the same.
fn visit<'a>(
    layout: &Layout,
    spans: &[SpanRef<'a>],
    filter: &SpanFilter,
    one_per_scope: bool,
    mut each: impl FnMut(&mut Lookup<'a, '_>, &Row<'a>, &Span<'a>) -> ControlFlow<()>,
) {
    let mut scan = SpanScan::new(layout);
    let mut lookup = Lookup::new(layout);
    let mut last: Option<(&[u8], &[u8])> = None;
    let mut one = |span_ref: &SpanRef<'a>| -> Result<ControlFlow<()>, WireError> {
        let trace_id = trace_id(span_ref.span)?;
        scan.visit(trace_id, span_ref, |row, span| {
            if span_passes(&mut lookup, row, span, filter, Known::Span) { each(&mut lookup, row, span) } else { ControlFlow::Continue(()) }
        })
    };
    for span_ref in spans {
        // Neighbours of one scope share it.
        let of = (span_ref.resource, span_ref.scope);
        if one_per_scope && last.replace(of).is_some_and(|last| std::ptr::eq(last.0, of.0) && std::ptr::eq(last.1, of.1)) {
            continue;
        }
        match one(span_ref) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return,
            Err(_) => last = None,
        }
    }
}
