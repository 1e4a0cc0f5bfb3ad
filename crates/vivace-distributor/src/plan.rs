//! One pass over a request: which spans are good, and which instance each trace belongs to. What is let in here can be read by all
//! who read it later.

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_core::otlp::{Part as WalkedPart, Regroup, SpanContext, SpanHead, walk, walk_spans};
use vivace_core::traces::{TraceSpans, Traces};
use vivace_core::wire::{WireError, offset_in};
use vivace_core::{SpanId, TenantId, Token, TraceId};
use vivace_ring::Instance;

use crate::message::{self, Findings, Message, SPAN_ID_BYTES, TRACE_ID_BYTES};
use crate::truncate;

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Plan<'r> {
    /// One per owner, or several where one would be too large; empty when there is no good span.
    pub(crate) parts: Vec<Part<'r>>,
    pub(crate) survey: Survey,
    /// Spans that are refused for what is in them, counted from 1. Those without the ids of a span are not among them.
    pub(crate) refused: FxHashSet<u32>,
}

/// The spans of one owner.
#[derive(Debug)]
pub(crate) struct Part<'r> {
    pub(crate) owner: &'r Instance,
    /// A serialised `TracesData`.
    pub(crate) payload: Bytes,
    pub(crate) spans: u32,
    /// What it holds of each trace.
    pub(crate) traces: Vec<TraceSpans>,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Spans with valid ids.
    pub(crate) spans: u32,
    /// Spans whose trace id is not 16 bytes, or all zeros.
    pub(crate) bad_trace_ids: u32,
    /// Spans whose trace id is fine and whose span id is not 8 bytes, or all zeros.
    pub(crate) bad_span_ids: u32,
    /// Spans with valid ids whose parent or one of whose links has an id of a wrong length.
    pub(crate) bad_references: u32,
    /// Spans with valid ids that have, or whose resource or scope has, values nested too deep.
    pub(crate) too_deep: u32,
    /// Bits of the first trace id that is not valid.
    pub(crate) bad_bits: usize,
    /// The first of the bad references.
    pub(crate) bad_reference: Option<BadReference>,
    /// Different traces among the valid spans.
    pub(crate) traces: usize,
    /// Attribute keys and values that were cut.
    pub(crate) truncated: u64,
}

impl Survey {
    pub(crate) fn rejected(&self) -> u32 {
        self.bad_trace_ids + self.bad_span_ids + self.bad_references + self.too_deep
    }
}

/// An id of a wrong length that a span has of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadReference {
    /// As OTLP names it, where it has one name.
    pub(crate) field: &'static str,
    pub(crate) bits: usize,
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
}

/// Why a request cannot be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("the request is no ExportTraceServiceRequest: {0}")]
    Malformed(#[from] WireError),
    #[error("the request is no ExportTraceServiceRequest: {part} {ordinal} is broken: {error}")]
    Broken { part: &'static str, ordinal: u32, error: WireError },
    /// It has to be made [`crate::normal`] first.
    #[error("the request is not in its usual form")]
    Unusual,
    #[error("no instance owns token {}", .0.0)]
    NoOwner(Token),
}

/// Spans in a request.
pub(crate) fn count_spans(body: &[u8]) -> Result<u64, WireError> {
    let mut spans = 0;
    walk_spans(body, |_, _| spans += 1)?;
    Ok(spans)
}

/// Whether these bytes may be an id of so many bytes.
fn is_id(bytes: &[u8], len: usize) -> bool {
    bytes.len() == len && bytes.iter().any(|byte| *byte != 0)
}

/// Whether a span has the ids that it must have.
pub(crate) fn has_ids(span: &SpanHead<'_>) -> bool {
    is_id(span.trace_id, TRACE_ID_BYTES) && is_id(span.span_id, SPAN_ID_BYTES)
}

/// What a request is taken apart by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlanLimits {
    /// Longest key or text of an attribute; 0 is no limit.
    pub(crate) attribute_bytes_max: usize,
    /// Largest part, bytes, unless a single span is larger.
    pub(crate) part_bytes_max: usize,
}

/// What a message has beside the spans of a part, at most, bytes.
const MESSAGE_HEAD_BYTES: usize = 64 << 10;

impl PlanLimits {
    /// For parts that go in messages of so many bytes at most.
    pub(crate) fn new(attribute_bytes_max: usize, taken_bytes_max: usize) -> Self {
        Self { attribute_bytes_max, part_bytes_max: taken_bytes_max.saturating_sub(MESSAGE_HEAD_BYTES) }
    }
}

