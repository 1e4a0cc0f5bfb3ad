//! Tags of other protocols for which OTLP has fields: those that OpenTelemetry's own exporters write, and what the collector makes
//! of what came from elsewhere. The table is in docs/compatibility.md, "Jaeger and Zipkin as OTLP".

use super::output::Value;

/// Whose tags they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `error` is a boolean, and a span without any status has the one of its HTTP request.
    Jaeger,
    /// `error` is a text: what went wrong.
    Zipkin {
        /// Whether texts that are numbers or booleans become such.
        parse_string_tags: bool,
    },
}

/// `Span.SpanKind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// `Status.StatusCode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Unset = 0,
    Ok = 1,
    Error = 2,
}

const ERROR: &[u8] = b"error";
const DESCRIPTION: &[u8] = b"otel.status_description";

/// What the tags of one span said so far. Texts are no longer than the request that they are of.
#[derive(Debug)]
pub(crate) struct Tags {
    dialect: Dialect,
    pub(crate) kind: Option<Kind>,
    pub(crate) trace_state: Vec<u8>,
    pub(crate) scope_name: Vec<u8>,
    pub(crate) scope_version: Vec<u8>,
    is_error: bool,
    /// What went wrong, as `error` says.
    error: Vec<u8>,
    code: Option<Code>,
    description: Option<Vec<u8>>,
    http_code: Option<i64>,
    http_message: Vec<u8>,
}

impl Tags {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            kind: None,
            trace_state: Vec::new(),
            scope_name: Vec::new(),
            scope_version: Vec::new(),
            is_error: false,
            error: Vec::new(),
            code: None,
            description: None,
            http_code: None,
            http_message: Vec::new(),
        }
    }

    /// For the next span.
    pub(crate) fn clear(&mut self) {
        self.kind = None;
        for text in [&mut self.trace_state, &mut self.scope_name, &mut self.scope_version, &mut self.error, &mut self.http_message] {
            // What is held is as large as a request, not as all of them.
            *text = Vec::new();
        }
        (self.is_error, self.code, self.description, self.http_code) = (false, None, None, None);
    }

    /// A text as the value that it is meant as.
    pub(crate) fn value<'t>(&self, text: &'t [u8]) -> Value<'t> {
        match self.dialect {
            Dialect::Zipkin { parse_string_tags: true } => parsed(text),
            Dialect::Zipkin { parse_string_tags: false } | Dialect::Jaeger => Value::Text(text),
        }
    }

    /// Takes note of a tag. Whether it is said by a field then, and is no attribute.
    #[inline]
    pub(crate) fn take(&mut self, key: &[u8], value: Value<'_>) -> bool {
        // The shortest and the longest of those that mean something.
        if !(ERROR.len()..=DESCRIPTION.len()).contains(&key.len()) {
            return false;
        }
        match (key, value) {
            (b"span.kind", Value::Text(text)) => match kind(text) {
                Some(kind) => self.kind = Some(kind),
                None => return false,
            },
            (b"w3c.tracestate", Value::Text(text)) => self.trace_state = text.to_vec(),
            (b"otel.scope.name" | b"otel.library.name", Value::Text(text)) => self.scope_name = text.to_vec(),
            (b"otel.scope.version" | b"otel.library.version", Value::Text(text)) => self.scope_version = text.to_vec(),
            (b"otel.status_code", Value::Text(text)) => match code(text) {
                Some(code) => self.code = Some(code),
                None => return false,
            },
            (DESCRIPTION, Value::Text(text)) => self.description = Some(text.to_vec()),
            (ERROR, value) => return self.take_error(value),
            (b"http.status_code", value) if self.dialect == Dialect::Jaeger => {
                self.http_code = number(value);
                return false;
            }
            (b"http.status_message", Value::Text(text)) if self.dialect == Dialect::Jaeger => {
                self.http_message = text.to_vec();
                return false;
            }
            _ => return false,
        }
        true
    }

    fn take_error(&mut self, value: Value<'_>) -> bool {
        match (self.dialect, value) {
            (_, Value::Bool(true) | Value::Text(b"true")) | (Dialect::Zipkin { .. }, Value::Text(b"")) => {
                self.is_error = true;
                true
            }
            (Dialect::Zipkin { .. }, Value::Text(text)) if text != b"false" => {
                (self.is_error, self.error) = (true, text.to_vec());
                true
            }
            _ => false,
        }
    }

    /// The status and its message, if there is one; and a tag that is an attribute after all.
    #[expect(clippy::type_complexity, reason = "two pairs, used once")]
    pub(crate) fn status(&self, kind: Option<Kind>) -> (Option<(Code, &[u8])>, Option<(&'static [u8], &[u8])>) {
        let description = self.description.as_deref();
        if self.is_error {
            let error = Some(self.error.as_slice()).filter(|text| !text.is_empty());
            let message = description.or(error).unwrap_or(&self.http_message);
            // OpenTelemetry's exporters write the status twice.
            let left = error.filter(|_| self.code.is_none());
            return (Some((Code::Error, message)), left.map(|text| (ERROR, text)));
        }
        if let Some(code) = self.code {
            let message = description.unwrap_or_default();
            return (Some((code, message)).filter(|status| *status != (Code::Unset, b"")), None);
        }
        let failed = match self.http_code {
            None | Some(100..=399) => false,
            // A server that refuses a request has done what it should.
            Some(400..=499) => kind != Some(Kind::Server),
            // Also those that there are not: no client knows what to make of them.
            Some(_) => true,
        };
        let left = description.map(|text| (DESCRIPTION, text));
        (failed.then_some((Code::Error, self.http_message.as_slice())), left)
    }
}

/// A boolean, an integer or a decimal number where a text is one as a whole.
fn parsed(text: &[u8]) -> Value<'_> {
    let Ok(number) = std::str::from_utf8(text) else { return Value::Text(text) };
    // Rust takes "inf" and "NaN" for numbers.
    let is_numeric = number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && number.contains(|c: char| c.is_ascii_digit());
    match number {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if !is_numeric => Value::Text(text),
        _ => match (number.parse(), number.parse::<f64>()) {
            (Ok(integer), _) => Value::Int(integer),
            (_, Ok(decimal)) if decimal.is_finite() => Value::Double(decimal),
            _ => Value::Text(text),
        },
    }
}

fn kind(text: &[u8]) -> Option<Kind> {
    let kinds: [(&[u8], Kind); 5] = [
        (b"internal", Kind::Internal),
        (b"server", Kind::Server),
        (b"client", Kind::Client),
        (b"producer", Kind::Producer),
        (b"consumer", Kind::Consumer),
    ];
    kinds.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, kind)| kind)
}

fn code(text: &[u8]) -> Option<Code> {
    let codes: [(&[u8], Code); 3] = [(b"OK", Code::Ok), (b"ERROR", Code::Error), (b"UNSET", Code::Unset)];
    // Older exporters write the name of the number.
    let text = text.strip_prefix(b"STATUS_CODE_").unwrap_or(text);
    codes.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, code)| code)
}

fn number(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int(number) => Some(number),
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::Bool(_) | Value::Double(_) => None,
    }
}
