use std::fmt;

use crate::node::Position;

/// One thing wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the tree, such as `server.http_listen_port`; empty where the text itself is broken.
    pub path: String,
    /// Line of the file, from 1; 0 where no line can be named.
    pub line: usize,
    /// Column of that line, from 1; 0 where no line can be named.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(path: &str, at: Position, message: String) -> Self {
        Self { path: path.to_owned(), line: at.line, column: at.column, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything wrong in a configuration, in the order of the file. Shown as one line per problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// What was read, such as a file's path.
    pub source_name: String,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "{}: {count} problem{}", self.source_name, if count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// What sort of remark a warning is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// A key is accepted but changes nothing.
    NoEffect,
    /// A value works, but perhaps not as meant. `-config.verify` fails on these.
    Advice,
}

/// A remark on a configuration that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What sort of remark it is.
    pub kind: WarningKind,
    /// Where in the tree.
    pub path: String,
    /// Line of the file, from 1; 0 where no line can be named.
    pub line: usize,
    /// The remark.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}
