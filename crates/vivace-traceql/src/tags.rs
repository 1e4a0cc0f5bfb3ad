//! Tag names and values: the filter `q`, and what is answered without data.
//!
//! Source: docs/facts/traceql.md, "Tag names and values".

use vivace_core::TimeRange;

use crate::ast::{Field, FieldOp, Spansets, Stage};
use crate::compare::CompareOp;
use crate::error::QueryError;
use crate::expr::{Columns, Filter, each_attribute};
use crate::lexer::{self, Spanned, Token};
use crate::need::{self, Need};
use crate::types::Type;
use crate::{Attribute, Batch, Fetch, Kind, MAX_NESTING, RowParts, SpanFilter, Status, TraceFilter, TraceRow, Value, parse};

/// Ways to satisfy the `||`s of a tag filter above which they are not looked at one by one: then no value is pinned, and a filter that
/// mentions the requested tag passes everything.
pub const MAX_TAG_FILTER_GROUPS: usize = 100;

/// A value as tag value requests return it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagValue {
    /// `string`, `int`, `float`, `bool`, `duration` or `keyword`.
    pub kind: &'static str,
    /// The value's text.
    pub value: String,
}

impl TagValue {
    /// The values that an attribute's value contributes: an array's elements, none of nil and opaque ones.
    #[must_use]
    pub fn of(value: &Value) -> Vec<Self> {
        fn tag(kind: &'static str, value: impl ToString) -> TagValue {
            TagValue { kind, value: value.to_string() }
        }
        match value {
            Value::Nil | Value::Opaque => Vec::new(),
            Value::Int(v) => vec![tag("int", v)],
            Value::Float(v) => vec![tag("float", format_args!("{v:?}"))],
            Value::Bool(v) => vec![tag("bool", v)],
            Value::Str(v) => vec![tag("string", v)],
            Value::Duration(v) => vec![tag("duration", crate::duration::text(*v))],
            Value::Status(v) => vec![tag("keyword", v.text())],
            Value::Kind(v) => vec![tag("keyword", v.text())],
            Value::IntArray(v) => v.iter().map(|v| tag("int", v)).collect(),
            Value::FloatArray(v) => v.iter().map(|v| tag("float", format_args!("{v:?}"))).collect(),
            Value::StrArray(v) => v.iter().map(|v| tag("string", v)).collect(),
            Value::BoolArray(v) => v.iter().map(|v| tag("bool", v)).collect(),
        }
    }
}

/// The values of intrinsics that are answered without data: keywords, or nothing at all where listing values makes no sense.
#[must_use]
pub fn fixed_tag_values(attribute: &Attribute) -> Option<Vec<TagValue>> {
    let Attribute::Intrinsic(intrinsic) = attribute else { return None };
    match intrinsic.value_type() {
        Type::Status => Some([Status::Ok, Status::Error, Status::Unset].map(Value::Status).iter().flat_map(TagValue::of).collect()),
        Type::Kind => {
            let kinds = [Kind::Client, Kind::Server, Kind::Producer, Kind::Consumer, Kind::Internal, Kind::Unspecified];
            Some(kinds.map(Value::Kind).iter().flat_map(TagValue::of).collect())
        }
        Type::Unknown | Type::Int | Type::Float | Type::Duration | Type::String | Type::Bool => {
            (!intrinsic.has_tag_values()).then(Vec::new)
        }
    }
}

/// Which spans' tags count: the filter `q` of tag requests.
#[derive(Debug, Clone)]
pub struct TagFilter {
    /// None: all spans pass. Else those that satisfy one of the groups.
    groups: Option<Vec<Filter>>,
    pinned: Vec<Value>,
    fetch: Fetch,
}

