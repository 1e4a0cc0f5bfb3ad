//! Traces whose spans lie in several places, from what each place has of them: batches of one query, joined to one.

use std::mem;

use rustc_hash::{FxHashMap, FxHashSet};
use vivace_core::{SpanId, TimeRange};
use vivace_traceql::{Attribute, Batch, ChildRows, Fetch, Intrinsic, Kind, RowParts, Scope, ServiceStat, Status, TraceFilter, Value};

use crate::nested_set::{self, Node};

/// What a query asks each place for, so that its answers can be joined.
#[derive(Debug, Clone)]
pub struct JoinedFetch {
    /// As the query asks.
    whole: Fetch,
    /// The same and what joining needs, of any part of a trace.
    of_parts: Fetch,
    kind: usize,
    parent: Option<usize>,
    /// Columns of the service's name and of the status.
    service: Option<(usize, usize)>,
}

/// A span of a part: which part, and where in its spans.
type At = (usize, usize);

impl JoinedFetch {
    /// For a query that asks for `fetch`.
    #[must_use]
    pub fn new(fetch: &Fetch) -> Self {
        let mut of_parts = Fetch { range: TimeRange::ALL, filter: TraceFilter::All, ..fetch.clone() };
        let attributes = &mut of_parts.span_attributes;
        let mut column = |attribute: Attribute| match attributes.iter().position(|a| *a == attribute) {
            Some(known) => known,
            None => {
                attributes.push(attribute);
                attributes.len() - 1
            }
        };
        let kind = column(Attribute::Intrinsic(Intrinsic::Kind));
        let RowParts { positions, child_counts, summary } = fetch.rows;
        let parent = (positions || child_counts).then(|| column(Attribute::Intrinsic(Intrinsic::ParentId)));
        let service = summary.then(|| {
            let name = Attribute::Named { scope: Scope::Resource, key: "service.name".into() };
            (column(name), column(Attribute::Intrinsic(Intrinsic::Status)))
        });
        of_parts.rows = RowParts { positions: false, child_counts: false, summary };
        Self { whole: fetch.clone(), of_parts, kind, parent, service }
    }

    /// What every place is to be asked for.
    #[must_use]
    pub fn of_parts(&self) -> &Fetch {
        &self.of_parts
    }

    /// The traces of `parts`, ascending by id, each with the spans that all parts have of it, without those that do not overlap
    /// the time of the query. Copies of a span count once: spans are the same when id and kind are equal.
    ///
    /// A trace that is in one part only keeps the order of its spans; those of others are sorted by start and id. Resources of
    /// different parts count as different.
    ///
    /// Source: docs/facts/blocks.md, "Combining rows and compaction".
    #[must_use]
    pub fn join(&self, mut parts: Vec<Batch>) -> Batch {
        let mut rows: Vec<At> =
            parts.iter().enumerate().flat_map(|(part, batch)| (0..batch.traces.len()).map(move |row| (part, row))).collect();
        rows.sort_by_key(|(part, row)| {
            let trace = &parts[*part].traces[*row];
            (trace.trace_id, trace.start_unix_nanos, trace.end_unix_nanos)
        });
        let mut joined = Batch { columns: vec![Vec::new(); self.whole.span_attributes.len()], ..Batch::default() };
        let mut order: Vec<At> = Vec::new();
        let ids: Vec<_> = rows.iter().map(|(part, row)| parts[*part].traces[*row].trace_id).collect();
        let mut next = 0;
        for same in ids.chunk_by(|a, b| a == b) {
            let of_trace = &rows[next..next + same.len()];
            next += same.len();
            self.join_trace(&mut parts, of_trace, &mut joined, &mut order);
        }
        for (column, values) in joined.columns.iter_mut().enumerate() {
            values.extend(order.iter().map(|(part, span)| mem::replace(&mut parts[*part].columns[column][*span], Value::Nil)));
        }
        joined.events = children(&mut parts, &order, self.whole.event_attributes.len(), |batch| &mut batch.events);
        joined.links = children(&mut parts, &order, self.whole.link_attributes.len(), |batch| &mut batch.links);
        joined
    }

