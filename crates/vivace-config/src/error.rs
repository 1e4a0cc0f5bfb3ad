//! What is said of a configuration: problems, with which no process starts, and remarks. Only a number of each is kept, and
//! foreign text in them is cut: somebody will one day name the wrong file.

use std::fmt;

use crate::node::Position;

/// So many problems, and as many remarks, are kept and shown; of more only the number is. The wrong file has one in each line.
pub(crate) const KEPT_MAX: usize = 100;

/// Foreign text in a message is cut after so many characters, and a path too.
const SHOWN_CHARS: usize = 200;

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
        Self { path: shortened(path), line: at.line, column: at.column, message }
    }
}

/// A text as a message shows it: quoted, and not longer than a line or two.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// What is wrong, as it is found.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        if self.list.len() < KEPT_MAX {
            self.list.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Whether a further problem will only be counted.
    pub(crate) fn are_enough(&self) -> bool {
        self.list.len() >= KEPT_MAX
    }

    /// Whether the value of a key was refused already.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.list.iter().any(|problem| problem.path == path)
    }

    /// None where nothing is wrong.
    pub(crate) fn into_errors(self, source: &str) -> Option<ConfigErrors> {
        let Self { list: mut problems, more } = self;
        if problems.is_empty() {
            return None;
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Some(ConfigErrors { source_name: source.to_owned(), problems, more })
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

/// What is wrong in a configuration, in the order of the file. Shown as one line per problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// What was read, such as a file's path.
    pub source_name: String,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
    /// So many further problems are not listed.
    pub more: usize,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len() + self.more;
        write!(f, "{}: {count} problem{}", self.source_name, if count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
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
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}
