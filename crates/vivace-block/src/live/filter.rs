//! Whether a trace may match a query, decided on its raw spans.

use memchr::memmem::Finder;
use rustc_hash::FxHashMap;
use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;
use vivace_core::wire::WireError;
use vivace_traceql::{Attribute, Comparison, Condition, Fetch, Intrinsic, Scope, SpanFilter, TraceFilter, Value};

use super::lookup::Lookup;
use crate::read::part_branch;
use crate::row::{Layout, Row, Span, SpanRef, SpanScan, Wanted};

/// How much of the trace is at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// All of it.
    Trace,
    /// This span alone: conditions on the trace pass.
    Span,
    /// The span's resource and scope alone: conditions on anything else pass.
    Scope,
}

/// Finds the traces that may match a query in many segments, without bringing their spans together.
///
/// The spans of a trace may lie in several segments, so conditions on different spans are joined at the end.
/// The query's time range plays no part here: it is about whole traces.
pub struct Candidates<'f> {
    fetch: &'f Fetch,
    layout: Layout,
    leaves: Vec<Leaf<'f>>,
    /// Per trace, which of the leaves some span passes.
    passed: FxHashMap<TraceId, Box<[bool]>>,
}

impl<'f> Candidates<'f> {
    /// Nothing looked at.
    #[must_use]
    pub fn new(fetch: &'f Fetch) -> Self {
        let mut leaves = Vec::new();
        collect_leaves(&fetch.filter, &mut leaves);
        let mut wanted = Wanted::least();
        wanted.add_traces(&fetch.filter);
        Self { fetch, layout: Layout::vparquet4(&[]).reading(wanted), leaves, passed: FxHashMap::default() }
    }