    /// Adds one trace to `joined`, without its columns, and its spans to `order`.
    fn join_trace(&self, parts: &mut [Batch], rows: &[At], joined: &mut Batch, order: &mut Vec<At>) {
        let (first, mut spans) = (order.len(), Vec::new());
        let mut seen: FxHashSet<(SpanId, u8)> = FxHashSet::default();
        let (mut contributed, mut resources) = (0, 0);
        for (part, row) in rows {
            let batch = &mut parts[*part];
            let before = spans.len();
            let mut most = 0;
            for span in batch.traces[*row].spans.clone() {
                let of_span = &mut batch.spans[span];
                if rows.len() > 1 {
                    most = most.max(of_span.resource + 1);
                    of_span.resource += resources;
                }
                if seen.insert((of_span.id, kind_of(&batch.columns[self.kind][span]) as u8)) {
                    spans.push((*part, span));
                }
            }
            resources += most;
            contributed += usize::from(spans.len() > before);
        }
        if contributed > 1 {
            let key = |(part, span): &At| (parts[*part].spans[*span].start_unix_nanos, parts[*part].spans[*span].id);
            spans.sort_by_key(key);
        }
        let traces = || rows.iter().map(|(part, row)| &parts[*part].traces[*row]);
        let known_start = traces().map(|trace| trace.start_unix_nanos).filter(|start| *start > 0).min();
        let (start, end) = (known_start.unwrap_or(0), traces().map(|trace| trace.end_unix_nanos).max().unwrap_or(0));
        if spans.is_empty() || !self.whole.range.overlaps(start, end) {
            return;
        }
        let text = |of: fn(&vivace_traceql::TraceRow) -> &std::sync::Arc<str>| {
            traces().map(of).find(|text| !text.is_empty()).cloned().unwrap_or_default()
        };
        joined.traces.push(vivace_traceql::TraceRow {
            trace_id: parts[rows[0].0].traces[rows[0].1].trace_id,
            start_unix_nanos: start,
            end_unix_nanos: end,
            root_name: text(|trace| &trace.root_name),
            root_service: text(|trace| &trace.root_service),
            services: self.services(parts, rows, &spans),
            spans: first..first + spans.len(),
        });
        let positions = self.positions(parts, &spans);
        for (index, (part, span)) in spans.iter().enumerate() {
            let mut row = parts[*part].spans[*span];
            if let Some(position) = positions.get(index) {
                row.nested_set_left = position.left;
                row.nested_set_right = position.right;
                row.nested_set_parent = position.parent;
                row.child_count = position.child_count;
            }
            joined.spans.push(row);
        }
        order.append(&mut spans);
    }

    /// Where the spans of a trace stand in its tree. Empty when nobody asks.
    fn positions(&self, parts: &[Batch], spans: &[At]) -> Vec<nested_set::Position> {
        let Some(parent) = self.parent else { return Vec::new() };
        let node = |(part, span): &At| {
            let batch = &parts[*part];
            let parent = match &batch.columns[parent][*span] {
                Value::Str(hex) => hex.parse::<SpanId>().ok().filter(|id| *id != SpanId::default()),
                _ => None,
            };
            Node { id: batch.spans[*span].id, parent, kind: kind_of(&batch.columns[self.kind][*span]) as i64 }
        };
        nested_set::number(&spans.iter().map(node).collect::<Vec<_>>())
    }

    /// Spans and errors per service, ascending by service. Empty when nobody asks.
    fn services(&self, parts: &[Batch], rows: &[At], spans: &[At]) -> Vec<ServiceStat> {
        let Some((service, status)) = self.service else { return Vec::new() };
        if let [(part, row)] = rows {
            return parts[*part].traces[*row].services.clone();
        }
        let mut counts: FxHashMap<&str, ServiceStat> = FxHashMap::default();
        for (part, span) in spans {
            let columns = &parts[*part].columns;
            let name = match &columns[service][*span] {
                Value::Str(name) => name.clone(),
                _ => "".into(),
            };
            let key = match &columns[service][*span] {
                Value::Str(name) => &**name,
                _ => "",
            };
            let count = counts.entry(key).or_insert(ServiceStat { service: name, spans: 0, errors: 0 });
            count.spans += 1;
            count.errors += u32::from(columns[status][*span] == Value::Status(Status::Error));
        }
        let mut services: Vec<ServiceStat> = counts.into_values().collect();
        services.sort_by(|a, b| a.service.cmp(&b.service));
        services
    }
}

fn kind_of(value: &Value) -> Kind {
    match value {
        Value::Kind(kind) => *kind,
        _ => Kind::from_otlp(0),
    }
}

