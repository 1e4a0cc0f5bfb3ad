//! Tokens to a tree.
//!
//! Source: docs/facts/traceql.md, "Grammar".

mod field;
mod pipeline;

use crate::ast::Query;
use crate::error::{ParseError, QueryError};
use crate::lexer::{self, Spanned, Token};
use crate::pattern::Patterns;
use crate::{Attribute, Intrinsic, Scope, Value, validate};

/// Longer query texts are refused before they are parsed.
pub const MAX_QUERY_BYTES: usize = 128 * 1024;

/// How deep parentheses and prefix operators may be nested.
pub const MAX_NESTING: usize = 100;

/// How many operators may stand above one operand, as in a long chain of `+`. A chain of `&&`, or of `||`, may be as long as the text.
pub const MAX_HEIGHT: usize = 1000;

/// Longer chains of one of `&&` and `||` become trees that are as low as they can be.
const CHAIN: usize = 100;

const KEYWORDS: &[&str] = &[
    "true",
    "false",
    "nil",
    "ok",
    "error",
    "unset",
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
    "duration",
    "name",
    "status",
    "statusMessage",
    "kind",
    "rootName",
    "rootServiceName",
    "rootService",
    "traceDuration",
    "nestedSetLeft",
    "nestedSetRight",
    "nestedSetParent",
    "id",
    "traceID",
    "spanID",
    "parentID",
    "timeSinceStart",
    "version",
    "childCount",
    "parent",
    "count",
    "avg",
    "max",
    "min",
    "sum",
    "by",
    "coalesce",
    "select",
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
    "topk",
    "bottomk",
    "with",
];

/// Reads and checks a query.
///
/// # Errors
/// What is wrong, and where if it is no query at all.
pub fn parse(text: &str) -> Result<Query, QueryError> {
    let query = parse_unchecked(text)?;
    validate::query(&query)?;
    Ok(query)
}

/// Reads a query that may make no sense.
pub(crate) fn parse_unchecked(text: &str) -> Result<Query, QueryError> {
    if text.len() > MAX_QUERY_BYTES {
        return Err(QueryError::TooLong { bytes: text.len(), max: MAX_QUERY_BYTES });
    }
    Ok(Parser { source: text, tokens: lexer::tokens(text)?, at: 0, nesting: 0, patterns: Patterns::default() }.query()?)
}

/// Reads one attribute or intrinsic, as tag value requests name it: `resource.service.name`, `.foo`, `name`, `span:kind`.
///
/// `parent.x` is read as the unscoped attribute.
///
/// # Errors
/// Anything else, with its position.
pub fn parse_attribute(identifier: &str) -> Result<Attribute, ParseError> {
    let mut parser = Parser { source: identifier, tokens: lexer::tokens(identifier)?, at: 0, nesting: 0, patterns: Patterns::default() };
    let attribute = match parser.peek() {
        Token::ParentAttribute(Attribute::Named { key, .. }) => {
            let key = key.clone();
            parser.at += 1;
            Attribute::Named { scope: Scope::Unscoped, key }
        }
        _ => parser.attribute()?,
    };
    parser.expect_end()?;
    Ok(attribute)
}

/// Part of a tree, with the number of operators above its deepest operand.
struct Tree<T> {
    node: T,
    height: usize,
}

impl<T> Tree<T> {
    fn leaf(node: T) -> Self {
        Self { node, height: 0 }
    }

    fn map<U>(self, f: impl FnOnce(T) -> U) -> Tree<U> {
        Tree { node: f(self.node), height: self.height }
    }
}

struct Parser<'a> {
    source: &'a str,
    /// Ends with [`Token::End`].
    tokens: Vec<Spanned>,
    at: usize,
    nesting: usize,
    patterns: Patterns,
}

