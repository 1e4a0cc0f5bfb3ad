//! Tag names and values of live spans.
//!
//! Source: TraceQL description, "Tag names and values".

use std::borrow::Cow;
use std::ops::ControlFlow;

use vivace_core::otlp::SpanHead;
use vivace_core::wire::WireError;
use vivace_traceql::{Attribute, Intrinsic, Scope, SpanFilter, Value};

use super::filter::{Known, span_passes};
use super::lookup::Lookup;
use crate::dedicated::VPARQUET4_RESOURCE_COLUMNS;
use crate::row::{Attr, AttrValue, Layout, Resource, Row, Scalar, Span, SpanRef, SpanScan};
use crate::schema::Leaf;

/// Gives `sink` the keys of all attributes of spans that pass `filter`, each as often as it occurs, until it breaks.
///
/// `scope`: only these; none or unscoped for all. Conditions of the filter on whole traces pass.
/// Spans that are no message are skipped.
pub fn tag_names(spans: &[SpanRef<'_>], scope: Option<Scope>, filter: &SpanFilter, sink: &mut dyn FnMut(Scope, &str) -> ControlFlow<()>) {
    let wanted = |s: Scope| matches!(scope, None | Some(Scope::Unscoped)) || scope == Some(s);
    visit(&Layout::vparquet4(&[]), spans, filter, |_, row, span| {
        let (scope, resource) = row.context(span);
        let mut give = |of: Scope, mut names: &mut dyn Iterator<Item = Cow<'_, str>>| {
            if wanted(of) { Iterator::try_for_each(&mut names, |name: Cow<'_, str>| sink(of, &name)) } else { ControlFlow::Continue(()) }
        };
        fn keys<'k>(attrs: &'k [Attr<'_>]) -> impl Iterator<Item = Cow<'k, str>> {
            attrs.iter().map(|attr| String::from_utf8_lossy(attr.key))
        }
        fn columns<'k>(columns: &'k [(Leaf, &[u8])]) -> impl Iterator<Item = Cow<'k, str>> {
            columns.iter().map(|(leaf, _)| Cow::Borrowed(column_name(*leaf)))
        }
        let service = (!resource.service_name.is_empty()).then_some(Cow::Borrowed("service.name"));
        give(Scope::Resource, &mut service.into_iter())?;
        give(Scope::Resource, &mut columns(&row.resource_columns[resource.columns.clone()]))?;
        give(Scope::Resource, &mut keys(&row.resource_attrs[resource.attrs.clone()]))?;
        give(Scope::Instrumentation, &mut keys(&row.scope_attrs[scope.attrs.clone()]))?;
        give(Scope::Span, &mut columns(&row.span_columns[span.columns.clone()]))?;
        give(Scope::Span, &mut span.http_status_code.map(|_| Cow::Borrowed("http.status_code")).into_iter())?;
        give(Scope::Span, &mut keys(&row.span_attrs[span.attrs.clone()]))?;
        // A scan holds one span at a time, so all events and links are its own.
        give(Scope::Event, &mut keys(&row.event_attrs))?;
        give(Scope::Link, &mut keys(&row.link_attrs))
    });
}

/// Gives `sink` the values of an attribute or intrinsic on spans that pass `filter`, each as often as it occurs, until it
/// breaks. Arrays give their elements. An unscoped attribute is looked for on resource, span and instrumentation scope.
///
/// Intrinsics whose answer does not depend on data (status, kind) or is always empty (ids, durations) give nothing, and
/// so do the trace's own (root name and service): [`super::batch`] has these.
pub fn tag_values(spans: &[SpanRef<'_>], attribute: &Attribute, filter: &SpanFilter, sink: &mut dyn FnMut(&Value) -> ControlFlow<()>) {
    let layout = Layout::vparquet4(&[]);
    visit(&layout, spans, filter, |lookup, row, span| values(&layout, lookup, row, span, attribute, sink));
}

/// The attribute that has this column in every vParquet4 block.
fn column_name(leaf: Leaf) -> &'static str {
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
    sink: &mut dyn FnMut(&Value) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let (scope, resource) = row.context(span);
    match attribute {
        Attribute::Intrinsic(Intrinsic::EventName) => row.events.iter().try_for_each(|event| sink(&lookup.of_event(row, event, attribute))),
        Attribute::Intrinsic(Intrinsic::EventTimeSinceStart) => {
            row.events.iter().try_for_each(|event| sink(&Value::Int(event.time_since_start as i64)))
        }
        Attribute::Intrinsic(Intrinsic::Name | Intrinsic::StatusMessage | Intrinsic::ScopeName | Intrinsic::ScopeVersion) => {
            sink(&lookup.of_span(row, span, attribute))
        }
        Attribute::Intrinsic(_) => ControlFlow::Continue(()),
        Attribute::Named { scope: of, key } => {
            let key = key.as_bytes();
            let mut give = |column: Option<Scalar<'a>>, attrs: &[Attr<'a>]| {
                column.map_or(ControlFlow::Continue(()), |value| sink(&lookup.scalar(value)))?;
                for attr in attrs.iter().filter(|attr| attr.key == key) {
                    match attr.value {
                        AttrValue::Scalar(scalar) => sink(&lookup.scalar(scalar))?,
                        AttrValue::Array(array) => array.elements().try_for_each(|scalar| sink(&lookup.scalar(scalar)))?,
                        AttrValue::Unsupported(_) => {}
                    }
                }
                ControlFlow::Continue(())
            };
            let resource_attrs = match key {
                // Text always; what else a client sends under this name is no value of it.
                b"service.name" => &[],
                _ => &row.resource_attrs[resource.attrs.clone()],
            };
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
        // A resource without one has the empty text, as in blocks.
        Leaf::SERVICE_NAME => Some(Scalar::Str(resource.service_name)),
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

fn visit<'a>(
    layout: &Layout,
    spans: &[SpanRef<'a>],
    filter: &SpanFilter,
    mut each: impl FnMut(&mut Lookup<'a, '_>, &Row<'a>, &Span<'a>) -> ControlFlow<()>,
) {
    let mut scan = SpanScan::new(layout);
    let mut lookup = Lookup::new(layout);
    let mut one = |span_ref: &SpanRef<'a>| -> Result<ControlFlow<()>, WireError> {
        let trace_id = SpanHead::read(span_ref.span)?.trace();
        scan.visit(trace_id, span_ref, |row, span| {
            if span_passes(&mut lookup, row, span, filter, Known::Span) { each(&mut lookup, row, span) } else { ControlFlow::Continue(()) }
        })
    };
    for span_ref in spans {
        if let Ok(ControlFlow::Break(())) = one(span_ref) {
            return;
        }
    }
}
