//! What the columns of a row say of its trace, against the trace's spans.

use std::collections::BTreeMap;
use std::sync::Arc;

use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use vivace_core::{SECOND, SpanId, TraceId};
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::{KeyValue, Resource, ResourceSpans, Span};

use super::raw::{RawFile, RawGroup};
use super::{Check, Rows, Tally, Verdict, chain, plural};
use crate::nested_set::{self, Node, Position};
use crate::{BlockMeta, BlockReader, Format, ReadAt, rfc3339};

/// Traces between two reports of progress.
const PROGRESS_TRACES: u64 = 256;

/// The columns of one row group that are derived from spans.
struct Derived {
    id_text: Vec<ByteArray>,
    start: Vec<i64>,
    end: Vec<i64>,
    duration: Vec<i64>,
    root_service: Vec<ByteArray>,
    root_name: Vec<ByteArray>,
    stat_service: Vec<ByteArray>,
    /// Services of each row.
    stats: Vec<usize>,
    stat_spans: Vec<i64>,
    stat_errors: Vec<i64>,
    left: Vec<i64>,
    right: Vec<i64>,
    parent: Vec<i64>,
    /// What vParquet5 adds.
    v5: Option<DerivedV5>,
}

struct DerivedV5 {
    child_count: Vec<i64>,
    /// Spans of each scope.
    span_count: Vec<i64>,
    /// Starts in steps of 15, 60, 300 and 3600 seconds.
    rounded: [(u64, Vec<i64>); 4],
}

impl Derived {
    fn read(group: &RawGroup<'_>, format: &Format) -> Result<Self, ParquetError> {
        let v5 = *format == Format::VParquet5;
        let stat = |v4: &str, v5_name: &str| format!("ServiceStats.{}", if v5 { v5_name } else { v4 });
        let span = |name: &str| group.ints(&format!("rs.ss.Spans.{name}"));
        let (stat_service, stats) = group.text_lists(&stat("key_value.key", "ServiceName"))?;
        let rounded = |seconds: u64| Ok::<_, ParquetError>((seconds, span(&format!("StartTimeRounded{seconds}"))?));
        let v5 = v5.then(|| {
            Ok::<_, ParquetError>(DerivedV5 {
                child_count: span("ChildCount")?,
                span_count: group.ints("rs.ss.SpanCount")?,
                rounded: [rounded(15)?, rounded(60)?, rounded(300)?, rounded(3600)?],
            })
        });
        Ok(Self {
            id_text: group.texts("TraceIDText")?,
            start: group.ints("StartTimeUnixNano")?,
            end: group.ints("EndTimeUnixNano")?,
            duration: group.ints("DurationNano")?,
            root_service: group.texts("RootServiceName")?,
            root_name: group.texts("RootSpanName")?,
            stat_service,
            stats,
            stat_spans: group.ints(&stat("key_value.value.SpanCount", "SpanCount"))?,
            stat_errors: group.ints(&stat("key_value.value.ErrorCount", "ErrorCount"))?,
            left: span("NestedSetLeft")?,
            right: span("NestedSetRight")?,
            parent: span("ParentID")?,
            v5: v5.transpose()?,
        })
    }
}

/// A span with what is needed of its surroundings.
struct Seen<'t> {
    span: &'t Span,
    resource: &'t Resource,
    service: &'t str,
}

/// Reads all rows and checks them.
pub(super) fn check(meta: &BlockMeta, reader: &BlockReader, source: &Arc<dyn ReadAt>, progress: &mut dyn FnMut(u64)) -> Rows {
    let mut rows = Rows { ids: Vec::new(), last_ids: Vec::new(), spans: 0, checks: Vec::new(), stopped: None };
    let mut checks = RowChecks::new(meta);
    if let Err(why) = checks.all(reader, source, &mut rows, progress) {
        rows.stopped = Some(format!("only {} could be read: {why}", plural(rows.ids.len() as u64, "trace")));
    }
    rows.checks = checks.finish(rows.stopped.is_some());
    rows
}

struct RowChecks<'m> {
    meta: &'m BlockMeta,
    times: Tally,
    trace_times: Tally,
    roots: Tally,
    stats: Tally,
    nested: Tally,
    others: Tally,
    /// Traces that begin before or end after what the meta says, by more than Tempo's rounding.
    outside: u64,
    /// Those within its last second.
    in_last_second: u64,
    start: u64,
    end: u64,
}

impl<'m> RowChecks<'m> {
    fn new(meta: &'m BlockMeta) -> Self {
        Self {
            meta,
            times: Tally::new("block times"),
            trace_times: Tally::new("trace times"),
            roots: Tally::new("roots"),
            stats: Tally::new("service stats"),
            nested: Tally::new("nested sets"),
            others: Tally::new("other columns"),
            outside: 0,
            in_last_second: 0,
            start: u64::MAX,
            end: 0,
        }
    }

