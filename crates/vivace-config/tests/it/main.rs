//! The crate's public door: texts in, configurations and reports out.

mod effects;
mod flags;
mod history;
mod hostile;
mod overrides;
mod parse;
mod problems;
mod reference;
mod refused;