/// Takes a request apart. Where all of it goes to one owner unchanged, the payload is the request itself.
pub(crate) fn plan<'r>(
    body: &Bytes,
    tenant: &TenantId,
    limits: PlanLimits,
    owner: impl Fn(Token) -> Option<&'r Instance>,
) -> Result<Plan<'r>, PlanError> {
    let mut owners = Owners { tenant, owner, last: None };
    let mut survey = Survey::default();
    let mut rewrites = Rewrites { max: limits.attribute_bytes_max, ..Rewrites::default() };
    let mut traces = Traces::default();
    let mut only: Option<&Instance> = None;
    let mut mixed = false;
    let mut messages = Messages::default();
    walk(body, |part| {
        let (at, span) = match part {
            WalkedPart::Unusual(around, bytes) => return messages.check_around(body, around.into(), bytes),
            WalkedPart::Resource(at) => return messages.check_resource(body, &at),
            WalkedPart::Scope(at) => return messages.check_scope(body, &at),
            WalkedPart::Span(at, span) => (at, span),
        };
        let found = messages.check_span(body, &span)?;
        let Some(trace) = survey.check(&span) else { return Ok(()) };
        if survey.refuse(&span, found) {
            messages.refused.insert(messages.ordinal);
            return Ok(());
        }
        if traces.add(trace, &span, span.bytes.len()) && !mixed {
            match (owners.of(trace)?, only) {
                (owner, None) => only = Some(owner),
                (owner, Some(first)) => mixed = !std::ptr::eq(owner, first),
            }
        }
        Ok(rewrites.look_at(messages.ordinal, &at, &span)?)
    })?;
    if messages.is_unusual {
        return Err(PlanError::Unusual);
    }
    survey.traces = traces.len();
    survey.truncated = rewrites.count;
    let parts = match only {
        None => Vec::new(),
        Some(owner) if !mixed && survey.rejected() == 0 && rewrites.is_empty() && body.len() <= limits.part_bytes_max => {
            vec![Part { owner, payload: body.clone(), spans: survey.spans, traces: traces.into_inner() }]
        }
        Some(_) => regroup(body, &mut owners, &messages.refused, &rewrites, limits.part_bytes_max)?,
    };
    Ok(Plan { parts, survey, refused: messages.refused })
}

