//! Pipelines, scalars and metrics.
//!
//! Spansets, scalars and metrics share their operators and start with the same parentheses. So one climber reads them
//! all, and what two operands become is decided when both are known.

use super::field::{arithmetic_op, compare_op, level};
use super::{Parser, Tree};
use crate::Value;
use crate::ast::{
    Aggregate, Arithmetic, Field, FirstStage, LaterStage, Metrics, Mode, OverTime, Pipeline, Relation, Root, Scalar, ScalarFilter,
    SpansetOp, Spansets, Stage,
};
use crate::error::ParseError;
use crate::lexer::Token;

/// What an expression between pipes can be.
enum Operand {
    Spansets {
        node: Spansets,
        /// Every operand stands in parentheses.
        wrapped: bool,
        /// Some operand is a pipeline in parentheses.
        piped: bool,
    },
    Scalar(Scalar),
    /// Anything that is not a spanset expression alone.
    Pipeline(Pipeline),
    Metrics(Metrics),
}

fn spanset_op(symbol: &str) -> Option<SpansetOp> {
    let (mode, relation) = match symbol {
        "&&" => return Some(SpansetOp::And),
        "||" => return Some(SpansetOp::Or),
        _ if symbol.starts_with('!') => (Mode::Negated, &symbol[1..]),
        _ if symbol.starts_with('&') => (Mode::Union, &symbol[1..]),
        _ => (Mode::Plain, symbol),
    };
    let relation = match relation {
        ">" => Relation::Child,
        "<" => Relation::Parent,
        ">>" => Relation::Descendant,
        "<<" => Relation::Ancestor,
        "~" => Relation::Sibling,
        _ => return None,
    };
    Some(SpansetOp::Structural { relation, mode })
}

fn level_of(symbol: &str) -> Option<u8> {
    match symbol {
        "&&" | "||" => Some(level::BOOLEAN),
        _ if compare_op(symbol).is_some() || spanset_op(symbol).is_some() => Some(level::COMPARISON),
        _ => arithmetic_op(symbol).map(|(_, level)| level),
    }
}

