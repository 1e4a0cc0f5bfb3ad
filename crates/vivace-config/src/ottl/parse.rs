//! From text to a condition: `or` of `and` of `not` of comparisons, functions and parentheses.

use regex::Regex;

use super::{Comparison, Condition, Context, Field, Of, Operand, OttlError};

/// How deep parentheses and negations may lie in each other.
const DEPTH_MAX: usize = 32;

/// Longest operators first.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// Names of OTLP's numbers.
const NUMBERS: [(&str, i64); 9] = [
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];

const FUNCTIONS: &str = "IsMatch, HasPrefix, HasSuffix, IsString and IsRootSpan";

pub(super) fn condition(text: &str, context: Context) -> Result<Condition, OttlError> {
    let mut parser = Parser { text, at: 0, context, depth: 0 };
    let condition = parser.or()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.wrong("and, or, or the end"));
    }
    Ok(condition)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    context: Context,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn wrong(&self, expected: &str) -> OttlError {
        let found: String = self.rest().chars().take(20).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
        OttlError { at: self.at, expected: format!("expected {expected}; got {found}") }
    }

    fn takes(&mut self, symbol: &str) -> bool {
        self.skip_space();
        let is_there = self.rest().starts_with(symbol);
        if is_there {
            self.at += symbol.len();
        }
        is_there
    }

    fn needs(&mut self, symbol: &str) -> Result<(), OttlError> {
        if self.takes(symbol) { Ok(()) } else { Err(self.wrong(symbol)) }
    }

    /// The name that stands here, not taken.
    fn name(&mut self) -> &'t str {
        self.skip_space();
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return "";
        }
        &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let is_there = self.name() == name;
        if is_there {
            self.at += name.len();
        }
        is_there
    }

    fn or(&mut self) -> Result<Condition, OttlError> {
        let mut parts = vec![self.and()?];
        while self.takes_name("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Condition::Or(parts) })
    }

    fn and(&mut self) -> Result<Condition, OttlError> {
        let mut parts = vec![self.term()?];
        while self.takes_name("and") {
            parts.push(self.term()?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Condition::And(parts) })
    }

    fn term(&mut self) -> Result<Condition, OttlError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(&format!("at most {DEPTH_MAX} parentheses and negations in each other")));
        }
        let term = if self.takes_name("not") {
            Condition::Not(Box::new(self.term()?))
        } else if self.takes("(") {
            let inner = self.or()?;
            self.needs(")")?;
            inner
        } else {
            match self.function()? {
                Some(condition) => condition,
                None => self.comparison()?,
            }
        };
        self.depth -= 1;
        Ok(term)
    }

    /// A function that is true or not, by its name and a parenthesis.
    fn function(&mut self) -> Result<Option<Condition>, OttlError> {
        let (start, name) = (self.at, self.name());
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) || !self.text[self.at + name.len()..].trim_start().starts_with('(') {
            return Ok(None);
        }
        self.at += name.len();
        self.needs("(")?;
        let condition = match name {
            "IsMatch" => {
                let operand = self.operand()?;
                self.needs(",")?;
                Condition::Match(operand, self.pattern()?)
            }
            "HasPrefix" | "HasSuffix" => {
                let operand = self.operand()?;
                self.needs(",")?;
                let part = self.operand()?;
                if name == "HasPrefix" { Condition::Prefix(operand, part) } else { Condition::Suffix(operand, part) }
            }
            "IsString" => Condition::IsText(self.operand()?),
            "IsRootSpan" => Condition::IsRoot,
            _ => {
                self.at = start;
                self.skip_space();
                return Err(self.wrong(&format!("one of {FUNCTIONS}, no other function is known here")));
            }
        };
        self.needs(")")?;
        Ok(Some(condition))
    }

    fn pattern(&mut self) -> Result<Regex, OttlError> {
        self.skip_space();
        let at = self.at;
        let Operand::Text(pattern) = self.operand()? else {
            self.at = at;
            return Err(self.wrong("a pattern in quotes"));
        };
        Regex::new(&pattern).map_err(|error| {
            let reason = error.to_string().lines().last().unwrap_or_default().to_owned();
            OttlError { at, expected: format!("expected a pattern: {reason}") }
        })
    }

    fn comparison(&mut self) -> Result<Condition, OttlError> {
        let left = self.operand()?;
        self.skip_space();
        let found = COMPARISONS.iter().find(|(symbol, _)| self.rest().starts_with(symbol));
        let Some((symbol, comparison)) = found else {
            return match left {
                Operand::Bool(_) | Operand::Field(_, Field::Attribute(_)) => Ok(Condition::True(left)),
                _ => Err(self.wrong("==, !=, <, <=, > or >=")),
            };
        };
        self.at += symbol.len();
        Ok(Condition::Compare(left, *comparison, self.operand()?))
    }

    fn operand(&mut self) -> Result<Operand, OttlError> {
        self.skip_space();
        if self.rest().starts_with('"') {
            return self.quoted().map(Operand::Text);
        }
        if self.rest().starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return self.number();
        }
        let name = self.name();
        let number = NUMBERS.iter().find(|(known, _)| *known == name);
        let literal = match (name, number) {
            ("nil", _) => Some(Operand::Nil),
            ("true", _) => Some(Operand::Bool(true)),
            ("false", _) => Some(Operand::Bool(false)),
            (_, Some((_, number))) => Some(Operand::Int(*number)),
            _ => None,
        };
        if let Some(literal) = literal {
            self.at += name.len();
            return Ok(literal);
        }
        self.field()
    }

    fn number(&mut self) -> Result<Operand, OttlError> {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'))).unwrap_or(rest.len());
        let text = &rest[..len];
        let number = text.parse().map(Operand::Int).or_else(|_| text.parse().map(Operand::Float)).map_err(|_| self.wrong("a number"))?;
        self.at += len;
        Ok(number)
    }

    fn quoted(&mut self) -> Result<String, OttlError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + at + 1;
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    // Others would be taken for what they are not: in a pattern the backslash itself is escaped.
                    _ => {
                        let expected = "expected \\n, \\t, \\r, \\\" or \\\\ after a backslash".to_owned();
                        return Err(OttlError { at: start + at, expected });
                    }
                },
                other => text.push(other),
            }
        }
        Err(OttlError { at: start, expected: "expected a quote at the end of this text".to_owned() })
    }

    /// `name`, `span.name`, `resource.attributes["a"]`, `status.code` and so on.
    fn field(&mut self) -> Result<Operand, OttlError> {
        let start = self.at;
        let own = if self.context == Context::Span { Of::Span } else { Of::Event };
        let mut parts = Vec::new();
        loop {
            let name = self.name();
            if name.is_empty() {
                return Err(self.wrong("a text in quotes, a number, or a field such as name or attributes[\"key\"]"));
            }
            self.at += name.len();
            parts.push(name);
            if !self.rest().starts_with('.') {
                break;
            }
            self.at += 1;
        }
        let of = match parts[0] {
            "span" => Some(Of::Span),
            "spanevent" if self.context == Context::Event => Some(Of::Event),
            "instrumentation_scope" | "scope" => Some(Of::Scope),
            "resource" => Some(Of::Resource),
            _ => None,
        };
        let path = if of.is_some() { &parts[1..] } else { &parts[..] };
        let of = of.unwrap_or(own);
        let field = match (of, path) {
            (_, ["attributes"]) => return self.keys(of),
            (Of::Span | Of::Event | Of::Scope, ["name"]) => Field::Name,
            (Of::Scope, ["version"]) => Field::Version,
            (Of::Span, ["kind"]) => Field::Kind,
            (Of::Span, ["kind", "string"]) => Field::KindText,
            (Of::Span, ["status", "code"]) => Field::StatusCode,
            (Of::Span, ["status", "message"]) => Field::StatusMessage,
            (Of::Span, ["trace_id", "string"]) => Field::TraceId,
            (Of::Span, ["span_id", "string"]) => Field::SpanId,
            (Of::Span, ["parent_span_id", "string"]) => Field::ParentSpanId,
            (Of::Span, ["trace_state"]) => Field::TraceState,
            (Of::Span, ["start_time_unix_nano"]) => Field::Start,
            (Of::Span, ["end_time_unix_nano"]) => Field::End,
            (Of::Event, ["time_unix_nano"]) => Field::Time,
            _ => {
                self.at = start;
                return Err(self.wrong("a field that is known here: attributes, name, kind, status, ids, times"));
            }
        };
        Ok(Operand::Field(of, field))
    }

    fn keys(&mut self, of: Of) -> Result<Operand, OttlError> {
        let mut keys = Vec::new();
        while self.rest().starts_with('[') {
            self.at += 1;
            self.skip_space();
            if !self.rest().starts_with('"') {
                return Err(self.wrong("a key in quotes"));
            }
            keys.push(self.quoted()?);
            self.needs("]")?;
        }
        if keys.is_empty() { Err(self.wrong("[\"key\"]")) } else { Ok(Operand::Field(of, Field::Attribute(keys))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        condition(text, Context::Span).map_or_else(|error| error.to_string(), |condition| format!("{condition:?}"))
    }

    #[test]
    fn conditions_are_read_by_their_binding() {
        let both = shown(r#"name == "a" or not (kind == SPAN_KIND_SERVER) and attributes["n"] >= 1.5"#);
        assert!(
            both.starts_with("Or([Compare(Field(Span, Name), Equal, Text(\"a\")), And([Not(Compare(Field(Span, Kind), Equal, Int(2)))")
        );
        assert!(both.contains("Compare(Field(Span, Attribute([\"n\"])), GreaterOrEqual, Float(1.5))"), "{both}");
        let matched = shown(r#"IsMatch(resource.attributes["service.name"], "^a\\.b\\d$")"#);
        assert!(matched.contains(r#"Match(Field(Resource, Attribute(["service.name"])), Regex("^a\\.b\\d$"))"#), "{matched}");
        assert_eq!(shown(r#"attributes["a"]["b"] != nil"#), r#"Compare(Field(Span, Attribute(["a", "b"])), NotEqual, Nil)"#);
        assert_eq!(shown("IsRootSpan()"), "IsRoot");
        assert_eq!(shown("attributes[\"sampled\"]"), "True(Field(Span, Attribute([\"sampled\"])))");
        let event = condition(r#"name == "x" and span.name == "y" and instrumentation_scope.version == "1""#, Context::Event);
        assert!(format!("{event:?}").contains("Field(Event, Name)"));
    }

    #[test]
    fn what_is_none_is_told_by_its_place() {
        for (text, want) in [
            ("", "at byte 0: expected a text in quotes, a number, or a field"),
            ("name", "at byte 4: expected ==, !=, <, <=, > or >=; got the end"),
            ("name == \"a", "at byte 8: expected a quote at the end"),
            ("name == \"a\" nam", "at byte 12: expected and, or, or the end; got \"nam\""),
            ("foo == 1", "at byte 0: expected a field that is known here"),
            ("time_unix_nano == 1", "at byte 0: expected a field that is known here"),
            ("attributes == 1", "expected [\"key\"]"),
            ("Substring(name, 0, 1) == \"a\"", "at byte 0: expected one of IsMatch"),
            ("name == \"\\u0061\"", "at byte 9: expected \\n, \\t, \\r"),
            ("IsMatch(name, \"(\")", "at byte 14: expected a pattern: error: unclosed group"),
            ("(name == \"a\"", "expected )"),
        ] {
            assert!(shown(text).contains(want), "{text}: {}", shown(text));
        }
        let deep = format!("{}true", "not ".repeat(100));
        assert!(shown(&deep).contains("at most 32"), "{}", shown(&deep));
    }
}
