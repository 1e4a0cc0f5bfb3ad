//! Expressions made ready to run on a [`Batch`]: attributes resolved to columns, patterns compiled, chains flattened.

use std::sync::Arc;

use crate::arithmetic::{negated, not};
use crate::ast::{Arithmetic, Field, FieldOp, UnaryOp};
use crate::compare::{CompareOp, Hex, Val, compare};
use crate::error::QueryError;
use crate::{Attribute, Batch, Comparison, Intrinsic, Pattern, RowParts, TraceRow, Value, pattern};

/// The columns that a query needs, as they are collected.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) span: Vec<Attribute>,
    pub(crate) event: Vec<Attribute>,
    pub(crate) link: Vec<Attribute>,
    /// Parts of the rows.
    pub(crate) rows: RowParts,
}

impl Default for Columns {
    fn default() -> Self {
        Self { span: Vec::new(), event: Vec::new(), link: Vec::new(), rows: RowParts::LEAST }
    }
}

/// Where an attribute's value is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    Row(Intrinsic),
    Span(usize),
    Event(usize),
    Link(usize),
}

impl Columns {
    /// The place of an attribute, which gets a column if it has none.
    pub(crate) fn operand(&mut self, attribute: &Attribute) -> Operand {
        fn place(list: &mut Vec<Attribute>, attribute: &Attribute) -> usize {
            list.iter().position(|a| a == attribute).unwrap_or_else(|| {
                list.push(attribute.clone());
                list.len() - 1
            })
        }
        if let Attribute::Intrinsic(intrinsic) = attribute
            && let Some(parts) = intrinsic.row_parts()
        {
            self.rows.add(parts);
            Operand::Row(*intrinsic)
        } else if attribute.is_of_events() {
            Operand::Event(place(&mut self.event, attribute))
        } else if attribute.is_of_links() {
            Operand::Link(place(&mut self.link, attribute))
        } else {
            Operand::Span(place(&mut self.span, attribute))
        }
    }
}

/// One span, with one of its events and one of its links, or with none.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) trace: &'a TraceRow,
    pub(crate) span: usize,
    pub(crate) event: Option<usize>,
    pub(crate) link: Option<usize>,
}

impl<'a> At<'a> {
    /// The span with its first event and its first link: what stands outside of filters sees these.
    pub(crate) fn first(batch: &'a Batch, trace: &'a TraceRow, span: usize) -> Self {
        Self { batch, trace, span, event: batch.events.of_span(span).next(), link: batch.links.of_span(span).next() }
    }
}

impl Operand {
    pub(crate) fn get<'a>(self, at: &At<'a>) -> Val<'a> {
        fn column<'a>(columns: &'a [Vec<Value>], column: usize, row: Option<usize>) -> Val<'a> {
            columns.get(column).and_then(|values| values.get(row?)).map_or(Val::Nil, Val::from)
        }
        match self {
            Self::Span(i) => column(&at.batch.columns, i, Some(at.span)),
            Self::Event(i) => column(&at.batch.events.columns, i, at.event),
            Self::Link(i) => column(&at.batch.links.columns, i, at.link),
            Self::Row(intrinsic) => of_row(intrinsic, at),
        }
    }
}

fn of_row<'a>(intrinsic: Intrinsic, at: &At<'a>) -> Val<'a> {
    let nanos = |nanos: u64| Val::Duration(i64::try_from(nanos).unwrap_or(i64::MAX));
    let trace = at.trace;
    let Some(span) = at.batch.spans.get(at.span) else { return Val::Nil };
    match intrinsic {
        Intrinsic::Duration => nanos(span.duration_nanos),
        Intrinsic::SpanId => Val::Hex(Hex::padded(&span.id.0)),
        Intrinsic::ChildCount => Val::Int(span.child_count.into()),
        Intrinsic::TraceId => Val::Hex(Hex::trimmed(&trace.trace_id.0)),
        Intrinsic::TraceDuration => nanos(trace.end_unix_nanos.saturating_sub(trace.start_unix_nanos)),
        Intrinsic::RootName => Val::Str(&trace.root_name),
        Intrinsic::RootService => Val::Str(&trace.root_service),
        Intrinsic::NestedSetLeft => Val::Int(span.nested_set_left.into()),
        Intrinsic::NestedSetRight => Val::Int(span.nested_set_right.into()),
        Intrinsic::NestedSetParent => Val::Int(span.nested_set_parent.into()),
        // They stand in columns.
        Intrinsic::Name
        | Intrinsic::Status
        | Intrinsic::StatusMessage
        | Intrinsic::Kind
        | Intrinsic::ParentId
        | Intrinsic::EventName
        | Intrinsic::EventTimeSinceStart
        | Intrinsic::LinkTraceId
        | Intrinsic::LinkSpanId
        | Intrinsic::ScopeName
        | Intrinsic::ScopeVersion => Val::Nil,
    }
}

