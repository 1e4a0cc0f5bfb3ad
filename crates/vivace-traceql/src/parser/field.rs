//! Expressions on one span, by precedence climbing.

use super::{Parser, Tree};
use crate::ast::{Arithmetic, Field, FieldOp, UnaryOp};
use crate::compare::CompareOp;
use crate::error::ParseError;
use crate::fold;

/// How tightly operators bind. Source: docs/facts/traceql.md, "Precedence and associativity".
pub(super) mod level {
    pub(crate) const BOOLEAN: u8 = 2;
    pub(crate) const COMPARISON: u8 = 3;
    pub(crate) const ADDITION: u8 = 4;
    pub(crate) const NOT: u8 = 5;
    pub(crate) const MULTIPLICATION: u8 = 6;
    pub(crate) const POWER: u8 = 7;
    pub(crate) const OPERAND: u8 = 9;
}

pub(super) fn compare_op(symbol: &str) -> Option<CompareOp> {
    Some(match symbol {
        "=" => CompareOp::Equal,
        "!=" => CompareOp::NotEqual,
        "<" => CompareOp::Less,
        "<=" => CompareOp::LessEqual,
        ">" => CompareOp::Greater,
        ">=" => CompareOp::GreaterEqual,
        _ => return None,
    })
}

pub(super) fn arithmetic_op(symbol: &str) -> Option<(Arithmetic, u8)> {
    Some(match symbol {
        "+" => (Arithmetic::Add, level::ADDITION),
        "-" => (Arithmetic::Subtract, level::ADDITION),
        "*" => (Arithmetic::Multiply, level::MULTIPLICATION),
        "/" => (Arithmetic::Divide, level::MULTIPLICATION),
        "%" => (Arithmetic::Modulo, level::MULTIPLICATION),
        "^" => (Arithmetic::Power, level::POWER),
        _ => return None,
    })
}

fn field_op(symbol: &str) -> Option<(FieldOp, u8)> {
    Some(match symbol {
        "&&" => (FieldOp::And, level::BOOLEAN),
        "||" => (FieldOp::Or, level::BOOLEAN),
        "=~" => (FieldOp::Regex, level::COMPARISON),
        "!~" => (FieldOp::NotRegex, level::COMPARISON),
        _ => match (compare_op(symbol), arithmetic_op(symbol)) {
            (Some(op), _) => (FieldOp::Compare(op), level::COMPARISON),
            (_, Some((op, level))) => (FieldOp::Arithmetic(op), level),
            _ => return None,
        },
    })
}

impl Parser<'_> {
    /// An expression of operators that bind at least as tightly as `min`.
    pub(super) fn field(&mut self, min: u8) -> Result<Tree<Field>, ParseError> {
        let mut left = self.operand()?;
        while let Some((op, level)) = self.symbol().and_then(field_op).filter(|(_, level)| *level >= min) {
            if matches!(op, FieldOp::And | FieldOp::Or) {
                let symbol = self.symbol();
                let mut operands = vec![left];
                while self.symbol() == symbol {
                    self.at += 1;
                    operands.push(self.nested(|p| p.field(level + 1))?);
                }
                left = self.chain(operands, &|a: Tree<Field>, b: Tree<Field>| {
                    Ok(Tree { height: self.above(a.height, b.height)?, node: fold::binary(op, a.node, b.node) })
                })?;
                continue;
            }
            self.at += 1;
            let is_nil_test = matches!(op, FieldOp::Compare(CompareOp::Equal | CompareOp::NotEqual));
            if is_nil_test && self.accept_word("nil") {
                let height = self.above(left.height, 0)?;
                left = Tree { node: fold::nil_test(op, left.node), height };
                continue;
            }
            // The power alone associates to the right.
            let right = self.nested(|p| p.field(if level == level::POWER { level } else { level + 1 }))?;
            let height = self.above(left.height, right.height)?;
            if let (FieldOp::Regex | FieldOp::NotRegex, Field::Literal(crate::Value::Str(text))) = (op, &right.node)
                && let Err(reason) = self.patterns.add(text)
            {
                return self.refuse(self.at - 1, reason);
            }
            left = Tree { node: fold::binary(op, left.node, right.node), height };
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Tree<Field>, ParseError> {
        if let Some(value) = self.literal() {
            return Ok(Tree::leaf(Field::Literal(value)));
        }
        if self.accept("(") {
            let inner = self.nested(|p| p.field(0))?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.accept("-") {
            return self.unary(UnaryOp::Minus, level::ADDITION + 1);
        }
        if self.accept("!") {
            return self.unary(UnaryOp::Not, level::NOT + 1);
        }
        if self.accept_word("nil") {
            let op = match self.symbol().and_then(compare_op) {
                Some(op @ (CompareOp::Equal | CompareOp::NotEqual)) => FieldOp::Compare(op),
                _ => return self.unexpected("= or != beside nil"),
            };
            self.at += 1;
            if self.accept_word("nil") {
                return Ok(Tree::leaf(Field::Literal(crate::Value::Bool(false))));
            }
            let of = self.nested(|p| p.field(level::OPERAND))?;
            let height = self.above(of.height, 0)?;
            return Ok(Tree { node: fold::nil_test(op, of.node), height });
        }
        if matches!(self.peek(), crate::lexer::Token::Symbol(_) | crate::lexer::Token::End) {
            return self.unexpected("a value, an attribute or (");
        }
        Ok(Tree::leaf(Field::Attribute(self.attribute()?)))
    }

    fn unary(&mut self, op: UnaryOp, min: u8) -> Result<Tree<Field>, ParseError> {
        let of = self.nested(|p| p.field(min))?;
        let height = self.above(of.height, 0)?;
        Ok(Tree { node: fold::unary(op, of.node), height })
    }
}
