//! Text to tokens.
//!
//! Source: docs/facts/traceql.md, "Lexical rules".

use std::sync::Arc;

use crate::attribute::is_plain;
use crate::error::ParseError;
use crate::{Attribute, Intrinsic, Scope, duration};

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Int(i64),
    Float(f64),
    Duration(i64),
    Str(Arc<str>),
    /// A keyword or an unknown identifier.
    Word(String),
    /// `span.x`, `span:id`; short intrinsics are words.
    Attribute(Attribute),
    /// `parent.x`, with the scope that follows, if any.
    ParentAttribute(Attribute),
    Symbol(&'static str),
    End,
}

/// A token and its bytes in the source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

const SYMBOLS: [&str; 35] = [
    "{", "}", "(", ")", ",", "=", "!=", "=~", "!~", ">", ">=", "<", "<=", "+", "-", "*", "/", "%", "^", "&&", "||", "!", "|", ">>", "<<",
    "~", "!>", "!<", "!>>", "!<<", "&>", "&<", "&>>", "&<<", "&~",
];

/// All tokens, the last one [`Token::End`].
pub(crate) fn tokens(source: &str) -> Result<Vec<Spanned>, ParseError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space()?;
        let start = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push(Spanned { token, start, end: lexer.at });
        if end {
            return Ok(tokens);
        }
    }
}