    /// Looks at the spans of one segment, a `TracesData` message. Spans that are no message pass nothing.
    ///
    /// Reading a span costs most, so that is done last: a payload without the words of the query is not walked over, and
    /// spans are not read whose resource, scope or bytes already say that they pass nothing.
    ///
    /// # Errors
    /// The payload is walked over and is no `TracesData` message; spans before the offending place have been looked at.
    pub fn add(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let in_payload: Vec<bool> = self.leaves.iter().map(|leaf| leaf.words.iter().all(|word| word.is_in(payload))).collect();
        if !self.leaves.is_empty() && !in_payload.contains(&true) {
            return Ok(());
        }
        let mut scan = SpanScan::new(&self.layout);
        let mut lookup = Lookup::new(&self.layout);
        // Which leaves a span of this scope may pass.
        let (mut scope_index, mut in_scope) = (u32::MAX, Vec::new());
        walk_spans(payload, |at, head| {
            let trace_id = head.trace();
            let known = self.passed.get(&trace_id);
            if known.is_some_and(|passed| passed.iter().all(|p| *p)) {
                return;
            }
            if self.leaves.is_empty() {
                self.passed.insert(trace_id, Box::default());
                return;
            }
            let span_ref = SpanRef { resource: at.resource, scope: at.scope, span: head.bytes };
            let leaves = &self.leaves;
            if scope_index != at.scope_index {
                let may_pass = scan.visit_scope(&span_ref, |row, span| {
                    let may_pass =
                        |(leaf, here): (&Leaf<'_>, &bool)| *here && span_passes(&mut lookup, row, span, leaf.filter, Known::Scope);
                    leaves.iter().zip(&in_payload).map(may_pass).collect()
                });
                // Of a resource or scope that is no message no span can be read.
                (scope_index, in_scope) = (at.scope_index, may_pass.unwrap_or_else(|_| vec![false; leaves.len()]));
            }
            if !leaves
                .iter()
                .zip(&in_scope)
                .any(|(leaf, here)| *here && leaf.words.iter().all(|word| !word.of_span || word.is_in(head.bytes)))
            {
                return;
            }
            let now = scan.visit(trace_id, &span_ref, |row, span| {
                let passes = |(leaf, here): (&Leaf<'_>, &bool)| *here && span_passes(&mut lookup, row, span, leaf.filter, Known::Span);
                leaves.iter().zip(&in_scope).map(passes).collect::<Vec<bool>>()
            });
            let Ok(now) = now else { return };
            if now.iter().any(|p| *p) {
                let passed = self.passed.entry(trace_id).or_insert_with(|| vec![false; leaves.len()].into());
                passed.iter_mut().zip(now).for_each(|(before, now)| *before |= now);
            }
        })
    }

    /// The traces that may match, alone or together with spans from elsewhere (see [`crate::part_filter`]), ascending; and
    /// whether they may match by themselves.
    #[must_use]
    pub fn finish_parts(self) -> Vec<(TraceId, bool)> {
        let filter = &self.fetch.filter;
        let part = |passed: &[bool]| part_may_match(filter, &mut passed.iter().copied());
        let alone = |passed: &[bool]| trace_may_match(filter, &mut passed.iter().copied());
        let mut ids: Vec<(TraceId, bool)> =
            self.passed.iter().filter(|(_, passed)| part(passed)).map(|(id, passed)| (*id, alone(passed))).collect();
        ids.sort_unstable();
        ids
    }

    /// The traces that may match, ascending.
    #[must_use]
    pub fn finish(self) -> Vec<TraceId> {
        let may_match = |passed: &[bool]| trace_may_match(&self.fetch.filter, &mut passed.iter().copied());
        let mut ids: Vec<TraceId> = self.passed.iter().filter(|(_, passed)| may_match(passed)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}

/// A condition on one span, and what its bytes contain if it passes.
struct Leaf<'f> {
    filter: &'f SpanFilter,
    words: Vec<Word<'f>>,
}

/// A key or a text that stands as it is in a message.
struct Word<'f> {
    text: Finder<'f>,
    /// In the span itself, not perhaps in its resource or scope.
    of_span: bool,
}

impl Word<'_> {
    fn is_in(&self, bytes: &[u8]) -> bool {
        self.text.find(bytes).is_some()
    }
}

/// The words without which a span does not pass.
fn collect_words<'f>(filter: &'f SpanFilter, words: &mut Vec<Word<'f>>) {
    let condition = match filter {
        SpanFilter::And(filters) => return filters.iter().for_each(|f| collect_words(f, words)),
        SpanFilter::Maybe | SpanFilter::Or(_) => return,
        SpanFilter::Leaf(condition) => condition,
    };
    let Condition { attribute, comparison } = condition;
    let (key, of_span) = match attribute {
        Attribute::Named { scope, key } => (Some(key), matches!(scope, Scope::Span | Scope::Event | Scope::Link)),
        Attribute::Intrinsic(Intrinsic::Name | Intrinsic::StatusMessage | Intrinsic::EventName) => (None, true),
        Attribute::Intrinsic(Intrinsic::ScopeName | Intrinsic::ScopeVersion) => (None, false),
        // Not stored as text, or the whole trace's.
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
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent,
        ) => return,
    };
    // What a span passes without having the attribute needs no word. A missing service name counts as an empty one.
    if comparison.matches(&Value::Nil) || comparison.matches(&Value::Str("".into())) {
        return;
    }
    // What is no UTF-8 is read with replacement characters, which are not in the bytes.
    let mut add = |text: &'f str| {
        if !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER) {
            words.push(Word { text: Finder::new(text.as_bytes()), of_span });
        }
    };
    key.into_iter().for_each(|key| add(key));
    if let Comparison::Equal(Value::Str(text)) = comparison {
        add(text);
    }
}

fn collect_leaves<'f>(filter: &'f TraceFilter, leaves: &mut Vec<Leaf<'f>>) {
    match filter {
        TraceFilter::All | TraceFilter::Nothing => {}
        TraceFilter::AnySpan(filter) => {
            let mut words = Vec::new();
            collect_words(filter, &mut words);
            leaves.push(Leaf { filter, words });
        }
        TraceFilter::And(filters) | TraceFilter::Or(filters) => filters.iter().for_each(|f| collect_leaves(f, leaves)),
    }
}