/// An expression that runs.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Constant(Value),
    Operand(Operand),
    /// A comparison with a literal, a pattern match or `!= nil`.
    Match(Box<Expr>, Comparison),
    /// `= nil`; false where the event or link is missing that it asks about.
    NotExists {
        of: Box<Expr>,
        events: bool,
        links: bool,
    },
    Compare(CompareOp, Box<(Expr, Expr)>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Arithmetic(Arithmetic, Box<(Expr, Expr)>),
}

/// How an attribute is compared with a literal.
pub(crate) enum Literal {
    /// Only values of the literal's type take part.
    Typed(Comparison),
    /// Numbers of all types take part.
    Numeric,
    /// No value can have the literal's type.
    Never,
}

/// `attribute op literal`, with ids written as they are stored.
///
/// Source: docs/facts/traceql.md, "Typed literals" and "Ids as texts".
pub(crate) fn literal(attribute: &Attribute, op: CompareOp, literal: &Value) -> Literal {
    match (attribute, literal) {
        (Attribute::Named { .. }, Value::Duration(_) | Value::Status(_) | Value::Kind(_)) => Literal::Never,
        (
            Attribute::Intrinsic(Intrinsic::ChildCount | Intrinsic::NestedSetLeft | Intrinsic::NestedSetRight | Intrinsic::NestedSetParent),
            Value::Float(_) | Value::Duration(_),
        ) => Literal::Numeric,
        (Attribute::Intrinsic(intrinsic), Value::Str(text)) if matches!(op, CompareOp::Equal | CompareOp::NotEqual) => {
            let significant = || text.trim_start_matches('0').to_ascii_lowercase();
            let text: Arc<str> = match intrinsic {
                Intrinsic::TraceId | Intrinsic::LinkTraceId => significant().into(),
                Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId if !text.is_empty() => {
                    format!("{:0>16}", significant()).into()
                }
                _ => text.clone(),
            };
            Literal::Typed(Comparison::new(op, Value::Str(text)))
        }
        _ => Literal::Typed(Comparison::new(op, literal.clone())),
    }
}

/// The attribute of a direct comparison with a literal or a pattern, and how it is compared.
pub(crate) fn direct_comparison(field: &Field) -> Option<(&Attribute, Literal)> {
    let Field::Binary { op, left, right } = field else { return None };
    let matched = |text: &str, make: fn(Arc<Pattern>) -> Comparison| match pattern::compiled(text) {
        Ok(pattern) => Literal::Typed(make(pattern)),
        Err(_) => Literal::Never,
    };
    match (op, &**left, &**right) {
        (FieldOp::Compare(op), Field::Attribute(attribute), Field::Literal(value)) => Some((attribute, literal(attribute, *op, value))),
        (FieldOp::Compare(op), Field::Literal(value), Field::Attribute(attribute)) => {
            Some((attribute, literal(attribute, op.flipped(), value)))
        }
        (FieldOp::Regex, Field::Attribute(attribute), Field::Literal(Value::Str(text))) => {
            Some((attribute, matched(text, Comparison::Regex)))
        }
        (FieldOp::NotRegex, Field::Attribute(attribute), Field::Literal(Value::Str(text))) => {
            Some((attribute, matched(text, Comparison::NotRegex)))
        }
        _ => None,
    }
}

/// What of a span's surroundings an expression looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) events: bool,
    pub(crate) links: bool,
}

impl Uses {
    pub(crate) fn of(field: &Field) -> Self {
        let mut uses = Self::default();
        each_attribute(field, &mut |attribute| {
            uses.events |= attribute.is_of_events();
            uses.links |= attribute.is_of_links();
        });
        uses
    }
}

/// Calls `visit` for every attribute of the expression, from left to right.
pub(crate) fn each_attribute(field: &Field, visit: &mut dyn FnMut(&Attribute)) {
    match field {
        Field::Literal(_) => {}
        Field::Attribute(attribute) => visit(attribute),
        Field::Unary { of, .. } | Field::Exists(of) | Field::NotExists(of) => each_attribute(of, visit),
        Field::Binary { left, right, .. } => {
            each_attribute(left, visit);
            each_attribute(right, visit);
        }
    }
}