/// All tokens before the first place that is none, the last one [`Token::End`].
pub(crate) fn tokens_as_far_as_they_go(source: &str) -> Vec<Spanned> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let is_over = lexer.skip_space().is_err();
        let start = lexer.at;
        match lexer.token() {
            Ok(token) if !is_over && token != Token::End => tokens.push(Spanned { token, start, end: lexer.at }),
            _ => {
                tokens.push(Spanned { token: Token::End, start, end: start });
                return tokens;
            }
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the longest prefix of characters that pass.
    fn take_while(&mut self, pass: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !pass(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn error<T>(&self, offset: usize, reason: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::at(self.source, offset, reason.into()))
    }

    fn skip_space(&mut self) -> Result<(), ParseError> {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
            if self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                let Some(end) = self.rest().find("*/") else { return self.error(self.at, "comment is not terminated") };
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token, ParseError> {
        let start = self.at;
        let Some(c) = self.peek() else { return Ok(Token::End) };
        let second = self.rest()[c.len_utf8()..].chars().next();
        match c {
            '"' => self.quoted().map(|text| Token::Str(text.into())),
            '`' => self.raw().map(|text| Token::Str(text.into())),
            '\'' => self.error(start, "unexpected ', strings are written with \" or `"),
            '0'..='9' => self.number(),
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            '.' => {
                self.at += 1;
                self.named(Scope::Unscoped).map(Token::Attribute)
            }
            _ if c.is_alphabetic() || c == '_' => self.word(),
            _ => self.symbol(c),
        }
    }

    fn symbol(&mut self, first: char) -> Result<Token, ParseError> {
        let start = self.at;
        let find = |text: &str| SYMBOLS.iter().find(|symbol| **symbol == text).copied();
        let mut end = start + first.len_utf8();
        let mut symbol = find(&self.source[start..end]);
        while let Some(longer) = self.source[end..].chars().next().map(|c| end + c.len_utf8()) {
            match find(&self.source[start..longer]) {
                Some(found) => (symbol, end) = (Some(found), longer),
                None => break,
            }
        }
        let Some(symbol) = symbol else { return self.error(start, format!("unexpected {first}")) };
        self.at = end;
        Ok(Token::Symbol(symbol))
    }

    fn number(&mut self) -> Result<Token, ParseError> {
        let start = self.at;
        let mut is_float = false;
        self.take_while(|c| c.is_ascii_digit());
        if self.peek() == Some('.') {
            is_float = true;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            is_float = true;
            self.at += 1;
            if matches!(self.peek(), Some('+' | '-')) {
                self.at += 1;
            }
            if self.take_while(|c| c.is_ascii_digit()).is_empty() {
                return self.error(start, "exponent has no digits");
            }
        }
        let end = self.at;
        let run = self.take_while(|c| c.is_numeric() || ".nsumhµμdwy".contains(c));
        if !run.is_empty() {
            if let Some(nanos) = duration::parse(&self.source[start..self.at]) {
                return Ok(Token::Duration(nanos));
            }
            self.at = end;
        }
        let text = &self.source[start..end];
        if is_float {
            return match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Token::Float(number)),
                _ => self.error(start, format!("{text} is no number of 64 bits")),
            };
        }
        text.parse().map(Token::Int).or_else(|_| self.error(start, format!("{text} is outside the range of 64 bit integers")))
    }

    fn word(&mut self) -> Result<Token, ParseError> {
        let start = self.at;
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        let scope = match word {
            "span" => Some(Scope::Span),
            "resource" => Some(Scope::Resource),
            "event" => Some(Scope::Event),
            "link" => Some(Scope::Link),
            "instrumentation" => Some(Scope::Instrumentation),
            "parent" => Some(Scope::Unscoped),
            _ => None,
        };
        match (self.peek(), scope) {
            (Some('.'), Some(_)) if word == "parent" => {
                self.at += 1;
                for scope in [Scope::Span, Scope::Resource] {
                    if self.rest().starts_with(scope.prefix()) {
                        self.at += scope.prefix().len();
                        return self.named(scope).map(Token::ParentAttribute);
                    }
                }
                self.named(Scope::Unscoped).map(Token::ParentAttribute)
            }
            (Some('.'), Some(scope)) => {
                self.at += 1;
                self.named(scope).map(Token::Attribute)
            }
            (Some(':'), _) if matches!(word, "span" | "trace" | "event" | "link" | "instrumentation") => {
                self.at += 1;
                self.skip_space()?;
                let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
                match Intrinsic::from_text(&format!("{word}:{name}")) {
                    Some(intrinsic) => Ok(Token::Attribute(Attribute::Intrinsic(intrinsic))),
                    None => self.error(start, format!("unknown intrinsic: {word}:{name}")),
                }
            }
            _ => Ok(Token::Word(word.to_owned())),
        }
    }

    /// An attribute name, directly after the dot: plain characters and quoted parts.
    fn named(&mut self, scope: Scope) -> Result<Attribute, ParseError> {
        let start = self.at;
        let mut key = String::new();
        let mut has_quotes = false;
        loop {
            key.push_str(self.take_while(|c| c != '"' && is_plain(c)));
            if self.peek() != Some('"') {
                break;
            }
            has_quotes = true;
            self.at += 1;
            loop {
                key.push_str(self.take_while(|c| c != '"' && c != '\\'));
                match (self.peek(), self.rest().as_bytes().get(1)) {
                    (None, _) => return self.error(start, "attribute name has no closing \""),
                    (Some('"'), _) => break,
                    (_, Some(b'"')) => key.push('"'),
                    (_, Some(b'\\')) => key.push('\\'),
                    _ => return self.error(self.at, "only \\\" and \\\\ are escapes in an attribute name"),
                }
                self.at += 2;
            }
            self.at += 1;
        }
        if key.is_empty() && !has_quotes {
            return self.error(start, "attribute name is empty");
        }
        Ok(Attribute::Named { scope, key: key.into() })
    }

    fn raw(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        self.at += 1;
        let text = self.take_while(|c| c != '`');
        if self.peek().is_none() {
            return self.error(start, "string is not terminated");
        }
        self.at += 1;
        Ok(text.replace('\r', ""))
    }

    fn quoted(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            bytes.extend_from_slice(self.take_while(|c| !matches!(c, '"' | '\\' | '\n')).as_bytes());
            match self.peek() {
                None | Some('\n') => return self.error(start, "string is not terminated"),
                Some('"') => {
                    self.at += 1;
                    break;
                }
                Some(_) => self.escape(&mut bytes)?,
            }
        }
        String::from_utf8(bytes).or_else(|_| self.error(start, "string is not valid UTF-8"))
    }

    /// One of Go's escapes, from the backslash on.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), ParseError> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.peek() else { return self.error(start, "string is not terminated") };
        self.at += c.len_utf8();
        let simple = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            '"' => Some(b'"'),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            return Ok(());
        }
        let (radix, digits) = match c {
            'x' => (16, 2),
            'u' => (16, 4),
            'U' => (16, 8),
            '0'..='7' => {
                self.at -= 1;
                (8, 3)
            }
            _ => return self.error(start, format!("unknown escape \\{c}")),
        };
        let number = self.rest().get(..digits).filter(|text| text.chars().all(|c| c.is_digit(radix)));
        let Some(number) = number.and_then(|text| u32::from_str_radix(text, radix).ok()) else {
            return self.error(start, format!("escape \\{c} has too few digits"));
        };
        self.at += digits;
        if digits < 4 {
            out.push(u8::try_from(number).or_else(|_| self.error(start, "octal escape is above 255"))?);
        } else {
            let Some(c) = char::from_u32(number) else { return self.error(start, "escape is no character") };
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(source: &str) -> Vec<Token> {
        let mut tokens: Vec<_> = tokens(source).expect(source).into_iter().map(|t| t.token).collect();
        tokens.pop();
        tokens
    }

    fn refused(source: &str) -> String {
        tokens(source).expect_err(source).to_string()
    }

    fn named(scope: Scope, key: &str) -> Token {
        Token::Attribute(Attribute::Named { scope, key: key.into() })
    }

    #[test]
    fn attribute_names_end_only_at_operators() {
        assert_eq!(lex(".a+.b"), [named(Scope::Unscoped, "a+.b")]);
        assert_eq!(lex(".a + .b"), [named(Scope::Unscoped, "a"), Token::Symbol("+"), named(Scope::Unscoped, "b")]);
        assert_eq!(lex(".a-1=2"), [named(Scope::Unscoped, "a-1"), Token::Symbol("="), Token::Int(2)]);
        assert_eq!(lex(".a//x"), [named(Scope::Unscoped, "a//x")]);
        assert_eq!(lex("span.resource.x"), [named(Scope::Span, "resource.x")]);
        assert_eq!(lex(r#"span."my key".x"#), [named(Scope::Span, "my key.x")]);
        assert_eq!(lex(r#"."a\"\\""#), [named(Scope::Unscoped, "a\"\\")]);
        assert_eq!(lex("span.\"\""), [named(Scope::Span, "")]);
        assert_eq!(lex("span.5"), [named(Scope::Span, "5")]);
        assert_eq!(lex("span: name"), [Token::Attribute(Attribute::Intrinsic(Intrinsic::Name))]);
        assert_eq!(refused("{ . a }"), "parse error at line 1, col 4: attribute name is empty");
        assert_eq!(refused("{\n .\"a"), "parse error at line 2, col 3: attribute name has no closing \"");
        assert!(refused("trace:rootServiceName").contains("unknown intrinsic: trace:rootServiceName"));
    }

    #[test]
    fn literals() {
        assert_eq!(
            lex("0042 .5 5. 2e3 1.5h 1d12h"),
            [
                Token::Int(42),
                Token::Float(0.5),
                Token::Float(5.0),
                Token::Float(2000.0),
                Token::Duration(5_400_000_000_000),
                Token::Duration(129_600_000_000_000),
            ]
        );
        assert_eq!(lex("1m30"), [Token::Int(1), Token::Word("m30".to_owned())]);
        assert_eq!(lex(r#""a\t\x41\101é\U0001F600""#), [Token::Str("a\tAA\u{e9}\u{1f600}".into())]);
        assert_eq!(lex("`\\d\n`"), [Token::Str("\\d\n".into())]);
        for bad in [r#""\d""#, r#""abc"#, "`abc", "'x'", "99999999999999999999", "1e", r#""\xff""#, "/* x", "1e999"] {
            refused(bad);
        }
    }

    #[test]
    fn symbols_are_read_greedily() {
        let symbols = |source: &str| {
            lex(source).into_iter().map(|t| if let Token::Symbol(s) = t { s } else { panic!("{t:?} in {source}") }).collect::<Vec<_>>()
        };
        assert_eq!(symbols("!>> ! ~ >>> &&"), ["!>>", "!", "~", ">>", ">", "&&"]);
        assert_eq!(symbols("&>>&~!~=~"), ["&>>", "&~", "!~", "=~"]);
        assert_eq!(refused("& >"), "parse error at line 1, col 1: unexpected &");
    }

    #[test]
    fn comments_are_space_outside_of_names() {
        assert_eq!(lex(".a > 1 // note\n /* more */ }").len(), 4);
    }
}