impl Parser<'_> {
    pub(super) fn pipeline_or_metrics(&mut self) -> Result<Root, ParseError> {
        let start = self.at;
        Ok(match self.stages()?.node {
            Operand::Metrics(metrics) => Root::Metrics(metrics),
            Operand::Pipeline(pipeline) => Root::Pipeline(pipeline),
            Operand::Spansets { node, .. } => Root::Pipeline(Pipeline { stages: vec![Stage::Spansets(node)] }),
            Operand::Scalar(Scalar::Constant(_)) => return self.refuse(start, "a constant alone is no query"),
            Operand::Scalar(_) => return self.unexpected("a comparison of the aggregate with a constant"),
        })
    }

    /// What stands between parentheses, or in the whole query: one operand, or stages joined by pipes.
    fn stages(&mut self) -> Result<Tree<Operand>, ParseError> {
        let mut current = match self.keyword_stage()? {
            Some(Tree { node: Stage::Coalesce, .. }) => return self.refuse(self.at - 3, "coalesce() cannot be the first stage"),
            Some(stage) => stage.map(|stage| Operand::Pipeline(Pipeline { stages: vec![stage] })),
            None => self.expression(0)?,
        };
        loop {
            if let Some(op) = self.symbol().and_then(compare_op) {
                let Operand::Metrics(metrics) = current.node else { return self.unexpected("|") };
                self.at += 1;
                let constant = self.constant()?;
                current = self.later(Tree { node: metrics, height: current.height }, LaterStage::Compare(op, constant))?;
                continue;
            }
            if !self.accept("|") {
                return Ok(current);
            }
            current = self.piped(current)?;
        }
    }

    /// What follows a pipe.
    fn piped(&mut self, current: Tree<Operand>) -> Result<Tree<Operand>, ParseError> {
        let start = self.at;
        let height = current.height;
        if let Operand::Metrics(metrics) = current.node {
            let is_top = self.accept_word("topk");
            if !is_top && !self.accept_word("bottomk") {
                return self.unexpected("topk(n), bottomk(n) or a comparison after a metrics function");
            }
            self.expect("(")?;
            let limit = self.int()?;
            self.expect(")")?;
            let stage = if is_top { LaterStage::Top(limit) } else { LaterStage::Bottom(limit) };
            return self.later(Tree { node: metrics, height }, stage);
        }
        let mut pipeline = match current.node {
            Operand::Pipeline(pipeline) => pipeline,
            Operand::Spansets { piped: true, .. } => {
                return self.refuse(start - 1, "a pipeline in parentheses cannot be continued with |");
            }
            Operand::Spansets { node, .. } => Pipeline { stages: vec![Stage::Spansets(node)] },
            _ => return self.refuse(start - 1, "an aggregate must be compared before the next stage"),
        };
        if let Some(stage) = self.first_stage()? {
            let height = height.max(stage.height);
            return Ok(Tree { node: Operand::Metrics(Metrics::First { pipeline, stage: stage.node }), height });
        }
        let stage = match self.keyword_stage()? {
            Some(stage) => stage,
            None => {
                let operand = self.expression(0)?;
                let height = operand.height;
                match operand.node {
                    Operand::Spansets { piped: true, .. } => {
                        return self.refuse(start, "a pipeline in parentheses cannot be a later stage");
                    }
                    Operand::Spansets { node, .. } => Tree { node: Stage::Spansets(node), height },
                    Operand::Pipeline(inner) => {
                        pipeline.stages.extend(inner.stages);
                        return Ok(Tree { node: Operand::Pipeline(pipeline), height: height.max(current.height) });
                    }
                    Operand::Scalar(_) => return self.unexpected("a comparison of the aggregate with a constant"),
                    Operand::Metrics(_) => return self.refuse(start, "a metrics expression cannot be a later stage"),
                }
            }
        };
        pipeline.stages.push(stage.node);
        Ok(Tree { node: Operand::Pipeline(pipeline), height: height.max(stage.height) })
    }

    fn later(&self, of: Tree<Metrics>, stage: LaterStage) -> Result<Tree<Operand>, ParseError> {
        let height = self.above(of.height, 0)?;
        Ok(Tree { node: Operand::Metrics(Metrics::Later { of: Box::new(of.node), stage }), height })
    }

    /// A number, possibly computed, that stands after a comparison.
    fn constant(&mut self) -> Result<Value, ParseError> {
        let start = self.at;
        match self.expression(level::ADDITION)?.node {
            Operand::Scalar(Scalar::Constant(value)) => Ok(value),
            _ => self.refuse(start, "metrics can only be compared with a constant"),
        }
    }

    /// `by(…)`, `select(…)`, `coalesce()`
    fn keyword_stage(&mut self) -> Result<Option<Tree<Stage>>, ParseError> {
        Ok(Some(if self.accept_word("by") {
            self.field_in_parentheses()?.map(Stage::Group)
        } else if self.accept_word("select") {
            Tree::leaf(Stage::Select(self.attribute_list()?))
        } else if self.accept_word("coalesce") {
            self.expect("(")?;
            self.expect(")")?;
            Tree::leaf(Stage::Coalesce)
        } else {
            return Ok(None);
        }))
    }

    fn field_in_parentheses(&mut self) -> Result<Tree<Field>, ParseError> {
        self.expect("(")?;
        let field = self.field(0)?;
        self.expect(")")?;
        Ok(field)
    }

    /// `{ field }`, where nothing means true.
    fn filter(&mut self) -> Result<Tree<Field>, ParseError> {
        self.expect("{")?;
        if self.accept("}") {
            return Ok(Tree::leaf(Field::Literal(Value::Bool(true))));
        }
        let field = self.field(0)?;
        self.expect("}")?;
        Ok(field)
    }

    fn expression(&mut self, min: u8) -> Result<Tree<Operand>, ParseError> {
        let mut left = self.expression_operand()?;
        while let Some((symbol, level)) = self.symbol().and_then(|s| Some((s, level_of(s)?))).filter(|(_, level)| *level >= min) {
            // A comparison of metrics comes after all their operators.
            if matches!(left.node, Operand::Metrics(_)) && compare_op(symbol).is_some() {
                break;
            }
            let at = self.at;
            let mut operands = vec![left];
            while self.symbol() == Some(symbol) {
                self.at += 1;
                operands.push(self.nested(|p| p.expression(if level == level::POWER { level } else { level + 1 }))?);
                if !matches!(symbol, "&&" | "||") {
                    break;
                }
            }
            left = self.chain(operands, &|a, b| self.combine(at, symbol, a, b))?;
        }
        Ok(left)
    }

    fn expression_operand(&mut self) -> Result<Tree<Operand>, ParseError> {
        let start = self.at;
        if self.symbol() == Some("{") {
            return Ok(self.filter()?.map(|f| Operand::Spansets { node: Spansets::Filter(f), wrapped: false, piped: false }));
        }
        if self.accept("(") {
            let inner = self.nested(Self::stages)?;
            self.expect(")")?;
            let height = inner.height;
            return Ok(match inner.node {
                Operand::Spansets { node, piped, .. } => Tree { node: Operand::Spansets { node, wrapped: true, piped }, height },
                Operand::Pipeline(pipeline) => Tree {
                    node: Operand::Spansets { node: Spansets::Pipeline(pipeline), wrapped: true, piped: true },
                    height: self.above(height, 0)?,
                },
                node => Tree { node, height },
            });
        }
        if self.accept("-") {
            return match self.nested(Self::expression_operand)?.node {
                Operand::Scalar(Scalar::Constant(Value::Int(v))) => Ok(constant(Value::Int(v.wrapping_neg()))),
                Operand::Scalar(Scalar::Constant(Value::Float(v))) => Ok(constant(Value::Float(-v))),
                Operand::Scalar(Scalar::Constant(Value::Duration(v))) => Ok(constant(Value::Duration(v.wrapping_neg()))),
                _ => self.refuse(start, "- can only stand before a constant here"),
            };
        }
        match self.peek() {
            Token::Int(v) => Ok(constant(Value::Int(*v))),
            Token::Float(v) => Ok(constant(Value::Float(*v))),
            Token::Duration(v) => Ok(constant(Value::Duration(*v))),
            _ => return self.aggregate(),
        }
        .inspect(|_| self.at += 1)
    }

    fn aggregate(&mut self) -> Result<Tree<Operand>, ParseError> {
        let scalar = |aggregate| Operand::Scalar(Scalar::Aggregate(aggregate));
        if self.accept_word("count") {
            self.expect("(")?;
            self.expect(")")?;
            return Ok(Tree::leaf(scalar(Aggregate::Count)));
        }
        let make: fn(Field) -> Aggregate = match self.peek() {
            Token::Word(word) => match word.as_str() {
                "min" => Aggregate::Min,
                "max" => Aggregate::Max,
                "avg" => Aggregate::Avg,
                "sum" => Aggregate::Sum,
                _ => return self.unexpected("{, ( or a stage"),
            },
            _ => return self.unexpected("{, ( or a stage"),
        };
        self.at += 1;
        Ok(self.field_in_parentheses()?.map(|field| scalar(make(field))))
    }

    /// What `left symbol right` is, if anything; `at` is where the operator stands.
    fn combine(&self, at: usize, symbol: &str, left: Tree<Operand>, right: Tree<Operand>) -> Result<Tree<Operand>, ParseError> {
        let height = self.above(left.height, right.height)?;
        let arithmetic = arithmetic_op(symbol).map(|(op, _)| op);
        let node = match (left.node, right.node) {
            (
                Operand::Spansets { node: left, wrapped: left_wrapped, piped: left_piped },
                Operand::Spansets { node: right, wrapped: right_wrapped, piped: right_piped },
            ) => {
                let Some(op) = spanset_op(symbol) else {
                    return self.refuse(at, format!("unexpected {symbol}, expected an operator between spansets"));
                };
                let (wrapped, piped) = (left_wrapped && right_wrapped, left_piped || right_piped);
                if piped && !wrapped {
                    return self.refuse(at, "a pipeline in parentheses combines only with operands in parentheses");
                }
                Operand::Spansets { node: Spansets::Binary { op, left: Box::new(left), right: Box::new(right) }, wrapped, piped }
            }
            (Operand::Scalar(left), Operand::Scalar(right)) => match (arithmetic, compare_op(symbol)) {
                (Some(op), _) => Operand::Scalar(self.scalar(at, op, left, right)?),
                (_, Some(_)) if matches!((&left, &right), (Scalar::Constant(_), Scalar::Constant(_))) => {
                    return self.refuse(at, "a scalar filter needs an aggregate such as count()");
                }
                (_, Some(op)) => Operand::Pipeline(Pipeline { stages: vec![Stage::ScalarFilter(ScalarFilter { left, op, right })] }),
                _ => return self.refuse(at, format!("unexpected {symbol}, expected an operator between scalars")),
            },
            (left, right) => {
                let op = arithmetic.filter(|op| !matches!(op, Arithmetic::Modulo | Arithmetic::Power));
                match (op, metrics_operand(left), metrics_operand(right)) {
                    (Some(op), Some(left), Some(right)) => {
                        Operand::Metrics(Metrics::Binary { op, left: Box::new(left), right: Box::new(right) })
                    }
                    _ => return self.refuse(at, format!("unexpected {symbol}, it cannot combine what stands beside it")),
                }
            }
        };
        Ok(Tree { node, height })
    }

    /// Arithmetic between scalars; constants are folded.
    fn scalar(&self, at: usize, op: Arithmetic, left: Scalar, right: Scalar) -> Result<Scalar, ParseError> {
        let (Scalar::Constant(a), Scalar::Constant(b)) = (&left, &right) else {
            return Ok(Scalar::Binary { op, left: Box::new(left), right: Box::new(right) });
        };
        if matches!(a, Value::Duration(_)) || matches!(b, Value::Duration(_)) {
            return self.refuse(at, "durations cannot be computed with here");
        }
        if matches!(op, Arithmetic::Modulo | Arithmetic::Power) {
            return self.refuse(at, "constants can only be combined with + - * /");
        }
        match op.apply(a.into(), b.into()).to_value() {
            value @ (Value::Int(_) | Value::Float(_)) if op != Arithmetic::Divide || crate::compare::Val::from(b).number() != Some(0.0) => {
                Ok(Scalar::Constant(value))
            }
            _ => self.refuse(at, "division by zero"),
        }
    }

    fn first_stage(&mut self) -> Result<Option<Tree<FirstStage>>, ParseError> {
        let Token::Word(word) = self.peek() else { return Ok(None) };
        let of_attribute: fn(crate::Attribute) -> OverTime = match word.as_str() {
            "compare" => {
                self.at += 1;
                return self.compare_stage().map(Some);
            }
            "rate" | "count_over_time" => {
                let function = if word == "rate" { OverTime::Rate } else { OverTime::Count };
                self.at += 1;
                self.expect("(")?;
                self.expect(")")?;
                return self.grouped(function).map(Some);
            }
            "quantile_over_time" => {
                self.at += 1;
                self.expect("(")?;
                let attribute = self.attribute()?;
                let mut quantiles = Vec::new();
                while self.accept(",") {
                    quantiles.push(self.number()?);
                }
                if quantiles.is_empty() {
                    return self.unexpected(", and a quantile");
                }
                self.expect(")")?;
                return self.grouped(OverTime::Quantile(attribute, quantiles)).map(Some);
            }
            "min_over_time" => OverTime::Min,
            "max_over_time" => OverTime::Max,
            "sum_over_time" => OverTime::Sum,
            "avg_over_time" => OverTime::Avg,
            "histogram_over_time" => OverTime::Histogram,
            _ => return Ok(None),
        };
        self.at += 1;
        self.expect("(")?;
        let attribute = self.attribute()?;
        self.expect(")")?;
        self.grouped(of_attribute(attribute)).map(Some)
    }

    fn grouped(&mut self, function: OverTime) -> Result<Tree<FirstStage>, ParseError> {
        let by = if self.accept_word("by") { self.attribute_list()? } else { Vec::new() };
        Ok(Tree::leaf(FirstStage::Over { function, by }))
    }

    fn compare_stage(&mut self) -> Result<Tree<FirstStage>, ParseError> {
        self.expect("(")?;
        let filter = self.filter()?;
        let top = if self.accept(",") { Some(self.int()?) } else { None };
        let range = if top.is_some() && self.accept(",") {
            let start = self.int()?;
            self.expect(",")?;
            Some((start, self.int()?))
        } else {
            None
        };
        self.expect(")")?;
        Ok(filter.map(|filter| FirstStage::Compare { filter, top, range }))
    }

    fn number(&mut self) -> Result<f64, ParseError> {
        let number = match self.peek() {
            #[allow(clippy::cast_precision_loss)]
            Token::Int(v) => *v as f64,
            Token::Float(v) => *v,
            _ => return self.unexpected("a number"),
        };
        self.at += 1;
        Ok(number)
    }
}

fn constant(value: Value) -> Tree<Operand> {
    Tree::leaf(Operand::Scalar(Scalar::Constant(value)))
}

/// Metrics, or a number that can stand beside them.
fn metrics_operand(operand: Operand) -> Option<Metrics> {
    match operand {
        Operand::Metrics(metrics) => Some(metrics),
        Operand::Scalar(Scalar::Constant(value @ (Value::Int(_) | Value::Float(_)))) => Some(Metrics::Constant(value)),
        _ => None,
    }
}
