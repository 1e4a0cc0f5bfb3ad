//! One pass over a request: which spans are good, and which instance each trace belongs to. What is let in here can be read by all
//! who read it later.

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_core::otlp::{Regroup, SpanContext, SpanHead, walk_spans};
use vivace_core::wire::WireError;
use vivace_core::{TenantId, Token, TraceId};
use vivace_ring::Instance;

use crate::message::{self, Message, Verdict};
use crate::truncate;

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Plan<'r> {
    /// One per owner, or several where one would be too large; empty when there is no good span.
    pub(crate) parts: Vec<Part<'r>>,
    pub(crate) survey: Survey,
}

/// The spans of one owner.
#[derive(Debug)]
pub(crate) struct Part<'r> {
    pub(crate) owner: &'r Instance,
    /// A serialised `TracesData`.
    pub(crate) payload: Bytes,
    pub(crate) spans: u32,
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
    /// Spans with valid ids that have, or whose resource or scope has, values nested too deep.
    pub(crate) too_deep: u32,
    /// Bits of the first id that is not valid.
    pub(crate) bad_bits: usize,
    /// Different traces among the valid spans.
    pub(crate) traces: usize,
    /// Attribute keys and values that were cut.
    pub(crate) truncated: u64,
}

impl Survey {
    pub(crate) fn rejected(&self) -> u32 {
        self.bad_trace_ids + self.bad_span_ids + self.too_deep
    }
}

/// Why a request cannot be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("the request is no ExportTraceServiceRequest: {0}")]
    Malformed(#[from] WireError),
    #[error("the request is no ExportTraceServiceRequest: {part} of span {ordinal} is broken: {error}")]
    Broken { part: &'static str, ordinal: u32, error: WireError },
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
pub(crate) fn is_id(bytes: &[u8], len: usize) -> bool {
    bytes.len() == len && bytes.iter().any(|byte| *byte != 0)
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
    let mut traces: FxHashSet<TraceId> = FxHashSet::default();
    let mut last_trace = None;
    let mut only: Option<&Instance> = None;
    let mut mixed = false;
    let mut failure = None;
    let mut messages = Messages::default();
    walk_spans(body, |at, span| {
        let verdict = match messages.check(&at, &span) {
            Ok(verdict) => verdict,
            Err(error) => return failure = failure.or(Some(error)),
        };
        let Some(trace) = survey.check(&span) else { return };
        if verdict == Verdict::TooDeep {
            return survey.refuse_too_deep();
        }
        if last_trace != Some(trace) {
            last_trace = Some(trace);
            traces.insert(trace);
            if !mixed {
                match (owners.of(trace), only) {
                    (Ok(owner), None) => only = Some(owner),
                    (Ok(owner), Some(first)) => mixed = !std::ptr::eq(owner, first),
                    (Err(error), _) => failure = failure.or(Some(error)),
                }
            }
        }
        if let Err(error) = rewrites.look_at(messages.ordinal, &at, &span) {
            failure = failure.or(Some(error.into()));
        }
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    survey.traces = traces.len();
    survey.truncated = rewrites.count;
    let parts = match only {
        None => Vec::new(),
        Some(owner) if !mixed && survey.rejected() == 0 && rewrites.is_empty() && body.len() <= limits.part_bytes_max => {
            vec![Part { owner, payload: body.clone(), spans: survey.spans }]
        }
        Some(_) => regroup(body, &mut owners, &messages.too_deep, &rewrites, limits.part_bytes_max)?,
    };
    Ok(Plan { parts, survey })
}

/// The second pass, for requests that do not stay as they are.
fn regroup<'r, F: Fn(Token) -> Option<&'r Instance>>(
    body: &Bytes,
    owners: &mut Owners<'_, 'r, F>,
    too_deep: &FxHashSet<u32>,
    rewrites: &Rewrites,
    part_bytes_max: usize,
) -> Result<Vec<Part<'r>>, PlanError> {
    let mut full: Vec<(&Instance, Regroup<'_>)> = Vec::new();
    let mut groups: Vec<(&Instance, Regroup<'_>)> = Vec::new();
    let mut survey = Survey::default();
    let mut failure = None;
    let mut ordinal = 0u32;
    walk_spans(body, |at, span| {
        ordinal += 1;
        let Some(trace) = survey.check(&span).filter(|_| !too_deep.contains(&ordinal)) else { return };
        let owner = match owners.of(trace) {
            Ok(owner) => owner,
            Err(error) => return failure = Some(error),
        };
        let index = groups.iter().position(|(o, _)| std::ptr::eq(*o, owner)).unwrap_or_else(|| {
            groups.push((owner, Regroup::default()));
            groups.len() - 1
        });
        let (at, bytes) = rewrites.apply(ordinal, at, span.bytes);
        let group = &mut groups[index].1;
        if group.spans() > 0 && group.len_with(at, bytes) > part_bytes_max {
            full.push((owner, std::mem::take(group)));
        }
        group.push(at, bytes);
    })?;
    full.append(&mut groups);
    match failure {
        Some(error) => Err(error),
        None => Ok(full.into_iter().map(|(owner, g)| Part { owner, spans: g.spans(), payload: g.encode().into() }).collect()),
    }
}

impl Survey {
    /// The trace of a span with valid ids; counts the others.
    ///
    /// Source: docs/facts/components.md, "Regrouping".
    fn check(&mut self, span: &SpanHead<'_>) -> Option<TraceId> {
        let (bad, id) = match (is_id(span.trace_id, 16), is_id(span.span_id, 8)) {
            (true, true) => {
                self.spans += 1;
                return Some(span.trace());
            }
            (false, _) => (&mut self.bad_trace_ids, span.trace_id),
            (true, false) => (&mut self.bad_span_ids, span.span_id),
        };
        *bad += 1;
        if self.bad_trace_ids + self.bad_span_ids == 1 {
            self.bad_bits = if id.iter().all(|byte| *byte == 0) { 0 } else { id.len() * 8 };
        }
        None
    }

    /// Takes the span back that was checked last.
    fn refuse_too_deep(&mut self) {
        self.spans -= 1;
        self.too_deep += 1;
    }
}

/// What spans are made of, looked at once: the resource and scope of neighbours are the same.
#[derive(Debug, Default)]
struct Messages {
    /// Of the span looked at last, from 1.
    ordinal: u32,
    /// Resource and scope looked at last.
    seen: Option<(u32, u32)>,
    resource: Verdict,
    scope: Verdict,
    /// Ordinals of spans that are refused.
    too_deep: FxHashSet<u32>,
}

impl Messages {
    fn check(&mut self, at: &SpanContext<'_>, span: &SpanHead<'_>) -> Result<Verdict, PlanError> {
        self.ordinal += 1;
        let ordinal = self.ordinal;
        let broken = |part| move |error| PlanError::Broken { part, ordinal, error };
        let here = (at.resource_index, at.scope_index);
        if self.seen.map(|(resource, _)| resource) != Some(here.0) {
            self.resource = message::check(Message::Resource, at.resource).map_err(broken("the resource"))?;
        }
        if self.seen != Some(here) {
            self.scope = message::check(Message::Scope, at.scope).map_err(broken("the scope"))?;
            self.seen = Some(here);
        }
        let own = message::check(Message::Span, span.bytes).map_err(broken("the message"))?;
        if [self.resource, self.scope, own].contains(&Verdict::TooDeep) {
            self.too_deep.insert(ordinal);
            return Ok(Verdict::TooDeep);
        }
        Ok(Verdict::Good)
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
