//! Tag names and values of live spans.
//!
//! Source: TraceQL description, "Tag names and values".

use std::ops::ControlFlow;

use vivace_core::otlp::SpanHead;
use vivace_core::wire::WireError;
use vivace_traceql::{Attribute, Intrinsic, Scope, SpanFilter, Value};

use super::filter::{Known, span_passes};
use super::lookup::Lookup;
use crate::row::{Attr, AttrValue, Layout, Row, Span, SpanRef, SpanScan};

/// Gives `sink` the keys of all attributes of spans that pass `filter`, each as often as it occurs, until it breaks.
///
/// `scope`: only these; none or unscoped for all. Conditions of the filter on whole traces pass.
/// Spans that are no message are skipped.
pub fn tag_names(spans: &[SpanRef<'_>], scope: Option<Scope>, filter: &SpanFilter, sink: &mut dyn FnMut(Scope, &str) -> ControlFlow<()>) {
    let wanted = |s: Scope| matches!(scope, None | Some(Scope::Unscoped)) || scope == Some(s);
    visit(spans, filter, |_, row, span| {
        let (scope, resource) = row.context(span);
        let mut keys = |of: Scope, attrs: &[Attr<'_>]| {
            if wanted(of) {
                for attr in attrs {
                    sink(of, &String::from_utf8_lossy(attr.key))?;
                }
            }
            ControlFlow::Continue(())
        };
        keys(Scope::Resource, &row.resource_attrs[resource.attrs.clone()])?;
        keys(Scope::Instrumentation, &row.scope_attrs[scope.attrs.clone()])?;
        keys(Scope::Span, &row.span_attrs[span.attrs.clone()])?;
        // A scan holds one span at a time, so all events and links are its own.
        keys(Scope::Event, &row.event_attrs)?;
        keys(Scope::Link, &row.link_attrs)
    });
}

/// Gives `sink` the values of an attribute or intrinsic on spans that pass `filter`, each as often as it occurs, until it
/// breaks. Arrays give their elements. An unscoped attribute is looked for on resource, span and instrumentation scope.
///
/// Intrinsics whose answer does not depend on data (status, kind) or is always empty (ids, durations) give nothing, and
/// so do the trace's own (root name and service): [`super::batch`] has these.
pub fn tag_values(spans: &[SpanRef<'_>], attribute: &Attribute, filter: &SpanFilter, sink: &mut dyn FnMut(&Value) -> ControlFlow<()>) {
    visit(spans, filter, |lookup, row, span| values(lookup, row, span, attribute, sink));
}

fn values<'a>(
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
            let mut give = |attrs: &[Attr<'a>]| {
                for attr in attrs.iter().filter(|attr| attr.key == key.as_bytes()) {
                    match attr.value {
                        AttrValue::Scalar(scalar) => sink(&lookup.scalar(scalar))?,
                        AttrValue::Array(array) => array.elements().try_for_each(|scalar| sink(&lookup.scalar(scalar)))?,
                        AttrValue::Unsupported(_) => {}
                    }
                }
                ControlFlow::Continue(())
            };
            let resource_attrs = &row.resource_attrs[resource.attrs.clone()];
            let scope_attrs = &row.scope_attrs[scope.attrs.clone()];
            let span_attrs = &row.span_attrs[span.attrs.clone()];
            match of {
                Scope::Resource => give(resource_attrs),
                Scope::Span => give(span_attrs),
                Scope::Instrumentation => give(scope_attrs),
                Scope::Event => give(&row.event_attrs),
                Scope::Link => give(&row.link_attrs),
                Scope::Unscoped => {
                    give(resource_attrs)?;
                    give(span_attrs)?;
                    give(scope_attrs)
                }
            }
        }
    }
}

fn visit<'a>(
    spans: &[SpanRef<'a>],
    filter: &SpanFilter,
    mut each: impl FnMut(&mut Lookup<'a, '_>, &Row<'a>, &Span<'a>) -> ControlFlow<()>,
) {
    // Without columns of their own all attributes stand in one list, in the client's order.
    let layout = Layout::default();
    let filter_layout = Layout::vparquet4(&[]);
    let is_filtered = *filter != SpanFilter::Maybe;
    let mut scan = SpanScan::new(&layout);
    let mut lookup = Lookup::new(&layout);
    let mut filter_scan = SpanScan::new(&filter_layout);
    let mut filter_lookup = Lookup::new(&filter_layout);
    let mut one = |span_ref: &SpanRef<'a>| -> Result<ControlFlow<()>, WireError> {
        let trace_id = SpanHead::read(span_ref.span)?.trace();
        if is_filtered {
            let passes =
                filter_scan.visit(trace_id, span_ref, |row, span| span_passes(&mut filter_lookup, row, span, filter, Known::Span))?;
            if !passes {
                return Ok(ControlFlow::Continue(()));
            }
        }
        scan.visit(trace_id, span_ref, |row, span| each(&mut lookup, row, span))
    };
    for span_ref in spans {
        if let Ok(ControlFlow::Break(())) = one(span_ref) {
            return;
        }
    }
}
