//! The command line, in Go's form: `-a=b`, `-a b`, `--a=b`, bare booleans.

use crate::Config;
use crate::reader::Reader;
use crate::value::Value;

/// A parsed command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `-config.file`.
    pub config_file: Option<String>,
    /// `-config.expand-env`.
    pub expand_env: bool,
    /// `-config.verify`.
    pub verify: bool,
    /// `-version`.
    pub version: bool,
}

impl Flags {
    pub(crate) fn apply(&self, _config: &mut Config, _reader: &mut Reader) {}
}

/// Finds the value at a path, and whether it has an effect.
pub(crate) fn descend<'v>(value: &'v mut dyn Value, path: &str) -> Option<(bool, &'v mut dyn Value)> {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    let (used, child) = value.child(head)?;
    match rest {
        None => Some((used, child)),
        Some(rest) => descend(child, rest).map(|(inner, value)| (used && inner, value)),
    }
}