/// The second pass, for requests that do not stay as they are.
fn regroup<'r, F: Fn(Token) -> Option<&'r Instance>>(
    body: &Bytes,
    owners: &mut Owners<'_, 'r, F>,
    refused: &FxHashSet<u32>,
    rewrites: &Rewrites,
    part_bytes_max: usize,
) -> Result<Vec<Part<'r>>, PlanError> {
    let mut full: Vec<(&Instance, Regroup<'_>, Traces)> = Vec::new();
    let mut groups: Vec<(&Instance, Regroup<'_>, Traces)> = Vec::new();
    let mut survey = Survey::default();
    let mut failure = None;
    let mut ordinal = 0u32;
    walk_spans(body, |at, span| {
        ordinal += 1;
        let Some(trace) = survey.check(&span).filter(|_| !refused.contains(&ordinal)) else { return };
        let owner = match owners.of(trace) {
            Ok(owner) => owner,
            Err(error) => return failure = Some(error),
        };
        let index = groups.iter().position(|(o, ..)| std::ptr::eq(*o, owner)).unwrap_or_else(|| {
            groups.push((owner, Regroup::default(), Traces::default()));
            groups.len() - 1
        });
        let (at, bytes) = rewrites.apply(ordinal, at, span.bytes);
        let (_, group, traces) = &mut groups[index];
        if group.spans() > 0 && group.len_with(at, bytes) > part_bytes_max {
            full.push((owner, std::mem::take(group), std::mem::take(traces)));
        }
        group.push(at, bytes);
        traces.add(trace, &span, bytes.len());
    })?;
    full.append(&mut groups);
    match failure {
        Some(error) => Err(error),
        None => Ok(full.into_iter().map(|(owner, group, traces)| part(owner, &group, traces)).collect()),
    }
}

fn part<'r>(owner: &'r Instance, group: &Regroup<'_>, traces: Traces) -> Part<'r> {
    Part { owner, spans: group.spans(), payload: group.encode().into(), traces: traces.into_inner() }
}

impl Survey {
    /// The trace of a span with valid ids; counts the others.
    ///
    /// Source: docs/facts/components.md, "Regrouping".
    fn check(&mut self, span: &SpanHead<'_>) -> Option<TraceId> {
        match (is_id(span.trace_id, TRACE_ID_BYTES), is_id(span.span_id, SPAN_ID_BYTES)) {
            (true, true) => {
                self.spans += 1;
                return Some(span.trace());
            }
            (false, _) => {
                if self.bad_trace_ids == 0 {
                    self.bad_bits = span.trace_id.len() * 8;
                }
                self.bad_trace_ids += 1;
            }
            (true, false) => self.bad_span_ids += 1,
        }
        None
    }

    /// Takes the span back that was checked last, if it cannot be kept for what is in it.
    fn refuse(&mut self, span: &SpanHead<'_>, found: Findings) -> bool {
        let parent = span.parent_span_id.len();
        let reference = match found.bad_link {
            _ if parent != 0 && parent != SPAN_ID_BYTES => Some(("parent_span_id", parent)),
            Some(bytes) => Some(("an id of a link", bytes)),
            None => None,
        };
        let Some(count) = (match reference {
            Some(_) => Some(&mut self.bad_references),
            None => found.too_deep.then_some(&mut self.too_deep),
        }) else {
            return false;
        };
        *count += 1;
        self.spans -= 1;
        if let Some((field, bytes)) = reference {
            self.bad_reference.get_or_insert(BadReference { field, bits: bytes * 8, trace: span.trace(), span: span.span() });
        }
        true
    }
}

/// What spans are made of, looked at once.
#[derive(Debug, Default)]
struct Messages {
    /// Of the resource, scope and span looked at last, from 1.
    resource_ordinal: u32,
    scope_ordinal: u32,
    ordinal: u32,
    /// What is in the resource and the scope.
    resource: Findings,
    scope: Findings,
    is_unusual: bool,
    /// Ordinals of spans that are refused for what is in them.
    refused: FxHashSet<u32>,
}

impl Messages {
    fn check_around(&mut self, body: &[u8], message: Message, bytes: &[u8]) -> Result<(), PlanError> {
        let is_unusual = message::check_around(message, bytes).map_err(|error| error.after(offset_in(body, bytes)))?;
        self.is_unusual |= is_unusual;
        Ok(())
    }

    fn check_resource(&mut self, body: &[u8], at: &SpanContext<'_>) -> Result<(), PlanError> {
        self.resource_ordinal += 1;
        self.resource = self.check(body, Message::Resource, at.resource, "the resource of ResourceSpans", self.resource_ordinal)?;
        Ok(())
    }

    fn check_scope(&mut self, body: &[u8], at: &SpanContext<'_>) -> Result<(), PlanError> {
        self.scope_ordinal += 1;
        self.scope = self.check(body, Message::Scope, at.scope, "the scope of ScopeSpans", self.scope_ordinal)?;
        Ok(())
    }

    /// What is in the span, its scope or its resource.
    fn check_span(&mut self, body: &[u8], span: &SpanHead<'_>) -> Result<Findings, PlanError> {
        self.ordinal += 1;
        let own = self.check(body, Message::Span, span.bytes, "the message of span", self.ordinal)?;
        Ok(own.and(self.resource).and(self.scope))
    }

    #[inline]
    fn check(&mut self, body: &[u8], message: Message, bytes: &[u8], part: &'static str, ordinal: u32) -> Result<Findings, PlanError> {
        let broken = |error: WireError| PlanError::Broken { part, ordinal, error: error.after(offset_in(body, bytes)) };
        let found = message::check(message, bytes).map_err(broken)?;
        self.is_unusual |= found.unusual;
        Ok(found)
    }
}

/// Looks owners up; spans of one trace mostly stand together.
struct Owners<'t, 'r, F> {
    tenant: &'t TenantId,
    owner: F,
    last: Option<(TraceId, &'r Instance)>,
}

impl<'r, F: Fn(Token) -> Option<&'r Instance>> Owners<'_, 'r, F> {
    fn of(&mut self, trace: TraceId) -> Result<&'r Instance, PlanError> {
        if let Some((last, owner)) = self.last
            && last == trace
        {
            return Ok(owner);
        }
        let token = trace.token(self.tenant);
        let owner = (self.owner)(token).ok_or(PlanError::NoOwner(token))?;
        self.last = Some((trace, owner));
        Ok(owner)
    }
}

/// Messages that had to be changed. Empty for nearly every request.
#[derive(Debug, Default)]
struct Rewrites {
    max: usize,
    count: u64,
    spans: FxHashMap<u32, Vec<u8>>,
    resources: FxHashMap<u32, Vec<u8>>,
    scopes: FxHashMap<u32, Vec<u8>>,
    /// Resource and scope looked at last.
    seen: Option<(u32, u32)>,
}

impl Rewrites {
    fn look_at(&mut self, ordinal: u32, at: &SpanContext<'_>, span: &SpanHead<'_>) -> Result<(), WireError> {
        if self.max == 0 {
            return Ok(());
        }
        let (max, here) = (self.max, (at.resource_index, at.scope_index));
        let mut keep = |map: &mut FxHashMap<u32, Vec<u8>>, key, rewritten: Option<(Vec<u8>, u64)>| {
            if let Some((bytes, count)) = rewritten {
                self.count += count;
                map.insert(key, bytes);
            }
        };
        if self.seen.map(|(resource, _)| resource) != Some(here.0) {
            keep(&mut self.resources, here.0, truncate::cut(Message::Resource, at.resource, max)?);
        }
        if self.seen != Some(here) {
            keep(&mut self.scopes, here.1, truncate::cut(Message::Scope, at.scope, max)?);
            self.seen = Some(here);
        }
        keep(&mut self.spans, ordinal, truncate::cut(Message::Span, span.bytes, max)?);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn apply<'a>(&'a self, ordinal: u32, mut at: SpanContext<'a>, span: &'a [u8]) -> (SpanContext<'a>, &'a [u8]) {
        if self.is_empty() {
            return (at, span);
        }
        at.resource = self.resources.get(&at.resource_index).map_or(at.resource, Vec::as_slice);
        at.scope = self.scopes.get(&at.scope_index).map_or(at.scope, Vec::as_slice);
        (at, self.spans.get(&ordinal).map_or(span, Vec::as_slice))
    }
}