impl Expr {
    pub(crate) fn new(field: &Field, columns: &mut Columns) -> Result<Self, QueryError> {
        Ok(match field {
            Field::Literal(value) => Self::Constant(value.clone()),
            Field::Attribute(attribute) => Self::Operand(columns.operand(attribute)),
            Field::Unary { op: UnaryOp::Minus, of } => Self::Minus(Box::new(Self::new(of, columns)?)),
            Field::Unary { op: UnaryOp::Not, of } => Self::Not(Box::new(Self::new(of, columns)?)),
            Field::Exists(of) => Self::Match(Box::new(Self::new(of, columns)?), Comparison::Exists),
            Field::NotExists(of) => {
                let Uses { events, links } = Uses::of(of);
                Self::NotExists { of: Box::new(Self::new(of, columns)?), events, links }
            }
            Field::Binary { op: op @ (FieldOp::And | FieldOp::Or), .. } => {
                let (mut items, mut rest) = (Vec::new(), vec![field]);
                while let Some(next) = rest.pop() {
                    match next {
                        Field::Binary { op: inner, left, right } if inner == op => rest.extend([&**right, &**left]),
                        item => items.push(Self::new(item, columns)?),
                    }
                }
                if *op == FieldOp::And { Self::All(items) } else { Self::Any(items) }
            }
            Field::Binary { op: op @ (FieldOp::Regex | FieldOp::NotRegex), left, right } => {
                let Field::Literal(Value::Str(text)) = &**right else {
                    return Err(QueryError::Invalid(format!("invalid type for =~ or !~: {right}")));
                };
                let pattern = pattern::compiled(text)?;
                let comparison = if *op == FieldOp::Regex { Comparison::Regex(pattern) } else { Comparison::NotRegex(pattern) };
                Self::Match(Box::new(Self::new(left, columns)?), comparison)
            }
            Field::Binary { op: FieldOp::Compare(op), left, right } => match direct_comparison(field) {
                Some((attribute, Literal::Typed(comparison))) => {
                    Self::Match(Box::new(Self::Operand(columns.operand(attribute))), comparison)
                }
                Some((_, Literal::Never)) => Self::Constant(Value::Bool(false)),
                Some((_, Literal::Numeric)) | None => Self::Compare(*op, Box::new((Self::new(left, columns)?, Self::new(right, columns)?))),
            },
            Field::Binary { op: FieldOp::Arithmetic(op), left, right } => {
                Self::Arithmetic(*op, Box::new((Self::new(left, columns)?, Self::new(right, columns)?)))
            }
        })
    }

    /// Whether the value is exactly the boolean true.
    pub(crate) fn is_true(&self, at: &At<'_>) -> bool {
        match self {
            Self::Match(of, comparison) => comparison.accepts(of.value(at)),
            Self::All(items) => items.iter().all(|item| item.is_true(at)),
            Self::Any(items) => items.iter().any(|item| item.is_true(at)),
            Self::Compare(op, sides) => compare(*op, sides.0.value(at), sides.1.value(at)),
            Self::NotExists { of, events, links } => {
                let row_is_missing = (*events && at.event.is_none()) || (*links && at.link.is_none());
                !row_is_missing && Comparison::NotExists.accepts(of.value(at))
            }
            _ => matches!(self.value(at), Val::Bool(true)),
        }
    }

    pub(crate) fn value<'a>(&'a self, at: &At<'a>) -> Val<'a> {
        match self {
            Self::Constant(value) => value.into(),
            Self::Operand(operand) => operand.get(at),
            Self::Not(of) => not(of.value(at)),
            Self::Minus(of) => negated(of.value(at)),
            Self::Arithmetic(op, sides) => op.apply(sides.0.value(at), sides.1.value(at)),
            Self::Match(..) | Self::NotExists { .. } | Self::Compare(..) | Self::All(_) | Self::Any(_) => Val::Bool(self.is_true(at)),
        }
    }
}

/// The expression of a span filter.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    expr: Expr,
    uses: Uses,
}

impl Filter {
    pub(crate) fn new(field: &Field, columns: &mut Columns) -> Result<Self, QueryError> {
        Ok(Self { expr: Expr::new(field, columns)?, uses: Uses::of(field) })
    }

    pub(crate) fn is_always_true(&self) -> bool {
        matches!(self.expr, Expr::Constant(Value::Bool(true)))
    }

    pub(crate) fn matches(&self, batch: &Batch, trace: &TraceRow, span: usize) -> bool {
        self.find(batch, trace, span).is_some()
    }

    /// The first combination of an event and a link for which the filter holds.
    ///
    /// Source: docs/facts/traceql.md, "Events and links".
    pub(crate) fn find<'a>(&self, batch: &'a Batch, trace: &'a TraceRow, span: usize) -> Option<At<'a>> {
        fn rows(rows: std::ops::Range<usize>, used: bool) -> impl Iterator<Item = Option<usize>> + Clone {
            let none = (!used || rows.is_empty()).then_some(None);
            let rows = if used { rows } else { 0..0 };
            rows.map(Some).chain(none)
        }
        if self.uses == Uses::default() {
            let at = At { batch, trace, span, event: None, link: None };
            return self.expr.is_true(&at).then_some(at);
        }
        let links = rows(batch.links.of_span(span), self.uses.links);
        rows(batch.events.of_span(span), self.uses.events)
            .flat_map(|event| links.clone().map(move |link| At { batch, trace, span, event, link }))
            .find(|at| self.expr.is_true(at))
    }
}