impl TagFilter {
    /// Reads `q`, forgivingly: of the query only one plain filter `{…}` at its start counts; comparisons that are still
    /// being typed are ignored; what cannot be read filters nothing. For a request of values, conditions on the requested
    /// tag do not restrict them, and values that `q` pins it to are answered as they are.
    ///
    /// The range is that of [`Fetch`].
    ///
    /// # Errors
    /// [`QueryError::Busy`]: there is no room for its regular expressions just now.
    pub fn parse(q: &str, requested: Option<&Attribute>, range: TimeRange) -> Result<Self, QueryError> {
        let fetch = Fetch {
            range,
            filter: TraceFilter::All,
            span_attributes: Vec::new(),
            event_attributes: Vec::new(),
            link_attributes: Vec::new(),
            rows: RowParts::ALL,
        };
        let mut filter = Self { groups: None, pinned: Vec::new(), fetch };
        let Some(field) = first_filter(q) else { return Ok(filter) };
        let mut columns = Columns::default();
        let mut groups = Vec::new();
        let mut needs = Vec::new();
        let ways = match groups_of(&field) {
            Some(groups) => groups,
            None if mentions(&field, requested) => return Ok(filter),
            None => vec![vec![&field]],
        };
        for group in ways {
            match pinned_value(&group, requested) {
                Some(value) if filter.pinned.contains(value) => continue,
                Some(value) => {
                    filter.pinned.push(value.clone());
                    continue;
                }
                None => {}
            }
            let Some(joined) = group
                .into_iter()
                .filter(|condition| !mentions(condition, requested))
                .cloned()
                .reduce(|left, right| Field::Binary { op: FieldOp::And, left: Box::new(left), right: Box::new(right) })
            else {
                // Nothing is asked of the spans of this group.
                return Ok(filter);
            };
            needs.push(need::of_field(&joined));
            groups.push(Filter::new(&joined, &mut columns)?);
        }
        filter.fetch.filter = match need::any_need(needs) {
            Need::Never => TraceFilter::Nothing,
            Need::Unknown => TraceFilter::All,
            Need::Span(span) => TraceFilter::AnySpan(span),
        };
        filter.fetch.span_attributes = columns.span;
        filter.fetch.event_attributes = columns.event;
        filter.fetch.link_attributes = columns.link;
        filter.groups = Some(groups);
        Ok(filter)
    }

    /// Whether every span passes, so that names and values can be listed without looking at spans.
    #[must_use]
    pub fn passes_everything(&self) -> bool {
        self.groups.is_none()
    }

    /// Whether no span passes: [`TagFilter::pinned`] is all there is to answer.
    #[must_use]
    pub fn passes_nothing(&self) -> bool {
        self.groups.as_ref().is_some_and(Vec::is_empty)
    }

    /// Values of the requested tag that the filter itself names; they are part of the answer even if nothing has them.
    #[must_use]
    pub fn pinned(&self) -> &[Value] {
        &self.pinned
    }

    /// What a batch must hold for [`TagFilter::matches`].
    #[must_use]
    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// The filter as far as it is made of conditions on single attributes; exact for comparisons joined by `&&` and `||`.
    #[must_use]
    pub fn span_filter(&self) -> &SpanFilter {
        match &self.fetch.filter {
            TraceFilter::AnySpan(filter) => filter,
            _ => &SpanFilter::Maybe,
        }
    }

    /// Whether the tags of a span count; `span` is its index in the batch.
    #[must_use]
    pub fn matches(&self, batch: &Batch, trace: &TraceRow, span: usize) -> bool {
        match &self.groups {
            None => true,
            Some(groups) => groups.iter().any(|group| group.matches(batch, trace, span)),
        }
    }
}

/// The expression of the plain filter at the start of the query, without the conditions that are still being typed.
fn first_filter(q: &str) -> Option<Field> {
    match parse(q) {
        Ok(query) => match query.pipeline()?.stages.first()? {
            Stage::Spansets(Spansets::Filter(field)) => without_bare(field),
            _ => None,
        },
        // Nobody types so much by hand, and every prefix of it would be looked at again.
        Err(QueryError::TooLong { .. }) => None,
        Err(_) => Typing { q, tokens: lexer::tokens_as_far_as_they_go(q), at: 0 }.filter(),
    }
}

/// The expression without attributes that are compared with nothing: whoever has typed a name goes on with an operator.
fn without_bare(field: &Field) -> Option<Field> {
    match field {
        Field::Attribute(_) => None,
        Field::Binary { op: op @ (FieldOp::And | FieldOp::Or), left, right } => joined(*op, without_bare(left), without_bare(right)),
        whole => Some(whole.clone()),
    }
}

/// What is left of two conditions, either of which may have been left out: then it holds.
fn joined(op: FieldOp, left: Option<Field>, right: Option<Field>) -> Option<Field> {
    match (left, right) {
        (Some(left), Some(right)) => Some(Field::Binary { op, left: Box::new(left), right: Box::new(right) }),
        (one, other) if op == FieldOp::And => one.or(other),
        _ => None,
    }
}

/// A query that cannot be read as a whole.
struct Typing<'a> {
    q: &'a str,
    /// Up to what is no token, such as a text without its closing quote.
    tokens: Vec<Spanned>,
    at: usize,
}

