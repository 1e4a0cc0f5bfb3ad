//! Why a text is no query, or asks for what there is not: with the place in the text, for people.

/// Why a query is refused. All variants but [`QueryError::Busy`] are the client's fault (HTTP 400).
///
/// Source: docs/facts/traceql.md, "Static rules".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is longer than [`crate::MAX_QUERY_BYTES`].
    #[error("query is {bytes} bytes long, the limit is {max}")]
    TooLong {
        /// Of this text.
        bytes: usize,
        /// Allowed.
        max: usize,
    },
    /// The text is no query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The query is well formed and makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What the request says beside its query contradicts it, or names what is not there.
    #[error("{0}")]
    Request(String),
    /// The query makes sense and cannot be answered here.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// The query makes sense and there is no room for it just now; this one is not the client's fault.
    #[error("{0}")]
    Busy(String),
}

/// Where a text stops being a query, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse error at line {line}, col {column}: {reason}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The offending token and what was expected, or what is wrong with it.
    pub reason: String,
}

impl ParseError {
    pub(crate) fn at(source: &str, offset: usize, reason: String) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, reason: in_a_line(&reason) }
    }
}

/// Characters of a message that quotes what a client has sent: its beginning and its end, where the reason stands.
const LINE_START: usize = 160;
const LINE_END: usize = 100;

/// A message short enough for one line, cut in the middle. Queries may be large, and so may what is quoted of them.
pub(crate) fn in_a_line(message: &str) -> String {
    let chars = message.chars().count();
    if chars <= LINE_START + LINE_END {
        return message.to_owned();
    }
    let start: String = message.chars().take(LINE_START).collect();
    let end: String = message.chars().skip(chars - LINE_END).collect();
    format!("{start}…{end}")
}