/// Events or links of spans, in the order of those.
fn children(parts: &mut [Batch], order: &[At], columns: usize, of: fn(&mut Batch) -> &mut ChildRows) -> ChildRows {
    if columns == 0 {
        return ChildRows::default();
    }
    let mut joined = ChildRows { offsets: vec![0], columns: vec![Vec::new(); columns] };
    for (part, span) in order {
        let rows = of(&mut parts[*part]);
        let of_span = rows.of_span(*span);
        for (to, from) in joined.columns.iter_mut().zip(&mut rows.columns) {
            to.extend(from[of_span.clone()].iter_mut().map(|value| mem::replace(value, Value::Nil)));
        }
        joined.offsets.push(u32::try_from(joined.columns[0].len()).unwrap_or(u32::MAX));
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vivace_core::TraceId;

    use super::*;
    use crate::live;
    use crate::row::SpanRef;
    use crate::testdata::{EDGE_A, traces};

    fn fetch() -> Fetch {
        let named = |scope, key: &str| Attribute::Named { scope, key: key.into() };
        Fetch {
            range: TimeRange::ALL,
            filter: TraceFilter::All,
            span_attributes: vec![
                Attribute::Intrinsic(Intrinsic::Name),
                named(Scope::Unscoped, "service.name"),
                named(Scope::Span, "http.method"),
            ],
            event_attributes: vec![Attribute::Intrinsic(Intrinsic::EventName)],
            link_attributes: vec![Attribute::Intrinsic(Intrinsic::LinkTraceId)],
            rows: RowParts::ALL,
        }
    }

    /// A span with all that it brings along, whatever the order of the spans: its parent by id.
    type Told = (SpanId, u64, u64, Option<SpanId>, bool, i32, Vec<Value>, Vec<Vec<Value>>, Vec<Vec<Value>>);

    /// A trace with all that its row says, and its spans.
    type ToldTrace = (u64, u64, String, String, Vec<ServiceStat>, Vec<Told>);

    /// What a batch says of each trace.
    fn told(batch: &Batch) -> BTreeMap<TraceId, ToldTrace> {
        let trace = |row: &vivace_traceql::TraceRow| {
            let by_left = |left: i32| batch.spans[row.spans.clone()].iter().find(|s| left > 0 && s.nested_set_left == left).map(|s| s.id);
            let rows = |rows: &ChildRows, span| rows.columns.iter().map(|column| column[rows.of_span(span)].to_vec()).collect();
            let span = |index: usize| {
                let row = &batch.spans[index];
                let values = batch.columns.iter().map(|column| column[index].clone()).collect();
                let is_root = row.nested_set_parent == -1;
                let (start, duration) = (row.start_unix_nanos, row.duration_nanos);
                let parent = by_left(row.nested_set_parent);
                (row.id, start, duration, parent, is_root, row.child_count, values, rows(&batch.events, index), rows(&batch.links, index))
            };
            let mut spans: Vec<Told> = row.spans.clone().map(span).collect();
            spans.sort_by_key(|span| (span.0, span.1, span.2));
            let (root_name, root_service) = (row.root_name.to_string(), row.root_service.to_string());
            (row.trace_id, (row.start_unix_nanos, row.end_unix_nanos, root_name, root_service, row.services.clone(), spans))
        };
        batch.traces.iter().map(trace).collect()
    }

    /// Puts each span into the places that its number names, one bit for each.
    fn placed<'a>(traces: &[(TraceId, Vec<SpanRef<'a>>)], places: &[u8]) -> Vec<Vec<(TraceId, Vec<SpanRef<'a>>)>> {
        let place = |bit: usize| {
            let mut number = 0;
            let mut of_trace = |(id, spans): &(TraceId, Vec<SpanRef<'a>>)| {
                let mut chosen = spans.clone();
                chosen.retain(|_| {
                    number += 1;
                    places[(number - 1) % places.len()] & (1 << bit) != 0
                });
                (*id, chosen)
            };
            traces.iter().map(&mut of_trace).collect()
        };
        (0..3).map(place).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_trace_is_the_same_wherever_its_spans_lie(places in prop::collection::vec(1u8..8, 1..40)) {
            let all: Vec<_> = traces(EDGE_A).into_iter().collect();
            let fetch = fetch();
            let whole = live::batch(&fetch, &all);
            let joining = JoinedFetch::new(&fetch);
            let parts = placed(&all, &places).iter().map(|part| live::batch(joining.of_parts(), part)).collect();
            let joined = joining.join(parts);
            prop_assert_eq!(joined.columns.len(), fetch.span_attributes.len());
            // A trace with several roots has another last one when its parts come in another order.
            let (mut joined, mut whole) = (told(&joined), told(&whole));
            for traces in [&mut joined, &mut whole] {
                for trace in traces.values_mut().filter(|trace| trace.5.iter().filter(|span| span.4).count() > 1) {
                    (trace.2, trace.3) = (String::new(), String::new());
                }
            }
            prop_assert_eq!(joined, whole);
        }
    }

    #[test]
    fn what_lies_outside_of_the_time_is_left_out_once_the_whole_is_known() {
        let all: Vec<_> = traces(EDGE_A).into_iter().collect();
        let whole = live::batch(&fetch(), &all);
        let trace = whole.traces.iter().find(|trace| trace.spans.len() > 1).expect("a trace of several spans");
        let during = Fetch { range: TimeRange::between(trace.end_unix_nanos, trace.end_unix_nanos), ..fetch() };
        let joining = JoinedFetch::new(&during);
        let parts: Vec<Batch> = placed(&all, &[1, 2]).iter().map(|part| live::batch(joining.of_parts(), part)).collect();
        let joined = joining.join(parts);
        let of_trace = joined.traces.iter().find(|joined| joined.trace_id == trace.trace_id).expect("its end is in the range");
        assert_eq!(of_trace.spans.len(), trace.spans.len(), "also the spans that are over before");
        assert!(joined.traces.len() < whole.traces.len());
    }

    #[test]
    fn only_what_joining_needs_is_asked_for_besides() {
        let least = Fetch { rows: RowParts::LEAST, span_attributes: Vec::new(), ..fetch() };
        assert_eq!(JoinedFetch::new(&least).of_parts().span_attributes, [Attribute::Intrinsic(Intrinsic::Kind)]);
        let tree = Fetch { rows: RowParts { positions: true, ..RowParts::LEAST }, span_attributes: Vec::new(), ..fetch() };
        assert_eq!(JoinedFetch::new(&tree).of_parts().span_attributes.len(), 2);
    }
}