impl Typing<'_> {
    fn is(&self, at: usize, symbols: &[&str]) -> bool {
        matches!(&self.tokens[at].token, Token::Symbol(symbol) if symbols.contains(symbol))
    }

    fn is_end(&self, at: usize) -> bool {
        self.tokens[at].token == Token::End
    }

    fn filter(mut self) -> Option<Field> {
        if !self.is(0, &["{"]) {
            return None;
        }
        self.at = 1;
        let field = self.conditions(0);
        // What is combined with other spansets is no plain filter.
        let is_plain = self.is_end(self.at) || (self.is(self.at, &["}"]) && (self.is_end(self.at + 1) || self.is(self.at + 1, &["|"])));
        field.filter(|_| is_plain)
    }

    /// Conditions up to what closes them. None: all of them are left out, or one that would do is.
    fn conditions(&mut self, depth: usize) -> Option<Field> {
        let mut all = self.condition(depth);
        loop {
            let op = match self.tokens[self.at].token {
                Token::Symbol("&&") => FieldOp::And,
                Token::Symbol("||") => FieldOp::Or,
                _ => return all,
            };
            self.at += 1;
            let next = self.condition(depth);
            all = joined(op, all, next);
        }
    }

    /// One condition, if it is whole.
    fn condition(&mut self, depth: usize) -> Option<Field> {
        let (start, mut end, mut open) = (self.at, self.at, 0usize);
        while !self.is_end(end) && !self.is(end, &["{", "}"]) && (open > 0 || !self.is(end, &["&&", "||", ")"])) {
            open = (open + usize::from(self.is(end, &["("]))) - usize::from(self.is(end, &[")"]));
            end += 1;
        }
        self.at = end;
        if start == end {
            return None;
        }
        let text = &self.q[self.tokens[start].start..self.tokens[end - 1].end];
        if open == 0
            && let Ok(query) = parse(&format!("{{ {text} }}"))
            && let Some(Stage::Spansets(Spansets::Filter(field))) = query.pipeline().and_then(|pipeline| pipeline.stages.first())
        {
            return without_bare(field);
        }
        if !self.is(start, &["("]) || depth == MAX_NESTING {
            return None;
        }
        self.at = start + 1;
        let inner = self.conditions(depth + 1);
        let closed = self.at + usize::from(self.is(self.at, &[")"]));
        // `(…) = ` is half a condition, whatever stands in its parentheses.
        let is_all_of_it = closed == end;
        self.at = end;
        inner.filter(|_| is_all_of_it)
    }
}

/// The conditions of every way to satisfy the expression; none above [`MAX_TAG_FILTER_GROUPS`] ways.
fn groups_of(field: &Field) -> Option<Vec<Vec<&Field>>> {
    let groups = match field {
        Field::Literal(Value::Bool(true)) => vec![Vec::new()],
        Field::Literal(_) => Vec::new(),
        Field::Binary { op: FieldOp::Or, left, right } => {
            let mut groups = groups_of(left)?;
            groups.extend(groups_of(right)?);
            groups
        }
        Field::Binary { op: FieldOp::And, left, right } => {
            let (left, right) = (groups_of(left)?, groups_of(right)?);
            if left.len() * right.len() > MAX_TAG_FILTER_GROUPS {
                return None;
            }
            left.iter().flat_map(|a| right.iter().map(move |b| a.iter().chain(b).copied().collect())).collect()
        }
        condition => vec![vec![condition]],
    };
    Some(groups).filter(|groups| groups.len() <= MAX_TAG_FILTER_GROUPS)
}

/// The literal that a group's `requested = literal` names.
fn pinned_value<'a>(group: &[&'a Field], requested: Option<&Attribute>) -> Option<&'a Value> {
    let requested = requested?;
    group.iter().find_map(|condition| match condition {
        Field::Binary { op: FieldOp::Compare(CompareOp::Equal), left, right } => match (&**left, &**right) {
            (Field::Attribute(attribute), Field::Literal(value)) | (Field::Literal(value), Field::Attribute(attribute))
                if attribute == requested =>
            {
                Some(value)
            }
            _ => None,
        },
        _ => None,
    })
}

fn mentions(condition: &Field, requested: Option<&Attribute>) -> bool {
    let mut found = false;
    each_attribute(condition, &mut |attribute| found |= Some(attribute) == requested);
    found
}