impl Parser<'_> {
    fn query(&mut self) -> Result<Query, ParseError> {
        let root = self.pipeline_or_metrics()?;
        let mut hints = Vec::new();
        while self.accept_word("with") {
            hints = self.hints()?;
        }
        self.expect_end()?;
        Ok(Query { root, hints })
    }

    fn hints(&mut self) -> Result<Vec<(String, Value)>, ParseError> {
        self.expect("(")?;
        let mut hints = Vec::new();
        loop {
            let name = match self.peek() {
                Token::Word(name) if !KEYWORDS.contains(&name.as_str()) => name.clone(),
                _ => return self.unexpected("the name of a hint"),
            };
            self.at += 1;
            self.expect("=")?;
            match self.literal() {
                Some(value) => hints.push((name, value)),
                None => return self.unexpected("a literal"),
            }
            if !self.accept(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(hints)
    }

    /// Takes an attribute or an intrinsic.
    fn attribute(&mut self) -> Result<Attribute, ParseError> {
        let attribute = match self.peek() {
            Token::Attribute(attribute) => Some(attribute.clone()),
            Token::Word(word) => Intrinsic::from_text(word).map(Attribute::Intrinsic),
            _ => None,
        };
        match attribute {
            Some(attribute) => {
                self.at += 1;
                Ok(attribute)
            }
            None => self.unexpected("an attribute such as span.name or an intrinsic"),
        }
    }

    /// `( attribute, … )`
    fn attribute_list(&mut self) -> Result<Vec<Attribute>, ParseError> {
        self.expect("(")?;
        let mut attributes = vec![self.attribute()?];
        while self.accept(",") {
            attributes.push(self.attribute()?);
        }
        self.expect(")")?;
        Ok(attributes)
    }

    /// Takes a literal other than nil, if one is next.
    fn literal(&mut self) -> Option<Value> {
        let value = match self.peek() {
            Token::Int(v) => Value::Int(*v),
            Token::Float(v) => Value::Float(*v),
            Token::Duration(v) => Value::Duration(*v),
            Token::Str(v) => Value::Str(v.clone()),
            Token::Word(word) => match word.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "minInt" => Value::Int(i64::MIN),
                "maxInt" => Value::Int(i64::MAX),
                word => crate::Status::from_text(word).map(Value::Status).or_else(|| crate::Kind::from_text(word).map(Value::Kind))?,
            },
            _ => return None,
        };
        self.at += 1;
        Some(value)
    }

    fn int(&mut self) -> Result<i64, ParseError> {
        match self.peek() {
            Token::Int(value) => {
                let value = *value;
                self.at += 1;
                Ok(value)
            }
            _ => self.unexpected("an integer"),
        }
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].token
    }

    fn symbol(&self) -> Option<&'static str> {
        match self.peek() {
            Token::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found == word)
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = self.symbol() == Some(symbol);
        self.at += usize::from(found);
        found
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), ParseError> {
        if self.accept(symbol) { Ok(()) } else { self.unexpected(symbol) }
    }

    fn expect_end(&self) -> Result<(), ParseError> {
        if *self.peek() == Token::End { Ok(()) } else { self.unexpected("the end of the text") }
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, ParseError> {
        let token = &self.tokens[self.at.min(self.tokens.len() - 1)];
        let text = &self.source[token.start..token.end];
        self.refuse(
            self.at,
            match &token.token {
                Token::End => format!("unexpected end of the text, expected {expected}"),
                Token::Word(word) if !KEYWORDS.contains(&word.as_str()) => format!("unknown identifier: {word}"),
                Token::Word(word) if word == "parent" => "intrinsic (parent) not yet supported".to_owned(),
                Token::ParentAttribute(_) => "parent not yet supported".to_owned(),
                _ => format!("unexpected {text}, expected {expected}"),
            },
        )
    }

    /// An error at the token with this index.
    fn refuse<T>(&self, token: usize, reason: impl Into<String>) -> Result<T, ParseError> {
        let offset = self.tokens.get(token).map_or(self.source.len(), |token| token.start);
        Err(ParseError::at(self.source, offset, reason.into()))
    }

    /// Runs `parse` one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.nesting == MAX_NESTING {
            return self.refuse(self.at, format!("nested deeper than {MAX_NESTING} levels"));
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    /// Joins the operands of a chain of one operator that may be joined in any order.
    fn chain<T>(
        &self,
        mut operands: Vec<Tree<T>>,
        join: &impl Fn(Tree<T>, Tree<T>) -> Result<Tree<T>, ParseError>,
    ) -> Result<Tree<T>, ParseError> {
        if operands.len() > CHAIN {
            let rest = operands.split_off(operands.len() / 2);
            return join(self.chain(operands, join)?, self.chain(rest, join)?);
        }
        let mut operands = operands.into_iter();
        let Some(first) = operands.next() else { return self.unexpected("an operand") };
        operands.try_fold(first, join)
    }

    /// The height of a node above two others.
    fn above(&self, a: usize, b: usize) -> Result<usize, ParseError> {
        let height = a.max(b) + 1;
        if height > MAX_HEIGHT {
            return self.refuse(self.at, format!("more than {MAX_HEIGHT} operators above one operand"));
        }
        Ok(height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_tag_requests() {
        let named = |scope, key: &str| Attribute::Named { scope, key: key.into() };
        let cases = [
            ("resource.service.name", named(Scope::Resource, "service.name")),
            (".foo", named(Scope::Unscoped, "foo")),
            ("parent.resource.foo", named(Scope::Unscoped, "foo")),
            ("span.\"a b\"", named(Scope::Span, "a b")),
            ("name", Attribute::Intrinsic(Intrinsic::Name)),
            ("trace:rootService", Attribute::Intrinsic(Intrinsic::RootService)),
        ];
        for (text, want) in cases {
            assert_eq!(parse_attribute(text), Ok(want), "{text}");
        }
        for bad in ["foo", "", "span.a b", "\"x\"", "trace:name", "1", "rootService", "id"] {
            parse_attribute(bad).expect_err(bad);
        }
    }
}
