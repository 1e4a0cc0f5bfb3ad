//! The crate's public door: texts in, configurations and reports out.

mod parse;
