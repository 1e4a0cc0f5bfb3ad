//! The canonical text of a query.
//!
//! Source: docs/facts/traceql.md, "Canonical text".

use std::fmt::{Display, Formatter, Result};

use crate::Value;
use crate::ast::{
    Aggregate, Field, FieldOp, FirstStage, LaterStage, Metrics, Mode, OverTime, Pipeline, Query, Relation, Root, Scalar, ScalarFilter,
    SpansetOp, Spansets, Stage, UnaryOp,
};

fn list<T: Display>(f: &mut Formatter<'_>, items: impl IntoIterator<Item = T>, separator: &str) -> Result {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.root {
            Root::Pipeline(pipeline) => write!(f, "{pipeline}")?,
            Root::Metrics(metrics) => write!(f, "{metrics}")?,
        }
        if self.hints.is_empty() {
            return Ok(());
        }
        f.write_str(" with(")?;
        list(f, self.hints.iter().map(|(name, value)| format!("{name}={value}")), ", ")?;
        f.write_str(")")
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        list(f, &self.stages, "|")
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Spansets(spansets) => write!(f, "{spansets}"),
            Self::Group(field) => write!(f, "by({field})"),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Select(attributes) => {
                f.write_str("select(")?;
                list(f, attributes, ", ")?;
                f.write_str(")")
            }
            Self::ScalarFilter(filter) => write!(f, "{filter}"),
        }
    }
}

impl Display for Spansets {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        // A pipeline in parentheses combines only with operands in parentheses.
        self.write(f, self.has_pipeline())
    }
}

impl Spansets {
    fn has_pipeline(&self) -> bool {
        match self {
            Self::Filter(_) => false,
            Self::Pipeline(_) => true,
            Self::Binary { left, right, .. } => left.has_pipeline() || right.has_pipeline(),
        }
    }

    fn write(&self, f: &mut Formatter<'_>, wrap: bool) -> Result {
        match self {
            Self::Filter(field) => write!(f, "{{ {field} }}"),
            Self::Pipeline(pipeline) => write!(f, "({pipeline})"),
            Self::Binary { op, left, right } => {
                left.write_operand(f, wrap)?;
                write!(f, " {op} ")?;
                right.write_operand(f, wrap)
            }
        }
    }

    fn write_operand(&self, f: &mut Formatter<'_>, wrap: bool) -> Result {
        let parentheses = match self {
            Self::Filter(_) => wrap,
            Self::Pipeline(_) => false,
            Self::Binary { .. } => true,
        };
        if !parentheses {
            return self.write(f, wrap);
        }
        f.write_str("(")?;
        self.write(f, wrap)?;
        f.write_str(")")
    }
}

impl Display for SpansetOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self::Structural { relation, mode } = self else {
            return f.write_str(if *self == Self::And { "&&" } else { "||" });
        };
        f.write_str(match mode {
            Mode::Plain => "",
            Mode::Negated => "!",
            Mode::Union => "&",
        })?;
        f.write_str(match relation {
            Relation::Child => ">",
            Relation::Parent => "<",
            Relation::Descendant => ">>",
            Relation::Ancestor => "<<",
            Relation::Sibling => "~",
        })
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Literal(value) => write!(f, "{value}"),
            Self::Attribute(attribute) => write!(f, "{attribute}"),
            Self::Unary { op, of } => {
                f.write_str(if *op == UnaryOp::Minus { "-" } else { "!" })?;
                of.write_operand(f)
            }
            Self::Binary { op, left, right } => {
                left.write_operand(f)?;
                write!(f, " {op} ")?;
                right.write_operand(f)
            }
            Self::Exists(of) => {
                of.write_operand(f)?;
                f.write_str(" != nil")
            }
            Self::NotExists(of) => {
                of.write_operand(f)?;
                f.write_str(" = nil")
            }
        }
    }
}

impl Field {
    fn write_operand(&self, f: &mut Formatter<'_>) -> Result {
        let leaf = match self {
            // A minus sign is an operator: `-1 ^ .a` would read as `-(1 ^ .a)`.
            Self::Literal(Value::Int(v)) => *v >= 0 || *v == i64::MIN,
            Self::Literal(Value::Float(v)) => !v.is_sign_negative(),
            Self::Literal(Value::Duration(v)) => *v >= 0,
            Self::Literal(_) | Self::Attribute(_) => true,
            _ => false,
        };
        if leaf { write!(f, "{self}") } else { write!(f, "({self})") }
    }
}

impl Display for FieldOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::And => "&&",
            Self::Or => "||",
            Self::Compare(op) => op.symbol(),
            Self::Regex => "=~",
            Self::NotRegex => "!~",
            Self::Arithmetic(op) => op.symbol(),
        })
    }
}

impl Display for ScalarFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {} {}", self.left, self.op.symbol(), self.right)
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let operand = |scalar: &Self| if matches!(scalar, Self::Binary { .. }) { format!("({scalar})") } else { scalar.to_string() };
        match self {
            Self::Constant(value) => write!(f, "{value}"),
            Self::Aggregate(aggregate) => write!(f, "{aggregate}"),
            Self::Binary { op, left, right } => write!(f, "{} {} {}", operand(left), op.symbol(), operand(right)),
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Count => f.write_str("count()"),
            Self::Min(of) => write!(f, "min({of})"),
            Self::Max(of) => write!(f, "max({of})"),
            Self::Avg(of) => write!(f, "avg({of})"),
            Self::Sum(of) => write!(f, "sum({of})"),
        }
    }
}

impl Display for Metrics {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let operand = |metrics: &Self| match metrics {
            Self::Constant(value) => value.to_string(),
            metrics => format!("({metrics})"),
        };
        match self {
            Self::First { pipeline, stage } => write!(f, "{pipeline}|{stage}"),
            Self::Later { of, stage: LaterStage::Compare(op, value) } => write!(f, "{of} {} {value}", op.symbol()),
            Self::Later { of, stage: LaterStage::Top(limit) } => write!(f, "{of}|topk({limit})"),
            Self::Later { of, stage: LaterStage::Bottom(limit) } => write!(f, "{of}|bottomk({limit})"),
            Self::Binary { op, left, right } => write!(f, "{} {} {}", operand(left), op.symbol(), operand(right)),
            Self::Constant(value) => write!(f, "{value}"),
        }
    }
}

impl Display for FirstStage {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Over { function, by } => {
                write!(f, "{function}")?;
                if by.is_empty() {
                    return Ok(());
                }
                f.write_str("by(")?;
                list(f, by, ", ")?;
                f.write_str(")")
            }
            Self::Compare { filter, top, range } => {
                write!(f, "compare({{ {filter} }}")?;
                if let Some(top) = top {
                    write!(f, ", {top}")?;
                }
                if let Some((start, end)) = range {
                    write!(f, ", {start}, {end}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Display for OverTime {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Rate => f.write_str("rate()"),
            Self::Count => f.write_str("count_over_time()"),
            Self::Min(of) => write!(f, "min_over_time({of})"),
            Self::Max(of) => write!(f, "max_over_time({of})"),
            Self::Sum(of) => write!(f, "sum_over_time({of})"),
            Self::Avg(of) => write!(f, "avg_over_time({of})"),
            Self::Histogram(of) => write!(f, "histogram_over_time({of})"),
            Self::Quantile(of, quantiles) => {
                write!(f, "quantile_over_time({of}")?;
                for q in quantiles {
                    write!(f, ", {q:?}")?;
                }
                f.write_str(")")
            }
        }
    }
}