    fn all(
        &mut self,
        reader: &BlockReader,
        source: &Arc<dyn ReadAt>,
        rows: &mut Rows,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), String> {
        let raw = RawFile::open(Arc::clone(source)).map_err(|error| chain(&error))?;
        let mut traces = reader.rows();
        for (index, group) in reader.file.footer.groups.iter().enumerate() {
            let mut of_group = Vec::with_capacity(group.rows.min(1 << 16));
            for _ in 0..group.rows {
                match traces.next() {
                    Some(trace) => of_group.push(trace.map_err(|error| chain(&error))?),
                    None => return Err(format!("row group {index} has fewer rows than the footer says")),
                }
            }
            rows.ids.extend(of_group.iter().map(|(id, _)| *id));
            rows.last_ids.extend(of_group.last().map(|(id, _)| *id));
            let in_group = |error: ParquetError| format!("row group {index}: {error}");
            let derived = raw.group(index).and_then(|group| Derived::read(&group, &self.meta.format)).map_err(in_group)?;
            let mut at = At::default();
            for (row, (id, trace)) in of_group.iter().enumerate() {
                at.row = row;
                let spans = spans(trace);
                self.row(*id, trace, &spans, &derived, &mut at);
                rows.spans += spans.len() as u64;
                let done = rows.ids.len() - of_group.len() + row + 1;
                if (done as u64).is_multiple_of(PROGRESS_TRACES) {
                    progress(done as u64);
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, id: TraceId, trace: &[ResourceSpans], spans: &[Seen<'_>], derived: &Derived, at: &mut At) {
        self.block_times(derived, at.row);
        self.trace_times(id, spans, derived, at.row);
        self.root(id, spans, derived, at.row);
        self.service_stats(id, spans, derived, at);
        self.places(id, spans, derived, at);
        self.others(id, trace, spans, derived, at);
        at.span += spans.len();
        at.scope += trace.iter().map(|resource| resource.scope_spans.len()).sum::<usize>();
    }

    fn block_times(&mut self, derived: &Derived, row: usize) {
        let (start, end) = (number(&derived.start, row), number(&derived.end, row));
        self.start = self.start.min(start);
        self.end = self.end.max(end);
        let meta = self.meta;
        let early = start < meta.start_unix_nanos;
        let late = end.saturating_sub(meta.end_unix_nanos);
        self.outside += u64::from(early || late >= SECOND);
        self.in_last_second += u64::from(!early && (1..SECOND).contains(&late));
    }

    fn trace_times(&mut self, id: TraceId, spans: &[Seen<'_>], derived: &Derived, row: usize) {
        let (start, end, duration) = (number(&derived.start, row), number(&derived.end, row), number(&derived.duration, row));
        // Ours is 0 where nothing ends after the start.
        if end.wrapping_sub(start) != duration && !(end < start && duration == 0) {
            self.trace_times.fail(format!("trace {id}: duration {duration}, but end minus start is {}", end.wrapping_sub(start)));
        }
        let starts = || spans.iter().map(|seen| seen.span.start_time_unix_nano);
        let earliest = starts().min().unwrap_or_default();
        // A start of 0 counts as unknown unless nothing else comes after it, and then hides what came before.
        let earliest_known = starts().filter(|start| *start > 0).min().unwrap_or_default();
        if start != earliest && start != earliest_known {
            let text = format!("trace {id}: starts at {start}, its first span at {earliest_known}");
            let is_hidden = earliest == 0 && starts().any(|known| known == start);
            // Combining keeps the earlier start of a copy of a span that it drops.
            if is_hidden || start < earliest_known { self.trace_times.note(text) } else { self.trace_times.fail(text) }
        }
        let latest = spans.iter().map(|seen| seen.span.end_time_unix_nano).max().unwrap_or_default();
        if end != latest {
            let text = format!("trace {id}: ends at {end}, its last span at {latest}");
            // The end of a span that ended before it started is not kept.
            let clamped = spans.iter().any(|seen| seen.span.end_time_unix_nano > end && seen.span.start_time_unix_nano >= end);
            if end > latest || clamped { self.trace_times.note(text) } else { self.trace_times.fail(text) }
        }
    }

    fn root(&mut self, id: TraceId, spans: &[Seen<'_>], derived: &Derived, row: usize) {
        let (name, service) = (text(&derived.root_name, row), text(&derived.root_service, row));
        let candidates: Vec<&Seen<'_>> = spans.iter().filter(|seen| is_root(id, seen.span)).collect();
        let fits = |seen: &Seen<'_>| seen.span.name == name && (seen.service == service || root_service_is_lost(seen.resource, &service));
        match candidates.last() {
            None if name.is_empty() && service.is_empty() => {}
            Some(last) if fits(last) => {}
            // The order of arrival is lost when spans are regrouped, and combined rows keep the root of their first part.
            Some(_) if candidates.iter().any(|seen| fits(seen)) => {
                self.roots.note(format!("trace {id}: {name:?} of {service:?} is one of {} roots, not the last", candidates.len()));
            }
            _ => {
                let known = spans.iter().any(|seen| seen.span.name == name) && spans.iter().any(|seen| seen.service == service);
                let text = match candidates.last() {
                    Some(last) => format!("trace {id}: {name:?} of {service:?}, its root is {:?} of {:?}", last.span.name, last.service),
                    None => format!("trace {id}: {name:?} of {service:?}, it has no root"),
                };
                // Name and service are combined each by itself.
                if known { self.roots.note(text) } else { self.roots.fail(text) }
            }
        }
    }

    fn service_stats(&mut self, id: TraceId, spans: &[Seen<'_>], derived: &Derived, at: &mut At) {
        let services = derived.stats.get(at.row).copied().unwrap_or_default();
        let mut stored: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut order = Vec::with_capacity(services);
        for stat in at.stat..at.stat + services {
            let service = text(&derived.stat_service, stat);
            stored.insert(service.clone(), (number(&derived.stat_spans, stat), number(&derived.stat_errors, stat)));
            order.push(service);
        }
        at.stat += services;
        let mut counted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for seen in spans {
            let (all, errors) = counted.entry(seen.service.to_owned()).or_default();
            *all += 1;
            *errors += u64::from(seen.span.status.as_ref().is_some_and(|status| status.code == 2));
        }
        if stored != counted || order.len() != stored.len() {
            self.stats.fail(format!("trace {id}: {stored:?} (spans, errors), counted {counted:?}"));
        } else if !order.is_sorted() {
            match self.meta.format {
                Format::VParquet5 => self.stats.fail(format!("trace {id}: services are not in order")),
                _ => self.stats.note(format!("trace {id}: services are not in order, as in rows that Tempo combined")),
            }
        }
    }

    fn places(&mut self, id: TraceId, spans: &[Seen<'_>], derived: &Derived, at: &At) {
        let node = |seen: &Seen<'_>| {
            let parent = &seen.span.parent_span_id;
            let parent = (!parent.is_empty()).then(|| SpanId::from_slice(parent));
            Node { id: SpanId::from_slice(&seen.span.span_id), parent, kind: i64::from(seen.span.kind) }
        };
        let nodes: Vec<Node> = spans.iter().map(node).collect();
        let has_root = nodes.iter().any(|node| node.parent.is_none());
        let signed = |values: &[i64], span: usize| values.get(at.span + span).copied().unwrap_or_default();
        for (i, want) in nested_set::number(&nodes).into_iter().enumerate() {
            let Position { left, right, parent, child_count } = want;
            let stored = [signed(&derived.left, i), signed(&derived.right, i), signed(&derived.parent, i)];
            let want = [i64::from(left), i64::from(right), i64::from(parent)];
            if stored != want {
                self.nested.fail(format!("trace {id}, span {}: left, right, parent {stored:?}, should be {want:?}", hex(spans[i].span)));
            }
            let Some(v5) = &derived.v5 else { continue };
            let stored = signed(&v5.child_count, i);
            if stored != i64::from(child_count) {
                let text = format!("trace {id}, span {}: {stored} children, should be {child_count}", hex(spans[i].span));
                // Tempo leaves there what another trace had.
                if has_root { self.nested.fail(text) } else { self.nested.note(text) }
            }
        }
    }

    fn others(&mut self, id: TraceId, trace: &[ResourceSpans], spans: &[Seen<'_>], derived: &Derived, at: &At) {
        let id_text = text(&derived.id_text, at.row);
        if id_text != id.trimmed_hex() {
            self.others.fail(format!("trace {id}: TraceIDText is {id_text:?}"));
        }
        let mut identities: Vec<_> = spans.iter().map(|seen| vivace_core::combine::identity(seen.span)).collect();
        identities.sort_unstable();
        identities.dedup();
        if identities.len() < spans.len() {
            let copies = (spans.len() - identities.len()) as u64;
            self.others.note(format!(
                "trace {id}: {} with the id and kind of another; Tempo keeps those that came together",
                plural(copies, "span")
            ));
        }
        let Some(v5) = &derived.v5 else { return };
        let scopes = trace.iter().flat_map(|resource| &resource.scope_spans);
        for (i, scope) in scopes.enumerate() {
            let said = number(&v5.span_count, at.scope + i);
            if said != scope.spans.len() as u64 {
                self.others.fail(format!("trace {id}: SpanCount {said} of a scope with {}", plural(scope.spans.len() as u64, "span")));
            }
        }
        for (seconds, values) in &v5.rounded {
            for (i, seen) in spans.iter().enumerate() {
                let start = seen.span.start_time_unix_nano;
                let want = start.saturating_sub(1) / (seconds * SECOND);
                // The format has a special value for years beyond 2500.
                if start <= 0xf000_0000_0000_0000 && number(values, at.span + i) != want {
                    self.others.fail(format!("trace {id}, span {}: StartTimeRounded{seconds} should be {want}", hex(seen.span)));
                }
            }
        }
    }

    fn finish(mut self, stopped: bool) -> Vec<Check> {
        let meta = self.meta;
        let said = format!("{} to {}", rfc3339(meta.start_unix_nanos), rfc3339(meta.end_unix_nanos));
        if self.outside > 0 {
            let found = format!("{} to {}", rfc3339(self.start), rfc3339(self.end));
            self.times.note(format!(
                "meta.json says {said}, and {} outside of that (all: {found}) may be missed by queries with a time range; \
                 Tempo does so to spans whose clock was far from its own",
                plural(self.outside, "trace")
            ));
        }
        if self.in_last_second > 0 {
            let traces = plural(self.in_last_second, "trace");
            self.times.note(format!("{traces} of the block's last second end after it; Tempo cuts endTime to whole seconds"));
        }
        let mut times = if stopped { self.times.finish_early() } else { self.times.finish(format!("{said} holds all traces")) };
        // A clock may be wrong, the clocks of most hardly.
        if self.outside * 2 > self.meta.total_objects.max(1) {
            times.verdict = Verdict::Failed;
        }
        if times.verdict != Verdict::Ok && !stopped {
            times.summary = said;
        }
        let finish = |tally: Tally, summary: &str| if stopped { tally.finish_early() } else { tally.finish(summary) };
        vec![
            times,
            finish(self.trace_times, "start, end and duration are those of the spans"),
            finish(self.roots, "name and service are the root's"),
            finish(self.stats, "spans and errors per service are as counted"),
            finish(self.nested, "every span has its place in the tree"),
            finish(self.others, "ids as text, and each span once"),
        ]
    }
}

/// Where the values of a row start in the columns of its row group.
#[derive(Default)]
struct At {
    row: usize,
    stat: usize,
    scope: usize,
    span: usize,
}

/// All spans in the order of the file.
fn spans(trace: &[ResourceSpans]) -> Vec<Seen<'_>> {
    static NO_RESOURCE: Resource = Resource { attributes: Vec::new(), dropped_attributes_count: 0 };
    let mut spans = Vec::new();
    for of_resource in trace {
        let resource = of_resource.resource.as_ref().unwrap_or(&NO_RESOURCE);
        let service = resource.attributes.iter().find_map(|attribute| string(attribute, "service.name")).unwrap_or_default();
        for scope in &of_resource.scope_spans {
            spans.extend(scope.spans.iter().map(|span| Seen { span, resource, service }));
        }
    }
    spans
}

/// The text under this key.
fn string<'a>(attribute: &'a KeyValue, key: &str) -> Option<&'a str> {
    match attribute.value.as_ref()?.value.as_ref()? {
        AnyKind::StringValue(text) if attribute.key == key => Some(text),
        _ => None,
    }
}

/// A root has no parent and does not say by a link that it is a child within its own trace.
fn is_root(id: TraceId, span: &Span) -> bool {
    let child_of = |attribute: &KeyValue| string(attribute, "opentracing.ref_type") == Some("child_of");
    span.parent_span_id.is_empty()
        && !span.links.iter().any(|link| TraceId::from_slice(&link.trace_id) == id && link.attributes.iter().any(child_of))
}

/// The root's service is the first `service.name` if that is text, the service of its column the first one that is (for Tempo the
/// last one). The latter is kept, and whatever is no text.
fn root_service_is_lost(resource: &Resource, service: &str) -> bool {
    service.is_empty()
        && resource.attributes.iter().any(|attribute| attribute.key == "service.name" && string(attribute, "service.name").is_none())
}

fn number(values: &[i64], at: usize) -> u64 {
    values.get(at).copied().unwrap_or_default().cast_unsigned()
}

fn text(values: &[ByteArray], at: usize) -> String {
    values.get(at).map_or_else(String::new, |value| String::from_utf8_lossy(value.data()).into_owned())
}

fn hex(span: &Span) -> String {
    span.span_id.iter().map(|byte| format!("{byte:02x}")).collect()
}
