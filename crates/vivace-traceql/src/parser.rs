//! Tokens to a tree.
//!
//! Source: TraceQL description, "Grammar".

use crate::Attribute;
use crate::error::ParseError;
use crate::lexer::{self, Token};

/// Reads one attribute or intrinsic, as tag value requests name it: `resource.service.name`, `.foo`, `name`, `span:kind`.
///
/// `parent.x` is read as the unscoped attribute.
///
/// # Errors
/// Anything else, with its position.
pub fn parse_attribute(identifier: &str) -> Result<Attribute, ParseError> {
    let tokens = lexer::tokens(identifier)?;
    let refuse = |offset, reason: String| Err(ParseError::at(identifier, offset, reason));
    let attribute = match &tokens[0].token {
        Token::Attribute(attribute) => attribute.clone(),
        Token::ParentAttribute(Attribute::Named { key, .. }) => Attribute::Named { scope: crate::Scope::Unscoped, key: key.clone() },
        Token::Word(word) => match crate::Intrinsic::from_text(word) {
            Some(intrinsic) => Attribute::Intrinsic(intrinsic),
            None => return refuse(tokens[0].start, format!("unknown identifier: {word}")),
        },
        _ => return refuse(tokens[0].start, "expected an attribute such as span.name or an intrinsic".to_owned()),
    };
    match tokens.get(1) {
        Some(next) if next.token != Token::End => refuse(next.start, "expected the end of the attribute".to_owned()),
        _ => Ok(attribute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Intrinsic, Scope};

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
