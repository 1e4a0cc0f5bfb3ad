//! What tests of several crates share. A dev-dependency only.
//!
//! Start with [`TraceBuilder`]: it makes the messages that a client would send. [`Faulty`] is a bucket that fails when told to.

mod store;
mod trace;

pub use store::{Faults, Faulty, Listings};
pub use trace::{TraceBuilder, attribute};
