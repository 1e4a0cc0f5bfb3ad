//! Live spans, answered as a block with the same spans would answer.

mod every;
mod filter;
mod lookup;
mod series;
mod tags;
mod trace;
mod wanted;

use vivace_core::{SpanId, TraceId};
use vivace_traceql::{Batch, Fetch, ServiceStat, SpanAttributes, SpanRow, TraceRow, Value};

pub use filter::Candidates;
pub use series::observe;
pub use tags::{tag_names, tag_values};
pub use trace::trace;

use crate::row::{Layout, ResourceCache, Row, SpanRef, Wanted};
use every::Every;
use lookup::Lookup;

/// The traces that overlap the query's time range and pass its filter, with what the query asks for.
///
/// Each trace comes with all its spans in the order of their arrival; copies of a span count once.
/// Spans that are no message are left out, as they are from blocks.
#[must_use]
pub fn batch(fetch: &Fetch, traces: &[(TraceId, Vec<SpanRef<'_>>)]) -> Batch {
    fill(fetch, traces, None)
}

/// The same, and all attributes of these spans, whatever their names.
fn batch_with_attributes(fetch: &Fetch, traces: &[(TraceId, Vec<SpanRef<'_>>)]) -> (Batch, SpanAttributes) {
    let mut every = Every::default();
    let batch = fill(fetch, traces, Some(&mut every));
    (batch, every.finish())
}

fn fill<'a>(fetch: &Fetch, traces: &[(TraceId, Vec<SpanRef<'a>>)], mut every: Option<&mut Every<'a>>) -> Batch {
    let mut wanted = Wanted::of_fetch(fetch);
    if every.is_some() {
        wanted.span_keys = None;
    }
    let layout = Layout::vparquet4(&[]).reading(wanted);
    let mut cache = ResourceCache::default();
    let mut lookup = Lookup::new(&layout);
    let mut batch = Batch { columns: vec![Vec::new(); fetch.span_attributes.len()], ..Batch::default() };
    let mut events = Children::new(fetch.event_attributes.len());
    let mut links = Children::new(fetch.link_attributes.len());
    for (id, spans) in traces {
        let row = Row::build(&layout, &mut cache, *id, spans);
        if row.spans.is_empty() || !is_in_time(&row, fetch) || !filter::row_passes(&mut lookup, &row, &fetch.filter) {
            continue;
        }
        batch.traces.push(trace_row(&mut lookup, &row, batch.spans.len()));
        for span in &row.spans {
            batch.spans.push(SpanRow {
                id: SpanId::from_slice(span.id),
                start_unix_nanos: span.start,
                duration_nanos: span.duration,
                nested_set_left: span.position.left,
                nested_set_right: span.position.right,
                nested_set_parent: span.position.parent,
                child_count: span.position.child_count,
                resource: row.resource_index(span) as u32,
            });
            for (attribute, column) in fetch.span_attributes.iter().zip(&mut batch.columns) {
                column.push(lookup.of_span(&row, span, attribute));
            }
            if let Some(every) = &mut every {
                every.push(&mut lookup, &row, span);
            }
            events.push(row.events[span.events.clone()].iter(), |event, i| lookup.of_event(&row, event, &fetch.event_attributes[i]));
            links.push(row.links[span.links.clone()].iter(), |link, i| lookup.of_link(&row, link, &fetch.link_attributes[i]));
        }
    }
    batch.events = events.finish();
    batch.links = links.finish();
    batch
}

fn is_in_time(row: &Row<'_>, fetch: &Fetch) -> bool {
    fetch.range.overlaps(row.start, row.end)
}

fn trace_row<'a>(lookup: &mut Lookup<'a, '_>, row: &Row<'a>, first_span: usize) -> TraceRow {
    let mut stat = |count: &crate::row::ServiceCount<'a>| ServiceStat {
        service: lookup.text(count.service),
        spans: count.spans,
        errors: count.errors,
    };
    TraceRow {
        trace_id: row.trace_id,
        start_unix_nanos: row.start,
        end_unix_nanos: row.end,
        services: row.stats.iter().map(&mut stat).collect(),
        root_name: lookup.text(row.root_name),
        root_service: lookup.text(row.root_service),
        spans: first_span..first_span + row.spans.len(),
    }
}

/// Fills [`vivace_traceql::ChildRows`].
struct Children {
    offsets: Vec<u32>,
    columns: Vec<Vec<Value>>,
    rows: u32,
}

impl Children {
    fn new(columns: usize) -> Self {
        Self { offsets: if columns > 0 { vec![0] } else { Vec::new() }, columns: vec![Vec::new(); columns], rows: 0 }
    }

    /// Adds the rows of the next span. Does nothing when no column was asked for.
    fn push<T>(&mut self, children: impl Iterator<Item = T>, mut value: impl FnMut(&T, usize) -> Value) {
        if self.columns.is_empty() {
            return;
        }
        for child in children {
            for (i, column) in self.columns.iter_mut().enumerate() {
                column.push(value(&child, i));
            }
            self.rows += 1;
        }
        self.offsets.push(self.rows);
    }

    fn finish(self) -> vivace_traceql::ChildRows {
        vivace_traceql::ChildRows { offsets: self.offsets, columns: self.columns }
    }
}

#[cfg(test)]
mod tests;