/// `passed` gives the leaves' answers in the order of [`collect_leaves`]; all of a branch are taken whatever its answer.
fn trace_may_match(filter: &TraceFilter, passed: &mut dyn Iterator<Item = bool>) -> bool {
    match filter {
        TraceFilter::All => true,
        TraceFilter::Nothing => false,
        TraceFilter::AnySpan(_) => passed.next().unwrap_or(false),
        TraceFilter::And(filters) => filters.iter().fold(true, |all, f| trace_may_match(f, passed) & all),
        TraceFilter::Or(filters) => filters.iter().fold(false, |any, f| trace_may_match(f, passed) | any),
    }
}

/// As [`trace_may_match`], by the branch that [`crate::part_filter`] takes where spans from elsewhere may pass the others.
fn part_may_match(filter: &TraceFilter, passed: &mut dyn Iterator<Item = bool>) -> bool {
    match filter {
        TraceFilter::And(filters) => {
            let taken = part_branch(filters);
            // All are evaluated, since each takes its leaves' answers.
            let answers: Vec<bool> = filters.iter().map(|f| part_may_match(f, passed)).collect();
            taken.is_none_or(|taken| answers[taken])
        }
        TraceFilter::Or(filters) => filters.iter().fold(false, |any, f| part_may_match(f, passed) | any),
        TraceFilter::All | TraceFilter::Nothing | TraceFilter::AnySpan(_) => trace_may_match(filter, passed),
    }
}

/// Whether a whole trace passes.
pub(super) fn row_passes<'a>(lookup: &mut Lookup<'a, '_>, row: &Row<'a>, filter: &TraceFilter) -> bool {
    match filter {
        TraceFilter::All => true,
        TraceFilter::Nothing => false,
        TraceFilter::AnySpan(leaf) => row.spans.iter().any(|span| span_passes(lookup, row, span, leaf, Known::Trace)),
        TraceFilter::And(filters) => filters.iter().all(|f| row_passes(lookup, row, f)),
        TraceFilter::Or(filters) => filters.iter().any(|f| row_passes(lookup, row, f)),
    }
}

/// Whether a span passes. Conditions on events and links hold when one of them satisfies them.
pub(super) fn span_passes<'a>(lookup: &mut Lookup<'a, '_>, row: &Row<'a>, span: &Span<'a>, filter: &SpanFilter, known: Known) -> bool {
    match filter {
        SpanFilter::Maybe => true,
        SpanFilter::Leaf(condition) => condition_holds(lookup, row, span, condition, known),
        SpanFilter::And(filters) => filters.iter().all(|f| span_passes(lookup, row, span, f, known)),
        SpanFilter::Or(filters) => filters.iter().any(|f| span_passes(lookup, row, span, f, known)),
    }
}

fn condition_holds<'a>(lookup: &mut Lookup<'a, '_>, row: &Row<'a>, span: &Span<'a>, condition: &Condition, known: Known) -> bool {
    let Condition { attribute, comparison } = condition;
    match known {
        Known::Span if attribute.is_of_trace() => return true,
        Known::Scope if !is_of_scope(attribute) => return true,
        Known::Trace | Known::Span | Known::Scope => {}
    }
    if attribute.is_of_events() {
        return row.events[span.events.clone()].iter().any(|event| comparison.matches(&lookup.of_event(row, event, attribute)));
    }
    if attribute.is_of_links() {
        return row.links[span.links.clone()].iter().any(|link| comparison.matches(&lookup.of_link(row, link, attribute)));
    }
    comparison.matches(&lookup.of_span(row, span, attribute))
}

/// Known with a span's resource and scope at hand.
pub(super) fn is_of_scope(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::Named { scope: Scope::Resource | Scope::Instrumentation, .. }
            | Attribute::Intrinsic(Intrinsic::ScopeName | Intrinsic::ScopeVersion)
    )
}
