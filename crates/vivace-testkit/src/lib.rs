//! What tests of several crates share. A dev-dependency only.
//!
//! Start with [`TraceBuilder`]: it makes the messages that a client would send.

mod trace;

pub use trace::{TraceBuilder, attribute};
