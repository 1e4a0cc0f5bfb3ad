//! The crate's public door: texts in, configurations and reports out.

mod flags;
mod hostile;
mod overrides;
mod parse;
mod problems;
mod reference;
